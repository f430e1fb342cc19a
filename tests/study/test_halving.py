"""Successive halving decides as algorithm 2 of its paper, and median pruning by all that have come as far."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.pruners import BasePruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpo.storage import leases
from hpo.storage.leased_storage import TellRequest
from hpo.storage.stored_values import PAUSED
from hpo.storage.tables import begin
from hpo.study import Budget, ClaimedTrial, Study, StudyStorage
from hpo.study.definition import ComponentSpec
from hpo.study.halving import AshaPruner
from hpo.study.halving_study import explain_idle_sampler
from hpo.study.input.study_file import parse_definition
from hpo.study.paused import paused_epoch
from hpo.study.pruners import build_pruner
from tests.study.helpers import SPACE, holder, new_storage

COMPLETE, PRUNED, RUNNING, WAITING = TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING, TrialState.WAITING
EPOCHS = 27
Job = tuple[int, int]  # a trial, and the epoch to which it is trained


def algorithm_2(curves: Sequence[Sequence[float]], eta: int, first: int, budget: int) -> list[Job]:
    """The jobs of ASHA with one worker in their order, as the paper's get_job has them, until the budget is spent.

    Rung k is at `first` * eta ** k epochs; the last one is the whole training. Losses are minimized.
    """
    ends = [first * eta**k for k in range(30) if first * eta**k < EPOCHS] + [EPOCHS]
    rungs: list[dict[int, float]] = [{} for _ in ends]
    promoted: list[set[int]] = [set() for _ in ends]
    jobs: list[Job] = []
    drawn = 0
    while True:
        job = None
        for k in reversed(range(len(ends) - 1)):
            ranked = sorted(rungs[k], key=lambda trial: (rungs[k][trial], trial))
            candidates = [trial for trial in ranked[: len(rungs[k]) // eta] if trial not in promoted[k]]
            if candidates:
                promoted[k].add(candidates[0])
                job = candidates[0], k + 1
                break
        if job is None:
            if drawn == budget:
                return jobs
            job, drawn = (drawn, 0), drawn + 1
        trial, k = job
        jobs.append((trial, ends[k]))
        rungs[k][trial] = curves[trial][ends[k] - 1]


def make(storage: StudyStorage, folder: Path, **keys: Any) -> Study:
    table = {"dataset": "mnist", "trials": 24, "sampler": "random", "objective": "val_loss", **keys}
    name, definition, budget = parse_definition({**table, "parameters": {**SPACE, "epochs": EPOCHS}}, "asha", folder)
    return Study.create(storage, name, definition, budget)


def train(study: Study, claim: ClaimedTrial, curve: Sequence[float]) -> int:
    """Report the epochs of a claimed trial until it ends or pauses, as a worker does; return the last one."""
    done = study.storage.get_trial(claim.id).last_step or 0
    for epoch in range(done + 1, EPOCHS + 1):
        claim.trial.report(curve[epoch - 1], epoch)
        ends = study.judge(claim, resumable=True) if epoch < EPOCHS else None
        if ends is not None:
            assert ends == "paused"
            assert study.storage.release_all([claim.id], {claim.id: epoch}) == [claim.id]
            return epoch
    study.storage.tell([TellRequest(claim.id, COMPLETE, [min(curve)])])
    return EPOCHS


def run_alone(study: Study, curves: Sequence[Sequence[float]]) -> list[Job]:
    """The pieces of training of one worker, in their order, each to where it paused or ended."""
    pieces = []
    while (claim := study.claim(holder())) is not None:
        study.suggest_config(claim)
        pieces.append((claim.number, train(study, claim, curves[claim.number])))
    return pieces


def merge_jobs(jobs: Sequence[Job]) -> list[Job]:
    """Jobs in which a trial goes on at once are one piece of training."""
    return [job for job, after in zip(jobs, [*jobs[1:], (-1, 0)], strict=True) if job[0] != after[0]]


@pytest.mark.parametrize(("eta", "first", "seed"), [(3, 1, 0), (2, 2, 1), (4, 1, 2)])
def test_one_worker_decides_as_algorithm_2(tmp_path: Path, eta: int, first: int, seed: int) -> None:
    curves = np.random.default_rng(seed).random((24, EPOCHS)).round(1 if seed == 2 else 6).tolist()  # with equals, too
    pruner = {"name": "asha", "reduction_factor": eta, "min_resource": first}
    study = make(new_storage(tmp_path), tmp_path, pruner=pruner)
    expected = algorithm_2(curves, eta, first, 24)
    assert run_alone(study, curves) == merge_jobs(expected)
    reached = {number: max(end for trial, end in expected if trial == number) for number in range(24)}
    for trial in study.trials():
        assert trial.last_step == reached[trial.number]
        assert trial.state == (COMPLETE if trial.last_step == EPOCHS else WAITING)
        assert paused_epoch(trial) == (None if trial.last_step == EPOCHS else trial.last_step)


def test_the_end_gives_each_rung_a_winner_and_ends_the_rest(storage: StudyStorage, tmp_path: Path) -> None:
    study = make(storage, tmp_path, trials=3, pruner={"name": "asha", "min_resource": 9, "reduction_factor": 4})
    curves = [[1 - 0.01 * epoch - 0.1 * trial for epoch in range(EPOCHS)] for trial in (0, 2, 1)]
    assert run_alone(study, curves) == [(0, 9), (1, 9), (2, 9)]  # 3 are fewer than eta
    assert study.remaining() == 3
    assert study.storage.count_held_by_others(study.id, waiting=True) == 0
    claim = study.claim(holder(), ending=True)
    assert claim is not None
    assert study.claim(holder("other"), ending=True) is None
    assert study.end_paused() is None  # while one is in training
    assert (claim.number, train(study, claim, curves[1])) == (1, EPOCHS)
    assert study.claim(holder(), ending=True) is None
    assert study.end_paused() == [0, 2]
    trials = study.trials()
    assert [t.state for t in trials] == [PRUNED, COMPLETE, PRUNED]
    assert trials[0].value == min(curves[0][:9])
    assert PAUSED not in trials[0].system_attrs
    assert study.end_paused() == []


def test_a_promotion_is_one_workers_and_of_that_rung_alone(storage: StudyStorage, any_url: str, tmp_path: Path) -> None:
    study = make(storage, tmp_path, trials=4, sampler="tpe", pruner={"name": "asha", "reduction_factor": 3})
    curves = [[loss] * EPOCHS for loss in (0.3, 0.2, 0.1, 0.4)]
    for _ in range(2):
        claim = study.claim(holder())
        assert claim is not None
        study.suggest_config(claim)
        train(study, claim, curves[claim.number])
    first, other = study.trials()[0], StudyStorage(any_url)
    assert [paused_epoch(t) for t in other.get_all_trials(study.id)] == [1, 1]
    assert study.find_promotable() == []
    # Where others have promoted it meanwhile, and it is paused farther on, what was known of it promotes nothing.
    assert storage.claim(study.id, holder(), promoted=[(first._trial_id, 3)]) is None
    claims = [storage.claim(study.id, holder(name), promoted=[(first._trial_id, 1)]) for name in "ab"]
    assert [None if each is None else each.trial_id for each in claims] == [first._trial_id, None]
    assert [paused_epoch(t) for t in other.get_all_trials(study.id)] == [None, 1]
    # Paused again, farther on, it is read again by who has seen it paused before.
    assert storage.release_all([first._trial_id], {first._trial_id: 3}) == [first._trial_id]
    assert [paused_epoch(t) for t in other.get_all_trials(study.id)] == [3, 1]
    other.engine.dispose()


def test_a_trial_that_is_being_promoted_is_not_ended(storage: StudyStorage, any_url: str, tmp_path: Path) -> None:
    study = make(storage, tmp_path, trials=1, pruner={"name": "asha", "reduction_factor": 3})
    assert run_alone(study, [[0.5] * EPOCHS]) == [(0, 1)]
    other, rival = StudyStorage(any_url), holder("rival")
    ended: list[object] = []
    thread = threading.Thread(target=lambda: ended.append(study.end_paused()))
    with other.engine.begin() as connection:
        begin(connection)
        [paused] = study.trials()
        found = leases.find_claimable(connection, study.id, rival, [], promoted=[(paused._trial_id, 1)])
        assert found is not None
        assert leases.claim(connection, study.id, found, rival)
        thread.start()
        thread.join(0.5)  # it waits for the row, or for the file, that the other holds
        assert thread.is_alive()
    thread.join(60)
    assert ended == [None]
    assert [trial.state for trial in other.get_all_trials(study.id)] == [RUNNING]
    other.engine.dispose()


def test_budget_grows_and_stop_leaves_paused_trials(tmp_path: Path) -> None:
    study = make(new_storage(tmp_path), tmp_path, trials=2, pruner={"name": "asha", "reduction_factor": 3})
    curves = [[loss] * EPOCHS for loss in (0.3, 0.1, 0.2)]
    assert run_alone(study, curves) == [(0, 1), (1, 1)]
    study.extend(Budget(trials=3))
    assert run_alone(study, curves) == [(2, 1), (1, 3)]
    study.stop()
    assert study.claim(holder(), ending=True) is None


def claim_next(study: Study) -> ClaimedTrial:
    """Claim the next trial, whose parameters are then suggested."""
    claim = study.claim(holder())
    assert claim is not None
    study.suggest_config(claim)
    return claim


def test_other_samplers_see_trials_as_they_are(tmp_path: Path) -> None:
    sampler = {"name": "gp", "n_startup_trials": 3}
    study = make(new_storage(tmp_path), tmp_path, trials=40, sampler=sampler, pruner="asha")
    for turn in range(4):
        train(study, claim_next(study), [0.1 * turn] * EPOCHS)
    running = claim_next(study)
    running.trial.report(0.0, 1)  # past a rung
    seen = {trial.number: trial.state for trial in study.optuna_study._get_trials(deepcopy=False)}
    assert seen == {trial.number: trial.state for trial in study.optuna_study.get_trials()}
    assert seen[running.number] == TrialState.RUNNING  # which the sampler imputes
    assert explain_idle_sampler(study.definition) == (
        "sampler gp learns from complete trials alone, of which pruner asha leaves few before the end; take "
        'sampler = "tpe", or pruner = "median"'
    )
    tpe = study.definition.model_copy(update={"sampler": ComponentSpec(name="tpe")})
    assert explain_idle_sampler(tpe) is None


@pytest.mark.parametrize("liar", [True, False])
def test_tpe_learns_from_trials_that_are_paused_or_promoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, liar: bool
) -> None:
    splits: list[tuple[list[int], list[int]]] = []
    split = optuna.samplers._tpe.sampler._split_trials

    def record(*arguments: Any) -> Any:
        below, above = split(*arguments)
        splits.append(([t.number for t in below], [t.number for t in above]))
        return below, above

    sampler = {"name": "tpe", "n_startup_trials": 3, "constant_liar": liar}
    pruner = {"name": "asha", "reduction_factor": 3}
    study = make(new_storage(tmp_path), tmp_path, trials=9, sampler=sampler, pruner=pruner)
    for loss in (0.5, 0.2, 0.6):
        train(study, claim_next(study), [loss] * EPOCHS)
    promoted = claim_next(study)
    assert promoted.number == 1
    monkeypatch.setattr(optuna.samplers._tpe.sampler, "_split_trials", record)
    study.storage.create_new_trial(study.id)  # another tool's, in training, which has come nowhere
    assert claim_next(study).number == 4
    above = [0, 2, 3] if liar else [0, 2]
    assert splits
    assert all(each == ([1], above) for each in splits)
    assert [t.state for t in study.optuna_study.trials] == [WAITING, RUNNING, WAITING, RUNNING, RUNNING]
    shown = study.optuna_study._get_trials(states=(PRUNED,))
    assert [(t.number, t.value, t.last_step) for t in shown] == [(0, 0.5, 1), (1, 0.2, 1), (2, 0.6, 1)]


def test_a_damaged_pause_is_no_riddle(tmp_path: Path) -> None:
    study = make(new_storage(tmp_path), tmp_path, trials=1, pruner={"name": "asha"})
    trial_id = study.trials()[0]._trial_id
    claim = study.claim(holder())
    assert claim is not None
    study.suggest_config(claim)
    claim.trial.report(0.5, 1)
    study.storage.set_trial_system_attr(trial_id, PAUSED, {"a": ["b"]})
    study.storage.release(trial_id)
    assert study.claim(holder(), ending=True) is None
    assert study.end_paused() == [0]
    assert study.trials()[0].value == 0.5


def frozen(number: int, values: Sequence[float], state: TrialState = RUNNING, **attrs: Any) -> FrozenTrial:
    reports = {epoch: value for epoch, value in enumerate(values, 1) if not math.isnan(value)}
    trial = optuna.trial.create_trial(state=COMPLETE, value=0.0, intermediate_values=reports, system_attrs=attrs)
    trial.number, trial.state = number, state
    return trial


class Trials:
    """What a pruner asks of a study."""

    direction = StudyDirection.MAXIMIZE
    study_name = "some"

    def __init__(self, trials: list[FrozenTrial]) -> None:
        self.trials = trials

    def get_trials(self, deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:
        return [trial for trial in self.trials if states is None or trial.state in states]


def pruned(pruner: BasePruner, trials: list[FrozenTrial]) -> list[int]:
    """The numbers of the trials in training that the pruner prunes now, all asked in the same round."""
    study: Any = Trials(trials)
    return [trial.number for trial in trials if trial.state == RUNNING and pruner.prune(study, trial)]


def test_median_prunes_within_the_first_cohort() -> None:
    round_1 = [frozen(number, [0.1 * number]) for number in range(8)]
    assert pruned(build_pruner("median", {}, 9), round_1) == [0, 1, 2, 3]
    assert pruned(build_pruner("median", {"compare_with": "finished"}, 9), round_1) == []
    assert pruned(build_pruner("median", {}, 9, function=True), round_1) == []  # as Optuna's own
    assert pruned(build_pruner("median", {}, 9), round_1[:5]) == []  # 4 others have reached the epoch
    assert pruned(build_pruner("percentile", {}, 9), round_1) == [0, 1, 2, 3, 4]


def test_median_counts_those_pruned_before_as_worse() -> None:
    left = [frozen(number, [0.1 * number, 0.1 * number]) for number in range(4, 10)]
    gone = [frozen(number, [0.1 * number], PRUNED) for number in range(4)]
    # Of ten, six go on; a median of the six alone would end three of them.
    assert pruned(build_pruner("median", {}, 9), [*gone, *left]) == [4]
    assert pruned(build_pruner("median", {}, 9), left) == [4, 5, 6]
    assert pruned(build_pruner("median", {"n_startup_trials": 6}, 9), [*gone, *left]) == []


def test_median_asks_at_its_steps_alone() -> None:
    late = [frozen(number, [0.1 * number] * 3) for number in range(8)]
    for options, expected in [
        ({"n_warmup_steps": 3}, [0, 1, 2, 3]),
        ({"n_warmup_steps": 4}, []),
        ({"interval_steps": 3}, [0, 1, 2, 3]),
        ({"interval_steps": 2}, []),
        ({"n_min_trials": 8}, []),
    ]:
        assert pruned(build_pruner("median", options, 9), late) == expected, options


def test_asha_compares_a_whole_round() -> None:
    round_1 = [frozen(number, [0.1 * number]) for number in (3, 0, 1, 2, 5, 4, 7, 6)]
    assert pruned(build_pruner("asha", {}, 9), round_1) == [3, 0, 1, 2, 5, 4]
    assert len(pruned(build_pruner("asha", {"min_resource": 1, "bootstrap_count": 8}, 9), round_1)) == 8
    assert pruned(build_pruner("asha", {"min_resource": 2}, 9), round_1) == []
    assert pruned(build_pruner("asha", {}, 9), round_1[:3]) == [0, 1]  # the best of a rung goes on, as in Optuna
    study: Any = Trials(round_1[:3])
    asha = build_pruner("asha", {}, 9)
    assert isinstance(asha, AshaPruner)
    assert asha.pauses(study, round_1[0])  # and pauses, as in the paper, while fewer than eta have come


def test_hyperband_compares_a_whole_round_in_each_bracket() -> None:
    hyperband: Any = build_pruner("hyperband", {}, 9)
    round_1 = [frozen(number, [0.01 * number]) for number in range(30)]
    ended = pruned(hyperband, round_1)
    first = [trial.number for trial in round_1 if hyperband._get_bracket_id(Trials(round_1), trial) == 0]
    assert 5 < len(first) < 30
    assert ended == first[: -(len(first) // 3)]  # the other brackets' first rungs are at 3 and 9 epochs
