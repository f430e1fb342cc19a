"""Exporting a trained model: a folder that is used without the study. Joins study, training and report."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch

from hpo.errors import RunError
from hpo.execution.restore import RestoredTrial, restore
from hpo.export.format import CARD, CONFIG, ONNX, PREPROCESSING, WEIGHTS, Preprocessing
from hpo.export.model_card import ExportedModel, model_card
from hpo.export.onnx import has_onnx, plain_torch, write_onnx
from hpo.report.data.evaluations import read_evaluations
from hpo.report.data.results import read_results
from hpo.report.export_config import export_config
from hpo.storage.study_storage import ENVIRONMENT
from hpo.study import Study
from hpo.training.data import Data
from hpo.utils.files import atomic_folder, check_new_folder

__all__ = ["export_model", "preprocessing_of"]

COMPARED = 256  # samples


def export_model(study: Study, folder: Path, number: int | None = None) -> list[str]:
    """Write the model of the best trial, or of trial `number`, to a new folder: all of it, or nothing.

    The folder holds `weights.safetensors`, `config.toml`, `preprocessing.json`, `model.onnx` and a model card,
    `README.md`; the ONNX file only where that can be written. See `hpo.export.format`.

    Returns:
        What there is to say of it, a line each.

    Raises:
        RequestError: the folder is not empty or cannot be made; no such trial, or its weights are not here.
        DataError, RegistryError: what the study is trained on is not here.
    """
    check_new_folder(folder)
    found = restore(study, number, device="cpu")
    with atomic_folder(folder) as made:
        return _write(study, found, made)


def _write(study: Study, found: RestoredTrial, folder: Path) -> list[str]:
    results = read_results(study)
    row = results.trial(found.trial.number)
    assert row.config is not None
    preprocessing = preprocessing_of(found.data, reconstructs=row.config.reconstructs)
    shutil.copyfile(found.weights, folder / WEIGHTS)
    (folder / CONFIG).write_text(export_config(results, found.trial.number), encoding="utf-8")
    (folder / PREPROCESSING).write_text(preprocessing.model_dump_json(indent=2) + "\n", encoding="utf-8")
    onnx, note = _onnx(found, folder)
    exported = ExportedModel(
        preprocessing, found.trial.system_attrs.get(ENVIRONMENT, {}), plain_torch(found.model), onnx
    )
    (folder / CARD).write_text(model_card(results, row, read_evaluations(study), exported), encoding="utf-8")
    return [note]


def _onnx(found: RestoredTrial, folder: Path) -> tuple[tuple[int, float] | None, str]:
    """On how many samples it was compared, and the largest difference, or None without it; and what is to be said."""
    if not has_onnx():
        return None, f"{ONNX} is left out: it needs the extra, pip install 'torch-hpo[onnx]'"
    samples = _samples(found.data)
    try:
        difference = write_onnx(found.model, folder / ONNX, samples)
    except RunError as error:  # a model of one's own may do what ONNX cannot say
        (folder / ONNX).unlink(missing_ok=True)
        return None, f"{ONNX} is left out: {error}"
    told = f"{ONNX}: on {len(samples)} samples its outputs differ from torch's by at most {difference:.2g}"
    return (len(samples), difference), told


def _samples(data: Data) -> torch.Tensor:
    samples = (data.x_val if len(data.y_val) > 1 else data.x_train)[:COMPARED]
    if len(samples) < 2:  # a data set that streams, with hardly any validation samples
        samples = torch.zeros(2, *data.shape)
    return samples


def preprocessing_of(data: Data, *, reconstructs: bool = False) -> Preprocessing:
    """How the data's samples became inputs, for its split and seed."""
    channels = data.shape[0]
    shift, scale = np.zeros(channels), np.ones(channels)
    if data.scaling is not None:
        shift, scale = data.scaling.shift, data.scaling.scale
    elif data.raw_bytes:
        middle = 127.5 if data.input_scaling == "symmetric" else 0.0
        shift, scale = shift + middle, scale * (255.0 - middle)
    return Preprocessing(
        shape=data.shape,
        classes=data.classes,
        reconstructs=reconstructs,
        values="uint8" if data.raw_bytes else "float",
        shift=_numbers(shift),
        scale=_numbers(scale),
    )


def _numbers(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
