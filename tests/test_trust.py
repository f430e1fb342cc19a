"""Arithmetic of `benchmarks.trust`: the studies and the rivals themselves are run by hand."""

from __future__ import annotations

from argparse import Namespace

import numpy as np
import pytest

from benchmarks import trust, trust_rivals
from benchmarks.trust_rivals import Task

pytestmark = pytest.mark.unit


def test_the_table_of_truth_has_biases_and_coverages() -> None:
    rows = [
        {"kind": "MNIST", "chosen": [0.9, 0.89, 0.91], "corrected": [0.86, 0.8, 0.9], "fresh": [0.8, 0.7, 0.9],
         "truth": 0.85, "truth again": 0.84, "fresh truth": 0.75},
        {"kind": "MNIST", "chosen": [0.92, 0.8, 0.95], "corrected": [0.86, 0.8, 0.9], "fresh": [0.8, 0.7, 0.9],
         "truth": 0.85, "truth again": 0.82, "fresh truth": 0.95},
    ]  # fmt: skip
    chosen, corrected, again, fresh = [
        [cell.strip() for cell in line.split("|")] for line in _rows(trust.show_truth(rows))
    ]
    assert chosen[2:6] == ["2", "chosen", "+6.00 ± 1.00", "+100%"]
    assert chosen[6].startswith("50.0%")
    assert corrected[4:6] == ["+1.00 ± 0.00", "+17%"]
    assert corrected[6].startswith("100.0%")
    assert again[4:6] == ["+3.00 ± 1.00", "+50%"]
    assert fresh[4] == "-5.00 ± 10.00"
    evaluated = [{"kind": "MNIST", "evaluated": [0.8, 0.7, 0.9], "truth": 0.75}]
    assert _rows(trust.show_truth(evaluated)) == ["| MNIST | 1 | evaluated | +5.00 ± nan |  | 100.0% (21% to 100%) |"]


def test_the_table_of_outer_splits_pairs_them() -> None:
    common = {"data": "wine", "seconds": 4.0, "default": 0.8, "trials": 7, "spent": 4.1}
    rows = [
        {**common, "way": "holdout", "split": 0, "scores": {"best": 0.9, "one_se": 0.7}},
        {**common, "way": "holdout", "split": 1, "scores": {"best": 0.8, "one_se": 0.9}},
        {**common, "way": "GridSearchCV", "split": 1, "scores": {"best": 0.79}},
    ]
    lines = {line.split("|")[1].strip(): line for line in _rows(trust.show_outer(rows))}
    assert "| 2 | 7 | 4.1 | 85.00 ± 63.53 | 0.00 ± 0.00 | 0% |" in lines["holdout best"]
    assert "| -5.00 ± 190.59 | 50% |" in lines["holdout one_se"]
    assert "| 1 | 7 | 4.1 | 79.00 | -1.00 | 100% |" in lines["GridSearchCV"]


def _rows(table: str) -> list[str]:
    return [line for line in table.splitlines() if line.startswith("|") and "---" not in line][1:]


def test_ways_take_turns_and_each_run_is_planned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust, "is_installed", lambda: True)
    keys = {
        "parts": ["truth", "evaluated", "outer"],
        "kinds": trust.KINDS,
        "studies": 4,
        "splits": 3,
        "seconds": 9.0,
        "data": ["wine", "digits"],
    }
    arguments = Namespace(**keys, ways=None)
    runs = [tuple(row.items()) for row in trust.plan(arguments)]
    ways = len(trust.WAYS) + 1 + len(trust_rivals.RIVALS)
    assert len(runs) == len(set(runs)) == 2 * 4 + 3 * 2 * ways
    first = [dict(run)["way"] for run in runs if ("data", "wine") in run][::ways]
    assert len(set(first)) == 3
    two = list(trust.plan(Namespace(**{**keys, "parts": ["outer"]}, ways=["holdout", "resplit"])))
    assert {(row["way"], row["evaluated"]) for row in two} == {
        ("holdout", False),
        ("holdout", True),
        ("resplit", False),
    }
    assert [row for row in two if tuple(row.items()) not in runs] == []


def test_a_grid_has_as_many_points_as_there_is_time_for_and_spans_the_ranges() -> None:
    data = np.zeros((10, 2), np.float32), np.arange(10) % 2
    task = Task(*data, *data, trust.SPACE, trust.DEFAULTS, 1, regression=True, seconds=1.0, seed=0)
    for size in (1, 2, 20, 500):
        grid = trust_rivals._make_grid(task, size)
        points = np.prod([len(levels) for levels in grid.values()])
        assert size / 2 <= points <= size
        for (low, high, _), levels in zip(trust.SPACE.values(), grid.values(), strict=True):
            assert low <= min(levels) <= max(levels) <= high
    assert set(grid) == {
        "regressor__net__lr", "regressor__net__module__width", "regressor__net__module__depth",
        "regressor__net__optimizer__weight_decay", "regressor__net__module__dropout",
    }  # fmt: skip
