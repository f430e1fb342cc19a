"""Health checks of `hpo doctor`: Python, torch, the packages, a storage, the data sets and the disk.

They change nothing: no table and no file is created.
"""

from __future__ import annotations

import glob
import importlib.metadata
import os
import platform
import shutil
import stat
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Literal

import sqlalchemy as sa
from packaging.requirements import Requirement
from sqlalchemy.engine import URL

from hpo.datasets import describe
from hpo.errors import StorageError
from hpo.storage.network_fs import ALLOW, RECIPE, find_network_mount
from hpo.storage.schema import check_schema, read_schema
from hpo.storage.tables import wall_clock
from hpo.storage.url import is_file, make_plain_engine, mask, normalize, translate_connect_errors
from hpo.study.input import templates
from hpo.utils.home import cores, home
from hpo.utils.text import first_line

__all__ = ["HealthCheck", "read_recipe", "run_checks"]

State = Literal["ok", "warning", "problem"]

SHOWN = ("optuna", "optuna-dashboard", "sqlalchemy")
ROUND_TRIPS = 15
SLOW = 20.0  # milliseconds of a round trip: a trial of 25 statements then waits half a second
CLOCK = 2.0  # seconds; clocks that are synchronized differ by much less
LITTLE_DISK, NO_DISK = 2.0, 0.2  # GB: the checkpoints and weights of a few studies; of one trial
MAY_CREATE = "SELECT has_schema_privilege(current_schema(), 'CREATE')"


@dataclass(frozen=True)
class HealthCheck:
    """Result of one check.

    Attributes:
        check: name of the check.
        state: `ok`; `warning` if it works, but not as well as it could; `problem` if it does not work.
        found: the present state, in a line.
        advice: what to do; empty if the state is ok.
    """

    check: str
    state: State
    found: str
    advice: str = ""


def run_checks(storage: str) -> list[HealthCheck]:
    """Check Python, torch, the packages, the storage, the data sets and the disk; change nothing.

    Args:
        storage: URL of the storage; its password is not in the results.
    """
    checks: list[Callable[[], Iterable[HealthCheck]]] = [
        _python, _torch, _packages, lambda: _storage(storage), _datasets, _home
    ]  # fmt: skip
    return [result for check in checks for result in check()]


def read_recipe() -> str:
    """Return the guide to running your own PostgreSQL without root, as Markdown."""
    return (templates.template_folder("docs") / "postgresql.md").read_text(encoding="utf-8")


# Software and devices.


def _python() -> Iterator[HealthCheck]:
    yield HealthCheck("python", "ok", f"{platform.python_version()} at {sys.executable}, {platform.platform()}")


def _torch() -> Iterator[HealthCheck]:
    try:
        import torch
    except (ImportError, OSError) as error:  # a library that torch needs may be missing
        yield HealthCheck("torch", "problem", f"cannot be imported: {first_line(error)}", "pip install torch")
        return
    yield HealthCheck("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} threads on {cores()} cores")
    if torch.version.cuda is None:
        yield HealthCheck("cuda", "ok", "none: this torch is built for the CPU")
    elif not torch.cuda.is_available():
        advice = (
            "trials run on the CPU; if there is a GPU, see whether nvidia-smi lists it and its driver is new enough"
        )
        yield HealthCheck(
            "cuda", "warning", f"torch is built for CUDA {torch.version.cuda}, but no device answers", advice
        )
    for index in range(torch.cuda.device_count()):
        yield _device(index)


def _device(index: int) -> HealthCheck:
    """Compute something on a device: one that is listed may be broken, full, or too new for this torch."""
    import torch

    name = f"cuda:{index}"
    try:
        ones = torch.ones(64, 64, device=name)
        total = float((ones @ ones).sum().item())
        free, memory = torch.cuda.mem_get_info(index)
    except RuntimeError as error:
        advice = "nvidia-smi shows who uses it; a device that this torch does not support needs a newer torch"
        return HealthCheck(
            name, "problem", f"{torch.cuda.get_device_name(index)} does not work: {first_line(error)}", advice
        )
    if total != 64**3:
        return HealthCheck(name, "problem", f"computes {total} instead of {64**3}", "do not use this device")
    text = f"{torch.cuda.get_device_name(index)}, {free / 1e9:.1f} of {memory / 1e9:.1f} GB free"
    return HealthCheck(name, "ok", f"{text}, CUDA {torch.version.cuda}")


def _packages() -> Iterator[HealthCheck]:
    """Report the versions of the storage's packages, and every package whose version is not the required one."""
    found = ", ".join(f"{name} {_version(name) or 'missing'}" for name in SHOWN)
    requirements = [Requirement(text) for text in importlib.metadata.requires("torch-hpo") or ()]
    needed = [each for each in requirements if each.marker is None or each.marker.evaluate({"extra": ""})]
    wrong = [each for each in needed if not _is_met(each)]
    if not wrong:
        yield HealthCheck("packages", "ok", found)
    for need in wrong:
        version = _version(need.name) or "missing"
        yield HealthCheck(
            "packages", "problem", f"{need.name} is {version}", f"pip install -U '{need.name}{need.specifier}'"
        )


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _is_met(need: Requirement) -> bool:
    version = _version(need.name)
    return version is not None and need.specifier.contains(version, prereleases=True)


# The storage.


def _storage(text: str) -> Iterator[HealthCheck]:
    try:
        url = normalize(text)
        if is_file(url):
            yield from _disk(url)
            if not Path(str(url.database)).exists():
                yield HealthCheck("storage", "ok", f"{mask(url)}: will be created by the first launch")
                return
        with translate_connect_errors(url):
            yield from _database(url)
    except StorageError as error:
        yield _failure("storage", error)


def _failure(check: str, error: StorageError) -> HealthCheck:
    """Return an error's line as a problem: what is wrong, and after a semicolon what to do."""
    found, _, advice = str(error).partition("; ")
    default = "check that the server runs, that this machine reaches it, and the URL's user, password and database"
    return HealthCheck(check, "problem", found, advice or default)


def _disk(url: URL) -> Iterator[HealthCheck]:
    """Check the disk of a SQLite file, which need not exist yet."""
    path = Path(str(url.database))
    if where := find_network_mount(url):
        allowed = bool(os.environ.get(ALLOW))
        advice = f"{ALLOW} allows it: no second machine may open it" if allowed else f"use a local disk; or {RECIPE}"
        yield HealthCheck(
            "storage's disk", "warning" if allowed else "problem", f"network file system ({where})", advice
        )
    elif why := _unwritable(path.parent):
        yield HealthCheck("storage's disk", "problem", why, "give a --storage in a folder that you can write to")
    elif path.exists() and not os.access(path, os.W_OK):
        yield HealthCheck("storage's disk", "problem", f"{path} is read-only for you", "ls -l shows its owner")
    elif everyone := _writable_by_everyone(path):
        yield everyone
    else:
        yield HealthCheck("storage's disk", "ok", f"{_existing(path.parent)} is local and writable")


def _writable_by_everyone(path: Path) -> HealthCheck | None:
    """Return a warning if every user of this machine may write to a SQLite file, or put another in its place."""
    files = sorted(path.parent.glob(f"{glob.escape(path.name)}*"))
    places = files if _is_shared(path.parent) else [path.parent, *files]
    return _open_to_all("storage's disk", places, f"chmod o-w {' '.join(quote(str(each)) for each in places)}")


def _database(url: URL) -> Iterator[HealthCheck]:
    engine = make_plain_engine(url)
    try:
        with engine.connect() as connection:
            yield _server(connection, url)
            yield _schema(connection, url)
            yield _latency(connection)
            if connection.dialect.name != "sqlite":
                yield _clock(connection)
    finally:
        engine.dispose()


def _server(connection: sa.Connection, url: URL) -> HealthCheck:
    dialect = connection.dialect
    kind = "mariadb" if getattr(dialect, "is_mariadb", False) else dialect.name
    version = ".".join(map(str, dialect.server_version_info or ()))
    found = f"{mask(url)}: {kind} {version}"
    if dialect.name == "sqlite":
        mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar()
        found += (
            ", write-ahead log"
            if mode == "wal"
            else f", journal {mode}: becomes a write-ahead log when a launch opens it"
        )
    return HealthCheck("storage", "ok", found)


def _schema(connection: sa.Connection, url: URL) -> HealthCheck:
    schema = read_schema(connection)
    if schema is None:
        if connection.dialect.name == "postgresql" and not connection.exec_driver_sql(MAY_CREATE).scalar():
            advice = "ask the database's owner to GRANT CREATE ON SCHEMA public TO this user"
            return HealthCheck("storage's schema", "problem", "no tables, and this user may not create any", advice)
        return HealthCheck("storage's schema", "ok", "no tables: will be created by the first launch")
    try:
        check_schema(schema, mask(url))
    except StorageError as error:
        return _failure("storage's schema", error)
    ours = "none of torch-hpo yet" if schema.ours is None else f"torch-hpo {schema.ours}"
    return HealthCheck("storage's schema", "ok", f"Optuna {schema.revision or 'just being created'}, {ours}")


def _latency(connection: sa.Connection) -> HealthCheck:
    """Measure the median of some round trips on one connection, as a worker has one."""
    times = []
    for _ in range(ROUND_TRIPS):
        begin = time.perf_counter()
        connection.exec_driver_sql("SELECT 1").scalar()
        times.append(1000 * (time.perf_counter() - begin))
    median = statistics.median(times)
    found = f"{median:.2f} ms per round trip, the median of {ROUND_TRIPS}"
    if median > SLOW:
        return HealthCheck("storage's latency", "warning", found, "use a server closer to the workers")
    return HealthCheck("storage's latency", "ok", found)


def _clock(connection: sa.Connection) -> HealthCheck:
    """Measure the difference of the server's clock from ours, in the middle of the quickest round trip."""
    tries = []
    for _ in range(5):
        begin = time.time()
        server = float(connection.execute(sa.select(wall_clock(connection))).scalar_one())
        end = time.time()
        tries.append((end - begin, server - (begin + end) / 2))
    ahead = min(tries)[1]
    found = f"{abs(ahead):.3f} s {'ahead of' if ahead > 0 else 'behind'} this machine's"
    if abs(ahead) > CLOCK:
        return HealthCheck(
            "storage's clock", "warning", found, "synchronize both machines' clocks with a time server (NTP)"
        )
    return HealthCheck("storage's clock", "ok", found)


# Data and disk.


def _datasets() -> Iterator[HealthCheck]:
    for row in describe():
        check = f"data set {row.name}"
        if row.module:
            yield HealthCheck(check, "ok", f"registered by {row.module}; not read")
        elif not row.problem:
            yield HealthCheck(check, "ok", f"{row.path}, checksums are right ({row.checksum[:12]}…)")
        else:
            found, _, advice = row.problem.partition("; ")
            yield HealthCheck(check, "problem" if row.path else "warning", found, advice)


def _home() -> Iterator[HealthCheck]:
    path = home()
    if why := _unwritable(path):
        yield HealthCheck("HPO_HOME", "problem", why, "set HPO_HOME to a folder that you can write to")
        return
    found = f"{path} is writable" if path.exists() else f"{path}: will be created by the first launch"
    everyone = _open_to_all(
        "HPO_HOME", [path, *path.glob("*/"), *path.glob("*/*/")], f"chmod -R o-w {quote(str(path))}"
    )
    yield everyone or HealthCheck("HPO_HOME", "ok", found)
    free = shutil.disk_usage(_existing(path)).free / 1e9
    found = f"{free:.1f} GB free for {path}"
    if free < LITTLE_DISK:
        state: State = "problem" if free < NO_DISK else "warning"
        yield HealthCheck("disk", state, found, "free some space, or set HPO_HOME to a folder on a larger disk")
    else:
        yield HealthCheck("disk", "ok", found)


def _open_to_all(check: str, paths: Iterable[Path], mend: str) -> HealthCheck | None:
    """Return a warning if every user of this machine may change one of the files, or those in a folder."""
    modes = {path: path.stat().st_mode for path in paths if path.exists() and not path.is_symlink()}
    found = [path for path, mode in modes.items() if mode & stat.S_IWOTH]
    if not found:
        return None
    if modes[found[0]] & stat.S_ISVTX:  # such as /tmp, which is to stay so
        mend = "use a folder of your own"
    which = f"{found[0]} and {len(found) - 1} more" if len(found) > 1 else str(found[0])
    return HealthCheck(check, "warning", f"every user of this machine may write to {which}", mend)


def _is_shared(folder: Path) -> bool:
    """Return whether a folder is one that everybody uses, and each only their own files in it, such as /tmp."""
    return folder.exists() and bool(folder.stat().st_mode & stat.S_ISVTX)


def _existing(path: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _unwritable(path: Path) -> str | None:
    """Return why a folder cannot be written to, or cannot be created; None if it can."""
    folder = _existing(path)
    try:
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return f"cannot write to {folder}: {error.strerror}"
