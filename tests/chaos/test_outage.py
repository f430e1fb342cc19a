"""A database that goes away: for a moment, for good, and while a worker is asked to stop."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hpo.storage import write_behind
from hpo.study import StudyStorage
from tests import servers
from tests.chaos.fleet import Fleet, WorkerProcess
from tests.chaos.harness import STUDY, Case, check_study, make_study
from tests.chaos.outage import checkpointed, outage, wait_for
from tests.servers import Postgres
from tests.study.helpers import holder

LONG = Case("random", "none", 1, workers=2, trials=3, epochs=100, samples=1000, kills=0, stops=0, limit=400, least=0)
ONE = replace(LONG, workers=1, trials=1, epochs=240, samples=4000)


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    if servers.POSTGRES is None:
        pytest.skip("PostgreSQL's programs are missing")
    with servers.postgres_server() as started:
        yield started


def test_for_some_seconds_nothing_is_lost_and_training_goes_on(server: Postgres, tmp_path: Path) -> None:
    outage(server, tmp_path, LONG, 3, print)


def ended(worker: WorkerProcess) -> str:
    """The last line of a worker that has ended; it has shown no traceback."""
    assert "Traceback" not in worker.text, worker.text
    return worker.text.strip().splitlines()[-1]


@pytest.mark.parametrize("stop", ["for longer than patience lasts", "and the worker is asked to stop"])
def test_a_worker_without_a_database_checkpoints_and_ends_in_one_line(
    stop: str, server: Postgres, tmp_path: Path
) -> None:
    asked = "asked" in stop
    case = replace(ONE, epochs=160) if asked else ONE
    study = make_study(server.url, tmp_path, case)
    with Fleet(STUDY, server.url, tmp_path / "home", patience=None if asked else 1.5) as fleet:
        fleet.start()
        [worker] = fleet.workers
        wait_for(lambda: bool(checkpointed(fleet)))
        server.stop()
        [before] = checkpointed(fleet).values()
        try:
            wait_for(lambda: "does not answer" in worker.text)
            began = time.monotonic()
            if asked:
                worker.process.send_signal(signal.SIGTERM)
            code = worker.process.wait(120)
            took = time.monotonic() - began
        finally:
            server.start()
        assert code == (128 + signal.SIGTERM if asked else 1)
        assert took < 10
        if not asked:
            assert "does not answer" in ended(worker)
            assert "gave up after" in ended(worker)
        [after] = checkpointed(fleet).values()
        assert after > before or asked

        fleet.start()
        again = fleet.workers[1]
        assert again.process.wait(60) == 0
        [attempt] = again.attempts()
        assert attempt.resumed == after
        check_study(case, study)
    study.storage.engine.dispose()


@pytest.mark.parametrize("pruner", ["none", "median", "percentile", "asha", "hyperband"])
def test_a_report_and_its_pruner_need_no_database(
    pruner: str, server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(server.url, tmp_path, replace(ONE, pruner=pruner))
    claim = study.claim(holder())
    assert claim is not None
    study.suggest_config(claim)
    monkeypatch.setattr(write_behind, "STALE", 0.0)
    server.stop()
    try:
        study.storage.retry_policy.stop_requested = lambda: pytest.fail("the database is waited for")
        for epoch in range(1, 30):
            study.storage.record_epoch(claim.id, epoch, {"epoch": epoch})
            claim.trial.report(1 / epoch, epoch)
            claim.trial.should_prune()
        study.trials()
        assert study.storage.holds(claim.id)  # training goes on, and what it has done may be kept
    finally:
        study.storage.retry_policy.stop_requested = lambda: False
        server.start()
    study.storage.flush()
    other = StudyStorage(server.url)
    assert len(other.get_trial(claim.id).intermediate_values) == 29
    for storage in (other, study.storage):
        storage.engine.dispose()
