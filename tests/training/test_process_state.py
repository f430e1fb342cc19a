"""State of the process: whatever a model changes, later trials find it as it was."""

from __future__ import annotations

import gc
import io
import locale
import logging
import os
import random
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import hpo
from hpo.config import registry
from hpo.config.trial_config import TrialConfig
from hpo.datasets import make_reference
from hpo.errors import UserExitError
from hpo.training.data_cache import DataCache
from hpo.training.loop import train
from hpo.training.process_state import FILTERS, SETTINGS, contain_user_code, keep_process_state
from tests.data import small_npz

LOCALES = ("POSIX", "C.UTF-8")


@pytest.fixture(autouse=True)
def _entries(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (registry.models, registry.datasets, registry.metrics):
        monkeypatch.setattr(kind, "_entries", dict(kind._entries))


@pytest.fixture(autouse=True)
def _no_alarm() -> Iterator[None]:
    """The tests' own time limit is a timer as well."""
    before = signal.setitimer(signal.ITIMER_REAL, 0)
    yield
    signal.setitimer(signal.ITIMER_REAL, *before)


def change_locale() -> None:
    before = locale.setlocale(locale.LC_ALL)
    for name in LOCALES:
        if locale.setlocale(locale.LC_ALL, name) != before:
            return


def change_precision() -> None:
    torch.backends.mkldnn.conv.fp32_precision = "bf16"  # type: ignore[attr-defined]


def change_cudnn() -> None:
    torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark


def change_logging() -> None:
    logging.disable(logging.CRITICAL)
    logging.basicConfig(level=logging.CRITICAL, handlers=[logging.NullHandler()], force=True)
    logging.getLogger("hpo.training").disabled = True


def change_streams() -> None:
    sys.stdout = sys.stderr = io.StringIO()


def stumble(*_: Any) -> None:
    raise RuntimeError("the hook of another trial")


# By the name of each setting; a setting without a line here fails the test.
CHANGES: dict[str, Callable[[], object]] = {
    "alarm timer": lambda: signal.setitimer(signal.ITIMER_REAL, 3600),
    "signal handlers": lambda: [signal.signal(each, signal.SIG_IGN) for each in (signal.SIGINT, signal.SIGTERM)],
    "blocked signals": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}),
    "working directory": lambda: os.chdir("/"),
    "umask": lambda: os.umask(0o777),
    "environment variables": lambda: (os.environ.pop("PATH"), os.environ.update(HPO_HOME="/elsewhere")),
    "locale": change_locale,
    "sys.path": lambda: sys.path.clear(),
    "standard streams": change_streams,
    "recursion limit": lambda: sys.setrecursionlimit(sys.getrecursionlimit() + 7),
    "garbage collection": gc.disable,
    "garbage collection threshold": lambda: gc.set_threshold(9),
    "thread switch interval": lambda: sys.setswitchinterval(2),
    "socket timeout": lambda: socket.setdefaulttimeout(0.01),
    "warnings filters": lambda: warnings.simplefilter("error"),
    "logging": change_logging,
    "numpy.seterr": lambda: np.seterr(all="raise"),
    "default dtype": lambda: torch.set_default_dtype(torch.float64),
    "default device": lambda: torch.set_default_device("meta"),
    "grad mode": lambda: torch.set_grad_enabled(False),
    "anomaly detection": lambda: torch.autograd.set_detect_anomaly(True),
    "autocast": lambda: torch.set_autocast_enabled("cpu", True),
    "threads": lambda: torch.set_num_threads(torch.get_num_threads() + 1),
    "flushing of denormal numbers": lambda: torch.set_flush_denormal(True),
    "deterministic algorithms": lambda: torch.use_deterministic_algorithms(True),
    "cuDNN flags": change_cudnn,
    "float32 matmul precision": lambda: torch.set_float32_matmul_precision("medium"),
    "float32 precisions": change_precision,
    "attention kernels": lambda: torch.backends.cuda.enable_math_sdp(False),
    "hooks of all modules": lambda: nn.modules.module.register_module_forward_hook(stumble),
}


def values() -> dict[str, Any]:
    return {setting.name: setting.value() for setting in SETTINGS}


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_each_setting_is_put_back_and_named(setting: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    before = values()
    with keep_process_state():
        CHANGES[setting.name]()
        assert setting.value() != before[setting.name], "the test does not change it"
    assert values() == before
    assert (setting.name in caplog.text) == (setting.name != FILTERS)


def test_the_time_zone_is_put_back_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    with keep_process_state():
        os.environ["TZ"] = "Asia/Tokyo"
        time.tzset()
        assert time.localtime(0).tm_hour == 9
    assert time.localtime(0).tm_hour == 0


def test_what_torch_sets_for_itself_is_no_fault_of_a_model(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    with keep_process_state():
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = "/somewhere"
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "/somewhere"
    assert caplog.text == ""


def test_generators_are_put_back_after_an_exit_too() -> None:
    def draw() -> list[float]:
        return [random.random(), float(np.random.rand()), float(torch.rand(()))]

    draws = []
    for _ in range(2):
        with suppress(UserExitError), contain_user_code():
            draws.append(draw())
            random.seed(1), np.random.seed(1), torch.manual_seed(1)
            np.random.mtrand.set_bit_generator(np.random.PCG64())
            sys.exit(0)
    assert draws[0] == draws[1]


def test_nothing_is_said_where_nothing_changed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with keep_process_state():
        random.random()
    assert caplog.text == ""


def test_it_takes_less_than_a_millisecond() -> None:
    times = []
    for _ in range(20):
        began = time.perf_counter()
        with contain_user_code():
            pass
        times.append(time.perf_counter() - began)
    assert min(times) < 0.001


class Innocent(nn.Module):
    """Draws from every generator, and computes in whatever mode it finds."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.layer, self.dropout = nn.Linear(36, classes), nn.Dropout(0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        noise = torch.as_tensor(np.random.rand(36), dtype=torch.float32) * random.random()
        return self.layer(self.dropout(x.flatten(1)) + noise * torch.ones(36))


def test_after_a_vandal_an_innocent_trial_has_the_same_bits_as_alone(tmp_path: Path) -> None:
    @hpo.model("innocent")
    def innocent(config: TrialConfig, shape: Any, classes: int) -> nn.Module:
        return Innocent(classes)

    @hpo.model("vandal")
    def vandal(config: TrialConfig, shape: Any, classes: int) -> nn.Module:
        for change in CHANGES.values():
            change()
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        raise RuntimeError("and it fails")

    @hpo.model("clumsy")
    def clumsy(config: TrialConfig, shape: Any, classes: int) -> nn.Module:
        return nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(36, classes))  # writes to the samples

    cache = DataCache(make_reference(str(small_npz(tmp_path / "small.npz"))), torch.device("cpu"))

    def rows(model: str) -> list[dict[str, float]]:
        config = TrialConfig(model=model, epochs=2, batch_size=32)
        [outcome] = train([config], cache.get(config))
        return [{name: value for name, value in row.items() if name != "seconds"} for row in outcome.history]

    before, alone = values(), rows("innocent")
    with pytest.raises(RuntimeError, match="and it fails"):
        rows("vandal")
    assert values() == before
    assert rows("innocent") == alone
    rows("clumsy")
    assert rows("innocent") == alone
