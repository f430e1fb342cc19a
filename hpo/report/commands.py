"""Commands on a study, as they are typed."""

from __future__ import annotations

import shlex

from hpo.report.data.results import Results
from hpo.storage.url import mask
from hpo.utils.home import default_storage

__all__ = ["format_command", "format_import_options"]


TRAINING = ("launch", "evaluate", "reproduce")  # commands that need the user's code


def format_command(results: Results, verb: str, more: str = "", *, imports: bool = True) -> str:
    """Format a command of `hpo` on the study, with its storage and imports where needed; passwords are masked.

    Args:
        results: the study.
        verb: `evaluate`, `report`, …
        more: further words of the command line, which are quoted already.
        imports: whether the command takes modules to import.
    """
    storage = "" if results.storage == mask(default_storage()) else f" --storage {shlex.quote(results.storage)}"
    location = results.definition.function_location
    name = shlex.quote(results.name)
    if verb == "launch" and location is not None:
        name = f"{shlex.quote(location)} --name {name}"
    if verb in ("evaluate", "worker") and location is not None:
        name += f" --objective {shlex.quote(location)}"
    words = [f"hpo {verb} {name}", *([more] if more else [])]
    needed = imports and (verb in TRAINING or not results.definition.declared)
    return " ".join(words) + (format_import_options(results) if needed else "") + storage


def format_import_options(results: Results) -> str:
    """Format the options that import the study's own models, metrics and data, with a space before each."""
    return "".join(f" --import {shlex.quote(module)}" for module in results.definition.imports)
