"""Outlook of a study from its stored trials: whether it has settled, after which of them, and what its noise is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from hpo.config.metric_range import metric_range
from hpo.config.trial_config import TrialConfig
from hpo.datasets import DataFacts
from hpo.datasets.sample_scores import KINDS
from hpo.errors import RequestError
from hpo.study.attributes import TRIAL_SEED, read_standard_error, read_whole
from hpo.study.definition import SETTLED, Budget, Definition
from hpo.study.repeats import Key, make_key
from hpo.study.samplers import SAMPLERS, count_startup_trials
from hpo.study.settled import Outlook, Search, foresee, pool_noise
from hpo.study.slots import count_first
from hpo.study.stored_study import StoredStudy

__all__ = [
    "StudyOutlook",
    "binomial_error",
    "count_validation_samples",
    "explain_short_budget",
    "explain_unsettled",
    "refuse_unsettled",
]

Array = np.ndarray[Any, Any]
SEED = "seed"
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
NOISE_OF_MODELS = "folds = 5 or seeds = 3 measure it"
NOISE_OF_FUNCTIONS = (
    'let the function set trial.set_user_attr("standard_error", …), or report the scores of its folds with '
    "optuna.terminator.report_cross_validation_scores(trial, scores); or run it twice with the same parameters"
)


class StudyOutlook:
    """Outlook of one study, kept up to date as its trials end. It costs no SQL: whoever asks has the trials.

    The trials count in the order in which they ended, and nothing else does but the definition, the budget and the
    findings about the data: all workers come to the same answer. It is settled once it has been after any of them.

    Args:
        study: the study, of one objective.

    Attributes:
        outlooks: after each of the trials, from the fewest that say anything; of many, after every hundredth part, and
            after the last of the budget.
    """

    def __init__(self, study: StoredStudy) -> None:
        self.study = study
        self.outlooks: list[Outlook] = []
        self._order: list[int] = []  # ids of the trials in the order in which they ended
        self._search: Search | None = None
        self._facts: DataFacts | None = None
        self._counts: dict[str, int | None] = {}  # validation samples, by what a trial's parameters say of them
        self._rows: dict[int, tuple[float, float, Key, int]] = {}  # by trial id

    def update(self, trials: Sequence[FrozenTrial], budget: Budget, facts: DataFacts | None) -> Outlook | None:
        """Return the first outlook at which the study has settled; without one the last, or None before the fewest.

        Args:
            trials: all of the study.
            budget: how many there are to be.
            facts: what a worker has found in the data.
        """
        ended = sorted(
            (t for t in trials if t.state in ENDED and t.datetime_complete),
            key=lambda t: (t.datetime_complete, t.number),
        )
        if facts != self._facts:
            self._facts, self._rows, self._counts, self._search = facts, {}, {}, None
        failed = sum(trial.state == TrialState.FAIL for trial in trials)  # others do not take their place
        search = describe_search(self.study.definition, budget.trials - failed)
        order = [trial._trial_id for trial in ended]
        known = len(self._order)
        if search != self._search or self._order != order[:known]:
            self.outlooks, self._search, known = [], search, 0
        self._order = order
        if len(ended) > known:
            self._extend(ended, known, search, facts)
        settled = next((each for each in self.outlooks if each.settled), None)
        return settled or (self.outlooks[-1] if self.outlooks else None)

    def _extend(self, ended: Sequence[FrozenTrial], known: int, search: Search, facts: DataFacts | None) -> None:
        """Add the outlooks after the trials that have ended since."""
        counts = [count for count in _choose_counts(search, len(ended)) if count > known]
        if not counts:
            return
        rows = [self._read(trial, facts) for trial in ended]
        scores, errors = (np.array(column, float) for column in list(zip(*rows, strict=True))[:2])
        repeats = _number_repeats([(key, seed) for *_, key, seed in rows], learned=not self.study.definition.configured)
        drawn = np.array([trial.number >= self._first for trial in ended])
        complete = np.array([trial.state == TrialState.COMPLETE for trial in ended])
        for count in counts:
            chosen = np.where(complete[:count], scores[:count], -np.inf)
            if not np.isfinite(chosen).any():
                continue
            # A pruned trial's value is that of an epoch before its last, and no better than the best by definition.
            capped = np.minimum(scores[:count], chosen.max())
            noise = pool_noise(chosen, errors[:count], repeats[:count])
            self.outlooks.append(foresee(capped, drawn[:count], noise, search))

    @cached_property
    def _first(self) -> int:
        """The number of trials that no sampler has chosen: the baseline and the warm starts."""
        definition = self.study.definition
        return count_first(definition, None if definition.learned else self.study.space)

    @cached_property
    def _baseline(self) -> TrialConfig:
        return self.study.definition.baseline_config(self.study.space)

    def _read(self, trial: FrozenTrial, facts: DataFacts | None) -> tuple[float, float, Key, int]:
        """Return a trial's score, its standard error, its parameters without the seed, and its seed."""
        if (row := self._rows.get(trial._trial_id)) is not None:
            return row
        value = trial.values[0] if trial.values else math.nan
        score = (value if self.study.maximize else -value) if math.isfinite(value) else -math.inf
        error = read_standard_error(trial.user_attrs, trial.system_attrs)
        if error is None and math.isfinite(value) and self.study.definition.configured:
            error = self._sampling_error(trial, value, facts)
        seed = trial.params.get(SEED, read_whole(trial.user_attrs, TRIAL_SEED))
        key = make_key({name: each for name, each in trial.params.items() if name != SEED})
        row = (score, math.nan if error is None else error, key, seed if isinstance(seed, int) else trial.number)
        self._rows[trial._trial_id] = row
        return row

    def _sampling_error(self, trial: FrozenTrial, value: float, facts: DataFacts | None) -> float | None:
        definition = self.study.definition
        if definition.objectives[0].metric != "val_accuracy":
            return None
        share = str(trial.params.get("validation"))
        if share not in self._counts:
            try:
                config = definition.config(self.study.space.values(trial.params))
            except RequestError:
                return None  # it was added by others
            self._counts[share] = count_validation_samples(definition, config, lambda: self._baseline, facts)
        return binomial_error(value, self._counts[share])


def _choose_counts(search: Search, most: int) -> Iterator[int]:
    """Yield the numbers of trials after which the outlook is judged: each, and from 200 on in steps of a hundredth,
    and the last of the budget.
    """
    count = search.fewest
    while count <= most:
        yield count
        after = count + max(1, count // 100)
        count = search.trials if count < search.trials < after else after


def _number_repeats(rows: Sequence[tuple[Key, int]], *, learned: bool) -> Array:
    """Return a number for each configuration that was trained from several seeds, -1 for the others: (N,).

    Of models a repeat from the same seed says nothing; of an objective function every call may be from another.
    """
    seeds: dict[Key, set[int]] = {}
    for place, (key, seed) in enumerate(rows):
        seeds.setdefault(key, set()).add(place if learned else seed)
    numbers = {key: number for number, key in enumerate(key for key, found in seeds.items() if len(found) > 1)}
    return np.array([numbers.get(key, -1) for key, _ in rows])


def describe_search(definition: Definition, trials: int) -> Search:
    """Return the plan of a study of that many trials as the rule needs it."""
    sampler, objective = definition.sampler, definition.objectives[0]
    least, most = metric_range(objective.metric)
    limit = most if objective.direction == "maximize" else -least
    if definition.foreign:
        return Search(trials, count_startup_trials("tpe", {}), limit)  # Optuna's default, for it is not recorded
    adaptive = sampler.name != "random" if definition.learned else not SAMPLERS[sampler.name].fixed
    return Search(trials, count_startup_trials(sampler.name, sampler.options) if adaptive else None, limit)


# Noise.


def binomial_error(share: float, count: int | None) -> float | None:
    """Return the standard error of a share p of n samples, sqrt(p (1 - p) / n); None if their number is not known."""
    if not count:
        return None
    # Of a share of 1 the formula gives 0; half a sample (a continuity correction) keeps it honest.
    p = min(max(share, 0.5 / count), 1 - 0.5 / count)
    return math.sqrt(p * (1 - p) / count)


def count_validation_samples(
    definition: Definition, config: TrialConfig, baseline: Callable[[], TrialConfig], facts: DataFacts | None
) -> int | None:
    """Count the samples that a configuration is validated on, once each in folds; None where that is not known.

    Args:
        definition: of the study.
        config: the configuration.
        baseline: returns the study's baseline, whose split was looked at.
        facts: what was found in it.
    """
    validation, samples = config.validation, definition.dataset.samples
    if definition.resampling is not None and definition.resampling.folds is not None:
        return (samples if facts is None else facts.scored) or None
    if not validation:
        return None
    if facts is not None and validation == baseline().validation:
        return facts.validation or None  # as they were counted: groups are whole, and a file may have its own
    if validation >= 1:
        return round(validation)
    return round(validation * samples) or None if samples else None


def explain_unsettled(outlook: Outlook | None, definition: Definition, trials: int) -> str:
    """Say in a few words why a study of that many trials has not settled."""
    if outlook is None:
        return f"{describe_search(definition, trials).fewest} trials must have ended"
    if math.isnan(outlook.noise):
        return (
            f"the noise of its values is not known: {NOISE_OF_MODELS if definition.configured else NOISE_OF_FUNCTIONS}"
        )
    return outlook.describe()


def refuse_unsettled(definition: Definition) -> str | None:
    """Return why a study can never settle, in a line; None if it can, as far as is known before its first trial."""
    if (count := len(definition.objectives)) > 1:
        return f"needs a single objective, but the study has {count}"
    if not definition.learned and definition.sampler.name == "grid":
        return "a grid is trained in order, so its trials so far say nothing of the rest; take sampler random or tpe"
    metric = definition.objectives[0].metric
    if definition.configured and metric not in KINDS and not _measures_noise(definition):
        return f"needs the noise of {metric}, which one fit of a configuration does not tell; {NOISE_OF_MODELS}"
    return None


def explain_short_budget(definition: Definition, budget: Budget) -> str | None:
    """Return why a study has too few trials to settle, and how many it needs, in a line; None if it has enough."""
    fewest = describe_search(definition, budget.trials).fewest
    if budget.until != SETTLED or budget.trials > fewest:
        return None
    return (
        f'until = "settled": {budget.trials} trials are too few; {fewest} must have ended before it can be told, so '
        "give more with --trials"
    )


def _measures_noise(definition: Definition) -> bool:
    """Tell whether a trial has several fits, or a space the seed."""
    return len(definition.fits) > 1 or any(dimension.parameter.name == SEED for dimension in definition.space.varied)
