"""Predictions of an exported model for files of images and arrays, with torch or with onnxruntime alone."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hpo.errors import RequestError
from hpo.export.format import CARD, CONFIG, ONNX, WEIGHTS, Array, Preprocessing, read_preprocessing
from hpo.utils.arrays import read_npy
from hpo.utils.text import first_line, shorten

__all__ = ["predict"]

BATCH = 1024  # samples
LIGHT, DARK = 160.0, 85.0  # mean bytes of an image on a light background, and of training data on a dark one
IMAGE_FORMATS = ("PNG", "JPEG")
PIXELS_LIMIT = 25_000_000  # of an image, each of which takes up to 16 bytes here
Model = Callable[[Array], Array]  # scaled samples to logits


def predict(
    folder: Path, files: Sequence[Path], *, onnx: bool = False, invert: bool = False
) -> tuple[list[dict[str, Any]], list[str]]:
    """Predict the class of every sample of some files with an exported model.

    Args:
        folder: folder that `hpo export --weights` wrote.
        files: PNG or JPEG images, or `.npy` arrays of one sample or many; unscaled, as the training data were.
        onnx: compute with onnxruntime, without torch.
        invert: turn dark images on a light background into light ones on a dark background; bytes only.

    Returns:
        A row per sample: `file` (with `[i]` if it holds several), `class` and `probability`, and of the runner-up
        `second` and `second_probability`; and remarks, a line each.

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
    contents = [_read(path, inputs, invert) for path in files]
    rows = [
        row for path, (samples, _) in zip(files, contents, strict=True) for row in _rows(path, samples, inputs, model)
    ]
    return rows, [note for _, notes in contents for note in notes]


def _rows(path: Path, samples: Array, inputs: Preprocessing, model: Model) -> list[dict[str, Any]]:
    batches = (model(inputs.apply(samples[i : i + BATCH])) for i in range(0, len(samples), BATCH))
    probabilities = _softmax(np.concatenate(list(batches))) if len(samples) else np.empty((0, inputs.classes))
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
    probabilities: Array = powers / powers.sum(1, keepdims=True)
    return probabilities


# Files.


def _read(path: Path, inputs: Preprocessing, invert: bool) -> tuple[Array, list[str]]:
    """Read the samples of a file, (N, *shape), with remarks on them."""
    try:
        if path.suffix.lower() == ".npy":
            samples, notes = _invert(inputs.samples(read_npy(path)), invert), list[str]()
        else:
            samples, notes = _image(path, inputs, invert)
    except ValueError as error:
        raise RequestError(f"{path}: {error}") from error
    return samples, notes


def _invert(samples: Array, invert: bool) -> Array:
    if invert and samples.dtype != np.uint8:
        raise ValueError(f"holds {samples.dtype}; --invert is for bytes")
    return 255 - samples if invert else samples


def _image(path: Path, inputs: Preprocessing, invert: bool) -> tuple[Array, list[str]]:
    """Read an image as one sample of bytes, in the colours and the size that the model takes."""
    from PIL import Image

    if len(inputs.shape) != 3 or inputs.shape[0] not in (1, 3) or inputs.values != "uint8":
        raise ValueError(
            f"the model takes {inputs.values} samples of shape {inputs.shape}, which no image is; give .npy"
        )
    channels, height, width = inputs.shape
    image = _open_image(path).convert("L" if channels == 1 else "RGB")
    notes = []
    if image.size != (width, height):
        notes.append(f"{path}: resized from {image.width} x {image.height} to {width} x {height} pixels")
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    array = _invert(np.asarray(image), invert)
    if not invert and array.mean() > LIGHT and np.mean(inputs.shift) < DARK:
        notes.append(f"{path}: has a light background, the training data mostly a dark one; --invert inverts it")
    return inputs.samples(array), notes


def _open_image(path: Path) -> Any:
    """Read an image of a documented format and of a usual size, upright and without transparency.

    Pillow would also open what other programs of the machine draw, and images that unpack to any size.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it warns of is checked here, or of no consequence
            with Image.open(path, formats=IMAGE_FORMATS) as file:
                _check_pixels(file.width, file.height)
                return _remove_alpha(ImageOps.exif_transpose(file))
    except UnidentifiedImageError:
        raise ValueError(f"is no {' or '.join(IMAGE_FORMATS)} image, whatever its name says; convert it") from None
    except ValueError:
        raise
    except Exception as error:  # a damaged file can make Pillow raise anything
        reason = getattr(error, "strerror", None) or first_line(error)
        raise ValueError(f"cannot be read: {shorten(reason, 200, quote=False)}") from error


def _check_pixels(width: int, height: int) -> None:
    if width * height > PIXELS_LIMIT:
        raise ValueError(f"has {width} x {height} pixels; at most {PIXELS_LIMIT:,} are read, make it smaller")


def _remove_alpha(image: Any) -> Any:
    """Make transparent pixels black, as the background of most data sets is."""
    from PIL import Image

    if "A" not in image.getbands() and "transparency" not in image.info:
        return image
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)


# Models.


def _load_onnx(folder: Path, inputs: Preprocessing) -> Model:
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
    if tuple(model_input.shape[1:]) != inputs.shape:
        raise RequestError(
            f"{path}: takes samples of shape {tuple(model_input.shape[1:])}, not {inputs.shape}; export it again"
        )
    return lambda x: np.asarray(session.run(None, {model_input.name: x})[0])


def _load_torch(folder: Path, inputs: Preprocessing) -> Model:
    import torch

    from hpo.study.input.config_file import read_parameters
    from hpo.training.models import restore_model

    config = read_parameters(folder / CONFIG)
    model = restore_model(config, inputs.shape, inputs.classes, folder / WEIGHTS)
    model.eval()

    def compute(x: Array) -> Array:
        with torch.inference_mode():
            return np.asarray(model(torch.from_numpy(x)).float().numpy())

    return compute
