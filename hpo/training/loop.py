"""The training loop: one for every learner, every model and every device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch

from hpo.config import registry
from hpo.config.cohort_key import cohort_key
from hpo.config.model_size import resolve_width
from hpo.config.registry import BUILTIN_METRICS, Direction, MetricEntry
from hpo.config.trial_config import TrialConfig
from hpo.training.callbacks import Callback
from hpo.training.checkpoint import Checkpoint, CheckpointFile, CheckpointSpec, fingerprint
from hpo.training.cohort_run import CohortRun
from hpo.training.custom_loop import run_loop
from hpo.training.data import Data
from hpo.training.member import Member, TrainResult
from hpo.training.memory import keep_freed_memory, translate_memory_errors

__all__ = ["train"]

CONSTANT = ("parameter_count", "train_seconds")


def train(
    configs: Sequence[TrialConfig],
    data: Data,
    *,
    monitor: str | None = None,
    direction: Direction = "maximize",
    metrics: Sequence[MetricEntry] = (),
    callbacks: Sequence[Callback] = (),
    should_stop: Callable[[], bool] = lambda: False,
    checkpoints: Sequence[CheckpointSpec | None] | None = None,
    record_steps: bool = False,
) -> list[TrainResult]:
    """Train configurations, each to its end, and say what came out, in their order.

    Models that are loops of the user's own train themselves; see `hpo.training.custom_loop`.
    Trials that fit together are one cohort, trained at the same time, and those that one run answers are one run; see
    `hpo.config.cohort_key`. The others, and those that begin from another place than the rest, are trained one after
    the other.

    A row of metrics has: epoch (from 1); train_loss and train_accuracy, the means over the epoch's steps, each measured
    before its step; val_loss (without label smoothing), val_accuracy and the registered `metrics` after the epoch,
    where there are validation samples (else the last epoch is the best), of models that reconstruct their input
    val_reconstruction_error instead of accuracies; learning_rate, which the next step would use;
    seconds of training so far, those before an interruption too, where a cohort's are divided evenly among its trials.
    A trial ends as diverged after an epoch whose loss is not finite; that row is the last of its history.

    Args:
        configs: what to train.
        data: what to train on, prepared for these configurations.
        monitor: the metric that decides which epoch is the best, for its weights and for patience. None, and a
            metric that does not tell one epoch from another (parameter_count, train_seconds), leave that to
            val_accuracy, or to val_loss where there is none.
        direction: which way the monitor is better.
        metrics: registered metrics, computed over the validation split after every epoch.
        callbacks: called after every epoch; one that has ended is told of that before its cohort's next epoch.
        should_stop: asked between steps; once true, every trial ends as interrupted, with its whole epochs.
        checkpoints: of each configuration, or of none. A trial that ends as interrupted has left one. A trial that
            begins from one ends with the same bits as if it had never been interrupted, on the same machine with as
            many threads; but for rounding and dropout where it is, or was, trained with others. Where the data set
            gives batches, that holds as long as an epoch's batches follow from torch's global generator or never
            change: those of the epoch's steps already done are read again, and passed over.
        record_steps: whether every step's loss is kept as well, see `Member.record`: callbacks find those of the epoch
            in `member.steps`.

    Raises:
        CheckpointError: a checkpoint to begin from is missing, damaged or another trial's; no callback has been called
            for its trial.
        ConfigError: a model cannot take the data's samples.
        OutOfMemoryError: the device has too little memory.
    """
    keep_freed_memory()
    if registry.models.get(configs[0].model).loop:
        return _by_loops(configs, data, monitor, direction, metrics, callbacks, should_stop, checkpoints)
    if monitor is None or monitor in CONSTANT:
        reconstructs = configs[0].reconstructs
        monitor, direction = ("val_loss", "minimize") if reconstructs else ("val_accuracy", "maximize")
    if not len(data.y_val):  # nothing tells one epoch from another: the last is kept
        monitor, direction = "epoch", "maximize"
    registered = [entry for entry in metrics if entry.name not in BUILTIN_METRICS]
    names = [entry.name for entry in registered]
    specs = [None] * len(configs) if checkpoints is None else checkpoints
    files = {
        number: CheckpointFile(
            spec, fingerprint(config, data, monitor, direction, names, spec.owner, record_steps=record_steps)
        )
        for number, (config, spec) in enumerate(zip(configs, specs, strict=True))
        if spec is not None
    }
    with translate_memory_errors(), _own_randomness(data.device):
        found = {number: file.load() for number, file in files.items()}
        outcomes: dict[int, TrainResult] = {}
        for numbers in _together(configs, found):
            members = [Member(resolve_width(configs[number], data.shape, data.classes), number) for number in numbers]
            run = CohortRun(members, data, monitor, direction, registered, callbacks, should_stop, files, record_steps)
            outcomes |= run.train({number: found.get(number) for number in numbers})
        return [outcomes[number] for number in range(len(configs))]


def _by_loops(
    configs: Sequence[TrialConfig],
    data: Data,
    monitor: str | None,
    direction: Direction,
    metrics: Sequence[MetricEntry],
    callbacks: Sequence[Callback],
    should_stop: Callable[[], bool],
    checkpoints: Sequence[CheckpointSpec | None] | None,
) -> list[TrainResult]:
    """Train by loops of the user's own, one trial after the other."""
    names = [entry.name for entry in metrics]
    outcomes = []
    for number, (config, spec) in enumerate(zip(configs, checkpoints or [None] * len(configs), strict=True)):
        belongs = fingerprint(config, data, monitor or "", direction, names, spec.owner if spec else "")
        file = None if spec is None else CheckpointFile(spec, belongs)
        with translate_memory_errors(), _own_randomness(data.device):
            run = (config, number, data, monitor, direction, metrics, callbacks, should_stop, file)
            outcomes.append(run_loop(*run))
    return outcomes


def _together(configs: Sequence[TrialConfig], found: Mapping[int, Checkpoint | None]) -> list[list[int]]:
    """The numbers of the trials of each run, in the order of their first."""
    runs: dict[object, list[int]] = {}
    for number, config in enumerate(configs):
        checkpoint = found.get(number)
        place = (checkpoint.epoch, checkpoint.step) if checkpoint else (1, 0)
        runs.setdefault((cohort_key(config), place), []).append(number)
    return list(runs.values())


@contextmanager
def _own_randomness(where: torch.device) -> Iterator[None]:
    """Leave torch's global generators as they were: training may run inside a person's own program."""
    with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
        yield
