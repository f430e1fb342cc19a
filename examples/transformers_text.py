"""Hugging Face's Trainer on texts: which module of Python does a line of documentation belong to?

`python transformers_text.py` is its own `hyperparameter_search`, on our storage: what `hpo report texts` reads.
`hpo launch transformers_text.py:objective --trials 4 --workers 1` calls an objective function, whose trials also go on
from a checkpoint. Needs `pip install 'torch-hpo[transformers]'`, and downloads nothing.
"""

from __future__ import annotations

import argparse
import pathlib
import tarfile
import zipfile
from typing import Any

import optuna
import torch
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments
from transformers.utils import logging

import hpo
from hpo.integrations.transformers import TrialCallback

logging.set_verbosity_error()
MODULES, LENGTH = (argparse, pathlib, tarfile, zipfile), 48


class Lines(Dataset):
    """Lines of the modules' source, as bytes: every fifth for validation, or the others."""

    def __init__(self, *, validation: bool) -> None:
        lines = [
            (line.strip(), label)
            for label, module in enumerate(MODULES)
            for line in pathlib.Path(module.__file__).read_text(encoding="utf-8").splitlines()[:500]
            if len(line.strip()) > 20
        ]
        self.lines = [each for number, each in enumerate(lines) if (number % 5 == 0) == validation]

    def __len__(self) -> int:
        return len(self.lines)

    def __getitem__(self, index: int) -> dict[str, Any]:
        line, label = self.lines[index]
        text = line.encode()[:LENGTH].ljust(LENGTH, b"\0")
        return {"input_ids": torch.tensor(list(text)), "labels": label}


def make_model() -> BertForSequenceClassification:
    """A transformer of one layer, with random weights."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(vocab_size=256, max_position_embeddings=LENGTH, num_labels=len(MODULES), **sizes)
    return BertForSequenceClassification(config)


def accuracy(outputs: Any) -> dict[str, float]:
    """The fraction of lines that are attributed to their module."""
    return {"accuracy": float((outputs.predictions.argmax(1) == outputs.label_ids).mean())}


def make_trainer(folder: pathlib.Path, **options: Any) -> Trainer:
    """A trainer of two epochs, with what a trial decides."""
    callbacks = options.pop("callbacks", [])
    quiet = {
        "disable_tqdm": True,
        "report_to": "none",
        "logging_strategy": "no",
        "use_cpu": True,
        "per_device_eval_batch_size": 256,
    }
    arguments = TrainingArguments(
        str(folder), num_train_epochs=2, eval_strategy="epoch", **{"save_strategy": "no", **quiet, **options}
    )
    return Trainer(
        args=arguments,
        model_init=make_model,
        train_dataset=Lines(validation=False),
        eval_dataset=Lines(validation=True),
        compute_metrics=accuracy,
        callbacks=callbacks,
    )


def space(trial: optuna.Trial) -> dict[str, Any]:
    """Arguments of the trainer that a trial decides."""
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True),
        "per_device_train_batch_size": trial.suggest_categorical("per_device_train_batch_size", [32, 64]),
    }


def objective(trial: optuna.Trial) -> float:
    """Train, or go on where a worker has been killed; return the accuracy."""
    callback = TrialCallback(trial, monitor="eval_accuracy")
    folder = hpo.checkpoint(trial).folder
    trainer = make_trainer(folder, save_strategy="epoch", save_total_limit=2, callbacks=[callback], **space(trial))
    trainer.train(resume_from_checkpoint=callback.ckpt_path)
    return callback.metrics["eval_accuracy"]


if __name__ == "__main__":
    trainer = make_trainer(pathlib.Path("texts"))
    trainer.hyperparameter_search(
        hp_space=space,
        compute_objective=lambda metrics: metrics["eval_accuracy"],
        backend="optuna",
        direction="maximize",
        n_trials=2,
        storage=hpo.StudyStorage("sqlite:///texts.db"),
        study_name="texts",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=1),
    )
