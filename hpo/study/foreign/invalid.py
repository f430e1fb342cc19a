"""Faults of the study that an import gives, in the words of the file that it was imported from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from hpo.errors import InvalidSpaceError
from hpo.study.foreign.mapping import Outcome

__all__ = ["explain_invalid"]

VALUE = re.compile(r"(?P<name>\w+) = (?P<value>'[^']*'|[^:]+): (?P<why>.*)", re.DOTALL)


def explain_invalid(
    error: BaseException, outcomes: Sequence[Outcome], sets: Mapping[str, object], metrics: Mapping[str, str]
) -> list[str]:
    """Return a line for each value of the file that a study cannot have; none where the file is not to blame.

    Args:
        error: what the check of the study raised.
        outcomes: of the file's parameters.
        sets: parameters of ours that were set, for which the file is not to blame.
        metrics: the file's metrics by ours.
    """
    by_name = {each.ours: each for each in outcomes if each.kept and each.ours not in sets}
    lines: dict[str, str] = {}
    for reason in _reasons(error):
        match = VALUE.match(reason)
        if match is None:
            continue
        name, value, why = match["name"], match["value"].strip("'"), match["why"]
        outcome = by_name.get(name)
        if outcome is not None:
            key, line = _explain_value(outcome, value, why)
            lines.setdefault(key, line)
        elif name == "objective" and value in metrics:
            theirs = metrics[value]
            lines.setdefault(name, f"metric {theirs}: {why}; name it with --rename {theirs}=OURS")
    return list(lines.values())


def _reasons(error: BaseException) -> tuple[str, ...]:
    """Return what an error says: of a space, all of it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, InvalidSpaceError) and cause.reasons:
            return cause.reasons
        cause = cause.__cause__
    return (str(error),)


def _explain_value(outcome: Outcome, value: str, why: str) -> tuple[str, str]:
    """Return what is wrong once, which is a value of a choice, or the whole of a range, and the line that says it."""
    assert outcome.fit is not None
    name = outcome.theirs.name
    if isinstance(outcome.fit.literal, dict):
        key = name
        advice = f"--set {outcome.ours}=... sets another domain"
    else:
        key = f"{name}.{value}"
        advice = f"--rename {outcome.ours}.{_theirs(outcome, value)}=OURS names another value"
    given = _theirs(outcome, value)
    renamed = "" if (name, given) == (outcome.ours, value) else f", {outcome.ours} = {value} here"
    return key, f"{name} = {given}{renamed}: {why}; {advice}, and --leave-out {name} does without it"


def _theirs(outcome: Outcome, value: str) -> str:
    """Return the file's text of a value of ours."""
    assert outcome.fit is not None
    pairs = (each.rpartition(" -> ")[::2] for each in outcome.fit.translations)
    return next((theirs for theirs, ours in pairs if ours == value), value)
