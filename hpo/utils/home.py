"""Default places and resources: `HPO_HOME`, the storage that commands use by default, `HPO_DATA`, cores."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from hpo.errors import RequestError

__all__ = ["cores", "data_folder", "default_storage", "file_url", "home", "make_folder", "yield_cores"]


def home() -> Path:
    """Return the folder of the database, logs and reports: `HPO_HOME`, or `hpo_runs` in the working directory.

    Raises:
        RequestError: its path is no text, and so cannot be part of a storage URL.
    """
    path = Path(os.environ.get("HPO_HOME") or "hpo_runs").expanduser().absolute()
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise RequestError(f"HPO_HOME: {os.fsencode(path)!r} is not UTF-8; choose another folder") from None
    return path


def make_folder(path: Path) -> Path:
    """Create a folder in `home()` if it does not exist, and return it.

    Raises:
        RequestError: it cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(
            f"{path}: cannot be created ({error.strerror}); set HPO_HOME to a folder that you can write to"
        ) from error
    return path


def default_storage() -> str:
    """Return the storage URL in `OPTUNA_STORAGE`, or that of the SQLite file in `home()`."""
    return os.environ.get("OPTUNA_STORAGE") or file_url(home() / "hpo.db")


def file_url(path: Path) -> str:
    """Return the storage URL of a SQLite file, in which every character of its path means itself."""
    return f"sqlite:///{quote(str(path.absolute()), safe='/ +')}"  # as SQLAlchemy writes it


def data_folder() -> Path | None:
    """Return the folder of data sets that the user names in HPO_DATA, or None."""
    folder = os.environ.get("HPO_DATA")
    return Path(folder).expanduser() if folder else None


def yield_cores() -> None:
    """Let torch's threads sleep while they wait for each other, unless the environment says otherwise.

    They spin by default, and where other programs want the cores, a step of a small model then takes 10 to 50 times as
    long. Nothing changes in a process that has loaded torch already.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
