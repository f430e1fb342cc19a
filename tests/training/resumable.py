"""A trial to interrupt, in this process or, as `python -m tests.training.resumable`, in one of its own."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import torch

from hpo.config.trial_config import TrialConfig
from hpo.datasets import Dataset
from hpo.training.callbacks import Callback
from hpo.training.checkpoint import CheckpointSpec
from hpo.training.data import Data, prepare_data
from hpo.training.loop import train
from hpo.training.member import TrainResult
from hpo.training.settings import TrainSettings

CPU = torch.device("cpu")
RNG = np.random.default_rng(0)
Y = np.arange(160) % 3
X = RNG.normal(size=(3, 8))[Y] + RNG.normal(size=(160, 8))
EVERYTHING = {"dropout": 0.3, "batch_norm": True}  # that needs more than weights to go on


def config(**parameters) -> TrialConfig:
    """Five steps an epoch, the last a short one, and three epochs."""
    return TrialConfig(**{"validation": 20, "widths": "16-8", "epochs": 3, "batch_size": 32, **parameters})


def data(given: TrialConfig) -> Data:
    return prepare_data(Dataset((X, Y), classes=3), given, CPU)


def one(given: TrialConfig, on: Data, spec: CheckpointSpec | None = None, **keywords) -> TrainResult:
    (outcome,) = train([given], on, TrainSettings(**keywords), checkpoints=[spec])
    return outcome


def stop_after(answers: int):
    """Asked to stop from the question after so many on."""
    left = iter(range(answers))
    return lambda: next(left, None) is None


def bits(outcome: TrainResult) -> tuple[object, ...]:
    """All of an outcome that two equal runs share, to be compared with ==."""
    history = [{key: repr(value) for key, value in row.items() if key != "seconds"} for row in outcome.history]
    weights = {key: (value.dtype, value.numpy().tobytes()) for key, value in (outcome.weights or {}).items()}
    return outcome.status, history, outcome.best_epoch, weights


class Slow(Callback):
    """Time to be killed in."""

    def on_epoch(self, member, metrics) -> None:
        print(int(metrics["epoch"]), flush=True)  # noqa: T201
        time.sleep(0.05)


def main(checkpoint: Path, out: Path) -> None:
    """Train, from the checkpoint where there is one, with a checkpoint each epoch; write the outcome."""
    torch.set_num_threads(1)
    given = config(epochs=40, **EVERYTHING)
    spec = CheckpointSpec(checkpoint, resume=checkpoint.exists(), every=0)
    outcome = one(given, data(given), spec, callbacks=[Slow()] if not spec.resume else [])
    torch.save(bits(outcome), out)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
