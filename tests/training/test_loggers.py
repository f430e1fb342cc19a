"""Trackers: MLflow on a real server, Weights & Biases offline, TensorBoard's tab HPARAMS on a real server."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from hpo.execution.launch_function import plan_function_launch
from hpo.execution.objective_function import load_function
from hpo.study import Study
from tests.data import small_npz
from tests.execution.backends.cluster import free_port
from tests.execution.test_worker import make
from tests.helpers import hpo, run_hpo
from tests.study.helpers import sqlite_url
from tests.workers import make_worker

QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "WANDB_SILENT": "true"}
GRID = {"widths": ["8", "16"], "epochs": 3, "batch_size": 32, "learning_rate": [0.01]}


def started(command: list[str], url: str, log: Path) -> subprocess.Popen[bytes]:
    """A server, once it answers."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], stdout=output, stderr=output, env={**os.environ, **QUIET},
            start_new_session=True,
        )  # fmt: skip
    deadline = time.monotonic() + 90
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        else:
            return process


def ended(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, 9)
    process.wait(120)


def mlflow_server(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    port = free_port()
    command = ["mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination", str(folder)]
    url = f"http://127.0.0.1:{port}"
    return started(command, f"{url}/health", folder / "log"), url


class Proxy:
    """A server under an address of its own, which can go away: to start a second MLflow takes ten seconds."""

    def __init__(self, target: str) -> None:
        class Handler(BaseHTTPRequestHandler):
            def pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                kept = {name: self.headers[name] for name in ("Content-Type", "Accept") if name in self.headers}
                request = urllib.request.Request(target + self.path, body or None, kept, method=self.command)
                try:
                    answer = urllib.request.urlopen(request, timeout=120)
                except urllib.error.HTTPError as error:
                    answer = error
                with answer:
                    self.send_response(answer.status)
                    self.send_header("Content-Type", answer.headers.get("Content-Type", "text/plain"))
                    self.end_headers()
                    self.wfile.write(answer.read())

            do_GET = do_POST = do_PATCH = pass_on  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def mlflow_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    process, url = mlflow_server(tmp_path_factory.mktemp("mlflow"))
    yield url
    ended(process)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {**QUIET, "WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    for name in ("MLFLOW_EXPERIMENT_NAME", "WANDB_PROJECT", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()  # it reads WANDB_DIR once in a process, and another test has run in this one


def rows_of(study: Study, number: int) -> list[dict[str, float]]:
    return study.storage.read_epochs(study.id)[study.trials()[number]._trial_id]


# MLflow.


@pytest.fixture
def client(mlflow_url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_url)
    mlflow.set_tracking_uri(mlflow_url)
    return mlflow.MlflowClient()


def runs_of(client: Any, experiment: str) -> dict[str, Any]:
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs([found.experiment_id])
    assert len({run.info.run_name for run in runs}) == len(runs)
    return {run.info.run_name: run for run in runs}


def test_mlflow_has_a_run_for_every_trial_of_a_cohort(client: Any, tmp_path: Path) -> None:
    study = make(tmp_path, name="cohort", sampler="grid", trials=2, parameters=GRID)
    make_worker(study, cohort=2, trackers=["mlflow"]).run()
    assert {trial.user_attrs["cohort"] for trial in study.trials()} == {2}
    runs = runs_of(client, "cohort")
    assert set(runs) == {"cohort/trial_0", "cohort/trial_1"}
    for trial in study.trials():
        run = runs[f"cohort/trial_{trial.number}"]
        assert run.info.status == "FINISHED"
        assert run.data.params["widths"] == trial.params["widths"]
        assert run.data.params["learning_rate"] == "0.01"
        assert run.data.tags["hpo.status"] == "completed"
        history = client.get_metric_history(run.info.run_id, "val_accuracy")
        expected = {int(row["epoch"]): row["val_accuracy"] for row in rows_of(study, trial.number)}
        assert {each.step: each.value for each in history} == expected
        assert run.data.metrics["best_val_accuracy"] == trial.value
        assert run.data.metrics["parameter_count"] == trial.user_attrs["parameter_count"]


def test_a_resumed_trial_goes_on_in_its_run(client: Any, tmp_path: Path) -> None:
    study = make(tmp_path, name="resumed", trials=1, parameters={**GRID, "epochs": 4})
    asked = {"left": 14}

    def after_some_steps() -> bool:
        asked["left"] -= 1
        return asked["left"] < 0

    make_worker(study, after_some_steps, trackers=["mlflow"]).run()
    assert study.trials()[0].state == TrialState.WAITING
    (run,) = runs_of(client, "resumed").values()
    assert (run.info.status, run.data.tags["hpo.status"]) == ("KILLED", "interrupted")
    make_worker(study, trackers=["mlflow"]).run()
    (again,) = runs_of(client, "resumed").values()
    assert (again.info.run_id, again.info.status) == (run.info.run_id, "FINISHED")
    history = client.get_metric_history(run.info.run_id, "train_loss")
    assert [each.step for each in history] == [1, 2, 3, 4]


def test_a_server_that_goes_away_costs_a_line_and_no_trial(
    mlflow_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import mlflow

    proxy = Proxy(mlflow_url)
    url = proxy.url
    monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
    mlflow.set_tracking_uri(url)
    study = make(tmp_path, name="gone", trials=1, parameters={**GRID, "epochs": 30})
    worker = make_worker(study, trackers=["mlflow"])
    proxy.close()
    worker.run()
    assert study.trials()[0].state == TrialState.COMPLETE
    lines = [record for record in caplog.records if "training goes on without it" in record.getMessage()]
    assert len(lines) == 1
    refused = run_hpo("worker", "gone", "--storage", sqlite_url(tmp_path), "--tracker", "mlflow", cwd=tmp_path)
    assert refused.returncode == 2
    assert f"hpo: --tracker mlflow: {url} does not answer" in refused.stderr


OBJECTIVE = """
import optuna

def objective(trial):
    x = trial.suggest_float("x", 0, 1)
    for step in range(3):
        trial.report(x + step, step)
        if trial.number == 1:
            raise optuna.TrialPruned()
        if trial.number == 2:
            raise ValueError("no")
    layers = trial.suggest_categorical("layers", [None, "a"])  # after the first report
    return x
"""


def function_study(folder: Path, name: str) -> tuple[Study, str]:
    """A study of an objective function of which one trial is complete, one pruned, one failed."""
    (folder / f"{name}.py").write_text(OBJECTIVE)
    function = load_function(f"{folder / name}.py:objective")
    url = sqlite_url(folder)
    study = plan_function_launch(function, url, name=name, trials=3, sampler="random", seed=0).create(url)
    return study, function.reference.location


def test_mlflow_has_a_run_for_every_call_of_an_objective_function(client: Any, tmp_path: Path) -> None:
    study, function = function_study(tmp_path, "mlflow_calls")
    make_worker(study, trackers=["mlflow"], function=function).run()
    complete, pruned, failed = (runs_of(client, study.name)[f"{study.name}/trial_{i}"] for i in range(3))
    trials = study.trials()
    assert [run.data.tags["hpo.status"] for run in (complete, pruned, failed)] == ["completed", "pruned", "error"]
    assert complete.data.params == {name: str(value) for name, value in trials[0].params.items()}
    history = client.get_metric_history(complete.info.run_id, "value")
    assert {each.step: each.value for each in history if each.step} == {1: trials[0].value + 1, 2: trials[0].value + 2}
    assert failed.data.params == {"x": str(trials[2].params["x"])}
    assert failed.info.status == "FAILED"


# Weights & Biases.


def offline_runs(folder: Path) -> dict[str, list[Any]]:
    """The records of every offline run below a folder, by the run's id."""
    from wandb.proto import wandb_internal_pb2

    found: dict[str, list[Any]] = {}
    for path in sorted(folder.rglob("*.wandb")):
        deadline = time.monotonic() + 120  # a process of W&B's own writes the file, on a busy machine a moment later
        while True:
            records = [wandb_internal_pb2.Record.FromString(data) for data in log_records(path.read_bytes())]
            if any(record.HasField("exit") for record in records) or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        run = next(record.run for record in records if record.HasField("run"))
        found.setdefault(run.run_id, []).extend(records)
    return found


def log_records(content: bytes) -> Iterator[bytes]:
    """The records of a log in LevelDB's format, as .wandb files are: blocks of 32 KiB, parts with heads of 7 bytes."""
    position, parts = 7, b""  # after the file's own head
    while position + 7 <= len(content):
        if (left := 32768 - position % 32768) < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", content[position : position + 7])
        parts += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def test_weights_and_biases_has_a_run_for_every_trial_and_goes_on_in_it(tmp_path: Path) -> None:
    study = make(tmp_path, name="offline", trials=1, parameters={**GRID, "epochs": 4})
    asked = {"left": 14}

    def after_some_steps() -> bool:
        asked["left"] -= 1
        return asked["left"] < 0

    make_worker(study, after_some_steps, trackers=["wandb"]).run()
    make_worker(study, trackers=["wandb"]).run()
    (records,) = offline_runs(tmp_path).values()  # of both attempts, under one id
    runs = [record.run for record in records if record.HasField("run")]
    assert {(run.project, run.run_group, run.display_name) for run in runs} == {
        ("torch-hpo", "offline", "offline/trial_0")
    }
    config = {item.key: json.loads(item.value_json) for item in runs[0].config.update}
    assert config["learning_rate"] == 0.01
    told: dict[int, float] = {}
    for record in records:
        if record.HasField("history"):
            items = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            told[items["_step"]] = items["val_accuracy"]
    assert told == {int(row["epoch"]): row["val_accuracy"] for row in rows_of(study, 0)}
    summary = {
        item.key or item.nested_key[0]: json.loads(item.value_json)
        for record in records if record.HasField("summary") for item in record.summary.update
    }  # fmt: skip
    assert summary["best_val_accuracy"] == study.trials()[0].value
    assert summary["status"] == "completed"


def test_weights_and_biases_has_the_calls_of_an_objective_function(tmp_path: Path) -> None:
    study, function = function_study(tmp_path, "wandb_calls")
    make_worker(study, trackers=["wandb"], function=function).run()
    names, ends = set(), {}
    for records in offline_runs(tmp_path).values():
        run = next(record.run for record in records if record.HasField("run"))
        names.add(run.display_name)
        ends[run.display_name[-1]] = next(r.exit.exit_code for r in records if r.HasField("exit"))
    assert names == {f"wandb_calls/trial_{i}" for i in range(3)}
    assert ends == {"0": 0, "1": 0, "2": 1}


def test_weights_and_biases_online_needs_a_key(tmp_path: Path) -> None:
    make(tmp_path, name="keyless", trials=1)
    done = hpo(
        "worker", "keyless", "--storage", sqlite_url(tmp_path), "--tracker", "wandb", cwd=tmp_path,
        WANDB_MODE="online", HOME=str(tmp_path),
    )  # fmt: skip
    assert done.returncode == 2
    assert "hpo: --tracker wandb: no API key; run wandb login, set WANDB_API_KEY, or WANDB_MODE=offline" in done.stderr


# Both.


@pytest.mark.parametrize("package", ["mlflow", "wandb"])
def test_a_missing_package_is_one_line(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, name="missing", trials=1)
    monkeypatch.delitem(sys.modules, f"hpo.training.loggers.{package}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)  # type: ignore[arg-type]
    done = run_hpo("worker", "missing", "--storage", sqlite_url(tmp_path), "--tracker", package, cwd=tmp_path)
    assert done.returncode == 2
    line = f"hpo: --tracker {package}: its package is missing; install it with: pip install 'torch-hpo[{package}]'"
    assert done.stderr.splitlines()[-1] == line


def test_they_are_off_by_default(tmp_path: Path) -> None:
    small_npz(tmp_path / "small.npz")
    code = (
        "import sys, hpo\nspace = {'widths': '4', 'epochs': 1}\n"
        "hpo.launch(name='off', dataset='./small.npz', parameters=space, trials=1)\n"
        "print([name for name in ('mlflow', 'wandb') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_tensorboard_shows_the_trials_of_a_study_side_by_side(tmp_path: Path) -> None:
    space = {
        "widths": ["8", "16"],
        "learning_rate": [0.01, 1000.0],
        "optimizer": "sgd",
        "epochs": 2,
        "batch_norm": True,
    }
    study = make(tmp_path, name="board", sampler="grid", trials=4, parameters=space)
    make_worker(study, tensorboard=tmp_path / "events").run()
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = ["tensorboard.main", "--logdir", str(tmp_path / "events"), "--port", str(port), "--load_fast=false"]
    process = started(command, url, tmp_path / "log")
    try:
        deadline, groups = time.monotonic() + 60, []
        while len(groups) < 4 and time.monotonic() < deadline:
            experiment = asked_of(url, "experiment", {"experimentName": ""})
            wanted = {
                "experimentName": "", "startIndex": 0, "sliceSize": 100,
                "allowedStatuses": ["STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING", "STATUS_UNKNOWN"],
                "colParams": [{"hparam": info["name"]} for info in experiment.get("hparamInfos", [])],
            }  # fmt: skip
            groups = asked_of(url, "session_groups", wanted).get("sessionGroups", [])
    finally:
        ended(process)
    parameters = {info["name"]: info["type"] for info in experiment["hparamInfos"]}
    assert parameters["learning_rate"] == "DATA_TYPE_FLOAT64"
    shown = {group["sessions"][0]["name"].rpartition("/")[2]: group for group in groups}
    assert set(shown) == {f"trial_{i}" for i in range(4)}
    for trial in study.trials():
        group = shown[f"trial_{trial.number}"]
        assert group["hparams"]["learning_rate"] == trial.params["learning_rate"]
        assert group["hparams"]["widths"] == trial.params["widths"]
        diverged = trial.user_attrs.get("failure") == "diverged"
        assert group["sessions"][0]["status"] == ("STATUS_FAILURE" if diverged else "STATUS_SUCCESS")
        metrics = {each["name"]["tag"]: each["value"] for each in group["metricValues"]}
        assert metrics["val_accuracy"] == pytest.approx(rows_of(study, trial.number)[-1]["val_accuracy"])


def asked_of(url: str, what: str, content: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(
        f"{url}/data/plugin/hparams/{what}", json.dumps(content).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            found: dict[str, Any] = json.loads(answer.read())
            return found
    except urllib.error.HTTPError:  # before it has read any events
        return {}
