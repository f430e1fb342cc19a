"""The training loop: one for every learner, every model and every device."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from hpo.config import TrialConfig
from hpo.errors import ConfigError, OutOfMemoryError, RunError
from hpo.registry import BUILTIN_METRICS, Direction, MetricEntry
from hpo.training.callbacks import Callback
from hpo.training.checkpoint import Checkpoint, CheckpointFile, CheckpointSpec, fingerprint
from hpo.training.data import Batch, Data, epoch_seed
from hpo.training.learner import Evaluation, Learner, ModuleLearner
from hpo.training.member import Member, Metrics, Outcome
from hpo.training.memory import is_out_of_memory, keep_freed_memory
from hpo.training.schedules import rate_at

__all__ = ["Callback", "CheckpointSpec", "Member", "Outcome", "device", "evaluate", "set_threads", "train"]

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
    checkpoints: Sequence[CheckpointSpec | None] | None = None,
) -> list[Outcome]:
    """Train configurations, each to its end, and say what came out, in their order.

    A row of metrics has: epoch (from 1); train_loss and train_accuracy, the means over the epoch's steps, each measured
    before its step; val_loss (without label smoothing) and val_accuracy after the epoch; the registered `metrics`;
    learning_rate, which the next step would use; seconds of training so far, those before an interruption too. A trial
    ends as diverged after an epoch whose loss is not finite; that row is the last of its history.

    Args:
        configs: what to train.
        data: what to train on, prepared for these configurations.
        monitor: the metric that decides which epoch is the best, for its weights and for patience. A metric that does
            not tell one epoch from another (parameter_count, train_seconds) leaves that to val_accuracy.
        direction: which way the monitor is better.
        metrics: registered metrics, computed over the validation split after every epoch.
        callbacks: called after every epoch.
        should_stop: asked between steps; once true, every trial ends as interrupted, with its whole epochs.
        checkpoints: of each configuration, or of none. A trial that ends as interrupted has left one. A trial that
            begins from one ends with the same bits as if it had never been interrupted, on the same machine with as
            many threads; where the data set gives batches, as long as an epoch's batches follow from torch's global
            generator or never change: those of the epoch's steps already done are read again, and passed over.

    Raises:
        CheckpointError: a checkpoint to begin from is missing, damaged or another trial's; no callback has been called
            for its trial.
        ConfigError: a model cannot take the data's samples.
        OutOfMemoryError: the device has too little memory.
    """
    keep_freed_memory()
    if monitor in CONSTANT:
        monitor, direction = "val_accuracy", "maximize"
    registered = [entry for entry in metrics if entry.name not in BUILTIN_METRICS]
    names = [entry.name for entry in registered]
    specs = [None] * len(configs) if checkpoints is None else checkpoints
    files = {
        number: CheckpointFile(spec, fingerprint(config, data, monitor, direction, names, spec.owner))
        for number, (config, spec) in enumerate(zip(configs, specs, strict=True))
        if spec is not None
    }
    with _memory_errors(), _own_randomness(data.device):
        return [
            outcome
            for number, config in enumerate(configs)
            for outcome in Run(
                ModuleLearner(config, data.shape, data.classes, data.device, number=number),
                data,
                monitor,
                direction,
                registered,
                callbacks,
                should_stop,
                files,
            ).train()
        ]


class Run:
    """One learner's way through the epochs. Its members share the batch size, the number of epochs, the seed, and the
    place where they begin.
    """

    def __init__(
        self,
        learner: Learner,
        data: Data,
        monitor: str,
        direction: Direction,
        metrics: Sequence[MetricEntry],
        callbacks: Sequence[Callback],
        should_stop: Callable[[], bool],
        files: Mapping[int, CheckpointFile],
    ) -> None:
        self._learner = learner
        self._data = data
        self._monitor = monitor
        self._direction = direction
        self._metrics = [(entry.name, entry.load()) for entry in metrics]
        self._callbacks = callbacks
        self._should_stop = should_stop
        self._files = files
        self._members = list(learner.members)
        first = self._members[0].config
        self._batch_size, self._epochs = first.batch_size, first.epochs
        self._steps = data.steps(self._batch_size)
        self._epoch, self._step = 1, 0  # the epoch in training, and how many of its steps are done
        self._generators: list[torch.Tensor] = []
        self._begun = time.perf_counter()

    def train(self) -> list[Outcome]:
        """All epochs, or fewer."""
        self._learner.begin_epoch(len(self._data.y_train))  # which a checkpoint may have been taken in the midst of
        for member in self._members:
            self._resume(member)
        for member in self._members:
            for callback in self._callbacks:
                callback.on_start(member)
        while self._epoch <= self._epochs and self._learner.members and self._train_epoch():
            self._close_epoch(self._epoch)
            self._epoch, self._step = self._epoch + 1, 0
        return [self._outcome(member) for member in self._members]

    def _resume(self, member: Member) -> None:
        """Begin where the member's checkpoint was taken, where it is to begin from one."""
        file = self._files.get(member.number)
        found = file.load() if file else None
        if file is None or found is None:
            return
        with file.taking_up():
            self._learner.load_state(member, found.learner)
        member.history, member.best_epoch, member.best_weights = found.history, found.best_epoch, found.best_weights
        member.resumed_from = len(found.history)
        self._epoch, self._step, self._generators = found.epoch, found.step, found.generators
        self._begun = time.perf_counter() - found.seconds

    def _train_epoch(self) -> bool:
        """The steps of the epoch that are not done yet; false when asked to stop in its midst."""
        torch.manual_seed(epoch_seed(self._data.seed, self._epoch))
        batches = self._data.batches(self._batch_size, self._epoch)
        if not self._step:
            self._learner.begin_epoch(len(self._data.y_train))
        elif not self._pass_over(batches):
            return False
        before, total = (self._epoch - 1) * self._steps, self._epochs * self._steps
        # Asked and written before the next batch is taken, for a data set's own batches may draw from the generators.
        while not self._interrupted():
            self._write_due()
            batch = next(batches, None)
            if batch is None:
                return True
            rates = [rate_at(member.config, before + self._step, total) for member in self._learner.members]
            self._learner.step(*batch, rates)
            self._step += 1
        for member in self._learner.members:
            self._write(member)
        return False

    def _pass_over(self, batches: Iterator[Batch]) -> bool:
        """Go to the step where a checkpoint was taken; false when asked to stop, with nothing new to write."""
        for _ in range(self._step):
            if self._interrupted():
                return False
            next(batches, None)
        _restore_generators(self._generators, self._data.device)
        return True

    def _interrupted(self) -> bool:
        """Whether to stop; then every member has been told."""
        if not self._should_stop():
            return False
        for member in self._learner.members:
            member.stop("interrupted")
        return True

    def _write_due(self) -> None:
        for member in self._learner.members:
            if (file := self._files.get(member.number)) and file.due(len(member.history)):
                self._write(member)

    def _write(self, member: Member) -> None:
        """Write a member's checkpoint, where it is to have any."""
        if file := self._files.get(member.number):
            file.write(
                Checkpoint(
                    epoch=self._epoch,
                    step=self._step,
                    seconds=time.perf_counter() - self._begun,
                    generators=_generators(self._data.device),
                    history=member.history,
                    best_epoch=member.best_epoch,
                    best_weights=member.best_weights,
                    learner=self._learner.state(member),
                )
            )

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
            **{name: _measured(name, metric, evaluation.outputs, self._data.y_val) for name, metric in self._metrics},
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


def _measured(name: str, metric: Callable[..., Any], outputs: torch.Tensor, y: torch.Tensor) -> float:
    """A registered metric's value.

    Raises:
        RunError: the metric raised, or returned no number.
    """
    try:
        return float(metric(outputs, y))
    except Exception as error:  # a metric of the user's can raise anything
        if is_out_of_memory(error):
            raise
        first = (str(error).splitlines() or [""])[0]
        raise RunError(f"metric '{name}': {type(error).__name__}: {first}") from error


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
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
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


def _generators(where: torch.device) -> list[torch.Tensor]:
    """The states of torch's global generators: the CPU's, then the device's where that is another."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(where)] if where.type == "cuda" else [])]


def _restore_generators(states: Sequence[torch.Tensor], where: torch.device) -> None:
    torch.set_rng_state(states[0])
    if where.type == "cuda" and len(states) > 1:
        torch.cuda.set_rng_state(states[1], where)
