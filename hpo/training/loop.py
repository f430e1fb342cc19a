"""The training loop: one for every learner, every model and every device."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch

from hpo.config import registry
from hpo.config.cohort_key import cohort_key, run_key, stack_key
from hpo.config.model_size import resolve_width
from hpo.config.registry import BUILTIN_METRICS, Direction, MetricEntry
from hpo.config.trial_config import TrialConfig
from hpo.errors import ConfigError, OutOfMemoryError, RunError
from hpo.training.callbacks import Callback
from hpo.training.checkpoint import Checkpoint, CheckpointFile, CheckpointSpec, fingerprint
from hpo.training.custom_loop import run_loop
from hpo.training.data import Batch, Data, epoch_seed
from hpo.training.learner import EvalResult, Learner, ModuleLearner, loss_target
from hpo.training.member import Member, Metrics, Scores, TrainResult, Weights
from hpo.training.memory import is_out_of_memory, keep_freed_memory
from hpo.training.schedules import epoch_rates, rate_at
from hpo.training.stacked.learner import StackedLearner
from hpo.utils.text import first_line, summarize_error

__all__ = [
    "Callback",
    "CheckpointSpec",
    "Member",
    "TrainResult",
    "evaluate",
    "make_learner",
    "metric_row",
    "select_device",
    "set_threads",
    "train",
]

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
    with _memory_errors(), _own_randomness(data.device):
        found = {number: file.load() for number, file in files.items()}
        outcomes: dict[int, TrainResult] = {}
        for numbers in _together(configs, found):
            members = [Member(resolve_width(configs[number], data.shape, data.classes), number) for number in numbers]
            run = Run(members, data, monitor, direction, registered, callbacks, should_stop, files, record_steps)
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
        with _memory_errors(), _own_randomness(data.device):
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


class Run:
    """A cohort's way through the epochs: one or more models, each of which answers one or more trials.

    Its trials have in common what `hpo.config.cohort_key.COHORT_PARAMETERS` names, and the place where they begin.
    """

    def __init__(
        self,
        members: Sequence[Member],
        data: Data,
        monitor: str,
        direction: Direction,
        metrics: Sequence[MetricEntry],
        callbacks: Sequence[Callback],
        should_stop: Callable[[], bool],
        files: Mapping[int, CheckpointFile],
        record_steps: bool,
    ) -> None:
        self._members = members
        self._data = data
        self._monitor = monitor
        self._direction = direction
        self._metrics = [(entry.name, entry.load()) for entry in metrics]
        self._callbacks = callbacks
        self._should_stop = should_stop
        self._files = files
        self._record_steps = record_steps
        # Of those that one run answers, the longest is the one that is trained.
        self._answers = _by_run(members)
        longest = [longest for longest, _ in self._answers.values()]
        self._learner = make_learner(longest, data, record_steps=record_steps)
        for trained, answered in self._answers.values():
            for member in answered:
                member.parameter_count = trained.parameter_count
        self._batch_size = members[0].config.batch_size
        self._steps = data.steps(self._batch_size)
        self._epoch, self._step = 1, 0  # the epoch in training, and how many of its steps are done
        self._generators: list[torch.Tensor] = []
        self._outcomes: dict[int, TrainResult] = {}
        self._since = time.perf_counter()

    def train(self, found: Mapping[int, Checkpoint | None]) -> dict[int, TrainResult]:
        """All epochs, or fewer, from the checkpoints of those that begin from one; the outcomes by number."""
        places = [(each.epoch, each.step, each.generators) for each in found.values() if each]
        if places:
            self._epoch, self._step, self._generators = places[0]
        self._begin_epoch()  # which a checkpoint may have been taken in the midst of
        for member in self._members:
            self._resume(member, found.get(member.number))
        for member in self._members:
            for callback in self._callbacks:
                callback.on_start(member)
        self._leave()  # a callback may know already that one need not begin
        while self._learner.members and self._train_epoch():
            self._close_epoch()
            self._epoch, self._step = self._epoch + 1, 0
        self._end(self._members)
        return self._outcomes

    def _resume(self, member: Member, found: Checkpoint | None) -> None:
        """Begin where the member's checkpoint was taken."""
        if found is None:
            return
        if member in self._learner.members:
            with self._files[member.number].taking_up():
                self._learner.load_state(member, found.learner)
        member.history, member.steps = found.history, found.steps
        member.best_epoch, member.best_weights = found.best_epoch, found.best_weights
        member.resumed_from, member.seconds = len(found.history), found.seconds

    @property
    def _live(self) -> list[Member]:
        """The trials in training."""
        return [member for member in self._members if member.number not in self._outcomes]

    def _begin_epoch(self) -> None:
        """Let the learner prepare for the steps of the epoch that are not done yet."""
        rates = [self._rates(member.config) for member in self._learner.members]
        self._learner.begin_epoch(len(self._data.y_train), rates)

    def _rates(self, config: TrialConfig) -> list[float]:
        first = (self._epoch - 1) * self._steps
        return epoch_rates(config, range(first + self._step, first + self._steps), config.epochs * self._steps)

    def _train_epoch(self) -> bool:
        """The steps of the epoch that are not done yet; false when asked to stop in its midst."""
        torch.manual_seed(epoch_seed(self._data.seed, self._epoch))
        batches = self._data.batches(self._batch_size, self._epoch)
        if not self._step:
            self._begin_epoch()
        elif not self._pass_over(batches):
            return False
        # Asked and written before the next batch is taken, for a data set's own batches may draw from the generators.
        while not self._interrupted():
            self._write_due()
            batch = next(batches, None)
            if batch is None:
                return True
            self._learner.step(*batch)
            self._step += 1
        self._write()
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
        for member in self._live:
            member.stop("interrupted")
        return True

    def _write_due(self) -> None:
        """Write all checkpoints where one is due: those of a cohort are written together."""
        for member in self._members:
            if member.number in self._outcomes:
                continue
            if (file := self._files.get(member.number)) and file.due(len(member.history)):
                self._write()
            return

    def _write(self) -> None:
        """Write the checkpoints of those that are to have any."""
        self._share_time()
        for longest, answered in self._answers.values():
            files = [(member, self._files[member.number]) for member in answered if member.number in self._files]
            for member, file in files:
                if member.number not in self._outcomes:
                    learner = self._learner.state(longest)  # first, for it may draw from the generators
                    file.write(
                        Checkpoint(
                            epoch=self._epoch,
                            step=self._step,
                            seconds=member.seconds,
                            generators=_generators(self._data.device),
                            history=member.history,
                            steps=member.steps,
                            best_epoch=member.best_epoch,
                            best_weights=member.best_weights,
                            learner=learner,
                        )
                    )

    def _share_time(self) -> None:
        """Divide the time that has passed among the trials in training."""
        now, live = time.perf_counter(), self._live
        for member in live:
            member.seconds += (now - self._since) / len(live)
        self._since = now

    def _close_epoch(self) -> None:
        """Measure every model, tell the callbacks, and drop what is done."""
        trained = self._learner.end_epoch()
        if self._record_steps:
            self._keep_steps()
        members = list(self._learner.members)
        validated = [{} for _ in members] if not len(self._data.y_val) else self._validate()
        self._share_time()
        for longest, scores, measured in zip(members, trained, validated, strict=True):
            row: Metrics = {"epoch": self._epoch, **_named("train", scores), **measured}
            _, answered = self._answers[longest.number]
            weights = cache(partial(self._learner.weights, longest))
            for member in [member for member in answered if member.number not in self._outcomes]:
                self._record(member, {**row, **self._of_its_own(member)}, weights)
        self._leave()

    def _keep_steps(self) -> None:
        """Let every trial keep what was recorded of the epoch's steps."""
        self._share_time()
        for longest, losses in zip(self._learner.members, self._learner.step_losses(), strict=True):
            for member in self._answers[longest.number][1]:
                if member.number not in self._outcomes:
                    member.record(losses)

    def _leave(self) -> None:
        """Say what came out of the trials that have stopped; train those models no longer that answer no other."""
        for longest, answered in self._answers.values():
            if longest in self._learner.members and all(member.stopped for member in answered):
                self._learner.drop(longest)
        self._end([member for member in self._live if member.stopped])

    def _validate(self) -> list[Metrics]:
        """The validation metrics of every model in training."""
        x, y, needed = self._data.x_val, self._data.y_val, bool(self._metrics)
        return [self._measure(each) for each in self._learner.evaluate(x, y, outputs=needed)]

    def _measure(self, evaluation: EvalResult) -> Metrics:
        target = loss_target(self._members[0].config, self._data.x_val, self._data.y_val)
        own = {name: metric_row(name, metric, evaluation.outputs, target) for name, metric in self._metrics}
        return {**_named("val", evaluation.scores), **own}

    def _of_its_own(self, member: Member) -> Metrics:
        done, total = self._epoch * self._steps, member.config.epochs * self._steps
        return {"learning_rate": rate_at(member.config, done, total), "seconds": member.seconds}

    def _record(self, member: Member, row: Metrics, weights: Callable[[], Weights]) -> None:
        member.end_epoch(row, self._monitor, self._direction, weights)
        for callback in self._callbacks:
            callback.on_epoch(member, row)
        if self._epoch >= member.config.epochs:
            member.stop("completed")

    def _end(self, members: Sequence[Member]) -> None:
        """Say what came out of trials that have ended."""
        for member in members:
            if member.number not in self._outcomes:
                self._outcomes[member.number] = outcome = TrainResult.of(member)
                for callback in self._callbacks:
                    callback.on_end(member, outcome)


def _named(split: str, scores: Scores) -> Metrics:
    return {f"{split}_{name}": value for name, value in scores.items()}


def _by_run(members: Sequence[Member]) -> dict[int, tuple[Member, list[Member]]]:
    """By the number of the longest: each trial that has a model trained, and all that its run answers, it included."""
    runs: dict[object, list[Member]] = {}
    for member in members:
        runs.setdefault(run_key(member.config), []).append(member)
    longest = [(max(answered, key=lambda member: member.config.epochs), answered) for answered in runs.values()]
    return {member.number: (member, answered) for member, answered in longest}


def make_learner(members: Sequence[Member], data: Data, *, record_steps: bool = False) -> Learner:
    """What trains a cohort: its models stacked, where they can be, else its only one.

    Args:
        members: the cohort.
        data: what it is trained on.
        record_steps: whether the learner will be asked for `step_losses`.
    """
    if stack_key(members[0].config) is None:
        return ModuleLearner(members[0], data.shape, data.classes, data.device)
    return StackedLearner(members, data.shape, data.classes, data.device, record_steps=record_steps)


def metric_row(name: str, metric: Callable[..., Any], outputs: torch.Tensor | None, y: torch.Tensor) -> float:
    """A registered metric's value for outputs, against labels, or samples (n, numbers) that are to be reconstructed.

    Raises:
        RunError: the metric raised, or returned no number.
    """
    try:
        return float(metric(outputs, y))
    except Exception as error:  # a metric of the user's can raise anything
        if is_out_of_memory(error):
            raise
        raise RunError(f"metric '{name}': {summarize_error(error)}") from error


def evaluate(outcome: TrainResult, data: Data, x: torch.Tensor, y: torch.Tensor) -> EvalResult:
    """The model of an outcome, with its weights of the best epoch, on samples x (N, *shape) and labels y (N,).

    Raises:
        OutOfMemoryError: the device has too little memory.
    """
    assert outcome.weights is not None
    with _memory_errors():
        member = Member(outcome.config)
        learner = (
            make_learner([member], data)
            if outcome.module is None
            else ModuleLearner(member, data.shape, data.classes, data.device, outcome.module)
        )
        learner.load(member, outcome.weights)
        return learner.evaluate(x, y)[0]


def select_device(name: str = "auto") -> torch.device:
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
            raise OutOfMemoryError(f"out of memory: {first_line(error)}; try a smaller batch_size or model") from error
        raise


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
