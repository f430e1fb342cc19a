"""Nested evaluation: a study launched anew on the training part of each outer fold, and its choice tested on the fold.

So the score is of all that the study does, choosing included, on samples that none of it has seen.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hpo.config import registry
from hpo.datasets import OuterFold, list_outer_folds, load
from hpo.errors import RequestError, RunError
from hpo.execution.data_check import check_divisions
from hpo.execution.evaluate import check_results, publish_evaluations
from hpo.report.data.nested import refits
from hpo.report.stats.nested_score import NestedScore, choose_outer, read_scores
from hpo.study import Study
from hpo.study.definition import Definition, test_metric
from hpo.study.input.compatibility import check_compatible
from hpo.study.operations.evaluation_study import create_evaluations, evaluation_studies
from hpo.study.operations.nested_study import count_trials, create_outer_study
from hpo.study.operations.progress import explain_no_result

__all__ = [
    "OuterPlan",
    "check_nestable",
    "check_nested",
    "evaluate_nested",
    "list_caveats",
    "list_nested",
    "plan_outer_folds",
    "read_score",
    "refuse_other_options",
    "run_nested",
]

log = logging.getLogger("hpo.study")
Run = Callable[[Study], object]


def refuse_other_options(**given: object) -> None:
    """Refuse the options of an evaluation that a nested one does not have.

    Args:
        given: by option, what was given; nothing is None, False or empty.

    Raises:
        RequestError: names the option, and says why.
    """
    reasons = {
        "compare": "nest each of the two studies by itself; leave --compare out",
        "dataset": "the outer folds are of the study's own data; launch a study on the other data, and nest that",
        "datasets": "the outer folds are of the study's own data; launch a study on each data set, and nest those",
        "inside": "each outer fold has another best model; leave --inside out",
        "objective": "is for studies of models, which call no objective function; leave --objective out",
        "top": "of each outer fold the one configuration is tested that its study chooses; leave --top out",
        "vary": "each fold has another training part, seed and order already; leave --vary out",
    }
    for name, value in given.items():
        if value:
            raise RequestError(f"evaluate --outer-folds with --{name}: {reasons[name]}")


def check_nestable(study: Study) -> None:
    """Refuse a study that cannot be launched anew on a part of its data, or whose choice cannot be tested.

    Raises:
        RequestError: it is part of an evaluation, calls an objective function, has several objectives, or no test
            score; or its training loop reads its own data.
        StudyForeignError: another tool made it.
    """
    what = "evaluate --outer-folds"
    definition = study.definition
    if definition.companion_of is not None:
        part = "an evaluation itself" if definition.evaluation else "a part of a nested evaluation itself"
        raise RequestError(f"{what}: '{study.name}' is {part}; nest the study '{definition.companion_of}'")
    study.check_configured(what)
    if len(definition.objectives) > 1:
        names = ", ".join(objective.metric for objective in definition.objectives)
        raise RequestError(
            f"{what}: study '{study.name}' has several objectives ({names}), so it chooses no single configuration; "
            "nest a study of one of them"
        )
    metric = definition.objectives[0].metric
    if test_metric(metric) is None:
        raise RequestError(f"{what}: the objective of study '{study.name}', {metric}, is not measured on test data")
    if definition.dataset.name == registry.NO_DATA:
        raise RequestError(
            f"{what}: the training loop of study '{study.name}' reads its own data, which cannot be divided here; "
            "register them with @hpo.dataset, name them in the study file, and let the loop take them from trial.data"
        )


def list_caveats(study: Study) -> list[str]:
    """List, a line each, what makes the score of a nested evaluation better than it should be."""
    origin = study.definition.warm_from
    if origin is None:
        return []
    return [
        f"study '{study.name}' begins with the best trials of '{origin.study}'; if that was run on the same data, the "
        "outer folds are no new samples to it, and the score is optimistic"
    ]


def plan_outer_folds(study: Study, count: int) -> tuple[OuterFold, ...]:
    """Return the outer folds of a study's data; they are by time where its samples have times, else by group.

    Raises:
        RequestError: the study cannot be nested; see `check_nestable`.
        DataError: its data cannot be divided so; or a configuration does not fit what remains.
    """
    check_nestable(study)
    definition = study.definition
    by = None if definition.resampling is None else definition.resampling.by
    folds = list_outer_folds(load(definition.dataset), count, definition.seed, by, definition.dataset.name)
    smallest = definition.dataset.without(min(folds, key=lambda fold: fold.training))
    try:
        study.space.check(lambda config: check_compatible(config, smallest))
    except RequestError as error:
        assert smallest.outer is not None
        raise type(error)(f"evaluate --outer-folds: without {smallest.outer.name}, {error}") from error
    if definition.resampling is not None:
        for fold in folds:
            _check_inner_folds(definition, fold)
    return folds


def _check_inner_folds(definition: Definition, fold: OuterFold) -> None:
    """Refuse an outer fold without which the study's own folds cannot be made."""
    rest = definition.dataset.without(fold)
    assert rest.outer is not None
    try:
        check_divisions(definition, load(rest))
    except RequestError as error:
        raise type(error)(f"evaluate --outer-folds: without {rest.outer.name}, {error}") from error


@dataclass(frozen=True)
class OuterPlan:
    """Plan of an outer fold.

    Attributes:
        study: the name of its study.
        train, test: number of samples in its training part, and in the fold.
        trials: trials to train.
        exist: trials that are finished.
    """

    study: str
    train: int
    test: int
    trials: int
    exist: int


def list_nested(study: Study, count: int) -> list[OuterPlan]:
    """List what a nested evaluation would train; nothing is created.

    Raises:
        RequestError, DataError: as `plan_outer_folds`.
    """
    folds = plan_outer_folds(study, count)
    return [
        OuterPlan(name, fold.training, fold.testing, trials, exist)
        for fold, (name, trials, exist) in zip(folds, count_trials(study, folds), strict=True)
    ]


def run_nested(studies: Sequence[Study], seeds: int, run: Run, should_stop: Callable[[], bool] = lambda: False) -> None:
    """Run the studies of outer folds one after the other, each followed by the test of what it has chosen.

    What is finished is not run again. A study without a result does not keep the others from running.

    Args:
        studies: as `create_outer_study` returns them.
        seeds: number of seeds that each chosen configuration is trained from.
        run: runs a study until no trial is left, or until it is stopped.
        should_stop: true ends it after the study at hand.
    """
    for outer in studies:
        if should_stop():
            return
        if outer.remaining() and not _has_ended(outer):
            run(outer)
        if should_stop():
            return
        chosen = choose_outer(outer)
        if chosen is None or chosen.config is None:
            continue  # `check_nested` says why
        candidates = [(chosen.number, chosen.config, chosen.best_epoch)]
        for evaluation in create_evaluations(outer, candidates, seeds, refit=refits(outer.definition)):
            if evaluation.remaining() and not should_stop():
                run(evaluation)


def _has_ended(outer: Study) -> bool:
    """Tell whether a study has ended before its budget was used up, and been tested: then it goes on no more."""
    return outer.stop_reason() is not None and bool(evaluation_studies(outer))


def check_nested(studies: Sequence[Study], nested: NestedScore) -> None:
    """Refuse to call a nested evaluation a success in which an outer fold has no score.

    Raises:
        RunError: one has none; the line has the most frequent reason.
    """
    lines = [line for outer in studies if (line := explain_no_result(outer)) is not None]
    if lines:
        raise RunError("; ".join(lines))
    check_results([evaluation for outer in studies for evaluation in evaluation_studies(outer)])
    lost = [fold for fold in nested.folds if fold.fold in nested.lost and fold.score is None]
    if lost:
        where = "; ".join(f"trial {fold.trial} of {fold.study}" for fold in lost)
        raise RunError(f"what was chosen failed or diverged as it was trained again to be tested: {where}")


def read_score(study: Study, count: int) -> NestedScore:
    """Return the score of the nested evaluation of so many outer folds, whose studies are there."""
    return next(each for each in read_scores(study) if each.count == count)


def evaluate_nested(study: Study, count: int, seeds: int, run: Run | None) -> NestedScore:
    """Nest a study in outer folds, run what is missing, and return its score.

    Args:
        study: the study.
        count: the number of outer folds.
        seeds: number of seeds that each chosen configuration is trained from.
        run: runs a study until no trial is left; None only creates the studies of the outer folds.

    Raises:
        RequestError, DataError: as `plan_outer_folds`.
        RunError: an outer fold has no score.
    """
    folds = plan_outer_folds(study, count)
    for caveat in list_caveats(study):
        log.warning("%s", caveat)
    studies = [create_outer_study(study, fold) for fold in folds]
    if run is not None:
        run_nested(studies, seeds, run)
        publish_evaluations(study)
    nested = read_score(study, count)
    if run is not None:
        check_nested(studies, nested)
    return nested
