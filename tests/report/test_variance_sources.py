"""Sources of variance: against simulations in which the shares are known, and against scipy's distributions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from scipy import stats

from hpo.config.trial_config import TrialConfig
from hpo.report.data.evaluations import CandidateRuns, EvaluationResults, EvaluationRun
from hpo.report.stats.variance_sources import measure_spread, measure_variance_sources, ratio_interval
from hpo.study import Objective
from hpo.study.definition import Source

OBJECTIVE = Objective(metric="val_accuracy", direction="maximize")


def candidate(label: str, scores: Sequence[float]) -> CandidateRuns:
    runs = tuple(
        EvaluationRun("e", i, i + 1, "COMPLETE", {"val_accuracy": s}, {"test_accuracy": s})
        for i, s in enumerate(scores)
    )
    return CandidateRuns(label, 1, label == "defaults", TrialConfig(), {}, None, runs)


def varied(vary: Source, *candidates: CandidateRuns) -> EvaluationResults:
    return EvaluationResults((f"e-{vary}",), "mnist", True, False, OBJECTIVE, candidates, 0, vary=vary)


def results(scores: Mapping[Source, Sequence[Sequence[float]]]) -> EvaluationResults:
    made = {
        source: varied(source, *(candidate(f"trial {i}", each) for i, each in enumerate(table)))
        for source, table in scores.items()
    }
    seed = made.pop("seed")
    return EvaluationResults(seed.studies, "mnist", True, False, OBJECTIVE, seed.candidates, 0, varied=made)


def drawn(deviation: float, seeds: int = 8, count: int = 1, rng: int = 0) -> list[list[float]]:
    return (0.9 + deviation * np.random.default_rng(rng).standard_normal((count, seeds))).tolist()  # type: ignore[no-any-return]


def test_of_one_configuration_variance_and_intervals_are_the_classical_ones() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=7), 2 * rng.normal(size=9)
    spread = measure_spread([dict(enumerate(one.tolist()))])
    assert spread is not None
    assert (spread.variance, spread.freedom) == (pytest.approx(one.var(ddof=1)), pytest.approx(6))
    low, high = spread.interval
    for bound in (low, high):  # the values of sigma at which the test of a variance has p = 5 %
        p = stats.chi2.cdf(6 * spread.variance / bound**2, 6)
        assert 2 * min(p, 1 - p) == pytest.approx(0.05)
    second = measure_spread([dict(enumerate(other.tolist()))])
    assert second is not None
    ratio, low, high = ratio_interval(spread, second)
    assert ratio == pytest.approx(one.var(ddof=1) / other.var(ddof=1))
    for bound in (low, high):
        p = stats.f.cdf(ratio / bound, 6, 8)
        assert 2 * min(p, 1 - p) == pytest.approx(0.05)


def test_configurations_that_move_together_count_once() -> None:
    common = np.random.default_rng(1).normal(size=6)
    together = measure_spread([dict(enumerate((common + shift).tolist())) for shift in range(4)])
    apart = measure_spread([dict(enumerate(each)) for each in drawn(1.0, 200, 4, 2)])
    assert together is not None
    assert apart is not None
    assert together.freedom == pytest.approx(5)
    assert 3.5 * 199 < apart.freedom <= 4 * 199


@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_an_interval_of_a_share_covers_the_truth(correlation: float) -> None:
    rng = np.random.default_rng(3)

    def draw(deviation: float) -> list[dict[int, float]]:
        own, shared = rng.normal(size=(3, 6)), rng.normal(size=6)
        table = deviation * (correlation**0.5 * shared + (1 - correlation) ** 0.5 * own)
        return [dict(enumerate(each)) for each in table.tolist()]

    hits = 0
    for _ in range(200):
        one, other = measure_spread(draw(1.0)), measure_spread(draw(2.0))
        assert one is not None
        assert other is not None
        _, low, high = ratio_interval(one, other)
        hits += low <= 0.25 <= high
    assert hits / 200 >= 0.93


def test_the_largest_source_is_named_with_what_follows() -> None:
    found = measure_variance_sources(
        results({"seed": drawn(0.001), "split": drawn(0.02, rng=1), "all": drawn(0.021, rng=1)})
    )
    assert found is not None
    assert list(found.spreads) == ["split", "seed", "all"]
    assert (found.leader, found.clear) == ("split", True)
    assert found.shares["split"].share == pytest.approx(found.spreads["split"].variance / found.spreads["all"].variance)
    assert found.verdict == "Most of the spread comes from the validation split: more folds help more than more seeds."


def test_of_order_and_weights_the_seed_of_both_is_no_rival() -> None:
    scores: dict[Source, Sequence[Sequence[float]]] = {
        "seed": drawn(0.03), "order": drawn(0.02, rng=1), "init": drawn(0.018, rng=2), "all": drawn(0.03, rng=3),
    }  # fmt: skip
    found = measure_variance_sources(results(scores))
    assert found is not None
    assert found.leader in ("order", "init")
    assert not found.clear
    assert found.verdict.endswith("but not significantly more than from the others: run more seeds.")


def test_a_single_source_has_its_share_and_no_rival() -> None:
    found = measure_variance_sources(results({"seed": drawn(0.01), "all": drawn(0.02)}))
    assert found is not None
    assert found.leader is None
    assert found.verdict == (
        "Only the order and initial weights varied alone (25 % of the variance of all together): there is no other "
        "source to compare with."
    )
    same = [[0.9] * 8]
    found = measure_variance_sources(results({"seed": drawn(0.01), "all": same}))
    assert found is not None
    assert found.verdict.startswith("Only the order and initial weights varied alone: there is")
    found = measure_variance_sources(results({"seed": same, "split": same, "all": drawn(0.02)}))
    assert found is not None
    assert found.verdict == "The runs differ where all sources vary together, and no source alone explains it."


def test_without_a_difference_there_is_nothing_to_tell() -> None:
    same = [[0.9] * 4]
    found = measure_variance_sources(results({"seed": same, "split": same, "all": same}))
    assert found is not None
    assert (found.leader, found.shares) == (None, {})
    assert found.verdict == "The runs do not differ, so there is nothing to tell apart."
    assert measure_variance_sources(results({"seed": same})) is None
    assert measure_variance_sources(results({"seed": [[0.9]], "split": [[0.8]]})) is None
