"""Test scores: every number of its table against the runs themselves."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import jsonschema
import pytest

from hpo.report.chapters import test_scores
from hpo.report.chapters.blocks import Block, Chapter, Code, Subtitle, Table, Text
from hpo.report.chapters.order import make_chapters
from hpo.report.chapters.verdict import write_verdict
from hpo.report.data.reference_models import ReferenceModel, ReferenceModels
from hpo.report.figures.plotly_spec import Figure
from hpo.report.render.json import report_schema
from hpo.report.report_data import read_report_data
from hpo.report.write import write_report
from hpo.study import Objective, Study
from tests.report.helpers import BASELINE, evaluated, filled


def best_of(study: Study) -> int:
    best = study.best()
    assert best is not None
    number: int = best.number
    return number


def scores(number: int) -> dict[str, float]:
    return {f"trial {number}": 0.97, "baseline": 0.95, "defaults": 0.94}


def chapter(study: Study) -> Chapter:
    found = read_report_data(study)
    told = test_scores.test_scores_chapter(
        found.results, found.evaluations, found.evaluation_stats, found.test_set_reads, None
    )
    assert told is not None
    return told


def texts(blocks: list[Block]) -> str:
    return " ".join(block.text for block in blocks if isinstance(block, Text | Subtitle | Code))


def test_the_table_is_that_of_the_runs(tmp_path: Path) -> None:
    study = filled(tmp_path, trials=6, baseline=BASELINE)
    number = best_of(study)
    evaluated(study, [number], scores(number), seeds=4)
    (evaluation,) = read_report_data(study).evaluations
    table = next(block for block in chapter(study).blocks if isinstance(block, Table))
    line = dict(zip(table.columns, next(row for row in table.rows if row[0] == f"trial {number}"), strict=True))
    runs = next(each for each in evaluation.candidates if each.label == f"trial {number}").runs
    fresh = [run.validation["val_accuracy"] for run in runs]
    tested = [run.test["test_accuracy"] for run in runs]
    chosen = study.trials()[number].values[0]
    assert line["seeds"] == "4"
    assert line["study score"] == f"{100 * chosen:.2f} %"
    assert line["fresh seeds"] == f"{100 * mean(fresh):.2f} %"
    assert line["std"] == f"{100 * stdev(fresh):.2f} %"
    assert line["test"] == f"{100 * mean(tested):.2f} %"
    assert line["test std"] == f"{100 * stdev(tested):.2f} %"
    assert line["selection bias"] == f"{100 * (chosen - mean(fresh)):.2f} points"


def test_the_figure_shows_every_run_and_every_mean(tmp_path: Path) -> None:
    study = filled(tmp_path, trials=6, baseline=BASELINE)
    number = best_of(study)
    evaluated(study, [number], scores(number))
    figure = next(block for block in chapter(study).blocks if isinstance(block, Figure))
    assert figure.spec is not None
    drawn = [x for trace in figure.spec["data"] for x in trace["x"] if isinstance(x, float)]
    for candidate in read_report_data(study).evaluations[0].candidates:
        values = [run.test["test_accuracy"] for run in candidate.runs]
        for value in (*values, mean(values)):
            assert any(x == pytest.approx(value) for x in drawn)


def test_reads_of_the_test_set_are_counted(tmp_path: Path) -> None:
    study = filled(tmp_path, trials=6, baseline=BASELINE)
    assert "The test set has not been read." in texts(list(chapter(study).blocks))
    number = best_of(study)
    evaluated(study, [number], scores(number), seeds=2)
    looked = len(read_report_data(study).test_set_reads)
    assert looked == 2 * len(read_report_data(study).evaluations[0].candidates)
    assert f"The test set of mnist has been read {looked} times" in texts(list(chapter(study).blocks))


def test_a_configuration_that_a_comparison_calls_otherwise_is_counted_once(tmp_path: Path) -> None:
    study = filled(tmp_path, trials=6, baseline=BASELINE)
    number = best_of(study)
    evaluated(study, [number], scores(number), seeds=2)
    found = read_report_data(study)
    labels = ("trial 0", f"{study.name} trial 0", "other trial 0")
    reads = [replace(found.test_set_reads[0], configuration=label) for label in labels]
    told = test_scores.test_scores_chapter(found.results, found.evaluations, found.evaluation_stats, reads, None)
    assert told is not None
    assert "has been read 3 times: 3 times by runs of 2 configurations" in texts(list(told.blocks))


def test_runs_that_are_left_are_said_with_the_command_that_does_them(tmp_path: Path) -> None:
    study = filled(tmp_path, trials=6, baseline=BASELINE)
    number = best_of(study)
    evaluated(study, [number], scores(number), leave=1)
    left = read_report_data(study).evaluations[0].remaining_runs
    told = texts(list(chapter(study).blocks))
    assert left > 0
    assert f"{left} {'run is' if left == 1 else 'runs are'} left" in told
    assert "hpo evaluate filled" in told


def test_other_data_and_refits_have_their_own_part(tmp_path: Path) -> None:
    study = filled(tmp_path, trials=6, baseline=BASELINE)
    number = best_of(study)
    evaluated(study, [number], scores(number))
    evaluated(study, [number], scores(number), refit=True)
    evaluated(study, [number], scores(number), dataset="fashion_mnist")
    titles = [block.text for block in chapter(study).blocks if isinstance(block, Subtitle)]
    assert titles[0] == "On mnist"
    assert {"On mnist, refit", "Transfer to fashion_mnist"} <= set(titles)
    figures = {each.title: str(each.caption) for each in chapter(study).blocks if isinstance(each, Figure)}
    assert set(figures) == {"Study score, fresh seeds, test", "Fresh seeds and test"}
    assert "diamonds" in figures["Study score, fresh seeds, test"]
    assert "diamonds" not in figures["Fresh seeds and test"]  # other data have no score in the study


def test_without_an_evaluation_the_score_is_called_optimistic(tmp_path: Path) -> None:
    told = texts(list(chapter(filled(tmp_path, trials=6)).blocks))
    assert "optimistic" in told
    assert "hpo evaluate filled" in told


def test_where_there_is_no_test_set_a_nested_evaluation_is_advised(tmp_path: Path) -> None:
    told = texts(list(chapter(filled(tmp_path, trials=3, dataset={"path": "sklearn:wine", "test": 0})).blocks))
    assert "There is no test set." in told
    assert "hpo evaluate filled --outer-folds 5" in told
    assert "has not been read" not in told


def test_evaluations_follow_the_schema(tmp_path: Path) -> None:
    study = filled(tmp_path, trials=6, baseline=BASELINE)
    number = best_of(study)
    evaluated(study, [number], scores(number), seeds=1, leave=1)
    evaluated(study, [number], scores(number), refit=True)
    document = json.loads(write_report(study, tmp_path / "out").json.read_text())
    jsonschema.Draft202012Validator(report_schema()).validate(document)
    assert document["schema"] == 2
    assert [each["refit"] for each in document["evaluations"]] == [False, True]
    del document["verdict"]
    with pytest.raises(jsonschema.ValidationError, match="verdict"):
        jsonschema.Draft202012Validator(report_schema()).validate(document)


def test_the_report_of_an_evaluation_gives_no_advice_on_a_search_and_owns_up_to_its_reads(tmp_path: Path) -> None:
    study = filled(tmp_path, trials=6, baseline=BASELINE)
    (fresh,) = evaluated(study, [best_of(study)], scores(best_of(study)))
    found = read_report_data(fresh)
    assert write_verdict(found)[2] == f"Next: read the report of {study.name}, the study that this one evaluates."
    assert not {"boundary", "axis", "fixed", "noise", "retraining"} & {finding.check for finding in found.findings}
    assert not {"mattered", "slices", "parallel"} & {each.key for each in make_chapters(found)}
    told = texts(list(chapter(fresh).blocks))
    assert "not been read" not in told
    assert f"the report of {study.name} counts the reads" in told


def test_the_difference_of_a_loss_is_that_of_the_other_less_that_of_the_best(tmp_path: Path) -> None:
    study = filled(tmp_path, trials=6, baseline=BASELINE)
    evaluated(study, [best_of(study)], scores(best_of(study)))
    found = read_report_data(study)
    best = found.evaluation_stats[0].comparisons[0].first
    assert f"of {best} less that of the other, paired" in texts(list(chapter(study).blocks))
    loss = [replace(each, objective=Objective(metric="val_loss", direction="minimize")) for each in found.evaluations]
    told = test_scores.test_scores_chapter(found.results, loss, found.evaluation_stats, found.test_set_reads, None)
    assert told is not None
    assert f"of the other less that of {best}, paired" in texts(list(told.blocks))


def test_a_reference_at_the_end_of_the_figure_has_its_name_inside(tmp_path: Path) -> None:
    study = filled(tmp_path, trials=6, baseline=BASELINE)
    evaluated(study, [best_of(study)], scores(best_of(study)))
    found = read_report_data(study)
    models = tuple(
        ReferenceModel(name=name, scores={"test_accuracy": score}, seconds=1.0)
        for name, score in {"worst": 0.5, "middle": 0.75, "perfect": 1.0}.items()
    )
    known = ReferenceModels(split="x", samples=100, models=models)
    evaluations = [replace(each, reference_models=known) for each in found.evaluations]
    told = test_scores.test_scores_chapter(
        found.results, evaluations, found.evaluation_stats, found.test_set_reads, None
    )
    assert told is not None
    (figure,) = (block for block in told.blocks if isinstance(block, Figure))
    assert figure.spec is not None
    sides = {each["text"]: each["xanchor"] for each in figure.spec["layout"]["annotations"]}
    assert sides == {"worst": "left", "middle": "center", "perfect": "right"}
