"""Arithmetic of `make rivals`: the tools themselves are run by hand."""

from __future__ import annotations

import math

import pytest

from benchmarks.rivals.contenders import CONTENDERS, count_lines
from benchmarks.rivals.curves import best_at, best_so_far, find_ties, seconds_to, summarize
from benchmarks.rivals.table import show_budgets, show_task
from benchmarks.rivals.tasks import SCORES, read_space, study_file
from hpo.study.input.study_file import read_study

pytestmark = pytest.mark.unit


def test_a_curve_has_the_points_at_which_the_best_rises():
    curve = best_so_far([(3, 0.8), (1, 0.5), (2, 0.4), (4, 0.8), (5, math.nan), (6, 0.9)])
    assert curve == [(1, 0.5), (3, 0.8), (6, 0.9)]
    assert [seconds_to(curve, score) for score in (0.5, 0.6, 0.9, 0.95)] == [1, 3, 6, math.inf]
    assert [best_at(curve, seconds) for seconds in (1, 5.9, 60)] == [0.5, 0.8, 0.9]
    assert math.isnan(best_at(curve, 0.5))


def test_a_summary_is_the_median_with_its_interval_and_never_is_the_largest():
    summary = summarize([5, 1, math.inf, 2, 3])
    assert (summary.median, summary.least, summary.most, summary.seeds) == (3, 1, math.inf, 5)
    assert summary.low <= 3 <= summary.high
    assert summarize([math.inf, 1, math.inf]).median == math.inf
    assert summarize([math.nan, 0.5, 0.6]).least == -math.inf
    assert summarize([7]) == summarize([7, 7, 7]).__class__(7, 7, 7, 7, 7, 1)


def test_ties_are_those_whose_intervals_overlap_the_best_one():
    fast, near, slow = summarize([10, 11, 12, 13, 14]), summarize([12, 13, 14, 15, 16]), summarize([30, 31, 32, 33, 34])
    never = summarize([math.inf] * 5)
    assert find_ties([fast, near, slow, never], largest=False) == [True, True, False, False]
    assert find_ties([fast, slow], largest=True) == [False, False]
    assert find_ties([never, never], largest=False) == [False, False]


def test_the_tables_mark_the_best_and_say_never():
    rows = [
        {
            "tool": tool,
            "seconds": 60,
            "curve": curve,
            "begun": 9,
            "complete": 7,
            "wall": 61.0,
            "memory": 500,
            "processor": 99.0,
        }
        for tool, curve in (("hpo", [(5.0, 0.975)]), ("optuna", [(50.0, 0.96)]))
    ]
    table = show_task("mnist_mlp", rows).splitlines()
    assert "best at 60 s" in table[2]
    assert "best at 240 s" not in table[2]
    assert table[4].startswith("| torch-hpo | 1 | 5.0* | never | 0.9750* | 9 | 7 | 61.0 | 99 | 500 |")
    assert table[5].startswith("| Optuna | 1 | never | never | 0.9600 | 9 | 7 | 61.0 |")


def test_the_table_of_budgets_counts_trials_that_never_end():
    row = {"task": "mnist_mlp", "trials": 8, "tool": "optuna", "stopped": False, "exit": 0, "wall": 1.0}
    rows = [
        {**row, "kind": "trials", "killed": False, "begun": 8, "ended": 8},
        {**row, "kind": "killed", "killed": True, "begun": 8, "ended": 7},
    ]
    assert show_budgets(rows).endswith("| Optuna | 8 | 7 (1 begun and never ended) |")


@pytest.mark.parametrize("task", SCORES)
def test_every_tool_searches_the_space_of_our_study_file(task):
    space = read_space(task)
    _, definition, _ = read_study(str(study_file(task)), {}, dataset="mnist", trials=1)
    searched = [dimension.parameter.name for dimension in definition.space.varied]
    assert sorted(searched) == sorted([*space.choices, *space.integers, *space.rates])


def test_lines_of_code_are_counted_without_comments_and_docstrings(tmp_path):
    script = tmp_path / "script.py"
    function = 'def make_mlp():\n    "Doc."\n    y = """a\nb"""\n'
    script.write_text(f'"Docstring"\n# comment\n\nx = f(\n    1,\n)  # comment\n\n{function}')
    assert [count_lines(script, model) for model in ("mlp", "cnn")] == [6, 3]
    assert all(tool.lines("mnist_mlp") > 5 for tool in CONTENDERS.values())
