"""Domains as pydantic fields: a class of parameters declares type, bounds and what is searched in one line.

```python
class Mine(BaseModel):
    learning_rate: float = hpo.Float(1e-4, 1e-1, log=True)
    hidden_sizes: list[int] = hpo.Categorical([[128, 64], [256]])
```

What they return is also a domain of an `hpo.Space`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import AfterValidator, Field
from pydantic_core import PydanticUndefined

from hpo.config.declared_domain import DeclaredDomain
from hpo.config.values import Value, spell_value
from hpo.errors import SpaceError
from hpo.space import domains
from hpo.space.domains import Domain, Range
from hpo.utils.text import shorten

__all__ = ["Categorical", "Float", "Int"]

When = Mapping[str, Any]


def Float(  # noqa: N802  # as the domain, whose place it takes
    low: float,
    high: float,
    log: bool = False,
    step: float | None = None,
    *,
    when: When | None = None,
    default: Any = PydanticUndefined,
    description: str | None = None,
) -> Any:
    """Declare real numbers from `low` to `high`, both inclusive.

    Args:
        low, high: the bounds.
        log: spread the values evenly over their logarithms.
        step: distance of the values, from `low` on; it must divide the range.
        when: a condition: per parameter a value, a list, or a table with low and high.
        default: the field's default; the middle of the range if it is left out, of a logarithmic one the geometric
            mean.
        description: a phrase that explains the parameter.

    Raises:
        SpaceError: a rule is broken, or the default is outside the domain.
    """
    return _make_range(domains.Float(low, high, log, step, when or {}), default, description)


def Int(  # noqa: N802
    low: int,
    high: int,
    log: bool = False,
    step: int = 1,
    *,
    when: When | None = None,
    default: Any = PydanticUndefined,
    description: str | None = None,
) -> Any:
    """Declare whole numbers from `low` to `high`, both inclusive; see `Float`, whose arguments it has."""
    return _make_range(domains.Int(low, high, log, None if step == 1 else step, when or {}), default, description)


def Categorical(  # noqa: N802
    choices: Sequence[Any],
    *,
    when: When | None = None,
    default: Any = PydanticUndefined,
    description: str | None = None,
) -> Any:
    """Declare a list of values: bools, numbers, texts, None, which is off, or lists.

    Args:
        choices: the values.
        when: a condition; see `Float`.
        default: the field's default; the first choice if it is left out.
        description: a phrase that explains the parameter.

    Raises:
        SpaceError: there are no choices, one occurs twice, or the default is none of them.
    """
    domain = domains.Choices(tuple(choices), when or {})
    values = list(map(_comparable, choices))
    default = choices[0] if default is PydanticUndefined else default
    return _make_field(domain, lambda value: _comparable(value) in values, default, description, domain.values)


def _make_range(domain: Range, default: Any, description: str | None) -> Any:
    if default is PydanticUndefined:
        middle = domain.at(0.5)
        default = middle if domain.contains(middle) else domain.low  # of steps so fine that rounding tells them apart
    return _make_field(domain, domain.contains, default, description)


def _make_field(
    domain: Domain,
    contains: Callable[[Any], bool],
    default: Any,
    description: str | None,
    choices: tuple[Value, ...] = (),
) -> Any:
    text = _describe(domain)

    def check(value: Any) -> Any:
        if not contains(value):
            raise ValueError(f"must be {text}")
        return value

    if not contains(default):
        raise SpaceError(f"default = {shorten(default)}: must be {text}")
    info = Field(default, description=description)
    info.metadata += [DeclaredDomain(domain, contains, text, choices), AfterValidator(check)]
    return info


def _comparable(value: Any) -> Any:
    """Return a value so that equals are equal: a tuple and a list, and 1 and 1.0 in them."""
    return json.loads(json.dumps(value)) if isinstance(value, list | tuple) else value


def _describe(domain: Domain) -> str:
    if isinstance(domain, Range):
        step = "" if domain.step is None else f" in steps of {domain.step:g}"
        return f"from {domain.low:g} to {domain.high:g}{step}"
    return " or ".join(map(spell_value, domain.points()))
