"""Repeats in a study's results: trials that have the configuration of an earlier one, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hpo.space import Space
from hpo.study import Definition
from hpo.study.repeats import find_repeats

if TYPE_CHECKING:
    from hpo.report.data.results import TrialRow

__all__ = ["describe_repeats", "repeated_trials"]

BEGUN = ("COMPLETE", "PRUNED", "FAIL", "RUNNING")


def repeated_trials(rows: Sequence[TrialRow], definition: Definition) -> dict[int, int]:
    """Return, by the number of each trial that repeats an earlier one, the earlier one's number."""
    known = [(row.number, _known(row, learned=definition.learned)) for row in rows]
    return find_repeats((number, params) for number, params in known if params)


def _known(row: TrialRow, *, learned: bool) -> Mapping[str, Any]:
    """Return all parameters of a trial that has begun; an objective function may ask for more until it has ended."""
    if row.state not in BEGUN or (learned and row.state == "RUNNING"):
        return {}
    if learned:
        return row.recorded
    return {} if row.config is None else row.config.effective()


def describe_repeats(rows: Sequence[TrialRow], definition: Definition, space: Space) -> str | None:
    """Say how many trials repeat an earlier one, and why; None if none does."""
    repeats = repeated_trials(rows, definition)
    if not repeats:
        return None
    begun = sum(row.state in BEGUN for row in rows)
    verb = "repeats" if len(repeats) == 1 else "repeat"
    which = f"{len(repeats)} of {begun} trials {verb} the parameters of an earlier one"
    return f"{which}: {_explain(begun - len(repeats), definition, space)}"


def _explain(different: int, definition: Definition, space: Space) -> str:
    if definition.learned:
        return "where an objective function asks for its parameters, the sampler may suggest the same again"
    if space.size is not None and different >= space.size:
        return f"the space has {space.size} configuration{'' if space.size == 1 else 's'}"
    if definition.sampler.name == "qmc":
        return "points of the sequence fall on the same values"
    if definition.fixed:
        return "others added them"
    return "no new ones were found for them, or two workers chose the same at one moment"
