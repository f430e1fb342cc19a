"""Evaluations of a study: the configurations that were retrained, and how each run ended.

A study's evaluations are studies of their own (see `hpo.study.operations.evaluation_study`); several that are on the
same data, and both refit or both not, are one here: a configuration that has been run once is not run again.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path

from pydantic import JsonValue

from hpo.config.trial_config import TrialConfig
from hpo.datasets import DatasetReference
from hpo.errors import RequestError
from hpo.report.data.evaluation_runs import EvaluationRun, read_runs
from hpo.report.data.reference_models import ReferenceModels, read_reference_models
from hpo.report.format import one_line
from hpo.study import Objective, Study
from hpo.study.definition import Candidate, Definition, Source, test_metric
from hpo.study.operations.candidates import same_trial, trial_config_of
from hpo.study.operations.evaluation_study import list_test_set_reads, readable_evaluation_studies

__all__ = [
    "CandidateRuns",
    "EvaluationResults",
    "EvaluationRun",
    "median_run",
    "read_comparisons",
    "read_evaluations",
    "shared_means",
]

ENDED = ("COMPLETE", "PRUNED", "FAIL")  # states of a run that will not be run again


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
        vary: what follows the fresh seed, while the rest is as it was in the study.
        compare: the name of another study, whose configuration is the rival; or empty.
        varied: the same configurations with other sources of chance varied, by source.
        split: what validates, in words.
        divided: whether the study's own scores are of folds, or of random splits, which an evaluation has not.
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
    vary: Source = "seed"
    compare: str = ""
    varied: Mapping[Source, EvaluationResults] = field(default_factory=dict)
    split: str = "the split of the study"
    divided: bool = False

    @property
    def all_studies(self) -> tuple[str, ...]:
        """Names of the evaluations' studies, with those that vary other sources of chance."""
        return self.studies + tuple(name for each in self.varied.values() for name in each.studies)

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

        See `shared_means`. Without such scores it is the one that the study ranked first; None before any run is
        complete.
        """
        done = [each for each in self.candidates if each.complete_runs]
        sign = -1 if self.objective.direction == "maximize" else 1
        means = shared_means(self.candidates, self.validation_metric) if self.validation_metric else {}
        return min(done, key=lambda each: sign * means[each.label] if each.label in means else math.inf, default=None)

    @property
    def rival(self) -> CandidateRuns | None:
        """The baseline, or the default configuration."""
        return next((each for each in self.candidates if each.baseline), None)


def shared_means(candidates: Sequence[CandidateRuns], metric: str) -> dict[str, float]:
    """Return the mean of each candidate over the seeds that all have been run from, by its label, if it has scores.

    An evaluation that was interrupted has more seeds of some than of others. A run that failed has been run, and takes
    no seed from the others. Where no seed is shared, each one's own count.
    """
    known = {each.label: found for each in candidates if (found := each.scores(metric))}
    ended = [{run.seed for run in each.runs if run.state in ENDED} for each in candidates if each.label in known]
    shared = set.intersection(*ended) if ended else set()
    own = {label: [score for seed, score in found.items() if seed in shared] for label, found in known.items()}
    return {label: statistics.fmean(own[label] or found.values()) for label, found in known.items()}


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
    left out. Those that vary other sources of chance than the seed of training belong to the one on the same data.
    """
    found = _read_merged(study, compare=False)
    varied: dict[tuple[object, ...], dict[Source, EvaluationResults]] = {}
    for key, evaluation in found:
        varied.setdefault(key[:3], {})[evaluation.vary] = evaluation
    for others in varied.values():
        others.pop("seed", None)
    return tuple(replace(each, varied=varied[key[:3]]) for key, each in found if each.vary == "seed")


def read_comparisons(study: Study) -> tuple[EvaluationResults, ...]:
    """Read the comparisons of a study with others: two configurations each, that of the other study last."""
    return tuple(each for _, each in _read_merged(study, compare=True))


def _read_merged(study: Study, *, compare: bool) -> list[tuple[_Key, EvaluationResults]]:
    """Read evaluations, those of one kind on the same data merged; in the order of their keys, then of their names.

    Comparisons are merged only where both studies had chosen the same: scores of other choices are of another question.
    """
    merged: dict[_Key, EvaluationResults] = {}
    for companion in readable_evaluation_studies(study):
        definition = companion.definition
        assert definition.evaluation is not None
        if bool(definition.evaluation.compare) != compare:
            continue
        each = _read_evaluation(study, companion)
        chosen = json.dumps([_identity(one) for one in each.candidates]) if compare else ""
        content = definition.dataset.content_key
        key: _Key = (not each.on_own_data, each.refit, content, each.vary, each.compare, chosen)
        merged[key] = _merge(merged[key], each) if key in merged else each
    contents: dict[str, set[str]] = {}
    for (_, _, content, *_), evaluation in merged.items():
        contents.setdefault(evaluation.dataset, set()).add(content)
    for key, evaluation in merged.items():
        if len(contents[evaluation.dataset]) > 1:  # files of one name and other content
            merged[key] = replace(evaluation, dataset=evaluation.path)
    ordered = sorted(merged, key=lambda key: key[:5])
    return [(key, replace(merged[key], candidates=_order_candidates(study, merged[key]))) for key in ordered]


_Key = tuple[bool, bool, str, Source, str, str]  # of evaluations that are merged


def _read_evaluation(study: Study, companion: Study) -> EvaluationResults:
    evaluation = companion.definition.evaluation
    assert evaluation is not None
    data = companion.definition.dataset
    own = data.content_key == study.definition.dataset.content_key
    objectives = study.definition.objectives
    function = companion.definition.function
    tested = (i for i, objective in enumerate(objectives) if function is None and test_metric(objective.metric))
    place = next(tested, 0)
    study_scores = _values_at(study, place)
    runs = read_runs(companion)
    candidates = tuple(
        CandidateRuns(
            each.label,
            each.trial,
            each.baseline,
            trial_config_of(companion.definition, each) if function is None else None,
            each.values,
            _study_score(study, each, objectives[place], study_scores) if own else None,
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
        evaluation.vary,
        evaluation.compare,
        split=_describe_split(study.definition),
        divided=study.definition.fits[0].division is not None or not study.definition.shares_validation,
    )


def _describe_split(definition: Definition) -> str:
    """Say what validates in an evaluation of a study."""
    if (division := definition.fits[0].division) is not None:
        several = "folds" if division.kind == "fold" else "random splits"
        return f"one validation split (not the {several} of the study)"
    return (
        "the split of the study" if definition.shares_validation else "one validation split (not those of the trials)"
    )


def _study_score(study: Study, candidate: Candidate, objective: Objective, own: Mapping[int, float]) -> float | None:
    """Return the score by which its study chose a configuration; None of the defaults, and of a study that is gone."""
    if candidate.trial is None:
        return None
    if not candidate.study:
        return own.get(candidate.trial)
    with suppress(RequestError):  # it was deleted, or is damaged
        other = Study(study.storage, candidate.study)
        metrics = [each.metric for each in other.definition.objectives]
        if objective.metric in metrics:
            return _values_at(other, metrics.index(objective.metric)).get(candidate.trial)
    return None


def _to_local_time(at: str) -> datetime:
    """Convert a moment in UTC to local time without a zone, as trials have theirs."""
    return datetime.fromisoformat(at).astimezone().replace(tzinfo=None)


def _values_at(study: Study, place: int) -> dict[int, float]:
    """Return the value of the objective at that place of each trial that has one, by number."""
    return {t.number: t.values[place] for t in study.trials() if t.values and place < len(t.values)}


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
    if evaluation.compare:
        return evaluation.candidates
    place = study.definition.objectives.index(evaluation.objective)
    sign = -1 if evaluation.objective.direction == "maximize" else 1
    values = {number: sign * value for number, value in _values_at(study, place).items()}

    def value(each: CandidateRuns) -> float:
        return math.inf if each.trial is None else values.get(each.trial, math.inf)

    ranked = sorted(evaluation.candidates, key=lambda each: (value(each), -1 if each.trial is None else each.trial))
    return tuple(sorted(ranked, key=lambda each: each.baseline and each is not ranked[0]))
