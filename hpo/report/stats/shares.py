"""What each parameter's share in good results is, with error bars: PED-ANOVA on trials that are drawn again."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from hpo.study import Study

__all__ = ["RESAMPLES", "SAMPLE_LIMIT", "Share", "comparable_trials", "shares"]

RESAMPLES = 50
SAMPLE_LIMIT = 1000  # trials of a resample; more would take minutes of a study of 10,000
LEVEL = 0.9


@dataclass(frozen=True)
class Share:
    """A parameter's share in what sets the good trials apart.

    Attributes:
        key: of the dimension.
        value: among those that were looked at together, from 0 to 1.
        low, high: the bootstrap's 90 % interval, which holds `value`.
        trials: how many it was computed from.
    """

    key: str
    value: float
    low: float
    high: float
    trials: int


class _Sample:
    """Trials drawn from a study: as much of Optuna's study as its evaluator asks for."""

    def __init__(self, study: Study, trials: list[FrozenTrial]) -> None:
        self.directions = study.optuna_study.directions
        self.trials = trials

    def get_trials(self, deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:  # noqa: ARG002
        return self.trials

    def _is_multi_objective(self) -> bool:
        return len(self.directions) > 1


def comparable_trials(study: Study) -> list[FrozenTrial]:
    """The COMPLETE trials whose values are all finite."""
    return [t for t in study.trials() if t.state == TrialState.COMPLETE and all(map(math.isfinite, t.values))]


def shares(study: Study, keys: Sequence[str], trials: Sequence[FrozenTrial]) -> list[Share]:
    """The shares of some dimensions, summing to 1, the largest first; none where nothing sets good trials apart.

    PED-ANOVA (Watanabe, Bansal and Hutter, 2023) on all trials; the interval is that of `RESAMPLES` draws with
    replacement of at most `SAMPLE_LIMIT` trials. A draw in which nothing sets good trials apart tells nothing.

    Args:
        study: whose directions say what is good.
        keys: of the dimensions; some trial has each.
        trials: COMPLETE with finite values.

    Raises:
        ValueError: trials that others added do not fit together.
    """
    found = _normalised(study, keys, list(trials))
    if found is None:
        return []
    rng, size = np.random.default_rng(0), min(len(trials), SAMPLE_LIMIT)
    draws = (rng.integers(len(trials), size=size) for _ in range(RESAMPLES))
    drawn = [_normalised(study, keys, [trials[i] for i in draw]) for draw in draws]
    told = np.array([draw for draw in drawn if draw is not None] or [found])
    low, high = np.quantile(told, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    bounds = zip(keys, found, np.minimum(low, found), np.maximum(high, found), strict=True)
    unordered = [Share(key, float(value), float(a), float(b), len(trials)) for key, value, a, b in bounds]
    return sorted(unordered, key=lambda share: -share.value)


def _normalised(study: Study, keys: Sequence[str], trials: list[FrozenTrial]) -> list[float] | None:
    """By key, summing to 1; None where they are all 0."""
    sample = cast("optuna.Study", _Sample(study, trials))
    held = [key for key in keys if any(key in trial.distributions for trial in trials)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        raw = optuna.importance.PedAnovaImportanceEvaluator().evaluate(sample, held)
    total = sum(raw.values())
    return [raw.get(key, 0.0) / total for key in keys] if total > 0 else None
