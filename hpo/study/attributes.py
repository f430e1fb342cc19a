"""Attributes that hpo keeps in studies and trials, parsed: the only module that does it.

Whoever may write to a database may set them to anything. What a study needs and cannot be read is a StudyDamagedError;
what a trial can do without is missing.
"""

from __future__ import annotations

import functools
import logging
import math
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from hpo.datasets import DataFacts
from hpo.errors import HpoError, RegistryError, StudyDamagedError
from hpo.space import Space
from hpo.storage.stored_values import is_finite, is_whole, shorten
from hpo.study.definition import VERSION, Budget, Definition, longest_epochs
from hpo.study.pruners import check_pruner
from hpo.study.samplers import SAMPLERS, check_options
from hpo.study.standard_error import mean_error

__all__ = [
    "BUDGET",
    "DATA_FACTS",
    "DEADLINE",
    "DEFINITION",
    "FITS",
    "FIT_RETURNS",
    "RACED",
    "SLOTS",
    "SPLIT_NUMBER",
    "STAGE_EPOCHS",
    "STANDARD_ERROR",
    "STOPPED",
    "TRIAL_SEED",
    "VALUE_FROM",
    "StudyAttributes",
    "explain_error",
    "read_fit_returns",
    "read_number",
    "read_origin",
    "read_standard_error",
    "read_table",
    "read_text",
    "read_whole",
]

DEFINITION, BUDGET, DEADLINE, SLOTS = "hpo:definition", "hpo:budget", "hpo:deadline", "hpo:slots"
DATA_FACTS = "hpo:data_facts"
log = logging.getLogger("hpo.study")
FITS = "fits"  # of a trial of several fits: how many its value is the mean of
FIT_RETURNS = "fit_returns"  # of such a trial of a loop that returned its value: what each fit has returned
# Of a trial that has earned further fits, or was dropped after its first: their epochs, the most of a later row.
STAGE_EPOCHS = "stage_epochs"
RACED = "raced"  # of a trial that was dropped: by which other one, on how many fits
SPLIT_NUMBER = "split_number"  # of a trial that a fork has renumbered: the number whose split it was trained on
VALUE_FROM = "value_from"  # of a training loop's trial
ORIGINS = ("best epoch", "last report", "returned")
TRIAL_SEED = "hpo_seed"  # of a trial: the seed that its objective function asked for
STANDARD_ERROR = "standard_error"  # of a trial: that of its value, the mean over its fits where it has several
FOLD_SCORES = "terminator:cv_scores"  # of a trial: what optuna.terminator.report_cross_validation_scores keeps
STOPPED = 0.0  # the deadline of a study that its objective function has stopped
LARGEST = 2**31 - 1  # number of trials, as Optuna's tables number them
LONGEST = 2000  # characters of a text


@dataclass(frozen=True)
class StudyAttributes:
    """Attributes of one study.

    Attributes:
        study: its name.
        storage: the storage's URL, without a password.
        values: what the storage holds, by key.
    """

    study: str
    storage: str
    values: Mapping[str, Any]

    @property
    def definition(self) -> Definition:
        """The definition.

        Raises:
            StudyDamagedError: it cannot be read.
        """
        stored = self.values.get(DEFINITION)
        version = stored.get("version", VERSION) if isinstance(stored, dict) else VERSION
        if version != VERSION:
            raise self.damaged(DEFINITION, f"version {shorten(version)}: this torch-hpo reads version {VERSION}")
        try:
            definition = Definition.model_validate(stored)
            _check_definition(definition)
        except (HpoError, ValueError) as error:
            raise self.damaged(DEFINITION, explain_error(error)) from error
        return definition

    def space(self, definition: Definition) -> Space:
        """Return the space of the study's definition, in which it has a configuration.

        Raises:
            StudyDamagedError: the definition has none.
            RegistryError: a model is not registered.
        """
        try:
            space = definition.space
            definition.baseline_config(space)
            check_pruner(
                definition.pruner.name, definition.pruner.options, longest_epochs(space), len(definition.objectives)
            )
        except RegistryError:
            raise
        except Exception as error:  # the content is anybody's, so anything may be raised
            raise self.damaged(DEFINITION, explain_error(error)) from error
        return space

    @property
    def budget(self) -> Budget:
        """The budget.

        Raises:
            StudyDamagedError: it cannot be read.
        """
        try:
            budget = Budget.model_validate(self.values.get(BUDGET), strict=True)
        except ValidationError as error:
            raise self.damaged(BUDGET, explain_error(error)) from error
        numbers = [number for number in (budget.timeout, budget.target) if number is not None]
        if not 0 <= budget.trials <= LARGEST or not all(map(math.isfinite, numbers)):
            raise self.damaged(BUDGET, f"{shorten(self.values[BUDGET])} is no budget")
        return budget

    @property
    def deadline(self) -> float | None:
        """The time after which no trial is begun, by the clock of leases; None before the first launch, or without one.

        Raises:
            StudyDamagedError: it cannot be read.
        """
        stored = self.values.get(DEADLINE)
        if stored is not None and not (is_finite(stored)):
            raise self.damaged(DEADLINE, f"{shorten(stored)} is no time")
        return stored

    @property
    def slots(self) -> list[list[int]]:
        """The numbers of the trials that are the study's own, as ranges: the first, and the one after the last.

        Raises:
            StudyDamagedError: they cannot be read.
        """
        stored = self.values.get(SLOTS)
        if not isinstance(stored, list) or not all(map(_is_range, stored)):
            raise self.damaged(SLOTS, f"{shorten(stored)} is no list of ranges")
        return stored

    @property
    def data_facts(self) -> DataFacts | None:
        """The first worker's findings about the data; None before it has looked, or where that cannot be read."""
        stored = self.values.get(DATA_FACTS)
        if stored is None:
            return None
        try:
            return DataFacts.model_validate(stored)
        except ValueError as error:  # the study can do without
            _log_once(f"{self.damaged(DATA_FACTS, explain_error(error))}".partition("; restore")[0])
            return None

    def damaged(self, key: str, why: str) -> StudyDamagedError:
        """Return the error for an attribute."""
        return StudyDamagedError(
            f"study {shorten(self.study)} in {self.storage}: its attribute {key} is damaged: {why}; restore the "
            f"database from a backup, or remove the study with: hpo delete {shlex.quote(self.study)[:200]}",
            f"{key}: {why}",
        )


@functools.cache
def _log_once(line: str) -> None:
    log.warning("%s, and is left out", line)


def _check_definition(definition: Definition) -> None:
    """Check what the types of a definition leave open, apart from its space.

    Raises:
        ValueError: something is impossible.
        DefinitionError: an option of the sampler is wrong.
    """
    if not definition.objectives:
        raise ValueError("it has no objectives")
    if definition.sampler.name not in SAMPLERS:
        raise ValueError(f"sampler {shorten(definition.sampler.name)} is unknown")
    if not 0 <= definition.seed < 2**32:
        raise ValueError(f"seed {shorten(definition.seed)} is none")
    check_options("sampler", definition.sampler.options, SAMPLERS[definition.sampler.name].options)


def _is_range(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(is_whole, value))


def explain_error(error: Exception) -> str:
    """Say in a few words what is wrong with an attribute."""
    if not isinstance(error, ValidationError):
        text = str(error) if isinstance(error, HpoError | ValueError) else f"{type(error).__name__}: {error}"
        return " ".join(text[:300].split())
    first = error.errors(include_url=False)[0]
    place = " ".join(".".join(map(str, first["loc"])).split())[:100]
    if first["type"] in ("model_type", "dict_type"):
        return f"{f'{place}: ' if place else ''}it must be a table, but it is {shorten(first['input'])}"
    what = first["msg"].removeprefix("Value error, ")[:200]
    return f"{f'{place}: ' if place else ''}{what}, but it is {shorten(first['input'])}"


# Attributes of trials, each of which may be missing.


def read_whole(attrs: Mapping[str, Any], key: str) -> int | None:
    """Return a whole number from 0; None if it is missing, or anything else."""
    value = attrs.get(key)
    return value if is_whole(value) and value >= 0 else None


def read_number(attrs: Mapping[str, Any], key: str) -> float | None:
    """Return a finite number; None if it is missing, or anything else."""
    value = attrs.get(key)
    return float(value) if is_finite(value) else None


def read_standard_error(attrs: Mapping[str, Any], system_attrs: Mapping[str, Any]) -> float | None:
    """Return the standard error of a trial's value: its own attribute, or that of the scores of folds that an objective
    function has reported as Optuna's terminator takes them; None without either.

    Folds share their training samples, k - 1 for each that they measure on; see `mean_error`.
    """
    error = read_number(attrs, STANDARD_ERROR)
    if error is not None and error >= 0:
        return error
    scores = system_attrs.get(FOLD_SCORES)
    if not isinstance(scores, list) or len(scores) < 2 or not all(map(is_finite, scores)):
        return None
    return mean_error(scores, 1 / (len(scores) - 1))


def read_text(attrs: Mapping[str, Any], key: str) -> str | None:
    """Return a text, or the beginning of a long one, or of another value as a text; None if it is missing."""
    value = attrs.get(key)
    return None if value is None else str(value)[:LONGEST]


def read_fit_returns(attrs: Mapping[str, Any], fits: Iterable[int]) -> dict[int, float]:
    """Return the first objective as a loop returned it for each of these fits, by their numbers; none where it did not,
    or it cannot be read.
    """
    table = read_table(attrs, FIT_RETURNS)
    return {fit: value for fit in fits if (value := read_number(table, str(fit))) is not None}


def read_origin(attrs: Mapping[str, Any]) -> str | None:
    """Return where the values of a training loop's trial come from, one of `ORIGINS`; None if it is not known."""
    value = attrs.get(VALUE_FROM)
    return value if isinstance(value, str) and value in ORIGINS else None


def read_table(attrs: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return a table; an empty one if it is missing, or anything else."""
    value = attrs.get(key)
    return value if isinstance(value, dict) else {}
