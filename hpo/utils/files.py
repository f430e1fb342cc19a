"""Files that a reader never sees half of."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

__all__ = ["publish", "remove"]


def publish(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write beside the file, bring it to the disk, and rename.

    Raises:
        OSError: the file cannot be written; the one that was there stays.
    """
    # The name is this attempt's alone: a second process, of another host too, may be writing the same file.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Delete the file, where there is one, and what writers that were killed have left beside it.

    Raises:
        OSError: they cannot be deleted.
    """
    for each in [path, *(left for left in path.parent.glob(".*") if left.name.startswith(f".{path.name}."))]:
        each.unlink(missing_ok=True)
