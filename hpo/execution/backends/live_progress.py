"""Live progress of a study while workers run: a table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

import optuna
import sqlalchemy.exc
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hpo.datasets import list_serious_issues
from hpo.errors import RunError, StorageLostError, StudyDeletedError
from hpo.execution.backends.base import WorkerHandle
from hpo.study import Study
from hpo.study.operations.progress import Progress, read_progress
from hpo.study.operations.worker_status import format_trial_numbers
from hpo.utils.pause import pause

__all__ = ["watch_study"]

POLL = 0.2  # seconds between two checks of the processes
REFRESH = 1.0  # seconds between two reads of the storage


def watch_study(study: Study, workers: Sequence[WorkerHandle], should_stop: Callable[[], bool]) -> list[str]:
    """Show progress on standard error until all workers have ended; return the reasons of those that failed.

    A request to stop is passed on to the workers once, and so is the loss of the database or the study. A failure is
    shown within seconds: other workers may go on for long. Where all fail for one reason, whoever called says it.

    Raises:
        StorageLostError, StudyDeletedError: the database or the study was deleted or replaced. Its workers have ended.
    """
    console = Console(stderr=True, highlight=False, markup=False)
    display: _Display = _Terminal(study.name, console) if console.is_terminal else _Lines(study.name, console)
    begin, stopping, last_read, reported = datetime.now(), False, 0.0, False
    failures: dict[int, str] = {}  # by the worker's place; read early, while the database still lists the worker
    unsaid: dict[int, float] = {}  # when a worker failed, until that is said
    running = set(range(len(workers)))
    loss: RunError | None = None
    warned = False
    try:
        while running:
            if (should_stop() or loss is not None) and not stopping:
                stopping = True
                if loss is None:
                    console.print("stopping: every worker releases its trials (a second signal stops at once)")
                for worker in workers:
                    worker.stop()
            if loss is None and time.monotonic() - last_read >= REFRESH:
                last_read = time.monotonic()
                try:
                    reported = _show(display, study, begin, console, reported)
                    warned = warned or (not reported and _warn_of_data(study, console))
                except (StorageLostError, StudyDeletedError) as error:
                    loss = error
            for i in [i for i in running if not workers[i].alive]:
                running.remove(i)
                if why := workers[i].failure:
                    failures[i], unsaid[i] = why, time.monotonic()
            for i in [i for i, failed in unsaid.items() if time.monotonic() - failed >= REFRESH]:
                del unsaid[i]
                if running and not stopping:
                    console.print(f"{failures[i]}; {len(running)} more at work", soft_wrap=True)
            if running:
                pause(POLL)
    except BaseException:  # a second signal, or a bug here: nobody else would stop them
        for worker in workers:
            worker.stop()
        raise
    finally:
        display.close()
    if loss is not None:
        raise loss
    return [failures[i] for i in sorted(failures)]


def _show(display: _Display, study: Study, begin: datetime, console: Console, reported: bool) -> bool:
    """Show progress; return true if the database did not answer, which is reported once: workers retry themselves."""
    try:
        display.show(read_progress(study, begin))
    except (sqlalchemy.exc.DBAPIError, optuna.exceptions.StorageInternalError) as error:
        if not reported:
            console.print(f"{study.storage.explain(error)}; the workers go on for up to 5 minutes", soft_wrap=True)
        return True
    return False


def _warn_of_data(study: Study, console: Console) -> bool:
    """Show what is wrong with the data so that scores cannot be trusted; return false before a worker has looked."""
    try:
        facts = study.data_facts
    except (sqlalchemy.exc.DBAPIError, optuna.exceptions.StorageInternalError):
        return False
    for line in [] if facts is None else list_serious_issues(facts):
        console.print(line, soft_wrap=True)
    return facts is not None


class _Display(Protocol):
    """Display of progress."""

    def show(self, now: Progress) -> None: ...

    def close(self) -> None: ...


class _Lines:
    """Display of a plain line whenever a trial has finished."""

    def __init__(self, name: str, console: Console) -> None:
        self.name = name
        self.console = console
        self.finished = 0

    def show(self, now: Progress) -> None:
        finished = now.budget - now.remaining
        if finished != self.finished:
            self.finished = finished
            self.console.print(f"{self.name}: {now.text}", soft_wrap=True)

    def close(self) -> None:
        pass


class _Terminal:
    """Display, redrawn in place, of a line with counts, the best value and the time left, and of a row per worker."""

    def __init__(self, name: str, console: Console) -> None:
        self.name = name
        self.live = Live(console=console, auto_refresh=False, transient=True)
        self.live.start()

    def show(self, now: Progress) -> None:
        table = Table("worker", "trial", "epoch", box=None, header_style="dim", pad_edge=False)
        for worker in now.workers:
            at = f"{worker.epoch}/{worker.epochs}" if worker.trials else "gone" if worker.gone else ""
            table.add_row(worker.name, format_trial_numbers(worker.trials), at)
        self.live.update(Group(Text(f"{self.name}: {now.text}", style="bold"), table), refresh=True)

    def close(self) -> None:
        self.live.stop()
