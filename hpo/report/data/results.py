"""Results of a study, read once, with its trials as rows.

Light: neither torch nor plotly nor sklearn is imported.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from hpo.config.trial_config import TrialConfig
from hpo.config.values import Value, plain_value
from hpo.datasets import DataFacts
from hpo.errors import RequestError
from hpo.report.data.corrected_score import CorrectedScore
from hpo.space import ExtendedSpace, LearnedSpace, Space
from hpo.storage.statements import FIXED
from hpo.storage.study_storage import EpochMetrics
from hpo.storage.worker_stats import WorkSummary, summarize_work
from hpo.study import Budget, Definition, Objective, Study
from hpo.study.attributes import (
    RACED,
    STAGE_EPOCHS,
    TRIAL_SEED,
    read_fit_returns,
    read_origin,
    read_standard_error,
    read_table,
    read_text,
    read_whole,
)
from hpo.study.constraints import INFEASIBLE
from hpo.study.operations.worker_status import WorkerState, read_worker_states
from hpo.study.outlook import refuse_unsettled
from hpo.study.paused import PAUSED_STATE, state_name
from hpo.study.settled import Outlook

__all__ = ["Results", "TrialRow", "read_results"]

UNEXPLAINED = "failed"
STATES = ("COMPLETE", "PRUNED", "FAIL", "RUNNING", PAUSED_STATE, "WAITING")


@dataclass(frozen=True)
class TrialRow:
    """One trial as a report needs it.

    Attributes:
        number: its identity.
        state: COMPLETE, PRUNED, FAIL, RUNNING, PAUSED (at a rung of ASHA) or WAITING.
        values: one per objective, or None where it has none.
        params: Optuna's parameters by key; of a waiting trial those that are fixed for it.
        config: its configuration; None where its parameters do not make one (added by others, or not yet begun).
        epochs: metrics of every epoch, in order.
        worker: who trained it.
        started: naive local time of the worker.
        finished: naive local time of the worker.
        seconds: of its training until the last epoch that was recorded, those of earlier attempts too, and without the
            time for which it was paused; where no epoch has them, from start to finish.
        best_epoch: the epoch its values are from.
        parameter_count: weights of its model.
        failure: kind of failure (`diverged`, `infeasible`, `out_of_memory`, `error`), or None; `failed` where the trial
            has none, as those of other tools.
        message: the failure in a line, or None.
        baseline: whether it is the baseline.
        extra: whether others added it to a study of fixed slots.
        seed: of a call of an objective function that asked for it.
        recorded: Optuna's parameters as they are stored, among them None and lists, which are texts in `params`.
        fits: metrics of every epoch of each of its fits, by the fit's number; empty for a trial of one fit, whose are
            `epochs`.
        fit_returns: its first objective as a loop of the user's own returned it for each fit, by the fit's number;
            empty where its values are of an epoch.
        standard_error: of its first objective's value, as it was recorded: of the mean over its fits, of the validation
            samples, or what an objective function says; None where it was not.
        raced: by which trial it was dropped on their shared fits; None for any other.
        stage_epochs: after how many epochs its first fits ended by themselves; None where it has had all at once.
        value_from: of a training loop's trial, where its values come from (`best epoch`, `last report`, `returned`);
            None of other models, whose values are of the best epoch, and where it is not known.
    """

    number: int
    state: str
    values: tuple[float, ...] | None
    params: dict[str, Value]
    config: TrialConfig | None
    epochs: Sequence[EpochMetrics] = ()
    worker: str | None = None
    started: datetime | None = None
    finished: datetime | None = None
    seconds: float | None = None
    best_epoch: int | None = None
    parameter_count: int | None = None
    failure: str | None = None
    message: str | None = None
    baseline: bool = False
    extra: bool = False
    recorded: Mapping[str, Any] = field(default_factory=dict)
    value_from: str | None = None
    fits: Mapping[int, Sequence[EpochMetrics]] = field(default_factory=dict)
    fit_returns: Mapping[int, float] = field(default_factory=dict)
    standard_error: float | None = None
    raced: str | None = None
    stage_epochs: int | None = None
    seed: int | None = None

    @property
    def value(self) -> float | None:
        """The first objective's value."""
        return self.values[0] if self.values else None

    def metric(self, name: str) -> float | None:
        """Return a metric of the epoch that its values are from; None where that has none."""
        return next((epoch.get(name) for epoch in self.epochs if epoch.get("epoch") == self.best_epoch), None)

    @property
    def feasible(self) -> bool:
        """True where it violates no constraint, as far as is known."""
        return self.failure != INFEASIBLE

    @property
    def known_failure(self) -> str | None:
        """The kind of failure, if more than the failure itself is known."""
        return None if self.failure == UNEXPLAINED else self.failure

    @property
    def comparable(self) -> bool:
        """True where it is COMPLETE with finite values, so that it can be ranked."""
        return self.state == "COMPLETE" and self.values is not None and all(map(math.isfinite, self.values))


@dataclass(frozen=True)
class Results:
    """A study at one moment.

    Attributes:
        name: the study's.
        storage: its URL, without a password.
        definition: what the study is.
        budget: how much of it is to be run.
        space: the definition's space, parsed, with the parameters that training loops asked for themselves.
        trials: all of them, by number.
        remaining_trials: trials of the budget that are not finished.
        stop_reason: why no trial is begun any more although some may be left, or None.
        workers: those that are listed with it.
        work: what its workers have done with their time, those that have ended too; None before the first.
        data_facts: what its first worker found in the data; None before that.
        corrected: the best trial's corrected score; None where it has not been computed, or there is none.
        outlooks: of the study, of one objective, after each of its trials in the order in which they ended, from the
            fewest that say anything.
    """

    name: str
    storage: str
    definition: Definition
    budget: Budget
    space: Space
    trials: tuple[TrialRow, ...]
    remaining_trials: int
    stop_reason: str | None
    workers: tuple[WorkerState, ...] = ()
    work: WorkSummary | None = None
    data_facts: DataFacts | None = None
    corrected: CorrectedScore | None = None
    outlooks: tuple[Outlook, ...] = ()

    @cached_property
    def settled(self) -> Outlook | None:
        """The first outlook at which the study has settled, whether or not it is to end then; None before."""
        return next((outlook for outlook in self.outlooks if outlook.settled), None)

    @property
    def unattended(self) -> bool:
        """True where trials are left to begin or to resume, and no worker lives to do it."""
        return self.remaining_trials > 0 and all(worker.gone for worker in self.workers)

    @property
    def takes_seed(self) -> bool:
        """True if its objective function has asked for a seed, so that it can be evaluated."""
        return any(row.seed is not None for row in self.trials)

    @property
    def step_name(self) -> str:
        """Name of what a trial's reports are numbered by: `epoch`, or `step` of an objective function."""
        return "epoch" if self.definition.configured else "step"

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """The metrics with their directions."""
        return self.definition.objectives

    @property
    def recorded(self) -> tuple[str, ...]:
        """The metrics that are recorded beside the objectives, as the study file's key `metrics` asks."""
        objectives = {objective.metric for objective in self.objectives}
        return tuple(name for name in self.definition.recorded if name not in objectives)

    @property
    def objective(self) -> Objective:
        """The first objective: the one that is monitored, and decides among equals."""
        return self.objectives[0]

    @property
    def started_at(self) -> datetime | None:
        """Start of its first trial; naive local time."""
        return min((row.started for row in self.trials if row.started), default=None)

    @property
    def last_event_at(self) -> datetime | None:
        """Last start or finish of a trial; naive local time."""
        return max((t for row in self.trials for t in (row.started, row.finished) if t), default=None)

    @cached_property
    def counts(self) -> dict[str, int]:
        """Number of trials in each state, every state of Optuna's named, and PAUSED if there are any."""
        counter = Counter(row.state for row in self.trials)
        return {state: counter[state] for state in STATES if state != PAUSED_STATE or counter[state]}

    @cached_property
    def failures(self) -> dict[str, int]:
        """Number of failed trials by kind, the most frequent first."""
        return dict(Counter(row.failure for row in self.trials if row.failure).most_common())

    @cached_property
    def ranked(self) -> tuple[TrialRow, ...]:
        """The comparable trials, best first objective first; equals by number."""
        sign = self.signs[0]
        return tuple(
            sorted((r for r in self.trials if r.comparable), key=lambda r: (sign * (r.value or 0.0), r.number))
        )

    @property
    def signs(self) -> tuple[int, ...]:
        """By objective: 1 where smaller is better, else -1."""
        return tuple(1 if objective.direction == "minimize" else -1 for objective in self.objectives)

    @cached_property
    def front(self) -> tuple[TrialRow, ...]:
        """The Pareto front: comparable trials that no other one beats in one objective while matching the rest."""
        if len(self.objectives) == 1:
            return self.ranked[:1]
        if not self.ranked:
            return ()
        scores = np.array([row.values for row in self.ranked], dtype=float) * self.signs
        dominated = [bool(np.any((scores <= score).all(1) & (scores < score).any(1))) for score in scores]
        return tuple(row for row, lost in zip(self.ranked, dominated, strict=True) if not lost)

    @property
    def best(self) -> TrialRow | None:
        """The best trial; of several objectives the one of the Pareto front that is best in the first."""
        return self.front[0] if self.front else None

    def top(self, count: int) -> tuple[TrialRow, ...]:
        """Return the best `count` trials; of several objectives those of the Pareto front."""
        return (self.ranked if len(self.objectives) == 1 else self.front)[:count]

    @property
    def baseline(self) -> TrialRow | None:
        """The baseline, if the study has one and it has been created."""
        return next((row for row in self.trials if row.baseline), None)

    def trial(self, number: int) -> TrialRow:
        """Return the trial of that number.

        Raises:
            RequestError: there is none; the line says which there are.
        """
        for row in self.trials:
            if row.number == number:
                return row
        existing = f"its trials are 0 to {self.trials[-1].number}" if self.trials else "it has no trials yet"
        raise RequestError(f"study '{self.name}' has no trial {number}; {existing}")

    @cached_property
    def varied(self) -> tuple[str, ...]:
        """Names of the parameters that the space varies, alternatives of one counted once."""
        return tuple(dict.fromkeys(dimension.parameter.name for dimension in self.space.varied))

    @cached_property
    def _names(self) -> dict[str, str]:
        return {dimension.key: dimension.parameter.name for dimension in self.space.varied}

    def settings(self, row: TrialRow) -> dict[str, Value]:
        """Return a trial's values of the varied parameters by name; without a configuration all that it has."""
        if row.config is None:
            return {self._names.get(key, key): value for key, value in row.params.items()}
        effective = row.config.effective(self.space.domains)
        return {**{name: effective[name] for name in self.varied if name in effective}, **self.asked(row)}

    def asked(self, row: TrialRow) -> dict[str, Value]:
        """Return the parameters that a trial's training loop asked for itself."""
        asked = self.space.asked if isinstance(self.space, ExtendedSpace) else ()
        return {each.key: row.params[each.key] for each in asked if each.key in row.params}

    @cached_property
    def origins(self) -> dict[str, int]:
        """Number of COMPLETE trials of training loops by where their values come from."""
        return dict(Counter(row.value_from for row in self.trials if row.value_from and row.state == "COMPLETE"))


def read_results(study: Study) -> Results:
    """Read a study once.

    Raises:
        RegistryError: it uses a model or metric that is neither declared in it nor registered here; the line names the
            module to import.
    """
    study.definition.check_readable()
    epochs = study.storage.read_epochs(study.id)
    fits = study.storage.read_fits(study.id) if study.definition.several_fits else {}
    trials = study.trials()
    metric = study.definition.objectives[0].metric
    return Results(
        name=study.name,
        storage=study.storage.masked_url,
        definition=study.definition,
        budget=study.budget,
        space=_read_space(study, trials),
        trials=tuple(
            _make_row(
                study,
                trial,
                epochs.get(trial._trial_id) or _read_curve(trial, metric),
                fits.get(trial._trial_id, {}),
            )
            for trial in trials
        ),
        remaining_trials=study.remaining(),
        stop_reason=study.stop_reason(),
        workers=tuple(read_worker_states(study, trials)),
        work=summarize_work(study.storage.read_work(study.id)),
        data_facts=study.data_facts,
        outlooks=() if refuse_unsettled(study.definition) else tuple(study.read_outlook(trials).outlooks),
    )


def _read_space(study: Study, trials: Sequence[FrozenTrial]) -> Space:
    """Return the study's space, with what its training loops asked for themselves."""
    space = study.space
    asked = [{name: trial.distributions[name] for name in study.asked_params(trial)} for trial in trials]
    return ExtendedSpace(space, LearnedSpace(asked)) if any(asked) else space


def _make_row(
    study: Study,
    trial: FrozenTrial,
    epochs: Sequence[EpochMetrics],
    fits: Mapping[int, Sequence[EpochMetrics]],
) -> TrialRow:
    attrs = trial.user_attrs
    params = _read_params(trial)
    failed = {} if trial.state == TrialState.COMPLETE else attrs  # what a function calls so may be no failure
    return TrialRow(
        number=trial.number,
        state=state_name(trial),
        values=tuple(trial.values) if trial.values else None,
        params=params,
        config=_make_config(study, trial, params),
        epochs=epochs,
        worker=read_text(attrs, "worker"),
        started=trial.datetime_start,
        finished=trial.datetime_complete,
        seconds=_read_seconds(trial, epochs),
        best_epoch=read_whole(attrs, "best_epoch"),
        parameter_count=read_whole(attrs, "parameter_count"),
        failure=read_text(failed, "failure") or (UNEXPLAINED if trial.state == TrialState.FAIL else None),
        message=read_text(failed, "message") or read_text(trial.system_attrs, "fail_reason"),  # of Optuna before 3.0
        seed=read_whole(attrs, TRIAL_SEED),
        baseline=study.is_baseline(trial.number),
        extra=study.is_extra(trial.number),
        recorded=trial.params,
        value_from=read_origin(attrs),
        fits=fits,
        fit_returns=read_fit_returns(attrs, fits),
        standard_error=read_standard_error(attrs, trial.system_attrs),
        raced=read_text(attrs, RACED),
        stage_epochs=read_whole(attrs, STAGE_EPOCHS),
    )


def _read_seconds(trial: FrozenTrial, epochs: Sequence[EpochMetrics]) -> float | None:
    trained = epochs[-1].get("seconds", math.nan) if epochs else math.nan
    if math.isfinite(trained):
        return trained
    return trial.duration.total_seconds() if trial.duration else None


def _read_params(trial: FrozenTrial) -> dict[str, Value]:
    fixed = read_table(trial.system_attrs, FIXED) if trial.state == TrialState.WAITING else None
    return {name: plain_value(value) for name, value in (fixed or trial.params).items()}


def _read_curve(trial: FrozenTrial, metric: str) -> list[EpochMetrics]:
    """Return what a trial reported to Optuna, where it recorded no metrics of ours."""
    return [{"epoch": step, metric: value} for step, value in sorted(trial.intermediate_values.items())]


def _make_config(study: Study, trial: FrozenTrial, params: dict[str, Value]) -> TrialConfig | None:
    if not study.definition.configured:
        return None
    try:
        if study.is_baseline(trial.number):
            return study.config_of(trial)
        return study.resplit_config(study.definition.config(study.space.values(params)), trial)
    except RequestError:
        return None
