"""Notices of a launch about options that change nothing in trainings as short and small as its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hpo
from hpo.config import registry
from hpo.config.trial_config import TrialConfig
from hpo.datasets import load
from hpo.execution.training_notices import _count_batches, explain_training
from hpo.study import Definition
from hpo.study.input.study_file import parse_definition
from hpo.training.data import prepare_data
from hpo.training.schedules import falls_so_far, rate_at
from tests.data import small_npz
from tests.helpers import run_hpo

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(600, 4)).astype(np.float32), np.arange(600) % 3


def define(folder: Path, data: str | None = None, parameters: dict[str, Any] | None = None, **keys: Any) -> Definition:
    """Return a study of a given data set, by default of 600 samples."""
    dataset = data or str(small_npz(folder / "small.npz"))
    table = {"dataset": dataset, "trials": 1, "sampler": "random", "parameters": parameters or {}, **keys}
    return parse_definition(table, "small", folder)[1]


def notices(folder: Path, **parameters: Any) -> list[str]:
    return list(explain_training(define(folder, parameters={"batch_size": 100, **parameters})))


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (
            {"weight_averaging": "swa", "epochs": 4},
            "swa_start = 0.75 of 4 epochs: swa averages the last epoch alone, which is the same as none; lower it, or "
            "train for longer",
        ),
        (
            {"weight_averaging": "ema", "epochs": 4},
            "ema_decay = 0.999 over 20 steps: at the end, 98 % of the average are the weights of the first step; "
            "choose a lower one",
        ),
        (
            {"weight_averaging": "ema", "ema_decay": [0.5, 0.9], "epochs": [1, 9]},
            "in some configurations, ema_decay = 0.9 over 5 steps",
        ),
        (
            {"optimizer": "asgd", "epochs": 4},
            "asgd_start = 1000000 of 20 steps: asgd averages nothing",
        ),
        (
            {"warmup_epochs": 4, "epochs": 4},
            "warmup_epochs = 4 of 4 epochs: the learning rate rises until the end, and its schedule never begins",
        ),
        ({"warmup_steps": 20, "epochs": 4}, "warmup_steps = 20 of 20 steps: the learning rate rises until the end"),
        (
            {"schedule": "step", "step_epochs": 4, "epochs": 4},
            "step_epochs = 4 of 4 epochs: the learning rate never",
        ),
        (
            {"schedule": "cosine_restarts", "restart_epochs": 5, "epochs": [4, 9]},
            "in some configurations, restart_epochs = 5 of 4 epochs: the schedule never restarts",
        ),
        (
            {"schedule": "reduce_on_plateau", "epochs": 3},
            "plateau_patience = 1 of 3 epochs: the learning rate falls too late to count",
        ),
        (
            {"gradient_accumulation": 6},
            "gradient_accumulation = 6, but batches of an epoch = 5: the optimizer does one step an epoch",
        ),
        (
            {"schedule": "linear", "final_learning_rate": 0.1, "learning_rate": [0.01, 0.02]},
            "final_learning_rate = 0.1 at learning_rate = 0.01: under schedule = linear the learning rate rises "
            "instead of falling",
        ),
        (
            {"schedule": "reduce_on_plateau", "final_learning_rate": 0.1, "learning_rate": 0.01},
            "final_learning_rate = 0.1 at learning_rate = 0.01: under schedule = reduce_on_plateau the learning rate "
            "never falls",
        ),
        ({"schedule": "cosine", "final_learning_rate_ratio": 2.0}, "final_learning_rate_ratio = 2 at learning_rate"),
        (
            {"freeze": "backbone"},
            "freeze = backbone without pretrained: the backbone keeps the random weights that it begins with",
        ),
    ],
)
def test_what_changes_nothing_is_said_once(tmp_path: Path, given: dict[str, Any], line: str) -> None:
    (notice,) = notices(tmp_path, **given)
    assert notice.startswith(line)


@pytest.mark.parametrize(
    "given",
    [
        {"weight_averaging": "swa", "epochs": 5},
        {"weight_averaging": "ema", "ema_decay": 0.5, "epochs": 4},
        {"optimizer": "asgd", "asgd_start": 19, "epochs": 4, "weight_averaging": "swa"},
        {"warmup_epochs": 3, "warmup": 0.9, "epochs": 4},
        {"warmup_steps": 19, "epochs": 4},
        {"schedule": "one_cycle", "warmup_steps": 100},
        {"optimizer": "rprop", "schedule": "step", "step_epochs": 9, "warmup_steps": 100},
        {"schedule": "step", "step_epochs": 3, "restart_epochs": 9, "plateau_patience": 9, "epochs": 4},
        {"gradient_accumulation": 5},
        {"optimizer": "lbfgs", "gradient_accumulation": 50},
        {"schedule": "linear", "final_learning_rate": 0.015, "learning_rate": [0.01, 0.02]},
        {"schedule": "constant", "final_learning_rate": 0.1},
    ],
)
def test_nothing_is_said_of_what_has_its_effect_or_none_anyway(tmp_path: Path, given: dict[str, Any]) -> None:
    assert notices(tmp_path, **given) == []


@pytest.mark.parametrize("epochs", range(1, 8))
@pytest.mark.parametrize("patience", range(4))
def test_a_plateau_is_said_where_no_epoch_could_have_a_lower_rate(tmp_path: Path, epochs: int, patience: int) -> None:
    given = {"schedule": "reduce_on_plateau", "plateau_patience": patience, "epochs": epochs}
    config, rows = TrialConfig(**given), [{"val_loss": 1.0}] * (epochs - 1)  # before the last epoch
    rate = rate_at(config, 0, epochs, falls_so_far(config, rows, "val_loss", "minimize"))
    assert bool(notices(tmp_path, **given)) == (rate == config.learning_rate)


@pytest.mark.parametrize(
    "keys",
    [
        {"parameters": {"validation": 0.25}},
        {"parameters": {"validation": 51}},
        {"folds": 4},
        {"data": "own.npz"},
    ],
)
@pytest.mark.parametrize("batch_size", [1, 7, 50, 449, 1000])
def test_batches_are_those_of_training(tmp_path: Path, keys: dict[str, Any], batch_size: int) -> None:
    np.savez(tmp_path / "own.npz", x_train=X, y_train=Y, x_val=X[:50], y_val=Y[:50])
    definition = define(tmp_path, **keys)
    config = TrialConfig(**{**keys.get("parameters", {}), "batch_size": batch_size})
    data = prepare_data(load(definition.dataset), config, torch.device("cpu"), division=definition.fits[0].division)
    assert _count_batches(definition, config) == data.steps(batch_size)


def test_steps_of_unknown_data_and_of_loops_are_not_guessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for each in (registry.datasets, registry.models):
        monkeypatch.setattr(each, "_entries", dict(each._entries))

    @hpo.dataset("mine")
    def mine() -> hpo.Dataset:
        raise AssertionError

    @hpo.training_loop("my_loop", uses=["epochs", "weight_averaging", "swa_start"])
    def my_loop(trial: Any) -> None:
        raise AssertionError

    given = {"warmup_steps": 100, "weight_averaging": ["ema", "swa"], "epochs": 1}
    (notice,) = explain_training(define(tmp_path, "mine", given))
    assert notice.startswith("in some configurations, swa_start")
    looped = {"model": "my_loop", "weight_averaging": "swa", "epochs": 1}
    assert list(explain_training(define(tmp_path, "mine", looped))) == []


def test_launch_prints_them_before_it_begins(tmp_path: Path) -> None:
    data = small_npz(tmp_path / "small.npz")
    (tmp_path / "one.toml").write_text(
        f'dataset = "{data}"\ntrials = 1\n[parameters]\nwidths = "4"\nepochs = 2\nwarmup_epochs = 2\n'
    )
    line = "note: warmup_epochs = 2 of 2 epochs: the learning rate rises until the end, and its schedule never begins\n"
    for more in (["--dry-run"], ["--workers", "0"]):
        done = run_hpo("launch", "./one.toml", *more, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert line in done.stderr
