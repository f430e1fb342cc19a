"""What is tried again, and what is not."""

from __future__ import annotations

import sqlite3
from typing import Any

import optuna
import psycopg
import pymysql
import pytest
import sqlalchemy.exc
from optuna.trial import TrialState

from hpo.storage import leases
from hpo.storage.transient_errors import is_transient
from hpo.study import StudyStorage
from tests.study.helpers import holder, make_study


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
    real = leases.claim

    def unlucky(*arguments: Any) -> bool:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise operational(pymysql.err.OperationalError(1213, "Deadlock found"))
        return real(*arguments)

    monkeypatch.setattr(leases, "claim", unlucky)
    assert study.claim(holder()) is not None
    assert tries == 3
    assert study.storage.count_trials(study.id)[TrialState.RUNNING] == 1


def test_a_lasting_error_is_said_at_once(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage: StudyStorage = make_study(tmp_path).storage

    def read_only(*_: Any, **__: Any) -> None:
        raise operational(sqlite3.OperationalError("attempt to write a readonly database"))

    monkeypatch.setattr(leases, "find_claimable", read_only)
    with pytest.raises(sqlalchemy.exc.OperationalError) as error:
        storage.claim(1, holder())
    assert storage.explain(error.value).endswith("does not answer: attempt to write a readonly database")
