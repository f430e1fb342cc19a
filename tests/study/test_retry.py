"""What is tried again, and what is not."""

from __future__ import annotations

import sqlite3

import optuna
import psycopg
import pymysql
import pytest
import sqlalchemy.exc
import tenacity

from hpo.study import StudyStorage
from hpo.study import storage as storage_module
from hpo.study.retry import is_transient
from tests.study.helpers import make_study


def operational(origin: Exception) -> sqlalchemy.exc.OperationalError:
    return sqlalchemy.exc.OperationalError("UPDATE", {}, origin)


@pytest.mark.parametrize(
    ("origin", "transient"),
    [
        (sqlite3.OperationalError("database is locked"), True),
        (sqlite3.OperationalError("attempt to write a readonly database"), False),
        (pymysql.err.OperationalError(1213, "Deadlock found"), True),
        (pymysql.err.OperationalError(1045, "Access denied"), False),
        (psycopg.errors.DeadlockDetected("deadlock detected"), True),
        (psycopg.errors.AdminShutdown("terminating connection"), True),
        (psycopg.OperationalError("connection refused"), True),
        (psycopg.errors.InvalidPassword("password authentication failed"), False),
    ],
)
def test_what_is_transient(origin: Exception, transient: bool) -> None:
    assert is_transient(operational(origin)) is transient
    wrapped = optuna.exceptions.StorageInternalError("An exception is raised during the commit.")
    wrapped.__cause__ = operational(origin)
    assert is_transient(wrapped) is transient
    assert not is_transient(ValueError("locked"))


def test_a_deadlock_costs_no_trial(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make_study(tmp_path)
    tries = 0
    real = storage_module._upsert

    def unlucky(*arguments) -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise operational(pymysql.err.OperationalError(1213, "Deadlock found"))
        real(*arguments)

    monkeypatch.setattr(storage_module, "_upsert", unlucky)
    monkeypatch.setattr(tenacity.nap.time, "sleep", lambda seconds: None)
    study.storage.record_epoch(study.id, 1, 1, 1, {"epoch": 1})
    assert tries == 3
    assert study.storage.epochs(study.id) == {1: [{"epoch": 1}]}


def test_a_lasting_error_is_said_at_once(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage: StudyStorage = make_study(tmp_path).storage

    def read_only(*_) -> None:
        raise operational(sqlite3.OperationalError("attempt to write a readonly database"))

    monkeypatch.setattr(storage_module, "_upsert", read_only)
    with pytest.raises(sqlalchemy.exc.OperationalError) as error:
        storage.record_epoch(1, 1, 1, 1, {"epoch": 1})
    assert storage.explain(error.value).endswith("does not answer: attempt to write a readonly database")
