"""Evaluations: a study's best configurations trained again from fresh seeds, and a record of each read of the test set.

An evaluation is a study of its own, a grid of `seed` and `configuration`, in the same storage. So leases, resuming,
cohorts and the dashboard work for it. Its definition says what it evaluates. The data is split as in the study, so that
a configuration's score from fresh seeds can be compared with the score by which it was chosen; unless the evaluation
varies the split, to tell how much each source of chance contributes, or compares two studies.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from optuna.trial import FrozenTrial

from hpo.config.declaration import Declarations, MetricDeclaration, ModelDeclaration
from hpo.config.trial_config import shared_parameters
from hpo.datasets import DatasetReference
from hpo.errors import RequestError, StudyConflictError, StudyDamagedError, StudyNotFoundError
from hpo.study.attributes import DEFINITION, TRIAL_SEED, read_table, read_whole
from hpo.study.definition import (
    Budget,
    Candidate,
    ComponentSpec,
    Definition,
    Evaluation,
    FunctionReference,
    Objective,
    Source,
    test_metric,
)
from hpo.study.input.study_file import check_name
from hpo.study.operations.candidates import (
    Chosen,
    baseline_or_default,
    list_candidates,
    list_function_candidates,
    parameter_values_of,
    same_trial,
    trial_config_of,
)
from hpo.study.study import Study
from hpo.utils.paths import fit_name

__all__ = [
    "REFERENCE",
    "TestSetRead",
    "baseline_or_default",
    "count_runs",
    "create_comparison",
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
NO_NAME = r"[^\w .+@=,-]"  # a character that no study's name has
LONGEST_STEM = 40  # characters of a data set's name in an evaluation's
MAX_SEEDS = 1000  # of an evaluation


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


# Creation.


def create_evaluations(
    study: Study,
    chosen: Sequence[Chosen],
    seeds: int,
    dataset: DatasetReference | None = None,
    *,
    refit: bool = False,
    tested: bool = True,
    vary: Source = "seed",
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
        tested: whether each model is measured on the test set; not of data that have none.
        vary: what follows the fresh seed; the rest stays as it was in the study.

    Raises:
        RequestError: a configuration does not fit the data set, or the name would be too long.
    """
    data = dataset or study.definition.dataset
    candidates = list_candidates(study, chosen, data, refit=refit, vary=vary)
    kind = _evaluation_kind(study, dataset, refit=refit, vary=vary)
    return _extend_or_create(study, kind, _Plan(data, candidates, seeds, refit, tested, vary))


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


def create_comparison(study: Study, other: Study, candidates: Sequence[Candidate], seeds: int) -> list[Study]:
    """Create or extend the evaluation of a configuration of each of two studies, and return it.

    Split, order and initial weights follow from seeds that neither study has used, the same for both configurations.

    Args:
        study: the study that the evaluation belongs to.
        other: the study that it is compared with.
        candidates: their configurations, that of the other study last.
        seeds: number of runs of each.

    Raises:
        RequestError: both studies have a model of one name that they declare differently, or the name would be too
            long.
    """
    plan = _Plan(study.definition.dataset, candidates, seeds, vary="all", compare=other.name)
    return _extend_or_create(study, f"-compare-{re.sub(NO_NAME, '_', other.name)[:LONGEST_STEM]}", plan)


@dataclass(frozen=True)
class _Plan:
    """Plan of the evaluations of one study on one data set, all that a new one needs."""

    data: DatasetReference
    candidates: Sequence[Candidate]
    seeds: int
    refit: bool = False
    tested: bool = True
    vary: Source = "seed"
    function: FunctionReference | None = None
    compare: str = ""  # the name of the other study

    def is_kind_of(self, definition: Definition) -> bool:
        """Tell whether an evaluation is on the same data, trains in the same way, and compares the same studies."""
        if (evaluation := definition.evaluation) is None:
            return False
        stored = definition.dataset, evaluation.refit, evaluation.tested, evaluation.vary, evaluation.compare
        return stored == (self.data, self.refit, self.tested, self.vary, self.compare)


def _extend_or_create(study: Study, kind: str, plan: _Plan) -> list[Study]:
    """Extend the evaluations that have some of the candidates, and create one for the others."""
    evaluations, pending = _match(study, plan)
    for evaluation in evaluations:
        _extend(evaluation, plan.seeds)
    return [*evaluations, _create(study, kind, replace(plan, candidates=pending))] if pending else evaluations


def _match(study: Study, plan: _Plan) -> tuple[list[Study], list[Candidate]]:
    """Return the evaluations of a plan's kind that have some of its candidates, and the candidates that none has."""
    pending = list(plan.candidates)
    evaluations: list[Study] = []
    for evaluation in readable_evaluation_studies(study):
        definition = evaluation.definition
        assert definition.evaluation is not None
        present = [each for each in pending if any(_equal(each, other) for other in definition.evaluation.candidates)]
        # Two studies are compared by the same seeds, so both are in one evaluation.
        if plan.is_kind_of(definition) and present and not (plan.compare and len(present) < len(pending)):
            evaluations.append(evaluation)
            pending = [each for each in pending if each not in present]
    return evaluations, pending


def _equal(one: Candidate, other: Candidate) -> bool:
    return (one.trial, one.values, one.asked, one.study) == (other.trial, other.values, other.asked, other.study)


def count_runs(
    study: Study,
    candidates: Sequence[Candidate],
    data: DatasetReference,
    *,
    refit: bool,
    vary: Source = "seed",
    compare: str = "",
) -> list[tuple[Candidate, int]]:
    """Count the runs, trained or not, of the configurations that an evaluation would train: first those asked for.

    The others are in evaluations that have some of these, for more seeds are more of all that an evaluation has.
    """
    evaluations, pending = _match(study, _Plan(data, candidates, 0, refit, vary=vary, compare=compare))
    found = [(each, 0) for each in pending]
    for evaluation in evaluations:
        stored = evaluation.definition.evaluation
        assert stored is not None
        found += [(each, evaluation.budget.trials // len(stored.candidates)) for each in stored.candidates]

    def place(row: tuple[Candidate, int]) -> int:
        return next((i for i, each in enumerate(candidates) if _equal(each, row[0])), len(candidates))

    return sorted(found, key=place)


def _evaluation_kind(study: Study, dataset: DatasetReference | None, *, refit: bool, vary: Source) -> str:
    """Return what an evaluation's name says after its study's."""
    kind = "-evaluation-refit" if refit else "-evaluation" if vary == "seed" else f"-evaluation-{vary}"
    if dataset is None or dataset == study.definition.dataset:
        return kind
    return f"{kind}-{re.sub(NO_NAME, '_', Path(dataset.name).stem)[:LONGEST_STEM]}"


def _create(study: Study, kind: str, plan: _Plan) -> Study:
    """Create an evaluation under the first name that is free."""
    original, candidates, seeds = study.definition, plan.candidates, plan.seeds
    others = [Study(study.storage, plan.compare)] if plan.compare else []
    modules, declarations = _join_code([original, *(other.definition for other in others)])
    objectives = original.objectives
    fresh = _seed_range(_first_fresh_seed([study, *others], _known_seeds(study, plan)), seeds)
    _check_seeds(candidates, declarations, fresh)
    if plan.refit:
        objectives = tuple(_test_objective(objective) for objective in objectives)
    definition = Definition(
        dataset=plan.data,
        objectives=objectives,
        sampler=ComponentSpec(name="grid"),
        pruner=ComponentSpec(name="none"),
        seed=original.seed,
        parameters={
            "seed": fresh,
            "configuration": {"choices": [each.label for each in candidates]},
        },
        modules=modules,
        declarations=declarations,
        weights=_join_weights([original, *(other.definition for other in others)]),
        evaluation=Evaluation(
            of=study.name,
            candidates=tuple(candidates),
            metrics=original.metrics,
            refit=plan.refit,
            tested=plan.tested,
            vary=plan.vary,
            compare=plan.compare,
        ),
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


def _join_code(definitions: Sequence[Definition]) -> tuple[dict[str, str], Declarations]:
    """Return the modules and declarations of one or several studies.

    Raises:
        RequestError: they declare a model or a metric of one name differently.
    """
    modules: dict[str, str] = {}
    models: dict[str, ModelDeclaration] = {}
    metrics: dict[str, MetricDeclaration] = {}
    for definition in definitions:
        modules = {**definition.modules, **modules}
        for model in definition.declarations.models:
            _check_same(models.setdefault(model.name, model), model)
        for metric in definition.declarations.metrics:
            _check_same(metrics.setdefault(metric.name, metric), metric)
    return modules, Declarations(models=tuple(models.values()), metrics=tuple(metrics.values()))


def _join_weights(definitions: Sequence[Definition]) -> dict[str, str]:
    """Return the SHA-256 of the pretrained weights of one or several studies, by path.

    Raises:
        RequestError: the studies have known a file with other contents.
    """
    weights: dict[str, str] = {}
    for definition in definitions:
        for path, sha256 in definition.weights.items():
            if weights.setdefault(path, sha256) != sha256:
                raise RequestError(
                    f"evaluate --compare: {path}: the pretrained weights have changed between the launches of the two "
                    "studies; launch the one that had the old file again"
                )
    return weights


def _check_same(known: ModelDeclaration | MetricDeclaration, other: ModelDeclaration | MetricDeclaration) -> None:
    if known != other:
        raise RequestError(
            f"evaluate --compare: '{other.name}' of module {other.module} is not the same in both studies; launch one "
            "of them again"
        )


def _known_seeds(study: Study, plan: _Plan) -> Iterator[range]:
    """Yield the seeds of evaluations of a plan's kind, as many as the plan needs."""
    for evaluation in readable_evaluation_studies(study):
        if plan.is_kind_of(evaluation.definition):
            stored = evaluation.definition.parameters["seed"]
            yield range(stored["low"], max(stored["high"] + 1, stored["low"] + plan.seeds))


def _first_fresh_seed(studies: Sequence[Study], known: Iterable[range] = ()) -> int:
    """Return the first of successive seeds that no trial of some studies has used, for a split either.

    They are those of an earlier evaluation, if they are still fresh, for configurations are compared by equal seeds;
    else `MAX_SEEDS`.
    """
    used = {seed for study in studies for seed in (study.definition.seed, *_used_seeds(study))}
    for seeds in known:
        if used.isdisjoint(seeds):
            return seeds[0]
    first = max(used) + 1
    if studies[0].definition.configured and first + MAX_SEEDS < 2**32:
        return first
    return next(low for low in range(0, 2**32, MAX_SEEDS) if not any(low <= seed < low + MAX_SEEDS for seed in used))


def _used_seeds(study: Study) -> Iterator[int]:
    for trial in study.trials():
        if not study.definition.configured:
            if (seed := read_whole(trial.user_attrs, TRIAL_SEED)) is not None:
                yield seed
            continue
        with suppress(RequestError):  # it was added by others, or has not begun
            config = study.config_of(trial)
            yield from (config.seed, config.seed_of_split, config.seed_of_init, config.seed_of_order)


def _seed_range(low: int, count: int) -> dict[str, int]:
    return {"low": low, "high": low + count - 1}


def _check_seeds(candidates: Sequence[Candidate], declarations: Declarations, fresh: Mapping[str, int]) -> None:
    """Refuse fresh seeds that a model's own domain of `seed` excludes.

    Raises:
        RequestError: names the model and its domain.
    """
    for model in sorted({str(each.values["model"]) for each in candidates if "model" in each.values}):
        row = shared_parameters(declarations.get(model)).get("seed")
        bound = None if row is None else row.domain
        if bound is not None and not all(map(bound.allows, fresh.values())):
            raise RequestError(
                f"evaluate: needs fresh seeds, from {fresh['low']}, but model '{model}' declares that its seed must be "
                f"{bound.text}; declare hpo.Int(0, 2**32 - 1), name the seeds to search in the study file, and launch "
                "a new study"
            )


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
    others = {each.study for each in evaluation.candidates if each.label == configuration and each.study}
    data = companion.definition.dataset
    file = Path(data.name).name
    read = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "dataset": file if data.outer is None else f"{data.outer.name} of {file}",
        "by": f"{companion.name} {run}",
        "configuration": configuration,
    }
    key = f"{TEST_SET_READ}{secrets.token_hex(8)}"
    for name in (evaluation.of, *others):
        with suppress(StudyNotFoundError):  # the other study was deleted since
            study = Study(companion.storage, name)
            study.storage.set_study_system_attr(study.id, key, read)


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
