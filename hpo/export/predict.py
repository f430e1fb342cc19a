"""Predictions of an exported model for files of rows, images and arrays, with torch or with onnxruntime alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hpo.errors import RequestError
from hpo.export.answers import answer
from hpo.export.format import CARD, CONFIG, ONNX, WEIGHTS, Array, Preprocessing, read_preprocessing
from hpo.export.sample_files import read_samples

__all__ = ["predict"]

BATCH = 1024  # samples
Model = Callable[[Array], Array]  # samples to outputs; those of a regression are in the units of the targets


def predict(
    folder: Path, files: Sequence[Path], *, onnx: bool = False, invert: bool = False
) -> tuple[list[dict[str, Any]], list[str]]:
    """Predict every sample of some files with an exported model.

    Args:
        folder: folder that `hpo export --weights` wrote.
        files: tables of new rows, whose labels may be left out; PNG or JPEG images; or `.npy` arrays of one sample or
            many, unscaled, as the training data were.
        onnx: compute with onnxruntime, without torch.
        invert: turn dark images on a light background into light ones on a dark background; bytes only.

    Returns:
        A row per sample: `file` (with `[i]` if an array holds several), of a table `row`, from 1, and what
        `hpo.export.answers.answer` says; and remarks, a line each.

    Raises:
        RequestError: the folder or a file is wrong; the line names it and says why. Nothing is predicted.
    """
    inputs = read_preprocessing(folder)
    if inputs.reconstructs:
        raise RequestError(
            f"{folder}: its model reconstructs samples and predicts no class; {CARD} shows how to use it"
        )
    # The model first: what its folder declares of samples is checked against the weights that are there.
    model = _load_onnx(folder, inputs) if onnx else _load_torch(folder, inputs)
    contents = [read_samples(path, inputs, invert=invert) for path in files]
    rows = [
        {**samples.place(number), **row}
        for samples in contents
        for number, row in enumerate(answer(_compute(model, samples.x, inputs, folder), inputs))
    ]
    return rows, [note for samples in contents for note in samples.notes]


def _compute(model: Model, samples: Array, inputs: Preprocessing, folder: Path) -> Array:
    """Return the outputs (N, outputs) of samples, a batch at a time."""
    batches = [model(samples[i : i + BATCH]) for i in range(0, len(samples), BATCH)]
    outputs = np.concatenate(batches) if batches else np.empty((0, inputs.classes), np.float32)
    if outputs.shape[1] != inputs.classes and (inputs.task, outputs.shape[1]) != ("regression", 2 * inputs.classes):
        raise RequestError(
            f"{folder}: its model gives {outputs.shape[1]} outputs, not {inputs.classes}; export it again"
        )
    return outputs


def _load_onnx(folder: Path, inputs: Preprocessing) -> Model:
    """Return the model of the ONNX file, in which the encoding of a table and the units of targets are part."""
    try:
        import onnxruntime
    except ImportError as error:
        raise RequestError("--onnx needs onnxruntime: pip install 'torch-hpo[onnx]'") from error
    path = folder / ONNX
    if not path.exists():
        raise RequestError(f"{path}: is missing; export the model again, with the extra: pip install 'torch-hpo[onnx]'")
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        model_input = session.get_inputs()[0]
    except Exception as error:  # onnxruntime's errors have no common base
        raise RequestError(f"{path}: cannot be read: {' '.join(str(error).split())[:200]}") from error
    if tuple(model_input.shape[1:]) != inputs.sample_shape:
        raise RequestError(
            f"{path}: takes samples of shape {tuple(model_input.shape[1:])}, not {inputs.sample_shape}; export it again"
        )

    def compute(samples: Array) -> Array:
        x = samples.astype(np.float32) if inputs.encoder is not None else inputs.apply(samples)
        return np.asarray(session.run(None, {model_input.name: x})[0])

    return compute


def _load_torch(folder: Path, inputs: Preprocessing) -> Model:
    import torch

    from hpo.study.input.config_file import read_parameters
    from hpo.training.models import restore_model

    config = read_parameters(folder / CONFIG)
    model = restore_model(config, inputs.input_shape, inputs.classes, folder / WEIGHTS)
    model.eval()

    def compute(samples: Array) -> Array:
        with torch.inference_mode():
            outputs = np.asarray(model(torch.from_numpy(inputs.apply(samples))).float().numpy())
        return inputs.to_targets(outputs) if inputs.task == "regression" else outputs

    return compute
