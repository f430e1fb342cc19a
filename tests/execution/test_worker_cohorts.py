"""A worker that trains several trials at the same time: each is told, pruned, lost and given back by itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

import hpo
import hpo.execution.cohort_sizes
import hpo.execution.cohort_trainer
from hpo.config import registry
from hpo.config.trial_config import TrialConfig
from hpo.errors import OutOfMemoryError, RunError, StudyDeletedError
from hpo.execution.study_callback import RunningTrial
from hpo.execution.trial_recorder import TrialOutcome, TrialRecorder
from hpo.report.data.results import read_results
from hpo.report.data.summary import study_summary
from hpo.storage.leased_storage import TellRequest
from hpo.storage.tables import LEASES, WORK
from hpo.storage.worker_stats import WorkRecorder
from hpo.study import Study, StudyStorage
from hpo.study.files.study_files import StudyFiles, list_local_weights, rank_trials
from hpo.study.input.study_file import parse_definition
from tests.data import small_npz
from tests.stack import Stack
from tests.study.helpers import holder, new_storage, sqlite_url
from tests.workers import make_worker

SMALL = {"widths": "8", "epochs": 3, "batch_size": 32, "learning_rate": {"low": 0.001, "high": 0.1, "log": True}}
COMPLETE, PRUNED, FAIL, WAITING = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.WAITING


def make(folder: Path, **keys: Any) -> Study:
    table = {"dataset": str(small_npz(folder / "small.npz")), "trials": 6, "sampler": "random", "parameters": SMALL}
    return Study.create(new_storage(folder), *parse_definition({**table, **keys}, "small", folder))


def grid(folder: Path, **parameters: list[Any]) -> Study:
    slots = 1
    for values in parameters.values():
        slots *= len(values)
    return make(folder, sampler="grid", trials=slots, parameters={**SMALL, "learning_rate": [0.01], **parameters})


def states(study: Study) -> list[TrialState]:
    return [t.state for t in study.trials()]


def check_whole(study: Study) -> None:
    """Every COMPLETE trial has each of its epochs once, and its best one's value."""
    rows = study.storage.read_epochs(study.id)
    for trial in study.trials():
        if trial.state == COMPLETE:
            epochs = rows[trial._trial_id]
            assert [row["epoch"] for row in epochs] == list(range(1, study.config_of(trial).epochs + 1))
            assert trial.intermediate_values == {int(row["epoch"]): row["val_accuracy"] for row in epochs}
            assert trial.value == max(row["val_accuracy"] for row in epochs)


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> Stack:
    made = Stack()
    monkeypatch.setattr(hpo.execution.cohort_trainer, "train", made)
    monkeypatch.setattr(hpo.execution.cohort_sizes, "measure_cohort_size", lambda configs, data, most: most)
    return made


class Tells:
    """What a storage is told, call by call."""

    def __init__(self, study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[list[TellRequest]] = []
        tell = study.storage.tell

        def noted(results: Sequence[TellRequest]) -> dict[int, Exception]:
            self.calls.append(list(results))
            return tell(results)

        monkeypatch.setattr(study.storage, "tell", noted)


# Sizes.


def test_all_that_fits_is_trained_at_once_and_says_so(tmp_path: Path, stack: Stack) -> None:
    study = make(tmp_path)
    worker = make_worker(study)
    worker.run()
    assert [len(configs) for configs in stack.trained] == [6]
    assert worker.finished == {"COMPLETE": 6}
    assert {t.user_attrs["cohort"] for t in study.trials()} == {6}
    check_whole(study)


@pytest.mark.parametrize(("cohort", "sizes"), [(1, [1] * 6), (4, [4, 2]), (6, [6]), (99, [6])])
@pytest.mark.parametrize("sampler", ["random", {"name": "tpe", "n_startup_trials": 2}])
def test_a_cohort_is_as_large_as_asked(
    tmp_path: Path, stack: Stack, cohort: int, sizes: list[int], sampler: Any
) -> None:
    study = make(tmp_path, sampler=sampler)
    make_worker(study, cohort=cohort).run()
    assert [len(configs) for configs in stack.trained] == sizes
    assert [t.number for t in study.trials()] == list(range(6))
    assert set(states(study)) == {COMPLETE}


@pytest.mark.parametrize(("cohort", "sizes"), [(4, [4, 2]), (None, [1] * 6)])
def test_a_cohort_as_large_as_asked_is_filled_with_trials_of_other_shapes(
    tmp_path: Path, stack: Stack, monkeypatch: pytest.MonkeyPatch, cohort: int | None, sizes: list[int]
) -> None:
    for kept in (registry.models, registry.metrics):
        monkeypatch.setattr(kept, "_entries", dict(kept._entries))

    @hpo.training_loop("of_widths", uses=["epochs", "learning_rate", "batch_size", "width"], stack=True)
    def of_widths(trial: hpo.Trial) -> None:
        pass

    space = {"model": "of_widths", "epochs": 1, "batch_size": 32, "width": [8, 9, 10, 11, 12, 13]}
    study = make(tmp_path, sampler="grid", parameters=space)
    make_worker(study, cohort=cohort).run()
    assert [len(configs) for configs in stack.trained] == sizes
    assert set(states(study)) == {COMPLETE}


def test_trials_with_splits_of_their_own_are_as_many_as_a_cohort_may_have(tmp_path: Path) -> None:
    fixed = {**SMALL, "learning_rate": 0.01}
    study = make(tmp_path, resplit="per_trial", sampler="random", trials=12, parameters=fixed)
    worker = make_worker(study, cohort=4)
    claim = study.claim(worker.info)
    assert claim is not None
    [cohort] = worker.trials.claim_cohorts(claim)
    assert len(cohort) == 4


def test_under_asha_a_sampler_that_learns_from_paused_trials_is_asked_for_several(
    tmp_path: Path, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hpo.execution.cohort_sizes, "measure_speeds", lambda *_: {1: 1.0, 2: 1.8})
    asha = {"name": "asha", "reduction_factor": 4}
    sampler = {"name": "tpe", "n_startup_trials": 4}
    study = make(tmp_path, sampler=sampler, trials=24, pruner=asha, parameters={**SMALL, "epochs": 16})
    worker = make_worker(study)
    sizes = worker.trials._sizes
    asked: list[int] = []
    choose = sizes._choose_at_once
    monkeypatch.setattr(sizes, "_choose_at_once", lambda *given: asked.append(1) or choose(*given))
    worker.run()
    assert len(asked) > 5


@pytest.mark.parametrize(
    ("speeds", "trials", "sizes"),
    [
        ({2: 1.5, 4: 2.5, 8: 3.0}, 70, [6, *[4] * 16]),
        ({2: 1.5, 4: 2.5}, 26, [6, *[2] * 10]),
        ({2: 1.02, 4: 1.04}, 26, [6, *[1] * 20]),  # which would not make up for what the sampler does not know
        ({}, 7, [6, 1]),  # asking for 2 would cost too much of the budget
    ],
)
def test_a_sampler_is_asked_for_start_up_trials_at_once_and_for_as_many_later_as_pay(
    tmp_path: Path,
    stack: Stack,
    speeds: dict[int, float],
    trials: int,
    sizes: list[int],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    asked = []

    def measure(draws: Sequence[Sequence[TrialConfig]], _data: object, most: int, left: int) -> dict[int, float]:
        asked.append((len({each.learning_rate for (each,) in draws}) >= most, most, left))
        return {1: 1.0, **speeds}

    monkeypatch.setattr(hpo.execution.cohort_sizes, "measure_speeds", measure)
    study = make(tmp_path, sampler={"name": "tpe", "n_startup_trials": 6}, trials=trials)
    make_worker(study).run()
    assert [len(configs) for configs in stack.trained] == sizes
    assert len({t.params["learning_rate"] for t in study.trials()}) == trials
    assert asked == [(True, 1 + trials // 12, trials - 6)][: len(speeds)]
    assert "asks for 6 of 6 start-up trials at once: they are random anyway" in caplog.text
    why = {
        70: "asks the sampler for 4 trials at once, which costs it about 2.25 of 70 trials; measured speed against one"
        " at a time: 2 at once 1.50 times, 4 at once 2.50 times, 8 at once 3.00 times",
        26: "measured speed against one at a time: 2 at once 1.",
    }
    assert why.get(trials, "") in caplog.text


def test_start_up_trials_are_shared_by_the_live_workers(tmp_path: Path, stack: Stack) -> None:
    study = make(tmp_path, sampler={"name": "tpe", "n_startup_trials": 10}, trials=12)
    other = holder("other")
    study.storage.register_worker(study.id, other)
    held = study.claim(other)
    assert held is not None
    study.suggest_config(held)
    stack.before = lambda call, _: call > 1 and study.storage.delete_study(study.id)
    with pytest.raises(StudyDeletedError):
        make_worker(study).run()
    assert len(stack.trained[0]) == 5


def test_a_device_is_measured_once_for_what_a_cohort_shares(
    tmp_path: Path, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int, int]] = []

    def size(configs: Sequence[TrialConfig], _data: object, most: int) -> int:
        asked.append((configs[0].batch_size, len({c.batch_size for c in configs}), most))
        return 2

    monkeypatch.setattr(hpo.execution.cohort_sizes, "measure_cohort_size", size)
    study = grid(tmp_path, batch_size=[32, 64], widths=["4", "8", "16", "32"], epochs=[1, 2])
    make_worker(study).run()
    assert asked == [(32, 1, 3), (64, 1, 3)]  # one of each run, of one batch size and about one width
    assert sorted(len(configs) for configs in stack.trained) == [4] * 4  # two runs, and their prefixes
    assert set(states(study)) == {COMPLETE}


def test_what_was_taken_over_says_nothing_of_what_waits(tmp_path: Path, stack: Stack) -> None:
    study = make(tmp_path)
    dead = holder("dead", seconds=-1)
    study.storage.register_worker(study.id, dead)
    assert study.claim(dead) is not None
    other = Study(StudyStorage(sqlite_url(tmp_path)), "small")  # the dead worker's own would not look for a second
    make_worker(other).run()
    assert [len(configs) for configs in stack.trained] == [1, 5]
    assert set(states(other)) == {COMPLETE}


def test_a_sampler_that_fails_for_a_companion_costs_no_trial(
    tmp_path: Path, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make(tmp_path, sampler={"name": "tpe", "n_startup_trials": 2})
    asked, open_trial = [0], study.open_trial

    def fail(*arguments: Any) -> Any:
        asked[0] += 1
        if asked[0] == 3:
            raise ValueError("no idea")
        return open_trial(*arguments)

    monkeypatch.setattr(study, "open_trial", fail)
    make_worker(study, cohort=4).run()
    assert len(stack.trained[0]) == 1
    assert states(study) == [COMPLETE] * 6


def test_time_in_training_counts_while_it_lasts() -> None:
    work = WorkRecorder()
    with work.measure("training"):
        before = work.current_seconds()["training"]
        assert work.current_seconds()["training"] > before
    assert work.current_seconds() == work.seconds


def test_what_cannot_be_stacked_is_asked_along_and_is_a_stack_of_one(tmp_path: Path, stack: Stack) -> None:
    space = {**SMALL, "optimizer": ["adam", "lbfgs"], "batch_size": [16, 32]}
    study = make(tmp_path, sampler={"name": "tpe", "n_startup_trials": 99}, trials=12, parameters=space)
    make_worker(study, cohort=12).run()
    largest = max(stack.trained, key=len)
    assert len(largest) > 6
    assert {each.optimizer for each in largest} == {"adam", "lbfgs"}
    assert {each.batch_size for each in largest} == {16, 32}
    assert set(states(study)) == {COMPLETE}


# Telling.


def test_who_ends_earlier_is_told_earlier_and_those_who_end_together_at_once(
    tmp_path: Path, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = grid(tmp_path, epochs=[1, 2, 4], widths=["4", "8"])
    other = Study(StudyStorage(sqlite_url(tmp_path)), "small")
    done: list[int] = []
    stack.before = lambda _, epoch: done.append(states(other).count(COMPLETE)) if epoch > 1 else None
    tells = Tells(study, monkeypatch)
    make_worker(study).run()
    assert [len(call) for call in tells.calls] == [2, 2, 2]
    # What ended with an epoch is told as the next one begins, not when all have ended.
    assert done == [0, 2, 4]
    check_whole(study)


def test_the_best_of_those_told_at_once_keep_their_weights(tmp_path: Path) -> None:
    study = make(tmp_path, trials=12)
    make_worker(study).run()
    assert sorted(list_local_weights(study)) == sorted(number for _, number in rank_trials(study)[0])


def test_epochs_that_one_run_answers_are_all_told(tmp_path: Path) -> None:
    study = grid(tmp_path, epochs=[1, 2, 4], widths=["4", "8"])
    make_worker(study).run()
    assert states(study) == [COMPLETE] * 6
    check_whole(study)


# One member's trouble.


def test_a_pruned_one_leaves_the_others(tmp_path: Path, stack: Stack) -> None:
    pruner = {"name": "percentile", "percentile": 50.0, "n_startup_trials": 1}
    space = {**SMALL, "learning_rate": [0.09, 0.01, 0.1]}
    study = make(tmp_path, sampler="grid", pruner=pruner, trials=3, parameters=space)
    make_worker(study, cohort=1).work_on(study.claim(holder("before")))  # type: ignore[arg-type]
    make_worker(study).run()
    assert [len(configs) for configs in stack.trained] == [1, 2]
    assert states(study) == [COMPLETE, PRUNED, COMPLETE]
    assert list(study.trials()[1].intermediate_values) == [1]
    check_whole(study)


def test_a_diverged_one_leaves_the_others(tmp_path: Path) -> None:
    monster = {"optimizer": "sgd", "depth": 16, "width": 8, "activation": "relu", "epochs": 2, "batch_size": 32}
    space = {**monster, "learning_rate": [0.01, 1000.0, 0.02]}
    study = make(tmp_path, sampler="grid", trials=3, parameters=space)
    make_worker(study).run()
    assert states(study) == [COMPLETE, PRUNED, COMPLETE]
    assert study.trials()[1].user_attrs["failure"] == "diverged"
    check_whole(study)


def test_an_error_in_the_midst_costs_no_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.metrics, "_entries", dict(registry.metrics._entries))
    calls = []

    @hpo.metric("moody", direction="maximize")
    def moody(outputs: Any, targets: Any) -> float:
        calls.append(1)
        if len(calls) == 5:
            raise KeyError("not now")
        return float((outputs.argmax(1) == targets).float().mean())

    study = make(tmp_path, objective="moody", trials=4)
    make_worker(study).run()
    assert states(study) == [COMPLETE] * 4
    rows = study.storage.read_epochs(study.id)
    for trial in study.trials():
        assert [row["epoch"] for row in rows[trial._trial_id]] == [1, 2, 3]
        assert trial.intermediate_values == {int(row["epoch"]): row["moody"] for row in rows[trial._trial_id]}


def test_an_error_in_what_comes_of_a_trial_fails_it_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = TrialRecorder._judge

    def fail(recorder: TrialRecorder, trial: RunningTrial, *more: Any) -> TrialOutcome:
        if trial.claim.number == 1:
            raise ValueError("odd")
        return judge(recorder, trial, *more)

    monkeypatch.setattr(TrialRecorder, "_judge", fail)
    study = make(tmp_path, trials=3)
    make_worker(study).run()
    assert states(study) == [COMPLETE, FAIL, COMPLETE]
    assert study.trials()[1].user_attrs["message"] == "ValueError: odd"
    check_whole(study)


@pytest.mark.parametrize(
    ("error", "state", "kind"),
    [(RunError("metric 'm': KeyError: 0"), FAIL, "error"), (OutOfMemoryError("1 MiB"), PRUNED, "out_of_memory")],
)
def test_an_error_hits_the_trial_that_has_it(
    tmp_path: Path, stack: Stack, error: Exception, state: TrialState, kind: str
) -> None:
    def fail(call: int, epoch: int) -> None:
        if epoch == 2 and any(config.widths == "8" for config in stack.trained[call - 1]):
            raise error

    stack.before = fail
    study = grid(tmp_path, widths=["4", "8", "16"])
    make_worker(study).run()
    assert states(study) == [COMPLETE, state, COMPLETE]
    assert study.trials()[1].user_attrs["failure"] == kind
    assert [t.user_attrs.get("cohort") for t in study.trials()] == [1, None, 1]
    check_whole(study)


def test_too_many_errors_stop_the_worker_and_give_the_rest_back(tmp_path: Path, stack: Stack) -> None:
    def fail(_call: int, _epoch: int) -> None:
        raise ValueError("always")

    stack.before = fail
    study = make(tmp_path, trials=9)
    with pytest.raises(RunError, match="5 trials in a row failed"):
        make_worker(study).run()
    assert states(study) == [FAIL] * 5 + [WAITING] * 4
    assert study.storage.count_held_by_others(study.id) == 0


def test_a_lost_one_leaves_the_others(tmp_path: Path, stack: Stack, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    study = make(tmp_path, trials=3)
    other = Study(StudyStorage(sqlite_url(tmp_path)), "small")

    def steal(_call: int, epoch: int) -> None:
        if epoch == 2:
            study.storage.flush()
            lost = other.trials()[1]._trial_id
            with other.storage.engine.begin() as connection:
                connection.execute(sa.update(LEASES).where(LEASES.c.trial_id == lost).values(expires=0.0))
            claim = other.claim(holder("thief", seconds=3600))
            assert claim is not None
            assert claim.number == 1
            other.storage.set_trial_state_values(claim.id, COMPLETE, [0.125])

    stack.before = steal
    worker = make_worker(study, lease=3600)
    worker.run()
    assert worker.finished == {"COMPLETE": 2}
    assert "trial 1 is not this worker's any more" in caplog.text
    fresh = Study(StudyStorage(sqlite_url(tmp_path)), "small").trials()
    assert [t.state for t in fresh] == [COMPLETE] * 3
    assert [len(t.intermediate_values) for t in fresh] == [3, 1, 3]
    assert fresh[1].value == 0.125


def test_when_all_are_lost_training_stops_at_once(
    tmp_path: Path, stack: Stack, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    study = make(tmp_path, trials=2)
    other = Study(StudyStorage(sqlite_url(tmp_path)), "small")
    worker = make_worker(study, lease=3600)
    epochs = []

    def steal(_call: int, epoch: int) -> None:
        epochs.append(epoch)
        if epoch == 2:
            with other.storage.engine.begin() as connection:
                connection.execute(sa.update(LEASES).values(expires=0.0))
            while (claim := other.claim(holder("thief", seconds=3600))) is not None:
                other.storage.set_trial_state_values(claim.id, COMPLETE, [0.125])
            study.storage.renew_leases(worker.info)

    stack.before = steal
    worker.run()
    assert epochs == [1, 2]
    assert [f"trial {n} is not this worker's any more" in caplog.text for n in (0, 1)] == [True, True]
    assert worker.finished == {}


class Killed(BaseException):
    """What a worker's process does not survive."""


def test_a_trial_that_kills_its_workers_takes_no_other_along(tmp_path: Path, stack: Stack) -> None:
    def kill(call: int, _epoch: int) -> None:
        if any(config.widths == "8" for config in stack.trained[call - 1]):
            raise Killed

    stack.before = kill
    study = grid(tmp_path, widths=["4", "8", "16", "32"])
    for _ in range(10):
        try:
            make_worker(study).run()
            break
        except Killed:
            with study.storage.engine.begin() as connection:
                connection.execute(sa.update(LEASES).values(expires=0.0))
            study = Study(StudyStorage(sqlite_url(tmp_path)), "small")  # another process
    assert states(study) == [COMPLETE, FAIL, COMPLETE, COMPLETE]
    assert "5 workers died of it" in study.trials()[1].user_attrs["message"]
    check_whole(study)


def test_a_stop_gives_all_back_and_they_go_on(tmp_path: Path) -> None:
    study = make(tmp_path, trials=4, parameters={**SMALL, "epochs": 4})
    asked = []

    def stop() -> bool:
        running = [t for t in study.trials() if t.state == TrialState.RUNNING]
        asked.extend(t.number for t in running if len(t.intermediate_values) == 2)
        return bool(asked)

    make_worker(study, stop, checkpoint_every=0, cohort=4).run()
    assert WAITING in states(study)
    assert set(states(study)) <= {WAITING, COMPLETE}
    assert study.storage.read_workers(study.id) == []
    assert study.storage.count_held_by_others(study.id) == 0
    waiting = [t.number for t in study.trials() if t.state == WAITING]
    files = [int(path.stem) for path in StudyFiles(study).checkpoint(0).parent.glob("*.pt")]
    assert sorted(files) == waiting
    make_worker(study).run()
    assert set(states(study)) == {COMPLETE}
    check_whole(study)


# What it says of itself.


def test_what_workers_did_is_told_after_they_have_ended(tmp_path: Path, stack: Stack) -> None:
    study = make(tmp_path, trials=10)
    assert study_summary(read_results(study))["work"] is None
    make_worker(study, cohort=4).run()
    make_worker(study).run()  # which finds nothing to do
    work = study_summary(read_results(study))["work"]
    assert (work["workers"], work["told"]) == (2, 10)
    assert work["cohort_size"] == pytest.approx(10 / len(stack.trained), abs=0.01)
    assert work["trials_per_hour"] > 0
    shares = [work[name] for name in ("training", "storage", "sampling")]
    assert all(share > 0 for share in shares)
    assert sum(shares) <= 1.001
    study.storage.delete_study(study.id)
    with study.storage.engine.connect() as connection:
        assert connection.execute(sa.select(WORK)).all() == []
