"""Real database servers, each started on a free port with a folder of its own, as an ordinary user also under root."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from optuna.storages._rdb import models
from sqlalchemy import NullPool, create_engine, delete, text
from sqlalchemy.exc import DBAPIError, OperationalError

from hpo.storage.schema import metadata
from hpo.storage.study_storage import StudyStorage

__all__ = ["MARIADB", "POSTGRES", "Postgres", "empty_database", "mariadb", "postgres", "postgres_server"]


def _program(name: str, *folders: str) -> str | None:
    """The path of a program; Debian keeps the servers' out of the way."""
    places = [str(folder) for pattern in folders for folder in sorted(Path("/").glob(pattern), reverse=True)]
    return shutil.which(name, path=os.pathsep.join([*places, os.environ["PATH"], "/usr/sbin"]))


POSTGRES = _program("initdb", "usr/lib/postgresql/*/bin")
MARIADB = _program("mariadbd")
# Nothing of these servers outlives its test run, so they wait for no disk; PostgreSQL's word for it is -F.
NO_FLUSH = (
    "--innodb-flush-method=nosync",
    "--innodb-flush-log-at-trx-commit=0",
    "--sync-frm=0",
    "--innodb-doublewrite=0",
)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _user(name: str) -> str | None:
    """The user to run a server as: neither server runs as root."""
    return name if os.geteuid() == 0 and name in {entry.pw_name for entry in pwd.getpwall()} else None


@contextmanager
def _folder(user: str | None) -> Iterator[Path]:
    """A folder of the user's, outside pytest's own, which nobody else may enter."""
    path = Path(tempfile.mkdtemp(prefix="hpo-server-"))
    try:
        if user:
            shutil.chown(path, user)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    engine = create_engine(url)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with engine.connect() as connection:
                connection.execute(text("SELECT 1"))
        except OperationalError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"the server did not start: {log.read_text()[-2000:]}")


class Postgres:
    """A PostgreSQL server that can be stopped and started again.

    Attributes:
        url: of an empty database.
    """

    def __init__(self, folder: Path, user: str | None) -> None:
        assert POSTGRES is not None
        self._folder, self._user, port = folder, user, _free_port()
        self.url = f"postgresql+psycopg://hpo@127.0.0.1:{port}/postgres"
        data = str(folder / "data")
        initdb = [POSTGRES, "-D", data, "-U", "hpo", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"]
        subprocess.run(initdb, user=user, check=True, capture_output=True, cwd=folder)
        program = str(Path(POSTGRES).resolve().with_name("postgres"))
        self._command = [program, "-D", data, "-p", str(port), "-k", str(folder), "-h", "127.0.0.1", "-F"]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        log = self._folder / "log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, user=self._user, stdout=output, stderr=output, cwd=self._folder
            )
        _wait(self.url, self._process, log)

    def stop(self) -> None:
        """Stop it, as an operator would who does not wait for clients."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown
            self._process.wait(120)
            self._process = None


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    """A PostgreSQL server that runs."""
    user = _user("postgres")
    with _folder(user) as folder:
        server = Postgres(folder, user)
        try:
            server.start()
            yield server
        finally:
            server.stop()


@contextmanager
def postgres() -> Iterator[str]:
    """A PostgreSQL server; gives the URL of an empty database."""
    with postgres_server() as server:
        yield server.url


@contextmanager
def mariadb() -> Iterator[str]:
    """A MariaDB server; gives the URL of an empty database."""
    assert MARIADB is not None
    user, port = _user("mysql"), _free_port()
    with _folder(user) as folder:
        data, log = folder / "data", folder / "log"
        install = [
            "mariadb-install-db",
            "--no-defaults",
            f"--datadir={data}",
            "--auth-root-authentication-method=normal",
            *NO_FLUSH,
        ]
        subprocess.run([*install, "--skip-test-db"], user=user, check=True, capture_output=True, cwd=folder)
        server = [MARIADB, "--no-defaults", f"--datadir={data}", f"--port={port}", "--bind-address=127.0.0.1"]
        server.append(f"--tmpdir={folder}")  # a server that starts deletes the temporary tables of all others in /tmp
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*server, f"--socket={folder / 'socket'}", *NO_FLUSH],
                user=user, stdout=output, stderr=output, cwd=folder,
            )  # fmt: skip
        try:
            root = f"mysql+pymysql://root@127.0.0.1:{port}"
            _wait(f"{root}/mysql", process, log)
            with create_engine(f"{root}/mysql", isolation_level="AUTOCOMMIT").connect() as connection:
                connection.execute(text("CREATE DATABASE studies CHARACTER SET utf8mb4"))
            yield f"{root}/studies"
        finally:
            process.terminate()
            process.wait(120)


def empty_database(url: str) -> None:
    """Delete every row but the versions of the tables; make the tables where there are none.

    It costs a tenth of new tables, and less than to delete study by study.
    """
    engine = create_engine(url, poolclass=NullPool)
    tables = [*reversed(metadata.sorted_tables), *reversed(models.BaseModel.metadata.sorted_tables)]
    try:
        with engine.begin() as connection:
            for table in tables:
                if "version" not in table.name:
                    connection.execute(delete(table))
    except DBAPIError:  # there are no tables yet, or a test has dropped them
        StudyStorage(url).engine.dispose()
