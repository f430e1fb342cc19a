"""Comparison of two studies on the same data: the configuration that each has chosen, from equal seeds and splits."""

from __future__ import annotations

from hpo.config import registry
from hpo.config.trial_config import TrialConfig
from hpo.datasets import load
from hpo.errors import RequestError
from hpo.report.data.evaluations import read_evaluations
from hpo.report.data.results import read_results
from hpo.report.export_config import rank_configurations
from hpo.study import Study
from hpo.study.definition import Candidate, test_metric
from hpo.study.operations.candidates import make_comparison_candidate
from hpo.study.operations.evaluation_study import create_comparison

__all__ = ["choose_compared", "choose_configuration", "explain_choices", "plan_comparison", "study_name"]


def plan_comparison(study: Study, compare: str | Study, seeds: int = 5) -> list[Study]:
    """Create or extend the evaluation that compares two studies; run nothing.

    Args:
        study: the study that the evaluation belongs to.
        compare: the other study; its name, in the same storage.
        seeds: number of pairs of runs.

    Raises:
        RequestError: one of them has no complete trial or is an evaluation, they have other data, or the data have no
            test set.
        RegistryError: the code of the other study is not imported.
    """
    candidates, other = choose_compared(study, compare), _open(study, compare)
    other.definition.check_registered()
    return create_comparison(study, other, candidates, seeds)


def choose_compared(study: Study, compare: str | Study) -> list[Candidate]:
    """Return the configurations that a comparison would train, that of the other study last; see `plan_comparison`."""
    other = _open(study, compare)
    check_comparable(study, other)
    candidates = []
    for each in (study, other):
        number, config, _ = choose_configuration(each)
        candidates.append(make_comparison_candidate(each, number, config, rival=each is other))
    return candidates


def study_name(study: str | Study) -> str:
    """Return the name of a study that is given by it or as it is."""
    return study if isinstance(study, str) else study.name


def _open(study: Study, compare: str | Study) -> Study:
    return compare if isinstance(compare, Study) else Study(study.storage, compare)


def check_comparable(study: Study, other: Study) -> None:
    """Refuse to compare studies whose scores are not of the same thing.

    Raises:
        RequestError: says why.
    """
    if other.name == study.name:
        raise RequestError(f"evaluate --compare: '{other.name}' is the study itself; name another one")
    if other.storage.url != study.storage.url:
        raise RequestError(
            "evaluate --compare: both studies must be in the same storage; copy one of them with hpo copy"
        )
    for each in (study, other):
        definition = each.definition
        if definition.evaluation is not None:
            raise RequestError(
                f"evaluate --compare: '{each.name}' is an evaluation; compare '{definition.evaluation.of}'"
            )
        if not definition.configured:
            raise RequestError(
                f"evaluate --compare: study '{each.name}' calls an objective function, which alone knows its data and "
                "its splits; compare studies of models"
            )
    _check_data(study, other)


def _check_data(study: Study, other: Study) -> None:
    own, others = study.definition.dataset, other.definition.dataset
    if registry.NO_DATA in (own.name, others.name):
        raise RequestError(
            "evaluate --compare: a training loop reads its own data, so they cannot be known to be the same"
        )
    if own.content_key != others.content_key:
        raise RequestError(
            f"evaluate --compare: study '{study.name}' is on {own.name}, but '{other.name}' on {others.name}; "
            "only studies on the same data can be compared"
        )
    metrics = [each.metric for each in study.definition.objectives]
    if not any(map(test_metric, metrics)):
        named = ", ".join(metrics)
        raise RequestError(f"evaluate --compare: no objective of '{study.name}' can be measured on a test set: {named}")
    if load(own).test is None:
        raise RequestError(f"evaluate --compare: {own.name} has no test set; give `test` in its hpo.Dataset")


def choose_configuration(study: Study) -> tuple[int | None, TrialConfig, str]:
    """Return trial, configuration and reason of the choice: the best from fresh seeds, or the trial that is exported.

    Raises:
        RequestError: no trial is complete.
    """
    for evaluation in read_evaluations(study):
        best = evaluation.best
        if evaluation.on_own_data and not evaluation.refit and best is not None and best.config is not None:
            return best.trial, _original(study, best.trial, best.config), "the best from fresh seeds"
    results = read_results(study)
    row = next((row for row in rank_configurations(study, results) if row.config is not None), None)
    if row is None or row.config is None:
        raise RequestError(f"evaluate: study '{study.name}' has no COMPLETE trial to train again; launch it first")
    is_best = results.best is not None and row.number == results.best.number
    return row.number, row.config, "its best trial" if is_best else "the cheapest of its best trials"


def _original(study: Study, number: int | None, config: TrialConfig) -> TrialConfig:
    trial = next((trial for trial in study.trials() if trial.number == number), None)
    return config if trial is None else study.config_of(trial)


def explain_choices(study: Study, compare: str | Study) -> list[str]:
    """Say which configuration of each of two studies is compared, and by what it was chosen."""
    other = _open(study, compare)
    lines = []
    for each in (study, other):
        number, _, reason = choose_configuration(each)
        lines.append(f"{each.name}: {'the defaults' if number is None else f'trial {number}'}, {reason}")
    return lines
