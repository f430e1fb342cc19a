"""Lightning's Trainer as the training loop: `hpo launch ./lightning_loop.toml --import lightning_loop`.

Needs `pip install 'torch-hpo[lightning]'`.
"""

from __future__ import annotations

import logging
import warnings

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import hpo
from hpo.integrations.lightning import TrialCallback

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module="lightning")


class Digits(lightning.LightningModule):
    """A dense network that logs what it is measured by."""

    def __init__(self, width: int, learning_rate: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 10))
        self.learning_rate = learning_rate

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)

    def training_step(self, batch: tuple[Tensor, Tensor], _index: int) -> Tensor:
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], _index: int) -> None:
        outputs = self(batch[0])
        self.log("val_loss", F.cross_entropy(outputs, batch[1]))
        self.log("val_accuracy", (outputs.argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate)


@hpo.training_loop("lightning_loop", uses=["epochs", "batch_size", "learning_rate", "width"])
def lightning_loop(trial: hpo.Trial) -> None:
    """Train one trial, or go on with it."""
    config, data = trial.config, trial.data
    lightning.seed_everything(config.seed, verbose=False)
    module = Digits(config.width, config.learning_rate)
    trial.keep(module)
    callback = TrialCallback(trial)  # reports all that the module logs
    trainer = lightning.Trainer(
        max_epochs=config.epochs,
        accelerator=trial.device.type,
        devices=1 if trial.device.index is None else [trial.device.index],
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    training = DataLoader(TensorDataset(data.x_train, data.y_train), config.batch_size, shuffle=True)
    validation = DataLoader(TensorDataset(data.x_val, data.y_val), 1000)
    trainer.fit(module, training, validation, ckpt_path=callback.ckpt_path)
