"""Evaluations of a study: the configurations that were retrained, and how each run ended.

A study's evaluations are studies of their own (see `hpo.study.operations.evaluation_study`); several that are on the
same data, and both refit or both not, are one here: a configuration that has been run once is not run again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial
from pydantic import JsonValue

from hpo.config.trial_config import TrialConfig
from hpo.datasets import DatasetReference
from hpo.report.data.predictions import (
    FeatureImportance,
    LabelPredictions,
    Predictions,
    Reconstructions,
    TargetPredictions,
    read_importance,
    read_label_predictions,
    read_predictions,
    read_reconstructions,
    read_target_predictions,
)
from hpo.report.data.reference_models import ReferenceModels, read_reference_models
from hpo.report.format import one_line
from hpo.storage.statements import FIXED
from hpo.storage.study_storage import EpochMetrics
from hpo.study import Objective, Study
from hpo.study.attributes import read_number, read_origin, read_table, read_whole
from hpo.study.definition import test_metric
from hpo.study.files.artifacts import find_artifact
from hpo.study.operations.evaluation_study import (
    list_test_set_reads,
    readable_evaluation_studies,
    same_trial,
    trial_config_of,
)

__all__ = [
    "NOT_VALIDATION",
    "CandidateRuns",
    "EvaluationResults",
    "EvaluationRun",
    "median_run",
    "read_evaluations",
]


@dataclass(frozen=True)
class EvaluationRun:
    """One configuration trained from one seed.

    Attributes:
        study: the name of the evaluation's study.
        number: the trial's number there.
        seed: of the weights and of the order of the data.
        state: COMPLETE, PRUNED (diverged), FAIL, RUNNING or WAITING.
        validation: metrics of its best epoch on the validation split, by name (`val_accuracy`, …); empty of a refit.
        test: metrics of that epoch's weights on the test set, by name (`test_accuracy`, …); empty before the look.
        epochs: metrics of every epoch, in order.
        parameter_count, train_seconds: as a trial has them.
        file: where its predictions are, if they are here.
    """

    study: str
    number: int
    seed: int
    state: str
    validation: Mapping[str, float] = field(default_factory=dict)
    test: Mapping[str, float] = field(default_factory=dict)
    epochs: Sequence[EpochMetrics] = ()
    parameter_count: int | None = None
    train_seconds: float | None = None
    file: Path | None = None

    def predictions(self, split: str) -> Predictions | None:
        """Read those of classes for the split `validation` or `test`; None where they are not here."""
        return None if self.file is None else read_predictions(self.file, split)

    def label_predictions(self, split: str) -> LabelPredictions | None:
        """Read those of several labels for the split `validation` or `test`; None where they are not here."""
        return None if self.file is None else read_label_predictions(self.file, split)

    def target_predictions(self, split: str) -> TargetPredictions | None:
        """Read those of real numbers for the split `validation` or `test`; None where they are not here."""
        return None if self.file is None else read_target_predictions(self.file, split)

    def reconstructions(self, split: str) -> Reconstructions | None:
        """Read those of the split `validation` or `test`; None where they are not here, or the model has classes."""
        return None if self.file is None else read_reconstructions(self.file, split)

    def importance(self) -> FeatureImportance | None:
        """Read the permutation importance of a table's features; None where it is not here."""
        return None if self.file is None else read_importance(self.file)


@dataclass(frozen=True)
class CandidateRuns:
    """A configuration with its runs.

    Attributes:
        label: `trial 12`, `baseline`, `defaults`.
        trial: its number in the study; None of the default configuration.
        baseline: whether it is the rival.
        config: as its first run has it; its seed is of no meaning. None of an objective function.
        values: the parameters that have an effect, but for the seeds.
        study_score: the study's own value of the first objective, by which it was chosen; None on another data set,
            and of the default configuration.
        runs: by seed.
    """

    label: str
    trial: int | None
    baseline: bool
    config: TrialConfig | None
    values: Mapping[str, JsonValue]
    study_score: float | None
    runs: tuple[EvaluationRun, ...]

    @property
    def complete_runs(self) -> tuple[EvaluationRun, ...]:
        """The runs that are COMPLETE."""
        return tuple(run for run in self.runs if run.state == "COMPLETE")

    @property
    def failed_count(self) -> int:
        """Number of its runs that failed or diverged."""
        return sum(run.state in ("FAIL", "PRUNED") for run in self.runs)

    def scores(self, metric: str) -> dict[int, float]:
        """Return a metric by seed, of the runs that have it: `val_…` at the best epoch, `test_…` on the test set."""
        values = {run.seed: {**run.validation, **run.test}.get(metric) for run in self.complete_runs}
        return {seed: value for seed, value in values.items() if value is not None and math.isfinite(value)}


@dataclass(frozen=True)
class EvaluationResults:
    """The runs of all evaluations of one study on one data set.

    Attributes:
        studies: names of the evaluations' studies.
        dataset: the name of the data set.
        on_own_data: whether it is the study's own data set.
        refit: whether they trained on training and validation data together.
        objective: the first objective of the study that is evaluated, of those that data are needed to measure.
        candidates: the best of the study first, the rival last.
        remaining_runs: runs that are not finished.
        path: what `--dataset` takes for that data set.
        test_set_read_at: when its test set was first read; naive local time.
        function: the objective function that was called, as a label; empty where models were trained.
        data: the data set's reference: its task, and the names of its classes, labels or targets; None of a function.
        reference_models: models of scikit-learn on the same data; None where there are none.
    """

    studies: tuple[str, ...]
    dataset: str
    on_own_data: bool
    refit: bool
    objective: Objective
    candidates: tuple[CandidateRuns, ...]
    remaining_runs: int
    path: str = ""
    test_set_read_at: datetime | None = None
    function: str = ""
    data: DatasetReference | None = None
    reference_models: ReferenceModels | None = None

    @property
    def validation_metric(self) -> str | None:
        """The metric of the fresh-seed score, on validation data or by the function itself; None where there is
        none.
        """
        if self.function:
            return self.objective.metric
        return None if self.refit or test_metric(self.objective.metric) is None else self.objective.metric

    @property
    def test_metric(self) -> str | None:
        """The metric of the test score; None where the objective says nothing of data (as `parameter_count`)."""
        return None if self.function else test_metric(self.objective.metric)

    def name_output(self, number: int) -> str:
        """Return what a class, label or target is called: its number where the data set has no names."""
        names = () if self.data is None else self.data.output_names
        return one_line(names[number]) if number < len(names) else str(number)

    @cached_property
    def best(self) -> CandidateRuns | None:
        """The one with the best mean validation score from fresh seeds, for the test set is not to choose by.

        Without such scores it is the one that the study ranked first; None before any run is complete.
        """
        done = [each for each in self.candidates if each.complete_runs]
        sign = -1 if self.objective.direction == "maximize" else 1

        def mean(candidate: CandidateRuns) -> float:
            scores = candidate.scores(self.validation_metric) if self.validation_metric else {}
            return sign * sum(scores.values()) / len(scores) if scores else math.inf

        return min(done, key=mean, default=None)

    @property
    def rival(self) -> CandidateRuns | None:
        """The baseline, or the default configuration."""
        return next((each for each in self.candidates if each.baseline), None)


def median_run(evaluation: EvaluationResults, candidate: CandidateRuns) -> EvaluationRun | None:
    """Return a candidate's run with the median validation score, of those whose predictions are here.

    That is neither the luckiest seed nor the unluckiest.
    """
    with_predictions = [run for run in candidate.complete_runs if run.file is not None]
    scores = candidate.scores(evaluation.validation_metric) if evaluation.validation_metric else {}
    scored = sorted(
        (run for run in with_predictions if run.seed in scores), key=lambda run: (scores[run.seed], run.seed)
    )
    ordered = scored or with_predictions
    return ordered[(len(ordered) - 1) // 2] if ordered else None


def read_evaluations(study: Study) -> tuple[EvaluationResults, ...]:
    """Read all evaluations of a study: its own data first, and of those without a refit first.

    Evaluations of trials that the study does not have any more as they were, for it was deleted and made again, are
    left out.
    """
    merged: dict[tuple[bool, bool, str], EvaluationResults] = {}
    for companion in readable_evaluation_studies(study):
        evaluation = _read_evaluation(study, companion)
        key = (not evaluation.on_own_data, evaluation.refit, _content_key(companion.definition.dataset))
        merged[key] = _merge(merged[key], evaluation) if key in merged else evaluation
    contents: dict[str, set[str]] = {}
    for (*_, content), evaluation in merged.items():
        contents.setdefault(evaluation.dataset, set()).add(content)
    for key, evaluation in merged.items():
        if len(contents[evaluation.dataset]) > 1:  # files of one name and other content
            merged[key] = replace(evaluation, dataset=evaluation.path)
    return tuple(replace(merged[key], candidates=_order_candidates(study, merged[key])) for key in sorted(merged))


def _content_key(dataset: DatasetReference) -> str:
    """Return a key that is the same for the same data, wherever they lie and whatever their files are called."""
    return " ".join(sorted(dataset.sha256.values())) or dataset.name


def _read_evaluation(study: Study, companion: Study) -> EvaluationResults:
    evaluation = companion.definition.evaluation
    assert evaluation is not None
    data = companion.definition.dataset
    own = _content_key(data) == _content_key(study.definition.dataset)
    objectives = study.definition.objectives
    function = companion.definition.function
    tested = (i for i, objective in enumerate(objectives) if function is None and test_metric(objective.metric))
    place = next(tested, 0)
    study_scores = _values_at(study, place)
    runs = _read_runs(companion)
    candidates = tuple(
        CandidateRuns(
            each.label,
            each.trial,
            each.baseline,
            trial_config_of(companion.definition, each) if function is None else None,
            each.values,
            study_scores.get(each.trial) if own and each.trial is not None else None,
            tuple(sorted(runs.get(each.label, []), key=lambda run: run.seed)),
        )
        for each in evaluation.candidates
        if same_trial(study, each)
    )
    return EvaluationResults(
        (companion.name,),
        Path(data.name).name,
        own,
        evaluation.refit,
        objectives[place],
        candidates,
        companion.remaining(),
        data.spelled_inline,
        next(
            (
                _to_local_time(read.at)
                for read in list_test_set_reads(study)
                if read.by.rpartition(" ")[0] == companion.name
            ),
            None,
        ),
        "" if function is None else function.label,
        data,
        read_reference_models(companion),
    )


def _to_local_time(at: str) -> datetime:
    """Convert a moment in UTC to local time without a zone, as trials have theirs."""
    return datetime.fromisoformat(at).astimezone().replace(tzinfo=None)


def _values_at(study: Study, place: int) -> dict[int, float]:
    """Return the value of the objective at that place of each trial that has one, by number."""
    return {t.number: t.values[place] for t in study.trials() if t.values and place < len(t.values)}


def _test_metrics(attrs: Mapping[str, Any]) -> dict[str, float]:
    found = {name: read_number(attrs, name) for name in attrs if name.startswith("test_")}
    return {name: value for name, value in found.items() if value is not None}


def _read_runs(companion: Study) -> dict[str, list[EvaluationRun]]:
    epochs = companion.storage.read_epochs(companion.id)
    metrics = [] if companion.definition.configured else [each.metric for each in companion.definition.objectives]
    runs: dict[str, list[EvaluationRun]] = {}
    for trial in companion.trials():
        params = {**read_table(trial.system_attrs, FIXED), **trial.params}
        seed = read_whole(params, "seed")
        if seed is None or "configuration" not in params:
            continue  # it was added by others
        rows, attrs = epochs.get(trial._trial_id, []), trial.user_attrs
        best = next((row for row in rows if row.get("epoch") == attrs.get("best_epoch")), {})
        if read_origin(attrs) == "returned":
            best = {**best, **_read_values(companion, trial)}
        run = EvaluationRun(
            companion.name,
            trial.number,
            seed,
            trial.state.name,
            # An objective function's score is what it returns, and it knows on which data.
            dict(zip(metrics, trial.values or (), strict=False))
            or {name: value for name, value in best.items() if name not in NOT_VALIDATION},
            _test_metrics(attrs),
            rows,
            read_whole(attrs, "parameter_count"),
            read_number(attrs, "train_seconds"),
            find_artifact(companion, "predictions.npz", trial.system_attrs),
        )
        runs.setdefault(str(params["configuration"]), []).append(run)
    return runs


def _read_values(companion: Study, trial: FrozenTrial) -> dict[str, float]:
    """Return the values of a trial by metric."""
    metrics = (objective.metric for objective in companion.definition.objectives)
    return dict(zip(metrics, trial.values or (), strict=False))


NOT_VALIDATION = {"epoch", "train_loss", "train_accuracy", "learning_rate", "seconds"}


def _merge(one: EvaluationResults, other: EvaluationResults) -> EvaluationResults:
    """Merge two evaluations on the same data; of a configuration that both have, the runs of both."""
    candidates = {_identity(each): each for each in one.candidates}
    for each in other.candidates:
        known = candidates.get(_identity(each))
        if known is None:
            candidates[_identity(each)] = each
        else:
            seeds = {run.seed for run in known.runs}
            more = (run for run in each.runs if run.seed not in seeds)
            runs = tuple(sorted([*known.runs, *more], key=lambda run: run.seed))
            candidates[_identity(each)] = replace(known, runs=runs, baseline=known.baseline or each.baseline)
    return replace(
        one,
        studies=one.studies + other.studies,
        candidates=tuple(candidates.values()),
        remaining_runs=one.remaining_runs + other.remaining_runs,
        reference_models=one.reference_models or other.reference_models,
        test_set_read_at=min(
            (each.test_set_read_at for each in (one, other) if each.test_set_read_at is not None), default=None
        ),
    )


def _identity(candidate: CandidateRuns) -> tuple[object, ...]:
    return candidate.trial, json.dumps(dict(candidate.values), sort_keys=True)


def _order_candidates(study: Study, evaluation: EvaluationResults) -> tuple[CandidateRuns, ...]:
    """Sort the best of the study first, the rival last unless it is the best itself."""
    place = study.definition.objectives.index(evaluation.objective)
    sign = -1 if evaluation.objective.direction == "maximize" else 1
    values = {number: sign * value for number, value in _values_at(study, place).items()}

    def value(each: CandidateRuns) -> float:
        return math.inf if each.trial is None else values.get(each.trial, math.inf)

    ranked = sorted(evaluation.candidates, key=lambda each: (value(each), -1 if each.trial is None else each.trial))
    return tuple(sorted(ranked, key=lambda each: each.baseline and each is not ranked[0]))
