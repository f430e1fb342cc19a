"""Score of a nested evaluation: the interval of its paper, the direction, and what the folds agree on."""

from __future__ import annotations

import math
from typing import Any

import pytest
from scipy.stats import t

from hpo.datasets import OuterFold
from hpo.report.chapters.blocks import Table, Text
from hpo.report.chapters.nested import describe_agreement, describe_nested, nested_chapter
from hpo.report.data.nested import NestedResults, OuterResult
from hpo.report.stats.nested_score import average_folds, score_nested
from hpo.space import Space
from hpo.study import Objective

SPACE = {
    "optimizer": ["adam", "sgd"],
    "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
    "depth": {"low": 0, "high": 4},
}


def fold(index: int, claimed: float, score: float | None, rival: float | None = None, **settings: Any) -> OuterResult:
    place = OuterFold(count=4, index=index, seed=0, training=75, testing=25)
    scores = {} if score is None else {7: score}
    rivals = {} if rival is None else {7: rival}
    return OuterResult(place, f"mine-outer-{index + 1}-of-4", 0, index, settings, claimed, scores, rivals)


def nested(*folds: OuterResult, metric: str = "val_accuracy", direction: Any = "maximize") -> NestedResults:
    objective = Objective(metric=metric, direction=direction)
    return NestedResults("mine", "wine", objective, Space(SPACE), 4, folds, "defaults", refit=True)


def test_the_interval_is_that_of_nadeau_and_bengio() -> None:
    values = [0.90, 0.92, 0.96, 0.94]
    found = average_folds(values, 25 / 75)
    assert found is not None
    deviation = math.sqrt(sum((value - 0.93) ** 2 for value in values) / 3)
    reach = t.ppf(0.975, 3) * deviation * math.sqrt(1 / 4 + 25 / 75)
    assert (found.mean, found.low, found.high) == pytest.approx((0.93, 0.93 - reach, 0.93 + reach))
    assert average_folds([0.99, 0.98, 1.0], 0.5, (0.0, 1.0)).high == 1.0  # type: ignore[union-attr]
    assert average_folds([0.9], 0.5).low is None  # type: ignore[union-attr]
    assert average_folds([], 0.5) is None


def test_optimism_is_above_zero_where_the_study_claims_more_whatever_the_direction() -> None:
    up = score_nested(nested(*(fold(i, 0.9, 0.8, 0.7) for i in range(4))))
    assert up.score is not None
    assert (up.score.mean, up.claimed) == pytest.approx((0.8, 0.9))
    assert (up.metric, up.claimed_metric, up.complete) == ("test_accuracy", "val_accuracy", True)
    down = score_nested(nested(*(fold(i, 1.0, 1.5, 2.0) for i in range(4)), metric="val_loss", direction="minimize"))
    assert up.optimism is not None
    assert down.optimism is not None
    assert down.gain is not None
    assert up.optimism.mean == pytest.approx(0.1)
    assert (down.optimism.mean, down.gain.mean) == pytest.approx((0.5, 0.5))


def test_folds_that_are_not_tested_are_in_no_mean() -> None:
    found = score_nested(nested(fold(0, 0.9, 0.8), fold(1, 0.5, None)))
    assert found.score is not None
    assert (found.score.mean, found.claimed, found.score.count) == pytest.approx((0.8, 0.9, 1))
    assert not found.complete
    assert "of which 1 is tested" in describe_nested(found)[0]
    assert "none is tested yet" in describe_nested(score_nested(nested(fold(0, 0.9, None))))[0]


def test_agreement_is_by_value_of_choices_and_by_distance_on_the_scale_of_ranges() -> None:
    chosen: list[dict[str, Any]] = [
        {"optimizer": "adam", "learning_rate": 0.001, "depth": 0},
        {"optimizer": "adam", "learning_rate": 0.002, "depth": 4},
        {"optimizer": "adam", "learning_rate": 0.001, "depth": 2},
        {"optimizer": "sgd", "learning_rate": 0.001, "depth": 2},
    ]
    found = score_nested(nested(*(fold(i, 0.9, 0.8, **values) for i, values in enumerate(chosen))))
    by_name = {each.parameter: each for each in found.parameters}
    assert by_name["optimizer"].common == 0.75
    assert by_name["learning_rate"].spread == pytest.approx(math.log10(2) / 3)
    assert by_name["depth"].spread == 1.0
    assert [each.parameter for each in found.parameters if each.agrees] == ["learning_rate"]
    told = describe_agreement(found)
    assert told.startswith("4 folds have chosen 4 different configurations. They agree on learning_rate.")
    same = score_nested(nested(*(fold(i, 0.9, 0.8, **chosen[0]) for i in range(4))))
    assert describe_agreement(same) == "All 4 folds have chosen the same configuration."


def test_a_baseline_beyond_a_range_counts_as_its_end() -> None:
    found = score_nested(nested(*(fold(i, 0.9, 0.8, learning_rate=value) for i, value in enumerate((0.0, 1e-4, 1.0)))))
    assert found.parameters[0].values == (0.0, 1e-4, 1.0)
    assert found.parameters[0].spread == 1.0


def test_the_chapter_has_a_row_for_each_fold_and_each_parameter() -> None:
    found = score_nested(nested(*(fold(i, 0.9 + i / 100, 0.8 + i / 50, 0.8, depth=i) for i in range(4))))
    chapter = nested_chapter(None, [found])  # type: ignore[arg-type]
    assert chapter is not None
    scores, parameters = (block for block in chapter.blocks if isinstance(block, Table))
    assert [row[0] for row in scores.rows] == ["1 of 4", "2 of 4", "3 of 4", "4 of 4", "mean"]
    assert scores.rows[0][3:] == ["90.00 %", "80.00 %", "80.00 %"]
    assert parameters.rows == [["depth", "0", "1", "2", "3", "within 75 % of the range"]]
    assert any("Nadeau and Bengio" in block.text for block in chapter.blocks if isinstance(block, Text))
    assert nested_chapter(None, []) is None  # type: ignore[arg-type]
