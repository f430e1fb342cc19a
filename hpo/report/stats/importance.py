"""Importance of the varied parameters: PED-ANOVA shares with bootstrap intervals."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Container, Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from hpo.config.values import plain_value
from hpo.report.data.results import Results
from hpo.space import Space
from hpo.study import Study

__all__ = [
    "RESAMPLES",
    "SAMPLE_LIMIT",
    "Importances",
    "Share",
    "compute_importances",
    "compute_shares",
    "list_ranked_trials",
]

FEWEST = 10  # complete trials: below that a tenth of them is none
RESAMPLES = 50
SAMPLE_LIMIT = 1000  # trials of a resample; more would take minutes of a study of 10,000
LEVEL = 0.9


@dataclass(frozen=True)
class Share:
    """Share of a parameter in what sets the good trials apart.

    Attributes:
        key: of the dimension.
        value: among those that were compared, from 0 to 1.
        low, high: the bootstrap's 90 % interval, which holds `value`.
        trials: how many it was computed from.
    """

    key: str
    value: float
    low: float
    high: float
    trials: int


@dataclass(frozen=True)
class Importances:
    """Shares of all varied parameters of a study.

    Attributes:
        shares: the largest first, summing to 1; empty where they cannot be computed.
        reason: why there are none; empty where there are some.
    """

    shares: tuple[Share, ...] = ()
    reason: str = ""

    @property
    def by_key(self) -> dict[str, float]:
        """Shares by the keys of their dimensions, the largest first."""
        return {share.key: share.value for share in self.shares}


class _Resample(optuna.Study):
    """Optuna's view of a study with other trials, for an evaluator that takes nothing but a study."""

    def __init__(self, study: Study) -> None:
        super().__init__(study.name, study.storage)
        self.resampled: list[FrozenTrial] = []

    def get_trials(
        self,
        deepcopy: bool = True,  # noqa: ARG002
        states: Container[TrialState] | None = None,  # noqa: ARG002
    ) -> list[FrozenTrial]:
        """Return the trials of the sample, which are all COMPLETE."""
        return self.resampled


def list_ranked_trials(study: Study) -> list[FrozenTrial]:
    """Return the COMPLETE trials whose values are all finite, by number."""
    return [t for t in study.trials() if t.state == TrialState.COMPLETE and all(map(math.isfinite, t.values))]


def compute_importances(study: Study, results: Results) -> Importances:
    """Compute the share of every varied parameter that some complete trial has."""
    trials = list_ranked_trials(study)
    keys_of_trials = {key for trial in trials for key in trial.params}
    keys = [dimension.key for dimension in results.space.varied if dimension.key in keys_of_trials]
    if not results.varied:
        return Importances(reason="The study varies no parameter.")
    if not keys or len(trials) < FEWEST:
        return Importances(reason=f"This needs at least {FEWEST} complete trials; there are {len(trials)}.")
    if results.definition.learned:
        trials = [_unite_domains(trial, results.space) for trial in trials]
    try:
        shares = compute_shares(study, keys, trials)
    except ValueError as error:  # trials that others added need not fit together
        return Importances(reason=f"The shares cannot be computed: {error}")
    return Importances(tuple(shares), "" if shares else "No parameter sets the good trials apart from the others.")


def _unite_domains(trial: FrozenTrial, space: Space) -> FrozenTrial:
    """Return a trial as if it had asked for the whole domain of each parameter.

    The evaluator compares only trials of equal domains, and an objective function may ask for another in each trial.
    Nor does it take choices that are lists.
    """
    asked = [dimension for dimension in space.varied if dimension.key in trial.params]
    united = copy.copy(trial)
    united.params = {each.key: plain_value(trial.params[each.key]) for each in asked}
    united.distributions = {each.key: each.domain.distribution() for each in asked}
    return united


def compute_shares(study: Study, keys: Sequence[str], trials: Sequence[FrozenTrial]) -> list[Share]:
    """Compute the shares of some dimensions, the largest first; none where nothing sets the good trials apart.

    The shares sum to 1. They are those of PED-ANOVA (Watanabe, Bansal and Hutter, 2023) on all trials; the interval is
    that of `RESAMPLES` draws with replacement of at most `SAMPLE_LIMIT` trials. A draw in which nothing sets the good
    trials apart is left out.

    Args:
        study: whose directions say what is good.
        keys: of the dimensions; some trial has each.
        trials: COMPLETE with finite values.

    Raises:
        ValueError: trials that others added do not fit together.
    """
    sample = _Resample(study)
    values = _normalized_shares(sample, keys, list(trials))
    if values is None:
        return []
    rng, size = np.random.default_rng(0), min(len(trials), SAMPLE_LIMIT)
    draws = (rng.integers(len(trials), size=size) for _ in range(RESAMPLES))
    resampled = [_normalized_shares(sample, keys, [trials[i] for i in draw]) for draw in draws]
    usable = np.array([each for each in resampled if each is not None] or [values])
    low, high = np.quantile(usable, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    bounds = zip(keys, values, np.minimum(low, values), np.maximum(high, values), strict=True)
    unordered = [Share(key, float(value), float(a), float(b), len(trials)) for key, value, a, b in bounds]
    return sorted(unordered, key=lambda share: -share.value)


def _normalized_shares(sample: _Resample, keys: Sequence[str], trials: list[FrozenTrial]) -> list[float] | None:
    """Return the shares in the order of the keys, summing to 1; None where they are all 0."""
    sample.resampled = trials
    present = [key for key in keys if any(key in trial.distributions for trial in trials)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        raw = optuna.importance.PedAnovaImportanceEvaluator().evaluate(sample, params=present)
    total = sum(raw.values())
    return [raw.get(key, 0.0) / total for key in keys] if total > 0 else None
