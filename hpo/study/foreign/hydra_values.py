"""Values that a Hydra override gives a parameter, such as `choice(1, 2)`, `tag(log, interval(1e-5, 1e-1))` or `a, b`.

Source: "Basic Override syntax" and "Extended Override syntax" of Hydra's documentation, version 1.3. Nothing is
evaluated but the functions of that grammar.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from hpo.errors import DefinitionError
from hpo.study.foreign.domains import ComputedError
from hpo.utils.text import shorten

__all__ = ["ChoiceSweep", "IntervalSweep", "RangeSweep", "Sweep", "parse_value"]

DEPTH_LIMIT = 16
LENGTH_LIMIT = 1000  # values of a range

LETTER = r"\$\{[^}]*\}|\\.|[^,()\[\]{}:=\s'\"\\]"  # an interpolation, an escaped character, or another one
BLANKS = r"[ \t]+(?=[^,()\[\]{}:=\s'\"])"  # within a text
TOKEN = re.compile(
    rf"""\s*(?:(?P<quoted>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')
    |(?P<mark>[,()\[\]{{}}:=])
    |(?P<word>(?:{LETTER})(?:{LETTER}|{BLANKS})*))""",
    re.VERBOSE | re.DOTALL,
)
WHOLE = r"(?:0|[1-9](?:_?\d)*)"
POINT = rf"(?:{WHOLE}\.(?:\d(?:_?\d)*)?|\.\d(?:_?\d)*)"
NUMBER = re.compile(rf"[+-]?(?:(?:{WHOLE}|{POINT})[eE][+-]?\d(?:_?\d)*|{POINT}|{WHOLE}|inf|nan)", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class ChoiceSweep:
    """Listed values."""

    values: tuple[Any, ...]
    tags: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True)
class RangeSweep:
    """Numbers from `start` in steps; whether `stop` is one of them, the sweeper decides. Shuffled, it never is."""

    start: float
    stop: float
    step: float = 1
    shuffled: bool = False
    tags: frozenset[str] = frozenset()

    def values(self) -> tuple[Any, ...]:
        """Return the numbers before `stop`."""
        length = math.ceil((self.stop - self.start) / self.step - 1e-9)
        if length > LENGTH_LIMIT:
            raise DefinitionError(f"range: has more than {LENGTH_LIMIT:,} values")
        numbers = [self.start + index * self.step for index in range(length)]
        return tuple(number if isinstance(number, int) else float(f"{number:.12g}") for number in numbers)


@dataclasses.dataclass(frozen=True)
class IntervalSweep:
    """Numbers between two; whole ones if both ends were cast to `int`."""

    start: float
    end: float
    tags: frozenset[str] = frozenset()


Sweep = ChoiceSweep | RangeSweep | IntervalSweep


def parse_value(text: str) -> Any:
    """Parse a value: a number, text, switch, None, list or table, or a sweep over several.

    Raises:
        ComputedError: only Hydra knows its values.
        DefinitionError: it does not follow Hydra's grammar, or names a function that Hydra does not have.
    """
    if not text.strip():
        return ""
    try:
        parser = _Parser(text)
        elements = [parser.element(0)]
        while parser.accept(","):
            elements.append(parser.element(0))
        parser.end()
        if len(elements) == 1:
            return elements[0]
        return ChoiceSweep(_plain(elements))
    except ComputedError as error:
        raise ComputedError(f"{shorten(text)}: {error}", text) from error
    except DefinitionError as error:
        raise DefinitionError(f"{shorten(text)}: {error}") from error


def _plain(values: Any) -> tuple[Any, ...]:
    if any(isinstance(value, Sweep) for value in values):
        raise DefinitionError("a sweep within a sweep is not allowed")
    return tuple(values)


class _Parser:
    """Parser of one value, by recursive descent."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.place = 0
        self.kind, self.token = "", ""
        self._advance()

    def _advance(self) -> None:
        if not self.text[self.place :].strip():
            self.kind, self.token = "end", ""
            return
        match = TOKEN.match(self.text, self.place)
        if match is None:
            raise DefinitionError(f"character {self.place + 1} cannot be read")
        self.place = match.end()
        self.kind = str(match.lastgroup)
        self.token = match[self.kind]

    def accept(self, mark: str) -> bool:
        """Go beyond a mark, if it comes next."""
        if self.kind != "mark" or self.token != mark:
            return False
        self._advance()
        return True

    def expect(self, mark: str) -> None:
        """Go beyond a mark.

        Raises:
            DefinitionError: another comes next.
        """
        if not self.accept(mark):
            raise DefinitionError(f"{mark} is missing before {shorten(self.token) if self.token else 'its end'}")

    def end(self) -> None:
        """Check that nothing is left.

        Raises:
            DefinitionError: something is.
        """
        if self.kind != "end":
            raise DefinitionError(f"{shorten(self.token)} does not belong there")

    def element(self, depth: int) -> Any:
        """Parse a text, a number, a list, a table or a function's call."""
        if depth > DEPTH_LIMIT:
            raise DefinitionError(f"has more than {DEPTH_LIMIT} brackets within each other")
        if self.accept("["):
            return self._items("]", depth)
        if self.accept("{"):
            return self._pairs(depth)
        kind, token = self.kind, self.token
        if kind in ("end", "mark") and token != ":":
            raise DefinitionError(f"a value is missing before {shorten(token) if token else 'its end'}")
        self._advance()
        if kind == "quoted":
            return re.sub(r"\\(.)", r"\1", token[1:-1])
        if self.accept("("):
            return self._call(token.strip(), depth)
        while self.kind == "mark" and self.token == ":":  # which a text may have in it, as an address has
            token += self.token
            self._advance()
            if self.kind == "word":
                token += self.token
                self._advance()
        return _classify(token.strip())

    def _items(self, close: str, depth: int) -> list[Any]:
        items: list[Any] = []
        while not self.accept(close):
            if items:
                self.expect(",")
            items.append(self.element(depth + 1))
        return items

    def _pairs(self, depth: int) -> dict[str, Any]:
        table: dict[str, Any] = {}
        while not self.accept("}"):
            if table:
                self.expect(",")
            key = self.token
            self._advance()
            self.expect(":")
            table[key] = self.element(depth + 1)
        return table

    def _call(self, name: str, depth: int) -> Any:
        arguments: list[Any] = []
        words: dict[str, Any] = {}
        while not self.accept(")"):
            if arguments or words:
                self.expect(",")
            arguments += self._argument(words, depth)
        if name not in FUNCTIONS:
            raise DefinitionError(f"there is no function {shorten(name)}")
        try:
            return FUNCTIONS[name](*arguments, **words)
        except (LookupError, TypeError, ValueError, OverflowError) as error:
            raise DefinitionError(f"{name} has the wrong arguments") from error

    def _argument(self, words: dict[str, Any], depth: int) -> list[Any]:
        """Parse an argument: return it in a list, or add it to `words` if it has a name."""
        word = self.kind == "word" and re.match(r"\s*=", self.text[self.place :])
        if not word:
            return [self.element(depth + 1)]
        name = self.token.strip()
        self._advance()
        self.expect("=")
        words[name] = self.element(depth + 1)
        return []


def _classify(text: str) -> Any:
    """Return the number, switch or None that a word without quotes stands for, or its text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if text.lower() == "null":
        return None
    if NUMBER.fullmatch(text):
        try:
            return int(text)
        except ValueError:
            return float(text)
    return re.sub(r"\\(.)", r"\1", text)


# Functions.


def _choice(*values: Any) -> ChoiceSweep:
    if len(values) == 1 and isinstance(values[0], ChoiceSweep):
        return values[0]
    if not values:
        raise DefinitionError("choice has no values")
    return ChoiceSweep(_plain(values))


def _range(start: float, stop: float | None = None, step: float = 1) -> RangeSweep:
    start, stop = (0, start) if stop is None else (start, stop)
    if not all(isinstance(each, int | float) and math.isfinite(each) for each in (start, stop, step)) or not step:
        raise DefinitionError("range takes numbers, and a step that is not 0")
    return RangeSweep(start, stop, step)


def _interval(start: float, end: float) -> IntervalSweep:
    return IntervalSweep(float(start), float(end))


def _tag(*arguments: Any, sweep: Any = None) -> Sweep:
    *names, last = (*arguments, *([] if sweep is None else [sweep]))
    if not isinstance(last, Sweep):
        raise DefinitionError("tag takes names, and a choice, range or interval at the end")
    return dataclasses.replace(last, tags=frozenset(map(str, names)))


def _first_values(arguments: tuple[Any, ...], words: Mapping[str, Any]) -> Any:
    """Return the sweep, the list or the value that a function is applied to; a choice if there are several."""
    values = arguments or tuple(words[name] for name in ("sweep", "list") if name in words)
    if not values:
        raise DefinitionError("there is nothing to sort or shuffle")
    return ChoiceSweep(_plain(values)) if len(values) > 1 else values[0]


def _shuffle(*arguments: Any, **words: Any) -> Any:
    """Return the sweep: the order of listed values is nothing that a search depends on."""
    found = _first_values(arguments, words)
    return dataclasses.replace(found, shuffled=True) if isinstance(found, RangeSweep) else found


def _sort(*arguments: Any, **words: Any) -> Any:
    return _first_values(arguments, words)


def _glob(*_arguments: Any, **_words: Any) -> Any:
    raise ComputedError("glob selects files, which only Hydra finds; list their names: choice(a, b)", "glob")


def _cast(kind: Callable[[Any], Any], *arguments: Any, value: Any = None) -> Any:
    """Return a value, the values of a list, table or choice, or the ends of a sweep, in another type."""
    values = arguments or (value,)
    if len(values) > 1:
        return ChoiceSweep(tuple(kind(each) for each in values))
    match values[0]:
        case ChoiceSweep() as sweep:
            return dataclasses.replace(sweep, values=tuple(kind(each) for each in sweep.values))
        case RangeSweep() as sweep if kind in (int, float):
            return dataclasses.replace(sweep, start=kind(sweep.start), stop=kind(sweep.stop), step=kind(sweep.step))
        case IntervalSweep() as sweep if kind in (int, float):
            return dataclasses.replace(sweep, start=kind(sweep.start), end=kind(sweep.end))
        case list() as items:
            return [kind(each) for each in items]
        case Mapping() as table:
            return {key: kind(each) for key, each in table.items()}
        case str() | int() | float() as single:
            return kind(single)
    raise DefinitionError(f"{kind.__name__.strip('_')} cannot be applied to that")


def _bool(value: Any) -> bool:
    if isinstance(value, str):
        return {"true": True, "false": False}[value.lower()]
    return bool(value)


def _str(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "choice": _choice,
    "range": _range,
    "interval": _interval,
    "tag": _tag,
    "shuffle": _shuffle,
    "sort": _sort,
    "glob": _glob,
    "int": lambda *values, **words: _cast(int, *values, **words),
    "float": lambda *values, **words: _cast(float, *values, **words),
    "str": lambda *values, **words: _cast(_str, *values, **words),
    "bool": lambda *values, **words: _cast(_bool, *values, **words),
}
