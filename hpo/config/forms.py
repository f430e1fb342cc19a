"""Forms of texts that are values: names or numbers joined by a sign, and names of files."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field

__all__ = ["FileName", "Form", "JoinedNames", "JoinedNumbers"]


@dataclass(frozen=True)
class Form(ABC):
    """Form that each value of a parameter has.

    Attributes:
        separator: what joins the parts of a list that is written as one text; None of a text that is no list.
    """

    separator: str | None

    @abstractmethod
    def find_fault(self, text: str) -> str | None:
        """Return what is wrong with a text and what is valid, or None."""


@dataclass(frozen=True)
class JoinedNames(Form):
    """Names, one or several."""

    separator: str
    names: tuple[str, ...]

    def find_fault(self, text: str) -> str | None:
        """Return which name is unknown, and the valid ones."""
        wrong = [name for name in text.split(self.separator) if name not in self.names]
        example = self.separator.join(self.names[:2])
        valid = f"{', '.join(self.names)}; several are joined by '{self.separator}', as in {example}"
        return f"unknown '{wrong[0]}'; valid: {valid}" if wrong else None


@dataclass(frozen=True)
class JoinedNumbers(Form):
    """Whole numbers from 1 to `high`, `most` of them at most."""

    separator: str
    high: int
    most: int

    def find_fault(self, text: str) -> str | None:
        """Return which number is out of bounds, or how many are too many."""
        parts = text.split(self.separator)
        if wrong := [part for part in parts if not self._is_valid(part)]:
            example = self.separator.join(("64", "32"))
            return f"'{wrong[0]}' is no whole number from 1 to {self.high}; write a list, or join them as in {example}"
        return f"has {len(parts)} numbers, and at most {self.most} are valid" if len(parts) > self.most else None

    def _is_valid(self, part: str) -> bool:
        return re.fullmatch(r"[1-9][0-9]{0,8}", part) is not None and int(part) <= self.high


@dataclass(frozen=True)
class FileName(Form):
    """Path of a file of one of some kinds."""

    separator: None = field(default=None, init=False)
    suffixes: tuple[str, ...]

    def find_fault(self, text: str) -> str | None:
        """Return how its name must end."""
        return None if text.endswith(self.suffixes) else f"the file's name must end in {_join(self.suffixes)}"


def _join(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}"
