"""Registered names that live in a notebook or a script that is run, sent to the workers that this very process
starts.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpo.errors import RegistryError, RequestError
from hpo.utils.files import write_atomically
from hpo.utils.text import summarize_error

if TYPE_CHECKING:
    from hpo.config.registry import Entry

__all__ = ["SUFFIX", "read_entries", "write_entries"]

SUFFIX = ".entries.pkl"  # of a file that `--import` takes like a module


def write_entries(entries: Sequence[Entry], folder: Path) -> Path:
    """Write entries to a file, with all that their functions refer to, and return its path.

    Raises:
        RequestError: they refer to something that cannot be pickled.
    """
    import cloudpickle  # type: ignore[import-untyped]

    try:
        content = cloudpickle.dumps(list(entries))
    except Exception as error:  # whatever an object's own __reduce__ raises
        names = ", ".join(f"'{entry.name}'" for entry in entries)
        raise RequestError(
            f"{names}: cannot be sent from this notebook or script to worker processes ({summarize_error(error)}); "
            "create inside the function what it cannot take along, or use workers=1"
        ) from error
    path = folder / f"{entries[0].name.replace('/', '_')}{SUFFIX}"
    write_atomically(path, pickle.dumps((sys.path, content)))
    return path


def read_entries(path: Path) -> list[Entry]:
    """Read the entries of a file that `write_entries` wrote; modules that they name are found as they were there.

    Raises:
        RegistryError: the file is gone, or they need something that is not here.
    """
    try:
        folders, content = pickle.loads(path.read_bytes())
        sys.path.extend(each for each in folders if each not in sys.path)
        entries: list[Entry] = pickle.loads(content)
    except OSError as error:
        raise RegistryError(f"{path}: cannot be read: {error.strerror}; the process that launched has ended") from error
    except Exception as error:  # an import of the user's can raise anything
        raise RegistryError(f"--import {path}: {summarize_error(error)}") from error
    return entries
