"""Digest of a data file, which is read again only if it has changed."""

from __future__ import annotations

import hashlib
from pathlib import Path

from hpo.errors import DataError
from hpo.utils.digest import DigestCache, file_state

__all__ = ["digest_file"]

_digests = DigestCache()


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hex digits; it is not read again as long as it has not changed.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return _digests.get(file_state(file), lambda: hashlib.file_digest(file, "sha256").hexdigest())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); correct its permissions") from error
