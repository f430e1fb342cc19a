"""When a study's curves reached what, against a search by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hpo.report.chapters.blocks import Table
from hpo.report.chapters.learning_curves import _round_level, find_reach, learning_curves_chapter
from hpo.report.data.results import read_results
from hpo.report.format import values_text
from hpo.report.stats.trial_stats import choose_curve_objective
from tests.report.helpers import filled
from tests.study.helpers import make_study


@pytest.mark.parametrize("objective", ["val_accuracy", "val_loss"])
def test_the_table_says_when_each_level_was_reached(tmp_path: Path, objective: str) -> None:
    results = read_results(filled(tmp_path, objective=objective, trials=20, states=("COMPLETE", "PRUNED", "diverged")))
    told = choose_curve_objective(results)
    assert told is not None
    assert told.metric == objective
    assert told.direction == ("maximize" if objective == "val_accuracy" else "minimize")
    table = next(block for block in learning_curves_chapter(results).blocks if isinstance(block, Table))
    assert table.rows
    for level_text, trials, fewest, median, *_ in table.rows:
        level = float(level_text.split()[0]) / (100 if level_text.endswith("%") else 1)
        firsts = []
        for row in results.trials:
            good = [
                e["epoch"]
                for e in row.epochs
                if (e[objective] >= level if told.direction == "maximize" else e[objective] <= level)
            ]
            firsts += [min(good)] if good else []
        assert trials == f"{len(firsts)} of 20"
        assert fewest.startswith(f"{min(firsts):g} ")
        assert median == f"{np.median(firsts):g}"


def test_a_level_that_is_never_reached_and_seconds_that_are(tmp_path: Path) -> None:
    row = read_results(filled(tmp_path, trials=2)).trials[0]
    assert find_reach(row, "val_accuracy", 1.1, maximize=True) is None
    hit = find_reach(row, "val_accuracy", row.epochs[2]["val_accuracy"], maximize=True)
    assert hit is not None
    assert (hit.epoch, hit.seconds) == (3, row.epochs[2]["seconds"])


@pytest.mark.parametrize(
    ("value", "up", "rounded"),
    [(0.98765, False, 0.987), (0.98765, True, 0.988), (0.9, True, 0.9), (0.01234, True, 0.013), (12.34, False, 12.0)],
)
def test_levels_are_round_and_on_the_worse_side(value: float, up: bool, rounded: float) -> None:
    assert _round_level(value, up=up) == rounded
    assert values_text("val_accuracy", 0.987) == "98.70 %"


def test_without_epochs_there_is_no_table(tmp_path: Path) -> None:
    assert len(learning_curves_chapter(read_results(make_study(tmp_path, "none", trials=2))).blocks) == 1
