"""Run of a training loop of the user's own: what a trial has reported, returned and saved."""

from __future__ import annotations

import logging
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from hpo.config import registry
from hpo.config.registry import Direction
from hpo.config.trial_attributes import warn_of_own_name
from hpo.config.trial_config import TrialConfig
from hpo.errors import CheckpointError, RunError
from hpo.training.checkpoint import Checkpoint, CheckpointFile
from hpo.training.custom_loop import Stateful, Trial
from hpo.training.data import Data
from hpo.training.device import copy_to_cpu
from hpo.training.divergence import find_divergence
from hpo.training.loop_schedule import LoopSchedule
from hpo.training.loop_values import read_report, read_returned
from hpo.training.member import Member, Metrics, Origin, State, TrainResult, Weights
from hpo.training.schedules import falls_so_far
from hpo.training.settings import COST_METRICS, TrainSettings
from hpo.training.suggestions import Suggestions, TrialLink
from hpo.utils.text import first_line

__all__ = ["LoopInterrupted", "LoopRun", "LoopTrial", "choose_monitor", "run_loop"]

log = logging.getLogger("hpo.training")
# Which epoch is the best, where the objective is a cost and does not tell one epoch from another.
DEFAULT_MONITORS: Sequence[tuple[str, Direction]] = (
    ("val_accuracy", "maximize"),
    ("val_r2", "maximize"),
    ("val_loss", "minimize"),
)
COMPLETE = ("completed", "early_stopped", None)


class LoopInterrupted(BaseException):
    """Interruption of a loop where it reports, although its trial has ended; `except Exception` lets it pass."""


class LoopRun:
    """Training of one trial by a loop of the user's own: the private side of `Trial`.

    Attributes:
        member: the trial.
        data: of the study.
        file: its checkpoints, or None.
        folder: for the loop's own files.
        state: of the checkpoint to begin from; None without one.
        saved: epochs in the last checkpoint.
        link: the trial's link to its study.
        suggestions: answers to what the loop asks for beside its configuration.
        started_at: when the trial began.
        user_attrs: the trial's attributes.
        peers: the runs that one call of the loop trains, this one among them.
        schedules: of its optimizers, which an epoch may change.
    """

    def __init__(
        self,
        member: Member,
        data: Data,
        settings: TrainSettings,
        file: CheckpointFile | None,
        checkpoint: Checkpoint | None,
        folder: Path,
        link: TrialLink,
    ) -> None:
        self.member, self.data, self.file, self.folder, self.link = member, data, file, folder, link
        self.suggestions = Suggestions(member.config, link)
        self.started_at = datetime.now() if link.trial is None else link.trial.datetime_start
        self.user_attrs: dict[str, Any] = {} if link.trial is None else link.trial.user_attrs
        self.state: State | None = None
        self.saved = 0
        self._settings = settings
        self._objectives = tuple(settings.objectives) or (settings.monitor or "value",)
        self._required = [entry.name for entry in settings.metrics if entry.name not in COST_METRICS]
        self.peers: Sequence[LoopRun] = (self,)
        self._result: TrainResult | None = None
        self.schedules: list[LoopSchedule] = []
        self._model: nn.Module | None = None
        self._read_weights: Callable[[], Weights] | None = None
        self._verified = False
        self._repeated = False  # whether a repeated step has been logged
        self._asks = False  # whether the loop asks if it should stop, or leaves that to its reports
        self._told_to_prune = False
        self._seconds_before, self._since = 0.0, time.perf_counter()
        if checkpoint is not None:
            self._resume(checkpoint)

    def _resume(self, checkpoint: Checkpoint) -> None:
        member, self.state, self.saved = self.member, checkpoint.learner, len(checkpoint.history)
        member.history = checkpoint.history
        member.best_epoch, member.best_weights = checkpoint.best_epoch, checkpoint.best_weights
        member.resumed_from, member.seconds = len(checkpoint.history), checkpoint.seconds
        member.resumable = True  # from the same checkpoint, as a worker may find that it was to pause there
        self._seconds_before = checkpoint.seconds

    @property
    def stopped(self) -> bool:
        """True once the trial has ended."""
        return self.member.stopped is not None

    def should_stop(self) -> bool:
        """Return whether the loop should return, which trains others as long as one of them goes on.

        A stop on request marks the trials, whose next epoch is incomplete.
        """
        for run in self.peers:
            run._asks = True
        return self._look()

    def _look(self) -> bool:
        if not self._all_stopped and self._settings.should_stop():
            for run in self.peers:
                run.member.stop("interrupted")
        return self._all_stopped

    @property
    def _all_stopped(self) -> bool:
        return all(run.stopped for run in self.peers)

    def should_prune(self) -> bool:
        """Return whether the loop should return; one that does is pruned as one that raises `optuna.TrialPruned`."""
        stop = self.should_stop() and self.member.stopped not in COMPLETE
        self._told_to_prune = self._told_to_prune or stop
        return stop

    def set_user_attr(self, key: str, value: Any) -> None:
        """Store an attribute; see `Trial.set_user_attr`. That of a trial which has left its peers is not stored."""
        if self._result is not None:
            log.debug("attribute %s: the trial has ended, so that it is not stored", key)
        elif self.link.trial is not None:
            warn_of_own_name(key)
            self.link.trial.set_user_attr(key, value)
        self.user_attrs[key] = value

    def keep(self, model: nn.Module) -> None:
        """Count the model's parameters and keep its best weights; see `Trial.keep`."""
        self._model = model
        self._count_parameters(model)

    def _count_parameters(self, model: nn.Module) -> None:
        """Count what the model learns; lazy layers have no size before their first batch."""
        learned = [each for each in model.parameters() if each.requires_grad and not is_lazy(each)]
        self.member.parameter_count = sum(each.numel() for each in learned)

    def keep_weights(self, read: Callable[[], Weights]) -> None:
        """Keep the best weights of a model in a stack, which `read` returns as they are at present."""
        self._read_weights = read

    def load_parts(self, parts: Mapping[str, Stateful]) -> None:
        """Load each part's state from the checkpoint, where there is one."""
        if self.state is None:
            return
        if missing := sorted(set(parts) ^ set(self.state)):
            raise CheckpointError(
                f"its checkpoint holds {sorted(self.state)}, and the loop has {sorted(parts)}: {missing}"
            )
        for name, part in parts.items():
            try:
                part.load_state_dict(self.state[name])
            except Exception as error:  # a part of the user's can raise anything
                raise CheckpointError(f"'{name}' does not fit its checkpoint: {first_line(error)}") from error

    def save(self, state: State) -> None:
        """Write a checkpoint; see `Trial.save`."""
        if self.file is None:
            return
        self._update_seconds()
        member = self.member
        self.file.write(
            Checkpoint(
                epoch=len(member.history) + 1,
                step=0,
                seconds=member.seconds,
                generators=[],
                history=member.history,
                steps=[],
                best_epoch=member.best_epoch,
                best_weights=member.best_weights,
                learner=state,
            )
        )
        self.saved = len(member.history)
        if not self._verified:  # once an attempt: else a state that cannot be read back shows only when it is needed
            self._verified = True
            try:
                self.file.verify()
            except CheckpointError as error:
                raise RunError(f"objective '{member.config.model}': the state {sorted(state)}: {error}") from error

    def report(self, value: object, step: object, metrics: Mapping[str, object], *, judge: bool = True) -> bool:
        """Record the metrics of an epoch, and return whether it was; see `Trial.report`.

        Args:
            value, step, metrics: see `Trial.report`.
            judge: whether a pruner judges it now; see `judge`.

        Raises:
            LoopInterrupted: the trial has ended, or the worker is to stop, and the loop does not ask.
        """
        member = self.member
        if self.stopped and member.stopped not in COMPLETE:
            raise LoopInterrupted
        values, given = read_report(member.config.model, self._objectives[0], value, step, metrics)
        if given is not None and "epochs" in member.config.effective() and given > member.config.epochs:
            raise RunError(
                f"objective '{member.config.model}': trial.report(…, step={given}): is beyond epochs = "
                f"{member.config.epochs}, for the step is the epoch; report epochs, or leave 'epochs' out of uses"
            )
        if self.stopped:
            return False
        if (epoch := self._next_epoch(given)) is None:
            return False
        self._record(epoch, values, "trial.report has", judge=judge)
        if self._is_last(epoch):
            member.stop("completed")
        elif not self._asks and len(member.history) > member.resumed_from + 1 and self._look():
            raise LoopInterrupted
        return True

    def judge(self, members: Sequence[Member]) -> None:
        """Let callbacks judge members that have all reported an epoch, without those that end with it."""
        if going := [member for member in members if not member.stopped]:
            for callback in self._settings.callbacks:
                callback.on_round(going)

    def _next_epoch(self, step: int | None) -> int | None:
        """Return the epoch that a report is of; None if it is to be ignored, as Optuna ignores a repeated step."""
        epochs = [int(row["epoch"]) for row in self.member.history]
        if step is None:
            return epochs[-1] + 1 if epochs else 1
        if step in epochs:
            if not self._repeated:
                log.warning("trial.report(…, step=%d): ignored, for that step has been reported; so are others", step)
            self._repeated = True
            return None
        if epochs and step < epochs[-1]:
            raise RunError(
                f"objective '{self.member.config.model}': trial.report(…, step={step}): comes after step {epochs[-1]}; "
                "report steps in their order"
            )
        return step

    def _record(self, epoch: int, values: Metrics, has: str, *, last: bool = False, judge: bool = True) -> None:
        """Add an epoch to the history; `has` begins what an error says of its metrics.

        Args:
            last: whether the trial is complete with it, so that no pruner is asked.
            judge: whether one is asked at once.
        """
        member = self.member
        if self._model is not None and len(member.history) == member.resumed_from:
            self._count_parameters(self._model)
        for name in self._required:
            if name not in values:
                raise RunError(f"objective '{member.config.model}': {has} no {name}; it has {sorted(values)}")
        self._update_seconds()
        row: Metrics = {"epoch": epoch, **values, "seconds": member.seconds}
        member.end_epoch(row, *choose_monitor(self._settings, row), self._weights, self._objectives)
        for schedule in self.schedules:
            schedule.refresh()
        if last:
            member.stop("completed")
        for callback in self._settings.callbacks:
            callback.on_epoch(member, row)
        if judge and not self._is_last(epoch):
            self.judge([member])

    def count_falls(self) -> int:
        """Return how often the learning rate has fallen, under `reduce_on_plateau`."""
        history = self.member.history
        if not history:
            return 0
        monitor, direction = choose_monitor(self._settings, history[-1])
        return falls_so_far(self.member.config, history, monitor, direction)

    def _is_last(self, epoch: int) -> bool:
        """Return whether the epoch is known to be the last."""
        config = self.member.config
        return "epochs" in config.effective() and epoch >= config.epochs

    def _weights(self) -> Weights:
        if self._read_weights is not None:
            return self._read_weights()
        state = {} if self._model is None else self._model.state_dict()
        return {name: copy_to_cpu(value) for name, value in state.items() if isinstance(value, Tensor)}

    def _update_seconds(self) -> None:
        self.member.seconds = self._seconds_before + time.perf_counter() - self._since

    def train(self) -> list[TrainResult]:
        """Call the loop, and return the results of all that it trains."""
        for run in self.peers:
            for callback in self._settings.callbacks:
                callback.on_start(run.member)
        if not self._all_stopped:
            self._call()
        return [run.end() for run in self.peers]

    def end(self) -> TrainResult:
        """End the trial, which may be before its peers, and hand on its result once."""
        if self._result is None:
            self.member.stop("completed")
            self._result, self._read_weights = TrainResult.of(self.member, self._model), None
            for callback in self._settings.callbacks:
                callback.on_end(self.member, self._result)
        return self._result

    def _call(self) -> None:
        """Call the user's function, and take what it returns."""
        member, returned = self.member, None
        try:
            returned = registry.models.get(member.config.model).load()(Trial(self))
        except LoopInterrupted:
            pass
        except Exception as error:
            if not _is_pruned(error):
                raise
            for run in self.peers:
                run._prune()
        for run in self.peers:
            if run.member.stopped == "pruned" and run._told_to_prune and run._result is None:
                run._settle("last report")
        if returned is not None and member.stopped in COMPLETE:
            if len(self.peers) > 1:
                raise RunError(
                    f"objective '{member.config.model}': it trains several trials and returned a value; report theirs"
                )
            self._take(read_returned(member.config.model, returned, self._objectives))
        for run in self.peers:
            if not run.member.history and not run.stopped:
                raise RunError(f"objective '{member.config.model}': {_missing(len(self.peers))}")

    def _prune(self) -> None:
        """End the trial as pruned, unless it has ended as something that is no result, or as one of several."""
        if self.member.stopped is None or (self.member.stopped in COMPLETE and len(self.peers) == 1):
            self.member.stopped = "pruned"
        self._told_to_prune = True

    def _take(self, metrics: Metrics) -> None:
        """Take returned metrics: they count before those that were reported; those of a loop without are its epoch."""
        member = self.member
        if not member.history:
            member.origin = "returned"
            self._record(1, metrics, "it returned", last=True)
            return
        member.returned = metrics
        judged = [name for name in self._objectives if name in metrics]
        if cause := find_divergence(metrics, judged):
            member.diverge(f"{cause}, as it was returned")
        elif judged:
            member.origin = "returned"
            if member.best is None or any(member.best.get(name) != metrics[name] for name in judged):
                self._settle("returned")

    def _settle(self, origin: Origin) -> None:
        """Let the trial's values be of the last epoch, and its weights those that the loop has left."""
        member = self.member
        member.origin = origin
        if member.history:
            member.best_epoch, member.best_weights = int(member.history[-1]["epoch"]), self._weights()


def choose_monitor(settings: TrainSettings, row: Metrics) -> tuple[str, Direction]:
    """Return the metric of a loop that decides which epoch is the best, or `epoch`, by which the last one is."""
    first = [] if settings.monitor is None else [(settings.monitor, settings.direction)]
    monitors = [each for each in (*first, *DEFAULT_MONITORS) if each[0] in row]
    return monitors[0] if monitors else ("epoch", "maximize")


def _missing(peers: int) -> str:
    """Return what a loop has not done that has reported nothing of a trial."""
    if peers > 1:
        return "it reported nothing of some trials; with stack=True, train what trial.stack(…) returns"
    return "it reported nothing; call trial.report(…) after each epoch"


def _is_pruned(error: Exception) -> bool:
    """Return whether an error is `optuna.TrialPruned`. Whoever raised it has imported it; training does without it."""
    optuna = sys.modules.get("optuna")
    return optuna is not None and isinstance(error, optuna.TrialPruned)


def run_loop(trials: Sequence[LoopTrial], settings: TrainSettings) -> list[TrainResult]:
    """Train configurations with the user's loop that they name as their model, in one call.

    Args:
        trials: one; or several of a loop that stacks, which begin at the same epoch.
        settings: see `hpo.training.loop.train`.

    Raises:
        CheckpointError: the checkpoint to begin from is another model's.
        RunError: the loop reports nothing, or something other than numbers.
    """
    torch.manual_seed(trials[0].config.seed_of_init)
    with tempfile.TemporaryDirectory(prefix="hpo-") as temporary:
        runs = []
        for trial in trials:
            folder = Path(temporary) / str(trial.number) if trial.file is None else trial.file.folder
            member, link = Member(trial.config, trial.number), trial.link or TrialLink()
            runs.append(LoopRun(member, trial.data, settings, trial.file, trial.checkpoint, folder, link))
        for run in runs:
            run.peers = runs
        return runs[0].train()


@dataclass(frozen=True)
class LoopTrial:
    """Trial that a loop trains.

    Attributes:
        number: its position among those that `hpo.training.loop.train` was given.
        config: its configuration.
        data: of the study, on the device.
        file: its checkpoints; None for none.
        checkpoint: the one to begin from, if there is one.
        link: its link to the study; None without one.
    """

    number: int
    config: TrialConfig
    data: Data
    file: CheckpointFile | None
    checkpoint: Checkpoint | None
    link: TrialLink | None
