"""Evaluations that vary each source of chance, compare two studies, or span several data sets; really trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch

from hpo.config.trial_config import TrialConfig
from hpo.datasets import SampleShape
from hpo.errors import DataError, RequestError
from hpo.execution import compare_studies as compare_module
from hpo.execution.compare_studies import choose_configuration, plan_comparison
from hpo.execution.evaluate import EvaluationRequest, plan_evaluations, plan_request
from hpo.execution.evaluation_preview import preview_evaluation
from hpo.report.chapters.order import make_chapters
from hpo.report.data.evaluations import EvaluationResults, read_comparisons, read_evaluations
from hpo.report.render.json import report_document, report_schema
from hpo.report.report_data import read_report_data
from hpo.report.stats.result_tables import list_result_tables
from hpo.report.stats.study_comparison import compare_studies
from hpo.report.stats.variance_sources import measure_variance_sources
from hpo.study import Study
from hpo.study.definition import Source
from hpo.study.input.study_file import parse_definition
from hpo.study.operations.candidates import parse_sources
from hpo.study.operations.evaluation_study import evaluation_studies, list_test_set_reads
from hpo.training.models import build_model
from tests.data import small_npz
from tests.execution.test_evaluate import run_all, trained
from tests.helpers import run_hpo
from tests.study.helpers import new_storage
from tests.workers import make_worker

QUICK = {
    "widths": "8",
    "epochs": 2,
    "batch_size": 64,
    "dropout": 0.2,
    "learning_rate": {"low": 0.001, "high": 0.1, "log": True},
}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the database of a study that has been trained once for all tests."""
    folder = tmp_path_factory.mktemp("template")
    made = trained(folder, trials=3, parameters=QUICK, baseline={"learning_rate": 0.001})
    made.storage.engine.dispose()
    return folder


@pytest.fixture
def study(template: Path, tmp_path: Path) -> Study:
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    return Study(new_storage(tmp_path), "small")


def second(study: Study, folder: Path, name: str = "other", **keys: object) -> Study:
    """Another study in the same storage, on the same data unless the keys say otherwise."""
    table = {
        "dataset": study.definition.dataset.name, "trials": 2, "sampler": "random", "seed": 50,
        "parameters": {**QUICK, "dropout": 0.0, "widths": "12"}, **keys,
    }  # fmt: skip
    name, definition, budget = parse_definition(table, name, folder)
    made = Study.create(study.storage, name, definition, budget)
    make_worker(made).run()
    return made


def validation_labels(evaluation: EvaluationResults) -> dict[int, set[bytes]]:
    """Return the labels of the validation samples, by seed."""
    found: dict[int, set[bytes]] = {}
    for candidate in evaluation.candidates:
        for run in candidate.complete_runs:
            predictions = run.predictions("validation")
            assert predictions is not None
            found.setdefault(run.seed, set()).add(np.asarray(predictions.labels).tobytes())
    return found


def test_each_source_varies_alone_and_is_measured(study: Study) -> None:
    request = EvaluationRequest(top=1, seeds=2, vary=parse_sources("all"))
    made = plan_request(study, request)
    names = {"small-evaluation", *(f"small-evaluation-{each}" for each in ("split", "order", "init", "all"))}
    assert {each.name for each in made} == names
    run_all(made)
    assert sum(each.remaining() for each in plan_request(study, request)) == 0
    (evaluation,) = read_evaluations(study)
    assert evaluation.studies == ("small-evaluation",)
    assert set(evaluation.varied) == {"split", "order", "init", "all"}
    moved = {source: validation_labels(each) for source, each in evaluation.varied.items()}
    sources: tuple[Source, ...] = ("order", "init")
    for source in sources:  # the samples of the study
        assert set.union(*moved[source].values()) == set.union(*validation_labels(evaluation).values())
    sources = ("split", "all")
    for source in sources:  # others from seed to seed, the same for each configuration
        assert all(len(of_seed) == 1 for of_seed in moved[source].values())
        assert len(set.union(*moved[source].values())) == 2
    for each in evaluation.varied.values():
        assert len({run.epochs[0]["train_loss"] for run in each.candidates[0].complete_runs}) == 2
    found = measure_variance_sources(evaluation)
    assert found is not None
    assert {*found.spreads} == {"split", "order", "init", "seed", "all"}
    assert len(list_test_set_reads(study)) == 5 * 2 * 2


def test_varied_evaluations_are_in_the_report_and_resume(study: Study) -> None:
    plan_request(study, EvaluationRequest(top=1, seeds=2, vary=parse_sources("split")))
    for each in evaluation_studies(study):
        if not each.name.endswith("-all"):
            make_worker(each).run()
    data = read_report_data(study)
    chapters = {chapter.key: chapter for chapter in make_chapters(data)}
    text = " ".join(block.text for block in chapters["variance"].blocks if hasattr(block, "text"))
    assert "4 runs are left" in text
    assert "--vary split --top 1 --seeds 2" in text
    document = json.loads(json.dumps(report_document(data), default=str))
    jsonschema.validate(document, report_schema())
    (written,) = document["evaluations"]
    assert [each["source"] for each in written["variance"]["sources"]] in (["split", "seed"], ["seed", "split"])
    tables = list_result_tables(read_evaluations(study), [], across=False)
    assert [table.name for table in tables] == ["scores", "variance"]
    assert any("4 runs are left" in line for line in tables[1].lines)


def test_words_of_sources() -> None:
    assert parse_sources(()) == ("seed",)
    assert parse_sources("split, order") == ("split", "order", "seed", "all")
    assert parse_sources(["seed"]) == ("seed", "all")
    assert parse_sources("all") == ("split", "order", "init", "seed", "all")
    with pytest.raises(RequestError, match=r"'splits'.*split"):
        parse_sources("splits")


def test_two_studies_from_the_same_seeds_and_splits(study: Study, tmp_path: Path) -> None:
    other = second(study, tmp_path)
    (made,) = plan_comparison(study, "other", seeds=3)
    assert made.name == "small-compare-other"
    make_worker(made).run()
    assert [each.remaining() for each in plan_comparison(study, other, seeds=3)] == [0]
    assert read_evaluations(study) == ()
    (found,) = read_comparisons(study)
    own, rival = (each.best() for each in (study, other))
    assert own is not None
    assert rival is not None
    assert [each.label for each in found.candidates] == [f"small trial {own.number}", f"other trial {rival.number}"]
    assert [each.study_score for each in found.candidates] == [own.value, rival.value]
    assert min(run.seed for run in found.candidates[0].runs) > 50  # neither has used them
    assert all(len(labels) == 1 for labels in validation_labels(found).values())
    assert len(set.union(*validation_labels(found).values())) == 3
    test, validation = compare_studies(found)
    expected = [
        one.test["test_accuracy"] - two.test["test_accuracy"]
        for one, two in zip(*(each.runs for each in found.candidates), strict=True)
    ]
    assert test.difference.mean == pytest.approx(np.mean(expected))
    assert (test.metric, validation.metric) == ("test_accuracy", "val_accuracy")
    assert [len(list_test_set_reads(each)) for each in (study, other)] == [6, 3]
    where = ("--storage", study.storage.url.render_as_string(hide_password=False))
    done = run_hpo("evaluate", "small", "--compare", "other", "--seeds", "3", "--format", "json", *where, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [row["metric"] for row in json.loads(done.stdout)] == ["test_accuracy", "val_accuracy"]
    assert "its best trial" in done.stderr
    data = read_report_data(study)
    assert "studies" in [chapter.key for chapter in make_chapters(data)]
    jsonschema.validate(json.loads(json.dumps(report_document(data), default=str)), report_schema())
    other.storage.delete_study(other.id)
    assert len(read_comparisons(study)) == 1


def test_comparisons_of_other_choices_stand_beside_each_other(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second(study, tmp_path)
    run_all(plan_comparison(study, "other", seeds=2))
    before = compare_studies(*read_comparisons(study))
    number = next(trial.number for trial in study.trials() if trial.number not in (0, study.best().number))  # type: ignore[union-attr]
    chosen = number, study.config_of(study.trials()[number]), "the best from fresh seeds"
    monkeypatch.setattr(
        compare_module, "choose_configuration", lambda each: chosen if each == study else choose_configuration(each)
    )
    preview = preview_evaluation(study, EvaluationRequest(seeds=2, compare="other"))
    assert [(row["runs"], row["exist"]) for row in preview.rows] == [(2, 0), (2, 0)]
    run_all(plan_comparison(study, "other", seeds=2))
    old, new = read_comparisons(study)
    assert compare_studies(old) == before
    assert compare_studies(new)
    assert new.candidates[0].trial == number


def test_a_study_that_was_evaluated_is_compared_by_the_best_from_fresh_seeds(study: Study) -> None:
    best = study.best()
    assert best is not None
    assert choose_configuration(study)[::2] == (best.number, "its best trial")
    run_all(plan_evaluations(study, top=2, seeds=2))
    (evaluation,) = read_evaluations(study)
    assert evaluation.best is not None
    number, config, reason = choose_configuration(study)
    assert (number, reason) == (evaluation.best.trial, "the best from fresh seeds")
    assert config.split_seed is None


def test_several_data_sets_are_one_table(study: Study, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    other = small_npz(tmp_path / "b" / "two.npz", samples=300)
    request = EvaluationRequest(top=1, seeds=2, datasets=[study.definition.dataset.name, str(other)])
    assert {row["dataset"] for row in preview_evaluation(study, request).rows} == {"small.npz", "two.npz"}
    run_all(plan_request(study, request))
    tables = list_result_tables(read_evaluations(study), [], across=True)
    assert [table.name for table in tables] == ["scores on small.npz", "scores on two.npz", "data sets"]
    rows = tables[-1].rows
    assert {row["configuration"] for row in rows} >= {"baseline"}
    assert all(0 <= row["iqm_low"] <= row["iqm"] <= row["iqm_high"] <= 1 for row in rows)
    data = read_report_data(study)
    assert "data_sets" in [chapter.key for chapter in make_chapters(data)]
    document = json.loads(json.dumps(report_document(data), default=str))
    jsonschema.validate(document, report_schema())
    assert document["data_sets"][0]["datasets"] == ["small.npz", "two.npz"]


def test_what_cannot_be_asked_for_is_one_line(study: Study, tmp_path: Path) -> None:
    second(study, tmp_path, "elsewhere", dataset=str(small_npz(tmp_path / "else.npz", samples=90)))
    companions = plan_evaluations(study, top=1, seeds=1)

    def refused(match: str, **keys: object) -> None:
        with pytest.raises(RequestError, match=match):
            plan_request(study, EvaluationRequest(**keys))  # type: ignore[arg-type]

    refused("leave --vary or --refit out", refit=True, vary=parse_sources("order"))
    refused("--dataset or --datasets", dataset="mnist", datasets=["mnist", "x"])
    refused("two data sets or more", datasets=["mnist"])
    refused("each once", datasets=["mnist", "x", "mnist"])
    refused("leave --vary out", compare="elsewhere", vary=parse_sources("split"))
    refused("is the study itself", compare="small")
    refused("only studies on the same data", compare="elsewhere")
    refused("is an evaluation; compare 'small'", compare=companions[0].name)
    refused("nowhere", compare="nowhere")
    assert [each.name for each in evaluation_studies(study)] == ["small-evaluation"]


def test_data_with_validation_samples_of_their_own_have_no_split_to_vary(tmp_path: Path) -> None:
    path = small_npz(tmp_path / "own.npz")
    arrays = dict(np.load(path))
    np.savez(path, **arrays, x_val=arrays["x_train"][:60], y_val=arrays["y_train"][:60])
    study = trained(tmp_path, trials=2, parameters={**QUICK}, dataset=str(path))
    with pytest.raises(RequestError, match="no split to vary; use --vary order,init,seed"):
        plan_request(study, EvaluationRequest(vary=parse_sources("all")))
    assert evaluation_studies(study) == []
    assert len(plan_request(study, EvaluationRequest(vary=parse_sources("order")))) == 3


def test_data_with_times_have_no_split_to_vary(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = [f"{day},{rng.normal():.3f},{rng.normal():.3f},{'ab'[day % 2]}" for day in range(120)]
    (tmp_path / "days.csv").write_text("\n".join(["day,x,z,label", *lines]))
    data = {"path": str(tmp_path / "days.csv"), "label": "label", "time": "day", "test": 0.2}
    study = trained(tmp_path, trials=2, parameters={**QUICK}, dataset=data)
    with pytest.raises(RequestError, match="have times, of which the latest validate, so there is no split to vary"):
        plan_request(study, EvaluationRequest(vary=parse_sources("split")))
    assert evaluation_studies(study) == []


def test_pretrained_weights_that_have_changed_are_refused(tmp_path: Path) -> None:
    tuned = {**QUICK, "pretrained": str(tmp_path / "first.pt")}

    def write_weights(seed: int) -> None:
        model = build_model(TrialConfig(widths="8", init_seed=seed), SampleShape((1, 6, 6)), 3)
        torch.save(model.state_dict(), tmp_path / "first.pt")

    write_weights(1)
    study = trained(tmp_path, trials=1, parameters=tuned)
    (made,) = plan_evaluations(study, top=1, seeds=1)
    assert made.definition.weights == study.definition.weights != {}
    write_weights(2)
    with pytest.raises(DataError, match=r"first\.pt: is not the file that the study was made with"):
        make_worker(made).run()
    second(study, tmp_path, parameters=tuned)
    with pytest.raises(RequestError, match=r"first\.pt: the pretrained weights have changed between the launches"):
        plan_comparison(study, "other", seeds=1)


def test_a_dry_run_counts_every_configuration_that_would_get_more_seeds(study: Study) -> None:
    plan_evaluations(study, top=2, seeds=2)
    request = EvaluationRequest(top=1, seeds=3)
    preview = preview_evaluation(study, request)
    assert [(row["runs"], row["exist"]) for row in preview.rows] == [(1, 2), (1, 2), (1, 2)]
    (made,) = plan_request(study, request)
    assert f"{made.remaining() - 6} runs" in preview.text


def test_the_command_says_what_it_would_do_and_what_is_wrong(study: Study, tmp_path: Path) -> None:
    where = ("--storage", study.storage.url.render_as_string(hide_password=False))
    shown = run_hpo("evaluate", "small", "--vary", "split", "--dry-run", "--format", "json", *where, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert {row["varied"] for row in json.loads(shown.stdout)} == {
        "validation split", "order and initial weights", "all together",
    }  # fmt: skip
    wrong = run_hpo("evaluate", "small", "--vary", "weights", *where, cwd=tmp_path)
    assert wrong.returncode == 2
    assert len(wrong.stderr.strip().splitlines()) == 1
