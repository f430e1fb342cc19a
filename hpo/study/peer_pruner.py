"""Median and percentile pruners that compare a trial with all that have come as far, and not with finished ones
alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from typing_extensions import override

__all__ = ["PeerPercentilePruner"]


class PeerPercentilePruner(optuna.pruners.PercentilePruner):
    """Pruner of trials that are not among the best `percentile` of all that have come as far.

    A trial's best value so far is compared with what the others had at its epoch, whether they train, have finished or
    were pruned there. Those that were pruned earlier have no value at that epoch, and count as worse: without them the
    share would be taken anew at each epoch, and of nine epochs' halves next to nothing would be left. Nobody is pruned
    at an epoch that fewer than `n_startup_trials` others have reached. Optuna's own pruner looks at COMPLETE trials
    alone, of which the first cohort of a study has none.
    """

    @override
    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        step = trial.last_step
        if step is None or not self._is_due(step, trial):
            return False
        others = [each for each in study.get_trials(deepcopy=False) if each.number != trial.number]
        values = [each.intermediate_values[step] for each in others if step in each.intermediate_values]
        if len(values) < max(self._n_startup_trials, self._n_min_trials, 1):
            return False
        pruned = sum(each.state == TrialState.PRUNED and -1 < _last(each) < step for each in others)
        sign = 1 if study.direction == StudyDirection.MINIMIZE else -1
        limit = _percentile(sorted(sign * value for value in values), pruned, self._percentile)
        return min(sign * value for value in trial.intermediate_values.values()) > limit

    def _is_due(self, step: int, trial: FrozenTrial) -> bool:
        """Return whether this is the first report at or after a step at which trials are judged."""
        if step < self._n_warmup_steps:
            return False
        judged = step - (step - self._n_warmup_steps) % self._interval_steps
        return all(earlier < judged for earlier in trial.intermediate_values if earlier != step)


def _last(trial: FrozenTrial) -> int:
    return -1 if trial.last_step is None else trial.last_step


def _percentile(values: Sequence[float], worse: int, percentile: float) -> float:
    """Return the percentile of ascending values and `worse` more above them; infinity where it is among those."""
    place = (len(values) + worse - 1) * percentile / 100
    return float(np.interp(place, np.arange(len(values)), values, right=np.inf))
