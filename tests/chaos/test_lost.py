"""A worker that loses its trial at an awkward moment drops it without a word of failure, and goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

import hpo.execution.cohort_trainer
from hpo.execution.worker import Worker
from hpo.storage.tables import LEASES
from hpo.study import Study, StudyStorage
from hpo.study.input.study_file import parse_definition
from tests.data import small_npz
from tests.study.helpers import holder, new_storage
from tests.workers import make_worker

SMALL = {"widths": "8", "epochs": 3, "batch_size": 32, "learning_rate": {"low": 0.001, "high": 0.1, "log": True}}


def make(folder: Path) -> Study:
    table = {"dataset": str(small_npz(folder / "small.npz")), "trials": 3, "parameters": SMALL}
    sampler = {"name": "tpe", "n_startup_trials": 0}
    name, definition, budget = parse_definition({**table, "sampler": sampler}, "small", folder)
    return Study.create(new_storage(folder), name, definition, budget)


def taken_over(study: Study, worker: Worker, then: str) -> None:
    """Another process takes the running trial over, as when this one was suspended for long."""
    with study.storage.engine.begin() as connection:
        connection.execute(sa.update(LEASES).values(expires=0.0))
    other = StudyStorage(study.storage.url.render_as_string(hide_password=False))
    claimed = other.claim(study.id, holder("other"))
    assert claimed is not None
    if then == "finished":
        other.set_trial_state_values(claimed.trial_id, TrialState.PRUNED, [0.25])
    else:
        other.release(claimed.trial_id)
    other.engine.dispose()
    study.storage.renew_leases(worker.info)  # the heartbeat hears of it first


def once_before(call: Callable[..., Any], happens: Callable[[], None]) -> Callable[..., Any]:
    """A call before whose first time something happens."""
    left = [happens]

    def calling(*args: Any, **kwargs: Any) -> Any:
        while left:
            left.pop()()
        return call(*args, **kwargs)

    return calling


@pytest.mark.parametrize("then", ["finished", "given back"])
@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (StudyStorage, "_adopt"),
        (Study, "suggest_config"),
        (hpo.execution.cohort_trainer, "train"),
        (StudyStorage, "tell"),
    ],
    ids=["as it is claimed", "while it is sampled", "before it is trained", "before it is told"],
)
def test_it_goes_on_with_others(
    owner: object,
    name: str,
    then: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    study = make(tmp_path)
    first = study.claim(holder("first"))  # so that there is something to sample from
    assert first is not None
    study.suggest_config(first)
    study.storage.set_trial_state_values(first.id, TrialState.COMPLETE, [0.5])
    again = study.claim(holder("first"))  # so that there is something to go on with
    assert again is not None
    study.suggest_config(again)
    if owner is hpo.execution.worker:
        study.storage.release(again.id)
    else:
        study.storage.set_trial_state_values(again.id, TrialState.COMPLETE, [0.25])
    worker = make_worker(study)
    monkeypatch.setattr(owner, name, once_before(getattr(owner, name), lambda: taken_over(study, worker, then)))
    worker.run()
    assert study.remaining() == 0
    assert {trial.state for trial in study.trials()} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert "taken it over" in caplog.text or "taken over" in caplog.text
    assert not [r.message for r in caplog.records if r.levelno >= logging.WARNING and "begins anew" not in r.message]
