"""Trainers of other frameworks in training loops; Lightning's is in tests/test_examples.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import torch
from ignite.engine import Events, create_supervised_evaluator, create_supervised_trainer
from ignite.metrics import Loss
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import hpo
from hpo.config import registry
from hpo.integrations import adapter
from hpo.integrations.ignite import TrialHandler
from hpo.integrations.transformers import TrialCallback
from tests.study.helpers import make_study
from tests.workers import make_worker

X = torch.linspace(-1, 1, 64)[:, None]
EPOCHS = 4


@pytest.fixture(autouse=True)
def _entries(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (registry.models, registry.metrics):
        monkeypatch.setattr(kind, "_entries", dict(kind._entries))


def by_ignite(trial: hpo.Trial) -> None:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=trial.config.learning_rate)
    trainer = create_supervised_trainer(model, optimizer, nn.functional.mse_loss)
    evaluator = create_supervised_evaluator(model, {"error": Loss(nn.functional.mse_loss)})
    trainer.on(Events.EPOCH_COMPLETED)(lambda: evaluator.run([(X, 3 * X)]))
    TrialHandler(trial).attach(trainer, evaluator, {"model": model, "optimizer": optimizer})
    trainer.run(DataLoader(TensorDataset(X, 3 * X), batch_size=16, shuffle=True), max_epochs=EPOCHS)


class Points(Dataset):
    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"x": X[index], "labels": 3 * X[index]}


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": nn.functional.mse_loss(self.layer(x), labels), "logits": self.layer(x)}


def by_transformers(trial: hpo.Trial) -> None:
    from transformers import Trainer, TrainingArguments

    callback = TrialCallback(trial)
    arguments = TrainingArguments(
        str(trial.folder), num_train_epochs=EPOCHS, eval_strategy="epoch", save_strategy="epoch", use_cpu=True,
        learning_rate=trial.config.learning_rate, report_to="none", disable_tqdm=True, logging_strategy="no",
        per_device_train_batch_size=16, seed=trial.config.seed,
    )  # fmt: skip
    trainer = Trainer(Line(), arguments, train_dataset=Points(), eval_dataset=Points(), callbacks=[callback])
    trainer.train(resume_from_checkpoint=callback.ckpt_path)


@pytest.mark.parametrize(("loop", "metric"), [(by_ignite, "error"), (by_transformers, "eval_loss")])
def test_a_loop_reports_all_metrics_and_goes_on_where_it_was_interrupted(
    loop: Callable[[hpo.Trial], None], metric: str, tmp_path: Path
) -> None:
    calls: list[int] = []

    def counted(trial: hpo.Trial) -> None:
        calls.append(trial.epoch)
        loop(trial)

    hpo.training_loop("mine", uses=["epochs", "learning_rate"], reports={metric: "minimize"})(counted)
    space = {"model": "mine", "epochs": EPOCHS, "learning_rate": 0.1}

    def values(name: str, stop_after: int | None) -> list[Any]:
        study = make_study(tmp_path, name, dataset="none", objective=metric, parameters=space, trials=1)
        make_worker(study, lambda: _epochs(study) == stop_after, checkpoint_every=3600).run()
        make_worker(study).run()
        (trial,) = study.trials()
        assert trial.state.name == "COMPLETE"
        return [row[metric] for row in study.storage.read_epochs(study.id)[trial._trial_id]]

    whole = values("whole", None)
    assert len(whole) == EPOCHS
    assert values("halted", 2) == whole
    assert calls == [0, 0, 2]


def _epochs(study: Any) -> int:
    study.storage.flush()
    return max((len(rows) for rows in study.storage.read_epochs(study.id).values()), default=0)


@pytest.mark.parametrize(("epoch", "reported"), [(0.5, []), (1.0, [{"eval_loss": 0.3}])])
def test_an_evaluation_within_an_epoch_is_no_epoch(epoch: float, reported: list[dict[str, float]]) -> None:
    seen: list[dict[str, float]] = []
    trial: Any = SimpleNamespace(report=lambda value, step, **metrics: seen.append(metrics))
    adapter._LoopTrial(trial).report({"eval_loss": 0.3, "epoch": epoch, "step": 7.0}, 7)
    assert seen == reported


def test_an_evaluator_that_runs_twice_in_an_epoch_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Linear(1, 1)
    trainer = create_supervised_trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), nn.functional.mse_loss)
    evaluator = create_supervised_evaluator(model, {"error": Loss(nn.functional.mse_loss)})
    trainer.on(Events.EPOCH_COMPLETED)(lambda: [evaluator.run([(X, 3 * X)]) for _ in range(2)])
    handler = TrialHandler(optuna.trial.FixedTrial({}))
    handler.attach(trainer, evaluator, {"model": model})
    trainer.run([(X, 3 * X)], max_epochs=2)
    assert "the evaluator has run again in epoch 1, and what counts is its first run" in caplog.text
