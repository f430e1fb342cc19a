"""Evaluations: a study's best configurations trained again from fresh seeds, and a record of each read of the test set.

An evaluation is a study of its own, a grid of `seed` and `configuration`, in the same storage. So leases, resuming,
cohorts and the dashboard work for it. Its definition says what it evaluates. The data is split as in the study, so that
a configuration's score from fresh seeds can be compared with the score by which it was chosen.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from optuna.trial import FrozenTrial

from hpo.config.parameter import Value
from hpo.config.trial_config import TrialConfig
from hpo.datasets import DatasetReference
from hpo.errors import RequestError, StudyConflictError, StudyDamagedError
from hpo.study.attributes import DEFINITION, TRIAL_SEED, read_table, read_whole
from hpo.study.definition import (
    Budget,
    Candidate,
    ComponentSpec,
    Definition,
    Evaluation,
    FunctionReference,
    Objective,
    test_metric,
)
from hpo.study.input.compatibility import check_compatible
from hpo.study.input.study_file import check_name
from hpo.study.study import Study
from hpo.utils.paths import fit_name

__all__ = [
    "REFERENCE",
    "TestSetRead",
    "baseline_or_default",
    "count_runs",
    "create_evaluations",
    "create_function_evaluations",
    "evaluation_studies",
    "list_candidates",
    "list_function_candidates",
    "list_test_set_reads",
    "parameter_values_of",
    "readable_evaluation_studies",
    "record_test_set_read",
    "same_trial",
    "trial_config_of",
]

log = logging.getLogger("hpo.study")
REFERENCE = "reference"  # who reads a test set for reference models
TEST_SET_READ = "hpo:look:"
SEEDS = ("seed", "split_seed")
REFIT_VALUES = ("validation", "epochs", "patience")  # that a refit changes
NO_NAME = r"[^\w .+@=,-]"  # a character that no study's name has
LONGEST_STEM = 40  # characters of a data set's name in an evaluation's
MAX_SEEDS = 1000  # of an evaluation


def trial_config_of(definition: Definition, candidate: Candidate) -> TrialConfig:
    """Return the configuration of a candidate of a study or its evaluation, with the default seed."""
    return TrialConfig.of(cast(dict[str, Value], candidate.values), definition.declarations)


def evaluation_studies(study: Study) -> list[Study]:
    """Return the evaluations of a study in its storage, ordered by name; also those whose definition is damaged."""
    names = [
        summary.study_name
        for summary in study.storage.get_all_studies()
        if read_table(read_table(summary.user_attrs, DEFINITION), "evaluation").get("of") == study.name
    ]
    return [Study(study.storage, name) for name in sorted(names) if name != study.name]


def readable_evaluation_studies(study: Study) -> list[Study]:
    """Return the evaluations of a study, ordered by name, without those that are damaged, which is logged."""
    return [evaluation for evaluation in evaluation_studies(study) if _is_readable(evaluation)]


def _is_readable(evaluation: Study) -> bool:
    try:
        return bool(evaluation.space and evaluation.budget)
    except StudyDamagedError as error:
        log.warning("left out: %s", error)
        return False


def same_trial(study: Study, candidate: Candidate) -> bool:
    """Tell whether the study's trial of the candidate's number is still the one that was evaluated."""
    if candidate.trial is None:
        return True
    trial = next((trial for trial in study.trials() if trial.number == candidate.trial), None)
    if trial is None:
        return False
    if not study.definition.configured:
        return trial.params == candidate.values
    try:
        current = parameter_values_of(study.config_of(trial), refit=None)
    except RequestError:
        return False
    expected = {name: value for name, value in candidate.values.items() if name not in REFIT_VALUES}
    return study.asked_params(trial) == candidate.asked and all(
        current.get(name) == value for name, value in expected.items()
    )


def parameter_values_of(config: TrialConfig, refit: int | None) -> dict[str, Value]:
    """Return the values of a candidate: those that have an effect, except the seed, and the split of the data.

    Args:
        config: the trial's configuration.
        refit: epochs of training on training and validation data together; None to keep the split.
    """
    values = {name: value for name, value in config.effective().items() if name not in SEEDS}
    if refit is None:
        return {**values, "split_seed": config.seed_of_split}
    return {**values, "validation": 0.0, "epochs": refit, "patience": 0}


def baseline_or_default(study: Study) -> tuple[str, TrialConfig, int | None]:
    """Return label, configuration and trial of what the best is compared with: the baseline, or else the defaults."""
    definition = study.definition
    config = definition.baseline_config(study.space)
    return ("defaults", config, None) if definition.baseline is None else ("baseline", config, 0)


# Creation.


def create_evaluations(
    study: Study,
    chosen: Sequence[tuple[int, TrialConfig, int | None]],
    seeds: int,
    dataset: DatasetReference | None = None,
    *,
    refit: bool = False,
) -> list[Study]:
    """Create or extend the evaluations of some configurations and of the baseline, and return them.

    Nothing is run twice: a configuration that an evaluation already has stays there.

    Args:
        study: the study that is evaluated.
        chosen: number, configuration and best epoch of its trials to train again, the best first.
        seeds: the number of seeds, none of which the study has used.
        dataset: another data set than the study's.
        refit: train on training and validation data, for as many epochs as the trial's best epoch; if the schedule
            decays over all epochs, or that epoch is not known, for all of them.

    Raises:
        RequestError: a configuration does not fit the data set, or the name would be too long.
    """
    data = dataset or study.definition.dataset
    candidates = list_candidates(study, chosen, data, refit=refit)
    kind = _evaluation_kind(study, dataset, refit=refit)
    return _extend_or_create(study, kind, _Plan(data, candidates, seeds, refit))


def create_function_evaluations(
    study: Study, chosen: Sequence[FrozenTrial], seeds: int, function: FunctionReference
) -> list[Study]:
    """Create or extend the evaluations of some trials of an objective function, and return them.

    Args:
        study: the study that is evaluated.
        chosen: the trials whose parameters the function is called with again, the best first.
        seeds: the number of seeds, none of which the study has used.
        function: the objective function.
    """
    plan = _Plan(study.definition.dataset, list_function_candidates(chosen), seeds, function=function)
    return _extend_or_create(study, "-evaluation", plan)


def list_function_candidates(chosen: Sequence[FrozenTrial]) -> list[Candidate]:
    """List the candidates that some trials of an objective function are in an evaluation."""
    return [
        Candidate(label=f"trial {trial.number}", trial=trial.number, baseline=False, values=trial.params)
        for trial in chosen
    ]


@dataclass(frozen=True)
class _Plan:
    """Plan of the evaluations of one study on one data set, all that a new one needs."""

    data: DatasetReference
    candidates: Sequence[Candidate]
    seeds: int
    refit: bool = False
    function: FunctionReference | None = None


def _extend_or_create(study: Study, kind: str, plan: _Plan) -> list[Study]:
    """Extend the evaluations that have some of the candidates, and create one for the others."""
    pending, data, refit = list(plan.candidates), plan.data, plan.refit
    evaluations: list[Study] = []
    for evaluation in readable_evaluation_studies(study):
        definition = evaluation.definition
        assert definition.evaluation is not None
        same = definition.dataset == data and definition.evaluation.refit == refit
        present = [each for each in pending if any(_equal(each, other) for other in definition.evaluation.candidates)]
        if same and present:
            _extend(evaluation, plan.seeds)
            evaluations.append(evaluation)
            pending = [each for each in pending if each not in present]
    if pending:
        evaluations.append(_create(study, kind, replace(plan, candidates=pending)))
    return evaluations


def list_candidates(
    study: Study, chosen: Sequence[tuple[int, TrialConfig, int | None]], data: DatasetReference, *, refit: bool
) -> list[Candidate]:
    """List the configurations that an evaluation trains; see `create_evaluations`.

    Raises:
        RequestError: one does not fit the data set.
    """
    candidates = list(_make_candidates(study, chosen, refit=refit))
    for each in candidates:
        try:
            check_compatible(trial_config_of(study.definition, each), data)
        except RequestError as error:
            raise type(error)(f"evaluate: {each.label} does not fit {data.name}: {error}") from error
    return candidates


def count_runs(study: Study, candidate: Candidate, data: DatasetReference, *, refit: bool) -> int:
    """Count the runs of a configuration in the evaluation that has it, trained or not; 0 if none has."""
    for evaluation in readable_evaluation_studies(study):
        definition = evaluation.definition
        assert definition.evaluation is not None
        candidates = definition.evaluation.candidates
        same = definition.dataset == data and definition.evaluation.refit == refit
        if same and any(_equal(candidate, other) for other in candidates):
            return evaluation.budget.trials // len(candidates)
    return 0


def _equal(one: Candidate, other: Candidate) -> bool:
    return (one.trial, one.values, one.asked) == (other.trial, other.values, other.asked)


def _make_candidates(
    study: Study, chosen: Sequence[tuple[int, TrialConfig, int | None]], *, refit: bool
) -> Iterator[Candidate]:
    label, rival, number = baseline_or_default(study)
    asked = {trial.number: study.asked_params(trial) for trial in study.trials()}
    includes_rival = any(each[0] == number for each in chosen)
    # What a training loop asks for itself has no defaults.
    no_rival = number is None and any(asked.values())
    equal = (trial for trial, config, _ in chosen if number is None and config.effective() == rival.effective())
    same = number if no_rival else next(equal, number)  # the trial that is the rival
    for trial, config, epoch in chosen:
        values = parameter_values_of(config, _refit_epochs(config, epoch) if refit else None)
        name = f"trial {trial}" if trial != number else label
        yield Candidate(label=name, trial=trial, baseline=trial == same, values=values, asked=asked[trial])
    if not includes_rival and not no_rival and same == number:
        epoch = _best_epoch(study, number)
        values = parameter_values_of(rival, _refit_epochs(rival, epoch) if refit else None)
        asked_of_rival = {} if number is None else asked[number]
        yield Candidate(label=label, trial=number, baseline=True, values=values, asked=asked_of_rival)


def _best_epoch(study: Study, number: int | None) -> int | None:
    trial = next((trial for trial in study.trials() if trial.number == number), None)
    return read_whole(trial.user_attrs, "best_epoch") if trial is not None else None


def _refit_epochs(config: TrialConfig, best: int | None) -> int:
    """Return the epochs of a refit: a schedule that decays or warms up keeps the length that it was tuned with."""
    scheduled = config.schedule != "constant" or bool(config.warmup)
    return config.epochs if scheduled or best is None else best


def _evaluation_kind(study: Study, dataset: DatasetReference | None, *, refit: bool) -> str:
    """Return what an evaluation's name says after its study's."""
    kind = "-evaluation-refit" if refit else "-evaluation"
    if dataset is None or dataset == study.definition.dataset:
        return kind
    return f"{kind}-{re.sub(NO_NAME, '_', Path(dataset.name).stem)[:LONGEST_STEM]}"


def _create(study: Study, kind: str, plan: _Plan) -> Study:
    """Create an evaluation under the first name that is free."""
    original, candidates, seeds = study.definition, plan.candidates, plan.seeds
    objectives = original.objectives
    if plan.refit:
        objectives = tuple(_test_objective(objective) for objective in objectives)
    definition = Definition(
        dataset=plan.data,
        objectives=objectives,
        sampler=ComponentSpec(name="grid"),
        pruner=ComponentSpec(name="none"),
        seed=original.seed,
        parameters={
            "seed": _seed_range(_first_fresh_seed(study), seeds),
            "configuration": {"choices": [each.label for each in candidates]},
        },
        modules=original.modules,
        declarations=original.declarations,
        evaluation=Evaluation(of=study.name, candidates=tuple(candidates), metrics=original.metrics, refit=plan.refit),
        function=plan.function,
    )
    for number in range(1, 100):
        name = check_name(fit_name(study.name, kind if number == 1 else f"{kind}-{number}"), room=0)
        try:
            budget = Budget(trials=seeds * len(candidates), trial_timeout=study.budget.trial_timeout)
            return Study.create(study.storage, name, definition, budget)
        except StudyConflictError:
            continue
    raise RequestError(
        f"evaluate: {fit_name(study.name, kind)} and 98 names like it are taken; remove old evaluations with hpo delete"
    )


def _test_objective(objective: Objective) -> Objective:
    return Objective(metric=test_metric(objective.metric) or objective.metric, direction=objective.direction)


def _first_fresh_seed(study: Study) -> int:
    """Return the first of `MAX_SEEDS` successive seeds that no trial of the study has used."""
    used = {study.definition.seed, *_used_seeds(study)}
    first = max(used) + 1
    if study.definition.configured and first + MAX_SEEDS < 2**32:
        return first
    return next(low for low in range(0, 2**32, MAX_SEEDS) if not any(low <= seed < low + MAX_SEEDS for seed in used))


def _used_seeds(study: Study) -> Iterator[int]:
    for trial in study.trials():
        if not study.definition.configured:
            if (seed := read_whole(trial.user_attrs, TRIAL_SEED)) is not None:
                yield seed
            continue
        with suppress(RequestError):  # it was added by others, or has not begun
            yield study.config_of(trial).seed


def _seed_range(low: int, count: int) -> dict[str, int]:
    return {"low": low, "high": low + count - 1}


def _extend(evaluation: Study, seeds: int) -> None:
    """Extend an evaluation to that many seeds at least; they vary slowest in its grid, so new points come last."""
    definition = evaluation.definition
    assert definition.evaluation is not None
    stored = definition.parameters["seed"]
    if stored["high"] - stored["low"] + 1 >= seeds:
        return
    wider = {**definition.parameters, "seed": _seed_range(stored["low"], seeds)}
    evaluation.replace_definition(definition.model_copy(update={"parameters": wider}))
    evaluation.extend(Budget(trials=seeds * len(definition.evaluation.candidates)))


# Reads of the test set.


@dataclass(frozen=True)
class TestSetRead:
    """Read of a test set.

    Attributes:
        at: the time, in ISO 8601, UTC.
        dataset: the data set whose test set was read.
        by: the name of the evaluation, and the number of its trial.
        configuration: the label of the configuration that was measured.
    """

    at: str
    dataset: str
    by: str
    configuration: str


def record_test_set_read(companion: Study, run: int | str, configuration: str) -> None:
    """Record in the evaluated study that a test set is about to be read. Call this before, because a worker may die.

    Args:
        companion: the evaluation.
        run: the number of its trial, or a word for what else reads it.
        configuration: the label of the configuration, or the name of a reference model.
    """
    evaluation = companion.definition.evaluation
    assert evaluation is not None
    study = Study(companion.storage, evaluation.of)
    data = companion.definition.dataset
    name = Path(data.name).name
    read = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "dataset": name if data.outer is None else f"{data.outer.name} of {name}",
        "by": f"{companion.name} {run}",
        "configuration": configuration,
    }
    study.storage.set_study_system_attr(study.id, f"{TEST_SET_READ}{secrets.token_hex(8)}", read)


def list_test_set_reads(study: Study) -> list[TestSetRead]:
    """List every read of a test set by evaluations of this study, in order; a retried trial's is one more."""
    attrs: Mapping[str, object] = study.storage.get_study_system_attrs(study.id)
    values = [value for key, value in attrs.items() if key.startswith(TEST_SET_READ)]
    return sorted(filter(None, map(_read_test_set_read, values)), key=lambda read: (read.at, read.by))


def _read_test_set_read(value: object) -> TestSetRead | None:
    """Return the record of a read; None if it is damaged."""
    try:
        read = TestSetRead(**value) if isinstance(value, dict) else None
        if read is not None:
            datetime.fromisoformat(read.at).astimezone()
    except (TypeError, ValueError, OverflowError):
        return None
    return read if read is not None and all(isinstance(each, str) for each in asdict(read).values()) else None
