"""Domains that fields of a class of parameters declare, such as `learning_rate: float = hpo.Float(1e-4, 1e-1)`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from hpo.config.values import Value

__all__ = ["DeclaredDomain", "declared_domains"]


@dataclass(frozen=True)
class DeclaredDomain:
    """Domain that a field declares.

    Attributes:
        literal: the domain as a space takes it.
        contains: whether it contains a value.
        text: the domain in words.
        choices: its values in plain form, if it is a list of them.
    """

    literal: Any
    contains: Callable[[Any], bool]
    text: str
    choices: tuple[Value, ...] = ()

    def allows(self, value: Value) -> bool:
        """Return whether it contains a value in plain form and the parameter's type."""
        return value in self.choices if self.choices else self.contains(value)


def declared_domains(parameters: type[BaseModel] | None) -> dict[str, DeclaredDomain]:
    """Return the domains that the fields of a class declare, by name."""
    fields = {} if parameters is None else parameters.model_fields
    return {name: item for name, info in fields.items() for item in info.metadata if isinstance(item, DeclaredDomain)}
