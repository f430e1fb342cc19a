"""Studies with results, made without training."""

from __future__ import annotations

import atexit
import copy
import functools
import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from hpo.datasets import make_reference
from hpo.study import Study, StudyStorage
from hpo.study.files.artifacts import save_artifact
from hpo.study.operations.evaluation_study import create_evaluations, record_test_set_read
from tests.study.helpers import holder, make_study, sqlite_url

SPACE: Mapping[str, Any] = {
    "epochs": 4,
    "optimizer": ["adam", "momentum"],
    "learning_rate": [
        {"low": 1e-4, "high": 1e-1, "log": True, "when": {"optimizer": "adam"}},
        {"low": 1e-2, "high": 1.0, "log": True, "when": {"optimizer": "momentum"}},
    ],
    "momentum": {"low": 0.0, "high": 0.9},
    "depth": {"low": 1, "high": 3},
    "dropout": {"low": 0.0, "high": 0.3, "step": 0.1},
    "batch_norm": [True, False],
}
BASELINE = {"optimizer": "adam", "learning_rate": 0.001, "depth": 2}


TEMPLATES: dict[str, Path] = {}  # databases of studies that have been filled already, by what they hold


def filled(folder: Path, name: str = "filled", *, states: Sequence[str] = ("COMPLETE",), **keys: Any) -> Study:
    """A study whose trials are told in the given states, over and over; RUNNING ones are left as they are.

    The first study of a folder is a copy where an earlier test has filled the same one. One that runs is never copied:
    its leases are of this minute.
    """
    database = folder / "studies.db"
    if database.exists() or "RUNNING" in states:
        return _fill(folder, name, states, keys)
    key = repr((name, tuple(states), sorted(keys.items())))
    if key not in TEMPLATES:
        TEMPLATES[key] = Path(tempfile.mkdtemp(dir=_templates()))
        _fill(TEMPLATES[key], name, states, keys).storage.engine.dispose()
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(TEMPLATES[key] / "studies.db", database)
    return Study(StudyStorage(sqlite_url(folder)), name)


@functools.cache
def _templates() -> str:
    folder = tempfile.mkdtemp(prefix="hpo-filled-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _fill(folder: Path, name: str, states: Sequence[str], keys: Mapping[str, Any]) -> Study:
    study = make_study(folder, name, **{"parameters": SPACE, "pruner": "median", **keys})
    tell_all(study, states)
    return study


def tell_all(study: Study, states: Sequence[str] = ("COMPLETE",)) -> None:
    for turn in range(study.budget.trials):
        claim = study.claim(holder(f"host-{turn % 3}"))
        if claim is None:
            return
        tell(study, claim, states[turn % len(states)])


def tell(study: Study, claim: Any, state: str) -> None:
    config = study.suggest_config(claim)
    storage = study.storage
    # Best at a learning rate of 0.01, as a real study might be.
    peak = 0.98 - 0.02 * abs(math.log10(config.learning_rate) + 2) - 0.01 * config.dropout
    epochs = config.epochs if state in ("COMPLETE", "diverged") else 2
    for epoch in range(1, epochs + 1):
        accuracy = peak - 0.1 / epoch**2
        metrics = {
            "epoch": epoch,
            "train_loss": math.nan if state == "diverged" else 1 / epoch,
            "train_accuracy": accuracy + 0.01 * epoch,
            "val_loss": 1.1 / epoch,
            "val_accuracy": accuracy,
            "learning_rate": config.learning_rate,
            "seconds": 0.5 * epoch,
        }
        storage.record_epoch(claim.id, epoch, metrics)
    attrs: dict[str, Any] = {"parameter_count": 1000 * (1 + config.depth), "train_seconds": 0.5 * epochs}
    if state == "FAIL":
        attrs |= {"failure": "error", "message": "ValueError: </script><script>alert(1)</script> | `x`"}
    elif state == "diverged":
        attrs |= {"failure": "diverged", "message": "a loss was not finite"}
    else:
        attrs["best_epoch"] = epochs
    for key, value in attrs.items():
        storage.set_trial_user_attr(claim.id, key, value)
    if state == "RUNNING":
        return
    known = {**attrs, "val_accuracy": accuracy, "val_loss": 1.1 / epochs}
    values = None if state in ("FAIL", "diverged") else [known[o.metric] for o in study.definition.objectives]
    storage.set_trial_state_values(claim.id, TrialState["PRUNED" if state == "diverged" else state], values)


def evaluated(
    study: Study,
    numbers: Sequence[int],
    scores: Mapping[str, float],
    *,
    seeds: int = 3,
    leave: int = 0,
    dataset: str | None = None,
    refit: bool = False,
    noise: float = 0.002,
    predictions: bytes | None = None,
) -> list[Study]:
    """Evaluations of these trials, told without training: each label's test accuracy plus noise of the seed.

    Args:
        leave: runs that are left unfinished.
        predictions: the file that each run leaves.
    """
    trials = [study.trials()[number] for number in numbers]
    chosen = [(trial.number, study.config_of(trial), trial.user_attrs.get("best_epoch")) for trial in trials]
    data = make_reference(dataset, Path.cwd()) if dataset else None
    companions = create_evaluations(study, chosen, seeds, data, refit=refit)
    for companion in companions:
        for _ in range(companion.budget.trials - leave):
            claim = companion.claim(holder("evaluator"))
            assert claim is not None
            if predictions is not None:
                save_artifact(companion, "predictions.npz", predictions, trial_id=claim.id)
            tell_run(companion, claim, scores, noise)
    return companions


def tell_run(companion: Study, claim: Any, scores: Mapping[str, float], noise: float) -> None:
    companion.suggest_config(claim)  # which stores the parameters
    params = companion.storage.get_trial(claim.id).params
    label, seed = str(params["configuration"]), int(params["seed"])
    spread = noise * math.sin(7 * seed * sum(map(ord, label)))
    test = scores[label] + spread
    refit = companion.definition.objectives[0].metric.startswith("test_")
    if not refit:
        companion.storage.record_epoch(claim.id, 1, {"epoch": 1, "val_accuracy": test + 0.002, "val_loss": 0.1})
    record_test_set_read(companion, claim.number, label)
    for key, value in {"best_epoch": 1, "test_accuracy": test, "test_loss": 0.1, "train_seconds": 1.0}.items():
        companion.storage.set_trial_user_attr(claim.id, key, value)
    value = test if refit else test + 0.002
    companion.storage.set_trial_state_values(claim.id, TrialState.COMPLETE, [value])


def add_foreign(study: Study, params: Mapping[str, Any], value: float) -> None:
    """A trial as somebody else adds it, with parameters that the space does not know, or beyond its domains."""
    known = {dimension.key: dimension.domain.distribution() for dimension in study.space.varied}
    distributions = {key: _around(known.get(key), given) for key, given in params.items()}
    study.optuna_study.add_trial(
        optuna.trial.create_trial(params=dict(params), distributions=distributions, values=[value])
    )


def _around(distribution: Any, value: Any) -> Any:
    """A distribution of the same kind that holds the value: Optuna refuses another kind under the same name."""
    if distribution is None:
        return optuna.distributions.CategoricalDistribution([value])
    wide = copy.copy(distribution)
    if not isinstance(wide, optuna.distributions.CategoricalDistribution):
        wide.low, wide.high = min(wide.low, value), max(wide.high, value)
    return wide
