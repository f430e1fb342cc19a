"""Format of an exported model's folder: its files, how samples become inputs, and what the outputs mean.

Neither torch nor the study is needed to read it. `preprocessing.json` is the JSON of `Preprocessing`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, PositiveInt, ValidationError, model_validator

from hpo.config.choices import Task
from hpo.datasets.dataset import MAX_CLASSES
from hpo.datasets.features import SampleShape
from hpo.datasets.table_encoder import TableEncoder
from hpo.datasets.table_schema import TableSchema
from hpo.datasets.texts import TextEncoder
from hpo.errors import RequestError
from hpo.execution.worker_options import explain
from hpo.utils.documents import read_document
from hpo.utils.text import shorten

__all__ = ["CARD", "CONFIG", "ONNX", "PREPROCESSING", "WEIGHTS", "Preprocessing", "read_preprocessing"]

WEIGHTS, CONFIG, PREPROCESSING, ONNX, CARD = (
    "weights.safetensors", "config.toml", "preprocessing.json", "model.onnx", "README.md"
)  # fmt: skip
Array = np.ndarray[Any, Any]
PREPROCESSING_LIMIT = 50_000_000  # bytes: it has two numbers per feature, or 1,000 quantiles
LARGEST_SAMPLE = 10_000_000  # numbers
LARGEST_VOCABULARY = 100_000_000  # codes


class Preprocessing(BaseModel):
    """Preprocessing of samples into inputs of a model, and the meaning of its outputs.

    Inputs are (x - shift) / scale in float32, with a pair per channel or feature; of a table they are its encoding,
    and of integers the samples.

    Attributes:
        format: version of this file's format. The first had no tables and one task.
        task: what is predicted.
        shape: shape of one input, channels first: (channels, H, W) or (features,).
        classes: number of classes, labels or targets; output i is for the i-th, unless the model reconstructs its
            input. A model of `gaussian_nll` has as many further outputs, the logarithms of variances.
        output_names: values of the classes, or names of the labels or targets; empty where they have none.
        thresholds: of several labels, the probability from which each is predicted; 0.5 where it is empty.
        reconstructs: true if the model reconstructs its input; output i is then for number i of a sample.
        values: type of the training samples: `uint8`, from 0 to 255, `float`, or `integer`: whole numbers, which are
            inputs as they are, in int64.
        vocabulary: of integers, how many codes there are, from 0; None where none is known.
        shift, scale: one number per channel or feature; empty for a table and for integers.
        target_shift, target_scale: one number per target: outputs of a regression are targets in these units.
        encoder: encoder of a table's raw matrix.
        table: how rows of files become that matrix; None where only the matrix itself is known.
        texts: how texts in rows of files become samples; None of other samples.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1, 2] = 2
    task: Task = "classification"
    shape: tuple[Annotated[PositiveInt, Field(le=LARGEST_SAMPLE)], ...] = Field(min_length=1, max_length=8)
    classes: Annotated[PositiveInt, Field(le=MAX_CLASSES)]
    output_names: tuple[str, ...] = ()
    thresholds: tuple[Annotated[FiniteFloat, Field(ge=0, le=1)], ...] = ()
    reconstructs: bool = False
    values: Literal["uint8", "float", "integer"]
    vocabulary: Annotated[PositiveInt, Field(le=LARGEST_VOCABULARY)] | None = None
    shift: tuple[FiniteFloat, ...] = ()
    scale: tuple[Annotated[FiniteFloat, Field(gt=0)], ...] = ()
    target_shift: tuple[FiniteFloat, ...] = ()
    target_scale: tuple[Annotated[FiniteFloat, Field(gt=0)], ...] = ()
    encoder: TableEncoder | None = None
    table: TableSchema | None = None
    texts: TextEncoder | None = None

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        if math.prod(self.shape) > LARGEST_SAMPLE:
            raise ValueError(f"a sample of shape {self.shape} has more than {LARGEST_SAMPLE:,} numbers")
        pairs = self.shape[0] if self.encoder is None and self.values != "integer" else 0
        if not len(self.shift) == len(self.scale) == pairs:
            raise ValueError(f"shift and scale must have {pairs} numbers each, one per channel or feature")
        if not len(self.target_shift) == len(self.target_scale) == (self.classes if self.task == "regression" else 0):
            raise ValueError("target_shift and target_scale must have one number per target of a regression")
        if len(self.output_names) not in (0, self.classes) or len(self.thresholds) not in (0, self.classes):
            raise ValueError(f"output_names and thresholds must have one for each of the {self.classes} outputs")
        if self.encoder is not None and self.shape != self.encoder.shape:
            raise ValueError(f"shape is {self.shape}, but the encoder gives {tuple(self.encoder.shape)}")
        if self.texts is not None and (self.shape, self.vocabulary) != ((self.texts.length,), self.texts.vocabulary):
            raise ValueError("shape and vocabulary must be those of the texts")
        if self.table is not None and (self.encoder is None or not _fit(self.table, self.encoder)):
            raise ValueError("the features of the table must be the columns of the encoder")
        return self

    @cached_property
    def input_shape(self) -> SampleShape:
        """The shape of one input, as the model was built for it."""
        categories = () if self.encoder is None else self.encoder.shape.categories
        return SampleShape(self.shape, categories, self.vocabulary)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one sample: of a table, a row of its raw matrix."""
        return self.shape if self.encoder is None else (len(self.encoder.columns),)

    @property
    def names(self) -> Sequence[str]:
        """The names of the outputs, by default their numbers."""
        return self.output_names or tuple(map(str, range(self.classes)))

    def apply(self, samples: Array) -> Array:
        """Return samples (N, *sample_shape) as inputs of the model (N, *shape), bit for bit as in training.

        They are float32, or int64 where the model takes whole numbers.
        """
        if self.encoder is not None:
            encoded = self.encoder.apply(samples)
            return encoded.astype(np.int64) if self.values == "integer" else encoded
        if self.values == "integer":
            return samples.astype(np.int64)
        per_channel = (1, -1, *(1,) * (len(self.shape) - 1))
        shift, scale = (np.array(pair, np.float32).reshape(per_channel) for pair in (self.shift, self.scale))
        return (np.subtract(samples, shift, dtype=np.float32) / scale).astype(np.float32)

    def to_targets(self, outputs: Array) -> Array:
        """Return outputs of a regression (N, targets) in the units of the targets.

        Of outputs (N, 2 * targets), means and logarithms of variances, they are the means and standard deviations.
        """
        shift, scale = (np.array(pair, np.float32) for pair in (self.target_shift, self.target_scale))
        means, rest = outputs[:, : self.classes], outputs[:, self.classes :]
        with np.errstate(over="ignore"):
            deviations = np.exp(rest / 2) * scale if rest.size else rest
        return np.concatenate([means * scale + shift, deviations], axis=1)

    def samples(self, array: Array) -> Array:
        """Return an array as samples (N, *sample_shape): one or many.

        Images are (H, W), (H, W, C) or channels first; rows of a table are those of its raw matrix.

        Raises:
            ValueError: it has another shape, or values that are no finite numbers.
        """
        if array.dtype.kind not in "uif":
            raise ValueError(f"holds {array.dtype}, not numbers")
        for layout, axes in self._layouts():
            if array.shape == layout or array.shape[1:] == layout:
                many = array if array.ndim == len(layout) + 1 else array[None]
                self._check_values(many)
                return many.transpose(axes) if axes else many.reshape(-1, *self.sample_shape)
        layouts = " or ".join(str(layout) for layout, _ in self._layouts())
        raise ValueError(f"has shape {array.shape}; a sample has {layouts}, and several have their number before it")

    def _check_values(self, array: Array) -> None:
        """Refuse numbers that are not finite, and bytes that are scaled already: the answers would be nonsense."""
        if self.values == "integer" and self.encoder is None:
            self._check_codes(array)
            return
        with np.errstate(over="ignore"):
            numbers = array.astype(np.float32)
        if self.encoder is not None:
            if wrong := self.encoder.find_wrong(numbers):
                raise ValueError(wrong)
        elif not np.isfinite(numbers).all():
            raise ValueError("holds numbers that are not finite, or too large for float32")
        if self.values != "uint8" or not array.size:
            return
        low, high = float(array.min()), float(array.max())
        if low < 0 or high > 255:
            raise ValueError(f"holds numbers from {low:g} to {high:g}; the model takes bytes, 0 to 255")
        if array.dtype.kind == "f" and 0 < high <= 1:
            raise ValueError(f"holds fractions up to {high:g}; the model takes bytes, 0 to 255: multiply by 255")

    def _check_codes(self, array: Array) -> None:
        """Refuse what is no whole number, and codes that training had no place for."""
        if not (np.isfinite(array).all() and (array % 1 == 0).all()):
            raise ValueError("holds numbers that are not whole; the model takes whole numbers, such as token ids")
        if self.vocabulary is not None and array.size and not 0 <= array.min() <= array.max() < self.vocabulary:
            raise ValueError(
                f"holds codes from {array.min():g} to {array.max():g}; the model knows those from 0 to "
                f"{self.vocabulary - 1}"
            )

    def _layouts(self) -> Sequence[tuple[tuple[int, ...], tuple[int, ...] | None]]:
        """Return the shapes that a sample may have, each with the order of axes that makes it channels first."""
        if len(self.shape) != 3 or self.values == "integer":
            return [(self.sample_shape, None)]
        channels, height, width = self.shape
        grey = [((height, width), None)] if channels == 1 else []
        return [*grey, ((height, width, channels), (0, 3, 1, 2)), (self.shape, None)]


def _fit(table: TableSchema, encoder: TableEncoder) -> bool:
    """Return whether the features of a table are the columns of an encoder."""
    features = [
        (feature.kind, feature.name, len(feature.categories) if feature.kind == "category" else 0)
        for feature in table.features
    ]
    return features == [
        (column.kind, column.name, len(column.codes) - 2 if column.kind == "category" else 0)
        for column in encoder.columns
    ]


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
