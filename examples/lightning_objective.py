"""Lightning's Trainer in an objective function: `hpo launch lightning_objective.py:objective --trials 4 --workers 1`.

Needs `pip install 'torch-hpo[lightning]'`. With `import pytorch_lightning as lightning` it is the same.
"""

from __future__ import annotations

import logging

import lightning
import optuna
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from hpo.datasets import mnist
from hpo.integrations.lightning import TrialCallback

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Classifier(lightning.LightningModule):
    """A dense network that logs what it is measured by."""

    def __init__(self, width: int, learning_rate: float) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.layers = nn.Sequential(nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 10))

    def training_step(self, batch: tuple[Tensor, Tensor], _index: int) -> Tensor:
        return F.cross_entropy(self.layers(batch[0]), batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor], _index: int) -> None:
        outputs = self.layers(batch[0])
        self.log("val_loss", F.cross_entropy(outputs, batch[1]))
        self.log("val_accuracy", (outputs.argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate)


def loaders() -> tuple[DataLoader, DataLoader]:
    """4,000 of MNIST's digits for training, and 1,000 for validation."""
    x, y = (torch.from_numpy(part[:5000]) for part in mnist().train)
    digits = TensorDataset(x.flatten(1) / 255, y.long())
    training, validation = random_split(digits, [4000, 1000], torch.Generator().manual_seed(0))
    return DataLoader(training, batch_size=128, shuffle=True), DataLoader(validation, batch_size=1000)


def objective(trial: optuna.Trial) -> float:
    """Train a network, or go on with it where a worker has been killed; return its accuracy."""
    lightning.seed_everything(0, verbose=False)
    module = Classifier(
        trial.suggest_int("width", 16, 128, log=True), trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True)
    )
    callback = TrialCallback(trial, monitor="val_accuracy")
    trainer = lightning.Trainer(
        max_epochs=3,
        callbacks=[callback],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, *loaders(), ckpt_path=callback.ckpt_path)
    return callback.metrics["val_accuracy"]
