"""Where a study stands at one moment: counts, the best so far, what each worker is at, the time left."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from optuna.trial import TrialState

from hpo.study.operations.worker_status import WorkerState, read_worker_states
from hpo.study.study import Study

__all__ = ["Progress", "read_progress"]


@dataclass(frozen=True)
class Progress:
    """A study's state counts, its best COMPLETE trial, its workers, and an estimate of the seconds left."""

    counts: dict[str, int]
    budget: int
    remaining: int
    best_value: float | None
    best_number: int | None
    workers: list[WorkerState]
    seconds_left: float | None

    @property
    def text(self) -> str:
        """One plain line."""
        counts = ", ".join(f"{count} {state}" for state, count in self.counts.items() if count)
        best = f"; best {self.best_value:.4f} (trial {self.best_number})" if self.best_value is not None else ""
        return (
            f"{self.budget - self.remaining}/{self.budget} trials ({counts or 'none yet'}){best}; {self.time_left} left"
        )

    @property
    def time_left(self) -> str:
        """The estimate in words."""
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
    """A study's progress. `since` is when the present workers began; the time left follows from their pace."""
    trials = study.trials()
    best = study.best()
    remaining = study.remaining()
    recent = [t for t in trials if t.datetime_complete and (since is None or t.datetime_complete >= since)]
    return Progress(
        counts={state.name: sum(t.state == state for t in trials) for state in TrialState},
        budget=max(study.budget.trials, len(trials)),
        remaining=remaining,
        best_value=best.values[0] if best else None,
        best_number=best.number if best else None,
        workers=read_worker_states(study, trials),
        seconds_left=_estimate(len(recent), remaining, since),
    )


def _estimate(finished: int, remaining: int, since: datetime | None) -> float | None:
    """Trials left at the pace of those that have finished since the present workers began."""
    if remaining == 0:
        return 0.0
    if since is None or finished == 0:
        return None
    return (datetime.now() - since).total_seconds() / finished * remaining
