"""Searches of Hugging Face's trainer, by each of its backends."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpo.study.foreign.search import Goal
from tests.study.foreign.files import read

OPTUNA = """def space(trial):
    return {"learning_rate": trial.suggest_float("learning_rate", 1e-6, 1e-4, log=True)}
"""
RAY = """from ray import tune
other = {"x": tune.uniform(0, 1)}
def space(trial):
    return {"learning_rate": tune.loguniform(1e-6, 1e-4)}
"""
WANDB = """import wandb
def space(trial):
    return {"method": "random", "metric": {"name": "objective", "goal": "minimize"},
            "parameters": {"learning_rate": {"min": 1e-6, "max": 1e-4}}}
"""
BACKENDS = pytest.mark.parametrize("text", [OPTUNA, RAY, WANDB], ids=["optuna", "ray", "wandb"])


@BACKENDS
@pytest.mark.parametrize(
    ("arguments", "trials", "direction"),
    [
        ("hp_space=space, direction='maximize', n_trials=17", 17, "maximize"),
        ("space, None, 17, 'maximize'", 17, "maximize"),
        ("hp_space=space", 20, "minimize"),
    ],
)
def test_the_call_has_the_direction_and_the_trials(
    tmp_path: Path, text: str, arguments: str, trials: int, direction: str
) -> None:
    search = read(tmp_path, f"{text}trainer.hyperparameter_search({arguments})")
    assert [each.name for each in search.parameters] == ["learning_rate"]
    assert (search.metric, search.direction, search.trials) == ("objective", direction, trials)
    assert not any("hpo launch" in note for note in search.notes)


@pytest.mark.parametrize("text", [OPTUNA, RAY], ids=["optuna", "ray"])
def test_several_directions_are_several_objectives(tmp_path: Path, text: str) -> None:
    search = read(tmp_path, f"{text}trainer.hyperparameter_search(hp_space=space, direction=['minimize', 'maximize'])")
    goals = [Goal(search.metric, search.direction), *search.also]
    assert goals == [Goal("objective_1", "minimize"), Goal("objective_2", "maximize")]


def test_a_sweep_has_one_direction(tmp_path: Path) -> None:
    search = read(tmp_path, f"{WANDB}trainer.hyperparameter_search(hp_space=space, direction=['maximize', 'minimize'])")
    assert search.direction == "minimize"
    expected = (
        "direction = ['maximize', 'minimize'] (line 5): the sweep has one metric, and its goal counts here: minimize"
    )
    assert expected in search.notes


@BACKENDS
def test_settings_that_are_known_later_are_said(tmp_path: Path, text: str) -> None:
    call = "trainer.hyperparameter_search(hp_space=space, direction=args.direction, n_trials=args.n)"
    notes = "\n".join(read(tmp_path, text + call).notes)
    assert "direction = args.direction (line" in notes
    assert "n_trials = args.n (line" in notes or "num_samples = args.n (line" in notes


def test_a_trainer_asks_optunas_pruner_by_itself(tmp_path: Path) -> None:
    call = "trainer.hyperparameter_search(hp_space=space%s)"
    assert read(tmp_path, OPTUNA + call % "").pruner == "median"
    assert read(tmp_path, OPTUNA + call % ", pruner=optuna.pruners.NopPruner()").pruner is None
