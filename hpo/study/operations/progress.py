"""Progress of a study: counts, best value, workers and remaining time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from optuna.trial import FrozenTrial, TrialState

from hpo.study.attributes import read_text
from hpo.study.operations.worker_status import WorkerState, read_worker_states
from hpo.study.paused import state_name
from hpo.study.study import Study
from hpo.utils.text import quantity

__all__ = ["Progress", "describe_rest", "explain_no_result", "read_progress"]


@dataclass(frozen=True)
class Progress:
    """Progress of a study at one moment.

    Attributes:
        counts: number of trials by state.
        budget: number of trials in all.
        remaining: trials that are not finished.
        best_value, best_number: of the best COMPLETE trial, or None.
        workers: the workers that are listed with the study.
        seconds_left: an estimate, or None while there is no pace to estimate it from.
    """

    counts: dict[str, int]
    budget: int
    remaining: int
    best_value: float | None
    best_number: int | None
    workers: list[WorkerState]
    seconds_left: float | None

    @property
    def text(self) -> str:
        """The progress in a line of plain text."""
        counts = ", ".join(f"{count} {state}" for state, count in self.counts.items() if count)
        best = f"; best {self.best_value:.4f} (trial {self.best_number})" if self.best_value is not None else ""
        return (
            f"{self.budget - self.remaining}/{self.budget} trials ({counts or 'none yet'}){best}; {self.time_left} left"
        )

    @property
    def time_left(self) -> str:
        """The estimated remaining time in words."""
        if self.seconds_left is None:
            return "unknown time"
        minutes, seconds = divmod(round(self.seconds_left), 60)
        return (
            f"{minutes // 60} h {minutes % 60} min"
            if minutes >= 60
            else f"{minutes} min {seconds:02d} s"
            if minutes
            else f"{seconds} s"
        )


def read_progress(study: Study, since: datetime | None = None) -> Progress:
    """Read a study's progress.

    Args:
        study: the study.
        since: when the present workers began, in local time; the remaining time is estimated from their pace.
    """
    trials = study.trials()
    best = study.best()
    remaining = study.remaining()
    recent = [t for t in trials if t.datetime_complete and (since is None or t.datetime_complete >= since)]
    return Progress(
        counts=dict.fromkeys((state.name for state in TrialState), 0) | Counter(map(state_name, trials)),
        budget=max(study.budget.trials, len(trials)),
        remaining=remaining,
        best_value=best.values[0] if best else None,
        best_number=best.number if best else None,
        workers=read_worker_states(study, trials),
        seconds_left=_estimate_seconds(trials, len(recent), remaining, since),
    )


def _estimate_seconds(
    trials: Sequence[FrozenTrial], finished: int, remaining: int, since: datetime | None
) -> float | None:
    """Return the seconds for the remaining trials, at the pace since the present workers began.

    A trial in training that has taken longer than that is taken to be halfway through.
    """
    if remaining == 0:
        return 0.0
    if since is None or finished == 0:
        return None
    now = datetime.now()
    starts = [t.datetime_start for t in trials if t.state == TrialState.RUNNING and t.datetime_start is not None]
    longest = max(((now - start).total_seconds() for start in starts if start >= since), default=0.0)
    return max((now - since).total_seconds() / finished * remaining, longest)


def describe_rest(left: int, trials: int) -> str:
    """Return how many trials of a budget are left, as `3 of 10 trials are left`."""
    return f"{left} of {quantity(trials, 'trial')} {'is' if left == 1 else 'are'} left"


def explain_no_result(study: Study) -> str | None:
    """Return why a study that has ended has no result, in a line; None if it has one, or has not ended."""
    counts = study.storage.count_trials(study.id)
    ended = study.stop_reason() if study.remaining() else "its budget is used up"
    if counts[TrialState.COMPLETE] or ended is None:
        return None
    states = ", ".join(f"{count} {state.name}" for state, count in counts.items() if count) or "no trials"
    messages = Counter(read_text(trial.user_attrs, "message") for trial in study.trials())
    del messages[None]
    reason = f"the most frequent reason: {messages.most_common(1)[0][0]}" if messages else ended
    return f"study '{study.name}' has no complete trial ({states}); {reason}"
