"""Candidates of evaluations: configurations of a study, with the seeds that an evaluation holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import cast

from optuna.trial import FrozenTrial

from hpo.config.parameter import Value
from hpo.config.trial_config import SEEDS, TrialConfig
from hpo.datasets import DatasetReference
from hpo.errors import RequestError, describe_unknown
from hpo.study.attributes import read_whole
from hpo.study.definition import Candidate, Definition, Source
from hpo.study.input.compatibility import check_compatible
from hpo.study.study import Study

__all__ = [
    "HELD",
    "SOURCES",
    "Chosen",
    "baseline_or_default",
    "list_candidates",
    "list_function_candidates",
    "make_comparison_candidate",
    "parameter_values_of",
    "parse_sources",
    "same_trial",
    "trial_config_of",
]

Chosen = tuple[int, TrialConfig, int | None]  # number, configuration and best epoch of a trial
REFIT_VALUES = ("validation", "epochs", "patience")  # that a refit changes
# The seeds that stay as they were in the study while a source of chance varies; the others follow the fresh seed.
HELD: Mapping[Source, tuple[str, ...]] = MappingProxyType(
    {
        "seed": ("split_seed",),
        "split": ("init_seed", "order_seed"),
        "order": ("split_seed", "init_seed"),
        "init": ("split_seed", "order_seed"),
        "all": (),
    }
)
SOURCES: Mapping[Source, str] = MappingProxyType(
    {
        "split": "validation split",
        "order": "order of the data and noise",
        "init": "initial weights",
        "seed": "order and initial weights",
        "all": "all together",
    }
)  # in words


def parse_sources(given: str | Sequence[str]) -> tuple[Source, ...]:
    """Return what an evaluation varies in turn, given the words of a request: its sources, and all of them together.

    The seed of training, which every evaluation varies, is always among them.

    Args:
        given: words, or a text of words between commas: split, order, init, seed; or all. Without any, seed alone.

    Raises:
        RequestError: a word is unknown.
    """
    words = [word.strip() for word in (given.split(",") if isinstance(given, str) else given)]
    for word in words:
        if word not in SOURCES:
            raise RequestError(f"evaluate --vary: {describe_unknown('source', word, tuple(SOURCES))}")
    if not words:
        return ("seed",)
    return tuple(source for source in SOURCES if "all" in words or source in (*words, "seed", "all"))


def trial_config_of(definition: Definition, candidate: Candidate) -> TrialConfig:
    """Return the configuration of a candidate of a study or its evaluation, with the default seed."""
    return TrialConfig.of(cast(dict[str, Value], candidate.values), definition.declarations)


def parameter_values_of(config: TrialConfig, refit: int | None, vary: Source = "seed") -> dict[str, Value]:
    """Return the values of a candidate: those that have an effect, except the seeds, and the seeds that are held.

    Args:
        config: the trial's configuration.
        refit: epochs of training on training and validation data together; None to keep them apart.
        vary: what follows the fresh seed.
    """
    values = {name: value for name, value in config.effective().items() if name not in SEEDS}
    if refit is None:
        seeds = _seeds_of(config)
        return {**values, **{name: seeds[name] for name in HELD[vary]}}
    return {**values, "validation": 0.0, "epochs": refit, "patience": 0}


def _seeds_of(config: TrialConfig) -> dict[str, int]:
    return {
        "split_seed": config.seed_of_split,
        "init_seed": config.seed_of_init,
        "order_seed": config.seed_of_order,
    }


def same_trial(study: Study, candidate: Candidate) -> bool:
    """Tell whether the study's trial of the candidate's number is still the one that was evaluated.

    A candidate of another study is what its values say.
    """
    if candidate.trial is None or candidate.study:
        return True
    trial = next((trial for trial in study.trials() if trial.number == candidate.trial), None)
    if trial is None:
        return False
    if not study.definition.configured:
        return trial.params == candidate.values
    try:
        config = study.config_of(trial)
    except RequestError:
        return False
    current = {**config.effective(), **_seeds_of(study.definition.shared_split_config(config))}
    expected = {name: value for name, value in candidate.values.items() if name not in REFIT_VALUES}
    return study.asked_params(trial) == candidate.asked and all(
        current.get(name) == value for name, value in expected.items()
    )


def baseline_or_default(study: Study) -> tuple[str, TrialConfig, int | None]:
    """Return label, configuration and trial of what the best is compared with: the baseline, or else the defaults."""
    definition = study.definition
    config = definition.baseline_config(study.space)
    return ("defaults", config, None) if definition.baseline is None else ("baseline", config, 0)


def list_function_candidates(chosen: Sequence[FrozenTrial]) -> list[Candidate]:
    """List the candidates that some trials of an objective function are in an evaluation."""
    return [
        Candidate(label=f"trial {trial.number}", trial=trial.number, baseline=False, values=trial.params)
        for trial in chosen
    ]


def list_candidates(
    study: Study, chosen: Sequence[Chosen], data: DatasetReference, *, refit: bool, vary: Source = "seed"
) -> list[Candidate]:
    """List the configurations that an evaluation trains; see `create_evaluations`.

    Raises:
        RequestError: one does not fit the data set.
    """
    candidates = list(_make_candidates(study, chosen, refit=refit, vary=vary))
    for each in candidates:
        check_candidate(study.definition, each, data)
    return candidates


def check_candidate(definition: Definition, candidate: Candidate, data: DatasetReference) -> None:
    """Refuse a configuration that does not fit a data set.

    Raises:
        RequestError: says why.
    """
    try:
        check_compatible(trial_config_of(definition, candidate), data)
    except RequestError as error:
        raise type(error)(f"evaluate: {candidate.label} does not fit {data.name}: {error}") from error


def make_comparison_candidate(study: Study, number: int | None, config: TrialConfig, *, rival: bool) -> Candidate:
    """Make the candidate that a configuration of a study is in a comparison of two studies.

    Args:
        study: that it comes from.
        number: of its trial; None of the default configuration.
        config: the configuration.
        rival: whether it is that of the other study.

    Raises:
        RequestError: it does not fit the study's data.
    """
    trial = next((trial for trial in study.trials() if trial.number == number), None)
    candidate = Candidate(
        label=f"{study.name} trial {number}" if number is not None else f"{study.name} defaults",
        trial=number,
        baseline=rival,
        values=parameter_values_of(config, None, "all"),
        asked={} if trial is None else study.asked_params(trial),
        study=study.name if rival else "",
    )
    check_candidate(study.definition, candidate, study.definition.dataset)
    return candidate


def _make_candidates(study: Study, chosen: Sequence[Chosen], *, refit: bool, vary: Source) -> Iterator[Candidate]:
    """Yield the candidates, the baseline among them; all on one split, though each trial may have had its own."""
    label, rival, number = baseline_or_default(study)
    chosen = [(trial, study.definition.shared_split_config(config), epoch) for trial, config, epoch in chosen]
    asked = {trial.number: study.asked_params(trial) for trial in study.trials()}
    includes_rival = any(each[0] == number for each in chosen)
    # What a training loop asks for itself has no defaults.
    no_rival = number is None and any(asked.values())
    equal = (trial for trial, config, _ in chosen if number is None and config.effective() == rival.effective())
    same = number if no_rival else next(equal, number)  # the trial that is the rival
    for trial, config, epoch in chosen:
        values = parameter_values_of(config, _refit_epochs(config, epoch) if refit else None, vary)
        name = f"trial {trial}" if trial != number else label
        yield Candidate(label=name, trial=trial, baseline=trial == same, values=values, asked=asked[trial])
    if not includes_rival and not no_rival and same == number:
        epoch = _best_epoch(study, number)
        values = parameter_values_of(rival, _refit_epochs(rival, epoch) if refit else None, vary)
        asked_of_rival = {} if number is None else asked[number]
        yield Candidate(label=label, trial=number, baseline=True, values=values, asked=asked_of_rival)


def _best_epoch(study: Study, number: int | None) -> int | None:
    trial = next((trial for trial in study.trials() if trial.number == number), None)
    return read_whole(trial.user_attrs, "best_epoch") if trial is not None else None


def _refit_epochs(config: TrialConfig, best: int | None) -> int:
    """Return the epochs of a refit: learning rates that depend on their number keep that which they were tuned with."""
    return config.epochs if config.rates_depend_on_epochs or best is None else best
