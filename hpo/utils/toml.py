"""Inline TOML: keys and values on one line."""

from __future__ import annotations

__all__ = ["toml_key", "toml_value"]


def toml_value(value: object) -> str:
    """Return a value as TOML on one line, a dict as an inline table."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = "".join(f"\\u{ord(c):04x}" if ord(c) < 32 or c in '"\\\x7f' else c for c in value)
        return f'"{escaped}"'
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{toml_key(k)} = {toml_value(v)}" for k, v in value.items()) + " }" if value else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return repr(value)


def toml_key(name: str) -> str:
    """Return a key as TOML, quoted where it must be."""
    return name if name and all(c.isascii() and (c.isalnum() or c in "_-") for c in name) else toml_value(name)
