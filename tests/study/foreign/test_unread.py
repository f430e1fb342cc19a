"""Notes on settings and on fixed arguments of commands, which an import does not read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpo.study.foreign.readers import read_search
from hpo.study.foreign.search import ForeignSearch
from hpo.study.foreign.unread import describe_fixed_arguments, describe_settings

FIXED = "the command fixes these, and they are not read: "
GIVES = "gives the study those of ours"


@pytest.mark.parametrize(
    ("command", "note"),
    [
        ("python train.py", None),
        ("python -m train -v", None),
        ("python train.py --epochs 3", f"epochs = 3; --set epochs=3 {GIVES}"),
        ("python train.py --epochs=3 --wandb-mode=off", f"epochs = 3, wandb-mode = off; --set epochs=3 {GIVES}"),
        ("python train.py --name 'a b' --debug", "name = a b, debug = true"),
        ("python train.py --bn --lr -1", f"bn = true, lr = -1; --set batch_norm=true {GIVES}"),
        ("LR=3 python train.py trainer.max_epochs=3 +opt=Adam", f"trainer.max_epochs = 3, opt = Adam; "
         f"--set epochs=3 --set optimizer=adam {GIVES}"),
        ("python train.py --name 'a", "name = 'a"),
        (["sh", "-c", "python train.py --epochs 3"], f"epochs = 3; --set epochs=3 {GIVES}"),
        (["${env}", "python", "${program}", "--batch_size", 256, "--amp", "${args}"],
         f"batch_size = 256, amp = true; --set batch_size=256 {GIVES}"),
        (["python", "--lr=${trialParameters.lr}", "--width", "${trialParameters.width}"], None),
    ],
)  # fmt: skip
def test_arguments_that_a_command_fixes(command: Any, note: str | None) -> None:
    assert list(describe_fixed_arguments([command])) == ([] if note is None else [FIXED + note])


@pytest.mark.parametrize(
    ("settings", "sampler", "note"),
    [
        ({}, "tpe", None),
        ({"gamma": 0.2}, "tpe", "a: gamma = 0.2: not read"),
        ({"random_state": "3"}, None, "a: random_state = 3: not read; in the study file: seed = 3"),
        (
            {"n_startup_trials": 5},
            "tpe",
            'a: n_startup_trials = 5: not read; in the study file: sampler = { name = "tpe", n_startup_trials = 5 }',
        ),
        ({"n_startup_trials": 5}, "random", "a: n_startup_trials = 5: not read"),
    ],
)
def test_settings_that_are_not_read(settings: dict[str, Any], sampler: str | None, note: str | None) -> None:
    assert list(describe_settings("a", settings, sampler)) == ([] if note is None else [note])


def notes(tmp_path: Path, document: dict[str, Any]) -> str:
    path = tmp_path / "search.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return "\n".join(read_search(path).notes)


def test_every_tool_with_a_command_says_what_it_fixes(tmp_path: Path) -> None:
    sweep = {"method": "grid", "command": ["python", "--epochs=3"], "parameters": {"lr": {"values": [1, 2]}}}
    assert "epochs = 3" in notes(tmp_path, sweep)
    space = {"lr": {"_type": "choice", "_value": [1, 2]}}
    assert "epochs = 3" in notes(tmp_path, {"searchSpace": space, "trialCommand": "python --epochs 3"})
    assert "epochs = 3" in notes(tmp_path, {"searchSpace": space, "trial": {"command": "python --epochs 3"}})
    template = {"trialSpec": {"containers": [{"command": ["python"], "args": ["--epochs", "3", "--flag"]}], "a": "b"}}
    lr = {"name": "lr", "parameterType": "discrete", "feasibleSpace": {"list": ["1", "2"]}}
    spec = {"objective": {}, "algorithm": {}, "parameters": [lr], "trialTemplate": template}
    assert "epochs = 3, flag = true" in notes(tmp_path, {"kind": "Experiment", "spec": spec})


def test_hyperband_beside_another_pruner_is_said(tmp_path: Path) -> None:
    experiment = {
        "searchSpace": {"lr": {"_type": "choice", "_value": [1, 2]}},
        "tuner": {"name": "Hyperband", "classArgs": {"R": 60, "eta": 3}},
        "assessor": {"name": "Medianstop"},
    }
    used = "it stops trials, too, and is not used: a study has one pruner, and"
    assert f"tuner Hyperband: R = 60, eta = 3: {used} the assessor's is taken" in notes(tmp_path, experiment)
    del experiment["assessor"]
    assert used not in notes(tmp_path, experiment)
    algorithm = {"algorithmName": "hyperband", "algorithmSettings": [{"name": "r_l", "value": "9"}]}
    lr = {"name": "lr", "parameterType": "discrete", "feasibleSpace": {"list": ["1", "2"]}}
    spec = {"objective": {}, "algorithm": algorithm, "parameters": [lr]}
    katib: dict[str, Any] = {"kind": "Experiment", "spec": spec}
    assert used not in notes(tmp_path, katib)
    spec["earlyStopping"] = {"algorithmName": "medianstop"}
    assert f"algorithm hyperband: r_l = 9: {used} earlyStopping is taken" in notes(tmp_path, katib)


def test_what_the_state_of_an_oracle_sets_is_read_or_said(tmp_path: Path) -> None:
    choice = {"class_name": "Choice", "config": {"name": "lr", "values": [1, 2]}}
    oracle = {"hyperparameters": {"space": [choice]}, "seed": 42, "retry_queue": [], "tried_so_far": []}
    path = tmp_path / "oracle.json"

    def read(**settings: Any) -> ForeignSearch:
        path.write_text(json.dumps({**oracle, **settings}), encoding="utf-8")
        return read_search(path)

    search = read(num_initial_points=8, alpha=1e-4, beta=2.6)
    assert (search.method, search.sampler_options, search.seed) == ("gp", {"n_startup_trials": 8}, 42)
    assert search.notes == ("oracle: alpha = 0.0001, beta = 2.6: not read",)
    assert read(num_initial_points=None, seed=None).sampler_options == {}
    search = read(max_epochs=30, min_epochs=2, factor=3, hyperband_iterations=2)
    pruner = {"name": "hyperband", "max_resource": 30, "reduction_factor": 3, "min_resource": 2}
    assert (search.pruner, search.seed) == (pruner, 42)
    assert search.notes == ("oracle: hyperband_iterations = 2: not read",)


def test_earlier_runs_of_a_sweep_are_said(tmp_path: Path) -> None:
    sweep = {"method": "grid", "prior_runs": ["a"], "parameters": {"lr": {"values": [1, 2]}}}
    assert notes(tmp_path, sweep).startswith("prior_runs: not read; warm_start in the study file")


def test_what_an_experiment_of_nni_has_besides_is_said(tmp_path: Path) -> None:
    said = notes(
        tmp_path,
        {
            "searchSpace": {"lr": {"_type": "choice", "_value": [1, 2]}},
            "maxTrialDuration": "10m",
            "debug": True,
            "tuner": {"name": "TPE", "classArgs": {"seed": 3}},
            "assessor": {"name": "Medianstop", "classArgs": {"start_step": 3, "window": 2}},
        },
    )
    assert "tuner TPE: seed = 3: not read; in the study file: seed = 3" in said
    assert "assessor Medianstop: window = 2: not read" in said
    assert 'trial_timeout = "10m" fails trials that take longer' in said
    assert "debug: they say how trials are started and shown" in said
