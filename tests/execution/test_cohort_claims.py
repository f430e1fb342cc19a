"""Which trials a worker takes along with one that it has claimed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

import hpo
from hpo.config import registry
from hpo.config.cohort_key import stack_key
from hpo.config.trial_config import TrialConfig
from hpo.execution.cohort_claims import CohortClaimer, CohortSize
from hpo.execution.deaths import SUSPECT
from hpo.execution.trial_links import make_link
from hpo.storage.leased_storage import ClaimOffer, TellRequest
from hpo.storage.statements import FIXED
from hpo.storage.tables import LEASES, WORKERS
from hpo.study import ClaimedTrial, Study, StudyStorage
from hpo.study.samplers import build_sampler
from hpo.training.suggestions import Suggestions
from tests.statements import Statements
from tests.study.helpers import holder, make_study

GRID = {"epochs": [1, 2, 4], "optimizer": ["adam", "sgd", "lbfgs"], "width": [8, 16], "batch_size": [32, 64]}
MOST = 13  # statements
TPE = {"name": "tpe", "n_startup_trials": 2}


def at_most(size: int) -> CohortSize:
    """As `--cohort` says."""
    return CohortSize(size, lambda _: size - 1)


def grid(folder: Path, **parameters: Any) -> Study:
    """A study of all slots; those with lbfgs are trained alone."""
    space = {**GRID, **parameters}
    slots = math.prod(len(values) for values in space.values())
    return make_study(folder, sampler="grid", trials=slots, parameters=space)


def take(study: Study, size: int, name: str = "w") -> tuple[ClaimedTrial, TrialConfig, list[ClaimedTrial]]:
    """The next trial, its configuration, and what is taken along."""
    study.storage.register_worker(study.id, holder(name))
    claim = study.claim(holder(name))
    assert claim is not None
    config = study.suggest_config(claim)
    return claim, config, CohortClaimer(study).claim(holder(name), claim, config, at_most(size))


def configs(study: Study, claims: list[ClaimedTrial]) -> list[TrialConfig]:
    return [study.suggest_config(claim) for claim in claims]


def test_slots_that_fit_best_are_taken_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    study = grid(tmp_path, epochs=[1])
    claim, config, more = take(study, 3)
    every = {t.number: study.space.values(t.system_attrs[FIXED]) for t in study.trials()[1:] if FIXED in t.system_attrs}
    fit = [n for n, v in every.items() if v["batch_size"] == config.batch_size and v["optimizer"] != "lbfgs"]
    assert claim.number == 0
    assert [each.number for each in more] == fit[:2]
    assert {stack_key(each) for each in configs(study, more)} == {stack_key(config)}
    states = [t.state for t in study.trials()]
    assert [n for n, state in enumerate(states) if state == TrialState.RUNNING] == [0, *fit[:2]]


def test_slots_of_other_stacks_come_along_when_none_of_the_same_is_left(tmp_path: Path) -> None:
    """Unless the size was measured for one stack; those that are trained alone never do."""
    study = grid(tmp_path, epochs=[1], width=[8])
    _, config, more = take(study, 99)
    taken = [config, *configs(study, more)]
    assert sorted((each.optimizer, each.batch_size) for each in taken) == [
        ("adam", 32), ("adam", 64), ("sgd", 32), ("sgd", 64)
    ]  # fmt: skip
    (tmp_path / "one").mkdir()
    study = grid(tmp_path / "one", epochs=[1], width=[8])
    claim = study.claim(holder())
    assert claim is not None
    config = study.suggest_config(claim)
    more = CohortClaimer(study).claim(holder(), claim, config, CohortSize(99, mixed=False))
    assert {each.batch_size for each in configs(study, more)} == {config.batch_size}


def test_the_likest_are_taken_first(tmp_path: Path) -> None:
    study = grid(tmp_path, epochs=[1], optimizer=["adam"], batch_size=[32], width=[8, 16, 9, 24, 10])
    claim = study.claim(holder())
    assert claim is not None
    claimer = CohortClaimer(study, likeness=lambda config: config.width // 12)
    more = claimer.claim(holder(), claim, study.suggest_config(claim), at_most(4))
    assert [each.width for each in configs(study, more)] == [16, 9, 10]  # the third place is that of the next number


def test_epochs_that_one_run_answers_come_along_free(tmp_path: Path) -> None:
    study = grid(tmp_path)
    _, config, more = take(study, 2)
    taken = [config, *configs(study, more)]
    assert sorted(c.epochs for c in taken) == [1, 1, 2, 2, 4, 4]
    assert len({(c.optimizer, c.width) for c in taken}) == 2
    assert len({c.batch_size for c in taken}) == 1


@pytest.mark.parametrize(("stack", "taken"), [(False, 1), (True, 4)])
def test_each_call_of_a_loop_is_a_run_of_its_own_however_alike_trials_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stack: bool, taken: int
) -> None:
    """Such as those of a loop that asks for all that differs by `trial.suggest_…`."""
    for kept in (registry.models, registry.metrics):
        monkeypatch.setattr(kept, "_entries", dict(kept._entries))

    @hpo.training_loop("asks_all", uses=["epochs", "batch_size"], reports={"val_score": "maximize"}, stack=stack)
    def asks_all(trial: hpo.Trial) -> None:
        pass

    parameters = {"model": "asks_all", "epochs": [1, 2, 4], "batch_size": 32}
    study = make_study(tmp_path, trials=30, sampler="random", objective="val_score", parameters=parameters)
    claim, config, more = take(study, 4)
    assert CohortClaimer(study).has_companions(claim, config, mixed=False) == stack
    assert 1 + len(more) == taken


def test_a_loop_takes_trials_of_equal_shapes_whatever_optimizer_and_schedule_they_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for an optimizer that its stack refuses, which would end the others' call, too."""
    for kept in (registry.models, registry.metrics):
        monkeypatch.setattr(kept, "_entries", dict(kept._entries))
    uses = ["epochs", "batch_size", "optimizer", "schedule", "width"]

    @hpo.training_loop("of_shapes", uses=uses, reports={"val_score": "maximize"}, stack=True)
    def of_shapes(trial: hpo.Trial) -> None:
        pass

    parameters = {**GRID, "model": "of_shapes", "epochs": [1, 2], "batch_size": 32, "schedule": ["constant", "cosine"]}
    study = make_study(tmp_path, trials=24, sampler="grid", objective="val_score", parameters=parameters)
    claim = study.claim(holder())
    assert claim is not None
    config = study.suggest_config(claim)
    more = CohortClaimer(study).claim(holder(), claim, config, CohortSize(99, mixed=False))
    taken = [config, *configs(study, more)]
    assert {each.width for each in taken} == {config.width}
    every = set(itertools.product(("adam", "sgd"), ("constant", "cosine"), (1, 2)))
    assert {(each.optimizer, each.schedule, each.epochs) for each in taken} == every
    assert len(taken) == len(every)


def test_trials_of_one_cohort_ask_each_its_own_sampler(tmp_path: Path) -> None:
    study = make_study(tmp_path, trials=5, sampler="random", parameters={"learning_rate": {"low": 0.01, "high": 0.1}})
    claims = [claim for _ in range(3) if (claim := study.claim(holder())) is not None]

    def ask(numbers: Sequence[int]) -> dict[int, float]:
        links = {number: make_link(study, claims[number]) for number in numbers}
        return {number: Suggestions(TrialConfig(), link).number(float, "a", 0, 1) for number, link in links.items()}

    together = ask([2, 0, 1])
    expected = {}
    for claim in claims:
        sampler = build_sampler("random", {}, study.definition.seed, claim.number)
        alone = optuna.create_study(sampler=sampler)
        expected[claim.number] = alone.ask().suggest_float("a", 0, 1)
    assert together == expected


def test_a_worker_takes_its_share_and_no_more(tmp_path: Path) -> None:
    study = make_study(tmp_path, trials=30, parameters={"learning_rate": {"low": 0.01, "high": 0.1}})
    for name in ("a", "b", "c"):
        study.storage.register_worker(study.id, holder(name))
    study.storage.register_worker(study.id, holder("gone", seconds=-1))
    taken = [1 + len(take(study, 100, name)[2]) for name in ("a", "b", "c")]
    assert taken == [10, 7, 5]  # a third of what is left, rounded up


def test_what_is_trained_alone_takes_along_what_its_run_answers(tmp_path: Path) -> None:
    study = grid(tmp_path, optimizer=["lbfgs"])
    _, config, more = take(study, 1)
    taken = configs(study, more)
    assert sorted(each.epochs for each in taken) == [2, 4]
    assert {(each.width, each.batch_size) for each in taken} == {(config.width, config.batch_size)}
    (tmp_path / "decays").mkdir()
    assert take(grid(tmp_path / "decays", optimizer=["lbfgs"], schedule=["cosine"]), 1)[2] == []


def test_what_others_enqueue_with_values_that_cannot_be_is_left_to_itself(tmp_path: Path) -> None:
    study = make_study(tmp_path, trials=3, parameters={"learning_rate": {"low": 0.01, "high": 0.1}, "width": [8, 16]})
    for params in ({"learning_rate": 99.0, "width": 8}, {"learning_rate": "much", "width": 8}, {"width": 8}):
        study.optuna_study.enqueue_trial(params)
    study.optuna_study.enqueue_trial({"learning_rate": 0.05, "width": 16})
    assert [each.number for each in take(study, 100)[2]] == [1, 2, 6]


def test_a_cohort_is_claimed_in_one_transaction_however_many_wait(storage: StudyStorage, tmp_path: Path) -> None:
    counts = []
    for trials in (20, 200):
        made = make_study(
            tmp_path, name=f"s{trials}", trials=trials, parameters={"learning_rate": {"low": 0.01, "high": 0.1}}
        )
        study = Study.create(storage, made.name, made.definition, made.budget)
        statements = Statements(storage.engine)
        companions = CohortClaimer(study)
        claim = study.claim(holder())
        assert claim is not None
        config = study.suggest_config(claim)
        storage.flush()
        before = statements.count
        assert len(companions.claim(holder(), claim, config, at_most(16))) == 15
        counts.append(statements.count - before)
    assert counts[0] == counts[1]
    assert counts[0] <= MOST


def test_workers_that_claim_at_once_never_share_a_trial(storage: StudyStorage, any_url: str, tmp_path: Path) -> None:
    made = make_study(tmp_path, trials=60, parameters={"learning_rate": {"low": 0.01, "high": 0.1}})
    Study.create(storage, "raced", made.definition, made.budget)

    def work(name: str) -> list[int]:
        mine = Study(StudyStorage(any_url), "raced")
        companions, numbers = CohortClaimer(mine), []
        while (claim := mine.claim(holder(name))) is not None:
            config = mine.suggest_config(claim)
            cohort = [claim, *companions.claim(holder(name), claim, config, at_most(4))]
            assert mine.storage.tell([TellRequest(each.id, TrialState.COMPLETE, [0.5]) for each in cohort]) == {}
            numbers += [each.number for each in cohort]
        mine.storage.engine.dispose()
        return numbers

    with ThreadPoolExecutor(3) as pool:
        numbers = [number for each in pool.map(work, "abc") for number in each]
    assert sorted(numbers) == list(range(60))


# Adaptive studies.

CONDITIONAL = {
    "learning_rate": {"low": 0.01, "high": 0.1},
    "optimizer": ["adam", "sgd"],
    "batch_size": [
        {"choices": [16, 32, 64], "when": {"optimizer": "adam"}},
        {"choices": [16, 32, 64], "when": {"optimizer": "sgd"}},
    ],
    "input_scaling": ["standard", "unit", "symmetric"],
}


@pytest.mark.parametrize("sampler", [TPE, "nsga2", "cmaes"])
def test_a_sampler_is_asked_freely(tmp_path: Path, sampler: Any) -> None:
    study = make_study(tmp_path, sampler=sampler, trials=40, parameters=CONDITIONAL)
    keys = set()
    for _ in range(3):
        claim, config, more = take(study, 8)
        others = configs(study, more)
        assert len(others) == 7
        assert len({each.learning_rate for each in [config, *others]}) == 8
        keys |= {(stack_key(each), each.input_scaling) for each in [config, *others]}
        told = [TellRequest(each.id, TrialState.COMPLETE, [0.5]) for each in (claim, *more)]
        assert study.storage.tell(told) == {}
    assert len(keys) > 2
    assert not any(FIXED in trial.system_attrs for trial in study.trials())


@pytest.mark.parametrize("sampler", [TPE, {"name": "gp", "n_startup_trials": 2}])
def test_a_sampler_knows_what_is_in_training(tmp_path: Path, sampler: Any) -> None:
    """Else it would answer all of them with about the same: the best place, as far as it knows."""
    space = {"learning_rate": {"low": 0.01, "high": 1.0}}
    study = make_study(tmp_path, sampler=sampler, trials=12, parameters=space)
    for _ in range(5):
        claim = study.claim(holder())
        assert claim is not None
        rate = study.suggest_config(claim).learning_rate
        study.storage.tell([TellRequest(claim.id, TrialState.COMPLETE, [-((rate - 0.5) ** 2)])])
    _, config, more = take(study, 4)
    rates = sorted(each.learning_rate for each in [config, *configs(study, more)])
    assert min(after - before for before, after in itertools.pairwise(rates)) > 1e-3


def test_the_budget_is_exact(tmp_path: Path) -> None:
    study = make_study(tmp_path, sampler=TPE, trials=11, parameters=CONDITIONAL)
    assert [1 + len(take(study, 8)[2]) for _ in range(2)] == [8, 3]
    assert study.claim(holder()) is None
    assert [t.number for t in study.trials()] == list(range(11))


def test_a_baseline_that_the_space_does_not_hold_is_trained_with_others(tmp_path: Path) -> None:
    study = make_study(tmp_path, sampler=TPE, trials=9, parameters=CONDITIONAL, baseline={"batch_size": 100})
    _, config, more = take(study, 8)
    assert (config.batch_size, len(more)) == (100, 7)


def test_new_trials_are_as_many_as_the_size_says_for_what_is_offered(tmp_path: Path) -> None:
    study = make_study(tmp_path, sampler=TPE, trials=30, parameters=CONDITIONAL)
    offers = []

    def ask(offer: ClaimOffer) -> int:
        offers.append((offer.new, offer.workers))
        return 3

    for name in ("a", "b"):
        study.storage.register_worker(study.id, holder(name))
    claim = study.claim(holder("a"))
    assert claim is not None
    more = CohortClaimer(study).claim(holder("a"), claim, study.suggest_config(claim), CohortSize(99, ask))
    assert ([each.number for each in more], offers) == ([1, 2, 3], [(29, 2)])


def test_trials_given_back_come_along_again(tmp_path: Path) -> None:
    study = make_study(tmp_path, sampler=TPE, trials=8, parameters=CONDITIONAL)
    claim, _, more = take(study, 4)
    before = [(each.number, study.suggest_config(each)) for each in (claim, *more)]
    assert study.storage.release_all([claim.id, *(each.id for each in more)]) == [claim.id, *(each.id for each in more)]
    claim, _, more = take(study, 4)
    assert [(each.number, study.suggest_config(each)) for each in (claim, *more)] == before
    assert {each.attempt for each in (claim, *more)} == {2}


# Workers that died.


def abandon(study: Study) -> None:
    study.storage.flush()
    with study.storage.engine.begin() as connection:
        connection.execute(sa.update(LEASES).values(expires=0.0))
        connection.execute(sa.update(WORKERS).values(gone=0.0))


def reopened(study: Study) -> Study:
    """As another process sees it."""
    return Study(StudyStorage(study.storage.url.render_as_string(hide_password=False)), study.name)


def test_trials_of_a_dead_worker_are_taken_over_together_and_with_no_others(tmp_path: Path) -> None:
    study = make_study(tmp_path, trials=30, parameters={"learning_rate": {"low": 0.01, "high": 0.1}})
    claim, _, more = take(study, 4, "dead")
    configs(study, more)
    abandon(study)
    study = reopened(study)
    again, _, others = take(study, 8)
    assert [again.number, *(each.number for each in others)] == [claim.number, *(each.number for each in more)]
    assert all(each.taken_over and each.attempt == 2 for each in (again, *others))


def test_a_trial_that_may_have_killed_its_workers_is_taken_over_alone(tmp_path: Path) -> None:
    study = make_study(tmp_path, trials=30, parameters={"learning_rate": {"low": 0.01, "high": 0.1}})
    _, _, more = take(study, 4, "dead")
    configs(study, more)
    for each in more[1:]:
        study.storage.set_trial_user_attr(each.id, "deaths", {"count": SUSPECT, "place": [0, 0]})
    abandon(study)
    study = reopened(study)
    assert [each.number for each in take(study, 8)[2]] == [more[0].number]
    for suspect in more[1:]:
        claim, _, others = take(study, 8)
        assert (claim.number, others) == (suspect.number, [])


# Telling several at once.


def test_one_that_is_lost_does_not_keep_the_others_from_being_told(
    storage: StudyStorage, any_url: str, tmp_path: Path
) -> None:
    made = make_study(tmp_path, trials=6, parameters={"learning_rate": {"low": 0.01, "high": 0.1}})
    study = Study.create(storage, "told", made.definition, made.budget)
    claim, _, more = take(study, 4)
    configs(study, more)
    storage.flush()
    stolen, finished = more[0], more[1]
    with storage.engine.begin() as connection:
        connection.execute(sa.update(LEASES).where(LEASES.c.trial_id == stolen.id).values(expires=0.0))
    other = StudyStorage(any_url)
    assert other.claim(study.id, holder("thief")) is not None
    with other.engine.begin() as connection:
        connection.execute(sa.text(f"UPDATE trials SET state = 'FAIL' WHERE trial_id = {finished.id}"))
    told = [TellRequest(claim.id, TrialState.COMPLETE, [0.5]), TellRequest(stolen.id, TrialState.COMPLETE, [0.75])]
    told += [TellRequest(finished.id, TrialState.PRUNED), TellRequest(more[2].id, TrialState.PRUNED, [0.25])]
    refused = storage.tell(told)
    assert {i: type(error).__name__ for i, error in refused.items()} == {
        stolen.id: "LeaseLostError",
        finished.id: "UpdateFinishedTrialError",
    }
    seen = {t._trial_id: (t.state, t.values) for t in Study(StudyStorage(any_url), "told").trials()}
    assert seen[claim.id] == (TrialState.COMPLETE, [0.5])
    assert seen[more[2].id] == (TrialState.PRUNED, [0.25])
    assert seen[stolen.id] == (TrialState.RUNNING, None)
    assert seen[finished.id] == (TrialState.FAIL, None)
    assert all(t.datetime_complete for t in study.trials() if t._trial_id in (claim.id, more[2].id))
    other.engine.dispose()
