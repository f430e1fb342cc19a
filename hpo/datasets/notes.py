"""Notes on a data set that more than one reader writes: the task, what is held out, and what has no label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hpo.datasets.source import DatasetSource

__all__ = ["describe_held_out", "describe_task", "describe_unlabelled"]

Array = np.ndarray[Any, Any]
MOST_NAMES = 5


def describe_task(task: str, reason: str, predicted: Sequence[str] = ()) -> str:
    """Return which task was guessed, of what, and why; nothing where it was asked for, and there is no reason."""
    if not reason:
        return ""
    names = ", ".join(predicted[:MOST_NAMES]) + (", …" if len(predicted) > MOST_NAMES else "")
    return f"task {task}: to predict {names or 'the label'}, because {reason}; say task = … for another"


def describe_held_out(
    source: DatasetSource, held: int, total: int, groups: Array | None, times: Array | None, what: str = "rows"
) -> str:
    """Return how many rows are held out as test, and how they are chosen.

    Args:
        source: whether a fraction was asked for, so that nothing is to be said of how to ask.
        held: the number of rows that are held out.
        total: and the number of all rows.
        groups: of each row, (N,), or None.
        times: of each row, (N,), or None.
        what: they are called.
    """
    how = "drawn at random, stratified" if groups is None else "whole groups"
    if times is not None:
        how = "the latest" if groups is None else "the latest groups"
    advice = "" if source.test is not None else "; say test = … for a file or another share"
    return f"test: {held:,} of {total:,} {what} are held out ({how}){advice}"


def describe_unlabelled(rows: Array, what: str = "row") -> str:
    """Return which rows, by their numbers (n,), are left out because they have no label, and what to make sure of."""
    if len(rows) == 1:
        return f"1 {what} has no label and is left out ({what} {rows[0]}); make sure that it lacks it by chance"
    return (
        f"{len(rows):,} {what}s have no label and are left out (the first is {what} {rows[0]}); make sure that they "
        "lack it by chance"
    )
