"""A PostgreSQL that goes away in the middle of a study and comes back."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from tests.chaos.fleet import Fleet
from tests.chaos.harness import STUDY, Case, check, make_study
from tests.servers import Postgres

__all__ = ["Outage", "checkpointed", "outage", "wait_for"]


@dataclass(frozen=True)
class Outage:
    """How long the database was away, the epochs in checkpoints before and after, and how long the study took."""

    down: float
    before: int
    after: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.seconds:.0f} s; the database was away for {self.down:.0f} s, "
            f"in which {self.after - self.before} epochs were trained and checkpointed; no worker died"
        )


def wait_for(what: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until something is so.

    Raises:
        AssertionError: it is not.
    """
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "it did not come to be"
        time.sleep(0.05)


def checkpointed(fleet: Fleet) -> dict[str, int]:
    """How many epochs each checkpoint holds, by its file's name."""
    files = (fleet.home / "checkpoints").rglob("[0-9]*.pt")
    return {path.name: len(torch.load(path, weights_only=True)["history"]) for path in files}


def outage(server: Postgres, folder: Path, case: Case, down: float, say: Callable[[str], None]) -> Outage:
    """Stop the database for `down` seconds while all workers train, start it again, and check the study at its end.

    Raises:
        AssertionError: something was lost, or a worker died.
    """
    study = make_study(server.url, folder, case)
    began = time.monotonic()
    with Fleet(STUDY, server.url, folder / "home", lease=10) as fleet:
        fleet.start(case.workers)
        wait_for(lambda: len(checkpointed(fleet)) == case.workers, case.limit)
        server.stop()
        since, before = time.monotonic(), checkpointed(fleet)
        while time.monotonic() < since + down:
            time.sleep(0.1)
        after = checkpointed(fleet)
        assert len(fleet.live) == case.workers, "a worker died while the database was away"
        server.start()
        away = time.monotonic() - since
        fleet.join(case.limit)
        done = Outage(away, sum(before.values()), sum(after.values()), time.monotonic() - began)
        say(str(done))
        assert done.after > done.before, "nothing was trained meanwhile"
        assert all("answers again" in worker.text for worker in fleet.workers)
        check(case, study, fleet, [])
    study.storage.engine.dispose()
    return done
