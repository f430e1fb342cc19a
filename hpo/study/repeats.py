"""Repeats: trials whose parameters are those of an earlier trial."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

__all__ = ["Key", "find_repeats", "make_key"]

Key = frozenset[tuple[str, Hashable]]


def make_key(params: Mapping[str, Any]) -> Key:
    """Return a key that is equal for equal parameters.

    Floating-point numbers count to 12 digits: what Optuna computes as 0.30000000000000004 is 0.3 in a file.
    """
    return frozenset((name, _make_hashable(value)) for name, value in params.items())


def _make_hashable(value: Any) -> Hashable:
    if isinstance(value, float):
        return float(f"{value:.12g}")
    return value if isinstance(value, Hashable) else repr(value)


def find_repeats(trials: Iterable[tuple[int, Mapping[str, Any]]]) -> dict[int, int]:
    """Return, by the number of each trial that repeats an earlier one, the earlier one's number.

    Args:
        trials: number and complete parameters of each trial, in the order of the numbers.
    """
    first: dict[Key, int] = {}
    found = ((number, first.setdefault(make_key(params), number)) for number, params in trials)
    return {number: earlier for number, earlier in found if number != earlier}
