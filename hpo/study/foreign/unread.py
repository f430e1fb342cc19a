"""Notes on what an import does not read: settings of algorithms, and arguments that a command fixes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from hpo.config.aliases import canonical, find_aliases
from hpo.config.trial_config import all_parameters
from hpo.config.values import spell_value
from hpo.errors import RequestError
from hpo.study.foreign.fit import translate
from hpo.utils.text import shorten
from hpo.utils.toml import toml_value

__all__ = ["describe_fixed_arguments", "describe_settings", "describe_unused_stopping"]

# Macros of Weights & Biases that stand for other words than the value of an argument.
MACRO = re.compile(r"\$\{(env|interpreter|program|args\w*)\}")
LONGEST = 400  # characters of a list of arguments
SEEDS = ("seed", "randomstate")
FIRST_TRIALS = ("nstartuptrials", "ninitialpoints", "nstartupjobs")


def describe_settings(where: str, settings: Mapping[str, Any], sampler: str | None) -> Iterator[str]:
    """Yield a note on the settings of an algorithm that are not read, and on what a study file has for them.

    Args:
        where: they stand in the file.
        settings: by name.
        sampler: ours for the algorithm, or None where it is none of ours.
    """
    if not settings:
        return
    ours = []
    for name, value in settings.items():
        if canonical(name) in SEEDS:
            ours.append(f"seed = {value}")
        elif canonical(name) in FIRST_TRIALS and sampler in ("tpe", "gp", "cmaes"):
            ours.append(f"sampler = {toml_value({'name': sampler})[:-2]}, n_startup_trials = {value} }}")
    advice = f"; in the study file: {', '.join(ours)}" if ours else ""
    yield f"{where}: {_list_settings(settings)}: not read{advice}"


def describe_unused_stopping(where: str, settings: Mapping[str, Any], taken: str) -> str:
    """Return a note on an algorithm that stops trials beside another one, where a study has one pruner.

    Args:
        where: it stands in the file.
        settings: of how it stops, by name.
        taken: where the other one stands, which becomes the pruner.
    """
    listed = f": {_list_settings(settings)}" if settings else ""
    return f"{where}{listed}: it stops trials, too, and is not used: a study has one pruner, and {taken} is taken"


def _list_settings(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {shorten(value, quote=False)}" for name, value in settings.items())


def describe_fixed_arguments(commands: Iterable[str | Sequence[object]]) -> Iterator[str]:
    """Yield a note on the arguments to which commands give one value, and on how a study gets those that are ours.

    Args:
        commands: each a text, or a list of words.
    """
    fixed = {name: value for command in commands for name, value in _read_arguments(_split(command))}
    if not fixed:
        return
    listed = ", ".join(f"{name} = {value}" for name, value in fixed.items())
    advice = " ".join(f"--set {each}" for each in _name_ours(fixed))
    note = f"the command fixes these, and they are not read: {shorten(listed, LONGEST, quote=False)}"
    yield f"{note}; {advice} gives the study those of ours" if advice else note


def _split(command: str | Sequence[object]) -> list[str]:
    """Return the words of a command; those of a list may hold a whole command of a shell."""
    parts = [command] if isinstance(command, str) else [str(each) for each in command]
    words: list[str] = []
    for part in parts:
        if part.startswith("-") and not isinstance(command, str):
            words.append(part)
            continue
        try:
            words += shlex.split(part)
        except ValueError:  # quotes that do not match
            words += part.split()
    return words


def _read_arguments(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the arguments with a value that is written out: `--a=b`, `--a b`, `--a`, and Hydra's `a.b=c`."""
    for place, word in enumerate(words):
        following = words[place + 1] if place + 1 < len(words) else ""
        name, equals, value = word.partition("=")
        if not name.startswith("--"):
            is_override = equals and re.fullmatch(r"\+*[a-z][\w.]*", name)  # variables of a shell are in capitals
            name = name.lstrip("+") if is_override else ""
        elif not equals:
            is_switch = not following or following.startswith("--") or MACRO.fullmatch(following)
            value = "true" if is_switch else following
        if name.strip("-") and "${" not in value:
            yield name.strip("-"), value


def _name_ours(fixed: Mapping[str, str]) -> Iterator[str]:
    """Yield those that are parameters of ours, as `name=value`."""
    table = all_parameters()
    own = {canonical(name): name for name in table}
    for theirs, text in fixed.items():
        last = theirs.rpartition(".")[2]
        ours = own.get(canonical(last)) or next(iter(find_aliases(last, table)), None)
        if ours is None:
            continue
        parameter = table[ours]
        value: Any = text.lower() == "true" if parameter.kind is bool and text.lower() in ("true", "false") else text
        try:
            yield shlex.quote(f"{ours}={spell_value(translate(parameter, value, {}))}")
        except RequestError:
            continue
