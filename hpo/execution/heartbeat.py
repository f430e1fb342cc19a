"""A worker's sign of life: a thread that renews its leases and hears whether it is asked to stop."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress

import sqlalchemy.exc

from hpo.storage.leases import WorkerInfo
from hpo.storage.study_storage import StudyStorage
from hpo.storage.worker_stats import WorkRecorder

__all__ = ["LEASE", "Heartbeat"]

log = logging.getLogger("hpo.study")
LEASE = 60.0  # seconds: long enough for a busy machine, and what a trial waits after its worker has died
OFTEN = 5.0  # seconds between beats at most: `hpo stop` is heard as soon as that


class Heartbeat:
    """While it lasts, a worker is listed with its study, its leases are renewed, and what it has done is written, by a
    thread of their own.

    A training step may take longer than a lease; a worker whose process is stopped or killed loses its leases.

    Attributes:
        stop: whether the worker is asked to stop.
    """

    def __init__(
        self, storage: StudyStorage, study_id: int, holder: WorkerInfo, work: WorkRecorder | None = None
    ) -> None:
        self._storage, self._study_id, self._holder, self._work = storage, study_id, holder, work
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hpo-heartbeat", daemon=True)
        self.stop = False

    def __enter__(self) -> Heartbeat:
        self._storage.register_worker(self._study_id, self._holder)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(OFTEN)
        if self._storage.is_unavailable:
            return  # there are ten seconds to stop in; it will be listed as gone
        try:
            self._storage.unregister_worker(self._holder, self._work)
        except sqlalchemy.exc.SQLAlchemyError as error:
            log.warning("worker %s will be listed as gone: %s", self._holder.name, self._storage.explain(error))

    def _run(self) -> None:
        while not self._ended.wait(min(OFTEN, self._holder.seconds / 4)):
            with suppress(sqlalchemy.exc.SQLAlchemyError):  # the storage has noted it, and says so once
                self.stop = self._storage.renew_leases(self._holder, self._work) or self.stop
