"""Arrays that a report on a model's predictions is made of, by task; small, however many samples there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hpo.datasets import Feature
from hpo.datasets.sample_scores import choose_samples
from hpo.training.data import Data

__all__ = [
    "RawSplit",
    "classification_arrays",
    "multilabel_arrays",
    "regression_arrays",
    "to_images",
]

Array = np.ndarray[Any, Any]
MISTAKES = 32
BINS = 10  # of a feature, each with as many samples
FIRST_DATE = date(2000, 1, 1)  # from which days are counted
PERIODS = {"month": 12, "weekday": 7, "hour": 24}  # of the parts of a date that recur
FEWEST = 10  # samples of a category that has a bin of its own
FEATURES_LIMIT = 60


@dataclass(frozen=True)
class RawSplit:
    """Samples of a split as they are in the data set, before any scaling.

    Attributes:
        x: (N, features) of a table; None where samples are none.
        features: what its columns mean.
        rows: of the samples in their file, from 1, (N,); else their positions in the data set's array, from 0.
        in_file: whether they are rows of a file.
    """

    x: Array | None = None
    features: Sequence[Feature] = ()
    rows: Array | None = None
    in_file: bool = False

    def number(self, positions: Array) -> dict[str, Array]:
        """Return the rows of samples as arrays of a file of predictions; nothing where they are not known."""
        if self.rows is None:
            return {}
        return {"worst_rows": self.rows[positions].astype(np.int64), "worst_in_file": np.array(self.in_file)}


# Classes.


def classification_arrays(outputs: Tensor, batch: tuple[Tensor, Tensor], data: Data, raw: RawSplit) -> dict[str, Array]:
    """Return labels, probabilities and the most confident mistakes of outputs (N, classes)."""
    x, y = batch
    probabilities = outputs.softmax(1)
    confidence, predicted = probabilities.max(1)
    wrong = torch.nonzero(predicted != y).flatten()
    worst = wrong[confidence[wrong].argsort(descending=True, stable=True)[:MISTAKES]]
    arrays = {
        "labels": y.cpu().numpy(),
        "probabilities": probabilities.cpu().numpy().astype(np.float16),
        "mistakes": worst.cpu().numpy(),
        **raw.number(worst.cpu().numpy()),
    }
    if x.ndim == 4 and x.shape[1] in (1, 3):
        arrays["pictures"] = to_images(x[worst], data)
    return arrays


def to_images(x: Tensor, data: Data) -> Array:
    """Return scaled images (K, channels, H, W) as they were, or where their scaling is unknown between their extremes.

    They are uint8, (K, H, W) or (K, H, W, 3).
    """
    values = x.cpu().numpy().astype(np.float64)
    if data.scaling is not None:
        shape = (1, -1, 1, 1)
        values = values * data.scaling.scale.reshape(shape) + data.scaling.shift.reshape(shape)
    if data.scaling is None or not data.raw_bytes:
        low, high = (values.min(), values.max()) if values.size else (0.0, 1.0)
        values = 255 * (values - low) / max(high - low, 1e-12)
    images: Array = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return images[:, 0] if images.shape[1] == 1 else images.transpose(0, 2, 3, 1)


# Several labels.


def multilabel_arrays(outputs: Tensor, y: Tensor) -> dict[str, Array]:
    """Return labels and probabilities of outputs (N, labels)."""
    chosen = choose_samples(len(y))
    return {
        "labels": y.cpu().numpy()[chosen].astype(np.uint8),
        "probabilities": outputs.sigmoid().cpu().numpy()[chosen].astype(np.float16),
        "count": np.array(len(y)),
    }


# Real numbers.


def regression_arrays(outputs: Tensor, y: Tensor, data: Data, raw: RawSplit, *, deviations: bool) -> dict[str, Array]:
    """Return targets, predictions, the worst of these, and residuals by feature, all in the targets' own units.

    Args:
        outputs: (N, T), or (N, 2 T) with the logarithms of the variances last.
        y: (N, T), scaled.
        data: the data set, which undoes the scaling.
        raw: the samples as they are in the data set.
        deviations: whether the outputs have variances.
    """
    targets = data.to_targets(y).cpu().numpy().astype(np.float64)
    predictions = data.to_targets(outputs).cpu().numpy().astype(np.float64)
    scale = np.ones(targets.shape[1]) if data.target_scaling is None else data.target_scaling.scale.reshape(-1)
    chosen = choose_samples(len(targets))
    errors = np.square((targets - predictions) / scale).sum(1)
    worst = np.argsort(-errors, kind="stable")[:MISTAKES]
    arrays = {
        "targets": targets[chosen].astype(np.float32),
        "predictions": predictions[chosen].astype(np.float32),
        "count": np.array(len(targets)),
        "worst_targets": targets[worst].astype(np.float32),
        "worst_predictions": predictions[worst].astype(np.float32),
        **raw.number(worst),
        **_residuals_by_feature(targets - predictions, raw),
    }
    if deviations:
        variances = outputs[:, data.classes :].cpu().numpy().astype(np.float64)
        arrays["deviations"] = (np.exp(variances[chosen] / 2) * scale).astype(np.float32)
    return arrays


def _residuals_by_feature(residuals: Array, raw: RawSplit) -> dict[str, Array]:
    """Return mean and deviation of the residuals (N, T) over bins of each feature."""
    if raw.x is None or raw.x.ndim != 2 or raw.x.shape[1] > FEATURES_LIMIT or len(raw.x) != len(residuals):
        return {}
    features = raw.features or [Feature(name=f"feature {i}", column="") for i in range(raw.x.shape[1])]
    # Of a date the first of its features stands for the column: its day, or else its month.
    firsts = {feature.source: i for i, feature in reversed(list(enumerate(features)))}
    names = sorted(firsts, key=firsts.__getitem__)
    found = [
        (place, label, rows)
        for place, name in enumerate(names)
        for label, rows in _bins(raw.x, features, firsts[name]).items()
        if len(rows)
    ]
    return {
        "features": np.array([name[:60] for name in names]),
        "bin_features": np.array([i for i, _, _ in found]),
        "bin_labels": np.array([label[:60] for _, label, _ in found]),
        "bin_counts": np.array([len(rows) for _, _, rows in found]),
        "bin_means": np.array([residuals[rows].mean(0) for _, _, rows in found], np.float32),
        "bin_deviations": np.array([residuals[rows].std(0) for _, _, rows in found], np.float32),
    }


def _bins(x: Array, features: Sequence[Feature], place: int) -> Mapping[str, Array]:
    """Return the samples of bins of a feature, by what they are called."""
    feature, values = features[place], x[:, place]
    if feature.kind == "category":
        return _category_bins(values, feature)
    of_date = sum(each.column == feature.column for each in features) > 1 and bool(feature.column)
    if of_date and feature.name == feature.column:
        return _number_bins(values, _write_dates)
    if of_date:
        return _number_bins(_read_part(feature.name, values, x[:, place + 1]))
    return _number_bins(values)


def _write_dates(days: Array) -> list[str]:
    """Write days since `FIRST_DATE` as months, or where months do not tell them apart as days."""
    dates = [(FIRST_DATE + timedelta(days=float(day))).isoformat() for day in days]
    months = [day[:7] for day in dates]
    return months if len(set(months)) == len(months) else dates


def _write_numbers(values: Array) -> list[str]:
    """Write numbers with four digits, and large ones without an exponent."""
    return [f"{value:.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.4g}" for value in values]


def _read_part(name: str, sine: Array, cosine: Array) -> Array:
    """Return the month (from 1), weekday (from 1, Monday) or hour that a sine and a cosine are of."""
    part = name.rpartition(".")[2].removesuffix("_sin")
    turns = np.arctan2(sine, cosine) / (2 * np.pi) % 1
    found: Array = np.round(turns * PERIODS[part]) % PERIODS[part] + (part != "hour")
    return found


def _number_bins(values: Array, write: Callable[[Array], list[str]] = _write_numbers) -> Mapping[str, Array]:
    """Return the samples of bins by quantiles, by what they are called.

    The outer bins are open: their bounds would be the values of single rows.
    """
    missing = np.isnan(values.astype(np.float64))
    known = values[~missing]
    edges = np.quantile(known, np.linspace(0, 1, BINS + 1)[1:-1]) if len(known) else np.zeros(0)
    edges = np.unique(np.ceil(edges) if (known == np.floor(known)).all() else edges)
    places = np.searchsorted(edges, values, side="right")
    texts = write(edges)
    names = [f"{low} to {high}" for low, high in pairwise(texts)]
    labels = [f"below {texts[0]}", *names, f"from {texts[-1]}"] if texts else ["all"]
    bins: dict[str, list[Array]] = {}
    for i, label in enumerate(labels):  # close edges may have the same digits
        bins.setdefault(label, []).append(np.flatnonzero(~missing & (places == i)))
    joined = {label: np.concatenate(parts) for label, parts in bins.items()}
    return {**joined, "missing": np.flatnonzero(missing)}


def _category_bins(codes: Array, feature: Feature) -> Mapping[str, Array]:
    """Return the samples of each frequent category, by its value; rare ones, which could name a person, are joined."""
    missing = np.isnan(codes)
    whole = np.where(missing, -1, codes).astype(np.int64)
    counts = np.bincount(whole[~missing], minlength=len(feature.categories) + 1)
    frequent = [code for code in np.argsort(-counts[1:], kind="stable")[: BINS - 1] + 1 if counts[code] >= FEWEST]
    bins = {feature.categories[code - 1]: np.flatnonzero(whole == code) for code in frequent}
    return {
        **bins,
        "any other": np.flatnonzero(~missing & ~np.isin(whole, frequent)),
        "missing": np.flatnonzero(missing),
    }
