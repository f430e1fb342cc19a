"""Where things are kept: `HPO_HOME`, by default `./hpo_runs`, and the storage a command uses unless told otherwise."""

from __future__ import annotations

import os
from pathlib import Path

from hpo.errors import RequestError

__all__ = ["cores", "data_folder", "default_storage", "folder", "home"]


def home() -> Path:
    """The folder of the database, logs and reports: `HPO_HOME`, or `hpo_runs` in the current folder."""
    return Path(os.environ.get("HPO_HOME") or "hpo_runs").expanduser().absolute()


def folder(*parts: str) -> Path:
    """A folder below `home()`, made if it is missing.

    Raises:
        RequestError: it cannot be made.
    """
    path = home().joinpath(*parts)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"{path}: cannot be made: {error.strerror}; set HPO_HOME to a folder of yours") from error
    return path


def default_storage() -> str:
    """`OPTUNA_STORAGE`, or the SQLite file of `home()`."""
    return os.environ.get("OPTUNA_STORAGE") or f"sqlite:///{home() / 'hpo.db'}"


def data_folder() -> Path | None:
    """Return the folder of data sets that the user names in HPO_DATA, or None."""
    folder = os.environ.get("HPO_DATA")
    return Path(folder).expanduser() if folder else None


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
