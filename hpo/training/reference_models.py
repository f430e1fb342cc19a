"""Reference models of tables, by scikit-learn with its default settings: gradient boosting, and a linear model.

They are trained on the same training part as the networks, as it is encoded for these, and scored by the same function
on the same samples. A person should know when a network is the wrong tool.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hpo.config.registry import MetricEntry
from hpo.config.trial_config import TrialConfig
from hpo.training.data import Batch, Data
from hpo.training.member import TrainResult
from hpo.training.predictions import SplitPredictions, predict_split

__all__ = ["FittedReference", "describe_unfit", "fit_reference_models"]

Array = np.ndarray[Any, Any]
SECONDS = 30.0  # of a model; it ends with fewer trees
TREES = 100  # scikit-learn's default
FIRST_TREES = 10  # by which the time of the rest is told
CELLS_LIMIT = 1_000_000_000  # samples times features times outputs
LINEAR_CELLS_LIMIT = 100_000_000
CATEGORIES_LIMIT = 255  # that scikit-learn splits a feature by
SMALLEST = 1e-7  # probability


@dataclass(frozen=True)
class FittedReference:
    """Reference model that has been trained.

    Attributes:
        name: what it is.
        outputs: returns its outputs for samples (N, features), as a network of that task has them.
        seconds: that its training took.
        note: what is not as usual, or nothing.
    """

    name: str
    outputs: Callable[[Tensor], Tensor] = field(repr=False)
    seconds: float
    note: str = ""

    def predict(
        self, config: TrialConfig, data: Data, batch: Batch, metrics: Sequence[MetricEntry]
    ) -> SplitPredictions:
        """Return predictions of samples, with scores and metrics that are measured as those of a network are."""
        module = FixedOutputs(self.outputs(batch[0]))
        result = TrainResult(config, "completed", [], None, None, 0, 0.0, module.state_dict(), module=module)
        return predict_split(result, data, batch, metrics)


class FixedOutputs(nn.Module):
    """Module that returns outputs that are known already, in their order."""

    def __init__(self, outputs: Tensor) -> None:
        super().__init__()
        self.place = 0
        self.unused = nn.Parameter(torch.zeros(1))  # an optimizer is made of a model's parameters
        self.outputs = outputs

    def forward(self, x: Tensor) -> Tensor:
        """Return the next outputs, as many as samples x."""
        begin, self.place = self.place, self.place + len(x)
        return self.outputs[begin : self.place]


def describe_unfit(data: Data, config: TrialConfig) -> str:
    """Return why these data have no reference models; nothing where they have."""
    if data.streams or data.x_val.ndim != 2 or config.reconstructs or (data.integers and not data.features):
        return "the samples are no table"
    if len(data.y_train) * data.x_train.shape[1] * max(1, data.classes) > CELLS_LIMIT:
        return "the table is too large"
    if data.task == "classification" and len(torch.unique(data.y_train)) < 2:
        return "the training data are of one class"
    return ""


def fit_reference_models(
    data: Data, config: TrialConfig, should_stop: Callable[[], bool] = lambda: False
) -> list[FittedReference]:
    """Train the reference models of a table; it takes a minute at most.

    Args:
        data: the table, of which the training part is used.
        config: the configuration whose outputs they are compared with.
        should_stop: asked between models.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    table = _Table.of(data, config)
    linear = "logistic regression" if data.task != "regression" else "ridge regression"
    found = []
    if not should_stop():
        found.append(_fit(table, "gradient boosting", _boost, table.x))
    encoded = table.one_hot()
    if encoded.size * max(1, data.classes) <= LINEAR_CELLS_LIMIT and not should_stop():
        found.append(_fit(table, linear, _fit_linear, encoded))
    return found


@dataclass(frozen=True)
class _Table:
    """Table on the CPU.

    Attributes:
        x, y, weights: the training part; weights are None where all samples count the same.
        data, config: see `fit_reference_models`.
    """

    x: Array
    y: Array
    weights: Array | None
    data: Data
    config: TrialConfig

    @classmethod
    def of(cls, data: Data, config: TrialConfig) -> _Table:
        """Return the table of a data set; weights of classes are the network's own affair, and left out."""
        own = data.weights is not None and data.weights.ndim == 1 and "class_weight" not in config.effective()
        weights = data.weights.cpu().numpy() if own and data.weights is not None else None
        return cls(data.x_train.cpu().numpy(), data.y_train.cpu().numpy(), weights, data, config)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes of the codes of its last columns, which are categories."""
        return tuple(getattr(self.data.shape, "categories", ()))

    def categorical(self) -> list[bool]:
        """Return which columns are categories that trees can split as such; more values are taken as a number."""
        numbers = self.x.shape[1] - len(self.sizes)
        return [False] * numbers + [size <= CATEGORIES_LIMIT for size in self.sizes]

    def one_hot(self, x: Array | None = None) -> Array:
        """Return samples with a column per value of a category, for models that know no categories."""
        x = self.x if x is None else x
        if not self.sizes:
            return x
        numbers = x.shape[1] - len(self.sizes)
        codes = x[:, numbers:].astype(np.int64)
        parts = [np.eye(size, dtype=np.float32)[codes[:, i]] for i, size in enumerate(self.sizes)]
        return np.concatenate([x[:, :numbers], *parts], 1)

    @property
    def columns(self) -> list[Array]:
        """The labels that each model predicts: all classes together, labels and targets apart."""
        return [self.y] if self.data.task == "classification" else list(self.y.T)


_Fit = Callable[[_Table, Array, Array, float], tuple[Any, str]]


def _fit(table: _Table, name: str, fit: _Fit, x: Array) -> FittedReference:
    import sklearn.ensemble
    import sklearn.linear_model  # noqa: F401  a second to import, which is no training
    from threadpoolctl import threadpool_limits

    begin, models, note = time.monotonic(), list[Any](), ""
    with warnings.catch_warnings(), threadpool_limits(torch.get_num_threads()):
        warnings.simplefilter("ignore")  # of a linear model that has not converged: it is the default one
        for i, column in enumerate(table.columns):
            left = max(0.0, begin + SECONDS - time.monotonic()) / (len(table.columns) - i)
            model, remark = (None, "") if len(np.unique(column)) < 2 else fit(table, x, column, left)
            models.append(model if model is not None else float(column[0]))
            note = note or remark
    seconds = time.monotonic() - begin
    linear = fit is _fit_linear

    def outputs(samples: Tensor) -> Tensor:
        values = samples.cpu().numpy()
        values = table.one_hot(values) if linear else values
        return torch.from_numpy(_outputs(table, models, values, x)).to(samples.device)

    return FittedReference(name, outputs, seconds, note)


def _boost(table: _Table, x: Array, column: Array, seconds: float) -> tuple[Any, str]:
    """Fit gradient boosting, with fewer trees than usual where time would run out."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    kind = HistGradientBoostingRegressor if table.data.task == "regression" else HistGradientBoostingClassifier
    categorical = table.categorical()
    model = kind(
        random_state=0,
        warm_start=True,  # the same trees as at once
        max_iter=FIRST_TREES,
        categorical_features=categorical if any(categorical) else None,
    )
    begin = time.monotonic()
    model.fit(x, column, sample_weight=table.weights)
    pace = max(time.monotonic() - begin, 1e-6) / FIRST_TREES
    trees = max(FIRST_TREES, min(TREES, int(seconds / pace)))
    if model.n_iter_ == FIRST_TREES and trees > FIRST_TREES:
        model.set_params(max_iter=trees).fit(x, column, sample_weight=table.weights)
    return model, "" if trees == TREES else f"{trees} instead of {TREES} trees, for lack of time"


def _fit_linear(table: _Table, x: Array, column: Array, seconds: float) -> tuple[Any, str]:  # noqa: ARG001
    from sklearn.linear_model import LogisticRegression, Ridge

    model = Ridge() if table.data.task == "regression" else LogisticRegression()
    model.fit(x, column, sample_weight=table.weights)
    return model, ""


# Outputs, as a network has them.


def _outputs(table: _Table, models: Sequence[Any], x: Array, training: Array) -> Array:
    """Return the outputs (N, outputs) in float32: logits of classes or labels, or scaled targets."""
    if table.data.task == "classification":
        return _class_logits(models[0], x, table.data.classes)
    if table.data.task == "multilabel":
        p = np.stack([_probability(model, x) for model in models], 1).clip(SMALLEST, 1 - SMALLEST)
        return np.asarray(np.log(p / (1 - p)), np.float32)
    means = np.stack([_predict(model, x) for model in models], 1)
    if table.config.loss != "gaussian_nll":
        return np.asarray(means, np.float32)
    residuals = table.y - np.stack([_predict(model, training) for model in models], 1)
    variances = np.log(np.square(residuals).mean(0).clip(SMALLEST))  # the same for all samples, of the training part
    outputs: Array = np.concatenate([means, np.broadcast_to(variances, means.shape)], 1).astype(np.float32)
    return outputs


def _class_logits(model: Any, x: Array, classes: int) -> Array:
    logits: Array = np.full((len(x), classes), np.log(SMALLEST), np.float32)
    logits[:, model.classes_.astype(np.int64)] = np.log(model.predict_proba(x).clip(SMALLEST))
    return logits


def _probability(model: Any, x: Array) -> Array:
    """Return the probability of a label; of one that all training samples have, or none, it is that."""
    if isinstance(model, float):
        return np.full(len(x), model)
    found: Array = model.predict_proba(x)[:, 1]
    return found


def _predict(model: Any, x: Array) -> Array:
    if isinstance(model, float):
        return np.full(len(x), model)
    found: Array = model.predict(x)
    return found
