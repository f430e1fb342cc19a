"""Real studies whose workers are killed and suspended at random moments, and what must be true of them afterwards."""

from __future__ import annotations

import contextlib
import json
import random
import re
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from hpo.study import Study, StudyStorage
from hpo.study.input.study_file import parse_definition
from tests.chaos import own_model
from tests.chaos.fleet import LOST, Fleet, WorkerProcess
from tests.data import small_npz

__all__ = ["ASHA", "Case", "Rows", "TrainResult", "check", "check_study", "make_study", "results", "run", "undisturbed"]

STUDY = "chaos"
SPREAD = 0.7  # of the trials are finished by the time of the last event
# With the first rung at the first epoch, most trials would be over before their workers could be killed.
ASHA = {"name": "asha", "min_resource": 4, "reduction_factor": 2}
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Case:
    """A study and what happens to it.

    Attributes:
        sampler, pruner: of the study.
        seed: of the moments; the study's own is always the same.
        workers: at a time; one that is killed is replaced.
        trials, epochs, samples: the size of the study, of a trial and of the data.
        kills, stops: how many workers are killed, and how many suspended until their trial has been taken over.
        least: so many kills there must have been before the study ended.
        limit: seconds in which all must have ended.
        cohorts: how many trials a worker trains at the same time, worker by worker.
        own_model: whether the model is one of the user's own.
    """

    sampler: str
    pruner: str | dict[str, Any]
    seed: int
    workers: int
    trials: int
    epochs: int
    samples: int
    kills: int
    stops: int
    limit: float
    least: int
    cohorts: tuple[int, ...] = (1,)
    own_model: bool = False

    @property
    def imports(self) -> list[str]:
        """Modules that register what the study uses."""
        return [own_model.__name__] if self.own_model else []


@dataclass
class TrainResult:
    """What happened.

    Attributes:
        seconds: from the first worker's start to the last one's end.
        kills, stops: how many there were.
        dropped: trials that a suspended worker found taken over.
        takeovers: attempts at a trial after its first.
        resumed: epochs that were not trained again, because a checkpoint had them.
        lost: seconds of training that were repeated or thrown away.
    """

    seconds: float = 0.0
    kills: int = 0
    stops: int = 0
    dropped: int = 0
    takeovers: int = 0
    resumed: int = 0
    lost: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.seconds:.0f} s; {self.kills} kills, {self.stops} stops ({self.dropped} trials dropped), "
            f"{self.takeovers} takeovers, {self.resumed} resumed epochs, {self.lost:.1f} s of training lost"
        )


def make_study(url: str, folder: Path, case: Case) -> Study:
    """The study in a storage, in place of one that was there; small networks, whose epochs take a tenth of a second."""
    folder.mkdir(parents=True, exist_ok=True)
    parameters = {
        "epochs": case.epochs,
        "batch_size": 32,
        "optimizer": ["adam", "momentum"],
        "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "dropout": [0.0, 0.2],
    }
    if case.own_model:
        parameters |= {"model": own_model.NAME, "width": [8, 16]}
    else:
        parameters |= {"widths": ["16", "32", "32-16"], "batch_norm": [False, True]}
    table = {"dataset": str(small_npz(folder / "small.npz", case.samples)), "trials": case.trials}
    table |= {"objective": "val_loss", "sampler": case.sampler, "pruner": case.pruner, "parameters": parameters}
    name, definition, budget = parse_definition(table, STUDY, folder)
    storage = StudyStorage(url)
    if name in [study.study_name for study in storage.get_all_studies()]:
        storage.delete_study(storage.get_study_id_from_name(name))
    return Study.create(storage, name, definition, budget)


# What happens.


class Mischief:
    """Kills and suspends the workers of a fleet that hold a trial.

    A suspended worker is woken once its trial has been taken over, while the next one trains it. It is not killed
    before it has gone on with another. The first to be killed, and every other one after it, has written a checkpoint
    of its trial: however slow the machine is, a trial has to go on from one. And none is killed before all its trials
    have got farther than at their last kill, for a trial that kills one worker after the other would be given up.
    """

    def __init__(self, fleet: Fleet, study: Study, seed: int) -> None:
        self._fleet, self._study = fleet, study
        self._random = random.Random(seed)
        self._asleep: dict[int, tuple[int, int, float]] = {}  # by pid: trial, attempt, the latest time to wake it
        self._spared: set[int] = set()
        self._kills = 0
        self._killed: dict[int, int] = {}  # by the number of a trial: when its checkpoint had been written
        self.taken: list[WorkerProcess] = []

    def done(self) -> int:
        paused = "trial_id IN (SELECT trial_id FROM trial_system_attributes AS a WHERE a.key = 'hpo:paused')"
        ended = f"(state IN ('COMPLETE', 'PRUNED') OR {paused})"
        return len(query(self._study, f"SELECT number FROM trials WHERE study_id = :s AND {ended}"))

    def tick(self) -> None:
        """Wake whoever has slept long enough."""
        time.sleep(0.02)
        for worker in self._fleet.live:
            if worker.pid not in self._asleep:
                continue
            trial_id, attempt, latest = self._asleep[worker.pid]
            rows = query(
                self._study, "SELECT attempt FROM hpo_leases WHERE study_id = :s AND trial_id = :t", t=trial_id
            )
            taken = bool(rows) and rows[0].attempt > attempt
            if taken or not rows or time.monotonic() > latest:
                self.taken += [worker] if taken else []
                del self._asleep[worker.pid]
                worker.wake()

    def strike(self, event: str) -> bool:
        """Do that to a worker which holds a trial, at a random moment; false where there is none."""
        until = time.monotonic() + self._random.uniform(0, 0.3)
        while time.monotonic() < until:
            self.tick()
        rows = query(self._study, HELD)
        held = {row.pid: row for row in rows}
        self._spared = {w.pid for w in self._fleet.live if w.pid in self._spared and not w.went_on}
        living = [w for w in self._fleet.live if w.pid in held and w.pid not in self._spared]
        written = self._read_checkpoints()
        if event == "kill":
            savers = {row.pid for row in rows if row.number in written or self._kills % 2}
            stuck = {row.pid for row in rows if self._killed.get(row.number) == written.get(row.number, 0)}
            living = [w for w in living if w.pid in savers - stuck]
        if not living:
            return False
        worker = self._random.choice(living)
        if event == "kill":
            self._kills += 1
            self._killed |= {row.number: written.get(row.number, 0) for row in rows if row.pid == worker.pid}
            worker.kill()
            self._fleet.start()
        else:
            worker.suspend()
            self._spared.add(worker.pid)
            row = held[worker.pid]
            self._asleep[worker.pid] = (row.trial_id, row.attempt, time.monotonic() + 60)
        return True

    def _read_checkpoints(self) -> dict[int, int]:
        """Return when the checkpoints of trials were written, in nanoseconds, by the trials' numbers."""
        written = {}
        for path in (self._fleet.home / "checkpoints").rglob("*.pt"):
            with contextlib.suppress(FileNotFoundError):  # its trial has ended
                if path.stem.isdecimal():
                    written[int(path.stem)] = path.stat().st_mtime_ns
        return written


HELD = """SELECT w.pid, l.trial_id, l.attempt, t.number FROM hpo_leases l JOIN hpo_workers w ON w.worker = l.worker
          JOIN trials t ON t.trial_id = l.trial_id WHERE l.study_id = :s AND t.state = 'RUNNING'"""


def query(study: Study, text: str, **given: Any) -> list[Any]:
    """Rows, past all that the storage keeps."""
    with study.storage.engine.connect() as connection:
        return list(connection.execute(sa.text(text), {"s": study.id, **given}))


def run(case: Case, url: str, folder: Path, say: Callable[[str], None]) -> Rows:
    """Run a study under kills, say what happened, and check what has become of it; returns its results.

    Raises:
        AssertionError: something was lost.
    """
    study = make_study(url, folder, case)
    outcome = TrainResult()
    began = time.monotonic()
    with Fleet(STUDY, url, folder / "home", cohorts=case.cohorts, imports=case.imports) as fleet:
        fleet.start(case.workers)
        mischief = Mischief(fleet, study, case.seed)
        events = ["kill"] * case.kills + ["stop"] * case.stops
        random.Random(case.seed).shuffle(events)
        for i, event in enumerate(events):
            # Spread over the study: all of them while a part of it is left.
            struck = False
            while fleet.live and not struck:
                struck = mischief.done() >= SPREAD * case.trials * i / len(events) and mischief.strike(event)
                mischief.tick()
                assert time.monotonic() - began < case.limit, "the study does not come to its end"
            outcome.kills += struck and event == "kill"
            outcome.stops += struck and event == "stop"
        assert outcome.kills >= case.least, f"the study had ended after {outcome.kills} kills"
        while fleet.live:
            mischief.tick()
            assert time.monotonic() - began < case.limit, "the study does not come to its end"
        outcome.seconds = time.monotonic() - began
        _account(study, fleet, outcome)
        say(str(outcome))
        check(case, study, fleet, mischief.taken)
    assert outcome.resumed > 0, "no trial went on where it was interrupted"
    rows = results(study)
    study.storage.engine.dispose()
    return rows


def _account(study: Study, fleet: Fleet, outcome: TrainResult) -> None:
    attempts = list(fleet.attempts())
    outcome.resumed = sum(attempt.resumed for attempt in attempts)
    outcome.dropped = sum(attempt.end == LOST for attempt in attempts)
    worked: dict[int, list[float]] = defaultdict(list)
    for attempt in attempts:
        worked[attempt.number].append(attempt.seconds)
    outcome.takeovers = sum(len(each) - 1 for each in worked.values())
    for trial in study.trials():
        if len(worked[trial.number]) > 1:
            outcome.lost += max(0.0, sum(worked[trial.number]) - trial.user_attrs["train_seconds"])


def undisturbed(case: Case, folder: Path) -> Rows:
    """What becomes of the study where one worker trains it, and nothing happens."""
    url = f"sqlite:///{folder / 'studies.db'}"
    study = make_study(url, folder, case)
    with Fleet(STUDY, url, folder / "home", imports=case.imports) as fleet:
        fleet.start()
        fleet.join(case.limit)
    return results(study)


# What must be true.


def results(study: Study) -> Rows:
    """Every trial's parameters, value and metrics, without the times."""
    epochs = study.storage.read_epochs(study.id)
    return [
        {
            "number": trial.number,
            "params": trial.params,
            "value": trial.value,
            "reported": trial.intermediate_values,
            "metrics": [{k: v for k, v in row.items() if k != "seconds"} for row in epochs[trial._trial_id]],
        }
        for trial in study.trials()
    ]


def check(case: Case, study: Study, fleet: Fleet, taken: list[WorkerProcess]) -> None:
    """All that must be true of a study that has ended, whatever happened to its workers."""
    check_study(case, study)
    _check_left(study, fleet, taken)
    _check_workers(fleet, taken)


def check_study(case: Case, study: Study) -> None:
    """Exact numbers, every epoch once, and every value that of its best epoch."""
    _check_trials(case, study)
    _check_reports(case, study)


def _check_trials(case: Case, study: Study) -> None:
    trials = query(study, "SELECT number, state FROM trials WHERE study_id = :s ORDER BY number")
    assert [row.number for row in trials] == list(range(case.trials)), "the numbers are not exact"
    states = {row.state for row in trials}
    assert states <= {"COMPLETE", "PRUNED"}, f"trials are left {states}"
    assert case.pruner != "none" or states == {"COMPLETE"}, "trials were pruned without a pruner"


def _check_reports(case: Case, study: Study) -> None:
    mine = "trial_id IN (SELECT trial_id FROM trials WHERE study_id = :s)"
    epochs: dict[int, dict[int, float]] = defaultdict(dict)
    for row in query(study, f"SELECT trial_id, epoch, metrics FROM hpo_epochs WHERE study_id = :s AND {mine}"):
        assert row.epoch not in epochs[row.trial_id], f"trial id {row.trial_id}: epoch {row.epoch} is there twice"
        epochs[row.trial_id][row.epoch] = json.loads(row.metrics)["val_loss"]
    reported: dict[int, dict[int, float]] = defaultdict(dict)
    text = f"SELECT trial_id, step, intermediate_value AS value FROM trial_intermediate_values WHERE {mine}"
    for row in query(study, text):
        assert row.step not in reported[row.trial_id], f"trial id {row.trial_id}: step {row.step} is there twice"
        reported[row.trial_id][row.step] = row.value
    text = """SELECT t.trial_id, t.number, t.state, v.value FROM trials t
              LEFT JOIN trial_values v ON v.trial_id = t.trial_id WHERE t.study_id = :s"""
    best = []
    for row in query(study, text):
        steps, where = epochs[row.trial_id], f"trial {row.number} ({row.state})"
        assert sorted(steps) == list(range(1, len(steps) + 1)), f"{where}: has the epochs {sorted(steps)}"
        assert row.state == "PRUNED" or len(steps) == case.epochs, f"{where}: has only {len(steps)} epochs"
        assert reported[row.trial_id] == steps, f"{where}: what was reported is not what was recorded"
        assert row.value == min(steps.values()), f"{where}: its value {row.value} is not its best epoch's"
        best += [row.value] if row.state == "COMPLETE" else []
    found = study.best()
    assert found is not None
    assert found.value == min(best), "the study's best value is not the best of its trials"


def _check_left(study: Study, fleet: Fleet, taken: list[WorkerProcess]) -> None:
    leases = query(study, "SELECT trial_id FROM hpo_leases WHERE study_id = :s")
    assert not leases, f"leases are left: {leases}"
    killed = {worker.name for worker in fleet.workers if worker.killed_at}
    listed = {row.worker for row in query(study, "SELECT worker FROM hpo_workers WHERE study_id = :s")}
    assert listed <= killed, f"workers are listed that ended in order: {listed - killed}"
    files = {path.name for path in (fleet.home / "checkpoints").rglob("*") if ".pt" in path.name}
    # One that is suspended as it publishes a checkpoint does so when it is woken, though the trial is over by then.
    late = {f"{attempt.number}.pt" for worker in taken for attempt in worker.attempts() if attempt.end == LOST}
    files = {name for name in files if name not in late}
    assert not files, f"checkpoints of finished trials are left: {sorted(files)}"


def _check_workers(fleet: Fleet, taken: list[WorkerProcess]) -> None:
    for worker in fleet.workers:
        if worker.killed_at is None:
            assert worker.process.returncode == 0, f"{worker.log}: ended with {worker.process.returncode}"
        wrong = re.search(r"Traceback|trial \d+ failed|could not be written", worker.text)
        assert not wrong, f"{worker.log}: {wrong and wrong[0]}"
    for worker in taken:
        ends = [attempt.end for attempt in worker.attempts()]
        assert LOST in ends, f"{worker.log}: it did not drop the trial that was taken over: {ends}"
        assert worker.went_on or "nothing left to begin" in worker.text, f"{worker.log}: it did not go on"
