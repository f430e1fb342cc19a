"""Nested evaluations of a study: what was chosen on the training part of each outer fold, and its score on the fold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hpo.config.parameter import Value
from hpo.datasets import OuterFold
from hpo.report.data.evaluations import CandidateRuns, read_evaluations
from hpo.report.data.results import TrialRow
from hpo.space import Space
from hpo.study import Objective, Study
from hpo.study.definition import Definition, test_metric
from hpo.study.operations.nested_study import present_outer_studies

__all__ = ["NestedResults", "OuterResult", "read_nested", "refits"]


@dataclass(frozen=True)
class OuterResult:
    """An outer fold with what its study has chosen.

    Attributes:
        fold: the fold.
        study: the name of its study.
        remaining: its trials and its runs on the fold that are not finished.
        chosen: the number of the trial that its study has chosen; None without a complete one.
        settings: of that trial, the parameters that the study varies and that have an effect.
        claimed: the score by which it was chosen, on validation data.
        scores: of the chosen configuration on the fold, by seed.
        rival_scores: of the baseline, or else of the default configuration, by seed.
        lost: runs of the chosen configuration that failed or diverged.
    """

    fold: OuterFold
    study: str
    remaining: int
    chosen: int | None = None
    settings: Mapping[str, Value] | None = None
    claimed: float | None = None
    scores: Mapping[int, float] | None = None
    rival_scores: Mapping[int, float] | None = None
    lost: int = 0


@dataclass(frozen=True)
class NestedResults:
    """The outer folds of one division.

    Attributes:
        of: the name of the study that is nested.
        dataset: the name of its data set.
        objective: its objective.
        space: its space.
        count: the number of folds of the division.
        folds: those that have a study, in order.
        rival: what the chosen configurations are compared with: `baseline` or `defaults`.
        refit: whether they were trained on the whole training part, for a fixed number of epochs; otherwise the weights
            of the best epoch are tested.
    """

    of: str
    dataset: str
    objective: Objective
    space: Space
    count: int
    folds: tuple[OuterResult, ...]
    rival: str
    refit: bool

    @property
    def test_metric(self) -> str:
        """The metric of the scores on the folds."""
        return test_metric(self.objective.metric) or self.objective.metric

    @property
    def remaining(self) -> int:
        """Trials and runs that are not finished, of the folds that have a study."""
        return sum(each.remaining for each in self.folds)


def refits(definition: Definition) -> bool:
    """Tell whether a configuration is trained again on the whole training part of an outer fold.

    A training loop of the user's own chooses its data itself.
    """
    return not any(definition.declarations.get(name).loop for name in definition.space.models)


def read_nested(study: Study, choose: Callable[[Study], TrialRow | None]) -> tuple[NestedResults, ...]:
    """Read all nested evaluations of a study, those of the fewest folds first.

    Args:
        study: the study that is nested.
        choose: returns the trial that the study of an outer fold has chosen; None without a complete one.
    """
    divisions: dict[tuple[int, int, str], list[OuterResult]] = {}
    for fold, outer in present_outer_studies(study):
        result = _read_outer(fold, outer, choose(outer))
        divisions.setdefault((fold.count, fold.seed, fold.by or ""), []).append(result)
    definition = study.definition
    return tuple(
        NestedResults(
            study.name,
            Path(definition.dataset.name).name,
            definition.objectives[0],
            study.space,
            division[0],
            tuple(sorted(divisions[division], key=lambda each: each.fold.index)),
            "defaults" if definition.baseline is None else "baseline",
            refits(definition),
        )
        for division in sorted(divisions)
    )


def _read_outer(fold: OuterFold, outer: Study, row: TrialRow | None) -> OuterResult:
    evaluations = [each for each in read_evaluations(outer) if each.refit == refits(outer.definition)]
    runs = sum(each.remaining_runs for each in evaluations)
    left = runs if evaluations and outer.stop_reason() else outer.remaining() + runs
    if row is None:
        return OuterResult(fold, outer.name, left)
    candidates = [candidate for each in evaluations for candidate in each.candidates]
    chosen = next((each for each in candidates if each.trial == row.number), None)
    rival = next((each for each in candidates if each.baseline), None)
    metric = test_metric(outer.definition.objectives[0].metric) or ""
    return OuterResult(
        fold,
        outer.name,
        left,
        row.number,
        _read_settings(outer, row),
        row.value,
        _read_scores(chosen, metric),
        _read_scores(rival, metric),
        0 if chosen is None else chosen.failed_count,
    )


def _read_scores(candidate: CandidateRuns | None, metric: str) -> Mapping[int, float]:
    return {} if candidate is None else candidate.scores(metric)


def _read_settings(outer: Study, row: TrialRow) -> Mapping[str, Value]:
    """Return the varied parameters of a trial that have an effect, and those that its training loop asked for."""
    space = outer.space
    effective = {} if row.config is None else row.config.effective(space.domains)
    varied = dict.fromkeys(dimension.parameter.name for dimension in space.varied)
    known = {dimension.key for dimension in space.dimensions}
    asked = {name: value for name, value in row.params.items() if name not in known}
    return {**{name: effective[name] for name in varied if name in effective}, **asked}
