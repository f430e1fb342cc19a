"""What the doctor finds, on real files and servers."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import sqlalchemy as sa
import torch

from hpo.execution import doctor
from hpo.execution.doctor import HealthCheck, run_checks
from hpo.storage import network_fs, tables
from hpo.study import StudyStorage
from hpo.utils.home import home
from tests.helpers import ROOT, hpo, run_hpo
from tests.study import fixtures
from tests.study.helpers import new_storage, sqlite_url

FIXTURES = Path(fixtures.__path__[0])


def found(storage: str) -> dict[str, HealthCheck]:
    """The findings by check, none of them twice."""
    findings = run_checks(storage)
    assert len({finding.check for finding in findings}) == len(findings)
    assert all(finding.advice for finding in findings if finding.state != "ok")
    return {finding.check: finding for finding in findings}


def test_before_the_first_launch_all_is_well_and_nothing_is_made(tmp_path: Path) -> None:
    done = run_hpo("doctor", "--format", "json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    rows = {row["check"]: row for row in json.loads(done.stdout)}
    assert list(rows)[:4] == ["python", "torch", "cuda" if "cuda" in rows else "cuda:0", "packages"]
    assert f"{torch.__version__}, " in rows["torch"]["found"]
    for package in ("optuna 5.", "optuna-dashboard 0.", "sqlalchemy 2."):
        assert package in rows["packages"]["found"]
    assert rows["storage"]["found"].endswith("hpo.db: will be created by the first launch")
    assert rows["storage"]["state"] == rows["storage's disk"]["state"] == rows["data set mnist"]["state"] == "ok"
    assert "GB free" in rows["disk"]["found"]
    assert not home().exists()
    assert list(tmp_path.iterdir()) == []


def test_a_table_for_people(tmp_path: Path) -> None:
    done = run_hpo("doctor", "--storage", "sqlite:////proc/nowhere/x.db", cwd=tmp_path)
    assert done.returncode == 1
    line = next(line for line in done.stdout.splitlines() if line.startswith("storage's disk"))
    assert "problem" in line
    assert "cannot write to /proc" in line
    assert "give a --storage in a folder that you can write to" in line


def test_a_sqlite_file(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path)
    StudyStorage(url).get_all_studies()
    findings = found(url)
    assert findings["storage"].found.endswith(", write-ahead log")
    assert findings["storage's schema"].found == "Optuna v3.2.0.a, torch-hpo 1"
    assert 0 < float(findings["storage's latency"].found.split()[0]) < doctor.SLOW
    assert not [check for check, finding in findings.items() if "storage" in check and finding.state != "ok"]
    assert "storage's clock" not in findings  # it is this machine's


@pytest.mark.parametrize(("version", "state"), [("2.10.1", "problem"), ("4.9.0", "ok")])
def test_files_of_plain_optuna_are_not_altered(tmp_path: Path, version: str, state: str) -> None:
    fixture, copy = FIXTURES / f"optuna-{version}.db", tmp_path / "plain.db"
    shutil.copy(fixture, copy)
    findings = found(f"sqlite:///{copy}")
    assert findings["storage's schema"].state == state
    assert ("optuna storage upgrade" in findings["storage's schema"].advice) == (state == "problem")
    assert "becomes a write-ahead log" in findings["storage"].found
    assert copy.read_bytes() == fixture.read_bytes()


@pytest.mark.parametrize(("server", "kind"), [("postgres_url", "postgresql 1"), ("mariadb_url", "mariadb 1")])
def test_a_server(request: pytest.FixtureRequest, server: str, kind: str) -> None:
    url: str = request.getfixturevalue(server)
    StudyStorage(url).engine.dispose()
    findings = found(url)
    assert f": {kind}" in findings["storage"].found
    for check in ("storage", "storage's schema", "storage's latency", "storage's clock"):
        assert findings[check].state == "ok", findings[check]
    assert float(findings["storage's clock"].found.split()[0]) < 0.5
    assert "storage's disk" not in findings


def test_a_database_where_one_may_not_make_tables(postgres_url: str) -> None:
    """An ordinary user's since PostgreSQL 15, unless its owner has granted it."""
    admin = sa.create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql("CREATE ROLE ordinary LOGIN PASSWORD 'secret'")
        connection.exec_driver_sql("CREATE DATABASE bare")
    url = sa.make_url(postgres_url).set(username="ordinary", password="secret", database="bare")
    text = url.render_as_string(hide_password=False)
    bare = sa.create_engine(sa.make_url(postgres_url).set(database="bare"), isolation_level="AUTOCOMMIT")
    try:
        with bare.connect() as connection:
            connection.exec_driver_sql("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
            schema = found(text)["storage's schema"]
            assert (schema.state, schema.found) == ("problem", "no tables, and this user may not create any")
            connection.exec_driver_sql("GRANT CREATE ON SCHEMA public TO ordinary")
            schema = found(text)["storage's schema"]
            assert (schema.state, schema.found) == ("ok", "no tables: will be created by the first launch")
            assert sa.inspect(connection).get_table_names() == []
        done = run_hpo("doctor", "--storage", text)
        assert done.returncode == 0
        assert "ordinary:***@" in done.stdout
        assert "secret" not in done.stdout + done.stderr
    finally:
        bare.dispose()
        with admin.connect() as connection:
            connection.exec_driver_sql("DROP DATABASE bare WITH (FORCE)")
            connection.exec_driver_sql("DROP ROLE ordinary")
        admin.dispose()


@pytest.mark.parametrize(
    ("url", "words", "advice"),
    [
        ("nonsense", "'nonsense' is not a URL", "write sqlite:///"),
        ("postgresql://me:secret@127.0.0.1:1/x", "Connection refused", "check that the server runs"),
        ("postgresql://127.0.0.1:1/x?user=me&password=secret", "password=***", "check that the server runs"),
        ("me:secret@host", "is not a URL", "write sqlite:///"),
        (
            "mssql+pyodbc://me:secret@127.0.0.1:1/x",
            "driver for mssql+pyodbc is missing",
            "use sqlite, postgresql or mysql",
        ),
    ],
)
def test_a_storage_that_cannot_be_opened(url: str, words: str, advice: str) -> None:
    findings = found(url)
    assert findings["storage"].state == "problem"
    assert words in findings["storage"].found
    assert advice in findings["storage"].advice
    assert "secret" not in str(findings)
    assert findings["disk"].state == "ok"  # the others are looked at all the same


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "studies.db").write_text("this is not a database, it is a text of some length\n" * 40)
    assert found(sqlite_url(tmp_path))["storage"].found.endswith("file is not a database")


def test_a_network_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "mounts"
    table.write_text(f"/dev/sda1 / ext4 rw 0 0\nserver:/x {tmp_path} nfs4 rw 0 0\n")
    monkeypatch.delenv(network_fs.ALLOW, raising=False)
    monkeypatch.setattr(network_fs, "MOUNTS", table)
    disk = found(sqlite_url(tmp_path))["storage's disk"]
    assert (disk.state, disk.found) == ("problem", f"network file system (nfs4 at {tmp_path})")
    assert "hpo doctor --recipe" in disk.advice
    monkeypatch.setenv(network_fs.ALLOW, "1")
    assert found(sqlite_url(tmp_path))["storage's disk"].state == "warning"


def test_a_clock_that_is_wrong_and_a_server_that_is_far(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = sa.create_engine("sqlite://")
    with engine.connect() as connection:
        monkeypatch.setitem(tables.CLOCKS, "sqlite", "strftime('%s', 'now') - 100")
        clock = doctor._clock(connection)
        assert clock.state == "warning"
        assert 99 < float(clock.found.split()[0]) < 102
        assert "behind" in clock.found
        monkeypatch.setitem(tables.CLOCKS, "sqlite", "strftime('%s', 'now') + 100")
        assert doctor._clock(connection).found.endswith("ahead of this machine's")
        monkeypatch.setattr(doctor, "SLOW", 0.0)
        assert doctor._latency(connection).state == "warning"


@pytest.mark.integration
def test_a_torch_that_cannot_be_imported(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.99: cannot open shared object file')")
    paths = f"{tmp_path}:{ROOT}"
    done = hpo("doctor", "--format", "json", cwd=tmp_path, PYTHONPATH=paths)
    assert done.returncode == 1, done.stderr
    row = next(row for row in json.loads(done.stdout) if row["check"] == "torch")
    assert (row["state"], row["advice"]) == ("problem", "pip install torch")
    assert "libcudart.so.99" in row["found"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="hardware: no CUDA device")
def test_a_cuda_device_computes() -> None:
    finding = found("sqlite://")["cuda:0"]
    assert finding.state == "ok"
    assert torch.cuda.get_device_name(0) in finding.found


def test_a_package_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    needs = ["click>=8", "optuna>=99", 'pymysql>=99; extra == "mysql"', "no-such-package"]
    monkeypatch.setattr("importlib.metadata.requires", lambda name: needs)
    findings = [(f.state, f.found.split(" is ")[0], f.advice) for f in doctor._packages()]
    assert findings == [
        ("problem", "optuna", "pip install -U 'optuna>=99'"),
        ("problem", "no-such-package", "pip install -U 'no-such-package'"),
    ]


def test_a_damaged_data_set_a_full_disk_and_a_home_that_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = ROOT / "hpo" / "datasets" / "mnist"
    for file in data.glob("*.gz"):
        shutil.copy(file, tmp_path)  # MNIST's files are not Fashion-MNIST's
    monkeypatch.setenv("HPO_DATA", str(tmp_path))
    monkeypatch.setattr(doctor, "LITTLE_DISK", 1e9)
    findings = found("sqlite://")
    assert findings["data set fashion_mnist"].state == "problem"
    assert "another SHA-256" in findings["data set fashion_mnist"].found
    assert findings["disk"].state == "warning"
    monkeypatch.setenv("HPO_HOME", "/proc/nowhere")
    findings = found("sqlite://")
    assert findings["HPO_HOME"].found.startswith("cannot write to /proc")
    assert "disk" not in findings


@pytest.mark.parametrize("shared", ["home", "folder", "file"])
def test_what_everyone_may_write_to_is_a_warning_with_the_command_that_mends_it(tmp_path: Path, shared: str) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    (home / "it's").mkdir()
    new_storage(tmp_path).engine.dispose()
    url = sqlite_url(tmp_path)
    checks = ("HPO_HOME", "storage's disk")
    assert [found(url)[check].state for check in checks] == ["ok", "ok"]
    path = {"home": home, "folder": home / "it's", "file": tmp_path / "studies.db"}[shared]
    path.chmod(path.stat().st_mode | 0o002)
    check, other = reversed(checks) if shared == "file" else checks
    warning = found(url)[check]
    assert (warning.state, warning.found) == ("warning", f"every user of this machine may write to {path}")
    assert found(url)[other].state == "ok"
    assert warning.advice.startswith("chmod ")
    subprocess.run(warning.advice, shell=True, check=True)
    assert [found(url)[each].state for each in checks] == ["ok", "ok"]


def test_a_home_that_everyone_shares_is_not_to_be_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home").chmod(0o1777)
    assert found("sqlite://")["HPO_HOME"].advice == "use a folder of your own"
    new_storage(tmp_path / "home").engine.dispose()
    assert found(sqlite_url(tmp_path / "home"))["storage's disk"].state == "ok"


def test_the_recipe_is_printed() -> None:
    done = run_hpo("doctor", "--recipe")
    assert done.returncode == 0
    assert done.stdout == (ROOT / "docs" / "postgresql.md").read_text(encoding="utf-8")
