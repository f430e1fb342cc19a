"""Status of a study's workers, wherever they run, and requests to stop them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial

from hpo.storage.leases import WorkerRow
from hpo.study.study import Study
from hpo.utils.pause import pause

__all__ = ["WorkerState", "format_trial_numbers", "read_worker_states", "stop_workers"]

SHOWN = 6  # trials of a cohort that a line lists
POLL = 0.25  # seconds between checks of which workers have stopped


@dataclass(frozen=True)
class WorkerState:
    """State of a worker at one moment.

    Attributes:
        name: unique to its process.
        host, pid, device: where it runs.
        trials: numbers of the trials it holds.
        epoch: the last epoch that they have reported; 0 before the first.
        epochs: their largest number of epochs; 0 while their parameters are not stored.
        seen: seconds since its last sign of life, by the database's clock.
        gone: whether its leases have expired, so that another worker takes its trials over.
    """

    name: str
    host: str
    pid: int
    device: str
    trials: tuple[int, ...]
    epoch: int
    epochs: int
    seen: float
    gone: bool


def format_trial_numbers(numbers: Sequence[int]) -> str:
    """Format a cohort's trials in a line: the first ones, and their number."""
    listed = " ".join(map(str, numbers[:SHOWN]))
    return f"{listed} … ({len(numbers)} trials)" if len(numbers) > SHOWN else listed


def read_worker_states(study: Study, trials: Iterable[FrozenTrial]) -> list[WorkerState]:
    """Read the states of the workers listed with a study, by name; those that ended in order are no longer listed."""
    by_id = {trial._trial_id: trial for trial in trials}
    rows = study.storage.read_workers(study.id)
    epochs = study.storage.read_last_epochs(study.id, [trial_id for row in rows for trial_id in row.trial_ids])
    definition = study.definition
    default = definition.baseline_config(study.space).epochs if definition.configured else 0

    def read_state(row: WorkerRow) -> WorkerState:
        held = [by_id[trial_id] for trial_id in row.trial_ids if trial_id in by_id]
        return WorkerState(
            name=row.name,
            host=row.host,
            pid=row.pid,
            device=row.device,
            trials=tuple(trial.number for trial in held),
            epoch=max((epochs.get(trial._trial_id, 0) for trial in held), default=0),
            epochs=max((int(trial.params.get("epochs", default)) for trial in held), default=0),
            seen=round(row.seen, 1),
            gone=row.gone,
        )

    return [read_state(row) for row in rows]


def stop_workers(
    study: Study,
    wait: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = pause,
) -> tuple[int, list[WorkerRow]]:
    """Ask all workers of a study to stop, and wait until they have stopped.

    Args:
        study: the study whose workers are asked.
        wait: the longest time to wait, in seconds.
        clock: a monotonic clock, in seconds.
        sleep: a function that waits a number of seconds.

    Returns:
        The number of workers asked, and those that have not stopped by then.
    """
    asked = study.storage.request_stop(study.id)
    deadline = clock() + wait
    while running := [row for row in study.storage.read_workers(study.id) if row.stop and not row.gone]:
        if clock() >= deadline:
            break
        sleep(POLL)
    return asked, running
