"""Format of an exported model's folder: its files, and the preprocessing that makes samples inputs of the model.

Neither torch nor the study is needed to read it. `preprocessing.json` is the JSON of `Preprocessing`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, PositiveInt, ValidationError, model_validator

from hpo.datasets.dataset import MAX_CLASSES
from hpo.errors import RequestError
from hpo.execution.worker_options import explain
from hpo.utils.documents import read_document
from hpo.utils.text import shorten

__all__ = ["CARD", "CONFIG", "ONNX", "PREPROCESSING", "WEIGHTS", "Preprocessing", "read_preprocessing"]

WEIGHTS, CONFIG, PREPROCESSING, ONNX, CARD = (
    "weights.safetensors", "config.toml", "preprocessing.json", "model.onnx", "README.md"
)  # fmt: skip
Array = np.ndarray[Any, Any]
PREPROCESSING_LIMIT = 50_000_000  # bytes: it has two numbers per feature
LARGEST_SAMPLE = 10_000_000  # numbers


class Preprocessing(BaseModel):
    """Preprocessing of samples into inputs: (x - shift) / scale in float32, with a pair per channel or feature.

    Attributes:
        format: version of this file's format.
        shape: shape of one input, channels first: (channels, H, W) or (features,).
        classes: number of classes of the data; output i is for class i, unless the model reconstructs its input.
        reconstructs: true if the model reconstructs its input; output i is then for number i of a sample.
        values: type of the training samples: `uint8`, from 0 to 255, or `float`.
        shift, scale: one number per channel or feature.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    shape: tuple[Annotated[PositiveInt, Field(le=LARGEST_SAMPLE)], ...] = Field(min_length=1, max_length=8)
    classes: Annotated[PositiveInt, Field(le=MAX_CLASSES)]
    reconstructs: bool = False
    values: Literal["uint8", "float"]
    shift: tuple[FiniteFloat, ...]
    scale: tuple[Annotated[FiniteFloat, Field(gt=0)], ...]

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        if math.prod(self.shape) > LARGEST_SAMPLE:
            raise ValueError(f"a sample of shape {self.shape} has more than {LARGEST_SAMPLE:,} numbers")
        if not len(self.shift) == len(self.scale) == self.shape[0]:
            raise ValueError(f"shift and scale must have {self.shape[0]} numbers each, one per channel or feature")
        return self

    def apply(self, samples: Array) -> Array:
        """Return samples (N, *shape) as inputs of the model, float32, bit for bit as in training."""
        per_channel = (1, -1, *(1,) * (len(self.shape) - 1))
        shift, scale = (np.array(pair, np.float32).reshape(per_channel) for pair in (self.shift, self.scale))
        return (np.subtract(samples, shift, dtype=np.float32) / scale).astype(np.float32)

    def samples(self, array: Array) -> Array:
        """Return an array as samples (N, *shape): one or many; images are (H, W), (H, W, C) or channels first.

        Raises:
            ValueError: it has another shape, or values that are no finite numbers.
        """
        if array.dtype.kind not in "uif":
            raise ValueError(f"holds {array.dtype}, not numbers")
        for layout, axes in self._layouts():
            if array.shape == layout or array.shape[1:] == layout:
                many = array if array.ndim == len(layout) + 1 else array[None]
                with np.errstate(over="ignore"):
                    if not np.isfinite(many.astype(np.float32)).all():
                        raise ValueError("holds numbers that are not finite, or too large for float32")
                self._check_values(many)
                return many.transpose(axes).reshape(len(many), *self.shape) if axes else many.reshape(-1, *self.shape)
        layouts = " or ".join(str(layout) for layout, _ in self._layouts())
        raise ValueError(f"has shape {array.shape}; a sample has {layouts}, and several have their number before it")

    def _check_values(self, array: Array) -> None:
        """Refuse samples that are scaled already: scaled once more, they would get nonsense as an answer."""
        if self.values != "uint8" or not array.size:
            return
        low, high = float(array.min()), float(array.max())
        if low < 0 or high > 255:
            raise ValueError(f"holds numbers from {low:g} to {high:g}; the model takes bytes, 0 to 255")
        if array.dtype.kind == "f" and 0 < high <= 1:
            raise ValueError(f"holds fractions up to {high:g}; the model takes bytes, 0 to 255: multiply by 255")

    def _layouts(self) -> Sequence[tuple[tuple[int, ...], tuple[int, ...] | None]]:
        """Return the shapes that a sample may have, each with the order of axes that makes it channels first."""
        if len(self.shape) != 3:
            return [(self.shape, None)]
        channels, height, width = self.shape
        grey = [((height, width), None)] if channels == 1 else []
        return [*grey, ((height, width, channels), (0, 3, 1, 2)), (self.shape, None)]


def read_preprocessing(folder: Path) -> Preprocessing:
    """Read the preprocessing of an exported model.

    Raises:
        RequestError: the folder is no exported model, or the file is wrong.
    """
    path = folder / PREPROCESSING
    if not path.is_file():
        raise RequestError(
            f"{folder}: is no exported model: {PREPROCESSING} cannot be read; hpo export --weights writes one"
        )
    table = read_document(path, limit=PREPROCESSING_LIMIT)
    try:
        return Preprocessing.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        where = shorten(".".join(map(str, first["loc"])), quote=False) or "the file"
        problem = shorten(explain(error), 300, quote=False)
        raise RequestError(f"{path}: {where}: {problem}; export the model again") from error
