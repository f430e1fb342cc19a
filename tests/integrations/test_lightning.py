"""Lightning's trainers, of both packages, with Optuna's trials; tests/test_examples.py has one with a training loop."""

from __future__ import annotations

import importlib
import logging
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

from hpo.datasets import mnist
from hpo.errors import RequestError, RunError
from hpo.integrations.lightning import TrialCallback
from tests.integrations.frameworks import launch, work

PACKAGES = ("lightning.pytorch", "pytorch_lightning")
X, Y = (torch.tensor(part[:800]) for part in mnist().train)
DIGITS = TensorDataset(X.flatten(1) / 255, Y.long())


@pytest.fixture(autouse=True)
def _quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for package in PACKAGES:
        monkeypatch.setattr(logging.getLogger(package), "disabled", True)


def make_module(package: str, rate: float = 0.1) -> Any:
    pl = importlib.import_module(package)

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.save_hyperparameters({"rate": rate})
            self.layer = torch.nn.Linear(784, 10)

        def training_step(self, batch, index):
            loss = F.cross_entropy(self.layer(batch[0]), batch[1])
            self.log("train_loss", loss, on_step=False, on_epoch=True)
            return loss

        def validation_step(self, batch, index):
            self.log("val_loss", F.cross_entropy(self.layer(batch[0]), batch[1]))

        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=self.hparams["rate"], momentum=0.9)
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]

    return Module()


def fit(trial: Any, package: str = PACKAGES[0], monitor: str | None = "val_loss", **options: Any) -> TrialCallback:
    """Train a layer on 640 digits, in 5 steps an epoch, and validate on 160."""
    torch.manual_seed(0)
    module = make_module(package, trial.suggest_float("rate", 0.1, 0.2))
    callback = TrialCallback(trial, monitor)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    single = options.pop("single", False)
    trainer = importlib.import_module(package).Trainer(
        callbacks=callback if single else [callback], accelerator="cpu", **{"max_epochs": 3, **quiet, **options}
    )
    training = DataLoader(torch.utils.data.Subset(DIGITS, range(640)), batch_size=128, shuffle=True)
    validation = DataLoader(torch.utils.data.Subset(DIGITS, range(640, 800)), batch_size=160)
    trainer.fit(module, training, validation, ckpt_path=callback.ckpt_path)
    return callback


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("single", [False, True])
def test_each_validation_of_either_package_is_reported_but_not_the_sanity_check(package: str, single: bool) -> None:
    trial = optuna.create_study().ask()
    callback = fit(trial, package, single=single)
    reports = trial.study.trials[0].intermediate_values
    assert list(reports) == [0, 1, 2]
    assert reports[2] == callback.metrics["val_loss"] < reports[0]
    assert set(callback.metrics) == {"train_loss", "val_loss"} or set(callback.metrics) == {"val_loss"}


@pytest.mark.parametrize(
    ("options", "monitor", "steps"),
    [
        ({"val_check_interval": 0.5}, "val_loss", [0, 1, 2, 3]),
        ({"check_val_every_n_epoch": 2, "max_epochs": 4}, "val_loss", [1, 3]),
        ({}, "train_loss", [0, 1]),
        ({"limit_val_batches": 0}, "train_loss", [0, 1]),
    ],
)
def test_steps(options: dict[str, Any], monitor: str, steps: list[int]) -> None:
    trial = optuna.create_study().ask()
    fit(trial, monitor=monitor, **{"max_epochs": 2, **options})
    assert list(trial.study.trials[0].intermediate_values) == steps


@pytest.mark.parametrize("options", [{}, {"limit_val_batches": 0}])
def test_a_metric_that_is_not_logged_is_told_with_the_nearest(options: dict[str, Any]) -> None:
    monitor = "val_los" if not options else "trainloss"
    with pytest.raises(RunError, match=rf"unknown metric '{monitor}'; did you mean '(val|train)_loss'\?$") as raised:
        fit(optuna.create_study().ask(), monitor=monitor, **options)
    assert "\n" not in str(raised.value)


def test_a_bad_trial_is_pruned() -> None:
    study = optuna.create_study(pruner=optuna.pruners.ThresholdPruner(upper=0.0, n_warmup_steps=1))
    study.optimize(lambda trial: fit(trial).metrics["val_loss"], n_trials=1)
    assert study.trials[0].state.name == "PRUNED"
    assert list(study.trials[0].intermediate_values) == [0, 1]


def test_several_objectives_are_not_reported() -> None:
    study = optuna.create_study(directions=["minimize", "minimize"])
    study.optimize(lambda trial: [*fit(trial, max_epochs=1).metrics.values(), 1.0][-2:], n_trials=1)
    assert study.trials[0].state.name == "COMPLETE"


def test_a_fixed_trial_and_no_trial_run_and_something_else_does_not() -> None:
    assert fit(optuna.trial.FixedTrial({"rate": 0.1}), max_epochs=1).metrics
    TrialCallback(None, "val_loss")
    with pytest.raises(RequestError, match="trial is str; give the trial that your function was called with"):
        TrialCallback("trial", "val_loss")  # type: ignore[arg-type]


@pytest.mark.parametrize("reports", [1, 3])
def test_a_trial_that_is_taken_over_goes_on_as_if_nothing_had_happened(tmp_path: Path, reports: int) -> None:
    whole = launch(tmp_path, "whole")
    (expected,) = work(whole, tmp_path, lambda trial: fit(trial).metrics["val_loss"])
    halted = launch(tmp_path, "halted")
    (waiting,) = work(halted, tmp_path, lambda trial: fit(trial).metrics["val_loss"], stop_after=reports)
    assert waiting.state.name == "WAITING"
    begun: list[str | None] = []

    def resumed(trial: optuna.Trial) -> float:
        callback = fit(trial)
        begun.append(callback.ckpt_path)
        return callback.metrics["val_loss"]

    (trial,) = work(halted, tmp_path, resumed)
    assert trial.state.name == "COMPLETE"
    assert (begun[0] or "").endswith("epoch-2.ckpt" if reports == 3 else "")
    assert trial.intermediate_values == expected.intermediate_values
    assert trial.value == expected.value


def test_a_checkpoint_that_the_trainer_is_not_given_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    study = launch(tmp_path, "forgotten")
    work(study, tmp_path, lambda trial: fit(trial).metrics["val_loss"], stop_after=2)

    def forgetful(trial: optuna.Trial) -> float:
        callback = TrialCallback(trial, "val_loss")
        trainer = importlib.import_module(PACKAGES[0]).Trainer(
            callbacks=[callback], max_epochs=1, logger=False, enable_checkpointing=False, accelerator="cpu",
            enable_progress_bar=False,
        )  # fmt: skip
        trainer.fit(make_module(PACKAGES[0]), DataLoader(DIGITS, 200), DataLoader(DIGITS, 800))
        return callback.metrics["val_loss"]

    work(study, tmp_path, forgetful)
    assert "was not given ckpt_path=callback.ckpt_path" in caplog.text
