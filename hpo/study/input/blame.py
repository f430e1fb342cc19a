"""Options that are to blame for a wrong request, so that its error names them and not the file that they change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hpo.errors import RequestError
from hpo.study.input.key_places import OPTIONS, TOP

__all__ = ["blame_options", "name_option"]

Parse = Callable[[Mapping[str, Any], Mapping[str, Any]], object]


def blame_options(error: RequestError, sets: Mapping[str, Any], keys: Mapping[str, Any], parse: Parse) -> str | None:
    """Return the error's line with the option that it comes from; None where it comes from the file.

    An option is to blame if the error is gone without it. A data set is not: a file may not fit it.

    Args:
        error: raised by `parse(sets, keys)`.
        sets: parameters that options set.
        keys: other keys of a study file that options set.
        parse: parses the file under such options.
    """
    for name in sets:
        if not _fails_alike(error, parse, {key: value for key, value in sets.items() if key != name}, keys):
            line = str(error)
            if name in OPTIONS:
                line = line.replace(TOP, f"give it as --{name.replace('_', '-')}")
            return name_option(line, f"[parameters] {name}", f"--set {name}")
    for name in keys:
        rest = {key: value for key, value in keys.items() if key != name}
        if name != "dataset" and not _fails_alike(error, parse, sets, rest):
            return name_option(str(error), name, f"--{name.replace('_', '-')}")
    return None


def _fails_alike(error: RequestError, parse: Parse, sets: Mapping[str, Any], keys: Mapping[str, Any]) -> bool:
    try:
        parse(sets, keys)
    except RequestError as other:
        return str(other) == str(error)
    return False


def name_option(line: str, key: str, option: str) -> str:
    """Return an error's line that names an option, instead of the key that it begins with."""
    for after in (" = ", ": "):
        if line.startswith(key + after):
            return option + line.removeprefix(key)
    return f"{option}: {line.removeprefix('[parameters] ')}"
