"""Values of parameters in their plain form, in which they are compared, stored and shown.

A plain value is a bool, a number or a text. None, which turns a parameter off, is the text `none`, and a list is its
JSON: `[128, 64]`. So a value is hashable, any table of Optuna's takes it, and plain optuna-dashboard shows what it is.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

__all__ = ["OFF", "Value", "dump_list", "load_list", "plain_value", "spell_value"]

Value = bool | int | float | str
OFF = "none"


def plain_value(value: Any) -> Value:
    """Return a value in its plain form: None as `none`, a list or table as JSON."""
    if isinstance(value, bool | int | float | str):
        return value
    return OFF if value is None else json.dumps(value, default=str)


def spell_value(value: object) -> str:
    """Return a plain value as files spell it: `true`, `0.1`, `none`."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def dump_list(value: object, annotation: Any) -> str:
    """Return a list, or the JSON of one, as JSON, once it is checked.

    Args:
        value: a list, a tuple, or a text.
        annotation: the type that it must have, such as `list[int]`.

    Raises:
        ValueError: it is no list, or has another type; the message continues a sentence that names the type.
    """
    try:
        listed = json.loads(value) if isinstance(value, str) else value
        text = json.dumps(listed, allow_nan=False)
    except (TypeError, ValueError):
        listed = None
    if not isinstance(listed, list | tuple):
        raise ValueError(f", not {type(value).__name__}")  # noqa: TRY004
    adapter = _make_adapter(annotation)
    try:
        return json.dumps(adapter.dump_python(adapter.validate_json(text, strict=True), mode="json"))
    except ValidationError as error:
        raise ValueError(f"; {_explain(error)}") from error


def load_list(text: Value, annotation: Any) -> Any:
    """Return the list, or the tuple if the annotation says so, that `dump_list` has dumped."""
    return _make_adapter(annotation).validate_json(str(text))


@cache
def _make_adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation)


def _explain(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    place = "".join(f"[{part}]" for part in first["loc"]) or "it"
    message = first["msg"].removeprefix("Value error, ").replace("Input should", "should")
    return f"{place} {message[0].lower()}{message[1:]}"
