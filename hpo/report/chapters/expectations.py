"""Tests of the `expect` entries of a study's `[report]` table."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hpo.config.parameter import Value
from hpo.report.chapters.blocks import Note
from hpo.report.format import metric_text, names_text, number_of, value_text, values_text
from hpo.study.definition import Expectation

__all__ = ["ScoredTrial", "judge_expectations"]

CHANCE = 0.05  # of a difference as large between groups that do not differ
PAIRS = 6  # the fewest whose difference can be significant at that chance: 2 / 2**6 < 0.05


@dataclass(frozen=True)
class ScoredTrial:
    """A trial's score.

    Attributes:
        value: in the measure that is compared.
        rest: equal for trials that are equal in all that the study varies but what is compared.
    """

    value: float
    rest: Hashable = None


def judge_expectations(
    expectation: Expectation,
    measure: str,
    better: Sequence[ScoredTrial],
    worse: Sequence[ScoredTrial],
    *,
    maximize: bool,
) -> Note:
    """Test whether trials came out as people expect.

    Where there are six pairs or more of trials that are equal in all else, by the signed-rank test of their differences
    (Wilcoxon, 1945), which other parameters then do not blur; else by the rank-sum test (Mann and Whitney, 1947).

    Args:
        expectation: which trials are expected to be the better ones.
        measure: in what.
        better, worse: these trials, and those they are compared with.
        maximize: whether more is better.
    """
    title = expectation.text or f"{_case_text(expectation.better)} is better than {_case_text(expectation.than)}"
    if not better or not worse:
        missing = expectation.than if better else expectation.better
        return Note("unknown", title, f"No complete trial has {_case_text(missing)}.")
    lead, p, note = _test_difference(
        [one.value for one in better], [one.value for one in worse], _paired_differences(better, worse)
    )
    numbers = f"{_summary_text(expectation.better, measure, better)}, {_summary_text(expectation.than, measure, worse)}"
    numbers = f"{numbers} (p = {p:.2g}{note})"
    if p >= CHANCE:
        return Note("note", title, f"No significant difference: {numbers}.")
    if (lead > 0) == maximize:
        return Note("ok", title, f"As expected: {numbers}.")
    return Note("warning", title, f"Contrary to what is expected: {numbers}.")


def _paired_differences(better: Sequence[ScoredTrial], worse: Sequence[ScoredTrial]) -> list[float]:
    """Return the mean differences of trials of both sides that are equal in everything else."""
    better_by_rest, worse_by_rest = _group_by_rest(better), _group_by_rest(worse)
    return [
        float(np.mean(better_by_rest[rest]) - np.mean(worse_by_rest[rest]))
        for rest in better_by_rest
        if rest in worse_by_rest
    ]


def _group_by_rest(scored: Sequence[ScoredTrial]) -> dict[Hashable, list[float]]:
    groups: dict[Hashable, list[float]] = {}
    for one in scored:
        groups.setdefault(one.rest, []).append(one.value)
    return groups


def _test_difference(better: list[float], worse: list[float], differences: list[float]) -> tuple[float, float, str]:
    """Return the lead of the first, above 0 where it is more, the p value, and what pairs it is of.

    The side comes from the statistic that is tested: medians can be equal, or even lie the other way round.
    """
    from scipy.stats import mannwhitneyu, rankdata, wilcoxon  # half a second to import

    if len(differences) < PAIRS or not any(differences):
        result = mannwhitneyu(better, worse)
        return float(result.statistic) - len(better) * len(worse) / 2, float(result.pvalue), ""
    moved = np.array([difference for difference in differences if difference])
    lead = float(np.sum(np.sign(moved) * rankdata(np.abs(moved))))
    return lead, float(wilcoxon(differences).pvalue), f", {len(differences)} pairs that are equal in everything else"


def _summary_text(case: Mapping[str, Value], measure: str, scored: Sequence[ScoredTrial]) -> str:
    middle = values_text(measure, float(np.median([one.value for one in scored])))
    trials = number_of(len(scored), "trial")
    return f"{_case_text(case)} has a median {metric_text(measure)} of {middle} in {trials}"


def _case_text(case: Mapping[str, Value]) -> str:
    return names_text([f"{name} = {value_text(value)}" for name, value in case.items()])
