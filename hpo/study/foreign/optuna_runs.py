"""Limits of a study that several calls of Optuna's `optimize` run, one after the other."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence

from hpo.study.foreign.python_source import Source, UnreadableError, describe

__all__ = ["add_runs"]

UNITS = {"n_trials": "trials", "timeout": "seconds"}


def add_runs(source: Source, runs: Sequence[Mapping[str, ast.expr]], notes: list[str]) -> dict[str, ast.expr]:
    """Return the limits of several runs together, as expressions, with a note on each; nothing of a single run.

    Args:
        source: the file.
        runs: the arguments of each.
        notes: to which those are added.
    """
    totals: dict[str, ast.expr] = {}
    for name, unit in UNITS.items() if len(runs) > 1 else ():
        given = [run[name] for run in runs if name in run and describe(run[name]) != "None"]
        if not given:
            continue
        total, said = _add(source, given), " and ".join(f"{describe(node)} (line {node.lineno})" for node in given)
        if len(given) < len(runs):
            said, total = f"{said}, and {len(runs) - len(given)} of {len(runs)} calls of optimize without it", None
        outcome = "the sum is known only when the file runs" if total is None else f"here {total:g} {unit} in all"
        notes.append(f"{name} = {said}: {'there is no limit in all' if len(given) < len(runs) else outcome}")
        totals[name] = ast.Constant(total)
    return totals


def _add(source: Source, given: Sequence[ast.expr]) -> int | float | None:
    """Return the sum of numbers; None if it is known only when the file runs."""
    try:
        values = [source.evaluate(node) for node in given]
    except UnreadableError:
        return None
    return sum(values) if all(isinstance(value, int | float) for value in values) else None
