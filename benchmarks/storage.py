"""Benchmark of storages, the cost of a trial beside its training: ours and plain Optuna's, in one process, in turns.

    python -m benchmarks.storage [--rounds 5] [--trials 10] [--races 3] [--url postgresql://me@host/name] [--quick]

Three tools run trials of a study that has 500 finished ones, each with 10 reports and as many questions to the median
pruner: plain Optuna, Optuna's `study.optimize` on a `StudyStorage`, and our worker, which really trains (a small data
set; training is not counted). Plain Optuna samples with its own defaults in the flat space and, like ours, with
`group=True` in the conditional one of the template `mlp`. Each round runs some trials of one tool after the other; the
figures are medians over the rounds. A call's time counts where it is spent: what a sampler asks of the storage is the
storage's. Statements are those of SQLAlchemy's engine, BEGIN among them.

Then many processes race through a study whose trials do nothing, on PostgreSQL: a server of its own, or that of `--url`
(also MariaDB or MySQL), where the studies are removed in the end. Nothing is sampled but uniformly, by both. Plain
Optuna ends with its `MaxTrialsCallback`.
"""

from __future__ import annotations

import argparse
import functools
import inspect
import multiprocessing
import os
import platform
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import optuna
import sqlalchemy as sa
from optuna.samplers import TPESampler
from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpo.space import Space
from hpo.storage.leases import WorkerInfo
from hpo.storage.url import normalize
from hpo.study import Budget, Study, StudyStorage
from hpo.study.input import templates
from hpo.study.input.study_file import parse_definition
from hpo.utils.documents import read_document
from tests import servers
from tests.data import small_npz
from tests.statements import FLAT, REPORTS, Statements

HISTORY = 500
PATIENCE = 600  # seconds that a process of the race waits for the others


# One process: time and statements per trial.


class Stopwatch:
    """Seconds by kind of work. A call within a call of another kind is not counted twice."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._kinds = ["rest"]
        self._since = time.perf_counter()

    def start(self) -> None:
        """Count from zero."""
        self.seconds.clear()
        self._since = time.perf_counter()

    def charge(self) -> None:
        """Add the time since the last switch to the present kind."""
        now = time.perf_counter()
        self.seconds[self._kinds[-1]] += now - self._since
        self._since = now

    @contextmanager
    def of(self, kind: str) -> Iterator[None]:
        """Count the time inside as of that kind."""
        self.charge()
        self._kinds.append(kind)
        try:
            yield
        finally:
            self.charge()
            self._kinds.pop()

    def wrap(self, owner: type, kind: str) -> None:
        """Let all public methods of a class be of that kind, in the main thread: others work beside it."""
        for name, method in inspect.getmembers(owner, inspect.isfunction):
            if not name.startswith("_"):
                setattr(owner, name, self.timed(method, kind))

    def timed(self, function: Callable[..., Any], kind: str) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **keys: Any) -> Any:
            if threading.current_thread() is not threading.main_thread():
                return function(*args, **keys)
            with self.of(kind):
                return function(*args, **keys)

        return call


watch = Stopwatch()


@dataclass
class Tool:
    """Something that runs trials, and what each round of it cost per trial: milliseconds by kind, and statements.

    `ready` prepares that many trials, untimed; what it returns runs them.
    """

    name: str
    ready: Callable[[int], Callable[[], None]]
    statements: Statements
    target: str = ""
    rounds: list[dict[str, float]] = field(default_factory=list)

    def measure(self, trials: int) -> None:
        run = self.ready(trials)
        watch.start()
        statements = self.statements.per(trials, run)
        watch.charge()
        spent = {kind: 1000 * seconds / trials for kind, seconds in watch.seconds.items() if kind != "training"}
        self.rounds.append({**spent, "total": sum(spent.values()), "sql": statements})

    def line(self) -> str:
        median = {kind: statistics.median(found[kind] for found in self.rounds) for kind in self.rounds[0]}
        totals = [found["total"] for found in self.rounds]
        times = "".join(f"{median[kind]:9.1f}" for kind in ("storage", "sampler", "rest"))
        return (
            f"{self.name:30}{median['total']:9.1f}{min(totals):8.1f}{max(totals):8.1f}{times}{median['sql']:8.1f}"
            f"  {self.target}"
        )


def history(space: Space) -> list[FrozenTrial]:
    """Finished trials of a space. All are so bad that the pruner stops none of those to come."""
    rng = np.random.default_rng(0)
    distributions = {dimension.key: dimension.domain.distribution() for dimension in space.varied}

    def finished(number: int) -> FrozenTrial:
        params = space.draw(rng.random(len(space.varied)).tolist())
        values = sorted(rng.uniform(0, 0.1, REPORTS).tolist())
        return create_trial(
            state=TrialState.COMPLETE if number % 3 else TrialState.PRUNED,
            value=values[-1],
            params=params,
            distributions={key: distributions[key] for key in params},
            intermediate_values=dict(enumerate(values, start=1)),
        )

    return [finished(number) for number in range(HISTORY)]


def optuna_tool(name: str, storage: RDBStorage | StudyStorage, space: Space, study_name: str, group: bool) -> Tool:
    """Return Optuna's own loop, over a storage."""
    study = optuna.create_study(
        study_name=study_name,
        storage=storage,
        direction="maximize",
        sampler=TPESampler(seed=0, group=group),
        pruner=optuna.pruners.MedianPruner(),
    )
    study.add_trials(history(space))

    def objective(trial: optuna.trial.Trial) -> float:
        space.suggest(trial)
        for step in range(1, REPORTS + 1):
            trial.report(step / 20, step)
            trial.should_prune()
        return 0.5

    def ready(trials: int) -> Callable[[], None]:
        return lambda: study.optimize(objective, n_trials=trials)

    return Tool(name, ready, Statements(storage.engine))


def worker_tool(url: str, space: Space, study_name: str, target: str, folder: Path) -> Tool:
    """Our worker, as `hpo worker` runs it."""
    from hpo.execution.worker import Worker
    from hpo.execution.worker_options import WorkerOptions
    from hpo.training import loop  # torch, which the processes of the race do without
    from hpo.training.callbacks import Callback
    from hpo.training.settings import TrainSettings

    def timed(callback: Callback) -> Callback:
        for event in ("on_start", "on_epoch", "on_end"):
            setattr(callback, event, watch.timed(getattr(callback, event), "rest"))
        return callback

    def train(configs: Any, data: Any, settings: TrainSettings, checkpoints: Any) -> Any:
        callbacks = [timed(callback) for callback in settings.callbacks]
        with watch.of("training"):
            return loop.train(configs, data, replace(settings, callbacks=callbacks), checkpoints)

    study = create(url, space, study_name, "tpe", trials=HISTORY, folder=folder)
    optuna.load_study(study_name=study_name, storage=StudyStorage(url)).add_trials(history(space))

    def ready(trials: int) -> Callable[[], None]:
        study.extend(Budget(trials=study.budget.trials + trials))
        worker = Worker(study, WorkerOptions(device="cpu", cpus=1, cohort=1))

        def run() -> None:
            with mock.patch("hpo.execution.worker.train", train):
                worker.run()
            assert sum(worker.finished.values()) == trials, worker.finished

        return run

    return Tool("our worker", ready, Statements(study.storage.engine), target)


def create(url: str, space: Space, name: str, sampler: object, trials: int, folder: Path) -> Study:
    """Create a study of ours on the small data set."""
    table = {"dataset": str(small_npz(folder / "small.npz")), "trials": trials, "sampler": sampler, "pruner": "median"}
    name, definition, budget = parse_definition({**table, "parameters": space.to_json()}, name, folder)
    return Study.create(StudyStorage(url), name, definition, budget)


def compare(
    title: str, space: Space, group: bool, target: str, urls: tuple[str, str], options: argparse.Namespace
) -> None:
    """Print the table of one space on one kind of database; the URLs are plain Optuna's and ours."""
    theirs, ours = urls
    name = f"benchmark {os.getpid()} {title}".replace(":", "")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        storages = RDBStorage(theirs), StudyStorage(ours)
        tools = [
            optuna_tool("plain Optuna", storages[0], space, f"{name} a", group),
            optuna_tool("study.optimize, StudyStorage", storages[1], space, f"{name} b", group),
            worker_tool(ours, space, f"{name} c", target, Path(folder)),
        ]
        for tail, storage in (("a", storages[0]), ("b", storages[1]), ("c", storages[1])):
            stack.callback(optuna.delete_study, study_name=f"{name} {tail}", storage=storage)
        for number in range(options.rounds + 1):
            for tool in tools if number % 2 else reversed(tools):
                tool.measure(options.trials)
        print(f"\n{title}")
        print(f"{'':30}{'ms':>9}{'min':>8}{'max':>8}{'storage':>9}{'sampler':>9}{'rest':>9}{'SQL':>8}  target")
        for tool in tools:
            del tool.rounds[0]  # the first round warms up
            print(tool.line(), flush=True)


# Many processes: trials per second, and how many trials there are in the end.

STARTUP = 10**9  # trials that TPE draws uniformly: all of them, but made one by one as an adaptive study's are


@dataclass(frozen=True)
class Race:
    """One tool's run through one study."""

    tool: str
    study: str
    budget: int


def do_nothing(study: Study) -> bool:
    """Claim one trial of ours, ask for its configuration and tell a value; whether there was one to claim."""
    claim = study.claim(WorkerInfo(f"race-{os.getpid()}", "race", os.getpid(), "none", seconds=600))
    if claim is None:
        return False
    study.suggest_config(claim)
    study.storage.set_trial_state_values(claim.id, TrialState.COMPLETE, [0.5])
    return True


def open_ours(url: str, race: Race) -> tuple[Callable[[], object], sa.Engine]:
    """Return the function that runs a process's part of a race of ours, and the engine to dispose of afterwards."""
    storage = StudyStorage(url)
    study = Study(storage, race.study)

    def run() -> None:
        while do_nothing(study):
            pass

    return run, storage.engine


def open_plain(url: str, race: Race) -> tuple[Callable[[], object], sa.Engine]:
    """Return the same for plain Optuna."""
    storage = RDBStorage(url)
    sampler = TPESampler(n_startup_trials=STARTUP)
    study = optuna.load_study(study_name=race.study, storage=storage, sampler=sampler)
    space = Space(FLAT)

    def objective(trial: optuna.trial.Trial) -> float:
        space.suggest(trial)
        return 0.5

    enough = optuna.study.MaxTrialsCallback(race.budget)
    return lambda: study.optimize(objective, callbacks=[enough]), storage.engine


def take_part(url: str, races: list[Race], start: Barrier, results: Queue[tuple[float, str]]) -> None:
    """Run one process of all races. An error that ends it early is a result, too."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for race in races:
        try:
            run, engine = (open_ours if race.tool == "ours" else open_plain)(url, race)
        except Exception:
            start.abort()  # or all others would wait
            raise
        start.wait(PATIENCE)
        error = ""
        try:
            run()
        except Exception as problem:
            error = f"{type(problem).__name__}: {problem}"
        results.put((time.monotonic(), error))
        engine.dispose()


def run_races(url: str, options: argparse.Namespace) -> bool:
    """Print the table of the races; whether ours had exactly the budget in each."""
    tools = ("plain", "ours")
    names = [f"benchmark {os.getpid()} race {n} {tool}" for n in range(options.races) for tool in tools]
    races = [Race(tools[n % 2], name, options.budget) for n, name in enumerate(names)]
    storage = StudyStorage(url)
    spawn = multiprocessing.get_context("spawn")
    start, results = spawn.Barrier(options.processes + 1), spawn.Queue()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        for race in races:
            if race.tool == "ours":
                sampler = {"name": "tpe", "n_startup_trials": STARTUP}
                create(url, Space(FLAT), race.study, sampler, race.budget, Path(folder))
            else:
                optuna.create_study(study_name=race.study, storage=storage)
            stack.callback(optuna.delete_study, study_name=race.study, storage=storage)
        arguments = (url, races, start, results)
        processes = [spawn.Process(target=take_part, args=arguments, daemon=True) for _ in range(options.processes)]
        for process in processes:
            process.start()
        print(f"\n{options.processes} processes, trials that do nothing, budget {options.budget}, {backend(url)}")
        print(f"{'':10}{'trials/s':>10}{'trials':>8}{'complete':>10}{'failed processes':>18}", flush=True)
        rates: defaultdict[str, list[float]] = defaultdict(list)
        exact = True
        for race in races:
            start.wait(PATIENCE)
            begun = time.monotonic()
            ends = [results.get(timeout=PATIENCE) for _ in processes]
            errors = Counter(error for _, error in ends if error)
            trials = storage.get_all_trials(storage.get_study_id_from_name(race.study), deepcopy=False)
            complete = sum(trial.state == TrialState.COMPLETE for trial in trials)
            rates[race.tool].append(complete / (max(end for end, _ in ends) - begun))
            failed = sum(errors.values())
            print(f"{race.tool:10}{rates[race.tool][-1]:10.1f}{len(trials):8}{complete:10}{failed:18}", flush=True)
            for error, count in errors.most_common(2):
                print(f"  {count} x {error.splitlines()[0][:150]}")
            if race.tool == "ours":
                numbers = sorted(trial.number for trial in trials)
                exact = exact and numbers == list(range(race.budget)) and complete == race.budget
        for process in processes:
            process.join()
    ours, plain = statistics.median(rates["ours"]), statistics.median(rates["plain"])
    print(f"median: ours {ours:.1f}, plain {plain:.1f} trials/s, ratio {ours / plain:.1f}")
    print("ours ran exactly the budget" if exact else "OURS DID NOT RUN EXACTLY THE BUDGET")
    return exact


# The whole.


@cache
def backend(url: str) -> str:
    """Return the database and its version."""
    engine = sa.create_engine(normalize(url))
    with engine.connect():
        found: tuple[int, ...] = getattr(engine.dialect, "server_version_info", None) or sqlite3.sqlite_version_info
    engine.dispose()
    return f"{engine.dialect.name} {'.'.join(map(str, found))}"


@contextmanager
def server(url: str | None) -> Iterator[str | None]:
    """Yield the server's URL: the given one, or that of a PostgreSQL of our own, where its programs are there."""
    if url is not None:
        yield normalize(url).render_as_string(hide_password=False)
    elif servers.POSTGRES is None:
        print("\nPostgreSQL's programs are missing; install them, or give the --url of a server")
        yield None
    else:
        with servers.postgres() as own:
            yield own


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=10, help="of each tool in a round")
    parser.add_argument("--races", type=int, default=3, help="of each tool")
    parser.add_argument("--processes", type=int, default=32, help="in a race")
    parser.add_argument("--budget", type=int, default=640, help="trials of a race")
    parser.add_argument("--url", help="a server's database, instead of a PostgreSQL of our own")
    parser.add_argument("--quick", action="store_true", help="one round of 5, one race of 128")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.trials, options.races, options.budget = 1, 5, 1, 128
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    for owner, kind in ((TPESampler, "sampler"), (_CachedStorage, "storage"), (StudyStorage, "storage")):
        watch.wrap(owner, kind)

    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"optuna {optuna.__version__}, SQLAlchemy {sa.__version__}, {backend('sqlite://')}")
    print(f"{options.rounds} rounds of {options.trials} trials, {HISTORY} finished ones, {REPORTS} reports per trial")
    flat, mlp = (
        Space(FLAT),
        Space({**read_document(templates.find_template("search_spaces", "mlp")), "epochs": REPORTS}),
    )
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HPO_HOME"] = folder
        files = f"sqlite:///{folder}/plain.db", f"sqlite:///{folder}/ours.db"  # ours is left with a write-ahead log
        compare("flat space, SQLite", flat, False, "ms <= 20, SQL <= 25", files, options)
        compare("template mlp, SQLite", mlp, True, "storage <= 8", files, options)
        with server(options.url) as url:
            if url is None:
                return 0
            compare(f"flat space, {backend(url)}", flat, False, "SQL <= 25", (url, url), options)
            return 0 if run_races(url, options) else 1


if __name__ == "__main__":
    sys.exit(main())
