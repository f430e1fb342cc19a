"""Training of one stack of a cohort: its epochs, checkpoints, callbacks and results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from itertools import chain
from typing import Any

import numpy as np
import torch

from hpo.config.cohort_key import is_measured, run_key, stack_key
from hpo.config.trial_config import TrialConfig
from hpo.training.checkpoint import Checkpoint, CheckpointFile
from hpo.training.data import Data, TrainBatch, epoch_seed
from hpo.training.joint_batches import JointBatch, joint_batches
from hpo.training.learner import Learner, ModuleLearner
from hpo.training.member import Member, Metrics, Scores, TrainResult, Weights
from hpo.training.metrics import measure_metrics
from hpo.training.sample_scores import StackScorer
from hpo.training.schedules import epoch_rates, falls_so_far, rate_at
from hpo.training.settings import TrainSettings
from hpo.training.stacked.batches import Feed
from hpo.training.stacked.learner import StackedLearner, is_stacked

__all__ = ["StackRun", "data_key", "make_learner"]

Array = np.ndarray[Any, Any]


class StackRun:
    """Training of a stack from its first epoch, or its checkpoints, to the end of its last trial.

    Of the trials that one run answers, the longest has a model; the others end on the way. All trials have in common
    what `hpo.config.cohort_key.stack_key` names, the place where they begin, and what `data_key` returns of their data:
    those with data of their own see batches of their own. Between its epochs other stacks may train: each epoch has a
    seed of its own.

    Args:
        members: the trials.
        data: of each of them.
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
        data: Sequence[Data],
        settings: TrainSettings,
        files: Mapping[int, CheckpointFile],
        checkpoints: Mapping[int, Checkpoint],
    ) -> None:
        self.results: dict[int, TrainResult] = {}
        self._members = members
        self._data = {member.number: each for member, each in zip(members, data, strict=True)}
        self._device = data[0].device
        self._settings = settings
        self._files = files
        self._groups = _group_by_run(members, self._data)
        self._streams = {id(part): stream for stream, part in enumerate({id(each): each for each in data}.values())}
        longest = [longest for longest, _ in self._groups.values()]
        self._learner = self._make_learner(
            longest, stacked=any(is_stacked(each.learner) for each in checkpoints.values())
        )
        for member in members:
            member.stack = len(longest)
        for trained, group in self._groups.values():
            for member in group:
                member.parameter_count = trained.parameter_count
                member.resumable = member.number in files
        self._seen: list[Data] = []  # in this epoch, also by members that have left in its midst
        self._scorer = StackScorer(members, self._data, settings.monitor) if settings.sample_scores else None
        self._batch_size = members[0].config.batch_size
        self._steps = data[0].steps(self._batch_size)
        self._batches_per_step = members[0].config.batches_per_step
        self._epoch, self._step = 1, 0  # the epoch in training, and how many of its batches are done
        self._generators: list[torch.Tensor] = []  # where training goes on in the midst of an epoch, until it does
        self._since = time.perf_counter()
        self._resume(checkpoints)

    def _resume(self, checkpoints: Mapping[int, Checkpoint]) -> None:
        """Put every member where its checkpoint was taken."""
        for first in list(checkpoints.values())[:1]:
            self._epoch, self._step = first.epoch, first.step
            self._generators = first.generators if first.step else []
        begun = [member for member in self._members if member.number in checkpoints]
        for member in begun:
            self._load_history(member, checkpoints[member.number])
        self._begin_epoch()  # which a checkpoint may have been taken in the midst of
        for member in begun:
            self._load(member, checkpoints[member.number])

    def _load_history(self, member: Member, checkpoint: Checkpoint) -> None:
        member.history, member.steps = checkpoint.history, checkpoint.steps
        member.best_epoch, member.best_weights = checkpoint.best_epoch, checkpoint.best_weights
        member.resumed_from, member.seconds = len(checkpoint.history), checkpoint.seconds

    def _load(self, member: Member, checkpoint: Checkpoint) -> None:
        with self._files[member.number].translate_state_errors():
            if member in self._learner.members:
                self._learner.load_state(member, checkpoint.learner)
            if member.sample_log is not None and not member.sample_log.load(checkpoint.sample_log):
                member.sample_log = None  # the epochs so far have none: an earlier version wrote the checkpoint

    def _make_learner(self, members: Sequence[Member], *, stacked: bool) -> Learner:
        """Return the learner of the members that have a model; see `make_learner`."""
        parts, feeds = self._parts(members), None
        if len(parts) > 1:
            size = members[0].config.batch_size
            data = [self._data[member.number] for member in members]
            feeds = [Feed(self._streams[id(each)], each.last_batch(size)) for each in data]
        record_steps = self._settings.record_steps
        return make_learner(members, parts[0], record_steps=record_steps, stacked=stacked, feeds=feeds)

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
        members = self._learner.members
        self._seen = self._parts(members)
        data = [self._data[member.number] for member in members]
        samples = max((len(each.y_train) for each in data), default=0)
        seeds = [epoch_seed(each.seed, self._epoch) for each in data]
        self._learner.begin_epoch(samples, [self._rates(member) for member in members], seeds)

    def _rates(self, longest: Member) -> list[float]:
        """Return the rates of a run's batches that are left in the epoch: each has that of its optimizer's step."""
        _, group = self._groups[longest.number]
        rows = max((member.history for member in group), key=len)  # the longest itself may have ended
        first = (self._epoch - 1) * self._optimizer_steps
        which = [first + batch // self._batches_per_step for batch in range(self._step, self._steps)]
        steps = longest.config.epochs * self._optimizer_steps
        return epoch_rates(longest.config, which, steps, self._falls(longest.config, rows))

    @property
    def _optimizer_steps(self) -> int:
        """Steps of the optimizer in an epoch."""
        return -(-self._steps // self._batches_per_step)

    def _falls(self, config: TrialConfig, rows: Iterable[Metrics]) -> int:
        assert self._settings.monitor is not None
        return falls_so_far(config, rows, self._settings.monitor, self._settings.direction)

    def _train_steps(self) -> bool:
        """Do the steps of the epoch that are not done yet; return false when asked to stop before the last."""
        if not self._step:
            self._begin_epoch()
        parts = self._seen
        torch.manual_seed(epoch_seed(parts[0].seed, self._epoch))
        batches: Iterator[TrainBatch | JointBatch]
        first = self._step if len(parts) == 1 and parts[0].seeks else 0
        if len(parts) > 1:
            batches = joint_batches(parts, self._batch_size, self._epoch)
        else:
            batches = parts[0].batches(self._batch_size, self._epoch, self._learner.room, first)
        if self._step and not self._skip_steps(batches, self._step - first):
            return False
        # Asked and written before the next batch is taken, for a data set's own batches may draw from the generators;
        # and where the optimizer has done its step, for no checkpoint holds the gradients of a part of its batches.
        while (among := self._step % self._batches_per_step > 0) or not self._settings.should_stop():
            if not among:
                self._write_if_due()
            batch = next(batches, None)
            if batch is None:
                return True
            self._learner.step(*batch)
            self._step += 1
            if len(parts) > 1 and self._step == self._steps:
                return True  # a last batch of unequal sizes is in no checkpoint
        self._share_time()
        return False

    def _parts(self, members: Sequence[Member]) -> list[Data]:
        """Return the data that members see, each once, in the order of their streams."""
        found = {id(self._data[member.number]): self._data[member.number] for member in members}
        return sorted(found.values(), key=lambda part: self._streams[id(part)])

    def _skip_steps(self, batches: Iterator[TrainBatch | JointBatch], steps: int) -> bool:
        """Go on by so many steps to where a checkpoint was taken; return false when asked to stop before."""
        for _ in range(steps):
            if self._settings.should_stop():
                return False
            next(batches, None)
        _restore_generators(self._generators, self._device)
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
            generators=_generator_states(self._device),
            history=member.history,
            steps=member.steps,
            best_epoch=member.best_epoch,
            best_weights=member.best_weights,
            learner=learner,
            sample_log=None if member.sample_log is None else member.sample_log.state(),
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
        self._learner.measure_statistics(self._read_again)
        val_metrics, samples = self._validate(members)
        self._share_time()
        for longest, scores, metrics in zip(members, train_scores, val_metrics, strict=True):
            row: Metrics = {"epoch": self._epoch, **_prefix_names("train", scores), **metrics}
            _, group = self._groups[longest.number]
            weights = cache(partial(self._learner.weights, longest))
            for member in [member for member in group if member.number not in self.results]:
                self._end_epoch(
                    member, {**row, **self._member_metrics(member, row)}, weights, samples.get(longest.number)
                )
        self.remove_stopped()

    def _read_again(self) -> Iterator[TrainBatch]:
        """Return the epoch's batches once more, for a learner that is alone."""
        data = self._data[self._learner.members[0].number]
        torch.manual_seed(epoch_seed(data.seed, self._epoch))
        return data.batches(self._batch_size, self._epoch)

    def _record_steps(self) -> None:
        """Keep the losses of the epoch's steps for every trial in training."""
        self._share_time()
        for longest, losses in zip(self._learner.members, self._learner.step_losses(), strict=True):
            for member in self._groups[longest.number][1]:
                if member.number not in self.results:
                    member.record(losses)

    def remove_stopped(self) -> None:
        """End the trials that have stopped, and drop the models that no other trial needs."""
        self._write_paused()
        for longest, group in self._groups.values():
            if longest in self._learner.members and all(member.stopped for member in group):
                self._learner.drop(longest)
        self._end([member for member in self.live if member.stopped])

    def _write_paused(self) -> None:
        """Write the checkpoints of the trials that pause here; one that has not trained since its last has that."""
        for longest, group in self._groups.values():
            for member in group:
                paused = member.stopped == "paused" and member.number not in self.results
                if paused and len(member.history) > member.resumed_from:
                    self._files[member.number].write(self._checkpoint(member, longest))

    def _validate(self, members: Sequence[Member]) -> tuple[list[Metrics], dict[int, Array]]:
        """Return the validation metrics of the members that have a model, and by number the scores of their samples."""
        data = [self._data[member.number] for member in members]
        if not len(data[0].y_val):
            return [{} for _ in members], {}
        entries = self._settings.metrics
        results = self._learner.evaluate_each([(each.x_val, each.y_val) for each in data], outputs=bool(entries))
        rows = [_prefix_names("val", each.scores) for each in results]
        for part in self._parts(members) if entries else ():
            places = [place for place, each in enumerate(data) if each is part]
            outputs = [results[place].outputs for place in places]
            config = members[places[0]].config
            measured = measure_metrics(entries, config, part, part.x_val, part.y_val, outputs)
            for place, metrics in zip(places, measured, strict=True):
                rows[place] |= metrics
        return rows, {} if self._scorer is None else self._scorer.score(members, results)

    def _member_metrics(self, member: Member, row: Metrics) -> Metrics:
        done, total = self._epoch * self._optimizer_steps, member.config.epochs * self._optimizer_steps
        rate = rate_at(member.config, done, total, self._falls(member.config, chain(member.history, [row])))
        return {"learning_rate": rate, "seconds": member.seconds}

    def _end_epoch(self, member: Member, row: Metrics, weights: Callable[[], Weights], samples: Array | None) -> None:
        settings = self._settings
        assert settings.monitor is not None
        member.end_epoch(row, settings.monitor, settings.direction, weights, settings.objectives)
        if member.sample_log is not None and samples is not None:
            member.sample_log.add(self._epoch, samples, best=member.best_epoch == self._epoch)
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


def _group_by_run(members: Sequence[Member], data: Mapping[int, Data]) -> dict[int, tuple[Member, list[Member]]]:
    """Return, by the number of each run's longest trial, that trial and all that the run answers, it included."""
    runs: dict[object, list[Member]] = {}
    for member in members:
        runs.setdefault((run_key(member.config), id(data[member.number])), []).append(member)
    groups = [(max(group, key=lambda member: member.config.epochs), group) for group in runs.values()]
    return {longest.number: (longest, group) for longest, group in groups}


def data_key(data: Data, batch_size: int) -> tuple[object, ...]:
    """Return a key that is equal for data whose batches one stack can take, each member its own.

    Data that give their batches, or read samples from a file, are only equal to themselves.
    """
    if data.streams:
        return (id(data),)
    shape = tuple(data.shape), data.shape.categories, tuple(data.y_train.shape[1:]), data.classes
    weights = 0 if data.weights is None else data.weights.ndim
    return *shape, data.steps(batch_size), weights, len(data.y_val) > 0


def make_learner(
    members: Sequence[Member],
    data: Data,
    *,
    record_steps: bool = False,
    stacked: bool = False,
    feeds: Sequence[Feed] | None = None,
) -> Learner:
    """Return the learner of a stack: its models stacked where they can be, else its only model.

    One of the user's own models, or a convolutional one, alone is faster as it is. A stack's checkpoint goes on as one,
    also where a stack would not be begun: on a CPU, that of a convolutional model from a GPU.

    Args:
        members: the stack.
        data: gives the shape of a sample, the number of classes and the device.
        record_steps: whether the learner will be asked for `step_losses`.
        stacked: whether a state of a stack is to be loaded.
        feeds: of each member, where not all see the same batches.

    Raises:
        ConfigError: a model cannot take the data's samples.
    """
    first = members[0].config
    single = len(members) == 1 and is_measured(first)
    if not stacked and (single or stack_key(first, data.device.type) is None):
        return ModuleLearner(members[0], data.shape, data.classes, data.device)
    return StackedLearner(members, data.shape, data.classes, data.device, record_steps=record_steps, feeds=feeds)


def _generator_states(device: torch.device) -> list[torch.Tensor]:
    """Return the states of torch's global generators: the CPU's, then the device's where that is another."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def _restore_generators(states: Sequence[torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda" and len(states) > 1:
        torch.cuda.set_rng_state(states[1], device)
