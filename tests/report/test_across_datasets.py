"""Several data sets: ranks against Demsar's published example, means and probabilities against scipy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from hpo.config.trial_config import TrialConfig
from hpo.report.chapters.blocks import Table, Text
from hpo.report.chapters.data_sets import data_sets_chapter
from hpo.report.data.evaluations import CandidateRuns, EvaluationResults, EvaluationRun
from hpo.report.stats.across_datasets import (
    average_ranks,
    compare_across,
    critical_difference,
    describe_across,
    interquartile_mean,
    mean_improvement,
    rank_test,
    tabulate_across,
)
from hpo.study import Objective

# Demsar (2006), table 6: AUC of C4.5 and three ways of tuning it on 14 data sets; a fourth digit parts a rounded tie.
DEMSAR = np.array(
    [
        [0.763, 0.768, 0.771, 0.798], [0.599, 0.591, 0.590, 0.569], [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657], [0.882, 0.888, 0.886, 0.898], [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685], [0.583, 0.583, 0.563, 0.625], [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000], [0.940, 0.962, 0.965, 0.962], [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.9751, 0.975], [0.957, 0.978, 0.946, 0.970],
    ]
)  # fmt: skip


def test_ranks_and_critical_differences_are_demsars() -> None:
    assert average_ranks(DEMSAR) == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=5e-4)
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=5e-3)
    assert critical_difference(4, 14, 0.90) == pytest.approx(1.12, abs=5e-3)


def test_the_statistic_is_demsars_where_ranks_have_no_ties_and_scipys_where_they_have() -> None:
    found = rank_test(DEMSAR)
    assert found is not None
    assert found.statistic == pytest.approx(stats.friedmanchisquare(*DEMSAR.T).statistic)
    untied = np.array([[4, 3, 2, 1], [1, 2, 3, 4], [4, 1, 2, 3], [4, 1, 3, 2], [4, 2, 3, 1]], float)
    ranks = average_ranks(untied)
    squared = 12 * 5 / 20 * (float((ranks**2).sum()) - 4 * 25 / 4)
    ratio = 4 * squared / (5 * 3 - squared)
    test = rank_test(untied)
    assert test is not None
    assert (test.statistic, test.p) == pytest.approx((squared, stats.f.sf(ratio, 3, 12)))


@pytest.mark.parametrize(
    ("configurations", "datasets", "p"),
    [(3, 2, 1 / 6), (3, 3, 1 / 36), (4, 2, 1 / 24), (3, 4, 1 / 216), (5, 6, 120.0**-5)],
)
def test_data_sets_that_all_rank_alike_are_as_improbable_as_that(configurations: int, datasets: int, p: float) -> None:
    found = rank_test(np.tile(np.arange(configurations, dtype=float), (datasets, 1)))
    assert found is not None
    assert found.p == pytest.approx(p)


def test_few_rankings_have_the_exact_p_of_friedmans_tables() -> None:
    ranked = np.array(
        [[3, 2, 1], [3, 2, 1], [3, 1, 2], [2, 3, 1]], float
    )  # chi-squared 4.5 of 3 configurations, 4 sets
    found = rank_test(ranked)
    assert found is not None
    assert (found.statistic, found.p) == (pytest.approx(4.5), pytest.approx(0.125, abs=5e-4))
    tied = rank_test(np.array([[2, 1, 1], [2, 1, 1]], float))
    assert tied is not None
    assert tied.p == pytest.approx(1 / 3)


def test_two_configurations_are_compared_by_wilcoxons_test() -> None:
    found = rank_test(DEMSAR[:, :2])  # Demsar's table 2: T = 12 with the ranks of equal scores shared
    assert found is not None
    assert (found.name, found.statistic, found.critical_difference) == ("wilcoxon", 12.0, None)
    assert found.p < 0.05
    assert rank_test(np.ones((3, 2))) is None


def test_means_and_probabilities_are_scipys() -> None:
    rng = np.random.default_rng(0)
    first, second = ([rng.normal(shift, 1, n) for n in (4, 5, 7)] for shift in (0.5, 0.0))
    mean = interquartile_mean(first)
    assert mean.value == pytest.approx(stats.trim_mean(np.concatenate(first), 0.25))
    assert mean.low < mean.value < mean.high
    found = mean_improvement(first, second)
    expected = [stats.mannwhitneyu(x, y).statistic / (len(x) * len(y)) for x, y in zip(first, second, strict=True)]
    assert found.value == pytest.approx(np.mean(expected))
    assert found.low < found.value < found.high
    assert mean_improvement(first, first).value == pytest.approx(0.5)


def test_the_bootstrap_draws_runs_within_their_data_set() -> None:
    apart = [np.full(4, 0.0), np.full(4, 1.0), np.full(4, 2.0)]  # drawn across them, the mean would vary
    found = interquartile_mean(apart)
    assert (found.low, found.value, found.high) == (1.0, 1.0, 1.0)
    single = interquartile_mean([np.array([0.1]), np.array([0.2, 0.3])])
    assert np.isnan(single.low)


def results(dataset: str, scores: dict[str, list[float]], metric: str = "accuracy") -> EvaluationResults:
    candidates = tuple(
        CandidateRuns(
            label,
            1,
            label == "defaults",
            TrialConfig(),
            {},
            None,
            tuple(EvaluationRun(dataset, i, i, "COMPLETE", {}, {f"test_{metric}": s}) for i, s in enumerate(values)),
        )
        for label, values in scores.items()
    )
    direction = "maximize" if metric == "accuracy" else "minimize"
    objective = Objective(metric=f"val_{metric}", direction=direction)  # type: ignore[arg-type]
    return EvaluationResults((dataset,), dataset, False, False, objective, candidates, 0)


def test_one_table_of_all_data_sets() -> None:
    evaluations = [
        results(name, {"trial 1": [0.9, 0.92], "trial 2": [0.7, 0.72], "defaults": [0.5, 0.52]}) for name in "abcdef"
    ]
    found = compare_across(evaluations)
    assert found is not None
    assert found.labels == ("trial 1", "trial 2", "defaults")
    rows = tabulate_across(found)
    assert [row["rank"] for row in rows] == [1, 2, 3]
    assert rows[0]["a"] == pytest.approx(0.91)
    assert [row["improvement"] for row in rows] == [None, 1.0, 1.0]
    assert [row["same_rank"] for row in rows] == [None, True, False]
    assert "trial 1 is better than defaults" in describe_across(found)[0]
    chapter = data_sets_chapter([found])
    assert chapter is not None
    table = next(block for block in chapter.blocks if isinstance(block, Table))
    assert table.rows[2][:3] == ["defaults", "3.00", "51.00 %"]
    assert table.rows[2][-1] == "yes"
    assert any("Nemenyi" in block.text for block in chapter.blocks if isinstance(block, Text))


@pytest.mark.parametrize(("labels", "datasets", "least"), [(3, 2, "0.17"), (3, 3, None), (2, 5, "0.062"), (2, 6, None)])
def test_data_sets_too_few_for_any_difference_are_said_to_be(labels: int, datasets: int, least: str | None) -> None:
    scores = {f"trial {n}": [0.9 - n / 10, 0.91 - n / 10] for n in range(labels)}
    found = compare_across([results(f"data {n}", scores) for n in range(datasets)])
    assert found is not None
    assert found.test is not None
    assert (found.test.p > 0.05) == (least is not None)  # and they all agree
    told = " ".join(describe_across(found))
    assert (f"too few for a test of ranks: if all agreed on the order, p would be {least}" in told) == bool(least)
    assert not least or "differ significantly from" not in told


def test_losses_are_scaled_on_each_data_set_and_lower_ones_are_better() -> None:
    evaluations = [results(n, {"trial 1": [1.0 * s, 2.0 * s], "defaults": [3.0 * s, 5.0 * s]}, "loss") for n, s in
                   (("a", 1), ("b", 1000))]  # fmt: skip
    found = compare_across(evaluations)
    assert found is not None
    assert found.scaled
    assert found.labels[0] == "trial 1"
    assert found.interquartile["trial 1"].value == pytest.approx(0.875)
    assert found.interquartile["defaults"].value == pytest.approx(0.25)
    assert any("scaled" in line for line in describe_across(found))


def test_what_not_all_data_sets_have_is_left_out() -> None:
    one = results("a", {"trial 1": [0.9], "trial 2": [0.8], "defaults": [0.5]})
    other = results("b", {"trial 1": [0.9], "defaults": [0.95]})
    found = compare_across([one, other])
    assert found is not None
    assert set(found.labels) == {"trial 1", "defaults"}
    assert compare_across([one]) is None
    assert compare_across([one, replace(other, candidates=())]) is None
    assert data_sets_chapter([]) is None
