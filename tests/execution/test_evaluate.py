"""Evaluations of really trained studies: what is trained, what is kept equal, what is looked at and counted."""

from __future__ import annotations

import signal
import sqlite3
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from hpo.errors import DataError, DefinitionError, RequestError
from hpo.execution.evaluate import plan_evaluations, refer_to_other
from hpo.report.data.evaluations import read_evaluations
from hpo.report.stats.evaluation_stats import compare_candidates, list_lost_runs, summarize_evaluation
from hpo.study import Budget, Study, StudyStorage
from hpo.study.files.artifacts import find_artifact
from hpo.study.input.study_file import parse_definition
from hpo.study.operations.evaluation_study import evaluation_studies, list_test_set_reads
from hpo.training.data_cache import DataCache
from hpo.training.device import select_device
from hpo.training.loop import train
from hpo.training.predictions import predict_split
from hpo.utils.home import default_storage
from tests.data import small_npz
from tests.helpers import run_hpo, start_hpo, train_here
from tests.study.helpers import new_storage
from tests.workers import make_worker

SMALL = {"widths": "8", "epochs": 3, "batch_size": 32, "learning_rate": {"low": 0.001, "high": 0.1, "log": True}}


def make(folder: Path, **keys: Any) -> Study:
    data = small_npz(folder / "small.npz")
    table = {"dataset": str(data), "trials": 5, "sampler": "random", "seed": 3, "parameters": SMALL, **keys}
    name, definition, budget = parse_definition(table, "small", folder)
    return Study.create(new_storage(folder), name, definition, budget)


def trained(folder: Path, **keys: Any) -> Study:
    study = make(folder, **keys)
    make_worker(study).run()
    return study


def run_all(made: list[Study]) -> None:
    for each in made:
        make_worker(each).run()


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return trained(tmp_path, baseline={"learning_rate": 0.0001})


def test_the_best_and_the_baseline_are_trained_from_fresh_seeds_on_the_studys_split(study: Study) -> None:
    made = plan_evaluations(study, top=2, seeds=3)
    assert [each.name for each in made] == ["small-evaluation"]
    assert made[0].remaining() == 9
    run_all(made)
    (found,) = read_evaluations(study)
    best = study.best()
    assert best is not None
    assert found.candidates[0].trial == best.number
    assert found.candidates[0].study_score == best.value
    assert [each.baseline for each in found.candidates] == [False, False, True]
    assert found.remaining_runs == 0
    for candidate in found.candidates:
        assert [run.seed for run in candidate.runs] == [4, 5, 6]
        assert len({tuple(run.epochs[0].items()) for run in candidate.runs}) == 3  # really other weights and orders
    # The same validation samples whatever the seed: their labels, in their order.
    labels = [run.predictions("validation").labels.tolist() for c in found.candidates for run in c.runs]  # type: ignore[union-attr]
    cache = DataCache(study.definition.dataset, select_device("cpu"))
    assert all(each == cache.get(study.config_of(best)).y_val.tolist() for each in labels)


def test_a_run_is_what_train_gives_and_its_predictions_give_its_scores(study: Study) -> None:
    run_all(plan_evaluations(study, top=1, seeds=1))
    (found,) = read_evaluations(study)
    candidate = found.candidates[0]
    (run,) = candidate.runs
    config = candidate.config.model_copy(update={"seed": run.seed, "split_seed": 3})
    data = DataCache(study.definition.dataset, select_device("cpu")).get(config)
    (outcome,) = train([config], data)
    said = predict_split(outcome, data, data.test())
    assert run.test["test_accuracy"] == pytest.approx(said.scores["accuracy"], abs=1e-6)
    assert run.test["test_loss"] == pytest.approx(said.scores["loss"], abs=1e-5)
    for split, metric in (("test", run.test["test_accuracy"]), ("validation", run.validation["val_accuracy"])):
        predictions = run.predictions(split)
        assert predictions is not None
        assert predictions.correct.mean() == pytest.approx(metric)
        assert not predictions.correct[predictions.mistakes].any()
    raw = np.load(study.definition.dataset.name)
    pictures, wrong = run.predictions("test").pictures, run.predictions("test").mistakes  # type: ignore[union-attr]
    assert pictures is not None
    assert np.array_equal(pictures, raw["x_test"][wrong])


def test_what_has_been_run_is_not_run_again(study: Study) -> None:
    run_all(plan_evaluations(study, top=1, seeds=2))
    assert [each.remaining() for each in plan_evaluations(study, top=1, seeds=2)] == [0]
    (wider,) = plan_evaluations(study, top=1, seeds=3)
    assert wider.remaining() == 2
    run_all([wider])
    more = plan_evaluations(study, top=3, seeds=3)
    assert [(each.name, each.remaining()) for each in more] == [("small-evaluation", 0), ("small-evaluation-2", 6)]
    run_all(more)
    (found,) = read_evaluations(study)
    assert found.studies == ("small-evaluation", "small-evaluation-2")
    assert [len(each.complete_runs) for each in found.candidates] == [3, 3, 3, 3]
    assert found.candidates[-1].baseline
    assert len(list_test_set_reads(study)) == 12
    assert {look.dataset for look in list_test_set_reads(study)} == {"small.npz"}


def test_a_refit_trains_on_everything_and_keeps_the_last_epoch(study: Study) -> None:
    (made,) = plan_evaluations(study, top=1, seeds=2, refit=True)
    assert made.name == "small-evaluation-refit"
    run_all([made])
    (found,) = read_evaluations(study)
    assert found.refit
    assert found.validation_metric is None
    best, trial = found.candidates[0], study.best()
    assert trial is not None
    for run in best.runs:
        assert len(run.epochs) == trial.user_attrs["best_epoch"]
        assert not any(name.startswith("val_") for name in run.epochs[0])
        assert made.trials()[run.number].value == run.test["test_accuracy"]
    config = best.config.model_copy(update={"seed": best.runs[0].seed, "split_seed": 3})
    data = DataCache(study.definition.dataset, select_device("cpu")).get(config)
    assert (len(data.y_train), len(data.y_val)) == (600, 0)
    (outcome,) = train([config], data)
    assert outcome.best_epoch == config.epochs
    assert predict_split(outcome, data, data.test()).scores["accuracy"] == pytest.approx(
        best.runs[0].test["test_accuracy"], abs=1e-6
    )


def test_a_trials_own_split_and_seed_are_kept_apart(tmp_path: Path) -> None:
    study = trained(tmp_path, parameters={**SMALL, "seed": {"low": 40, "high": 44}, "split_seed": 9}, trials=4)
    used = {study.config_of(trial).seed for trial in study.trials()}
    run_all(plan_evaluations(study, top=2, seeds=2))
    (found,) = read_evaluations(study)
    assert {candidate.config.seed_of_split for candidate in found.candidates[:-1]} == {9}
    assert not used & {run.seed for candidate in found.candidates for run in candidate.runs}
    cache = DataCache(study.definition.dataset, select_device("cpu"))
    best = study.best()
    assert best is not None
    expected = cache.get(study.config_of(best)).y_val.tolist()
    said = found.candidates[0].runs[0].predictions("validation")
    assert said is not None
    assert said.labels.tolist() == expected


def test_trials_with_splits_of_their_own_are_evaluated_on_one_that_none_was_chosen_by(tmp_path: Path) -> None:
    study = trained(tmp_path, resplit="per_trial", trials=3)
    splits = {study.config_of(trial).seed_of_split for trial in study.trials()}
    made = plan_evaluations(study, top=2, seeds=2)
    run_all(made)
    (found,) = read_evaluations(study)
    assert len(found.candidates) == 3
    held = {candidate.config.seed_of_split for candidate in found.candidates}
    assert len(held) == 1
    assert not held & splits
    labels = [run.predictions("validation").labels.tolist() for c in found.candidates for run in c.runs]  # type: ignore[union-attr]
    assert all(each == labels[0] for each in labels)  # so that runs can be paired sample by sample
    assert plan_evaluations(study, top=2, seeds=2)[0].remaining() == 0
    assert found.candidates[0].study_score is not None
    assert all(score.bias is None for score in compare_candidates(found).scores)
    lines = summarize_evaluation(found, compare_candidates(found))
    assert lines[0].startswith("small.npz: one validation split (not those of the trials), fresh seeds")


def test_after_an_extension_the_seeds_are_those_of_before_unless_a_trial_has_used_one(tmp_path: Path) -> None:
    study = trained(tmp_path, parameters={**SMALL, "seed": {"low": 40, "high": 90}}, trials=2)
    (first,) = plan_evaluations(study, top=1, seeds=2)
    study.extend(Budget(trials=4))
    make_worker(study).run()
    low = first.definition.parameters["seed"]["low"]
    used = {study.config_of(trial).seed for trial in study.trials()}
    assert max(used) > low + 1  # and a search from there would find others
    assert not used & {low, low + 1}
    *_, second = plan_evaluations(study, top=4, seeds=2)
    assert second.name != first.name
    assert second.definition.parameters["seed"] == {"low": low, "high": low + 1}
    *_, third = plan_evaluations(study, top=4, seeds=2, refit=True)
    assert third.definition.parameters["seed"]["low"] == max(used) + 1


def test_a_configuration_that_lost_a_run_is_no_winner_and_that_is_said(study: Study) -> None:
    (made,) = plan_evaluations(study, top=1, seeds=2)
    run_all([made])
    best = made.trials()[0]
    with sqlite3.connect(made.storage.url.database or "") as database:
        database.execute("UPDATE trials SET state = 'FAIL' WHERE trial_id = ?", (best._trial_id,))
    (found,) = read_evaluations(Study(StudyStorage(made.storage.url), "small"))  # finished trials are read but once
    label = next(each.label for each in found.candidates if each.failed_count)
    assert list_lost_runs(found) == [f"{label} failed or diverged with 1 of 2 seeds"]
    assert compare_candidates(found).winner is None
    assert list_lost_runs(found)[0] in summarize_evaluation(found, compare_candidates(found))


def test_a_trial_that_others_added_is_no_run(study: Study) -> None:
    (made,) = plan_evaluations(study, top=1, seeds=1)
    run_all([made])
    optuna_study = optuna.load_study(study_name=made.name, storage=made.storage.url.render_as_string(False))
    optuna_study.add_trial(optuna.trial.create_trial(value=1.0))
    (found,) = read_evaluations(study)
    assert [len(each.runs) for each in found.candidates] == [1, 1]


def test_files_of_one_name_and_other_content_are_two_data_sets(study: Study, tmp_path: Path) -> None:
    paths = []
    for samples in (300, 330):
        folder = tmp_path / str(samples)
        folder.mkdir()
        paths.append(small_npz(folder / "rows.npz", samples=samples))
        run_all(plan_evaluations(study, top=1, seeds=1, dataset=str(paths[-1])))
    found = read_evaluations(study)
    assert {each.dataset for each in found} == {str(path) for path in paths}
    moved = tmp_path / "moved.npz"
    moved.write_bytes(paths[0].read_bytes())
    run_all(plan_evaluations(study, top=1, seeds=1, dataset=str(moved)))
    assert len(read_evaluations(study)) == 2


@pytest.fixture
def houses(tmp_path: Path) -> Study:
    """A study of the first of two targets in one file, of which it holds out a tenth for testing."""
    rng = np.random.default_rng(0)
    rows = [f"{a:.3f},{b:.3f},{a + b:.3f},{a - b:.3f}" for a, b in rng.normal(size=(200, 2))]
    (tmp_path / "houses.csv").write_text("\n".join(["size,age,price,rent", *rows]))
    source = {"path": str(tmp_path / "houses.csv"), "label": "price", "drop": "rent", "test": 0.1}
    return trained(tmp_path, dataset=source, trials=2, parameters={"widths": "8", "epochs": 2, "batch_size": 32})


def test_another_target_of_the_same_file_is_other_data(houses: Study, tmp_path: Path) -> None:
    run_all(plan_evaluations(houses, top=1, seeds=1))
    rent = {"path": str(tmp_path / "houses.csv"), "label": "rent", "drop": "price", "test": 0.1}
    run_all(plan_evaluations(houses, top=1, seeds=1, dataset=rent))
    own, other = read_evaluations(houses)
    assert (own.on_own_data, other.on_own_data) == (True, False)
    assert other.candidates[0].study_score is None
    assert own.candidates[0].runs[0].test != other.candidates[0].runs[0].test
    assert ("price" in own.dataset, 'label = "rent"' in other.dataset) == (True, True)


def test_the_studys_own_file_by_its_name_keeps_the_studys_test_part(houses: Study, tmp_path: Path) -> None:
    assert refer_to_other(houses, str(tmp_path / "houses.csv")) == houses.definition.dataset
    larger = refer_to_other(houses, {"path": str(tmp_path / "houses.csv"), "label": "price", "drop": "rent"})
    assert larger.content_key != houses.definition.dataset.content_key
    (made,) = plan_evaluations(houses, top=1, seeds=1, dataset=str(tmp_path / "houses.csv"))
    assert made.name == "small-evaluation"


def test_when_the_test_set_was_looked_at_is_known(study: Study) -> None:
    run_all(plan_evaluations(study, top=1, seeds=1))
    (found,) = read_evaluations(study)
    last = max(trial.datetime_complete for trial in study.trials() if trial.datetime_complete)
    assert found.test_set_read_at is not None
    # Reads are noted to the second.
    assert timedelta(seconds=-1) <= found.test_set_read_at - last < timedelta(minutes=5)


def test_another_data_set(study: Study, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = small_npz(tmp_path / "other" / "rows.npz", samples=300)
    run_all(plan_evaluations(study, top=1, seeds=2, dataset=str(other)))
    (found,) = read_evaluations(study)
    assert (found.on_own_data, found.dataset, found.studies) == (False, "rows.npz", ("small-evaluation-rows",))
    assert found.candidates[0].study_score is None
    assert compare_candidates(found).scores[0].bias is None
    with pytest.raises(DataError, match="not found"):
        plan_evaluations(study, dataset=str(tmp_path / "none.npz"))


def test_without_a_baseline_the_defaults_are_the_rival(tmp_path: Path) -> None:
    study = trained(tmp_path)
    run_all(plan_evaluations(study, top=1, seeds=2))
    (found,) = read_evaluations(study)
    rival = found.rival
    assert rival is not None
    assert (rival.label, rival.trial, rival.config.learning_rate) == ("defaults", None, 0.001)
    assert rival.config.hidden_widths == (8,)  # what the space fixes is no default


def test_cohorts_are_trained_and_samples_kept(study: Study) -> None:
    (made,) = plan_evaluations(study, top=3, seeds=1)
    make_worker(made, cohort=8).run()
    assert {trial.user_attrs["cohort"] for trial in made.trials()} == {4}
    path = find_artifact(made, "samples.npz")
    assert path is not None
    with np.load(path) as held:
        assert held["images"].shape == (30, 6, 6)
        assert np.bincount(held["labels"]).tolist() == [10, 10, 10]


def test_evaluations_of_a_study_that_was_made_again_are_left_out(study: Study, tmp_path: Path) -> None:
    run_all(plan_evaluations(study, top=1, seeds=1))
    study.storage.delete_study(study.id)
    again = trained(tmp_path, seed=4, baseline={"learning_rate": 0.002})
    assert evaluation_studies(again)
    assert all(not each.candidates for each in read_evaluations(again))
    assert [each.name for each in plan_evaluations(again, top=1, seeds=1)] == ["small-evaluation-2"]


@pytest.mark.integration
def test_a_user_metric_is_tested_too(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import hpo\n@hpo.metric('worst')\ndef worst(o, y):\n"
        "    return min((o.argmax(1)[y == k] == k).float().mean().item() for k in y.unique())\n"
    )
    small_npz(tmp_path / "small.npz")
    (tmp_path / "own.toml").write_text(
        'dataset = "small.npz"\nobjective = "worst"\ntrials = 2\nsampler = "random"\n'
        '[parameters]\nwidths = "8"\nepochs = 1\nlearning_rate = { low = 0.01, high = 0.1 }\n'
    )
    train_here("./own.toml", "--import", "mine", cwd=tmp_path)
    command = ("evaluate", "own", "--top", "1", "--seeds", "2", "--workers", "1", "--import", "mine", "--refit")
    done = run_hpo(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "defaults" in done.stdout
    assert "together" in done.stderr


def test_what_is_wrong_is_one_line(tmp_path: Path, study: Study) -> None:
    (made,) = plan_evaluations(study, top=1, seeds=1)
    with pytest.raises(RequestError, match="'small-evaluation' is an evaluation itself; evaluate 'small'"):
        plan_evaluations(made)
    with pytest.raises(DefinitionError, match="validation = 0: leaves no samples to measure val_accuracy on"):
        parse_definition({"parameters": {"validation": 0}}, "none", tmp_path)
    (tmp_path / "cheap").mkdir()
    with pytest.raises(RequestError, match=r"can be measured on a test set \(parameter_count\)"):
        plan_evaluations(trained(tmp_path / "cheap", objective="parameter_count"))
    (tmp_path / "new").mkdir()
    with pytest.raises(RequestError, match="has no COMPLETE trial"):
        plan_evaluations(make(tmp_path / "new"))


@pytest.mark.integration
def test_a_killed_evaluation_goes_on_and_counts_every_look(tmp_path: Path) -> None:
    small_npz(tmp_path / "small.npz")
    (tmp_path / "s.toml").write_text(
        'dataset = "small.npz"\ntrials = 2\nsampler = "random"\n'
        '[parameters]\nwidths = "8"\nepochs = 10\nlearning_rate = { low = 0.01, high = 0.1 }\n'
    )
    train_here("./s.toml", cwd=tmp_path)
    command = ("evaluate", "s", "--seeds", "6", "--workers", "1", "--cohort", "1", "--lease", "1")
    process = start_hpo(*command, cwd=tmp_path)
    assert process.stderr is not None
    for line in process.stderr:
        if "COMPLETE" in line:
            break
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    done = run_hpo(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    study = Study(StudyStorage(default_storage()), "s")
    (found,) = read_evaluations(study)
    assert [len(each.complete_runs) for each in found.candidates] == [6, 6, 6]
    assert len(list_test_set_reads(study)) == 18
    deleted = run_hpo("delete", "s", "--yes", cwd=tmp_path)
    assert "and its evaluations (s-evaluation) deleted: 20 trials" in deleted.stderr
