"""Predictions of an exported model for files of images and arrays, by torch or by onnxruntime alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hpo.errors import RequestError
from hpo.export.format import CARD, CONFIG, ONNX, WEIGHTS, Array, Preprocessing, read_preprocessing

__all__ = ["predict"]

PART = 1024  # samples at once
LIGHT, DARK = 160.0, 85.0  # mean bytes of a picture on light ground, and of training data on dark ground
Model = Callable[[Array], Array]  # scaled samples to logits


def predict(
    folder: Path, files: Sequence[Path], *, onnx: bool = False, invert: bool = False
) -> tuple[list[dict[str, Any]], list[str]]:
    """What an exported model says of every sample of some files.

    Args:
        folder: what `hpo export --weights` wrote.
        files: PNG or JPEG images, or `.npy` arrays of one sample or many; unscaled, as the training data were.
        onnx: compute with onnxruntime, without torch.
        invert: turn dark pictures on light ground into light ones on dark ground; bytes only.

    Returns:
        A row per sample: `file` (with `[i]` where it holds many), `class` and `probability`, and of the runner-up
        `second` and `second_probability`; and remarks, a line each.

    Raises:
        RequestError: the folder or a file is wrong, with the file's name and why; nothing is predicted.
    """
    takes = read_preprocessing(folder)
    if takes.reconstructs:
        raise RequestError(f"{folder}: its model reconstructs samples, and predicts no class; {CARD} shows its use")
    read = [_read(path, takes, invert) for path in files]
    model = _onnx(folder, takes) if onnx else _torch(folder, takes)
    rows = [row for path, (samples, _) in zip(files, read, strict=True) for row in _rows(path, samples, takes, model)]
    return rows, [note for _, notes in read for note in notes]


def _rows(path: Path, samples: Array, takes: Preprocessing, model: Model) -> list[dict[str, Any]]:
    parts = (model(takes.apply(samples[i : i + PART])) for i in range(0, len(samples), PART))
    probabilities = _softmax(np.concatenate(list(parts))) if len(samples) else np.empty((0, takes.classes))
    rows = []
    for i, sample in enumerate(probabilities):
        first, *others = (int(k) for k in np.argsort(-sample, kind="stable")[:2])
        row = {
            "file": f"{path}[{i}]" if len(samples) > 1 else str(path),
            "class": first,
            "probability": round(float(sample[first]), 6),
        }
        if others:
            row |= {"second": others[0], "second_probability": round(float(sample[others[0]]), 6)}
        rows.append(row)
    return rows


def _softmax(logits: Array) -> Array:
    powers = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    found: Array = powers / powers.sum(1, keepdims=True)
    return found


# Files.


def _read(path: Path, takes: Preprocessing, invert: bool) -> tuple[Array, list[str]]:
    """The samples of a file, (N, *shape), and what is to be said of them."""
    try:
        if path.suffix.lower() == ".npy":
            samples, notes = _inverted(takes.samples(np.load(path, allow_pickle=False)), invert), list[str]()
        else:
            samples, notes = _image(path, takes, invert)
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, EOFError) as error:
        raise RequestError(f"{path}: {error}") from error
    return samples, notes


def _inverted(samples: Array, invert: bool) -> Array:
    if invert and samples.dtype != np.uint8:
        raise ValueError(f"holds {samples.dtype}; --invert is for bytes")
    return 255 - samples if invert else samples


def _image(path: Path, takes: Preprocessing, invert: bool) -> tuple[Array, list[str]]:
    """An image as one sample of bytes, in the colours and the size that the model takes."""
    from PIL import Image, ImageOps

    if len(takes.shape) != 3 or takes.shape[0] not in (1, 3) or takes.values != "uint8":
        raise ValueError(f"the model takes {takes.values} samples of shape {takes.shape}, which no image is; give .npy")
    channels, height, width = takes.shape
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            image = _opaque(image).convert("L" if channels == 1 else "RGB")
    except (Image.DecompressionBombError, SyntaxError) as error:
        raise ValueError(f"is no usable image: {error}") from error
    notes = []
    if image.size != (width, height):
        notes.append(f"{path}: resized from {image.width} x {image.height} to {width} x {height} pixels")
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    array = _inverted(np.asarray(image), invert)
    if not invert and array.mean() > LIGHT and np.mean(takes.shift) < DARK:
        notes.append(f"{path}: is on light ground, the training data mostly on dark; --invert turns it")
    return takes.samples(array), notes


def _opaque(image: Any) -> Any:
    """What is transparent becomes black, as the ground of most data sets is."""
    from PIL import Image

    if "A" not in image.getbands() and "transparency" not in image.info:
        return image
    coloured = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", coloured.size, (0, 0, 0, 255)), coloured)


# Models.


def _onnx(folder: Path, takes: Preprocessing) -> Model:
    try:
        import onnxruntime
    except ImportError as error:
        raise RequestError("--onnx needs onnxruntime: pip install 'torch-hpo[onnx]'") from error
    path = folder / ONNX
    if not path.exists():
        raise RequestError(f"{path}: is missing; export the model again, with the extra: pip install 'torch-hpo[onnx]'")
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        given = session.get_inputs()[0]
    except Exception as error:  # onnxruntime's have no base of their own
        raise RequestError(f"{path}: cannot be read: {' '.join(str(error).split())[:200]}") from error
    if tuple(given.shape[1:]) != takes.shape:
        raise RequestError(
            f"{path}: takes samples of shape {tuple(given.shape[1:])}, not {takes.shape}; export it again"
        )
    return lambda x: np.asarray(session.run(None, {given.name: x})[0])


def _torch(folder: Path, takes: Preprocessing) -> Model:
    import torch

    from hpo.study.input.config_file import read_parameters
    from hpo.training.models import build_model, load_weights

    config = read_parameters(folder / CONFIG)
    model = build_model(config, takes.shape, takes.classes)
    load_weights(model, folder / WEIGHTS, config.model)
    model.eval()

    def said(x: Array) -> Array:
        with torch.inference_mode():
            return np.asarray(model(torch.from_numpy(x)).float().numpy())

    return said
