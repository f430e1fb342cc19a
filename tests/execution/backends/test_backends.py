"""What each backend has of its own."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from optuna.trial import TrialState

from hpo.errors import RequestError
from hpo.execution.backends.local import Local, count_gpus, default_worker_count
from hpo.execution.backends.ray import Ray
from hpo.execution.backends.slurm import Slurm, parse_minutes, parse_slurm_options
from hpo.execution.worker_options import WorkerOptions
from tests.execution.backends.cluster import ALONE, Cluster
from tests.execution.backends.test_contract import OPTIONS, begun, ended, endless, make, pids, until
from tests.helpers import hpo, run_hpo
from tests.study.helpers import sqlite_url

pytestmark = pytest.mark.timeout(900)  # a cluster waits for the one of another session

# Local.


def test_each_worker_here_has_one_of_several_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, GPU-b")
    assert default_worker_count("auto") == default_worker_count("cuda") == 2
    study = endless(sqlite_url(tmp_path), tmp_path, "gpus")
    handles = Local().start(study, WorkerOptions(workers=3, cpus=1, cohort=1))
    seen = [environment(each.worker.process.pid) for each in handles]
    assert [b"CUDA_VISIBLE_DEVICES=4" in each for each in seen] == [True, False, True]
    assert b"CUDA_VISIBLE_DEVICES=GPU-b" in seen[1]
    for handle in handles:
        handle.stop()
    ended(handles)


def environment(pid: int) -> list[bytes]:
    """Return the variables of a process; for a moment after its start the kernel shows none."""
    path = Path(f"/proc/{pid}/environ")
    until(lambda: bool(path.read_bytes()))
    return path.read_bytes().split(b"\0")


@pytest.mark.parametrize(("visible", "found"), [("0,1", ["0", "1"]), ("", []), ("-1", []), ("3", ["3"])])
def test_the_gpus_are_those_that_one_may_see(visible: str, found: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert count_gpus() == found
    assert default_worker_count("cpu") == len(os.sched_getaffinity(0))
    assert default_worker_count("cuda:1") == 1


def test_without_that_variable_the_driver_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\n[ "$1" = --query-gpu=uuid ] && echo GPU-1 && echo GPU-2\n')
    program.chmod(0o755)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert count_gpus() == ["GPU-1", "GPU-2"]
    program.write_text("#!/bin/sh\necho no devices were found\nexit 9\n")
    assert count_gpus() == []


# Ray.


@pytest.mark.xdist_group("ray")
def test_where_no_cluster_is_the_line_says_how_to_start_one(tmp_path: Path) -> None:
    """It is the first one of Ray's, before the cluster of the others is there."""
    study = make(sqlite_url(tmp_path), tmp_path, "alone", 1)
    line = r"--backend ray: no Ray cluster here .* start one with: ray start --head"
    with ALONE:
        Path("/tmp/ray/ray_current_cluster").unlink(missing_ok=True)  # of one that was killed
        with pytest.raises(RequestError, match=line):
            Ray().start(study, WorkerOptions(workers=1))


@pytest.mark.xdist_group("ray")
def test_what_no_node_could_hold_is_refused(ray_cluster: Cluster, tmp_path: Path) -> None:
    study = make(sqlite_url(tmp_path), tmp_path, "shares", 1)
    with pytest.raises(RequestError, match="no node has 64 CPUs and 0 GPUs for a worker; they have 2 CPUs and 0"):
        Ray(ray_cluster.address).start(study, WorkerOptions(workers=1, cpus=64))
    with pytest.raises(RequestError, match=r"no node has 1 CPUs and 0\.5 GPUs"):
        Ray(ray_cluster.address).start(study, WorkerOptions(workers=1, gpus=0.5))


@pytest.mark.xdist_group("ray")
def test_a_study_on_two_nodes_of_which_one_dies_has_exact_numbers(
    ray_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    study = make(sqlite_url(tmp_path), tmp_path, "nodes", 6, epochs=[80])
    ray_cluster.node("second", 2)
    # A worker takes all CPUs of a node, so that there is one on each.
    handles = Ray(ray_cluster.address).start(study, WorkerOptions(workers=2, cohort=1, **{**OPTIONS, "cpus": 2}))
    until(lambda: len(pids(study)) == 2 and len(begun_numbers(study)) >= 2)
    ray_cluster.kill("second")
    ended(handles)
    # The task of the dead node was run again on the other, and found nothing left.
    assert [handle.failure for handle in handles] == [None, None]
    assert [(t.number, t.state) for t in study.trials()] == [(i, TrialState.COMPLETE) for i in range(6)]
    attempts = [
        study.storage.get_trial(t._trial_id).user_attrs.get("deaths", {}).get("count", 0) for t in study.trials()
    ]
    assert sum(attempts) == 1  # the one trial that was in training there


def begun_numbers(study) -> list[int]:
    return [trial.number for trial in study.trials() if trial.state == TrialState.RUNNING]


# Slurm.


def test_after_the_time_limit_the_next_array_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    study = make(sqlite_url(tmp_path), tmp_path, "limit", 2, epochs=[300])
    slurm = Slurm({"cluster": "local", "time": "1"})
    handles = slurm.start(study, WorkerOptions(workers=1, cohort=1, **OPTIONS))
    until(lambda: pids(study) and begun(study))
    (worker,) = pids(study)
    submitit = parent(worker)
    for pid in (worker, submitit):  # as Slurm announces it: to every process of the job
        os.kill(pid, signal.SIGUSR2)
    ended(handles)
    assert handles[0].failure.endswith("ran into its time limit; launch again, and the next jobs go on")
    until(lambda: not pids(study))
    assert {trial.state for trial in study.trials()} == {TrialState.WAITING}
    log = next((tmp_path / "home" / "logs" / "limit").glob("*.log")).read_text(encoding="utf-8")
    assert "released: the worker was asked to stop" in log

    again = slurm.start(study, WorkerOptions(workers=1, **{**OPTIONS, "cohort": 1}))
    ended(again)
    assert [handle.failure for handle in again] == [None]
    assert [(t.number, t.state) for t in study.trials()] == [(i, TrialState.COMPLETE) for i in range(2)]
    logs = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "home" / "logs" / "limit").glob("*.log"))
    assert "goes on after epoch" in logs


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_everything_is_passed_through_to_sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program named sbatch keeps what it is given, which is all that can be known without a cluster."""
    program = tmp_path / "bin" / "sbatch"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\ncp "$1" {tmp_path / "script"}\nenv > {tmp_path / "variables"}\necho Submitted batch job 4242\n'
    )
    program.chmod(0o755)
    (program.parent / "srun").symlink_to(program)  # submitit looks for it
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    url = sqlite_url(tmp_path)
    study = make(url, tmp_path, "passed", 1)
    given = ["partition=gpu", "time=1-04:00:30", "setup=module load cuda", "setup=ulimit -n 4096", "mem=16GB",
             "qos=long", "reservation=mine"]  # fmt: skip
    handles = Slurm(parse_slurm_options(given)).start(study, WorkerOptions(workers=3, cpus=4, gpus=1))
    assert [handle.job.job_id for handle in handles] == ["4242_0", "4242_1", "4242_2"]
    script = (tmp_path / "script").read_text(encoding="utf-8")
    for line in ("--partition=gpu", "--time=1681", "--mem=16GB", "--qos=long", "--reservation=mine", "--array=0-2%3",
                 "--cpus-per-task=4", "--gpus-per-node=1", "--job-name=hpo-passed"):  # fmt: skip
        assert f"#SBATCH {line}\n" in script
    assert script.index("module load cuda") < script.index("ulimit -n 4096") < script.index("srun")
    assert f"OPTUNA_STORAGE={url}" in (tmp_path / "variables").read_text(encoding="utf-8").splitlines()
    assert "OPTUNA_STORAGE" not in os.environ


@pytest.mark.parametrize(
    ("text", "found"),
    [("30", 30), ("90:30", 91), ("04:00:00", 240), ("1-12", 2160), ("2-00:30", 2910), ("1-00:00:01", 1441)],
)
def test_time_limits_are_sbatchs(text: str, found: int) -> None:
    assert parse_minutes(text) == found


# What is asked for wrongly.


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--address", "here:1"], "--address: belongs to --backend ray, but this one is local"),
        (["--backend", "ray", "--slurm", "time=1"], "--slurm: belongs to --backend slurm, but this one is ray"),
        (["--gpus", "1"], "--gpus: workers on this machine have one GPU each where there are several; leave it out"),
        (["--backend", "slurm", "--slurm", "time"], "--slurm time: write KEY=VALUE, as --slurm partition=gpu"),
        (["--backend", "slurm", "--slurm", "time=1", "--slurm", "time=2"], "--slurm time=2: time is given twice"),
        (["--backend", "slurm", "--slurm", "time=soon"], "--slurm time=soon: must be minutes, MM:SS, HH:MM:SS"),
        (["--backend", "slurm"], "--backend slurm: sbatch is not found; launch from a machine of the cluster"),
        (["--backend", "slurm", "--slurm", "cluster=local", "--gpus", "0.5"], "--gpus 0.5: Slurm gives whole GPUs"),
        (["--backend", "ray", "--detach"], "--detach: tasks of Ray end with their launch"),
    ],
)
def test_one_line(options: list[str], line: str, tmp_path: Path) -> None:
    if "time=soon" in options:
        options = [*options, "--slurm", "cluster=local"]
    done = run_hpo("launch", "quickstart", *options, cwd=tmp_path)
    assert done.returncode == 2
    assert f"hpo: {line}" in done.stderr


def test_a_detached_launch_returns_and_its_workers_go_on(tmp_path: Path) -> None:
    study = make(sqlite_url(tmp_path), tmp_path, "detached", 3, epochs=[300])
    options = ["--workers", "1", "--detach", "--storage", sqlite_url(tmp_path), "--device", "cpu"]
    done = hpo("launch", "detached", *options, cwd=tmp_path)
    assert done.returncode == 0
    assert "started 1 worker; see them with:" in done.stderr
    assert study.remaining() > 0
    until(lambda: study.remaining() == 0 and not pids(study))
