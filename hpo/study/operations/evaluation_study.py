"""Evaluations: the best configurations of a study trained again over several seeds, and the looks at the test set.

An evaluation is a study of its own, a grid of `seed` and `configuration`, in the same storage: leases, resuming,
cohorts and the dashboard come with that. Its definition says what it evaluates. The split of the data stays the
study's, so that a configuration's score under fresh seeds can be compared with the one that it was chosen by.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from hpo.config.trial_config import TrialConfig, Value
from hpo.datasets import DatasetReference
from hpo.errors import RequestError, StudyConflictError
from hpo.study.definition import Budget, Candidate, ComponentSpec, Definition, Evaluation, Objective, test_metric
from hpo.study.input.compatibility import check_compatible
from hpo.study.input.study_file import check_name
from hpo.study.study import Study

__all__ = [
    "TestSetRead",
    "baseline_or_default",
    "check_evaluation_dataset",
    "evaluation_studies",
    "list_test_set_reads",
    "parameter_values_of",
    "record_test_set_read",
    "same_trial",
    "trial_config_of",
]

TEST_SET_READ = "hpo:look:"
SEEDS = ("seed", "split_seed")
MOST_SEEDS = 1000  # of an evaluation


def trial_config_of(candidate: Candidate) -> TrialConfig:
    """A candidate's configuration, with the default seed."""
    return TrialConfig(**candidate.values)


def evaluation_studies(study: Study) -> list[Study]:
    """The evaluations of a study in its storage, by name."""
    found = []
    for summary in study.storage.get_all_studies():
        definition = summary.user_attrs.get("hpo:definition") or {}
        if (definition.get("evaluation") or {}).get("of") == study.name:
            found.append(Study(study.storage, summary.study_name))
    return sorted(found, key=lambda companion: companion.name)


def same_trial(study: Study, candidate: Candidate) -> bool:
    """Whether the study's trial of that number is still the one that was evaluated."""
    if candidate.trial is None:
        return True
    trial = next((trial for trial in study.trials() if trial.number == candidate.trial), None)
    if trial is None:
        return False
    try:
        now = parameter_values_of(study.config_of(trial), refit=None)
    except RequestError:
        return False
    ours = {name: value for name, value in candidate.values.items() if name not in ("validation", "epochs", "patience")}
    return all(now.get(name) == value for name, value in ours.items())


def parameter_values_of(config: TrialConfig, refit: int | None) -> dict[str, Value]:
    """The values that a candidate has: those that have an effect, but for the seed; and which split it was trained on.

    Args:
        config: of the trial.
        refit: for how many epochs it is trained on training and validation data; None where the split is kept.
    """
    values = {name: value for name, value in config.effective().items() if name not in SEEDS}
    if refit is None:
        return {**values, "split_seed": config.seed_of_split}
    return {**values, "validation": 0.0, "epochs": refit, "patience": 0}


def baseline_or_default(study: Study) -> tuple[str, TrialConfig, int | None]:
    """What the best is compared with: the baseline, or without one the default configuration; its trial's number."""
    definition = study.definition
    config = definition.baseline_config(study.space)
    return ("defaults", config, None) if definition.baseline is None else ("baseline", config, 0)


# Making one.


def check_evaluation_dataset(
    study: Study,
    chosen: Sequence[tuple[int, TrialConfig, int | None]],
    seeds: int,
    dataset: DatasetReference | None = None,
    *,
    refit: bool = False,
) -> list[Study]:
    """The evaluations that hold these configurations and the rival under that many seeds, made or extended.

    What has been run already is not run again: a configuration that an evaluation holds stays there.

    Args:
        study: what is evaluated.
        chosen: number, configuration and best epoch of its trials to train again, the best first.
        seeds: how many; none of them is one that the study used.
        dataset: instead of the study's.
        refit: train on training and validation data, for the epochs that the trial's best took; where the schedule
            decays over all epochs, or that epoch is not known, for all of them.

    Raises:
        RequestError: a configuration does not fit the data set, or the name would be too long.
    """
    data = dataset or study.definition.dataset
    wanted = list(_candidates(study, chosen, refit=refit))
    for each in wanted:
        try:
            check_compatible(trial_config_of(each), data)
        except RequestError as error:
            raise type(error)(f"evaluate: {each.label} does not fit {data.name}: {error}") from error
    base = _name(study, dataset, refit=refit)
    used: list[Study] = []
    for companion in evaluation_studies(study):
        definition = companion.definition
        assert definition.evaluation is not None
        same = definition.dataset == data and definition.evaluation.refit == refit
        held = [each for each in wanted if any(_same(each, other) for other in definition.evaluation.candidates)]
        if same and held:
            _extend(companion, seeds)
            used.append(companion)
            wanted = [each for each in wanted if each not in held]
    return [*used, _create(study, base, data, wanted, seeds, refit=refit)] if wanted else used


def _same(one: Candidate, other: Candidate) -> bool:
    return (one.trial, one.values) == (other.trial, other.values)


def _candidates(
    study: Study, chosen: Sequence[tuple[int, TrialConfig, int | None]], *, refit: bool
) -> Iterator[Candidate]:
    label, rival, number = baseline_or_default(study)
    baseline = next((each for each in chosen if each[0] == number), None)
    equal = (trial for trial, config, _ in chosen if number is None and config.effective() == rival.effective())
    same = next(equal, number)  # the trial that is the rival
    for trial, config, epoch in chosen:
        values = parameter_values_of(config, _refit_epochs(config, epoch) if refit else None)
        name = f"trial {trial}" if trial != number else label
        yield Candidate(label=name, trial=trial, baseline=trial == same, values=values)
    if baseline is None and same == number:
        epoch = _best_epoch(study, number)
        values = parameter_values_of(rival, _refit_epochs(rival, epoch) if refit else None)
        yield Candidate(label=label, trial=number, baseline=True, values=values)


def _best_epoch(study: Study, number: int | None) -> int | None:
    trial = next((trial for trial in study.trials() if trial.number == number), None)
    epoch = trial.user_attrs.get("best_epoch") if trial is not None else None
    return epoch if isinstance(epoch, int) else None


def _refit_epochs(config: TrialConfig, best: int | None) -> int:
    """A schedule that decays, or warms up, is of the length that it was tuned with."""
    whole = config.schedule != "constant" or bool(config.warmup)
    return config.epochs if whole or best is None else best


def _name(study: Study, dataset: DatasetReference | None, *, refit: bool) -> str:
    other = dataset is not None and dataset != study.definition.dataset
    parts = [study.name, "evaluation", *(["refit"] if refit else [])]
    return "-".join([*parts, Path(dataset.name).stem] if dataset is not None and other else parts)


def _create(
    study: Study, base: str, data: DatasetReference, wanted: Sequence[Candidate], seeds: int, *, refit: bool
) -> Study:
    """A new evaluation; of several names the first that is free."""
    mine = study.definition
    objectives = tuple(_tested(objective) for objective in mine.objectives) if refit else mine.objectives
    definition = Definition(
        dataset=data,
        objectives=objectives,
        sampler=ComponentSpec(name="grid"),
        pruner=ComponentSpec(name="none"),
        seed=mine.seed,
        parameters={
            "seed": _range(_fresh(study), seeds),
            "configuration": {"choices": [each.label for each in wanted]},
        },
        modules=mine.modules,
        evaluation=Evaluation(of=study.name, candidates=tuple(wanted), metrics=mine.metrics, refit=refit),
    )
    for number in range(1, 100):
        name = check_name(base if number == 1 else f"{base}-{number}")
        try:
            return Study.create(study.storage, name, definition, Budget(trials=seeds * len(wanted)))
        except StudyConflictError:
            continue
    raise RequestError(f"evaluate: {base} and 98 names like it are taken; remove old evaluations with hpo delete")


def _tested(objective: Objective) -> Objective:
    return Objective(metric=test_metric(objective.metric) or objective.metric, direction=objective.direction)


def _fresh(study: Study) -> int:
    """The first of a row of seeds that no trial of the study was trained from."""
    used = {study.definition.seed, *(config.seed for config in _configs(study))}
    after = max(used) + 1
    if after + MOST_SEEDS < 2**32:
        return after
    return next(low for low in range(0, 2**32, MOST_SEEDS) if not any(low <= seed < low + MOST_SEEDS for seed in used))


def _configs(study: Study) -> Iterator[TrialConfig]:
    for trial in study.trials():
        with suppress(RequestError):  # it was added by others, or has not begun
            yield study.config_of(trial)


def _range(low: int, count: int) -> dict[str, int]:
    return {"low": low, "high": low + count - 1}


def _extend(companion: Study, seeds: int) -> None:
    """Let an evaluation have at least that many seeds: its grid's seeds move slowest, so new points come last."""
    definition = companion.definition
    assert definition.evaluation is not None
    held = definition.parameters["seed"]
    if held["high"] - held["low"] + 1 >= seeds:
        return
    wider = {**definition.parameters, "seed": _range(held["low"], seeds)}
    companion.replace_definition(definition.model_copy(update={"parameters": wider}))
    companion.extend(Budget(trials=seeds * len(definition.evaluation.candidates)))


# Looks at the test set.


@dataclass(frozen=True)
class TestSetRead:
    """One reading of a test set.

    Attributes:
        at: when, in ISO 8601, UTC.
        dataset: whose test set.
        by: the evaluation's study and the number of its trial.
        configuration: the label of what was measured.
    """

    at: str
    dataset: str
    by: str
    configuration: str


def record_test_set_read(companion: Study, number: int, configuration: str) -> None:
    """Note in the study that is evaluated that a test set is about to be read; before it is, for a worker may die."""
    evaluation = companion.definition.evaluation
    assert evaluation is not None
    study = Study(companion.storage, evaluation.of)
    look = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "dataset": Path(companion.definition.dataset.name).name,
        "by": f"{companion.name} {number}",
        "configuration": configuration,
    }
    study.storage.set_study_system_attr(study.id, f"{TEST_SET_READ}{secrets.token_hex(8)}", look)


def list_test_set_reads(study: Study) -> list[TestSetRead]:
    """Every look that evaluations of this study have taken at a test set, in their order; a retrial's is one more."""
    attrs: Mapping[str, object] = study.storage.get_study_system_attrs(study.id)
    found = [value for key, value in attrs.items() if key.startswith(TEST_SET_READ)]
    return sorted(
        (TestSetRead(**value) for value in found if isinstance(value, dict)), key=lambda look: (look.at, look.by)
    )
