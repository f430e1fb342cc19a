"""A study's workers, wherever they run: what each is at, which are gone, and how they are asked to stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial

from hpo.storage.leases import WorkerRow
from hpo.study.study import Study

__all__ = ["WorkerState", "read_worker_states", "stop_workers", "summarize_workers"]

SHOWN = 6  # trials of a cohort that are named in a line
POLL = 0.25  # seconds between looks at who has stopped


@dataclass(frozen=True)
class WorkerState:
    """A worker at one moment.

    Attributes:
        name: unique to its process.
        host, pid, device: where it runs.
        trials: numbers of the trials it holds.
        epoch: the last epoch that they have reported; 0 where there is none.
        epochs: how many they go on for at most; 0 where they have not told their parameters yet.
        seen: seconds since it was last heard of, by the database's clock.
        gone: whether its leases have run out; another worker takes its trials over.
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


def summarize_workers(numbers: Sequence[int]) -> str:
    """A cohort's trials in a line: the first ones, and how many there are."""
    named = " ".join(map(str, numbers[:SHOWN]))
    return f"{named} … ({len(numbers)} trials)" if len(numbers) > SHOWN else named


def read_worker_states(study: Study, trials: Iterable[FrozenTrial]) -> list[WorkerState]:
    """The workers that are listed with a study, by name; those that ended in order are not."""
    by_id = {trial._trial_id: trial for trial in trials}
    rows = study.storage.read_workers(study.id)
    epochs = study.storage.read_last_epochs(study.id, [trial_id for row in rows for trial_id in row.trial_ids])
    default = study.definition.baseline_config(study.space).epochs

    def state(row: WorkerRow) -> WorkerState:
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

    return [state(row) for row in rows]


def stop_workers(
    study: Study,
    wait: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[int, list[WorkerRow]]:
    """Ask all workers of a study to stop, and wait until they have.

    Args:
        study: whose workers.
        wait: for so many seconds at most.
        clock: seconds that only grow.
        sleep: waits so many seconds.

    Returns:
        How many were asked, and those that have not ended by then.
    """
    asked = study.storage.request_stop(study.id)
    until = clock() + wait
    while left := [row for row in study.storage.read_workers(study.id) if row.stop and not row.gone]:
        if clock() >= until:
            break
        sleep(POLL)
    return asked, left
