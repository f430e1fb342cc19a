"""Trials of several fits: their values are means, each fit resumes, and worse trials are dropped on shared fits."""

from __future__ import annotations

import json
import math
import shutil
import signal
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from hpo.config.resampling import Resampling
from hpo.config.trial_config import TrialConfig
from hpo.errors import DefinitionError, LeaseLostError, OutOfMemoryError, RequestError
from hpo.execution import trial_fits
from hpo.execution.reproduce import reproduce
from hpo.execution.restore import restore
from hpo.execution.study_callback import RunningTrial, StudyCallback
from hpo.report.chapters.blocks import Text
from hpo.report.chapters.cost import estimate_pruning_savings
from hpo.report.chapters.racing import racing_chapter
from hpo.report.data.results import read_results
from hpo.report.data.sample_scores import read_sample_scores
from hpo.report.data.summary import study_summary
from hpo.report.data.trial_table import shown_trials, trial_table
from hpo.report.render.json import report_document, report_schema
from hpo.report.report_data import read_report_data
from hpo.storage.tables import FITS, LEASES
from hpo.storage.worker_stats import WorkRecorder
from hpo.study import Study, StudyStorage
from hpo.study.attributes import STAGE_EPOCHS
from hpo.study.files.study_files import StudyFiles, list_local_weights
from hpo.study.input.study_file import parse_definition
from hpo.study.operations.fork import fork_study
from hpo.study.racing import compare_fits, count_stages
from hpo.study.standard_error import standard_error
from hpo.training.fits import JointTrial
from hpo.training.member import Member
from hpo.training.settings import TrainSettings
from tests.data import small_npz
from tests.study.helpers import holder, new_storage, sqlite_url
from tests.workers import make_worker

SMALL = {"widths": "8", "epochs": 3, "batch_size": 32, "learning_rate": {"low": 1e-4, "high": 0.03, "log": True}}
COMPLETE, PRUNED = TrialState.COMPLETE, TrialState.PRUNED
TIMES = {"seconds"}
# Ends its own process with SIGKILL as it has written some of the checkpoints of a trial's fits.
KILLED = """
import os, signal, sys
import hpo.training.checkpoint as checkpoint
from hpo.study import Study, StudyStorage
from tests.workers import make_worker

save, count = checkpoint.save, 0

def dying(*arguments):
    global count
    count += 1
    if count > int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    save(*arguments)

checkpoint.save = dying
make_worker(Study(StudyStorage(sys.argv[1]), "small"), cohort=1, checkpoint_every=0).run()
"""


def make(folder: Path, name: str = "small", storage: StudyStorage | None = None, **keys: Any) -> Study:
    path = folder / "small.npz"
    table = {"dataset": str(path if path.exists() else small_npz(path, 300)), "trials": 2, "sampler": "random"}
    parsed = parse_definition({**table, "parameters": SMALL, **keys}, name, folder)
    return Study.create(storage or new_storage(folder), *parsed)


def curves(study: Study) -> dict[int, Mapping[int, list[dict[str, float]]]]:
    """Every number of every fit, but for times."""
    return {
        row.number: {
            fit: [{key: value for key, value in epoch.items() if key not in TIMES} for epoch in rows]
            for fit, rows in row.fits.items()
        }
        for row in read_results(study).trials
    }


def test_a_trials_rows_are_the_means_over_its_fits_and_its_value_is_that_of_the_best(tmp_path: Path) -> None:
    study = make(tmp_path, folds=3, repeats=2)
    make_worker(study).run()
    fits = study.definition.resampling.fits  # type: ignore[union-attr]
    for row in read_results(study).trials:
        assert (row.state, sorted(row.fits)) == ("COMPLETE", list(range(6)))
        for position, epoch in enumerate(row.epochs):
            each = [row.fits[fit][position] for fit in range(6)]
            assert {values["epoch"] for values in each} == {epoch["epoch"]}
            for metric in ("val_accuracy", "val_loss", "train_loss"):
                assert epoch[metric] == pytest.approx(statistics.fmean(values[metric] for values in each))
            assert epoch["seconds"] == pytest.approx(sum(values["seconds"] for values in each))
        assert row.value == max(epoch["val_accuracy"] for epoch in row.epochs)
        best = [(fit, row.fits[fit.number][int(row.best_epoch or 0) - 1]["val_accuracy"]) for fit in fits]
        assert row.standard_error == standard_error(best, ratio=100 / 200)
    assert len({str(rows[0]) for rows in curves(study)[0].values()}) == 6  # no two fits are the same
    assert [entry["standard_error"] for entry in trial_table(read_results(study))] == [
        row.standard_error for row in read_results(study).trials
    ]
    samples = read_sample_scores(study).trials
    assert [[each.fit for each in samples[number]] for number in range(2)] == [list(range(6))] * 2
    assert not list_local_weights(study)
    assert not [path for path in StudyFiles(study).folder("checkpoints").iterdir() if path.name != "study.json"]


@pytest.mark.integration
def test_a_trial_killed_between_the_checkpoints_of_its_fits_ends_with_the_same_bits(tmp_path: Path) -> None:
    saves = 15 + 7  # the first time all of them, the second time some
    keys: dict[str, Any] = {"folds": 5, "repeats": 3, "trials": 1, "parameters": {**SMALL, "dropout": 0.2}}
    whole = make(tmp_path, "whole", **keys)
    make_worker(whole, cohort=1, checkpoint_every=0).run()
    (tmp_path / "killed").mkdir()
    killed = make(tmp_path, storage=StudyStorage(sqlite_url(tmp_path / "killed")), **keys)
    arguments = [sys.executable, "-c", KILLED, sqlite_url(tmp_path / "killed"), str(saves)]
    assert subprocess.run(arguments, check=False).returncode == -signal.SIGKILL
    with killed.storage.engine.begin() as connection:
        connection.execute(sa.update(LEASES).values(expires=0.0))
    assert len(list(StudyFiles(killed).folder("checkpoints").glob("0/fit-*.pt"))) == 13  # one was just moved aside
    make_worker(killed, cohort=1, checkpoint_every=0).run()
    assert killed.trials()[0].user_attrs["attempt"] == 2
    assert curves(killed) == curves(whole)
    assert [trial.value for trial in killed.trials()] == [trial.value for trial in whole.trials()]
    assert killed.trials()[0].intermediate_values == whole.trials()[0].intermediate_values


@pytest.mark.parametrize("limit", [None, 2])
def test_a_resumed_trial_has_no_more_epochs_than_its_first_fits_had(limit: int | None) -> None:
    member = Member(TrialConfig(), 0)
    trial = JointTrial(member.config, member, TrainSettings(), fits=Resampling(folds=5).fits, limit=limit)
    for fit in trial.fits:
        trial.begin(fit.number, Member(member.config, fit.number))  # goes on from a checkpoint
    member.history = [{"epoch": 1}, {"epoch": 2}]
    assert trial.exhausted == (limit is not None)


@pytest.mark.integration
@pytest.mark.parametrize("parameters", [{}, {"epochs": 30, "patience": 2, "learning_rate": 0.03}])
def test_a_trial_killed_in_a_later_stage_has_the_rows_of_all_its_fits(
    tmp_path: Path, parameters: Mapping[str, Any]
) -> None:
    keys: dict[str, Any] = {"folds": 5, "intensify": True, "trials": 1}
    keys["parameters"] = {**SMALL, "learning_rate": 0.01, **parameters}
    whole = make(tmp_path, "whole", **keys)
    make_worker(whole, cohort=1, checkpoint_every=0).run()
    (tmp_path / "killed").mkdir()
    killed = make(tmp_path, storage=StudyStorage(sqlite_url(tmp_path / "killed")), **keys)
    # The three fits of the first stage are stored, and both of the second have a checkpoint.
    made = KILLED.replace("Study(StudyStorage(sys.argv[1])", "Study(storage").replace(
        "save, count =", "storage = StudyStorage(sys.argv[1])\nsave, count ="
    )
    made = made.replace("    count += 1\n", "    count += 1\n    storage.flush()\n")
    first = whole.trials()[0].user_attrs["stage_epochs"]
    assert first == 3 or len(read_results(whole).trials[0].epochs) < 30  # it has stopped early
    arguments = [sys.executable, "-c", made, sqlite_url(tmp_path / "killed"), str(3 * (first - 1) + 2)]
    assert subprocess.run(arguments, check=False).returncode == -signal.SIGKILL
    with killed.storage.engine.begin() as connection:
        connection.execute(sa.update(LEASES).values(expires=0.0))
    make_worker(killed, cohort=1, checkpoint_every=0).run()
    assert curves(killed) == curves(whole)
    assert killed.trials()[0].intermediate_values == whole.trials()[0].intermediate_values
    assert killed.trials()[0].values == whole.trials()[0].values


def test_patience_is_the_trials_and_a_pruner_sees_its_means(tmp_path: Path) -> None:
    parameters = {**SMALL, "epochs": 12, "patience": 2, "learning_rate": 0.03}
    study = make(tmp_path, seeds=2, trials=1, pruner="median", parameters=parameters)
    make_worker(study).run()
    [row] = read_results(study).trials
    [trial] = study.trials()
    assert {len(rows) for rows in row.fits.values()} == {len(row.epochs)}
    assert len(row.epochs) == (row.best_epoch or 0) + 2 < 12
    assert trial.intermediate_values == {int(epoch["epoch"]): epoch["val_accuracy"] for epoch in row.epochs}


def test_asha_pauses_and_promotes_all_fits_together(tmp_path: Path) -> None:
    pruner = {"name": "asha", "min_resource": 1, "reduction_factor": 2}
    parameters = {**SMALL, "epochs": 4, "learning_rate": [0.03, 1e-4, 1e-5, 1e-6]}
    study = make(
        tmp_path, folds=3, trials=4, pruner=pruner, sampler="grid", parameters=parameters, objective="val_loss"
    )
    make_worker(study, cohort=1).run()
    rows = read_results(study).trials
    assert any(len(row.epochs) < 4 for row in rows)
    assert any(trial.user_attrs["attempt"] > 1 and len(trial.intermediate_values) > 1 for trial in study.trials())
    assert all({len(fit) for fit in row.fits.values()} == {len(row.epochs)} for row in rows)


def test_a_trial_that_is_worse_on_shared_fits_is_dropped(tmp_path: Path) -> None:
    pruner = {"name": "wilcoxon", "n_warmup_steps": 1}
    parameters = {**SMALL, "learning_rate": [0.03, 1e-6], "epochs": 4}
    study = make(tmp_path, folds=5, pruner=pruner, sampler="grid", parameters=parameters, objective="val_loss")
    make_worker(study, cohort=1).run()
    good, bad = read_results(study).trials
    assert (good.state, good.raced) == ("COMPLETE", None)
    assert (bad.state, len(bad.epochs), bad.raced) == ("PRUNED", 2, "worse than trial 0 on 5 shared fits (p = 0.031)")
    results = read_results(study)
    chapter = racing_chapter(results)
    assert chapter is not None
    assert isinstance(chapter.blocks[0], Text)
    assert "1 of 2 trials was dropped" in chapter.blocks[0].text
    assert "saved 10 of 40 epochs of fits (25 %)" in chapter.blocks[0].text
    assert estimate_pruning_savings(results) is None
    assert racing_chapter(replace(results, trials=())) is None
    assert [row["raced"] for row in shown_trials(results)] == [None, bad.raced]
    document = json.loads(json.dumps(report_document(read_report_data(study))))
    jsonschema.validate(document, report_schema())
    assert set(document["best"]["fits"]) == set("01234")
    assert shown_trials(results)[0]["val_loss"] == f"{good.value:.6g} ± {good.standard_error:.2g}"
    assert set(study_summary(results)["best"]["fits"]) == set("01234")


def test_a_trial_earns_its_later_fits(tmp_path: Path) -> None:
    parameters = {**SMALL, "learning_rate": [0.03, 1e-6]}
    study = make(tmp_path, folds=5, intensify=True, sampler="grid", parameters=parameters, objective="val_loss")
    make_worker(study, cohort=1).run()
    good, bad = read_results(study).trials
    assert (good.state, sorted(good.fits)) == ("COMPLETE", list(range(5)))
    assert good.value == pytest.approx(statistics.fmean(rows[-1]["val_loss"] for rows in good.fits.values()))
    assert study.trials()[0].intermediate_values == {int(row["epoch"]): row["val_loss"] for row in good.epochs}
    assert (bad.state, sorted(bad.fits), bad.raced) == (
        "PRUNED",
        [0, 1, 2],
        "worse than trial 0 on 3 shared fits (p = 0.12)",
    )


def test_a_fork_names_the_rivals_of_a_race_as_they_are_called_there(tmp_path: Path) -> None:
    parameters = {**SMALL, "learning_rate": [1e-6, 0.03, 1e-5]}
    keys: dict[str, Any] = {"trials": 3, "sampler": "grid", "parameters": parameters, "objective": "val_loss"}
    study = make(tmp_path, folds=5, intensify=True, **keys)
    make_worker(study, cohort=1).run()
    loss = "worse than trial {} on 3 shared fits (p = 0.12)"
    assert read_results(study).trials[2].raced == loss.format(1)
    kept = fork_study(study, "kept", {"learning_rate": [0.03, 1e-5]}, trials=2).create()
    assert [row.raced for row in read_results(kept).trials] == [None, loss.format(0)]
    left = fork_study(study, "left", {"learning_rate": [1e-5, 0.1]}, trials=2).create()
    assert read_results(left).trials[0].raced == loss.format("1 of study small")


def test_a_race_saves_no_epochs_that_patience_would_have_saved(tmp_path: Path) -> None:
    parameters = {**SMALL, "learning_rate": [0.03, 1e-6], "epochs": 20, "patience": 2, "min_delta": 0.01}
    keys: dict[str, Any] = {"folds": 5, "sampler": "grid", "parameters": parameters, "objective": "val_loss"}
    study = make(tmp_path, intensify=True, **keys)
    make_worker(study, cohort=1).run()
    results = read_results(study)
    good, bad = results.trials
    assert (len(bad.fits), len(bad.epochs), bad.stage_epochs) == (3, 3, 3)
    whole = 5 * len(good.epochs) + 5 * 3
    chapter = racing_chapter(results)
    assert chapter is not None
    assert isinstance(chapter.blocks[0], Text)
    assert f"saved 6 of {whole} epochs of fits" in chapter.blocks[0].text
    # One that the pruner stopped would have had as many epochs as the other, which patience has stopped.
    pruned = replace(
        bad, epochs=bad.epochs[:1], fits={fit: rows[:1] for fit, rows in bad.fits.items()}, stage_epochs=None
    )
    left = 5 * len(good.epochs) - 3
    chapter = racing_chapter(replace(results, trials=(good, pruned)))
    assert chapter is not None
    assert isinstance(chapter.blocks[0], Text)
    assert len(good.epochs) < 20
    assert f"saved {left} of {10 * len(good.epochs)} epochs of fits" in chapter.blocks[0].text
    assert estimate_pruning_savings(replace(results, trials=(good, replace(pruned, raced=None)))) == (
        1,
        len(good.epochs) - 1,
        pytest.approx((len(good.epochs) - 1) * (pruned.seconds or 0.0)),
    )


@pytest.mark.parametrize("racing", [{"intensify": True}, {"pruner": {"name": "wilcoxon", "n_warmup_steps": 1}}])
def test_a_trial_that_violates_a_constraint_drops_none(tmp_path: Path, racing: Mapping[str, Any]) -> None:
    parameters = {**SMALL, "learning_rate": [0.03, 1e-6], "epochs": 4}
    keys: dict[str, Any] = {"sampler": "grid", "objective": "val_loss", "constraints": ["val_accuracy <= 0.9"]}
    study = make(tmp_path, folds=5, parameters=parameters, **keys, **racing)
    make_worker(study).run()
    violating, other = read_results(study).trials
    assert {trial.user_attrs["cohort"] for trial in study.trials()} == {2}
    assert (violating.state, violating.failure) == ("PRUNED", "infeasible")
    assert (other.state, len(other.fits), len(other.epochs), other.raced) == ("COMPLETE", 5, 4, None)


def test_a_trial_that_is_lost_as_it_earns_fits_leaves_its_cohort_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    study = make(tmp_path, folds=5, intensify=True, parameters={**SMALL, "learning_rate": [0.03, 0.02]}, sampler="grid")
    store = study.storage.set_trial_user_attr

    def refuse(trial_id: int, key: str, value: Any) -> None:
        if key == STAGE_EPOCHS and study.storage.get_trial(trial_id).number == 0:
            raise LeaseLostError("trial 0")
        store(trial_id, key, value)

    monkeypatch.setattr(study.storage, "set_trial_user_attr", refuse)
    worker = make_worker(study, lease=3600)
    worker.run()
    assert "an error ended a cohort" not in caplog.text
    assert "trial 0 is not this worker's any more" in caplog.text
    assert worker.finished == {"COMPLETE": 1}
    assert study.trials()[1].state == COMPLETE


@pytest.mark.parametrize("judged", [True, False])
def test_a_trial_that_was_taken_over_in_a_later_stage_is_not_paused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, judged: bool
) -> None:
    pruner = {"name": "asha", "min_resource": 1, "reduction_factor": 2}
    study = make(tmp_path, folds=5, intensify=True, pruner=pruner)
    claim = study.claim(holder())
    assert claim is not None
    config = study.suggest_config(claim)
    member = Member(config, 0, history=[{"epoch": 1, "val_accuracy": 0.5}], resumable=True)
    trial = RunningTrial(replace(claim, taken_over=True, attempt=2), config)
    trial.joint = JointTrial(config, member, TrainSettings(), judged=judged)
    callback = StudyCallback(study, [trial], lambda *_: None, WorkRecorder())
    asked: list[object] = []
    monkeypatch.setattr(callback, "on_round", asked.append)
    callback.on_start(member)
    assert asked == ([[member]] if judged else [])


@pytest.mark.parametrize("lost", ["every checkpoint", "the last of the first fit"])
def test_a_trial_begins_anew_only_without_any_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, lost: str
) -> None:
    study = make(tmp_path, folds=3, trials=1)
    asked = iter(range(1000))
    make_worker(study, lambda: next(asked) > 20, checkpoint_every=0).run()
    files = StudyFiles(study)
    assert files.checkpoint(0).exists()
    assert files.previous_checkpoint(0, 0).exists()
    files.checkpoint(0).unlink()
    if lost == "every checkpoint":
        shutil.rmtree(files.folder("checkpoints") / "0")
    make_worker(study).run()
    assert study.trials()[0].user_attrs["attempt"] == 2
    assert caplog.text.count("trial 0 begins anew") == (lost == "every checkpoint")


def test_the_pruner_of_fits_needs_several(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match=r"^pruner 'wilcoxon' compares the fits of trials"):
        make(tmp_path, pruner="wilcoxon")


def test_a_trial_of_several_fits_is_reproduced_and_has_no_weights(tmp_path: Path) -> None:
    study = make(tmp_path, folds=3, trials=1, parameters={**SMALL, "dropout": 0.2})
    make_worker(study).run()
    result = reproduce(study, 0)
    assert (result.identical, result.epochs, len(result.differences)) == (True, 3, 5)
    with study.storage.engine.begin() as connection:
        connection.execute(sa.update(FITS).where(FITS.c.epoch == 2).values(metrics='{"fit": [1], "val_loss": [0.5]}'))
    assert max(each.largest for each in reproduce(study, 0).differences) == math.inf
    with pytest.raises(RequestError, match=r"trial 0 has 3 fits, none of whose files are kept"):
        reproduce(study, 0, out=tmp_path / "out")
    with pytest.raises(RequestError, match=r"trial 0 has 3 fits, and no weights of fits are kept; .*hpo evaluate"):
        restore(study)


def test_fits_that_do_not_fit_into_memory_at_once_are_trained_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def train(configs: Any, *arguments: Any, **options: Any) -> Any:
        sizes.append(len(configs))
        if len(configs) > 2:
            raise OutOfMemoryError("the device has 1 MiB")
        return whole(configs, *arguments, **options)

    whole: Any = trial_fits.__dict__["train"]
    monkeypatch.setattr(trial_fits, "train", train)
    study = make(tmp_path, folds=5, trials=1)
    make_worker(study).run()
    assert sizes == [5, 2, 2, 1]
    [row] = read_results(study).trials
    assert (row.state, {len(rows) for rows in row.fits.values()}, len(row.epochs)) == ("COMPLETE", {3}, 3)


def test_half_of_the_fits_that_were_too_many_are_trained_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def train(configs: Any, *arguments: Any, **options: Any) -> Any:
        sizes.append(len(configs))
        if len(configs) > 3:
            raise OutOfMemoryError("the device has 1 MiB")
        return whole(configs, *arguments, **options)

    whole: Any = trial_fits.__dict__["train"]
    monkeypatch.setattr(trial_fits, "train", train)
    study = make(tmp_path, folds=5, repeats=3, intensify=True, trials=1)
    make_worker(study, checkpoint_every=0).run()
    assert sizes[:3] == [3, 3, 6]
    assert set(sizes[3:]) == {3}
    [row] = read_results(study).trials
    assert (row.state, len(row.fits)) == ("COMPLETE", 15)


def test_a_damaged_row_of_fits_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    study = make(tmp_path, folds=3, trials=1)
    make_worker(study).run()
    for content in ('{"fit": [0, 0], "x": [1, 2]}', '{"x": [1]}', '{"fit": [0], "x": ["1"]}', '{"fit": [0], "x": 1}'):
        with study.storage.engine.begin() as connection:
            connection.execute(sa.update(FITS).where(FITS.c.epoch == 2).values(metrics=content))
        [row] = read_results(study).trials
        assert {len(rows) for rows in row.fits.values()} == {2}
    assert "a row of hpo_fits cannot be read" in caplog.text


def test_stages_double(tmp_path: Path) -> None:
    assert count_stages(Resampling(folds=5, repeats=3)) == [15]
    assert count_stages(Resampling(folds=5, repeats=3, intensify=True)) == [3, 6, 12, 15]
    assert count_stages(Resampling(seeds=2, intensify=True)) == [2]


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_a_rival_that_diverged_is_no_rival(order: Sequence[int]) -> None:
    bad, good = {fit: 0.5 - fit / 100 for fit in range(5)}, dict.fromkeys(range(5), 0.9)
    rivals = {1: good, 2: dict.fromkeys(range(5), math.nan)}
    loss = compare_fits(bad, {number: rivals[number] for number in order}, 0.1, maximize=True)
    assert loss is not None
    assert loss.rival == 1


def test_a_trial_is_dropped_only_beyond_noise() -> None:
    rival = dict.fromkeys(range(5), 0.9)
    worse = {fit: 0.9 - 0.01 * (fit + 1) for fit in range(5)}
    loss = compare_fits(worse, {7: rival}, 0.1, maximize=True)
    assert loss is not None
    assert loss.text == "worse than trial 7 on 5 shared fits (p = 0.031)"
    assert compare_fits(worse, {7: rival}, 0.1, maximize=False) is None
    assert compare_fits({**worse, 4: 0.99}, {7: rival}, 0.1, maximize=True) is None
    assert compare_fits(rival, {7: rival}, 0.1, maximize=True) is None
    three = {fit: worse[fit] for fit in range(3)}
    assert compare_fits(three, {7: rival}, 0.1, maximize=True) is None
    assert compare_fits(three, {7: rival}, 0.1, maximize=True, least=True) is not None
    assert compare_fits({0: 0.1}, {7: rival}, 0.1, maximize=True, least=True) is None
    assert compare_fits({**worse, 0: math.nan}, {7: rival}, 0.1, maximize=True) is None


def test_the_standard_error_of_folds_repeats_and_seeds() -> None:
    values = [0.1, 0.2, 0.4, 0.2, 0.3, 0.5]
    folds = list(zip(Resampling(folds=6).fits, values, strict=True))
    plain = statistics.stdev(values) / math.sqrt(6)
    assert standard_error(folds, 0.2) == pytest.approx(plain)
    repeated = list(zip(Resampling(folds=3, repeats=2).fits, values, strict=True))
    assert standard_error(repeated, 0.5) == pytest.approx(statistics.stdev(values) * math.sqrt(1 / 6 + 0.5))
    seeds = list(zip(Resampling(seeds=6).fits, values, strict=True))
    assert standard_error(seeds, 0.2) == pytest.approx(plain)
    both = list(zip(Resampling(folds=3, seeds=2).fits, values, strict=True))
    assert standard_error(both, 0.5) == pytest.approx(statistics.stdev([0.15, 0.25, 0.45]) / math.sqrt(3))
    assert standard_error(folds[:1], 0.2) is None
