"""Domains as other tools describe them: the same ranges and choices, or the nearest, with a note on what differs."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Any, TypeVar

from hpo.errors import DefinitionError, ImportRefusedError, RequestError
from hpo.study.foreign.search import Choices, Computed, Constant, ForeignDomain, ForeignParameter, Range
from hpo.utils.text import shorten

__all__ = [
    "ComputedError",
    "Problems",
    "approximate",
    "clipped",
    "continuous",
    "count",
    "list_choices",
    "multiples",
    "normal",
    "number",
    "read_each",
    "rounded",
    "stepped",
    "whole",
    "whole_below",
]

Item = TypeVar("Item")
Result = TypeVar("Result")
Other = TypeVar("Other")

SIGMAS = 2  # half the width of the range that replaces a normal distribution: 95 % of it
DIGITS = 18  # of a whole number of 64 bits
HALF = Fraction(1, 2)
VANISHING = Fraction(1, 10**6)  # part of a step; if so little of a range rounds to a multiple, none does
LISTED = 100  # values of a quantized range that is given as a list, because its ends lie between its steps


class ComputedError(DefinitionError):
    """Parameter that has values, but none that its file says.

    Args:
        message: for a person.
        expression: as the file has it.
    """

    def __init__(self, message: str, expression: str) -> None:
        super().__init__(message)
        self.expression = expression


class Problems:
    """Collection of all that is wrong with a file, so that it is refused once.

    Attributes:
        lines: one for each.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []

    def attempt(self, read: Callable[[], Result], otherwise: Other) -> Result | Other:
        """Return what `read` returns; where it finds the file wrong, keep what it says, and return the other."""
        try:
            return read()
        except ImportRefusedError as error:
            self.lines += error.lines
        except RequestError as error:
            self.lines.append(str(error))
        return otherwise

    def check(self, what: str = "things") -> None:
        """Refuse the file, if anything was wrong.

        Raises:
            DefinitionError: one thing was.
            ImportRefusedError: several were; `lines` has them.
        """
        if len(self.lines) == 1:
            raise DefinitionError(self.lines[0])
        if self.lines:
            raise ImportRefusedError(f"{len(self.lines)} {what} cannot be read, each on a line above", self.lines)


def read_each(
    items: Iterable[tuple[str, Item]], read: Callable[[str, Item], Iterable[ForeignParameter]]
) -> list[ForeignParameter]:
    """Read named items one by one; what cannot be read is a parameter, too, whose domain says why.

    A user may leave it out; else `hpo.study.foreign.readers` refuses it.

    Args:
        items: each with its name.
        read: returns the parameters that an item is, or raises a RequestError that does not name it.
    """
    parameters: list[ForeignParameter] = []
    for name, item in items:
        try:
            parameters += read(name, item)
        except ComputedError as error:
            parameters.append(ForeignParameter((name,), Computed(error.expression, str(error))))
        except RequestError as error:
            parameters.append(ForeignParameter((name,), Computed("", str(error))))
    return parameters


def number(value: object, what: str) -> float:
    """Return a finite number, which may be written as a text.

    Raises:
        DefinitionError: it is none; the message names it as `what`.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        found: float = value
    else:
        found = _parse_number(value)
    if not math.isfinite(found):
        raise DefinitionError(f"{what} = {shorten(value)}: must be a number")
    return found


def _parse_number(value: object) -> float:
    """Return the number that a text is, which YAML makes of 1e-4; not a number if it is none."""
    text = value.strip() if isinstance(value, str) else ""
    for kind in (int, float) if len(text) < DIGITS else (float,):
        try:
            return kind(text)
        except ValueError:
            continue
    return math.nan


def count(value: object, what: str) -> int:
    """Return a whole number above 0.

    Raises:
        DefinitionError: it is none; the message names it as `what`.
    """
    found = number(value, what)
    if found != int(found) or found < 1:
        raise DefinitionError(f"{what} = {shorten(value)}: must be a whole number above 0")
    return int(found)


def list_choices(values: object, weights: Sequence[float] | None = None) -> Constant | Choices:
    """Return the values of a list, each once; those that it repeats are more probable.

    Args:
        values: the list.
        weights: how probable each is, by any measure; None if they are equal.

    Raises:
        DefinitionError: it is no list, or an empty one.
    """
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise DefinitionError(f"{shorten(values)}: must be a list of values")
    distinct: list[Any] = []
    counts: list[float] = []
    for value, weight in zip(values, weights or [1] * len(values), strict=True):
        place = next((i for i, each in enumerate(distinct) if value == each and type(value) is type(each)), None)
        if place is None:
            distinct.append(value)
            counts.append(weight)
        else:
            counts[place] += weight
    if len(distinct) == 1:
        return Constant(distinct[0])
    probabilities = None if len(set(counts)) == 1 else tuple(each / sum(counts) for each in counts)
    return Choices(tuple(distinct), probabilities)


def continuous(low: float, high: float, *, log: bool = False) -> Range | Constant:
    """Return the real numbers from one end to another.

    Raises:
        DefinitionError: the ends are in the wrong order, or not above 0 on a logarithmic scale.
    """
    _check_ends(low, high, log=log)
    return Constant(float(low)) if low == high else Range(float(low), float(high), log=log)


def whole(low: float, high: float, *, log: bool = False) -> Range | Constant:
    """Return the whole numbers from one end to another, both inclusive.

    Raises:
        DefinitionError: as of `continuous`, or there is none between them.
    """
    _check_ends(low, high, log=log)
    first, last = math.ceil(low), math.floor(high)
    if first > last:
        raise DefinitionError(f"{low:g} to {high:g}: there is no whole number in that range")
    return Constant(first) if first == last else Range(first, last, log=log, integer=True)


def whole_below(low: float, high: float, *, log: bool = False) -> Range | Constant:
    """Return the whole numbers from one end to below another.

    Raises:
        DefinitionError: as of `whole`.
    """
    if high <= low:
        raise DefinitionError(f"from {low:g} to below {high:g}: there is no whole number in that range")
    return whole(low, high - 1, log=log)


def stepped(low: float, high: float, step: float, *, integer: bool) -> Range | Constant:
    """Return the numbers that lie on steps from the lower end; the last is the one that a step reaches.

    Raises:
        DefinitionError: the ends are in the wrong order, or the step is not above 0.
    """
    _check_ends(low, high, log=False)
    if step <= 0:
        raise DefinitionError(f"step = {step:g}: must be above 0")
    first, distance = _exact(low), _exact(step)
    if integer and not (first.denominator == distance.denominator == 1):
        raise DefinitionError(f"{low:g}, {low + step:g}, …: must be whole numbers")
    last = first + (_exact(high) - first) // distance * distance
    kind: type[int] | type[float] = int if integer else float
    if first == last:
        return Constant(kind(first))
    return Range(kind(first), kind(last), step=None if integer and distance == 1 else kind(distance), integer=integer)


def rounded(low: float, high: float, q: float, *, log: bool = False) -> tuple[Range | Constant, str]:
    """Return the values of round(x / q) * q, x evenly between the ends, and a note on what differs.

    An end that lies just between two multiples is rounded to one of them alone by almost every draw. On a logarithmic
    scale steps have no equivalent, unless they are the whole numbers.

    Raises:
        DefinitionError: as of `continuous` and `stepped`.
    """
    first, last, distance = _round(low, high, q, log=log)
    is_lost = log and first == 0  # which is said below
    beyond = [f"{float(first):g}, below {low:g}"] if first < _exact(low) and not is_lost else []
    beyond += [f"{float(last):g}, above {high:g}"] if last > _exact(high) else []
    note = f"it is round(x / {q:g}) * {q:g} there, which reaches {' and '.join(beyond)}" if beyond else ""
    domain, lost = _spread(first, last, distance, log=log)
    return domain, "; ".join(filter(None, (note, lost)))


def clipped(low: float, high: float, q: float, *, log: bool = False) -> tuple[ForeignDomain, str]:
    """Return the values of clip(round(x / q) * q, low, high), x evenly between the ends, and a note on what differs.

    They are the multiples of q, and the ends where rounding would leave the range.

    Raises:
        DefinitionError: as of `continuous` and `stepped`.
    """
    first, last, distance = _round(low, high, q, log=log)
    lowest, highest = (max(_exact(low), min(_exact(high), end)) for end in (first, last))
    if log or (lowest % distance == 0 and highest % distance == 0):
        return _spread(lowest, highest, distance, log=log)
    inner_low, inner_high = -(-lowest // distance), highest // distance
    if inner_high - inner_low > LISTED:
        note = f"its ends between the multiples of {q:g} have no equivalent and are left out"
        return _spread(inner_low * distance, inner_high * distance, distance, log=False)[0], note
    values = sorted({lowest, *(place * distance for place in range(inner_low, inner_high + 1)), highest})
    integer = all(value.denominator == 1 for value in values)
    return list_choices([int(value) if integer else float(value) for value in values]), ""


def multiples(low: float, high: float, q: float, *, log: bool = False) -> tuple[Range | Constant, str]:
    """Return the multiples of q between two ends, and a note on what differs.

    Raises:
        DefinitionError: as of `continuous` and `stepped`, or there is none between them.
    """
    _round(low, high, q, log=log)
    distance = _exact(q)
    first, last = -(-_exact(low) // distance) * distance, _exact(high) // distance * distance
    if first > last:
        raise DefinitionError(f"{low:g} to {high:g}: there is no multiple of {q:g} in that range")
    return _spread(first, last, distance, log=log)


def _round(low: float, high: float, q: float, *, log: bool) -> tuple[Fraction, Fraction, Fraction]:
    """Return the least and the greatest multiple of q that more than a vanishing part of a range rounds to, and q."""
    _check_ends(low, high, log=log)
    if q <= 0:
        raise DefinitionError(f"q = {q:g}: must be above 0")
    distance = _exact(q)
    bottom, top = _exact(low) / distance, _exact(high) / distance
    first, last = math.floor(bottom + HALF + VANISHING), math.ceil(top - HALF - VANISHING)
    if first > last:  # the whole range lies just between two multiples
        first = last = round(bottom)
    if max(abs(first), abs(last)) * distance > sys.float_info.max:
        raise DefinitionError(f"{low:g} to {high:g}: rounding to multiples of {q:g} reaches beyond all numbers")
    return first * distance, last * distance, distance


def _spread(first: Fraction, last: Fraction, q: Fraction, *, log: bool) -> tuple[Range | Constant, str]:
    """Return the numbers from one value to another in steps of q, or on a logarithmic scale without them."""
    integer = all(each.denominator == 1 for each in (first, last, q))
    low, high, step = float(first), float(last), float(q)
    if not log or first == last:
        return stepped(low, high, step, integer=integer), ""
    notes = []
    if not (integer and q == 1):
        notes.append(f"its steps of {step:g} on a logarithmic scale have no equivalent and are left out")
    if first <= 0:
        low = step
        notes.append("0, to which the smallest are rounded, has no place on a logarithmic scale")
    return (whole if integer else continuous)(low, high, log=True), "; ".join(notes)


def normal(
    mu: float, sigma: float, written: str, *, log: bool = False, q: float | None = None
) -> tuple[Range | Constant, str]:
    """Return the range that holds 95 % of a normal distribution, and a note.

    Args:
        mu, sigma: of the number, or of its logarithm.
        written: the distribution as the file has it.
        log: whether it is the logarithm that is normal.
        q: the numbers are rounded to multiples of it; None if they are not.

    Raises:
        DefinitionError: sigma is below 0, or the range has no end.
    """
    if sigma < 0:
        raise DefinitionError(f"{written}: its standard deviation must be from 0")
    low, high = mu - SIGMAS * sigma, mu + SIGMAS * sigma
    try:
        low, high = (math.exp(low), math.exp(high)) if log else (low, high)
    except OverflowError:
        low = high = math.inf
    return approximate(low, high, written, log=log, q=q)


def approximate(
    low: float, high: float, written: str, *, log: bool = False, q: float | None = None
) -> tuple[Range | Constant, str]:
    """Return the range that replaces a distribution without an equivalent, and a note.

    Args:
        low, high: hold nearly all of it.
        written: the distribution as the file has it.
        log: whether the range is on a logarithmic scale.
        q: the numbers are rounded to multiples of it; None if they are not.

    Raises:
        DefinitionError: the range has no end, or q is not above 0.
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        raise DefinitionError(f"{written}: reaches beyond all numbers that a parameter can have")
    domain: Range | Constant
    if q is None:
        domain, lost = continuous(float(f"{low:.4g}"), float(f"{high:.4g}"), log=log), ""
    else:
        first, last, distance = _round(low, high, q, log=log)
        domain, lost = _spread(first, last, distance, log=log)
    scale = "evenly on a logarithmic scale" if log else "evenly"
    if isinstance(domain, Constant):
        replacement = f"{domain.value:g}"
    else:
        steps = f" in steps of {domain.step:g}" if domain.step else ""
        replacement = f"{domain.low:g} to {domain.high:g}{steps}, {scale},"
    return domain, "; ".join(filter(None, (f"{written} has no equivalent: {replacement} replaces it", lost)))


def _check_ends(low: float, high: float, *, log: bool) -> None:
    if low > high:
        raise DefinitionError(f"{low:g} to {high:g}: the lower end is above the upper one")
    if log and low <= 0:
        raise DefinitionError(f"{low:g} to {high:g}: a logarithmic scale begins above 0")


def _exact(value: float) -> Fraction:
    """Return a number as it is written: 0.1 is a tenth."""
    return Fraction(str(value))
