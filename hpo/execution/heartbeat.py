"""Heartbeat of a worker: a thread that renews its leases and receives requests to stop."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress

import sqlalchemy.exc

from hpo.errors import StorageLostError, StudyDeletedError
from hpo.execution.watchdog import Watchdog
from hpo.storage.identity import StudyIdentity
from hpo.storage.leases import WorkerInfo
from hpo.storage.study_storage import StudyStorage
from hpo.storage.worker_stats import WorkRecorder

__all__ = ["Heartbeat"]

log = logging.getLogger("hpo.study")
LONGEST_PAUSE = 5.0  # seconds between two beats, after which `hpo stop` is noticed at the latest
STALLED = (
    "training has not come back from a step for %.0f s (the longest before took %.0f s); its leases are not renewed, so"
    " that another worker takes its trials over\n%s"
)


class Heartbeat:
    """Context in which a worker is listed with its study, and a thread renews its leases and writes its statistics.

    It needs a thread of its own because a training step may take longer than a lease. A worker whose process is
    suspended or killed loses its leases, and so does one whose training does not get on.

    Args:
        storage, study: the study, and what it is known by.
        worker: the worker.
        work: recorder of its time and counts.
        watchdog: of its training.
        on_overdue: called from the thread when training exceeds its time and comes back to no step.

    Attributes:
        stop: true once the worker is asked to stop.
    """

    def __init__(
        self,
        storage: StudyStorage,
        study: StudyIdentity,
        worker: WorkerInfo,
        work: WorkRecorder | None = None,
        watchdog: Watchdog | None = None,
        on_overdue: Callable[[], object] = lambda: None,
    ) -> None:
        self._storage, self._study, self._worker, self._work = storage, study, worker, work
        self._watchdog, self._on_overdue = watchdog or Watchdog(), on_overdue
        self._stalled = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hpo-heartbeat", daemon=True)
        self.stop = False

    def __enter__(self) -> Heartbeat:
        self._storage.register_worker(self._study.study_id, self._worker)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(LONGEST_PAUSE)
        self.unregister()

    def unregister(self) -> None:
        """Remove the worker from the study's list."""
        if self._storage.is_unavailable:
            return  # only ten seconds are left to stop in; the worker will be listed as gone, if anywhere
        try:
            self._storage.unregister_worker(self._worker, self._work)
        except StorageLostError as error:
            self._storage.loss = error
        except sqlalchemy.exc.SQLAlchemyError as error:
            log.warning("worker %s will be listed as gone: %s", self._worker.name, self._storage.explain(error))

    def _run(self) -> None:
        while not self._ended.wait(min(LONGEST_PAUSE, self._worker.seconds / 4)):
            try:
                self.beat()
            except (StorageLostError, StudyDeletedError):
                return  # the storage has noted it, and the worker ends

    def beat(self) -> None:
        """Renew the leases, unless training does not get on.

        Raises:
            StorageLostError, StudyDeletedError: the database or the study was deleted or replaced.
        """
        if self._watchdog.overdue():
            self._on_overdue()
        if stalled := self._watchdog.stalled():
            if not self._stalled:
                log.error(STALLED, *stalled, self._watchdog.stack())
            self._stalled = True
            return
        self._stalled = False
        with suppress(sqlalchemy.exc.SQLAlchemyError):  # the storage has noted it, and logs it once
            self.stop = self._storage.renew_leases(self._worker, self._work, self._study) or self.stop
