"""The training loop: one for every learner, every model and every device."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

from hpo.config import TrialConfig
from hpo.errors import ConfigError, OutOfMemoryError
from hpo.registry import BUILTIN_METRICS, Direction, MetricEntry
from hpo.training.callbacks import Callback
from hpo.training.data import Data, epoch_seed
from hpo.training.learner import Evaluation, Learner, ModuleLearner
from hpo.training.member import Member, Metrics, Outcome
from hpo.training.memory import keep_freed_memory
from hpo.training.schedules import rate_at

__all__ = ["Callback", "Member", "Outcome", "device", "evaluate", "set_threads", "train"]

# What the CPU's allocator says instead of raising an exception of its own.
ALLOCATOR_WORDS = ("DefaultCPUAllocator", "not enough memory", "can't allocate memory", "Cannot allocate memory")
CONSTANT = ("parameter_count", "train_seconds")


def train(
    configs: Sequence[TrialConfig],
    data: Data,
    *,
    monitor: str = "val_accuracy",
    direction: Direction = "maximize",
    metrics: Sequence[MetricEntry] = (),
    callbacks: Sequence[Callback] = (),
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Outcome]:
    """Train configurations, each to its end, and say what came out, in their order.

    A row of metrics has: epoch (from 1); train_loss and train_accuracy, the means over the epoch's steps, each measured
    before its step; val_loss (without label smoothing) and val_accuracy after the epoch; the registered `metrics`;
    learning_rate, which the next step would use; seconds since training began. A trial ends as diverged
    after an epoch whose loss is not finite; that row is the last of its history.

    Args:
        configs: what to train.
        data: what to train on, prepared for these configurations.
        monitor: the metric that decides which epoch is the best, for its weights and for patience. A metric that does
            not tell one epoch from another (parameter_count, train_seconds) leaves that to val_accuracy.
        direction: which way the monitor is better.
        metrics: registered metrics, computed over the validation split after every epoch.
        callbacks: called after every epoch.
        should_stop: asked between steps; once true, every trial ends as interrupted, with its whole epochs.

    Raises:
        ConfigError: a model cannot take the data's samples.
        OutOfMemoryError: the device has too little memory.
    """
    keep_freed_memory()
    if monitor in CONSTANT:
        monitor, direction = "val_accuracy", "maximize"
    with _memory_errors(), _own_randomness(data.device):
        return [
            outcome
            for number, config in enumerate(configs)
            for outcome in Run(
                ModuleLearner(config, data.shape, data.classes, data.device, number=number),
                data,
                monitor,
                direction,
                [entry for entry in metrics if entry.name not in BUILTIN_METRICS],
                callbacks,
                should_stop,
            ).train()
        ]


class Run:
    """One learner's way through the epochs. Its members share the batch size, the number of epochs and the seed."""

    def __init__(
        self,
        learner: Learner,
        data: Data,
        monitor: str,
        direction: Direction,
        metrics: Sequence[MetricEntry],
        callbacks: Sequence[Callback],
        should_stop: Callable[[], bool],
    ) -> None:
        self._learner = learner
        self._data = data
        self._monitor = monitor
        self._direction = direction
        self._metrics = [(entry.name, entry.load()) for entry in metrics]
        self._callbacks = callbacks
        self._should_stop = should_stop
        self._members = list(learner.members)
        first = self._members[0].config
        self._batch_size, self._epochs = first.batch_size, first.epochs
        self._steps = data.steps(self._batch_size)
        self._begun = time.perf_counter()

    def train(self) -> list[Outcome]:
        """All epochs, or fewer."""
        for member in self._members:
            for callback in self._callbacks:
                callback.on_start(member)
        for epoch in range(1, self._epochs + 1):
            if not self._learner.members or not self._train_epoch(epoch):
                break
            self._close_epoch(epoch)
        return [self._outcome(member) for member in self._members]

    def _train_epoch(self, epoch: int) -> bool:
        """The steps of an epoch; false when asked to stop in its midst."""
        torch.manual_seed(epoch_seed(self._data.seed, epoch))
        learner, step, total = self._learner, (epoch - 1) * self._steps, self._epochs * self._steps
        learner.begin_epoch(len(self._data.y_train))
        for x, y in self._data.batches(self._batch_size, epoch):
            if self._should_stop():
                for member in learner.members:
                    member.stop("interrupted")
                return False
            learner.step(x, y, [rate_at(member.config, step, total) for member in learner.members])
            step += 1
        return True

    def _close_epoch(self, epoch: int) -> None:
        """Measure every member, tell the callbacks, and drop those that are done."""
        trained = self._learner.end_epoch()
        evaluated = self._learner.evaluate(self._data.x_val, self._data.y_val)
        for member, (loss, accuracy), evaluation in zip(list(self._learner.members), trained, evaluated, strict=True):
            row: Metrics = {"epoch": epoch, "train_loss": loss, "train_accuracy": accuracy}
            self._record(member, row | self._measure(member, evaluation, epoch))
            if member.stopped:
                self._learner.drop(member)

    def _measure(self, member: Member, evaluation: Evaluation, epoch: int) -> Metrics:
        total = self._epochs * self._steps
        return {
            "val_loss": evaluation.loss,
            "val_accuracy": evaluation.accuracy,
            "learning_rate": rate_at(member.config, epoch * self._steps, total),
            "seconds": time.perf_counter() - self._begun,
            **{name: float(function(evaluation.outputs, self._data.y_val)) for name, function in self._metrics},
        }

    def _record(self, member: Member, row: Metrics) -> None:
        member.history.append(row)
        if not (math.isfinite(row["train_loss"]) and math.isfinite(row["val_loss"])):
            member.stop("diverged")
        elif member.improves(self._monitor, self._direction):
            member.best_epoch = len(member.history)
            member.best_weights = self._learner.weights(member)
        elif member.config.patience and len(member.history) - (member.best_epoch or 0) >= member.config.patience:
            member.stop("early_stopped")
        for callback in self._callbacks:
            callback.on_epoch(member, row)

    def _outcome(self, member: Member) -> Outcome:
        outcome = Outcome(
            member.config,
            member.stopped or "completed",
            member.history,
            member.best_epoch,
            member.best,
            member.parameter_count,
            member.train_seconds,
            member.best_weights,
        )
        for callback in self._callbacks:
            callback.on_end(member, outcome)
        return outcome


def evaluate(outcome: Outcome, data: Data, x: torch.Tensor, y: torch.Tensor) -> Evaluation:
    """The model of an outcome, with its weights of the best epoch, on samples x (N, *shape) and labels y (N,).

    Raises:
        OutOfMemoryError: the device has too little memory.
    """
    assert outcome.weights is not None
    with _memory_errors():
        learner = ModuleLearner(outcome.config, data.shape, data.classes, data.device)
        learner.load(outcome.weights)
        return learner.evaluate(x, y)[0]


def device(name: str = "auto") -> torch.device:
    """The device of that name: `auto` is CUDA where there is one, else the CPU; also `cpu`, `cuda`, `cuda:1`.

    Raises:
        ConfigError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    kind, _, index = name.partition(":")
    if kind != "cuda" or not (index.isdigit() or name == "cuda"):
        raise ConfigError(f"device = '{name}': must be auto, cpu, cuda or cuda:N")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(index or 0) >= count:
        raise ConfigError(f"device = '{name}': this machine has {count} CUDA devices; use --device auto")
    return torch.device(name)


def set_threads(count: int) -> None:
    """Let torch use that many threads, at least one: a worker's share of the cores."""
    torch.set_num_threads(max(1, count))


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Turn each of torch's ways to say that memory is short into ours."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise OutOfMemoryError(_first_line(error)) from error
    except RuntimeError as error:
        if any(words in str(error) for words in ALLOCATOR_WORDS):
            raise OutOfMemoryError(_first_line(error)) from error
        raise


def _first_line(error: BaseException) -> str:
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return f"out of memory: {line}; try a smaller batch_size or model"


@contextmanager
def _own_randomness(where: torch.device) -> Iterator[None]:
    """Leave torch's global generators as they were: training may run inside a person's own program."""
    with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
        yield
