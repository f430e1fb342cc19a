"""SHA-256 of files, computed once a process as long as the file stays the same."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import BinaryIO

__all__ = ["DigestCache", "FileState", "file_state"]

FileState = tuple[str, int, int, int]  # path, size, and the times in ns at which content and inode changed last
# A change within the resolution of a file system's clock, up to 2 s, would leave the times as they are.
SETTLED_NS = 2_000_000_000


def file_state(file: BinaryIO) -> FileState:
    """Return the state of an open file, which differs once its content has changed."""
    stat = os.fstat(file.fileno())
    return str(file.name), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


class DigestCache:
    """Digests by the state of the file that they were computed from."""

    def __init__(self) -> None:
        self._digests: dict[FileState, str] = {}

    def get(self, state: FileState, compute: Callable[[], str]) -> str:
        """Return the digest of the file in that state, computed only if it is not known.

        Take the state before the content is read, so that a file that changes meanwhile has another one.
        """
        digest = self._digests.get(state)
        if digest is None:
            digest = compute()
            if time.time_ns() - max(state[2:]) > SETTLED_NS:
                self._digests[state] = digest
        return digest
