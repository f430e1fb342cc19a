"""Fields of a generated training loop: every parameter of another tool's search, with its type and its domain."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hpo.config.trial_config import all_parameters, is_shared
from hpo.config.values import plain_value
from hpo.errors import ConfigError, DefinitionError
from hpo.space.domains import STEPS_LIMIT
from hpo.study.foreign.loop_names import list_values, name_fields
from hpo.study.foreign.search import Choices, Computed, Constant, ForeignParameter, ForeignSearch, Range

__all__ = ["LoopField", "find_places", "iterate_lines", "longest_epochs", "make_fields", "write"]

Scalar = bool | int | float | str


@dataclass(frozen=True)
class LoopField:
    """Field of the class of parameters.

    Attributes:
        name: a Python identifier.
        theirs: the parameter.
        annotation: its type as Python writes it.
        value: its default or its domain, as Python writes it; empty for a constant that is one of our shared
            parameters, which the study file sets.
        shared: whether it is one of our shared parameters, such as epochs.
        constant: the value of such a constant.
        when: the values of other fields under which it exists, as a configuration has them.
        encoded: whether its values are texts that hold JSON: tables, and lists of mixed types.
        note: what differs.
    """

    name: str
    theirs: ForeignParameter
    annotation: str
    value: str
    shared: bool = False
    constant: Any = None
    encoded: bool = False
    note: str = ""
    when: Mapping[str, list[Any]] = field(default_factory=dict)

    def line(self) -> str:
        """Return the field as a line of Python."""
        return f"{self.name}: {self.annotation} = {self.value}"


def make_fields(search: ForeignSearch) -> list[LoopField]:
    """Return a field for each parameter of a search; none is left out but those that the file computes.

    Raises:
        DefinitionError: a domain is none that a parameter can have; the message names the parameter.
    """
    parameters = [each for each in search.parameters if not isinstance(each.domain, Computed)]
    names = name_fields(search, parameters)
    by_name: dict[str, str] = {}
    for parameter, name in zip(parameters, names, strict=True):
        by_name.setdefault(parameter.name, name)
    listed = [each for each in parameters if not isinstance(each.domain, Range)]
    encoded = {each.name for each in listed if _is_encoded(list_values(each.domain))}
    fields = []
    for parameter, name in zip(parameters, names, strict=True):
        when = {
            by_name.get(parent, parent): [_plain(value, encoded=parent in encoded) for value in values]
            for parent, values in parameter.when.items()
        }
        held = {
            by_name.get(parent, parent): [json.dumps(value) if parent in encoded else value for value in values]
            for parent, values in parameter.when.items()
        }
        try:
            fields.append(replace(_make_field(parameter, name, when), when=held))
        except (ConfigError, DefinitionError) as error:
            raise DefinitionError(f"{parameter.name}: {error}") from error
    return fields


def longest_epochs(fields: Sequence[LoopField]) -> int | None:
    """Return the largest number of epochs that a trial can have; None where the file does not say how many."""
    for each in fields:
        if each.name == "epochs":
            domain = each.theirs.domain
            return int(domain.high if isinstance(domain, Range) else max(list_values(domain)))
    return None


def find_places(fields: Sequence[LoopField], key: str) -> dict[str, tuple[str, ...]]:
    """Return where each value stands in a nested configuration, by the field's name.

    Args:
        fields: of all parameters.
        key: of the value of one that is a table of others, too, such as the choice of a group in Hydra.
    """
    paths = [each.theirs.path for each in fields]
    tables = {path[:length] for path in paths for length in range(1, len(path))}
    while any((*table, key) in paths for table in tables):
        key = f"_{key}_"
    return {each.name: (*each.theirs.path, key) if each.theirs.path in tables else each.theirs.path for each in fields}


# Types and domains.


def _make_field(parameter: ForeignParameter, name: str, when: dict[str, Any]) -> LoopField:
    domain, shared = parameter.domain, is_shared(name)
    condition = {parent: values[0] if len(values) == 1 else values for parent, values in when.items()}
    suffix = f", when={write(condition)}" if condition else ""
    if isinstance(domain, Range):
        kind, value, note = _write_range(domain, suffix)
        if shared and all_parameters()[name].kind is float:
            kind = "float"
        return LoopField(name, parameter, kind, value, shared, note=_join(parameter.note, note))
    values = list_values(domain)
    encoded = _is_encoded(values)
    if encoded:
        values = [json.dumps(value) for value in values]
    annotation, values = _type_of(values)
    if shared:
        annotation = all_parameters()[name].kind.__name__
        values = [float(value) if annotation == "float" else int(value) for value in values]
    note = "each value is the JSON of one" if encoded else ""
    if len(distinct := _distinct(values)) < len(values):
        note, values = _join(note, "values that are equal are likelier there, and are one each here"), distinct
    note = _join(parameter.note, note, domain.lost if isinstance(domain, Choices) else "")
    if isinstance(domain, Constant) and not when:
        if shared:
            return LoopField(name, parameter, annotation, "", shared, values[0], encoded, note)
        return LoopField(name, parameter, annotation, write(values[0]), shared, None, encoded, note)
    return LoopField(
        name, parameter, annotation, f"hpo.Categorical({write(values)}{suffix})", shared, None, encoded, note
    )


def _write_range(domain: Range, suffix: str) -> tuple[str, str, str]:
    """Return type, domain and note of a range."""
    low, high, step, note = domain.low, domain.high, domain.step, ""
    if domain.log and step is not None and step != 1:
        step, note = None, f"its steps of {domain.step:g} on a logarithmic scale have no equivalent"
    if domain.log and low <= 0:
        raise DefinitionError(f"low = {low:g}: must be above 0 on a logarithmic scale")
    if low > high or not (math.isfinite(low) and math.isfinite(float(high) - float(low))):
        raise DefinitionError(f"a range from {low:g} to {high:g} is empty, or too wide to draw from")
    whole = domain.integer and (step is None or step % 1 == 0)
    if whole:
        low, high = math.ceil(low), math.floor(high)
    options = ", log=True" if domain.log else ""
    if step is not None and not domain.log and not (whole and step == 1):
        step = int(step) if whole else step
        if (high - low) / step > STEPS_LIMIT:
            raise DefinitionError(f"steps of {step:g} from {low:g} to {high:g} are too many to be told apart")
        count = math.floor((high - low) / step + 1e-9)
        high = low + count * step if whole else float(f"{low + count * step:.12g}")
        options = f", step={step!r}"
    number = int if whole else float
    return (
        number.__name__,
        f"hpo.{'Int' if whole else 'Float'}({number(low)!r}, {number(high)!r}{options}{suffix})",
        note,
    )


def _is_encoded(values: Sequence[Any]) -> bool:
    """Return whether values are none that a parameter can have: tables, infinities, or a text beside a number."""
    if not all(map(_is_storable, values)):
        return True
    kinds = {_kind(value) for value in values if value is not None}
    if not kinds or kinds in ({int, float}, {bool}, {int}, {float}, {list}):
        return not kinds or (kinds == {list} and any(_holds_none(value) for value in values))
    return kinds != {str} or (None in values and "none" in values)


def _is_storable(value: Any) -> bool:
    """Return whether the numbers in a value are finite, and of 64 bits where they are whole."""
    if isinstance(value, list):
        return all(map(_is_storable, value))
    return not isinstance(value, int | float) or (
        math.isfinite(value) if isinstance(value, float) else -(2**63) <= value < 2**63
    )


def _holds_none(value: Any) -> bool:
    return isinstance(value, list) and any(
        each is None or isinstance(each, dict) or _holds_none(each) for each in value
    )


def _kind(value: Any) -> type:
    return type(value) if isinstance(value, bool | int | float | str | list) else dict


def _type_of(values: Sequence[Any]) -> tuple[str, list[Any]]:
    """Return the type of values, and the values in it; JSON texts are texts."""
    some = [value for value in values if value is not None]
    kinds = {_kind(value) for value in some}
    if kinds == {int, float}:
        values = [None if value is None else float(value) for value in values]
        kinds = {float}
    kind = next(iter(kinds), str)
    text = _list_type(some) if kind is list else kind.__name__
    return (f"{text} | None" if len(some) < len(values) else text), list(values)


def _list_type(values: Sequence[list[Any]]) -> str:
    kinds = {_kind(item) for value in values for item in value}
    if kinds == {int, float}:
        return "list[float]"
    return f"list[{next(iter(kinds)).__name__}]" if len(kinds) == 1 and kinds <= {bool, int, float, str} else "list"


def _distinct(values: Sequence[Any]) -> list[Any]:
    return [value for place, value in enumerate(values) if value not in values[:place]]


def _plain(value: Any, *, encoded: bool) -> Scalar:
    """Return a value as a condition of a study file has it."""
    return json.dumps(value) if encoded else plain_value(value)


def _join(*notes: str) -> str:
    return "; ".join(filter(None, notes))


def write(value: Any) -> str:
    """Return a value as Python writes it, texts in double quotes."""
    if isinstance(value, str):
        return json.dumps(value) if max(value, default="") <= "\uffff" else repr(value)  # JSON has surrogates then
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if isinstance(value, dict):
        return f"{{{', '.join(f'{write(key)}: {write(each)}' for key, each in value.items())}}}"
    if isinstance(value, tuple):
        return f"({', '.join(map(write, value))}{',' if len(value) == 1 else ''})"
    return f"[{', '.join(map(write, value))}]" if isinstance(value, list) else repr(value)


def iterate_lines(fields: Sequence[LoopField]) -> Iterator[str]:
    """Yield the lines of the class: each field, under a comment with what differs."""
    for each in fields:
        if each.note:
            yield f"# {each.theirs.name}: {each.note}"
        if each.value:
            yield each.line()
