"""Names of arrays: which of them hold the samples, the labels and the rest, and of which part of a data set."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hpo.datasets.part_names import PARTS
from hpo.datasets.source import DatasetSource
from hpo.errors import DataError, find_closest
from hpo.utils.text import shorten

__all__ = ["LABEL_NAMES", "SAMPLE_NAMES", "ArrayRoles", "find_family", "find_roles", "find_samples"]

SAMPLE_NAMES = frozenset(
    {"x", "image", "images", "img", "imgs", "pixel_values", "input", "inputs", "feature", "features", "data", "samples"}
)
LABEL_NAMES = frozenset({"y", "label", "labels", "target", "targets", "class", "classes"})
JOINED = re.compile(r"^(x|y)(train|test|val|valid|validation)$|^(train|test|val|valid|validation)(x|y)$")


@dataclass(frozen=True)
class ArrayRoles:
    """Names of the arrays of one part.

    Attributes:
        x: of the samples.
        y: of the labels: one array, or one for each column.
        group, time, weight: of those of each sample, or None.
        left: of those that are none of these, and are not read.
    """

    x: str
    y: tuple[str, ...]
    group: str | None = None
    time: str | None = None
    weight: str | None = None
    left: tuple[str, ...] = ()


class _Words(NamedTuple):
    """Meaning of a name: a part of the data set, and the rest in lower case."""

    part: str
    rest: tuple[str, ...]


def find_roles(names: Iterable[str], source: DatasetSource, where: str) -> dict[str, ArrayRoles]:
    """Return the roles of arrays by part; arrays of no part are training data.

    Args:
        names: of all arrays.
        source: the names of the labels, groups, times and weights, with or without the part, and of what is dropped.
        where: the beginning of an error's line: the file.

    Raises:
        DataError: there are none; it is not clear which holds the samples, or the labels; one that is asked for is
            missing.
    """
    words = {name: _split(name) for name in names}
    dropped = {_split(name).rest for name in source.drop}
    parts: dict[str, dict[tuple[str, ...], str]] = {}
    for name, (part, rest) in words.items():
        if rest not in dropped and name not in source.drop:
            parts.setdefault(part, {})[rest] = name
    if not parts:
        raise DataError(f"{where}: holds no arrays; save some that are called x and y, or x_train and y_train")
    return {part: _assign(part, held, source, where) for part, held in parts.items()}


def find_samples(names: Sequence[str], where: str) -> str:
    """Return the one array of samples to predict: the only one, or that of the test part.

    Args:
        names: of all arrays.
        where: the beginning of an error's line: the file.

    Raises:
        DataError: there is none, or it is not clear which.
    """
    words = {name: _split(name) for name in names}
    called = [name for name in names if _is_called(words[name].rest, SAMPLE_NAMES)] or list(names)
    for among in (called, [name for name in called if words[name].part == "test"]):
        if len(among) == 1:
            return among[0]
    which = f"{_list(called)} may be the samples" if called else "holds no arrays"
    raise DataError(f"{where}: {which}; save those to predict alone, as x")


def find_family(name: str) -> tuple[str, ...]:
    """Return what names of one data set's arrays have in common: `mnist_x_train` and `mnist_y_test` have `mnist`."""
    return tuple(word for word in _split(name).rest if word not in SAMPLE_NAMES | LABEL_NAMES)


def _split(name: str) -> _Words:
    if name.lower() in SAMPLE_NAMES | LABEL_NAMES:
        return _Words("train", (name.lower(),))
    words = [word.lower() for word in re.split(r"[^A-Za-z0-9]+|(?<=[a-z0-9])(?=[A-Z])", name) if word]
    if len(words) == 1 and (joined := JOINED.match(words[0])):
        words = [word for word in joined.groups() if word]
    parts = [PARTS[word] for word in words if word in PARTS]
    return _Words(parts[0] if parts else "train", tuple(word for word in words if word not in PARTS))


def _assign(part: str, held: dict[tuple[str, ...], str], source: DatasetSource, where: str) -> ArrayRoles:
    labels = tuple(_find(held, name, "label", where, part) for name in source.label)
    training = part == "train"
    named = {key: getattr(source, key) for key in ("group", "time", "weight")}
    extra = {key: _find(held, name, key, where, part) if training else None for key, name in named.items() if name}
    taken = {*labels, *extra.values(), *(held.get(_split(name).rest) for name in named.values() if name)}
    free = {words: name for words, name in held.items() if name not in taken}
    if not labels:
        free, labels = _take_labels(free, where, part)
    samples = _choose_samples(free, where, part)
    return ArrayRoles(samples, labels, **extra, left=tuple(name for name in free.values() if name != samples))


def _find(held: dict[tuple[str, ...], str], wanted: str, key: str, where: str, part: str) -> str:
    found = next((name for name in held.values() if name == wanted), None) or held.get(_split(wanted).rest)
    if found is None:
        near = find_closest(wanted, held.values())
        hint = f"did you mean '{near}'?" if near else f"it has {_list(held.values())}"
        raise DataError(f"{where}: {key} = {shorten(wanted)}: there is no such array of its {part} data; {hint}")
    return found


def _take_labels(
    free: dict[tuple[str, ...], str], where: str, part: str
) -> tuple[dict[tuple[str, ...], str], tuple[str, ...]]:
    """Return the other arrays, and those that are the labels: the one that is called so, or the only one left."""
    named = {words: name for words, name in free.items() if _is_called(words, LABEL_NAMES)}
    others = {words: name for words, name in free.items() if words not in named}
    if not named and len(others) == 2:
        samples = [words for words in others if _is_called(words, SAMPLE_NAMES)]
        named = {words: name for words, name in others.items() if len(samples) == 1 and words not in samples}
    if len(named) == 1:
        return {words: name for words, name in free.items() if words not in named}, tuple(named.values())
    if len(others) == 1 and not named:
        raise DataError(
            f"{where}: holds one array of its {part} data, {_list(others.values())}, and no labels; give a .npz with X "
            "and y, or put y.npy beside x.npy"
        )
    which = f"{_list(named.values())} may be the labels" if named else f"has no labels among {_list(free.values())}"
    raise DataError(f"{where}: {which} of its {part} data; say which: label = …")


def _choose_samples(free: dict[tuple[str, ...], str], where: str, part: str) -> str:
    named = [name for words, name in free.items() if _is_called(words, SAMPLE_NAMES)] or list(free.values())
    if len(named) == 1:
        return named[0]
    which = f"{_list(named)} may be the samples" if named else "has no samples"
    raise DataError(f"{where}: {which} of its {part} data; call them x, or leave out the others: drop = […]")


def _is_called(words: Sequence[str], names: frozenset[str]) -> bool:
    return "_".join(words) in names or any(word in names for word in words)


def _list(names: Iterable[str]) -> str:
    return shorten(", ".join(sorted(names)), 120, quote=False) or "no arrays"
