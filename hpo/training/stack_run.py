"""Training of one stack of a cohort: its epochs, checkpoints, callbacks and results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial

import torch

from hpo.config.cohort_key import run_key, stack_key
from hpo.config.trial_config import TrialConfig
from hpo.training.checkpoint import Checkpoint, CheckpointFile
from hpo.training.data import Data, TrainBatch, epoch_seed
from hpo.training.learner import Learner, ModuleLearner
from hpo.training.member import Member, Metrics, Scores, TrainResult, Weights
from hpo.training.metrics import measure_metrics
from hpo.training.schedules import epoch_rates, rate_at
from hpo.training.settings import TrainSettings
from hpo.training.stacked.learner import StackedLearner

__all__ = ["StackRun", "make_learner"]


class StackRun:
    """Training of a stack from its first epoch, or its checkpoints, to the end of its last trial.

    Of the trials that one run answers, the longest has a model; the others end on the way. All trials have in common
    what `hpo.config.cohort_key.stack_key` names, and the place where they begin. Between its epochs other stacks may
    train: each epoch has a seed of its own.

    Args:
        members: the trials.
        data: prepared for their configurations.
        settings: with a monitor; see `TrainSettings.resolve`.
        files: checkpoint files by the number of the trial; a trial without one writes none.
        checkpoints: by number, of the trials that begin from one; all are of the same epoch and step.

    Attributes:
        results: of the trials that have ended, by number.

    Raises:
        CheckpointError: a checkpoint does not fit its model.
        ConfigError: a model cannot take the data's samples.
    """

    def __init__(
        self,
        members: Sequence[Member],
        data: Data,
        settings: TrainSettings,
        files: Mapping[int, CheckpointFile],
        checkpoints: Mapping[int, Checkpoint],
    ) -> None:
        self.results: dict[int, TrainResult] = {}
        self._members = members
        self._data = data
        self._settings = settings
        self._files = files
        self._groups = _group_by_run(members)
        longest = [longest for longest, _ in self._groups.values()]
        self._learner = make_learner(longest, data, record_steps=settings.record_steps)
        for trained, group in self._groups.values():
            for member in group:
                member.parameter_count = trained.parameter_count
        self._batch_size = members[0].config.batch_size
        self._steps = data.steps(self._batch_size)
        self._epoch, self._step = 1, 0  # the epoch in training, and how many of its steps are done
        self._generators: list[torch.Tensor] = []  # where training goes on in the midst of an epoch, until it does
        self._since = time.perf_counter()
        self._resume(checkpoints)

    def _resume(self, checkpoints: Mapping[int, Checkpoint]) -> None:
        """Put every member where its checkpoint was taken."""
        for first in list(checkpoints.values())[:1]:
            self._epoch, self._step = first.epoch, first.step
            self._generators = first.generators if first.step else []
        self._begin_epoch()  # which a checkpoint may have been taken in the midst of
        for member in self._members:
            if (checkpoint := checkpoints.get(member.number)) is not None:
                self._load(member, checkpoint)

    def _load(self, member: Member, checkpoint: Checkpoint) -> None:
        if member in self._learner.members:
            with self._files[member.number].translate_state_errors():
                self._learner.load_state(member, checkpoint.learner)
        member.history, member.steps = checkpoint.history, checkpoint.steps
        member.best_epoch, member.best_weights = checkpoint.best_epoch, checkpoint.best_weights
        member.resumed_from, member.seconds = len(checkpoint.history), checkpoint.seconds

    @property
    def live(self) -> list[Member]:
        """The trials in training."""
        return [member for member in self._members if member.number not in self.results]

    def train_epoch(self) -> list[Member] | None:
        """Do the rest of an epoch; return its members, or None if the settings asked to stop in its midst."""
        self._since = time.perf_counter()
        if not self._train_steps():
            return None
        members = self.live
        self._close_epoch()
        self._epoch, self._step = self._epoch + 1, 0
        return members

    def interrupt(self) -> None:
        """End the trials in training as interrupted, and write their checkpoints."""
        for member in self.live:
            member.stop("interrupted")
        self._write_checkpoints()
        self._end(self._members)

    def _begin_epoch(self) -> None:
        """Let the learner prepare for the steps of the epoch that are not done yet."""
        rates = [self._rates(member.config) for member in self._learner.members]
        self._learner.begin_epoch(len(self._data.y_train), rates)

    def _rates(self, config: TrialConfig) -> list[float]:
        first = (self._epoch - 1) * self._steps
        return epoch_rates(config, range(first + self._step, first + self._steps), config.epochs * self._steps)

    def _train_steps(self) -> bool:
        """Do the steps of the epoch that are not done yet; return false when asked to stop before the last."""
        torch.manual_seed(epoch_seed(self._data.seed, self._epoch))
        batches = self._data.batches(self._batch_size, self._epoch, self._learner.room)
        if not self._step:
            self._begin_epoch()
        elif not self._skip_steps(batches):
            return False
        # Asked and written before the next batch is taken, for a data set's own batches may draw from the generators.
        while not self._settings.should_stop():
            self._write_if_due()
            batch = next(batches, None)
            if batch is None:
                return True
            self._learner.step(*batch)
            self._step += 1
        self._share_time()
        return False

    def _skip_steps(self, batches: Iterator[TrainBatch]) -> bool:
        """Go to the step where a checkpoint was taken; return false when asked to stop before."""
        for _ in range(self._step):
            if self._settings.should_stop():
                return False
            next(batches, None)
        _restore_generators(self._generators, self._data.device)
        self._generators = []
        return True

    def _write_if_due(self) -> None:
        """Write all checkpoints where one is due: those of a stack are written together."""
        first = next((member for member in self._members if member.number not in self.results), None)
        if first and (file := self._files.get(first.number)) and file.due(len(first.history)):
            self._share_time()
            self._write_checkpoints()

    def _write_checkpoints(self) -> None:
        """Write the checkpoints of the trials in training that have a file, unless nothing has changed since."""
        if self._generators:
            return
        for longest, group in self._groups.values():
            for member in group:
                if member.number in self._files and member.number not in self.results:
                    self._files[member.number].write(self._checkpoint(member, longest))

    def _checkpoint(self, member: Member, longest: Member) -> Checkpoint:
        learner = self._learner.state(longest)  # first, for it may draw from the generators
        return Checkpoint(
            epoch=self._epoch,
            step=self._step,
            seconds=member.seconds,
            generators=_generator_states(self._data.device),
            history=member.history,
            steps=member.steps,
            best_epoch=member.best_epoch,
            best_weights=member.best_weights,
            learner=learner,
        )

    def _share_time(self) -> None:
        """Divide the time that has passed evenly among the trials in training."""
        now, live = time.perf_counter(), self.live
        for member in live:
            member.seconds += (now - self._since) / len(live)
        self._since = now

    def _close_epoch(self) -> None:
        """Evaluate every model, call the callbacks, and remove the trials that are done."""
        train_scores = self._learner.end_epoch()
        if self._settings.record_steps:
            self._record_steps()
        members = list(self._learner.members)
        val_metrics = [{} for _ in members] if not len(self._data.y_val) else self._validate()
        self._share_time()
        for longest, scores, metrics in zip(members, train_scores, val_metrics, strict=True):
            row: Metrics = {"epoch": self._epoch, **_prefix_names("train", scores), **metrics}
            _, group = self._groups[longest.number]
            weights = cache(partial(self._learner.weights, longest))
            for member in [member for member in group if member.number not in self.results]:
                self._end_epoch(member, {**row, **self._member_metrics(member)}, weights)
        self.remove_stopped()

    def _record_steps(self) -> None:
        """Keep the losses of the epoch's steps for every trial in training."""
        self._share_time()
        for longest, losses in zip(self._learner.members, self._learner.step_losses(), strict=True):
            for member in self._groups[longest.number][1]:
                if member.number not in self.results:
                    member.record(losses)

    def remove_stopped(self) -> None:
        """End the trials that have stopped, and drop the models that no other trial needs."""
        for longest, group in self._groups.values():
            if longest in self._learner.members and all(member.stopped for member in group):
                self._learner.drop(longest)
        self._end([member for member in self.live if member.stopped])

    def _validate(self) -> list[Metrics]:
        """Return the validation metrics of every model in training."""
        x, y, metrics = self._data.x_val, self._data.y_val, self._settings.metrics
        results = self._learner.evaluate(x, y, outputs=bool(metrics))
        outputs = [each.outputs for each in results]
        measured = measure_metrics(metrics, self._members[0].config, self._data, x, y, outputs)
        return [{**_prefix_names("val", each.scores), **others} for each, others in zip(results, measured, strict=True)]

    def _member_metrics(self, member: Member) -> Metrics:
        done, total = self._epoch * self._steps, member.config.epochs * self._steps
        return {"learning_rate": rate_at(member.config, done, total), "seconds": member.seconds}

    def _end_epoch(self, member: Member, row: Metrics, weights: Callable[[], Weights]) -> None:
        settings = self._settings
        assert settings.monitor is not None
        member.end_epoch(row, settings.monitor, settings.direction, weights, settings.objectives)
        for callback in settings.callbacks:
            callback.on_epoch(member, row)
        if self._epoch >= member.config.epochs:
            member.stop("completed")

    def _end(self, members: Sequence[Member]) -> None:
        """Keep the results of trials that have ended, and call the callbacks."""
        for member in members:
            if member.number not in self.results:
                self.results[member.number] = result = TrainResult.of(member)
                for callback in self._settings.callbacks:
                    callback.on_end(member, result)


def _prefix_names(split: str, scores: Scores) -> Metrics:
    return {f"{split}_{name}": value for name, value in scores.items()}


def _group_by_run(members: Sequence[Member]) -> dict[int, tuple[Member, list[Member]]]:
    """Return, by the number of each run's longest trial, that trial and all that the run answers, it included."""
    runs: dict[object, list[Member]] = {}
    for member in members:
        runs.setdefault(run_key(member.config), []).append(member)
    groups = [(max(group, key=lambda member: member.config.epochs), group) for group in runs.values()]
    return {longest.number: (longest, group) for longest, group in groups}


def make_learner(members: Sequence[Member], data: Data, *, record_steps: bool = False) -> Learner:
    """Return the learner of a stack: its models stacked where they can be, else its only model.

    Args:
        members: the stack.
        data: gives the shape of a sample, the number of classes and the device.
        record_steps: whether the learner will be asked for `step_losses`.

    Raises:
        ConfigError: a model cannot take the data's samples.
    """
    if stack_key(members[0].config) is None:
        return ModuleLearner(members[0], data.shape, data.classes, data.device)
    return StackedLearner(members, data.shape, data.classes, data.device, record_steps=record_steps)


def _generator_states(device: torch.device) -> list[torch.Tensor]:
    """Return the states of torch's global generators: the CPU's, then the device's where that is another."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def _restore_generators(states: Sequence[torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda" and len(states) > 1:
        torch.cuda.set_rng_state(states[1], device)
