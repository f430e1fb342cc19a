"""Suggestion of a trial's parameters, which is asked again where another trial has the same ones.

Trials of a study are trained from one seed, so the same parameters give the same result once more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from hpo.config.parameter import Value
from hpo.space import Space
from hpo.storage.statements import FIXED
from hpo.study.attributes import read_table
from hpo.study.repeats import Key, make_key

__all__ = ["ASKS", "TakenKeys", "suggest_new"]

ASKS = 4  # of the sampler for one trial
DRAWS = 100  # at random, where the sampler only repeats
LISTED = 10_000  # configurations of a space, from which one that is left is drawn
Params = Mapping[str, Value]
MakeSampler = Callable[[int], optuna.samplers.BaseSampler]


class TakenKeys:
    """Keys of the parameters that a study's trials have, those in training and those that wait too.

    Args:
        but: number of a trial that is more than its parameters say, as a baseline outside the space is; or None.
    """

    def __init__(self, but: int | None) -> None:
        self._but = but
        self._finished: dict[int, Key] = {}  # whose parameters never change

    def read(self, trials: Sequence[FrozenTrial], but: int) -> set[Key]:
        """Return the keys of all trials but one, given by its number."""
        return {self._key(each) for each in trials if each.number not in (but, self._but)}

    def _key(self, trial: FrozenTrial) -> Key:
        if trial.number in self._finished:
            return self._finished[trial.number]
        waiting = read_table(trial.system_attrs, FIXED) if trial.state == TrialState.WAITING else {}
        key = make_key({**waiting, **trial.params})
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
            self._finished[trial.number] = key
        return key


class _Draft:
    """Trial whose suggestions are not stored yet: Optuna's trial, as a space asks it for values."""

    def __init__(self, trial: optuna.trial.Trial) -> None:
        self._trial = trial
        self.params: dict[str, Any] = {}
        self._distributions: dict[str, BaseDistribution] = {}

    def _suggest(self, name: str, distribution: BaseDistribution) -> Any:
        """Return what Optuna's trial would store: the value that is fixed for it, or else the sampler's."""
        value = self._choose(name, distribution)
        self.params[name], self._distributions[name] = value, distribution
        return value

    def _choose(self, name: str, distribution: BaseDistribution) -> Any:
        trial = self._trial
        if trial._is_fixed_param(name, distribution):
            return trial._fixed_params[name]
        if trial._is_relative_param(name, distribution):
            return trial.relative_params[name]
        frozen = trial._get_latest_trial()
        frozen.params, frozen.distributions = dict(self.params), dict(self._distributions)
        study = optuna.pruners._filter_study(trial.study, frozen)
        return trial.study.sampler.sample_independent(study, frozen, name, distribution)


def suggest_new(
    space: Space, trial: optuna.trial.Trial, taken: set[Key], make_sampler: MakeSampler, seed: int | None
) -> bool:
    """Choose the parameters of a trial, which `Space.suggest` then finds: new ones, if some are found.

    The sampler is asked a few times, and then new ones are drawn at random. What is fixed for the trial stays.

    Args:
        space: of the study.
        trial: has no parameters yet.
        taken: keys of the parameters that other trials have.
        make_sampler: makes the sampler for the second time that it is asked, the third, …
        seed: of the draws; None draws none.

    Returns:
        False if other trials have the same parameters.
    """
    first = _ask(space, trial)
    params = _find_new(space, trial, first, taken, make_sampler, seed)
    trial._fixed_params = {**trial._fixed_params, **(params or first)}
    return params is not None


def _find_new(
    space: Space, trial: optuna.trial.Trial, first: Params, taken: set[Key], make_sampler: MakeSampler, seed: int | None
) -> Params | None:
    """Return the first suggestion if it is new, or else one that is; None if none is found."""
    if make_key(first) not in taken:
        return first
    if _is_exhausted(space, taken):
        return None
    for again in range(1, ASKS):
        trial.study.sampler, trial._relative_params = make_sampler(again), None
        params = _ask(space, trial)
        if make_key(params) not in taken:
            return params
    drawn = () if seed is None else _draw(space, seed)
    fitting = (each for each in drawn if all(each.get(k, v) == v for k, v in trial._fixed_params.items()))
    return next((each for each in fitting if make_key(each) not in taken), None)


def _ask(space: Space, trial: optuna.trial.Trial) -> Params:
    """Return parameters that the study's sampler suggests for a trial."""
    draft = _Draft(trial)
    space.suggest(draft)  # type: ignore[arg-type]
    return draft.params


def _is_exhausted(space: Space, taken: set[Key]) -> bool:
    """Return whether trials have every configuration of a space that is small enough to look."""
    if space.size is None or space.size > min(LISTED, len(taken)):
        return False
    return all(make_key(params) in taken for params in space.grid())


def _draw(space: Space, seed: int) -> Iterator[Params]:
    """Yield parameters at random: all of a small space, else some."""
    rng = np.random.default_rng(seed)
    if space.size is not None and space.size <= LISTED:
        points = list(space.grid())
        yield from (points[index] for index in rng.permutation(len(points)))
        return
    for _ in range(DRAWS):
        yield space.draw(rng.random(len(space.varied)).tolist())
