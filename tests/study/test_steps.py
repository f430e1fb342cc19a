"""The losses of steps in SQL: kept, read, deleted and copied with their epochs, on real servers too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from hpo.errors import DefinitionError, LeaseLostError
from hpo.storage.study_storage import EpochSteps
from hpo.storage.tables import STEPS
from hpo.study import ClaimedTrial, Study, StudyStorage
from hpo.study.definition import Definition
from hpo.study.input.study_file import parse_definition
from hpo.study.operations.copy_study import copy_study
from tests.study.helpers import holder, make_study, sqlite_url


def steps(epoch: int, count: int = 4, first: float = 0.1) -> EpochSteps:
    losses = np.linspace(first, 3, count, dtype=np.float32)
    return EpochSteps(epoch, losses, np.arange(count, dtype=np.float32) / 3 + epoch)


def made(storage: StudyStorage, folder: Path, name: str = "small") -> Study:
    table = {"dataset": "mnist", "trials": 3, "sampler": "random", "record_steps": True}
    table["parameters"] = {"epochs": 3, "learning_rate": {"low": 0.1, "high": 0.2}}
    return Study.create(storage, *parse_definition(table, name, folder))


def begun(study: Study, worker: str = "w") -> ClaimedTrial:
    claim = study.claim(holder(worker))
    assert claim is not None
    study.suggest_config(claim)
    return claim


def record(study: Study, claim: ClaimedTrial, *epochs: EpochSteps) -> None:
    for each in epochs:
        study.storage.record_steps(claim.id, each)
        study.storage.record_epoch(claim.id, each.epoch, {"epoch": each.epoch, "val_accuracy": 0.5})


def told(found: list[EpochSteps]) -> list[tuple[int, list[float], list[float]]]:
    return [(each.epoch, each.losses.tolist(), each.seconds.tolist()) for each in found]


def rows(storage: StudyStorage) -> int:
    with storage.engine.connect() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(STEPS)).scalar_one())


def test_they_are_read_as_they_were_recorded(storage: StudyStorage, any_url: str, tmp_path: Path) -> None:
    study = made(storage, tmp_path)
    first, second = begun(study), begun(study)
    # More than 64 kB, and what no number is.
    long = EpochSteps(1, np.full(20_000, np.nan, np.float32), np.linspace(0, 1, 20_000, dtype=np.float32))
    odd = EpochSteps(2, np.array([np.inf, -np.inf, 1e-42], np.float32), np.zeros(3, np.float32))
    record(study, first, long, odd)
    record(study, second, steps(1))
    study.storage.flush()
    other = StudyStorage(any_url)
    found = other.read_steps(study.id)
    assert found.keys() == {first.id, second.id}
    for mine, theirs in zip(found[first.id], (long, odd), strict=True):
        assert mine.losses.tobytes() == theirs.losses.tobytes()
        assert mine.seconds.tobytes() == theirs.seconds.tobytes()
    assert told(found[second.id]) == told([steps(1)])
    assert other.read_steps(study.id, second.id).keys() == {second.id}
    other.engine.dispose()


def test_the_last_attempt_at_each_epoch_counts(storage: StudyStorage, tmp_path: Path) -> None:
    study = made(storage, tmp_path)
    claim = begun(study)
    record(study, claim, steps(1), steps(2), steps(3))
    study.storage.release(claim.id)
    again = begun(study, "other")
    assert (again.id, again.attempt) == (claim.id, 2)
    study.rewind(again, 1)
    assert told(study.storage.read_steps(study.id)[claim.id]) == told([steps(1)])
    record(study, again, steps(1, first=0.5), steps(2, first=0.7))
    expected = [steps(1, first=0.5), steps(2, first=0.7)]
    assert told(study.storage.read_steps(study.id)[claim.id]) == told(expected)


def test_they_go_with_their_trial_and_their_study(storage: StudyStorage, tmp_path: Path) -> None:
    study, other = made(storage, tmp_path), made(storage, tmp_path, "other")
    failed, kept = begun(study), begun(other)
    record(study, failed, steps(1))
    record(other, kept, steps(1))
    storage.set_trial_state_values(failed.id, TrialState.FAIL)
    assert study.retry() == [failed.number]
    assert storage.read_steps(study.id) == {}
    record(study, begun(study), steps(1))
    storage.delete_study(study.id)
    assert rows(storage) == 1
    assert storage.read_steps(other.id).keys() == {kept.id}


def test_what_a_trial_that_is_no_more_has_left_is_not_the_next_ones(tmp_path: Path) -> None:
    """SQLite gives the ids away again, and plain Optuna knows nothing of our tables."""
    study = make_study(tmp_path, sampler="tpe")
    claim = begun(study)
    record(study, claim, steps(1))
    study.storage.flush()
    study.storage._rdb.delete_study(study.id)
    assert rows(study.storage) == 1
    again = StudyStorage(sqlite_url(tmp_path))
    study_id = again.create_new_study([], "plain")
    assert again.create_new_trial(study_id) == claim.id
    assert rows(again) == 0


def test_of_a_trial_that_was_lost_nothing_is_written(storage: StudyStorage, any_url: str, tmp_path: Path) -> None:
    study = made(storage, tmp_path)
    claim = study.claim(holder("slow", seconds=-1))
    assert claim is not None
    taken = Study(StudyStorage(any_url), study.name).claim(holder("fast"))
    assert taken is not None
    assert taken.id == claim.id
    study.storage.record_steps(claim.id, steps(1))
    study.storage.flush()  # which finds out
    with pytest.raises(LeaseLostError):
        study.storage.record_steps(claim.id, steps(2))
    assert rows(study.storage) == 0


def test_a_copy_has_them(storage: StudyStorage, tmp_path: Path) -> None:
    study = made(StudyStorage(f"sqlite:///{tmp_path / 'first.db'}"), tmp_path)
    done, running = begun(study), begun(study)
    record(study, done, steps(1), steps(2))
    record(study, running, steps(1))
    study.storage.set_trial_state_values(done.id, TrialState.COMPLETE, [0.5])
    there = copy_study(study, storage, "there")
    back = copy_study(there, study.storage, "back")
    for copied in (there, back):
        found = copied.storage.read_steps(copied.id)
        by_number = {trial.number: trial._trial_id for trial in copied.trials()}
        assert {number: told(found.get(by_number[number], [])) for number in (0, 1)} == {
            0: told([steps(1), steps(2)]),
            1: [],  # it begins anew
        }


def test_a_database_from_before_gets_the_table(storage: StudyStorage, any_url: str, tmp_path: Path) -> None:
    study = made(storage, tmp_path)
    claim = begun(study)
    storage.flush()
    STEPS.drop(storage.engine)
    again = StudyStorage(any_url)
    assert again.read_steps(study.id, claim.id) == {}
    again.engine.dispose()
    record(study, claim, steps(1))
    assert told(storage.read_steps(study.id)[claim.id]) == told([steps(1)])


def test_the_key_of_a_study_file(tmp_path: Path) -> None:
    assert make_study(tmp_path, "with", record_steps=True).definition.record_steps
    without = make_study(tmp_path, "without").definition
    assert not without.record_steps
    before = without.model_dump(mode="json", exclude={"record_steps"})  # as it was stored before there was the key
    assert Definition.model_validate(before) == without
    with pytest.raises(DefinitionError, match=r"^record_steps = 'yes': must be true or false$"):
        make_study(tmp_path, "bad", record_steps="yes")
