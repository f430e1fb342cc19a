"""The rule by which a study has settled, on plain numbers, and in studies whose trials are told without training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState

from hpo.errors import DefinitionError
from hpo.study import Budget, Study
from hpo.study.definition import FunctionReference
from hpo.study.input.function_study import define_function_study
from hpo.study.outlook import StudyOutlook, explain_unsettled
from hpo.study.settled import Outlook, Search, chance_lead, expect_gain, foresee, pool_noise, tail_scale
from tests.statements import Statements
from tests.study.helpers import SPACE, holder, make_study, new_storage


def drawn(scores: np.ndarray) -> np.ndarray:
    return np.ones(len(scores), bool)


def test_the_gain_of_an_exponential_tail_is_what_is_gained() -> None:
    rng = np.random.default_rng(0)
    studies = rng.exponential(2.0, (3000, 160))
    expected = [expect_gain(scores[:40], drawn(scores[:40]), Search(160)) for scores in studies]
    gained = studies.max(1) - studies[:, :40].max(1)
    # a ln(m / n) of the largest of n = 40 draws as they become m = 160.
    assert np.mean(expected) == pytest.approx(2.0 * math.log(4), rel=0.03)
    assert np.mean(gained) == pytest.approx(np.mean(expected), rel=0.05)


def test_a_score_near_its_limit_gains_less_than_is_expected() -> None:
    studies = 1 - np.random.default_rng(0).random((500, 160)) ** 2
    expected = [expect_gain(scores[:40], drawn(scores[:40]), Search(160)) for scores in studies]
    assert 0 < (studies.max(1) - studies[:, :40].max(1)).mean() < np.mean(expected)


def test_no_score_goes_beyond_what_its_metric_can_be() -> None:
    scores, drawn = np.r_[np.linspace(0.5, 0.9, 29), 1.0], np.ones(30, bool)
    assert expect_gain(scores, drawn, Search(60)) > 0.02
    assert expect_gain(scores, drawn, Search(60, limit=1.0)) == 0
    assert expect_gain(scores - 0.01, drawn, Search(60, limit=1.0)) == pytest.approx(0.01)
    in_percent = 100 * scores
    assert expect_gain(in_percent, drawn, Search(60, limit=1.0)) == expect_gain(in_percent, drawn, Search(60))


def test_nothing_is_gained_once_the_budget_is_used_up_and_nobody_goes_on_ten_times_as_long() -> None:
    scores = np.random.default_rng(0).random(30)
    assert expect_gain(scores, drawn(scores), Search(30)) == 0
    longest = expect_gain(scores, drawn(scores), Search(300))
    assert expect_gain(scores, drawn(scores), Search(10**9)) == longest > 0


def test_of_an_adaptive_sampler_the_recent_trials_count() -> None:
    spread = np.concatenate([np.linspace(0, 0.9, 30), np.full(30, 0.9)])
    assert expect_gain(spread, drawn(spread), Search(120, startup=10)) == 0
    assert expect_gain(spread[::-1], drawn(spread), Search(120, startup=10)) > 0.01
    early = np.linspace(0, 1, 12)
    assert expect_gain(early, drawn(early), Search(120, startup=11)) == math.inf  # one trial since it learns
    assert Search(120, startup=50).fewest == 60


def test_the_baseline_is_no_draw_but_may_be_the_best() -> None:
    scores = np.concatenate([[1.0], np.linspace(0, 0.5, 29)])
    chosen = drawn(scores)
    chosen[0] = False
    assert expect_gain(scores, chosen, Search(60)) == 0
    assert expect_gain(scores, drawn(scores), Search(60)) > 0.01


def test_trials_without_a_value_count_as_the_worst() -> None:
    scores = np.concatenate([np.full(5, -np.inf), np.linspace(0.8, 0.9, 20)])
    assert expect_gain(scores, drawn(scores), Search(50)) == expect_gain(
        np.where(np.isfinite(scores), scores, 0.8), drawn(scores), Search(50)
    )
    assert tail_scale(np.full(20, 0.5)) == 0
    assert expect_gain(np.array([0.5, *[-np.inf] * 25]), np.ones(26, bool), Search(50)) == math.inf


def test_the_noise_is_that_of_the_leaders_and_of_training_again() -> None:
    scores, none = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.1]), np.full(6, -1)
    errors = np.array([0.0, 0.01, 0.03, 0.02, np.nan, 5.0])
    assert pool_noise(scores, errors, none) == pytest.approx(0.015)
    unknown = np.full(6, np.nan)
    assert math.isnan(pool_noise(scores, unknown, none))
    twice = np.array([0, 0, -1, 1, 1, 1])
    spread = (0.1**2 / 2 + np.var([0.6, 0.5, 0.1]) * 3) / 3
    assert pool_noise(scores, unknown, twice) == pytest.approx(math.sqrt(spread))
    assert pool_noise(scores, errors, twice) == pytest.approx(math.sqrt(0.015**2 + spread))
    assert not Outlook(30, 0.9, 0.0, math.nan).settled
    few = np.array([0.9, 0.8, -np.inf, -np.inf, -np.inf, -np.inf])  # the others were pruned, after fewer epochs
    assert pool_noise(few, np.array([0.01, 0.02, 5.0, 5.0, 5.0, 5.0]), none) == pytest.approx(0.015)


def test_the_best_of_equal_configurations_leads_by_chance_as_often_as_is_said() -> None:
    best = np.random.default_rng(0).normal(size=(20_000, 24)).max(1)
    assert np.mean(best <= chance_lead(24, 1.0)) == pytest.approx(0.95, abs=0.01)


# Studies.

EASY = {"dataset": "mnist", "sampler": "random", "until": "settled", "objective": "val_accuracy"}


def tell(study: Study, values: Any, **attrs: float) -> int:
    """Claim and tell trials of these values until none is begun any more; return how many."""
    for count, value in enumerate(values):
        claim = study.claim(holder())
        if claim is None:
            return count
        study.suggest_config(claim)
        for key, each in attrs.items():
            study.storage.set_trial_user_attr(claim.id, key, each)
        study.storage.set_trial_state_values(claim.id, TrialState.COMPLETE, [float(value)])
    return len(values)


def near(limit: float, count: int, scale: float = 0.001) -> np.ndarray:
    return limit - scale * np.random.default_rng(1).random(count)


def test_a_study_ends_once_it_has_settled_and_says_why(tmp_path: Path) -> None:
    study = make_study(tmp_path, trials=60, **EASY)
    assert tell(study, near(0.9, 60)) == 20
    reason = study.stop_reason()
    assert reason is not None
    assert reason.startswith("it has settled: after 20 trials the other 40 trials are expected to gain 0.000")
    assert reason.endswith("the noise of its values is 0.003")  # of an accuracy of 0.9 on 10,000 samples
    assert study.has_settled()
    assert study.has_ended()
    assert study.remaining() == 40


def test_every_worker_comes_to_the_same_answer_and_a_later_one_stays_with_it(tmp_path: Path) -> None:
    study = make_study(tmp_path, trials=60, **EASY)
    claims = [study.claim(holder(f"w{n}")) for n in range(24)]  # in training as it settles
    for claim, value in zip(claims, near(0.9, 24), strict=True):
        assert claim is not None
        study.storage.set_trial_state_values(claim.id, TrialState.COMPLETE, [float(value)])
    reason = study.stop_reason()
    assert "after 20 trials" in str(reason)
    other = Study(new_storage(tmp_path), "small")
    assert other.stop_reason() == reason
    assert other.claim(holder("late")) is None


def test_a_larger_budget_goes_on_where_it_promises_more(tmp_path: Path) -> None:
    study = make_study(tmp_path, trials=30, **EASY)
    values = 0.9 - np.random.default_rng(2).exponential(0.01, 30)
    tell(study, values)
    settled = study.read_outlook().outlooks[-1]
    study.extend(Budget(trials=300))
    assert study.budget.until == "settled"
    longer = study.read_outlook().outlooks[-1]
    assert longer.trials == settled.trials
    assert longer.gain > settled.gain
    study.extend(Budget(trials=300, until="trials"))
    assert study.stop_reason() is None


def test_its_own_standard_error_counts_before_that_of_the_samples(tmp_path: Path) -> None:
    study = make_study(tmp_path, trials=60, **EASY)
    assert tell(study, near(0.9, 25, 0.05), standard_error=1e-6) == 25
    assert study.read_outlook().outlooks[-1].noise == pytest.approx(1e-6)
    for damaged in (-1.0, "large", math.inf, [0.1]):
        for trial in study.trials():
            trial.user_attrs["standard_error"] = damaged
        again = StudyOutlook(study)
        again.update(study.trials(), study.budget, None)
        assert again.outlooks[-1].noise == pytest.approx(0.003, abs=2e-4)


def ended(count: int, failed: int = 0) -> list[FrozenTrial]:
    """Trials whose values are far apart, the last of which have failed."""
    found = []
    for place in range(count):
        state = TrialState.COMPLETE if place < count - failed else TrialState.FAIL
        trial = optuna.trial.create_trial(
            state=state,
            value=-float(place) if state == TrialState.COMPLETE else None,
            params={"x": float(place)},
            distributions={"x": FloatDistribution(0, count)},
            user_attrs={"standard_error": 1e-6},
        )
        trial.number = trial._trial_id = place
        found.append(trial)
    return found


@pytest.mark.parametrize(("count", "failed"), [(40, 0), (40, 1), (221, 0), (500, 3)])
def test_after_its_last_trial_there_is_nothing_to_gain(tmp_path: Path, count: int, failed: int) -> None:
    outlook, budget = StudyOutlook(function_study(tmp_path)), Budget(trials=count)
    last = outlook.update(ended(count), Budget(trials=count + 1), None)
    assert last is not None
    assert (last.settled, last.left > 0) == (False, True)
    last = outlook.update(ended(count, failed), budget, None)
    assert last is not None
    assert (last.trials, last.settled, last.left) == (count - failed, True, 0)


def test_the_question_costs_no_statement(tmp_path: Path) -> None:
    counts = {}
    for until in ("trials", "settled"):
        study = make_study(tmp_path, until, trials=60, **{**EASY, "until": until})
        values = 0.5 + 0.4 * np.random.default_rng(0).random(26)
        tell(study, values[:1])
        statements = Statements(study.storage.engine)
        tell(study, values[1:])
        counts[until] = statements.count
    assert counts["settled"] <= counts["trials"] + 2, counts


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"until": "setled"}, "until = 'setled': must be"),
        ({"until": 20}, 'until = 20: must be "settled" or "trials"'),
        ({"objective": ["val_accuracy", "parameter_count"]}, "needs a single objective, but the study has 2"),
        ({"objective": "parameter_count"}, "needs the noise of parameter_count, which one fit of a configuration"),
        ({"objective": "val_calibration_error"}, "folds = 5 or seeds = 3 measure it"),
        ({"sampler": "grid", "parameters": {"depth": [1, 2]}}, "a grid is trained in order"),
    ],
)
def test_a_study_that_cannot_settle_is_refused(tmp_path: Path, keys: dict[str, Any], words: str) -> None:
    with pytest.raises(DefinitionError) as error:
        make_study(tmp_path, **{"parameters": SPACE, **EASY, **keys})
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def function_study(folder: Path) -> Study:
    keys = {"trials": 60, "until": "settled", "sampler": "random", "pruner": "none"}
    name, definition, budget = define_function_study(FunctionReference(name="objective"), "called", keys)
    return Study.create(new_storage(folder), name, definition, budget)


def add(study: Study, value: float, x: float, **more: Any) -> None:
    trial = optuna.trial.create_trial(
        params={"x": x}, distributions={"x": FloatDistribution(0, 1)}, values=[value], **more
    )
    study.optuna_study.add_trial(trial)


def test_an_objective_function_settles_by_the_scores_of_its_folds(tmp_path: Path) -> None:
    study = function_study(tmp_path)
    folds = {"terminator:cv_scores": [0.1, 0.2, 0.3, 0.4]}
    for place, value in enumerate(0.25 + 0.01 * np.random.default_rng(0).random(20)):
        add(study, value, place / 20, system_attrs=folds)
    settled = study.read_outlook().outlooks[-1]
    assert settled.noise == pytest.approx(math.sqrt((1 / 4 + 1 / 3) * np.var([0.1, 0.2, 0.3, 0.4], ddof=1)))
    assert "it has settled" in str(study.stop_reason())


def test_an_objective_function_settles_by_its_repeats_and_says_what_it_lacks_without(tmp_path: Path) -> None:
    study = function_study(tmp_path)
    for place in range(25):
        add(study, 1 + place / 100, place / 25)
    (*_, last) = study.read_outlook().outlooks
    assert math.isnan(last.noise)
    assert study.stop_reason() is None
    why = explain_unsettled(last, study.definition, 60)
    assert "noise of its values is not known" in why
    assert "standard_error" in why
    for value in (0.5, 1.5, 1.0):
        add(study, value, 0.5)
    assert study.read_outlook().outlooks[-1].noise == pytest.approx(np.std([0.5, 1.5, 1.0], ddof=1))
    assert "it has settled" in str(study.stop_reason())


def test_damaged_scores_of_folds_are_none(tmp_path: Path) -> None:
    study = function_study(tmp_path)
    for place, damaged in enumerate([[], [1.0], "text", [1.0, "a"], [math.inf, 1.0], {"a": 1}] * 4):
        add(study, 0.5, place / 24, system_attrs={"terminator:cv_scores": damaged})
    assert all(math.isnan(each.noise) for each in study.read_outlook().outlooks)


def test_the_outlook_of_a_foreign_study_is_told_too(tmp_path: Path) -> None:
    storage = new_storage(tmp_path)
    plain = optuna.create_study(storage=storage, study_name="plain", sampler=optuna.samplers.RandomSampler(seed=0))
    plain.optimize(lambda trial: trial.suggest_float("x", 0, 1) ** 2, n_trials=25)
    assert len(Study(storage, "plain").read_outlook().outlooks) > 0


def test_few_trials_say_nothing() -> None:
    outlook = foresee(np.linspace(0, 1, 20), np.ones(20, bool), 0.1, Search(40))
    assert outlook.trials == 20
    assert explain_unsettled(None, _definition(), 40) == "20 trials must have ended"


def _definition() -> Any:
    return define_function_study(FunctionReference(name="f"), "f", {"sampler": "random"})[1]
