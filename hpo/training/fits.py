"""Fits of trials, joined: callbacks see each trial as one member, whose rows are the means over its fits.

Fits of a trial usually do their epochs in lockstep, as members of one cohort. Where they do not, because they were
interrupted at different places or do not all fit into memory, a trial's row of an epoch is made when the last of them
has done it; what is farther by then is not counted. Loops of the user's own train one fit after the other, so that a
trial's rows are made, and pruners are asked, as the last of them reports.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from typing_extensions import override

from hpo.config.registry import Direction
from hpo.config.resampling import Fit
from hpo.config.trial_config import TrialConfig
from hpo.training.callbacks import Callback
from hpo.training.divergence import find_divergence
from hpo.training.loop_run import choose_monitor
from hpo.training.member import Member, Metrics, TrainResult
from hpo.training.sample_log import SampleLog
from hpo.training.settings import TrainSettings

__all__ = ["FitCallback", "JointTrial", "fit_config", "mean_row"]

SUMS = ("seconds",)  # of a row: what the fits of a trial take together


def fit_config(config: TrialConfig, fit: Fit, *, loop: bool = False) -> TrialConfig:
    """Return the configuration of one fit; patience is the trial's, except in a loop of the user's own."""
    own = fit.config(config)
    return own if loop or not own.patience else own.model_copy(update={"patience": 0})


def mean_row(rows: Sequence[Metrics]) -> Metrics:
    """Return the means of the metrics that all rows of an epoch have; seconds are added up."""
    names = [name for name in rows[0] if all(name in row for row in rows)]
    columns = {name: [row[name] for row in rows] for name in names}
    return {name: sum(column) if name in SUMS else _mean(column) for name, column in columns.items()}


def _mean(values: Sequence[float]) -> float:
    first = values[0]
    if all(value == first for value in values):
        return first  # an epoch, or a learning rate, to the last bit
    return math.fsum(values) / len(values) if all(map(math.isfinite, values)) else sum(values) / len(values)


@dataclass(eq=False)
class JointTrial:
    """Trial of several fits in training.

    Attributes:
        config: its configuration.
        member: the trial, as callbacks see it; its number is its position in its cohort.
        settings: with a monitor; of loops of the user's own as they are.
        loop: whether a loop of the user's own trains it.
        fits: those that its rows are the means of.
        ratio: validation samples of a fit for each of its training samples.
        curves: rows of metrics of each fit that has begun, by its number.
        results: of the fits that have ended.
        silent: whether callbacks are told neither of its start nor of its epochs, for they were before.
        judged: whether callbacks are asked about its epochs.
        last: whether it ends with these fits.
        limit: epochs of its earlier fits, which may have stopped early, or of those that it was dropped by; None where
            it has none.
    """

    config: TrialConfig
    member: Member
    settings: TrainSettings
    loop: bool = False
    fits: tuple[Fit, ...] = ()
    ratio: float = 0.0
    curves: dict[int, list[Metrics]] = field(default_factory=dict)
    results: dict[int, TrainResult] = field(default_factory=dict)
    silent: bool = False
    judged: bool = True
    last: bool = True
    limit: int | None = None
    started: bool = False
    fresh: bool = False
    told: bool = False
    _live: dict[int, Member] = field(default_factory=dict)
    _steps: dict[int, Sequence[Tensor]] = field(default_factory=dict)
    _pending: set[int] = field(default_factory=set)
    _logs: dict[int, SampleLog | None] = field(default_factory=dict)

    def expect(self, numbers: Sequence[int]) -> None:
        """Await the fits that are trained next."""
        self._pending = set(numbers)

    def begin(self, number: int, member: Member) -> None:
        """Take up a fit that begins, with the rows that it has from its checkpoint."""
        self._live[number] = member
        self.curves[number], self._steps[number] = member.history, member.steps
        self._logs[number] = member.sample_log
        self.member.parameter_count = member.parameter_count
        self.member.stack = member.stack

    def end(self, number: int, result: TrainResult) -> None:
        """Take the result of a fit that has ended."""
        self._live.pop(number, None)
        self._pending.discard(number)
        self.results[number] = result
        self.member.parameter_count = result.parameter_count or self.member.parameter_count

    @property
    def begun(self) -> bool:
        """True once all fits that are trained now have begun."""
        return self._pending <= self._live.keys() | self.results.keys()

    @property
    def idle(self) -> bool:
        """True once all fits that are trained now have ended."""
        return not self._pending

    @property
    def resumable(self) -> bool:
        """True if each fit in training can go on from a checkpoint."""
        return all(member.resumable for member in self._live.values())

    @property
    def done(self) -> bool:
        """True once every fit that its rows are the means of has come to its end, here or before."""
        return all(fit.number in self.curves for fit in self.fits) and not self._live

    @property
    def exhausted(self) -> bool:
        """True once it has as many epochs as those of its fits that have ended; a loop of the user's own goes on."""
        ended = [len(self.curves[fit.number]) for fit in self.fits if fit.number in self.curves.keys() - self._live]
        ended += [] if self.limit is None else [self.limit]
        return not self.loop and bool(ended) and len(self.member.history) >= min(ended)

    def close_epochs(self) -> Iterator[Metrics]:
        """Yield the rows of the epochs that all fits have done since, each as it is added to the trial."""
        member = self.member
        while member.stopped is None and (rows := self._next_rows()):
            row = mean_row(rows)
            if (steps := self._mean_steps(len(member.history))) is not None:
                member.steps.append(steps)
            monitor = self._choose_monitor(row)
            member.end_epoch(row, *monitor, dict, self.settings.objectives)
            self._keep_samples()
            if member.stopped == "diverged":
                member.cause += self._name_diverged(rows)
            yield row

    def _keep_samples(self) -> None:
        """Keep the sample scores of the last epoch if it is the trial's best, which that of a fit need not be."""
        best, last = self.member.best_epoch, int(self.member.history[-1]["epoch"])
        for log in self._logs.values() if best == last else ():
            if log is not None:
                log.keep(last)

    @property
    def result(self) -> TrainResult:
        """The result of the trial, with the sample scores of its fits if all have them."""
        logs = [log for fit in self.fits if (log := self._logs.get(fit.number)) is not None]
        return replace(TrainResult.of(self.member), sample_logs=tuple(logs) if len(logs) == len(self.fits) else ())

    def _next_rows(self) -> list[Metrics]:
        position = len(self.member.history)
        curves = [self.curves.get(fit.number, []) for fit in self.fits]
        return [curve[position] for curve in curves] if all(len(curve) > position for curve in curves) else []

    def _choose_monitor(self, row: Metrics) -> tuple[str, Direction]:
        if self.loop:
            return choose_monitor(self.settings, row)
        assert self.settings.monitor is not None
        return self.settings.monitor, self.settings.direction

    def _name_diverged(self, rows: Sequence[Metrics]) -> str:
        objectives = [each for each in (self.settings.monitor, *self.settings.objectives) if each]
        named = [fit.name for fit, row in zip(self.fits, rows, strict=True) if find_divergence(row, objectives)]
        return f", {named[0]}" if named else ""

    def _mean_steps(self, position: int) -> Tensor | None:
        """Return the mean loss at each step that all fits have done, and the seconds that they took together."""
        found = [self._steps.get(fit.number, ()) for fit in self.fits]
        if len(self.member.steps) < position or any(len(steps) <= position for steps in found):
            return None
        least = min(steps[position].shape[1] for steps in found)
        stacked = torch.stack([steps[position][:, :least] for steps in found])
        return torch.stack([stacked[:, 0].mean(0), stacked[:, 1].sum(0)])

    def fit_rows(self, position: int) -> dict[int, Metrics]:
        """Return the rows at a position of the trial's history by fit."""
        return {number: curve[position] for number, curve in sorted(self.curves.items()) if len(curve) > position}

    def best_values(self, metric: str) -> dict[int, float]:
        """Return a metric of each fit, by its number, as the trial's is their mean: returned, or at its best epoch."""
        member, ended = self.member, self.results
        if metric in member.returned:
            return {fit.number: ended[fit.number].returned[metric] for fit in self.fits if fit.number in ended}
        rows = {} if member.best is None else self.fit_rows(member.history.index(member.best))
        return {number: row[metric] for number, row in rows.items() if metric in row}

    def stop_fits(self) -> None:
        """Stop the fits in training once the trial has ended."""
        if (reason := self.member.stopped) is not None:
            for member in self._live.values():
                member.stop(reason)

    def extend(self, fits: tuple[Fit, ...]) -> None:
        """Let the trial have more fits than those that it has done: its rows become the means over all of them."""
        self.fits, self.limit = fits, len(self.member.history)
        self.member.history, self.member.steps = [], []
        self.member.best_epoch, self.member.stopped = None, None
        self.member.origin, self.member.returned = "best epoch", {}
        self.silent, self.judged, self.fresh = self.silent or self.started, False, False

    def take_last(self) -> None:
        """Let the trial's values be of its last epoch, as those of a loop that was told to prune."""
        self.member.origin = "last report"
        if self.member.history:
            self.member.best_epoch = int(self.member.history[-1]["epoch"])

    def take_returned(self) -> None:
        """Take what the calls of a loop have returned: the means of the metrics that all have."""
        results = [self.results[fit.number] for fit in self.fits if fit.number in self.results]
        if not results or len(results) < len(self.fits):
            return
        member = self.member
        member.origin = results[0].origin
        member.returned = mean_row([dict(each.returned) for each in results])
        if member.origin == "returned" and member.history:
            member.best_epoch = int(member.history[-1]["epoch"])


class FitCallback(Callback):
    """Callback that joins the fits of trials, and calls the callbacks of the trials.

    Args:
        callbacks: of the trials.
        on_fit: called after every epoch of a fit.

    Attributes:
        places: the trial, and the number of its fit, of each position among what `train` is given.
    """

    def __init__(self, callbacks: Sequence[Callback], on_fit: Callable[[], object] = lambda: None) -> None:
        self.places: Sequence[tuple[JointTrial, int]] = ()
        self._callbacks, self._on_fit = callbacks, on_fit

    @override
    def on_start(self, member: Member) -> None:
        """Begin a trial with its last fit; that of a loop, whose fits begin one after the other, with its first."""
        trial, number = self.places[member.number]
        trial.begin(number, member)
        if not trial.started and (trial.loop or trial.begun):
            self._start(trial)
        elif trial.started and trial.begun:
            self._advance(trial)
        trial.stop_fits()

    def _start(self, trial: JointTrial) -> None:
        trial.started = True
        for _ in () if trial.loop else trial.close_epochs():
            pass
        trial.member.resumed_from, trial.member.resumable = len(trial.member.history), trial.resumable
        if not trial.silent:
            for callback in self._callbacks:
                callback.on_start(trial.member)
        self._advance(trial)

    def _advance(self, trial: JointTrial) -> None:
        """Add the rows of the epochs that all fits have done, and end the trial with its last one."""
        for row in trial.close_epochs():
            for callback in () if trial.silent else self._callbacks:
                callback.on_epoch(trial.member, row)
            trial.fresh = trial.judged
            config = trial.config
            if ("epochs" in config.effective() and row["epoch"] >= config.epochs) or trial.exhausted:
                trial.member.stop("completed")
        trial.stop_fits()

    @override
    def on_epoch(self, member: Member, metrics: Metrics) -> None:
        """Add the rows that have become complete."""
        trial, _ = self.places[member.number]
        trial.member.parameter_count = member.parameter_count
        self._on_fit()
        self._advance(trial)

    @override
    def on_round(self, members: Sequence[Member]) -> None:
        """Let callbacks judge the trials that have new rows."""
        trials = list(dict.fromkeys(trial for trial, _ in self.places if trial.fresh))
        for trial in trials:
            # A loop of the user's own says only as it trains whether it has a checkpoint to go on from.
            trial.fresh, trial.member.resumable = False, trial.resumable
        if going := [trial for trial in trials if trial.member.stopped is None]:
            for callback in self._callbacks:
                callback.on_round([trial.member for trial in going])
            for trial in going:
                trial.stop_fits()

    @override
    def on_end(self, member: Member, outcome: TrainResult) -> None:
        """Take a fit's result; end the trial where that ends it."""
        trial, number = self.places[member.number]
        trial.end(number, outcome)
        if trial.member.stopped == "pruned" and outcome.origin == "last report":
            trial.take_last()
        if outcome.status == "interrupted" or (trial.loop and outcome.status in ("pruned", "diverged")):
            self._end_early(trial, outcome)
        if trial.idle:
            self.settle(trial)

    def _end_early(self, trial: JointTrial, outcome: TrainResult) -> None:
        """End a trial with one of its fits; where its rows are yet to come, they are of those fits that it has."""
        if trial.member.stopped is not None:
            return
        if outcome.status != "interrupted" and not trial.member.history:
            trial.fits = tuple(fit for fit in trial.fits if trial.curves.get(fit.number))
            self._advance(trial)
        if outcome.status == "diverged":
            trial.member.diverge(outcome.cause)
        trial.member.stop(outcome.status)
        if outcome.origin == "last report":
            trial.take_last()
        trial.stop_fits()

    def settle(self, trial: JointTrial) -> None:
        """End a trial whose fits have ended, unless others are yet to be trained."""
        diverged = next((each for each in trial.results.values() if each.status == "diverged"), None)
        if trial.member.stopped is None and diverged is not None:
            self._end_early(trial, diverged)
        elif trial.done and trial.member.stopped in (None, "completed", "early_stopped"):
            if trial.loop:
                trial.take_returned()
            trial.member.stop("completed")
        if trial.member.stopped is None or (not trial.last and trial.member.stopped in ("completed", "early_stopped")):
            return
        self.tell(trial)

    def tell(self, trial: JointTrial) -> None:
        """Tell callbacks that a trial has ended, once."""
        if not trial.told:
            trial.told = True
            for callback in self._callbacks:
                callback.on_end(trial.member, trial.result)
