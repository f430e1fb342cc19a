"""Comparisons by the `[report]` table: groups against a count by hand, and the table's own checks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpo.errors import RequestError
from hpo.report.chapters.blocks import Note, Table, Text
from hpo.report.chapters.comparison import classify_fit, comparison_chapter, measure_trial
from hpo.report.data.results import Results, TrialRow, read_results
from hpo.report.figures.plotly_spec import Figure
from hpo.report.format import values_text
from hpo.report.render.svg import render_svg
from hpo.study import Study
from hpo.study.definition import Budget
from hpo.study.input.study_file import parse_definition
from tests.report.helpers import SPACE, filled

EXPECT = {"better": {"depth": 3}, "than": {"depth": 1}}


def compared(folder: Path, report: dict[str, Any], **keys: Any) -> Results:
    return read_results(filled(folder, **{"trials": 40, "report": report, **keys}))


def test_groups_hold_every_complete_trial_once_with_its_quartiles(tmp_path: Path) -> None:
    results = compared(tmp_path, {"compare": ["optimizer", "depth"]}, states=("COMPLETE", "PRUNED", "COMPLETE"))
    chapter = comparison_chapter(results)
    assert chapter is not None
    table = next(block for block in chapter.blocks if isinstance(block, Table))
    assert sum(int(row[1]) for row in table.rows) == len(results.ranked)
    for name, count, best, number, median, quartiles in table.rows:
        optimizer, depth = name.split(", ")
        rows = [r for r in results.ranked if (r.params["optimizer"], str(r.params["depth"])) == (optimizer, depth)]
        values = [row.value for row in rows]
        low, middle, high = (values_text("val_accuracy", float(v)) for v in np.quantile(values, [0.25, 0.5, 0.75]))
        assert (int(count), best) == (len(rows), values_text("val_accuracy", max(values)))
        assert (number, median, quartiles) == (str(rows[0].number), middle, f"{low} to {high}")


def test_against_x_each_place_is_the_best_of_its_trials(tmp_path: Path) -> None:
    results = compared(tmp_path, {"x": "depth", "compare": ["optimizer"], "y": ["val_loss", "epoch_seconds"]})
    chapter = comparison_chapter(results)
    assert chapter is not None
    figure = next(block for block in chapter.blocks if isinstance(block, Figure) and block.key == "comparison-0")
    assert figure.spec
    for trace in figure.spec["data"]:
        if trace.get("name"):
            optimizer = trace["name"].removeprefix("optimizer = ")
            for x, y in zip(trace["x"], trace["y"], strict=True):
                rows = [r for r in results.ranked if r.params["optimizer"] == optimizer and r.params["depth"] == x]
                assert y == min(measure_trial(results, row, "val_loss") or 0.0 for row in rows)


def test_what_is_expected_is_held_against_the_trials(tmp_path: Path) -> None:
    """Of these studies the score falls with dropout, and depth has no part in it."""
    asked = {"x": "depth", "expect": [EXPECT, {"better": {"dropout": 0.0}, "than": {"dropout": 0.3}, "text": "free"}]}
    space = {"epochs": 2, "learning_rate": 0.01, "depth": [1, 3], "dropout": [0.0, 0.3], "width": [8, 9, 10, 11, 12]}
    results = compared(tmp_path, asked, sampler="grid", trials=20, pruner="none", parameters=space)
    chapter = comparison_chapter(results)
    assert chapter is not None
    depth, dropout = (block for block in chapter.blocks if isinstance(block, Note))
    assert (depth.level, depth.title) == ("note", "depth = 3 is better than depth = 1")
    assert (dropout.level, dropout.title) == ("ok", "free")
    assert dropout.text.endswith("in 10 trials (p = 0.002, 10 pairs that are equal in everything else).")


@pytest.mark.parametrize("x", ["parameter_count", "learning_rate", "batch_norm"])
def test_x_may_be_a_cost_a_range_or_a_choice(tmp_path: Path, x: str) -> None:
    results = compared(tmp_path, {"x": x, "log": x != "batch_norm"})
    chapter = comparison_chapter(results)
    assert chapter is not None
    figures = [block for block in chapter.blocks if isinstance(block, Figure)]
    assert figures[0].spec
    assert len(figures[0].spec["data"][-1]["x"]) <= 24
    assert all(render_svg(figure) for figure in figures)


def test_without_a_table_or_a_trial_there_is_no_chapter(tmp_path: Path) -> None:
    assert comparison_chapter(compared(tmp_path, {"x": "depth"}, states=("FAIL",))) is None
    assert comparison_chapter(read_results(filled(tmp_path, "plain", trials=3))) is None


def test_a_knee_is_marked_on_each_line_and_none_where_there_is_no_line(tmp_path: Path) -> None:
    """Only the trials of one optimizer have a momentum."""
    report = {"x": "momentum", "compare": ["optimizer"], "y": ["val_loss"], "knee": "what it is worth"}
    space = {**SPACE, "momentum": [0.0, 0.3, 0.6, 0.9]}
    results = compared(tmp_path, report, parameters=space)
    chapter = comparison_chapter(bent(results, "momentum", {0.0: 0.9, 0.3: 0.2, 0.6: 0.15, 0.9: 0.1}))
    assert chapter is not None
    figure = next(block for block in chapter.blocks if isinstance(block, Figure) and block.key == "comparison-0")
    assert figure.spec
    [mark] = [t for t in figure.spec["data"] if t.get("marker", {}).get("symbol") == "circle-open"]
    assert (mark["x"], mark["y"]) == ([0.3], [0.2])
    text = "".join(block.text for block in chapter.blocks if isinstance(block, Text))
    assert "The knee with optimizer = momentum is at momentum 0.3, an estimate of the what it is worth" in text
    assert "optimizer = adam" not in text


def bent(results: Results, name: str, losses: dict[float, float]) -> Results:
    """The same trials with a validation loss that follows from a parameter's value."""

    def changed(row: TrialRow) -> TrialRow:
        loss = losses.get(row.params.get(name), 0.5)  # type: ignore[arg-type]
        return replace(row, epochs=[{**epoch, "val_loss": loss} for epoch in row.epochs])

    return replace(results, trials=[changed(row) for row in results.trials])


def test_expectations_pair_by_what_both_sides_have(tmp_path: Path) -> None:
    """Deep models have a width profile that shallow ones have not; each optimizer has rates of its own."""
    space = {
        "depth": [1, 2],
        "width_profile": ["uniform", "decreasing"],
        "optimizer": ["adam", "sgd"],
        "learning_rate": [
            {"choices": [0.001, 0.01], "when": {"optimizer": "adam"}},
            {"choices": [0.1, 0.2], "when": {"optimizer": "sgd"}},
        ],
        "seed": [0, 1, 2],
    }

    def said(y: str, better: dict[str, Any], than: dict[str, Any]) -> str:
        report = {"compare": ["depth"], "y": [y], "expect": [{"better": better, "than": than}]}
        chapter = comparison_chapter(
            compared(tmp_path / y, report, parameters=space, sampler="grid", pruner="none", trials=36)
        )
        assert chapter is not None
        return next(block.text for block in chapter.blocks if isinstance(block, Note))

    deep = said("parameter_count", {"depth": 2}, {"depth": 1})
    assert ", 12 pairs that are equal in everything else" in deep  # 4 rates, 3 seeds; over both profiles
    adam = said("val_accuracy", {"optimizer": "adam"}, {"optimizer": "sgd"})
    assert ", 9 pairs that are equal in everything else" in adam  # 3 shapes, 3 seeds; over the rates of each


def test_the_last_learning_rate_is_held_against_what_was_asked_for(tmp_path: Path) -> None:
    space = {"epochs": 4, "schedule": ["constant", "linear"], "learning_rate": [0.1, 0.2], "seed": [0, 1]}
    report = {"compare": ["schedule"], "y": ["learning_rate"]}
    results = compared(tmp_path, report, parameters=space, sampler="grid", pruner="none", trials=8)
    chapter = comparison_chapter(results)  # the helper's trials record a constant rate
    assert chapter is not None
    [table] = [block for block in chapter.blocks if isinstance(block, Table)]
    assert table.rows == [
        ["schedule = constant", "4", "0.1, 0.2", "0.1, 0.2", "0.1, 0.2"],
        ["schedule = linear", "4", "0.1, 0.2", "0.001, 0.002", "0.1, 0.2"],
    ]
    said = [block.text for block in chapter.blocks if isinstance(block, Text)]
    assert "4 of 8 trials ended at exactly the learning rate that was configured." in said


@pytest.mark.parametrize(
    ("train", "validation", "fit"),
    [
        ([1, 0.6, 0.4, 0.2, 0.1, 0.05], [1, 0.7, 0.6, 0.65, 0.7, 0.8], "overfits"),
        ([1, 0.9, 0.8, 0.7, 0.6, 0.5], [1, 0.9, 0.8, 0.7, 0.6, 0.5], "underfits"),
        ([1, 0.5, 0.3, 0.25, 0.249, 0.248], [1, 0.5, 0.35, 0.3, 0.299, 0.298], ""),
        ([1, 0.5], [1, 2], ""),
        ([0.2, -0.4, -0.6, -0.65, -0.66, -0.661], [0.3, -0.3, -0.5, -0.6, -0.651, -0.65], ""),
        ([0.2, -0.4, -0.6, -0.7, -0.8, -0.9], [0.3, -0.4, -0.6, -0.5, -0.4, -0.3], "overfits"),
        ([0.2, -0.4, -0.5, -0.6, -0.7, -0.8], [0.3, -0.4, -0.5, -0.6, -0.7, -0.8], "underfits"),
    ],
)
def test_over_and_underfitting(train: list[float], validation: list[float], fit: str) -> None:
    epochs = [
        {"epoch": i, "train_loss": a, "val_loss": b} for i, (a, b) in enumerate(zip(train, validation, strict=True), 1)
    ]
    row = TrialRow(0, "COMPLETE", (0.9,), {}, None)
    assert classify_fit(replace(row, epochs=epochs)) == fit


@pytest.mark.parametrize(
    ("report", "words"),
    [
        ({"z": 1}, "[report] unknown key 'z'"),
        ({"x": "dept"}, "did you mean 'depth'"),
        ({"compare": ["optimiser"]}, "did you mean 'optimizer'"),
        ({"x": ["depth", "width"]}, "name one parameter"),
        ({}, "[report] name a parameter to compare by"),
        ({"x": "depth", "compare": "depth"}, "depth is already x"),
        ({"x": "depth", "y": "accuracy"}, "accuracy"),
        ({"x": "depth", "log": "z"}, "log"),
        ({"x": 3}, "x = 3"),
        ({"compare": ["depth", "depth"]}, "occurs twice"),
        ({"x": "depth", "knee": True}, "knee = True: name what x estimates where"),
        ({"compare": ["depth"], "knee": "dimension"}, "and give x"),
        ({"x": "depth", "knee": "dimension"}, "y begins with val_accuracy, of which more is better"),
        ({"x": "depth", "expect": [{**EXPECT, "than": {"dropout": 0.1}}]}, "a trial can be in both better and than"),
        ({"x": "depth", "expect": [{**EXPECT, "than": {"depth": 3}}]}, "a trial can be in both better and than"),
        ({"x": "depth", "expect": "more"}, "expect = 'more': must be a list of tables"),
        ({"x": "depth", "expect": [{"better": {"depth": 1}}]}, "expect[0] = {'better': {'depth': 1}}: give better and"),
        ({"x": "depth", "expect": [{**EXPECT, "words": ""}]}, "expect[0] unknown key 'words'"),
        ({"x": "depth", "expect": [{**EXPECT, "than": {"dept": 1}}]}, "did you mean 'depth'"),
        ({"x": "depth", "expect": [{**EXPECT, "than": {"depth": 1.5}}]}, "expect[0] than depth = 1.5"),
        ({"x": "depth", "expect": [{**EXPECT, "text": 1}]}, "expect[0] text = 1: must be a text"),
        ("depth", "report = 'depth': must be a table"),
    ],
)
def test_a_mistake_is_a_line(report: Any, words: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_definition({"parameters": SPACE, "report": report}, "n", Path())
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_table_makes_no_other_study_and_replaces_the_stored_one(tmp_path: Path) -> None:
    study = filled(tmp_path, trials=3, report={"x": "depth"})
    keys = {"parameters": SPACE, "pruner": "median", "dataset": "mnist"}
    definition = study.definition
    for report in ({"compare": ["optimizer"]}, None):
        _, other, _ = parse_definition({**keys, **({"report": report} if report else {})}, "n", Path())
        assert not definition.differences(definition.model_copy(update={"report": other.report}))
        again = definition.model_copy(update={"report": other.report})
        Study.create(study.storage, study.name, again, Budget(trials=3))
        assert Study(study.storage, study.name).definition.report == other.report
        assert len(study.trials()) == 3
