"""Comparison of two studies: its probability against scipy's binomial test, its interval against Student's t."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from hpo.config.trial_config import TrialConfig
from hpo.datasets import DatasetReference, DatasetSource
from hpo.report.data.evaluations import CandidateRuns, EvaluationResults, EvaluationRun
from hpo.report.stats.study_comparison import (
    compare_studies,
    corrected_interval,
    describe_comparison,
    probability_of_improvement,
)
from hpo.study import Objective


@pytest.mark.parametrize(("wins", "losses"), [(0, 5), (3, 4), (29, 0), (20, 9)])
def test_the_probability_is_that_of_the_binomial_test(wins: int, losses: int) -> None:
    found = probability_of_improvement([1.0] * wins + [-1.0] * losses)
    expected = stats.binomtest(wins, wins + losses).proportion_ci(method="exact")
    assert found.value == pytest.approx(wins / (wins + losses))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_ties_are_half_of_a_win() -> None:
    found = probability_of_improvement([0.0, 0.0, 1.0, -1.0])
    assert found.value == 0.5
    assert found.low < 0.5 < found.high


def test_without_a_test_part_the_interval_is_students_and_with_one_it_is_wider() -> None:
    values = np.random.default_rng(0).normal(0.1, 1, 12)
    plain, corrected = corrected_interval(values.tolist(), 0.0), corrected_interval(values.tolist(), 0.25)
    assert (plain.low, plain.high) == pytest.approx(stats.t.interval(0.95, 11, values.mean(), stats.sem(values)))
    # Nadeau and Bengio: 1 / J + n2 / n1 in the place of 1 / J.
    assert (corrected.high - corrected.mean) / (plain.high - plain.mean) == pytest.approx(math.sqrt(1 + 12 * 0.25))


def test_the_corrected_interval_covers_where_the_plain_one_does_not() -> None:
    rng, hits = np.random.default_rng(1), [0, 0]
    for _ in range(300):
        pool = rng.normal(size=60)  # the gain on each sample; the truth is 0
        means = [float(rng.choice(pool, 15, replace=False).mean()) for _ in range(10)]
        for place, ratio in enumerate((0.0, 15 / 45)):
            found = corrected_interval(means, ratio)
            hits[place] += found.low <= 0 <= found.high
    assert hits[0] / 300 < 0.85
    assert hits[1] / 300 > 0.92


def comparison(
    first: list[float], second: list[float], left: int = 0, source: DatasetSource | None = None
) -> EvaluationResults:
    def runs(label: str, scores: list[float], *, rival: bool) -> CandidateRuns:
        made = tuple(
            EvaluationRun("c", i, i + 1, "COMPLETE", {"val_loss": s + 0.01}, {"test_loss": s})
            for i, s in enumerate(scores)
        )
        return CandidateRuns(label, 1, rival, TrialConfig(validation=0.2), {}, None, made)

    pair = (runs("a trial 1", first, rival=False), runs("b trial 2", second, rival=True))
    objective = Objective(metric="val_loss", direction="minimize")
    data = DatasetReference(name="d", samples=100, source=source)
    return EvaluationResults(("c",), "d", True, False, objective, pair, left, data=data, vary="all", compare="b")


def test_lower_losses_are_better_and_pairs_are_of_one_seed() -> None:
    first, second = [0.1, 0.2, 0.3, 0.25], [0.2, 0.31, 0.39, 0.37]
    found = comparison(first, second)
    test, validation = compare_studies(found)
    assert (test.metric, validation.metric) == ("test_loss", "val_loss")
    assert test.difference.mean == pytest.approx(np.mean(np.subtract(second, first)))
    assert (test.significant, test.probability.value) == (True, 1.0)
    assert validation.difference.high - validation.difference.mean == pytest.approx(
        (test.difference.deviation * stats.t.isf(0.025, 3)) * math.sqrt(1 / 4 + 0.25)
    )
    assert "a trial 1 is significantly better than b trial 2" in describe_comparison(found, [test])[0]
    turned = comparison(second, first)
    assert "b trial 2 is significantly better than a trial 1" in describe_comparison(turned, compare_studies(turned))[0]


@pytest.mark.parametrize("source", [DatasetSource(time="day"), DatasetSource(validation="valid.csv")])
def test_one_split_for_all_runs_widens_no_interval(source: DatasetSource) -> None:
    _, validation = compare_studies(comparison([0.1, 0.2, 0.3, 0.25], [0.2, 0.31, 0.39, 0.37], source=source))
    reach = validation.difference.high - validation.difference.mean
    assert reach == pytest.approx(validation.difference.deviation * stats.t.isf(0.025, 3) * math.sqrt(1 / 4))


def test_equal_studies_have_no_winner_and_few_pairs_are_said() -> None:
    found = comparison([0.1, 0.3, 0.2], [0.2, 0.2, 0.2], left=2)
    lines = describe_comparison(found, compare_studies(found))
    assert lines[0].startswith("no significant difference")
    assert "--seeds 29" in lines[1]
    assert lines[2].startswith("2 runs are left")
    assert compare_studies(comparison([], [])) == []
