"""Objective of another tool's search as ours: the metric by its name here, in the same unit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hpo.config import registry
from hpo.config.aliases import METRIC_ALIASES, canonical
from hpo.config.builtin_metrics import BUILTIN_METRICS
from hpo.config.choices import Direction
from hpo.errors import find_closest
from hpo.study.foreign.imported import ImportedStudy
from hpo.study.foreign.search import ForeignSearch, Goal
from hpo.utils.text import shorten

__all__ = ["add_objective", "our_metrics"]


def add_objective(study: ImportedStudy, search: ForeignSearch, renames: Mapping[str, str]) -> Iterator[str]:
    """Add the objective, or several, and the target; yield a refusal for each metric that is unknown."""
    if search.metric is None:
        return
    objectives: list[object] = []
    for goal in (Goal(search.metric, search.direction), *search.also):
        theirs = str(goal.metric)
        ours = _our_metric(theirs, renames)
        if not registry.metrics.has(ours):
            closest = find_closest(ours, _comparable_metrics(goal.direction))
            example = f", such as {closest}" if closest else ""
            yield (
                f"metric {shorten(theirs)}: is no metric of ours; name one with --rename {theirs}=OURS{example}, or "
                "report it in a loop of your own with --loop LOOP.py"
            )
            continue
        entry = registry.metrics.get(ours)
        is_default = goal.direction in (None, entry.direction)
        objectives.append(ours if is_default else {"metric": ours, "direction": goal.direction})
        if ours != theirs:
            study.mappings.append(f"metric {theirs} -> {ours}")
        if goal.direction is None:
            study.notes.append(f"metric {theirs}: the file says no direction; {ours} is to {entry.direction}")
    if objectives:
        study.table["objective"] = objectives[0] if len(objectives) == 1 else objectives
    yield from _add_target(study, search, renames)


def our_metrics(search: ForeignSearch, renames: Mapping[str, str]) -> dict[str, str]:
    """Return the search's metrics by the names that they have here."""
    goals = [each for each in (search.metric, *(goal.metric for goal in search.also)) if each is not None]
    return {_our_metric(str(each), renames): str(each) for each in goals}


def _comparable_metrics(direction: Direction | None) -> list[str]:
    """Return the metrics of validation that are better in that direction; in any, where it is None."""
    names = [name for name in registry.metrics.names() if name.startswith("val_")]
    return [name for name in names if direction in (None, registry.metrics.get(name).direction)]


def _our_metric(theirs: str, renames: Mapping[str, str]) -> str:
    name = canonical(theirs)
    by_canonical = {canonical(each): each for each in registry.metrics.names()}
    return renames.get(theirs) or by_canonical.get(name) or METRIC_ALIASES.get(name) or theirs


def _add_target(study: ImportedStudy, search: ForeignSearch, renames: Mapping[str, str]) -> Iterator[str]:
    if search.target is None:
        return
    ours = _our_metric(str(search.metric), renames)
    shares = [name for name, metric in BUILTIN_METRICS.items() if metric.direction == "maximize"]
    if ours in shares and search.target > 1:
        yield f"target = {search.target:g}: {ours} is at most 1 here, and not in percent; correct the file"
    else:
        study.table["target"] = search.target
