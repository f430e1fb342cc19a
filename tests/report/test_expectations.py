"""Expectations: decided where the numbers decide, and contradicted where they contradict."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from scipy.stats import mannwhitneyu, wilcoxon

from hpo.report.chapters.blocks import Note
from hpo.report.chapters.expectations import ScoredTrial, judge_expectations
from hpo.study.definition import Expectation

EXPECTED = Expectation(better={"depth": 8}, than={"depth": 1}, text="deeper is better")
LOW, HIGH = [0.10, 0.11, 0.12, 0.13, 0.14], [0.2, 0.21, 0.22, 0.23, 0.24]


def judge(better: Sequence[float], worse: Sequence[float], *, maximize: bool, pairs: bool = False) -> Note:
    sides = (
        [ScoredTrial(value, i if pairs else (side, i)) for i, value in enumerate(values)]
        for side, values in enumerate((better, worse))
    )
    return judge_expectations(EXPECTED, "val_loss", *sides, maximize=maximize)


@pytest.mark.parametrize(
    ("maximize", "level", "words"), [(True, "ok", "As expected"), (False, "warning", "Contrary to")]
)
def test_it_is_said_which_way_it_came_out(maximize: bool, level: str, words: str) -> None:
    note = judge(HIGH, LOW, maximize=maximize)
    assert (note.level, note.title) == (level, "deeper is better")
    assert note.text.startswith(words)
    assert "depth = 8 has a median validation loss of 0.22 in 5 trials" in note.text
    assert f"p = {mannwhitneyu(HIGH, LOW).pvalue:.2g})" in note.text


def test_what_chance_explains_is_not_decided() -> None:
    note = judge([0.1, 0.3, 0.2], [0.15, 0.25, 0.22], maximize=False)
    assert note.level == "note"
    assert note.text.startswith("No significant difference")


def test_pairs_decide_what_other_parameters_blur() -> None:
    worse = [0.1, 0.5, 0.9, 1.3, 1.7, 2.1]
    better = [value - 0.01 - 0.001 * i for i, value in enumerate(worse)]
    assert judge(better, worse, maximize=False).level == "note"
    note = judge(better, worse, maximize=False, pairs=True)
    assert note.level == "ok"
    p = wilcoxon(better, worse).pvalue
    assert f"(p = {p:.2g}, 6 pairs that are equal in everything else)" in note.text


def test_five_pairs_are_too_few_to_decide_alone() -> None:
    assert "pairs" not in judge(LOW, HIGH, maximize=False, pairs=True).text


def test_trials_of_the_same_rest_are_one_pair() -> None:
    """Six seeds of one configuration are no six pairs of configurations."""
    ours = [ScoredTrial(value, "same") for value in [*LOW, 0.15]]
    theirs = [ScoredTrial(value, "same") for value in [*HIGH, 0.25]]
    assert "pairs" not in judge_expectations(EXPECTED, "val_loss", ours, theirs, maximize=False).text


def test_equals_are_not_decided() -> None:
    assert judge([0.1] * 8, [0.1] * 8, maximize=False, pairs=True).level == "note"


def test_without_trials_of_one_kind_nothing_is_said() -> None:
    note = judge([], LOW, maximize=False)
    assert (note.level, note.text) == ("unknown", "No complete trial has depth = 8.")


def test_ties_do_not_turn_what_came_out() -> None:
    """The medians are equal in both; all that differs, differs as expected."""
    worse = [0.98] * 20
    better = [0.98] * 11 + [0.981 + 0.001 * i for i in range(9)]
    assert judge(better, worse, maximize=True, pairs=True).level == "ok"
    assert judge(better, worse, maximize=False, pairs=True).level == "warning"
    above, below = [0.97] * 6 + [0.98] * 20, [0.96] * 12 + [0.98] * 14
    assert judge(above, below, maximize=True).level == "ok"
    assert judge(below, above, maximize=True).level == "warning"
    assert judge(below, above, maximize=False).level == "ok"
