"""Inspection of a study's best model: its loss landscape and the responses of its units, kept as artifacts."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from optuna.trial import FrozenTrial
from torch import Tensor, nn

from hpo.config.trial_config import TrialConfig
from hpo.datasets import load
from hpo.errors import OutOfMemoryError, RequestError
from hpo.execution.restore import choose_trial, locate_weights, restore
from hpo.study import Study
from hpo.study.files.artifacts import save_artifact
from hpo.training.data import Data
from hpo.training.inspection.feature_visualization import Filters, Responses, measure_responses
from hpo.training.inspection.loss_landscape import Landscape, compute_landscape
from hpo.training.losses import loss_function
from hpo.training.memory import is_out_of_memory

__all__ = ["check_inspectable", "inspect_model"]

SAMPLES = 2000
CONVOLUTION_SAMPLES = 500  # a sample takes several times as long in a convolution


@dataclass(frozen=True)
class Subset:
    """Samples x (n, *shape) and labels y (n,) that a model is inspected with, and the name of their split."""

    x: Tensor
    y: Tensor
    split: str


def check_inspectable(study: Study) -> None:
    """Refuse a study whose best model cannot be inspected, before anything is trained for it.

    Raises:
        RequestError: no trial is complete, its weights are not here, or the best model predicts no classes, or takes
            categories.
        DataError, RegistryError: the study's data set, or its model, is not here.
    """
    trial = choose_trial(study)
    config = study.config_of(trial)
    if config.reconstructs:
        raise RequestError(f"--inside: model '{config.model}' has no classes to look for; leave --inside out")
    if config.integers:
        raise RequestError(f"--inside: model '{config.model}' takes codes, to which no gradient leads; leave it out")
    if config.task != "classification":
        raise RequestError(f"--inside: a {config.task} has no classes to look for; leave --inside out")
    locate_weights(study, trial)
    data = study.definition.dataset
    if any(feature.kind == "category" for feature in load(data).features):
        raise RequestError(
            f"--inside: samples of {data.name} have categories, which no gradient leads to; leave --inside out"
        )


def inspect_model(study: Study, device: str = "auto") -> None:
    """Compute what the report's chapter on the best model shows, and keep it as artifacts of the study.

    `landscape.npy` holds the losses around the model, (n, n) of float32; `inside.npz` holds the rest, with a
    description `about` in JSON (see `hpo.report.chapters.model_inspection`). They replace earlier ones. Training and
    validation samples are read; the test set is not.

    Args:
        study: a study with a COMPLETE trial whose weights are in this `HPO_HOME`.
        device: see `hpo.training.loop.select_device`.

    Raises:
        RequestError: no trial is complete, its weights are missing or another model's, or it predicts no classes, or
            takes categories.
        DataError, RegistryError: the study's data set, or its model, is not here.
        OutOfMemoryError: the device has too little memory.
    """
    check_inspectable(study)
    restored = restore(study, device=device)
    trial, config, data, model = restored.trial, restored.config, restored.data, restored.model
    subset = _subset(data, CONVOLUTION_SAMPLES if _convolves(model) else SAMPLES)
    try:
        landscape = compute_landscape(model, loss_function(config, smoothing=False), subset.x, subset.y, config.seed)
        responses = measure_responses(model, subset.x)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(f"out of memory on {data.device} for the model of trial {trial.number}") from error
    about = _describe(study, trial, config, subset, responses)
    save_artifact(study, "landscape.npy", _npy(landscape.losses))
    save_artifact(study, "inside.npz", _npz(landscape, responses, about))


def _convolves(model: nn.Module) -> bool:
    return any(isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) for module in model.modules())


def _subset(data: Data, size: int) -> Subset:
    """Return evenly spaced validation samples, or training samples if there is no validation split."""
    has_validation = len(data.y_val) > 0
    x, y = (data.x_val, data.y_val) if has_validation else (data.x_train, data.y_train)
    indices = torch.linspace(0, len(y) - 1, min(size, len(y)), dtype=torch.float64, device=y.device).round().long()
    return Subset(x[indices], y[indices], "validation" if has_validation else "training")


def _describe(
    study: Study, trial: FrozenTrial, config: TrialConfig, subset: Subset, responses: Responses
) -> dict[str, Any]:
    filters = responses.filters
    return {
        "trial": trial.number,
        "metric": study.definition.objectives[0].metric,
        "value": trial.values[0],
        "model": config.model,
        "loss": config.loss,
        "samples": len(subset.y),
        "split": subset.split,
        "shape": list(subset.x.shape[1:]),
        "norm": responses.norm,
        "filters": filters and _filters(filters),
        "layers": [
            {
                "name": layer.name,
                "number": layer.number,
                "kind": layer.kind,
                "of": layer.of,
                "units": layer.units.tolist(),
                "responses": layer.responses.tolist(),
                "to_samples": layer.to_samples.tolist(),
                "silent": layer.silent,
            }
            for layer in responses.layers
        ],
        "notes": list(responses.notes),
    }


def _filters(filters: Filters) -> dict[str, Any]:
    return {"name": filters.name, "of": filters.of, "units": filters.units.tolist(), "only": filters.only}


def _npy(array: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _npz(landscape: Landscape, responses: Responses, about: dict[str, Any]) -> bytes:
    """Return an .npz file of steps, losses and accuracies, and in float16 the filters and the inputs of each layer."""
    arrays = {"steps": landscape.steps, "losses": landscape.losses, "accuracies": landscape.accuracies}
    if responses.filters is not None:
        arrays["filters"] = responses.filters.weights.astype(np.float16)
    arrays |= {f"inputs_{i}": layer.inputs.astype(np.float16) for i, layer in enumerate(responses.layers)}
    arrays["about"] = np.array(json.dumps(about))
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **arrays)
    return file.getvalue()
