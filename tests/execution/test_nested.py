"""Nested evaluations of really trained studies: what is trained, what it sees, what is resumed and what is refused."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from optuna.trial import TrialState

import hpo
from hpo.errors import RequestError, RunError
from hpo.execution.evaluate import evaluate
from hpo.execution.nested import check_nested, list_nested, plan_outer_folds, refuse_other_options, run_nested
from hpo.report.chapters.order import make_chapters
from hpo.report.render.json import report_document, report_schema
from hpo.report.report_data import read_report_data
from hpo.report.stats.nested_score import NestedScore, read_scores
from hpo.study import Study, StudyStorage
from hpo.study.input.study_file import parse_definition
from hpo.study.operations.candidates import trial_config_of
from hpo.study.operations.evaluation_study import evaluation_studies, list_test_set_reads
from hpo.study.operations.nested_study import create_outer_study, list_companions, outer_studies
from hpo.training.data_cache import DataCache
from hpo.training.device import select_device
from hpo.training.loop import train
from hpo.training.predictions import predict_split
from hpo.utils.home import default_storage
from tests.data import small_npz
from tests.helpers import run_hpo
from tests.report.helpers import tell_all, tell_run
from tests.study.helpers import holder, new_storage
from tests.workers import make_worker

SMALL = {"widths": "8", "epochs": 2, "batch_size": 32, "learning_rate": {"low": 0.001, "high": 0.1, "log": True}}


def make(folder: Path, **keys: Any) -> Study:
    data = small_npz(folder / "small.npz", samples=150)
    table = {"dataset": str(data), "trials": 2, "sampler": "random", "seed": 3, "parameters": SMALL, **keys}
    name, definition, budget = parse_definition(table, "small", folder)
    return Study.create(new_storage(folder), name, definition, budget)


def run(each: Study) -> None:
    make_worker(each).run()


def test_folds_that_no_outer_training_part_allows_are_refused_before_anything_is_created(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [f"{rng.normal():.3f},{'rare' if row < 6 else 'ab'[row % 2]}" for row in range(80)]
    (tmp_path / "rare.csv").write_text("\n".join(["x,label", *rows]))
    data = {"path": str(tmp_path / "rare.csv"), "label": "label"}
    study = make(tmp_path, dataset=data, folds=5)
    with pytest.raises(RequestError, match=r"evaluate --outer-folds: without outer fold .* has only 4 samples"):
        plan_outer_folds(study, 5)
    assert outer_studies(study) == []


def test_each_fold_is_tested_on_once_by_what_a_study_without_it_has_chosen(tmp_path: Path) -> None:
    study = make(tmp_path)
    found = evaluate(study, outer_folds=2, device="cpu", cpus=1)
    assert isinstance(found, NestedScore)
    assert found.complete
    assert [each.name for each in outer_studies(study)] == ["small-outer-1-of-2", "small-outer-2-of-2"]
    cache = DataCache(study.definition.dataset, select_device("cpu"))
    whole = {sample.tobytes() for sample in cache.load().train[0]}  # type: ignore[index]
    seen: list[bytes] = []
    for row, outer in zip(found.folds, outer_studies(study), strict=True):
        assert row.trial is not None
        best = outer.trials()[row.trial]
        assert row.claimed == best.value
        (evaluation,) = evaluation_studies(outer)
        candidate = next(each for each in evaluation.definition.evaluation.candidates if each.trial == best.number)  # type: ignore[union-attr]
        trial = next(t for t in evaluation.trials() if t.params["configuration"] == candidate.label)
        config = trial_config_of(outer.definition, candidate).model_copy(update={"seed": trial.params["seed"]})
        data = DataCache(outer.definition.dataset, select_device("cpu")).get(config)
        assert (len(data.y_train), len(data.y_val)) == (row.training, 0)  # trained on the whole training part
        assert config.epochs == best.user_attrs["best_epoch"]
        (outcome,) = train([config], data)
        assert row.score == pytest.approx(predict_split(outcome, data, data.test()).scores["accuracy"], abs=1e-6)
        tested = [sample.tobytes() for sample in data.dataset.test()[0]]  # type: ignore[operator]
        assert not set(tested) & {sample.tobytes() for sample in data.dataset.train[0]}  # type: ignore[index]
        seen += tested
        assert [read.dataset for read in list_test_set_reads(outer)] == [f"outer fold {row.fold} of 2 of small.npz"] * 2
    assert (len(seen), set(seen)) == (150, whole)
    assert not list_test_set_reads(study)  # its own test set stays closed
    assert [each.mean for each in (found.score, found.optimism)] == pytest.approx(  # type: ignore[union-attr]
        [np.mean([row.score for row in found.folds]), np.mean([row.claimed - row.score for row in found.folds])]  # type: ignore[operator]
    )

    # Nothing is run again, a larger budget is.
    run_nested(outer_studies(study), 1, pytest.fail)
    assert [row.exist for row in list_nested(study, 2)] == [2, 2]
    assert [(row.trials, row.exist) for row in list_nested(study, 3)] == [(2, 0)] * 3
    study.extend(study.budget.model_copy(update={"trials": 3}))
    assert [row.trials for row in list_nested(study, 2)] == [1, 1]

    # The report has it, and deleting the study deletes all of it.
    data = read_report_data(study)
    document = json.loads(json.dumps(report_document(data), default=str))
    jsonschema.Draft202012Validator(report_schema()).validate(document)
    assert document["nested"][0]["score"]["mean"] == pytest.approx(found.score.mean)  # type: ignore[union-attr]
    assert "nested" in [chapter.key for chapter in make_chapters(data)]
    assert document["verdict"][1].count("Nested evaluation with 2 outer folds: test accuracy") == 1
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    rows = json.loads(run_hpo("list", "--format", "json", "--storage", url).stdout)
    assert [row["name"] for row in rows][:3] == ["small", "small-outer-1-of-2", "small-outer-1-of-2-evaluation-refit"]
    assert [row["of"] for row in rows][:3] == [None, "small", "small-outer-1-of-2"]
    assert len(list_companions(study)) == 4
    study.storage.engine.dispose()
    done = run_hpo("delete", "small", "--yes", "--storage", url)
    assert done.returncode == 0, done.stderr
    assert json.loads(run_hpo("list", "--format", "json", "--storage", url).stdout) == []


def tell_untrained(each: Study) -> None:
    """Run a study without training: its results are told."""
    if each.definition.evaluation is None:
        tell_all(each)
    for _ in range(each.remaining()):
        claim = each.claim(holder())
        assert claim is not None
        tell_run(each, claim, defaultdict(lambda: 0.9), 0.01)


def fail(each: Study) -> None:
    while claim := each.claim(holder()):
        each.suggest_config(claim)
        each.storage.set_trial_user_attr(claim.id, "message", "no luck")
        each.storage.set_trial_state_values(claim.id, TrialState.FAIL)


def test_an_interrupted_one_goes_on_where_it_stopped(tmp_path: Path) -> None:
    study = make(tmp_path)
    studies = [create_outer_study(study, fold) for fold in plan_outer_folds(study, 2)]
    begun: list[str] = []

    def interrupted(each: Study) -> None:
        begun.append(each.name)
        if len(begun) < 3:
            tell_untrained(each)

    run_nested(studies, 1, interrupted, lambda: len(begun) == 3)
    assert begun == ["small-outer-1-of-2", "small-outer-1-of-2-evaluation-refit", "small-outer-2-of-2"]
    (found,) = read_scores(study)
    assert [each.score is not None for each in found.folds] == [True, False]
    assert found.remaining == 2
    begun.clear()

    def again(each: Study) -> None:
        begun.append(each.name)
        tell_untrained(each)

    run_nested([create_outer_study(study, fold) for fold in plan_outer_folds(study, 2)], 1, again)
    assert begun == ["small-outer-2-of-2", "small-outer-2-of-2-evaluation-refit"]
    (found,) = read_scores(study)
    assert found.complete
    check_nested(studies, found)


def test_a_fold_without_a_result_does_not_keep_the_others_from_theirs(tmp_path: Path) -> None:
    study = make(tmp_path)
    studies = [create_outer_study(study, fold) for fold in plan_outer_folds(study, 2)]
    run_nested(studies, 1, lambda each: fail(each) if each == studies[0] else tell_untrained(each))
    (found,) = read_scores(study)
    assert [fold.score is not None for fold in found.folds] == [False, True]
    assert not found.complete
    with pytest.raises(RunError, match=r"^study 'small-outer-1-of-2' has no complete trial .2 FAIL.*: no luck$"):
        check_nested(studies, found)


def test_a_choice_that_fails_as_it_is_tested_is_no_success(tmp_path: Path) -> None:
    study = make(tmp_path)
    studies = [create_outer_study(study, fold) for fold in plan_outer_folds(study, 2)]

    def run_most(each: Study) -> None:
        if each.name != "small-outer-1-of-2-evaluation-refit":
            tell_untrained(each)
            return
        claim = each.claim(holder())  # of the chosen configuration
        assert claim is not None
        each.suggest_config(claim)
        each.storage.set_trial_state_values(claim.id, TrialState.FAIL)
        tell_untrained(each)

    run_nested(studies, 1, run_most)
    (found,) = read_scores(study)
    assert found.lost == (1,)
    assert found.remaining == 0
    with pytest.raises(
        RunError, match=r"failed or diverged as it was trained again .*: trial \d of small-outer-1-of-2$"
    ):
        check_nested(studies, found)


def test_a_study_that_was_made_again_has_outer_folds_of_its_own(tmp_path: Path) -> None:
    study = make(tmp_path)
    first = [create_outer_study(study, fold) for fold in plan_outer_folds(study, 2)]
    study.storage.delete_study(study.id)  # as another tool does, which leaves companions behind
    again = make(tmp_path, sampler="tpe")
    assert not read_scores(again)
    second = [create_outer_study(again, fold) for fold in plan_outer_folds(again, 2)]
    assert [each.name for each in first] == ["small-outer-1-of-2", "small-outer-2-of-2"]
    assert [each.name for each in second] == ["small-outer-1-of-2-2", "small-outer-2-of-2-2"]
    assert len(read_scores(again)[0].folds) == 2


def test_what_cannot_be_nested_is_refused_in_a_line(tmp_path: Path) -> None:
    study = make(tmp_path, trials=1)
    with pytest.raises(RequestError, match=r"small\.npz: outer folds = 140: class \d has only \d+ samples"):
        plan_outer_folds(study, 140)
    outer = create_outer_study(study, plan_outer_folds(study, 2)[0])
    with pytest.raises(RequestError, match="is a part of a nested evaluation itself; nest the study 'small'"):
        plan_outer_folds(outer, 2)
    run(study)
    (evaluation,) = hpo.execution.evaluate.plan_evaluations(study, top=1, seeds=1)  # type: ignore[attr-defined]
    with pytest.raises(RequestError, match="'small-evaluation' is an evaluation itself; nest the study 'small'"):
        plan_outer_folds(evaluation, 2)


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"objective": ["val_accuracy", "parameter_count"]}, "has several objectives .val_accuracy, parameter_count."),
        ({"objective": "parameter_count"}, "parameter_count, is not measured on test data"),
        ({"parameters": {**SMALL, "validation": 90}}, "without outer fold 1 of 2, .*validation = 90: takes 90 of 75"),
    ],
)
def test_definitions_that_cannot_be_nested_are_refused(tmp_path: Path, keys: dict[str, Any], why: str) -> None:
    with pytest.raises(RequestError, match=why):
        plan_outer_folds(make(tmp_path, **keys), 2)


def test_options_of_other_evaluations_are_refused() -> None:
    refuse_other_options(top=None, dataset=None, inside=False, objective=None)
    for name, value in (("top", 2), ("dataset", "mnist"), ("inside", True), ("objective", "f.py:f")):
        with pytest.raises(RequestError, match=f"--outer-folds with --{name}: "):
            refuse_other_options(**{name: value})


def test_the_command_prints_the_score_and_refuses_objective_functions(tmp_path: Path) -> None:
    url = default_storage()
    study = make(tmp_path)
    assert isinstance(StudyStorage(url), StudyStorage)
    definition, budget = study.definition, study.budget
    Study.create(StudyStorage(url), "small", definition, budget)
    shown = run_hpo("evaluate", "small", "--outer-folds", "2", "--dry-run", "--format", "json")
    assert shown.returncode == 0, shown.stderr
    first = {"study": "small-outer-1-of-2", "train": 75, "test": 75, "trials": 2, "exist": 0}
    assert json.loads(shown.stdout)[0] == first
    assert "nothing is created" in shown.stderr
    made = run_hpo("evaluate", "small", "--outer-folds", "2", "--workers", "0", "--format", "json")
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["left"] == 4
    assert "none is tested yet" in made.stderr
    (tmp_path / "calls.py").write_text("def objective(trial):\n    return trial.suggest_float('x', 0, 1)\n")
    location = f"{tmp_path / 'calls.py'}:objective"
    assert run_hpo("launch", location, "--name", "calls", "--trials", "1", "--workers", "0").returncode == 0
    refused = run_hpo("evaluate", "calls", "--outer-folds", "2")
    assert refused.returncode == 2
    assert "evaluate --outer-folds: is for studies of models and training loops" in refused.stderr
    refused = run_hpo("evaluate", "small", "--outer-folds", "1")
    assert refused.returncode == 2
