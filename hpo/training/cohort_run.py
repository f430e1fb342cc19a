"""The training of one cohort: its epochs, checkpoints, callbacks and results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial

import torch

from hpo.config.cohort_key import run_key, stack_key
from hpo.config.registry import Direction, MetricEntry
from hpo.config.trial_config import TrialConfig
from hpo.training.callbacks import Callback
from hpo.training.checkpoint import Checkpoint, CheckpointFile
from hpo.training.data import Batch, Data, epoch_seed
from hpo.training.learner import EvalResult, Learner, ModuleLearner
from hpo.training.losses import compute_metric, loss_target
from hpo.training.member import Member, Metrics, Scores, TrainResult, Weights
from hpo.training.schedules import epoch_rates, rate_at
from hpo.training.stacked.learner import StackedLearner

__all__ = ["CohortRun", "make_learner"]


class CohortRun:
    """A cohort's way through the epochs: one or more models, each of which answers one or more trials.

    Its trials have in common what `hpo.config.cohort_key.SHARED` names, and the place where they begin.
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
        own = {name: compute_metric(name, metric, evaluation.outputs, target) for name, metric in self._metrics}
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


def _generators(where: torch.device) -> list[torch.Tensor]:
    """The states of torch's global generators: the CPU's, then the device's where that is another."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(where)] if where.type == "cuda" else [])]


def _restore_generators(states: Sequence[torch.Tensor], where: torch.device) -> None:
    torch.set_rng_state(states[0])
    if where.type == "cuda" and len(states) > 1:
        torch.cuda.set_rng_state(states[1], where)
