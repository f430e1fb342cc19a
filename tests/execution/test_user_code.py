"""Launches whose user code ends its process or hangs, with real processes and signals."""

from __future__ import annotations

from pathlib import Path

import pytest
from optuna.trial import TrialState

from hpo.execution import watchdog
from hpo.study import Study, StudyStorage
from tests.data import small_npz
from tests.helpers import run_hpo

pytestmark = pytest.mark.integration

MODULE = """
import ctypes, os, signal, time
import torch, torch._dynamo  # whose import, at the first optimizer, takes longer than the time that the test allows
import hpo, hpo.execution.watchdog

hpo.execution.watchdog.GRACE = 0.5  # the test waits for it


def sleep_in_python():
    time.sleep(600)


def sleep_with_the_lock():
    ctypes.PyDLL(None).sleep(600)  # no other thread runs meanwhile


ACTS = [
    lambda: os._exit(0), os.abort, lambda: os.kill(os.getpid(), signal.SIGKILL), sleep_in_python, sleep_with_the_lock
]


class Acting(torch.nn.Module):
    def __init__(self, act, classes):
        super().__init__()
        self.act, self.layer = act, torch.nn.Linear(36, classes)

    def forward(self, x):
        if self.training:
            self.act()
        return self.layer(x.flatten(1))


@hpo.model("acting", uses=["epsilon"])
def acting(config, shape, classes):
    return Acting(ACTS[round(config.epsilon * 10) - 1], classes)
"""


@pytest.fixture(autouse=True)
def grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module changes it, in this process too."""
    monkeypatch.setattr(watchdog, "GRACE", watchdog.GRACE)


def launch(folder: Path, acts: list[float], *options: str) -> tuple[int, str, Study]:
    """Launch a study whose trials do these acts, each with a worker of its own."""
    small_npz(folder / "small.npz")
    (folder / "acting_module.py").write_text(MODULE)
    (folder / "acting.toml").write_text(
        'dataset = "small.npz"\nsampler = "grid"\n[parameters]\nmodel = "acting"\nepochs = 1\nbatch_size = 32\n'
        f"epsilon = {acts}\n"
    )
    done = run_hpo(
        *("launch", "./acting.toml", "--workers", str(len(acts)), "--import", "acting_module", "--device", "cpu"),
        *("--lease", "2", *options),
        cwd=folder,
        HPO_HOME=str(folder / "home"),
    )
    return done.returncode, done.stderr, Study(StudyStorage(f"sqlite:///{folder / 'home' / 'hpo.db'}"), "acting")


def test_a_launch_names_each_worker_that_died_and_what_it_trained(tmp_path: Path) -> None:
    code, errors, study = launch(tmp_path, [0.1, 0.2, 0.3])
    last = errors.strip().splitlines()[-1]
    assert code == 1
    assert "ended with exit code 0 while it trained trial" in last
    assert "without saying why, as after os._exit()" in last
    assert "was killed by signal 6 (SIGABRT) while it trained trial" in last
    assert "was killed by signal 9 (SIGKILL) while it trained trial" in last
    assert last.endswith("; 3 of 3 trials are left; launch again to go on with them")
    logs = [path.read_text() for path in (tmp_path / "home" / "logs" / "acting").glob("*.log")]
    assert any("Fatal Python error: Aborted" in log and "in forward" in log for log in logs)
    assert study.remaining() == 3


def test_trial_timeout_ends_a_hang_whether_other_threads_can_run_or_not(tmp_path: Path) -> None:
    code, errors, study = launch(tmp_path, [0.4, 0.5], "--trial-timeout", "1", "--cohort", "1")
    assert code == 1
    assert errors.count("ended with exit code 1") >= 2
    assert ": hpo: trial " in errors  # the reason of the one that could tell it, without the time of a line in its log
    logs = "\n".join(path.read_text() for path in (tmp_path / "home" / "logs" / "acting").glob("*.log"))
    # In Python's own code, the heartbeat's thread tells of it; else a timer of the C library ends the process.
    [told] = [trial for trial in study.trials() if trial.state == TrialState.FAIL]
    assert "longer than trial_timeout = 1 s, and it did not come back from its last step" in told.user_attrs["message"]
    assert "in sleep_in_python" in logs
    assert "sleep_with_the_lock" in logs
    assert study.remaining() == 1


def test_an_exit_of_user_code_is_no_exit_code_of_the_command(tmp_path: Path) -> None:
    (tmp_path / "leaving.py").write_text("import sys\nsys.exit(0)\n")
    (tmp_path / "exiting.py").write_text(
        "import sys\nimport hpo\n\n@hpo.model('exiting')\ndef exiting(config, shape, classes):\n    sys.exit(0)\n"
    )
    small_npz(tmp_path / "small.npz")
    done = run_hpo("launch", "quickstart", "--import", "leaving", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("hpo: --import leaving: sys.exit(0) was called in <module> (")
    command = ("train", "--dataset", "small.npz", "--set", "model=exiting", "--import", "exiting", "--out", "run")
    done = run_hpo(*command, "--device", "cpu", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("hpo: sys.exit(0) was called in exiting (")


def test_a_study_in_which_no_trial_is_complete_ends_with_the_most_frequent_reason(tmp_path: Path) -> None:
    (tmp_path / "leaving_model.py").write_text(
        "import sys\nimport hpo\n\n@hpo.model('leaving')\ndef leaving(config, shape, classes):\n    sys.exit(0)\n"
    )
    small_npz(tmp_path / "small.npz")
    (tmp_path / "leaving.toml").write_text(
        'dataset = "small.npz"\ntrials = 1\nsampler = "random"\n[parameters]\nmodel = "leaving"\nepochs = 1\n'
    )
    command = "launch", "./leaving.toml", "--workers", "1", "--import", "leaving_model", "--device", "cpu"
    for _ in range(2):  # again, where nothing is left to do
        done = run_hpo(*command, cwd=tmp_path, HPO_HOME=str(tmp_path / "home"))
        assert done.returncode == 1
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith(
            "hpo: study 'leaving' has no complete trial (1 FAIL); the most frequent reason: sys.exit(0)"
        )
