"""Rivals of `benchmarks.trust`: scikit-learn's searches and Optuna's around a skorch net, on the same space.

They need skorch and optuna-integration, which `make trust` installs in an environment of its own.
"""

from __future__ import annotations

import itertools
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import nn

__all__ = ["RIVALS", "default_score", "is_installed", "run_rival"]

Array = np.ndarray[Any, Any]
Params = dict[str, Any]
FOLDS = 5
MOST = 2000  # configurations of a grid, or of the first rung of a halving
SHARE = 0.9  # of the seconds, for searches that cannot be stopped are planned by the time of one fit
NAMES = {"learning_rate": "net__lr", "weight_decay": "net__optimizer__weight_decay"}


@cache  # optuna_integration replaces itself in sys.modules once it is imported, where find_spec fails
def is_installed() -> bool:
    """Return whether what the rivals need is there."""
    return all(map(find_spec, ("skorch", "optuna_integration")))


class Perceptron(nn.Module):
    """The MLP that our studies train: linear layers, ReLU and dropout."""

    def __init__(self, features: int, outputs: int, width: int = 32, depth: int = 2, dropout: float = 0.0) -> None:
        super().__init__()
        sizes = [features, *[width] * depth]
        hidden = [(nn.Linear(*pair), nn.ReLU(), nn.Dropout(dropout)) for pair in itertools.pairwise(sizes)]
        self.layers = nn.Sequential(*itertools.chain(*hidden), nn.Linear(sizes[-1], outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the outputs of samples (N, features)."""
        outputs: torch.Tensor = self.layers(x)
        return outputs


@dataclass(frozen=True)
class Task:
    """Data of one outer split, and the space that is searched.

    Attributes:
        x, y: training samples and their labels.
        x_test, y_test: those that are tested on.
        space: (low, high, logarithmic) of each parameter; whole numbers where both are.
        defaults: of each parameter.
        epochs: of every fit.
        regression: whether labels are real numbers.
        seconds: of the processor, that the search has.
        seed: of the search.
    """

    x: Array
    y: Array
    x_test: Array
    y_test: Array
    space: Mapping[str, tuple[float, float, bool]]
    defaults: Mapping[str, float]
    epochs: int
    regression: bool
    seconds: float
    seed: int

    def net(self, params: Params) -> Any:
        """Return a pipeline of scaling and a skorch net."""
        import skorch
        from sklearn.compose import TransformedTargetRegressor
        from sklearn.pipeline import Pipeline
        from sklearn.preprocessing import StandardScaler

        kind = skorch.NeuralNetRegressor if self.regression else skorch.NeuralNetClassifier
        net = kind(
            Perceptron,
            module__features=self.x.shape[1],
            module__outputs=1 if self.regression else int(self.y.max()) + 1,
            criterion=nn.MSELoss if self.regression else nn.CrossEntropyLoss,
            optimizer=torch.optim.AdamW,
            max_epochs=self.epochs,
            batch_size=32,
            iterator_train__shuffle=True,
            train_split=None,
            verbose=0,
        )
        pipeline = Pipeline([("scale", StandardScaler()), ("net", net)]).set_params(**params)
        return TransformedTargetRegressor(pipeline, transformer=StandardScaler()) if self.regression else pipeline

    def name(self, parameter: str) -> str:
        """Return the name of a parameter in what `net` returns."""
        name = NAMES.get(parameter, f"net__module__{parameter}")
        return f"regressor__{name}" if self.regression else name

    def labels(self) -> Array:
        """Return the labels as skorch wants them."""
        return self.y.astype(np.float32)[:, None] if self.regression else self.y.astype(np.int64)


def _default_params(task: Task) -> Params:
    return {name.removeprefix("regressor__"): value for name, value in _full_defaults(task).items()}


def _full_defaults(task: Task) -> Params:
    return {task.name(name): value for name, value in task.defaults.items()}


def _time_fit(task: Task) -> float:
    """Return the seconds of one fit on four of five folds, and of its score."""
    size = len(task.x) * (FOLDS - 1) // FOLDS
    since = time.process_time()
    net = task.net(_default_params(task)).fit(task.x[:size], task.labels()[:size])
    net.score(task.x[size:], task.labels()[size:])
    return time.process_time() - since


def _levels(low: float, high: float, log: bool, count: int) -> list[float]:
    """Return so many values of a range, spread evenly; the middle for one."""
    share = np.linspace(0, 1, count + 2)[1:-1] if count < 3 else np.linspace(0, 1, count)
    values = np.exp(np.log(low) + share * np.log(high / low)) if log else low + share * (high - low)
    whole = isinstance(low, int) and isinstance(high, int)
    return [round(value) if whole else float(value) for value in np.clip(values, low, high)]


def _make_grid(task: Task, size: int) -> dict[str, list[float]]:
    """Return the largest grid of at most so many points: parameters get another level in turns."""
    counts = dict.fromkeys(task.space, 1)
    for name in itertools.cycle(task.space):
        grown = {**counts, name: counts[name] + 1}
        if np.prod(list(grown.values())) > size or counts[name] >= 8:
            break
        counts = grown
    return {task.name(name): _levels(*task.space[name], counts[name]) for name in task.space}


def _search_grid(task: Task, net: Any) -> Any:
    from sklearn.model_selection import GridSearchCV

    points = int(min(MOST, max(1, SHARE * task.seconds / (FOLDS * _time_fit(task)))))
    return GridSearchCV(net, _make_grid(task, points), cv=FOLDS, refit=False)


def _search_halving(task: Task, net: Any) -> Any:
    from scipy.stats import loguniform, randint, uniform
    from sklearn.experimental import enable_halving_search_cv  # noqa: F401
    from sklearn.model_selection import HalvingRandomSearchCV

    def distribution(low: float, high: float, log: bool) -> Any:
        if isinstance(low, int) and isinstance(high, int):
            return randint(low, high + 1)
        return loguniform(low, high) if log else uniform(low, high - low)

    least = FOLDS * 2 * (1 if task.regression else int(task.y.max()) + 1)
    rungs = 1 + int(np.log(len(task.x) / least) / np.log(3))
    each = rungs * least / len(task.x) * FOLDS * _time_fit(task)  # of a candidate of the first rung, all rungs together
    space = {task.name(name): distribution(*bounds) for name, bounds in task.space.items()}
    count = int(min(MOST, max(3, SHARE * task.seconds / each)))
    return HalvingRandomSearchCV(
        net, space, n_candidates=count, factor=3, min_resources=least, cv=FOLDS, refit=False, random_state=task.seed
    )


def _search_optuna(task: Task, net: Any) -> Any:
    from optuna.distributions import FloatDistribution, IntDistribution
    from optuna_integration import OptunaSearchCV

    def distribution(low: float, high: float, log: bool) -> Any:
        if isinstance(low, int) and isinstance(high, int):
            return IntDistribution(low, high, log=log)
        return FloatDistribution(low, high, log=log)

    since = time.process_time()

    def stop(study: Any, _: object) -> None:
        if time.process_time() - since > task.seconds:
            study.stop()

    space = {task.name(name): distribution(*bounds) for name, bounds in task.space.items()}
    options = {"refit": False, "random_state": task.seed, "verbose": 0, "callbacks": [stop]}
    return OptunaSearchCV(net, space, cv=FOLDS, n_trials=None, **options)


RIVALS: Mapping[str, Callable[[Task, Any], Any]] = {
    "GridSearchCV": _search_grid,
    "HalvingRandomSearchCV": _search_halving,
    "OptunaSearchCV": _search_optuna,
}


def _test_score(task: Task, params: Params, seeds: int) -> float:
    """Return the mean test score of parameters, trained on all training samples from several seeds."""
    scores = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        net = task.net({name.removeprefix("regressor__"): value for name, value in params.items()})
        scores.append(float(net.fit(task.x, task.labels()).score(task.x_test, task.y_test)))
    return float(np.mean(scores))


def default_score(task: Task, seeds: int) -> float:
    """Return the mean test score of the defaults."""
    return _test_score(task, _full_defaults(task), seeds)


def run_rival(name: str, task: Task, seeds: int) -> dict[str, Any]:
    """Search, and return the seconds of the search and the test score of what it has chosen."""
    torch.manual_seed(task.seed)
    since = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        search = RIVALS[name](task, task.net(_default_params(task)))
        search.fit(task.x, task.labels())
        seconds = time.process_time() - since
        return {"seconds": seconds, "score": _test_score(task, search.best_params_, seeds), "trials": _count(search)}


def _count(search: Any) -> int:
    """Return how many configurations were tried."""
    found = getattr(search, "trials_", None)
    return len(found) if found is not None else len({str(each) for each in search.cv_results_["params"]})
