"""Stored values, parsed: the only reader of JSON, distributions and numbers of a database.

Its content is not trusted. Whoever may write to a database may write anything: text that is no JSON, nested a hundred
thousand deep, of megabytes, or of another type than its column. Values of trials that cannot be read count as missing,
which is logged once.
"""

from __future__ import annotations

import json
import logging
import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypeGuard

from optuna.distributions import BaseDistribution, CategoricalDistribution, json_to_distribution

__all__ = [
    "CONSTRAINT",
    "FIT",
    "FIXED",
    "PAUSED",
    "RUNG",
    "DamageLog",
    "UnreadableError",
    "allow_lists",
    "is_finite",
    "is_number",
    "is_whole",
    "parse_distribution",
    "parse_fits",
    "parse_json",
    "parse_metrics",
    "parse_number",
    "parse_param",
    "parse_system_attr",
    "parse_value",
    "shorten",
]

log = logging.getLogger("hpo.study")
LONGEST = 2**22  # characters of a value
DEEPEST = 100  # lists and tables in each other
DIGITS = 300  # of a whole number: every such number is a float as well
SHOWN = 80  # characters of a value in a message
FIT = "fit"  # the column of the fits' numbers among those of an epoch's metrics
FIXED = "fixed_params"  # the system attribute in which Optuna keeps an enqueued trial's parameters
PAUSED = "hpo:paused"  # the system attribute of a WAITING trial that no worker claims: the epoch that it has reached
# What the system attributes begin with in which Optuna keeps what a trial reported at each rung, and its constraints.
RUNG, CONSTRAINT = "completed_rung_", "constraints"
ARTIFACT, ARTIFACT_TEXTS = "artifacts:", ("artifact_id", "filename", "mimetype")
SYSTEM_TYPES = {
    re.compile(FIXED): dict,
    re.compile(r"study:metric_names"): list,
    re.compile(r"dashboard:(\d+:)?note_ver"): int,
    re.compile(r"dashboard:(\d+:)?note_str:\d+"): str,
    re.compile(r"dashboard:plot_data:.*"): str,
}
# Of Optuna's tables of values and of reported values.
SPECIAL = {"INF_POS": math.inf, "INF_NEG": -math.inf, "NAN": math.nan}


class UnreadableError(ValueError):
    """Stored value that cannot be read; the message says why, in a few words."""


class DamageLog:
    """Log of what could not be read of one storage's trials, a line for each kind of damage to a study."""

    def __init__(self) -> None:
        self._logged: set[tuple[object, str]] = set()

    def add(self, study: object, what: str, why: object, *, trial: object = None) -> None:
        """Log that something of a study or its trial is left out, unless the same has been said of the study.

        Args:
            study: the study's name, or its id.
            what: what cannot be read.
            why: why.
            trial: the trial's number.
        """
        if (study, what) not in self._logged:
            self._logged.add((study, what))
            where = "" if trial is None else f", trial {shorten(trial)}"
            log.warning("study %s%s: %s cannot be read, and is left out: %s", shorten(study), where, what, why)


def shorten(value: object) -> str:
    """Return a value as a message shows it: on one line, its beginning alone if it is long."""
    text = repr(value[: SHOWN + 1]) if isinstance(value, str | bytes) else repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def is_number(value: object) -> TypeGuard[int | float]:
    """Return whether a value is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_finite(value: object) -> TypeGuard[int | float]:
    """Return whether a value is a finite number; true and false are none."""
    return is_number(value) and math.isfinite(value)


def is_whole(value: object) -> TypeGuard[int]:
    """Return whether a value is a whole number that a database's integers hold."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def parse_json(text: object) -> Any:
    """Parse the text of a stored attribute.

    Raises:
        UnreadableError: it is no JSON, or too long, or nested too deeply.
    """
    if not isinstance(text, str):
        raise UnreadableError(f"{shorten(text)} is no text")
    if len(text) > LONGEST:
        raise UnreadableError(f"{len(text)} characters are more than {LONGEST}: {shorten(text)}")
    try:
        value = DECODER.decode(text)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()  # half a character cannot be printed
    except RecursionError:
        raise UnreadableError(f"it is nested too deeply: {shorten(text)}") from None
    except ValueError as error:
        raise UnreadableError(f"{shorten(text)} is no JSON") from error
    if text.count("[") + text.count("{") > DEEPEST and _is_deep(value):
        raise UnreadableError(f"it is nested more than {DEEPEST} deep: {shorten(text)}")
    return value


def _parse_whole(text: str) -> int:
    if len(text) > DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


DECODER = json.JSONDecoder(parse_int=_parse_whole)


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEEPEST + 1):
        inner = (each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list))
        level = [child for children in inner for child in children]
    return bool(level)


def parse_value(text: object) -> Any:
    """Parse the text of a stored attribute; of one that cannot be parsed, return the beginning of the text itself."""
    if text is None:
        return None
    try:
        return parse_json(text)
    except UnreadableError:
        return shorten(text)


def parse_system_attr(key: str, text: object) -> Any:
    """Parse a system attribute, which Optuna and its dashboard take as they find it.

    Raises:
        UnreadableError: it is not of the type that they give it.
    """
    value = parse_value(text)
    if key.startswith(ARTIFACT):
        described = parse_json(value)
        readable = described is None or (  # deleted in the dashboard
            isinstance(described, dict) and all(isinstance(described.get(name), str) for name in ARTIFACT_TEXTS)
        )
    else:
        kind = next((kind for pattern, kind in SYSTEM_TYPES.items() if pattern.fullmatch(key)), object)
        if kind is str and not isinstance(value, str):
            return shorten(value)  # a part of a longer text, which is read only if no part is missing
        readable = isinstance(value, kind)
    if not readable:
        raise UnreadableError(f"it is {shorten(value)}")
    return value


@contextmanager
def allow_lists() -> Iterator[None]:
    """Keep Optuna from warning of lists among choices, which a database holds as JSON and gives back as lists."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Choices for a categorical distribution", UserWarning)
        yield


@lru_cache(maxsize=1024)
def parse_distribution(text: str) -> BaseDistribution:
    """Parse a distribution, once each: the trials of a study store the same few.

    Raises:
        UnreadableError: it is no distribution that Optuna knows.
    """
    parse_json(text)
    try:
        with allow_lists():
            return json_to_distribution(text)
    except Exception as error:  # Optuna takes the content as it is, so anything may be raised
        raise UnreadableError(f"{shorten(text)} is no distribution") from error


def parse_param(distribution: BaseDistribution, stored: object) -> Any:
    """Return the parameter's value that Optuna has stored as a number.

    Raises:
        UnreadableError: it is no number, or none of the choices.
    """
    number = parse_number("FINITE", stored)
    if isinstance(distribution, CategoricalDistribution) and not 0 <= number < len(distribution.choices):
        raise UnreadableError(f"{number:g} is the position of no choice")
    return distribution.to_external_repr(number)


def parse_number(kind: object, stored: object) -> float:
    """Return the number that Optuna has stored under a kind: FINITE, INF_POS, INF_NEG or NAN.

    Raises:
        UnreadableError: it is no number, or of no such kind.
    """
    if kind in SPECIAL and stored is None:
        return SPECIAL[str(kind)]
    if kind != "FINITE" or not isinstance(stored, int | float) or not math.isfinite(stored):
        raise UnreadableError(f"{shorten(stored)} of kind {shorten(kind)} is no number")
    return stored


def parse_metrics(text: object) -> dict[str, float]:
    """Return the metrics of an epoch.

    Raises:
        UnreadableError: they are no table of numbers.
    """
    metrics = parse_json(text)
    if not isinstance(metrics, dict) or not all(isinstance(each, float) or is_whole(each) for each in metrics.values()):
        raise UnreadableError(f"{shorten(metrics)} is no table of numbers")
    return metrics


def parse_fits(text: object) -> dict[int, dict[str, float]]:
    """Return the metrics of an epoch by fit, as `hpo.storage.reports` writes them.

    Raises:
        UnreadableError: they are no columns of one number for each fit.
    """
    columns = parse_json(text)
    fits = columns.pop(FIT, None) if isinstance(columns, dict) else None
    if not isinstance(fits, list) or not all(is_whole(fit) and fit >= 0 for fit in fits) or len({*fits}) < len(fits):
        raise UnreadableError(f"{shorten(text)} is no table of fits")
    rows: dict[int, dict[str, float]] = {fit: {} for fit in fits}
    for name, column in columns.items():
        if not isinstance(column, list) or len(column) != len(fits):
            raise UnreadableError(f"{shorten(column)} has no value of {shorten(name)} for each of {len(fits)} fits")
        for fit, value in zip(fits, column, strict=True):
            if value is not None and not (isinstance(value, float) or is_whole(value)):
                raise UnreadableError(f"{shorten(value)} is no value of {shorten(name)}")
            if value is not None:
                rows[fit][name] = value
    return rows
