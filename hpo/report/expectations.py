"""What people expect of a comparison, held against what came out: the `expect` of a study's `[report]` table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hpo.config import Value
from hpo.report.chapter import Note
from hpo.report.words import metric_text, names_text, value_text, values_text
from hpo.study.definition import Expectation

__all__ = ["judged"]

CHANCE = 0.05  # of a difference as large between groups that do not differ


def judged(
    expectation: Expectation, measure: str, better: Sequence[float], worse: Sequence[float], *, maximize: bool
) -> Note:
    """Whether trials came out as people expect, by the rank-sum test of Mann and Whitney (1947).

    Args:
        expectation: which trials are expected to be the better ones.
        measure: in what.
        better, worse: the scores of these trials, and of those they are compared with.
        maximize: whether more is better.
    """
    title = expectation.text or f"{_case(expectation.better)} is better than {_case(expectation.than)}"
    if not better or not worse:
        missing = expectation.than if better else expectation.better
        return Note("unknown", title, f"No complete trial has {_case(missing)}.")
    from scipy.stats import mannwhitneyu  # half a second to import

    p = float(mannwhitneyu(better, worse).pvalue)
    ahead = (np.median(better) > np.median(worse)) == maximize
    numbers = f"{_summary(expectation.better, measure, better)}, {_summary(expectation.than, measure, worse)}"
    if p >= CHANCE:
        return Note("note", title, f"This study does not decide it: {numbers} (p = {p:.2g}).")
    if ahead:
        return Note("ok", title, f"As people expect: {numbers} (p = {p:.2g}).")
    return Note("warning", title, f"Contrary to what people expect: {numbers} (p = {p:.2g}).")


def _summary(case: Mapping[str, Value], measure: str, values: Sequence[float]) -> str:
    middle = values_text(measure, float(np.median(values)))
    trials = "1 trial" if len(values) == 1 else f"{len(values)} trials"
    return f"{_case(case)} has a median {metric_text(measure)} of {middle} in {trials}"


def _case(case: Mapping[str, Value]) -> str:
    return names_text([f"{name} = {value_text(value)}" for name, value in case.items()])
