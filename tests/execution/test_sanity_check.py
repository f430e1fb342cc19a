"""Sanity check of a study before it exists: what is broken is named, and what only looks broken is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import BaseModel
from torch import Tensor, nn

import hpo
from hpo.config import registry
from hpo.errors import ConfigError, DataError, RequestError
from hpo.execution.launch import plan_launch
from hpo.execution.sanity_check import check_study
from tests.helpers import run_hpo

HERE = Path(__file__).name


class Broken(nn.Module):
    """Model that fails in training alone."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Any:
        if self.training:
            raise RuntimeError("no way to train\nthis")
        return self.inner(x)


class Extra(BaseModel):
    """Parameters of the model below."""

    blocks: int = 1
    head: str = "a"


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models, loops, data sets and metrics that are there for one test."""
    for each in (registry.models, registry.datasets, registry.metrics):
        monkeypatch.setattr(each, "_entries", dict(each._entries))

    @hpo.model("net", parameters=Extra, uses=["dropout"])
    def net(config: Any, shape: tuple[int, ...], classes: int) -> nn.Module:
        if config.head == "b" and config.blocks > 2:
            raise KeyError("no head b")
        layer = nn.Linear(shape[0], classes)
        return Broken(layer) if config.blocks == 2 else layer

    @hpo.dataset("points")
    def points() -> hpo.Dataset:
        x = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
        return hpo.Dataset(train=(x, (x[:, 0] > 0).astype(int)))

    @hpo.dataset("nan")
    def nan() -> hpo.Dataset:
        return hpo.Dataset(train=(torch.full((200, 5), float("nan")), torch.arange(200) % 2))

    @hpo.dataset("missing")
    def missing() -> hpo.Dataset:
        raise FileNotFoundError("no points.csv")

    @hpo.metric("broken")
    def broken(outputs: Tensor, _targets: Tensor) -> float:
        return outputs.foo  # type: ignore[attr-defined,no-any-return]

    @hpo.metric("needs_many")
    def needs_many(_outputs: Tensor, targets: Tensor) -> float:
        if len(targets) < 33:
            raise ValueError("too few")
        return 0.5


def check(dataset: str = "points", **keys: Any) -> list[str]:
    parameters = {"model": "net", **keys.pop("parameters", {})}
    plan = plan_launch(None, name="x", dataset=dataset, trials=4, parameters=parameters, **keys)
    return check_study(plan.definition, "cpu")


def test_a_study_that_can_be_trained_says_what_was_tried() -> None:
    lines = check(parameters={"model": ["net", "mlp"], "optimizer": ["adam", "lbfgs"], "depth": {"low": 0, "high": 2}})
    assert lines == [
        "tried net: one training step of 2 configurations, on up to 32 samples",
        "tried mlp: one training step of 2 configurations, on up to 32 samples",
    ]


def test_the_parameters_to_blame_are_named_and_no_others() -> None:
    choices = {"blocks": [1, 3], "head": ["a", "b"], "dropout": [0.0, 0.5], "optimizer": ["adam", "sgd"]}
    with pytest.raises(RequestError) as caught:
        check(parameters=choices)
    assert str(caught.value).startswith(
        f"model 'net' with blocks = 3, head = b cannot be trained: KeyError: 'no head b' ({HERE}, line "
    )
    assert str(caught.value).endswith(': raise KeyError("no head b"))')


def test_a_model_that_fails_only_in_training_is_found() -> None:
    with pytest.raises(RequestError, match=r"model 'net' with blocks = 2 cannot be trained: RuntimeError: no way to"):
        check(parameters={"blocks": {"low": 1, "high": 2}})
    with pytest.raises(RequestError, match="model 'net' cannot be trained: RuntimeError: no way to train"):
        check(parameters={"blocks": 2})


def test_the_baseline_and_warm_starts_are_tried_too() -> None:
    with pytest.raises(RequestError, match="with blocks = 2 cannot be trained"):
        check(parameters={"blocks": [1, 3]}, baseline={"blocks": 2})


def test_broken_data_sets_are_one_line() -> None:
    with pytest.raises(DataError) as caught:
        check("missing")
    assert str(caught.value).startswith(f"data set 'missing': FileNotFoundError: no points.csv ({HERE}, line ")
    with pytest.raises(RequestError, match=r"model 'net': its loss on data set 'nan' is not finite before the first"):
        check("nan")
    with pytest.raises(ConfigError, match="validation = 500: takes 500 of 200"):
        check(parameters={"validation": 500})


def test_a_metric_is_computed_and_few_samples_are_no_fault() -> None:
    with pytest.raises(RequestError, match=r"metric 'broken': AttributeError: .*: return outputs.foo"):
        check(objective="broken")
    assert check(objective="needs_many", parameters={"validation": 40})


def test_a_lack_of_memory_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_out(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(nn.Linear, "forward", run_out)
    assert check()[0].endswith("on up to 32 samples, 1 out of memory")


def test_a_training_loop_runs_to_its_first_report() -> None:
    seen = []

    @hpo.training_loop("own", uses=["epochs"])
    def own(trial: hpo.Trial) -> None:
        for epoch in trial.epochs():
            seen.append((epoch, len(trial.data.x_train)))
            try:
                trial.report(val_accuracy=0.5)
            except Exception:
                seen.append((0, 0))

    assert check(parameters={"model": "own", "epochs": 3}) == [
        "tried own: 1 configuration to the first report, on up to 32 samples"
    ]
    assert seen == [(1, 32)]


def test_a_training_loop_with_data_of_its_own_is_not_run_but_its_signature_is_checked() -> None:
    @hpo.training_loop("away", uses=["epochs"])
    def away(_trial: hpo.Trial) -> None:
        pytest.fail("was run")

    @hpo.training_loop("two", uses=["epochs"])
    def two(_trial: hpo.Trial, _other: int) -> None:
        pass

    assert check("none", parameters={"model": "away"}) == [
        "tried away: its signature alone, for it reads data of its own"
    ]
    with pytest.raises(RequestError, match=r"training loop 'two': takes \(.*\), but is called with \(trial\)"):
        check("none", parameters={"model": "two"})


def test_batches_of_a_data_set_that_streams_are_tried() -> None:
    @hpo.dataset("batches")
    def batches() -> hpo.Dataset:
        x, y = torch.randn(8, 5), torch.arange(8) % 2
        return hpo.Dataset(train=[(x, y)] * 3, validation=(x, y), classes=2)

    @hpo.dataset("wide")
    def wide() -> hpo.Dataset:
        x, y = torch.randn(8, 5), torch.arange(8) % 2
        return hpo.Dataset(train=[(torch.randn(8, 7), y)], validation=(x, y), classes=2)

    assert check("batches")
    with pytest.raises(RequestError, match="model 'net' cannot be trained: RuntimeError: mat1 and mat2"):
        check("wide")


def test_the_command_ends_with_exit_code_2_before_a_study_exists(tmp_path: Path) -> None:
    (tmp_path / "unready.py").write_text(
        "import hpo\n\n@hpo.dataset('unready')\ndef unready():\n    return open('away.csv')\n"
    )
    command = ("launch", "quickstart", "--dataset", "unready", "--import", "unready", "--dry-run", "--device", "cpu")
    done = run_hpo(*command, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == (
        "hpo: data set 'unready': FileNotFoundError: [Errno 2] No such file or directory: 'away.csv' "
        "(unready.py, line 5: return open('away.csv'))"
    )
