"""Weights of the best trials, `hpo gc`, `hpo copy` and `hpo delete`, with real training."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from optuna.trial import TrialState
from safetensors import safe_open
from safetensors.torch import load_file

import hpo
from hpo.study import Study, StudyStorage
from hpo.study.files.study_files import KEPT, StudyFiles, list_local_weights, weights_path
from hpo.study.input.study_file import parse_definition
from hpo.training.data_cache import DataCache
from hpo.training.learner import ModuleLearner
from hpo.training.member import Member
from hpo.utils.home import home
from tests.data import small_npz
from tests.helpers import run_hpo
from tests.study.helpers import holder, new_storage, sqlite_url
from tests.workers import make_worker

SMALL = {"widths": "8", "epochs": 3, "batch_size": 32, "learning_rate": {"low": 1e-5, "high": 0.1, "log": True}}


def make(folder: Path, **keys: Any) -> Study:
    data = small_npz(folder / "small.npz")
    table = {"dataset": str(data), "trials": 9, "sampler": "random", "parameters": SMALL, **keys}
    return Study.create(new_storage(folder), *parse_definition(table, "small", folder))


def best(study: Study) -> list[int]:
    done = [t for t in study.trials() if t.state == TrialState.COMPLETE]
    return sorted(t.number for t in sorted(done, key=lambda t: (-t.values[0], t.number))[:KEPT])


def test_the_kept_weights_are_those_of_the_best_epoch(tmp_path: Path) -> None:
    study = make(tmp_path)
    make_worker(study).run()
    here = list_local_weights(study)
    assert sorted(here) == best(study)
    data = DataCache(study.definition.dataset, torch.device("cpu"))
    for number, path in here.items():
        trial = study.trials()[number]
        config = study.config_of(trial)
        loaded = data.get(config)
        learner = ModuleLearner(Member(config), loaded.shape, loaded.classes, loaded.device)
        learner.load(learner.members[0], load_file(path))
        assert learner.evaluate(loaded.x_val, loaded.y_val)[0].scores["accuracy"] == trial.value
    with safe_open(here[best(study)[0]], "pt") as file:
        about = file.metadata()
    assert about == {
        "study": "small",
        "study_id": str(study.id),
        "study_key": StudyFiles(study).key,
        "trial": str(best(study)[0]),
        "torch-hpo": hpo.__version__,
        "metric": "val_accuracy",
        "value": repr(study.trials()[best(study)[0]].value),
    }


def test_trials_that_are_pruned_or_fail_keep_none(tmp_path: Path) -> None:
    pruner = {"name": "percentile", "percentile": 1.0, "n_startup_trials": 1}
    # Trials of equal parameters would be one run, and end together.
    space = {**SMALL, "epochs": 6, "learning_rate": [0.05, 1e-7], "epsilon": {"low": 1e-9, "high": 1e-8}}
    study = make(tmp_path, pruner=pruner, parameters=space)
    make_worker(study, cohort=2).run()
    assert TrialState.PRUNED in {t.state for t in study.trials()}
    assert sorted(list_local_weights(study)) == best(study)


KILLED = """
import os, signal, sys
from hpo.study import Study, StudyStorage
from tests.workers import make_worker

storage = StudyStorage(sys.argv[1])
tell = storage.tell
def die(results):
    if 6 in [storage.get_trial(told.trial_id).number for told in results]:
        if sys.argv[2] == "after":
            tell(results)
        os.kill(os.getpid(), signal.SIGKILL)
    return tell(results)
storage.tell = die
make_worker(Study(storage, "small"), lease=1.0).run()
"""


@pytest.mark.integration
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_worker_that_is_killed_as_it_tells_leaves_the_best_their_weights(tmp_path: Path, when: str) -> None:
    study = make(tmp_path)
    done = subprocess.run([sys.executable, "-c", KILLED, sqlite_url(tmp_path), when], timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL
    assert set(best(study)) <= set(list_local_weights(study))
    make_worker(study).run()
    assert study.remaining() == 0
    assert set(best(study)) <= set(list_local_weights(study))
    swept = run_hpo("gc", "--storage", sqlite_url(tmp_path), cwd=tmp_path)
    assert swept.returncode == 0, swept.stderr
    assert sorted(list_local_weights(study)) == best(study)
    assert [p.name for p in StudyFiles(study).checkpoint(0).parent.iterdir()] == ["study.json"]


def test_gc_says_what_it_removes_and_a_dry_run_removes_nothing(tmp_path: Path) -> None:
    study = make(tmp_path, trials=2)
    storage = ("--storage", sqlite_url(tmp_path))
    make_worker(study).run()
    stale = StudyFiles(study).checkpoint(0)
    stale.write_bytes(b"x" * 12_345)
    (home() / "checkpoints" / "old").mkdir()
    (home() / "logs").mkdir()
    (home() / "logs" / "small.log").write_text("stays")
    dry = run_hpo("gc", "small", "--dry-run", *storage, cwd=tmp_path)
    assert dry.returncode == 0, dry.stderr
    assert all(word in dry.stdout for word in (str(stale), "12.3 kB", "trial 0 is COMPLETE", "to remove"))
    assert dry.stderr.strip() == "to remove: 12.3 kB"
    assert stale.exists()
    done = run_hpo("gc", "--format", "json", *storage, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted((row["what"], row["size"], row["path"]) for row in json.loads(done.stdout)) == [
        ("removed", 12_345, str(stale)),
        ("stays", 0, str(home() / "checkpoints" / "old")),
    ]
    assert done.stderr.startswith("removed: 12.3 kB\nnote: --unknown also removes")
    assert not stale.exists()
    run_hpo("gc", "--unknown", *storage, cwd=tmp_path)
    assert not (home() / "checkpoints" / "old").exists()
    assert (home() / "logs" / "small.log").exists()
    assert sorted(list_local_weights(study)) == [0, 1]
    refused = run_hpo("gc", "smal", *storage, cwd=tmp_path)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)


def test_show_names_the_weights_and_delete_frees_them(tmp_path: Path) -> None:
    study = make(tmp_path, trials=2)
    storage = ("--storage", sqlite_url(tmp_path))
    make_worker(study).run()
    shown = run_hpo("show", "small", *storage, cwd=tmp_path).stdout
    path = weights_path(study, 1)
    assert path is not None
    assert f"trial 1, path {path}" in shown
    StudyFiles(study).checkpoint(1).write_bytes(b"x" * 10_000)
    done = run_hpo("delete", "small", "--yes", *storage, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "small deleted: 2 trials, 1" in done.stderr
    assert done.stderr.strip().endswith("kB freed on disk")
    assert [p for kind in ("checkpoints", "weights") for p in (home() / kind).iterdir()] == []


def test_a_study_that_is_copied_is_gone_on_with_there(tmp_path: Path) -> None:
    study = make(tmp_path, trials=4)
    claim = study.claim(holder("here"))  # in training for ever
    assert claim is not None
    study.suggest_config(claim)
    there = f"sqlite:///{tmp_path / 'there.db'}"
    arguments = ("copy", "small", "--to", there, "--storage", sqlite_url(tmp_path))
    done = run_hpo(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "4 trials" in done.stderr
    again = run_hpo(*arguments, cwd=tmp_path)
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert "has a study 'small' already" in again.stderr
    renamed = run_hpo(*arguments, "--as", "other name", cwd=tmp_path)
    assert f"launch 'other name' --storage {there}" in renamed.stderr
    launched = run_hpo("worker", "small", "--storage", there, cwd=tmp_path)
    assert launched.returncode == 0, launched.stderr
    copied = Study(StudyStorage(there), "small")
    assert [(t.number, t.state) for t in copied.trials()] == [(n, TrialState.COMPLETE) for n in range(4)]
    assert copied.trials()[0].params == study.trials()[0].params
    assert study.trials()[0].state == TrialState.RUNNING
    assert sorted(list_local_weights(copied)) == [0, 1, 2, 3]
