"""What every backend does: it starts workers, and nothing else."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from hpo.execution.backends.base import Backend, WorkerHandle
from hpo.execution.backends.local import Local
from hpo.execution.backends.ray import Ray
from hpo.execution.backends.slurm import Slurm
from hpo.execution.launch_function import plan_function_launch
from hpo.execution.objective_function import load_function
from hpo.execution.worker_options import WorkerOptions
from hpo.study import Study, StudyStorage
from hpo.study.input.study_file import parse_definition
from hpo.utils.home import home
from tests.data import small_npz
from tests.execution.backends.cluster import Cluster, marked

pytestmark = pytest.mark.timeout(900)  # the cluster waits for the one of another session
PASSWORD = "s3cret-of-the-contract"
OPTIONS = {"device": "cpu", "cpus": 1, "checkpoint_every": 0, "lease": 3}


@dataclass
class Engine:
    """A backend with the folders that it may write to beside HPO_HOME."""

    backend: Backend
    folders: Sequence[Path] = ()


@pytest.fixture(params=["local", "slurm", pytest.param("ray", marks=pytest.mark.xdist_group("ray"))])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # Ignored where the tests run in the background, and so in all that they start; `hpo launch` has a handler.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if request.param == "local":
        return Engine(Local())
    if request.param == "slurm":
        return Engine(Slurm({"cluster": "local", "time": "10"}))
    made: Cluster = request.getfixturevalue("ray_cluster")
    return Engine(Ray(made.address), [made.folder])


def make(url: str, folder: Path, name: str, trials: int, **parameters: Any) -> Study:
    data = small_npz(folder / "small.npz")
    space = {"widths": "8", "epochs": 1, "learning_rate": [0.01, 0.02], **parameters}
    table = {"dataset": str(data), "trials": trials, "sampler": "random", "parameters": space}
    found, definition, budget = parse_definition(table, name, folder)
    return Study.create(StudyStorage(url), found, definition, budget)


@pytest.fixture
def url(postgres_url: str) -> str:
    """A database that lets everyone in, under a password that can be looked for."""
    return sa.make_url(postgres_url).set(password=PASSWORD).render_as_string(hide_password=False)


@pytest.fixture
def name() -> str:
    """Of a study; the server is that of all tests."""
    return f"contract-{secrets.token_hex(4)}"


def until(condition: Callable[[], object], seconds: float = 90) -> None:
    """Wait until it holds, and no longer than that."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.05)


def ended(handles: Sequence[WorkerHandle]) -> None:
    until(lambda: not any(handle.alive for handle in handles))


def pids(study: Study) -> list[int]:
    return [worker.pid for worker in study.storage.read_workers(study.id) if not worker.gone]


@pytest.fixture(autouse=True)
def _nobody_left() -> Iterator[None]:
    """Whatever a test comes to, no worker of its studies outlives it."""
    yield
    for pid in marked(f"HPO_HOME={home()}\0".encode()):
        with contextlib.suppress(OSError):
            if b"\0hpo\0worker\0" in Path(f"/proc/{pid}/cmdline").read_bytes():  # a cluster may have the variable too
                os.kill(pid, signal.SIGKILL)


def endless(url: str, folder: Path, name: str) -> Study:
    return make(url, folder, name, 2, epochs=100_000)


def begun(study: Study) -> bool:
    rows = study.storage.read_epochs(study.id)
    return bool(rows) and all(rows.values())


def test_n_workers_do_exactly_the_budget(engine: Engine, url: str, name: str, tmp_path: Path) -> None:
    study = make(url, tmp_path, name, 12)
    handles = engine.backend.start(study, WorkerOptions(workers=2, **OPTIONS))
    assert len(handles) == 2
    ended(handles)
    assert [handle.failure for handle in handles] == [None, None]
    assert [(t.number, t.state) for t in study.trials()] == [(i, TrialState.COMPLETE) for i in range(12)]


def test_a_stop_is_orderly_and_the_password_is_in_the_environment_alone(
    engine: Engine, url: str, name: str, tmp_path: Path
) -> None:
    study = endless(url, tmp_path, name)
    handles = engine.backend.start(study, WorkerOptions(workers=1, cohort=1, **OPTIONS))
    until(lambda: begun(study))
    (pid,) = pids(study)
    assert f"OPTUNA_STORAGE={url}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    for handle in handles:
        handle.stop()
    ended(handles)
    until(lambda: not pids(study))
    assert [handle.failure for handle in handles] == [None]
    assert {trial.state for trial in study.trials()} == {TrialState.WAITING}  # given back, not left to its lease
    assert leaks(home(), *engine.folders) == []


def leaks(*folders: Path) -> list[str]:
    """Where the password is, of all files and of all processes' arguments."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    arguments = Path("/proc").glob("[0-9]*/cmdline")
    found = []
    for path in (*files, *arguments):
        try:
            if PASSWORD.encode() in path.read_bytes():
                found.append(str(path))
        except OSError:  # a process that has ended
            continue
    return found


def test_a_worker_that_fails_says_why(engine: Engine, url: str, name: str, tmp_path: Path) -> None:
    study = make(url, tmp_path, name, 2)
    handles = engine.backend.start(study, WorkerOptions(workers=1, imports=["no_such_module"], **OPTIONS))
    ended(handles)
    (why,) = [handle.failure for handle in handles]
    assert "exit code 2: hpo: --import no_such_module: ModuleNotFoundError: No module named 'no_such_module'" in why
    assert f"(log: {home() / 'logs' / name}" in why
    assert study.remaining() == 2


def test_a_killed_worker_is_told_and_the_next_ones_finish_exactly(
    engine: Engine, url: str, name: str, tmp_path: Path
) -> None:
    study = make(url, tmp_path, name, 2, epochs=[80])
    handles = engine.backend.start(study, WorkerOptions(workers=1, cohort=1, **OPTIONS))
    until(lambda: pids(study) and begun(study))
    os.kill(pids(study)[0], signal.SIGKILL)
    ended(handles)
    assert "was killed by signal 9" in handles[0].failure
    assert study.remaining() > 0
    again = engine.backend.start(study, WorkerOptions(workers=2, **OPTIONS))
    ended(again)
    assert [handle.failure for handle in again] == [None, None]
    assert [(t.number, t.state) for t in study.trials()] == [(i, TrialState.COMPLETE) for i in range(2)]


@pytest.mark.parametrize(
    "engine", ["slurm", pytest.param("ray", marks=pytest.mark.xdist_group("ray"))], indirect=True
)  # those whose workers have another working directory
def test_workers_call_an_objective_function(engine: Engine, url: str, name: str, tmp_path: Path) -> None:
    """They find the file's neighbours, too."""
    (tmp_path / "neighbour.py").write_text("SCALE = 2.0\n")
    file = tmp_path / "bowl.py"
    file.write_text(
        "import neighbour\ndef bowl(trial):\n    return neighbour.SCALE * trial.suggest_float('x', -1, 1)\n"
    )
    function = load_function(f"{file}:bowl")
    study = plan_function_launch(function, url, name=name, trials=3, sampler="random").create(url)
    options = WorkerOptions(workers=1, function=function.reference.location, **OPTIONS)
    handles = engine.backend.start(study, options)
    ended(handles)
    assert [handle.failure for handle in handles] == [None]
    assert [(t.state, t.value) for t in study.trials()] == [
        (TrialState.COMPLETE, 2.0 * t.params["x"]) for t in study.trials()
    ]
    assert len(study.trials()) == 3
