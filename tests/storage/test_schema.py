"""Databases of other versions, Optuna's and ours: gone on with, or refused unaltered with what helps in one line."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from optuna.trial import FixedTrial, TrialState

from hpo.errors import StorageError
from hpo.storage.schema import VERSION
from hpo.study import StudyStorage
from hpo.study.operations.list_studies import list_studies
from tests.helpers import run_hpo
from tests.study.fixtures import make
from tests.study.helpers import sqlite_url

FIXTURES = Path(make.__file__).parent
CURRENT = ["4.9.0", "5.0.0"]


def copied(folder: Path, version: str) -> str:
    """The URL of a copy of the file that plain Optuna of that version made."""
    shutil.copy(FIXTURES / f"optuna-{version}.db", folder / "plain.db")
    return f"sqlite:///{folder / 'plain.db'}"


def refusal(url: str) -> str:
    """The line with which a database is refused, whoever opens it."""
    lines = []
    for opening in (StudyStorage, list_studies):
        with pytest.raises(StorageError) as error:
            opening(url)
        lines.append(str(error.value))
    assert lines[0] == lines[1]
    assert "\n" not in lines[0]
    return lines[0]


@contextmanager
def statements() -> Iterator[list[str]]:
    """Every statement of every engine."""
    seen: list[str] = []

    def note(_connection, _cursor, statement: str, *_) -> None:
        seen.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)


# Files that plain Optuna made.


@pytest.mark.parametrize("version", CURRENT)
def test_a_plain_study_is_read_as_optuna_reads_it(tmp_path: Path, version: str) -> None:
    url = copied(tmp_path, version)
    expected = optuna.load_study(study_name="plain", storage=url).trials
    study = optuna.load_study(study_name="plain", storage=StudyStorage(url))
    assert study.trials == expected
    assert study.user_attrs == {"made by": version}
    states = {trial.number: trial.state.name for trial in study.trials}
    assert states == {
        **dict.fromkeys((0, 1, 3, 4, 6, 7, 9), "COMPLETE"),
        **dict.fromkeys((2, 8), "PRUNED"),
        5: "FAIL",
        10: "RUNNING",
        11: "WAITING",
    }
    for trial in study.trials[:10]:
        assert len(trial.intermediate_values) == make.STEPS
        if trial.state == TrialState.COMPLETE:
            fixed = FixedTrial(trial.params, number=trial.number)
            assert trial.value == make.objective(fixed) == trial.user_attrs["note"]["sum"]


@pytest.mark.parametrize("version", CURRENT)
def test_a_plain_study_goes_on_under_its_numbers(tmp_path: Path, version: str) -> None:
    url = copied(tmp_path, version)
    study = optuna.load_study(study_name="plain", storage=StudyStorage(url))
    before = study.trials
    study.sampler = optuna.samplers.RandomSampler(seed=1)
    study.optimize(make.objective, n_trials=3)
    assert study.trials[:11] == before[:11]  # the RUNNING one too: whose it is, nobody knows
    assert [trial.number for trial in study.trials] == list(range(14))
    assert [trial.state.name for trial in study.trials[11:]] == ["PRUNED", "COMPLETE", "COMPLETE"]
    assert study.trials[11].params["x"] == 0.125
    study.tell(10, 1000.0)
    assert optuna.load_study(study_name="plain", storage=url).best_trial.number == 10
    assert [(row["trials"], row["complete"], row["running"], row["best"]) for row in list_studies(url)] == [
        (14, 10, 0, 1000)
    ]


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/New_York"])
@pytest.mark.parametrize("version", CURRENT)
def test_local_times_of_optuna_4_do_no_harm(
    tmp_path: Path, version: str, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Optuna 4 stored local times, which Optuna 5 takes for UTC: they are shifted, the time between them is not."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        study = optuna.load_study(study_name="plain", storage=StudyStorage(copied(tmp_path, version)))
        for trial in study.trials[:10]:
            assert trial.duration is not None
            assert timedelta(0) < trial.duration < timedelta(seconds=10)
        study.sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=2)
        study.optimize(make.objective, n_trials=2)
        assert [trial.state.name for trial in study.trials[11:]] == ["PRUNED", "COMPLETE"]
        for trial in study.trials[11:]:
            assert trial.duration is not None
            assert timedelta(0) < trial.duration < timedelta(seconds=60)
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("version", CURRENT)
def test_commands_read_a_study_of_another_tool_and_say_what_training_it_needs(tmp_path: Path, version: str) -> None:
    url = copied(tmp_path, version)
    for command in (["show"], ["trials"], ["report", "--out", "report"], ["export"]):
        done = run_hpo(*command[:1], "plain", *command[1:], "--storage", url, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "report" / "report.html").exists()
    for verb in ("worker", "launch", "evaluate"):
        done = run_hpo(verb, "plain", "--storage", url, cwd=tmp_path)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
        advice = "--objective FILE.py:FUNCTION" if verb == "evaluate" else "hpo launch FILE.py:FUNCTION --name plain"
        assert advice in done.stderr
    listed = run_hpo("list", "--storage", url)
    assert listed.returncode == 0
    assert "not made by hpo" in listed.stdout


@pytest.mark.integration
def test_an_old_schema_is_refused_unaltered_until_the_printed_command_has_run(tmp_path: Path) -> None:
    url = copied(tmp_path, "2.10.1")
    line = refusal(url)
    assert line.startswith(f"storage {url}: an older Optuna made its tables (v2.6.0.a, Optuna {optuna.__version__} ")
    for command in (["list"], ["show", "plain"], ["worker", "plain"], ["launch", "quickstart"], ["dashboard"]):
        done = run_hpo(*command, "--storage", url, cwd=tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (2, "", f"hpo: {line}\n")
    assert (tmp_path / "plain.db").read_bytes() == (FIXTURES / "optuna-2.10.1.db").read_bytes()

    program, *arguments = shlex.split(line.rpartition("with: ")[2])
    assert program == "optuna"
    subprocess.run([Path(sys.executable).with_name(program), *arguments], check=True, capture_output=True)
    study = optuna.load_study(study_name="plain", storage=StudyStorage(url))
    study.optimize(make.objective, n_trials=2)
    assert [trial.number for trial in study.trials] == list(range(13))
    fixed = FixedTrial(study.best_trial.params, number=study.best_trial.number)
    assert study.best_value == make.objective(fixed)


# Any database.


@pytest.mark.parametrize(
    ("table", "values", "words"),
    [
        ("alembic_version", {"version_num": "v3.0.0.d"}, "an older Optuna made its tables (v3.0.0.d, "),
        ("alembic_version", {"version_num": "v9.0.0.a"}, "get it with: pip install -U optuna"),
        ("hpo_version", {"version": VERSION + 1}, "get it with: pip install -U torch-hpo"),
    ],
)
def test_another_version_is_refused_unread(any_url: str, table: str, values: dict[str, object], words: str) -> None:
    storage = StudyStorage(any_url)
    rows = sa.table(table, *map(sa.column, values))
    with storage.engine.begin() as connection:
        before = dict(connection.execute(sa.select(*rows.c)).mappings().one())
        connection.execute(sa.update(rows).values(values))
    try:
        with statements() as seen:
            assert words in refusal(any_url)
        assert not [text for text in seen if text.split()[0] in ("INSERT", "UPDATE", "DELETE", "CREATE", "ALTER")]
    finally:
        with storage.engine.begin() as connection:
            connection.execute(sa.update(rows).values(before))
        storage.engine.dispose()
    StudyStorage(any_url).engine.dispose()


def test_the_upgrade_is_printed_without_the_password(postgres_url: str) -> None:
    url = postgres_url.replace("hpo@", "hpo:secret@")
    storage = StudyStorage(url)
    with storage.engine.begin() as connection:
        head = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'v3.0.0.a'")
    try:
        line = refusal(url)
    finally:
        with storage.engine.begin() as connection:
            connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{head}'")
        storage.engine.dispose()
    assert "secret" not in line
    assert line.endswith(f"optuna storage upgrade --storage '{storage.masked_url}'")


def test_a_database_that_another_process_is_just_making_is_not_refused(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path)
    storage = StudyStorage(url)
    with storage.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM alembic_version")
        connection.exec_driver_sql("DELETE FROM hpo_version")
    assert list_studies(url) == []
    StudyStorage(url)
    with storage.engine.begin() as connection:
        assert connection.exec_driver_sql("SELECT COUNT(*) FROM alembic_version").scalar() == 1
        connection.exec_driver_sql("DROP TABLE alembic_version")
        connection.exec_driver_sql("UPDATE version_info SET schema_version = 11")
    assert "an older Optuna made its tables (before 0.9, " in refusal(url)


def test_the_version_costs_an_opening_few_statements_and_no_write(any_url: str) -> None:
    StudyStorage(any_url).engine.dispose()
    with statements() as ours:
        StudyStorage(any_url).engine.dispose()
    assert not [text for text in ours if text.split()[0] in ("INSERT", "UPDATE", "DELETE", "CREATE", "ALTER")]
    assert len(ours) <= 30, "\n".join(ours)
