"""Training loop for another tool's search: a Python file to fill in, and the study file that launches it.

The class of parameters in it has every parameter of the search with its type, domain and condition, so that nothing is
lost, and the study needs no names, metrics or data of ours.
"""

from __future__ import annotations

import keyword
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hpo.config import registry
from hpo.config.builtin_metrics import BUILTIN_METRICS
from hpo.config.choices import Direction
from hpo.config.trial_config import TrialConfig
from hpo.errors import DefinitionError, RequestError
from hpo.study.foreign.imported import ImportedStudy, ImportOptions, comment, name_study
from hpo.study.foreign.loop_fields import (
    LoopField,
    find_places,
    iterate_lines,
    longest_epochs,
    make_fields,
    write,
)
from hpo.study.foreign.loop_names import list_lengths
from hpo.study.foreign.readers import read_search
from hpo.study.foreign.search import Computed, ForeignSearch, Goal, Range
from hpo.study.foreign.trials import add_trials, check_trials, note_idle_pruner
from hpo.utils.text import shorten

__all__ = ["import_loop"]

WIDTH = 100  # of a comment


def import_loop(path: Path, loop: Path, options: ImportOptions) -> ImportedStudy:
    """Import a file of another tool as a training loop to fill in, and a study of it.

    Args:
        path: a YAML, JSON or Python file; its content decides whose it is.
        loop: the Python file, whose stem is the loop's name.
        options: of the import; there are no renames, for all names are kept.

    Raises:
        RequestError: the file is wrong; the message names the file, the key and the value.
    """
    if options.renames or options.left_out or options.sets:
        raise RequestError(
            "--loop keeps every parameter as it is: --rename, --leave-out and --set are for imports without"
        )
    importable = loop.stem.isidentifier() and not keyword.iskeyword(loop.stem)
    taken = loop.stem in {*sys.stdlib_module_names, "hpo", "pydantic"}  # which the file itself imports
    if not importable or loop.suffix != ".py" or taken:
        raise RequestError(
            f"--loop {loop}: must be the path of a Python file whose name can be imported and is none of Python's own "
            "modules, as sweep_loop.py"
        )
    if registry.models.has(loop.stem) and registry.models.get(loop.stem).builtin:
        raise RequestError(f"--loop {loop}: {loop.stem} is a model of ours; choose another name")
    search = read_search(path, computed=True)
    try:
        return _make_loop(search, path.name, loop.stem, options)
    except RequestError as error:
        raise type(error)(f"{path}: {error}") from error


def _make_loop(search: ForeignSearch, source: str, name: str, options: ImportOptions) -> ImportedStudy:
    possible = [each for each in search.parameters if all(each.when.values())]
    never = [each.name for each in search.parameters if each not in possible]
    search = replace(search, parameters=tuple(possible))
    fields = make_fields(search)
    _check_grid(search)
    study = ImportedStudy(search.tool, notes=list(search.notes), about=search.about)
    study.kept, study.total = len(fields), len(possible)
    study.notes += [f"{name}: left out: none of the values that decide on it lets it exist" for name in never]
    table = study.table
    if (named := name_study(search)) is not None:
        table["name"] = named
    if options.dataset is not None:
        table["dataset"] = options.dataset
    metrics = _name_metrics(search, study)
    objectives = [{"metric": each.metric, "direction": each.direction} for each in metrics]
    table["objective"] = objectives[0] if len(objectives) == 1 else objectives
    if search.target is not None:
        table["target"] = search.target
    add_trials(study, search)
    constants = {each.name: each.constant for each in fields if each.shared and not each.value}
    table["parameters"] = {"model": name, **constants}
    longest = longest_epochs(fields)
    if longest is None:
        table["parameters"]["epochs"] = TrialConfig().epochs
        study.notes.append(_explain_epochs(search))
    study.mappings = [f"{each.theirs.name} -> {each.name}" for each in fields if each.theirs.name != each.name]
    study.notes += [f"{each.theirs.name}: {each.note}" for each in fields if each.note]
    study.notes += [
        f"{each.name}: {each.domain.problem.partition('; ')[0]}; its expression stands in the loop, and the study does "
        "not search it"
        for each in search.parameters
        if isinstance(each.domain, Computed) and each.domain.problem
    ]
    check_trials(table, len(metrics), longest or TrialConfig().epochs)
    note_idle_pruner(study, longest or TrialConfig().epochs)
    study.loop = "\n".join(_write(search, source, name, fields, metrics)) + "\n"
    return study


def _check_grid(search: ForeignSearch) -> None:
    """Refuse a grid over what cannot be counted, which no study could run.

    Raises:
        DefinitionError: names the parameter and its range.
    """
    for each in search.parameters if search.method == "grid" else ():
        domain = each.domain
        if isinstance(domain, Range) and domain.step is None and not domain.integer and domain.low < domain.high:
            raise DefinitionError(
                f"{each.name}: the search is a grid, but {domain.low:g} to {domain.high:g} has no steps; "
                "list its values in the file, or give the search another method"
            )


def _name_metrics(search: ForeignSearch, study: ImportedStudy) -> list[Goal]:
    """Return the objectives by names that a loop can report: `eval/reward` is eval_reward."""
    if search.metric is None:
        study.notes.append("it has no metric; the loop reports val_loss, which is minimized, until you name another")
        return [Goal("val_loss", "minimize")]
    goals = []
    for goal in (Goal(search.metric, search.direction), *search.also):
        theirs, direction = str(goal.metric), goal.direction
        if direction is None:
            direction = "minimize" if theirs.lower().rstrip("0123456789").endswith(("loss", "error")) else "maximize"
            study.notes.append(f"metric {theirs}: the file says no direction; it is to {direction} until you change it")
        goals.append(Goal(_name_metric(theirs, direction), direction))
        if goals[-1].metric != theirs:
            study.notes.append(f"metric {theirs} is called {goals[-1].metric} in the loop")
    if len({goal.metric for goal in goals}) < len(goals):
        raise DefinitionError(f"metrics: {shorten([goal.metric for goal in goals])}: two have the same name")
    return goals


def _name_metric(theirs: str, direction: Direction) -> str:
    name = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in theirs).strip("_") or "metric"
    name = f"m_{name}" if name[0].isdigit() else name
    builtin = BUILTIN_METRICS.get(name)
    other = builtin is not None and builtin.direction != direction
    return f"{name}_" if other or keyword.iskeyword(name) or name == "step" else name  # which report() has


def _explain_epochs(search: ForeignSearch) -> str:
    """Say which epochs a loop counts where the file has none, or none that are certainly those."""
    counts = f"trial.epochs() counts the {TrialConfig().epochs} of the study file"
    if not (lengths := list_lengths(search)):
        return f"it has no epochs: {counts}; change them there"
    names = ", ".join(each.name for each in lengths)
    return f"{counts}, not {names}; where that is the length of a trial, replace trial.epochs() by a loop of your own"


# The Python file.


def _write(
    search: ForeignSearch,
    source: str,
    name: str,
    fields: Sequence[LoopField],
    metrics: Sequence[Goal],
) -> Iterator[str]:
    """Yield the lines of the Python file."""
    uses = sorted({each.name for each in fields if each.shared and not each.value} | {"epochs"})
    own = [each for each in fields if not (each.shared and not each.value)]
    nested = _needs_names(fields)
    title = "".join(c if c.isprintable() and c not in '"\\' else " " for c in source)
    yield f'"""Training loop for the search of {title} ({search.tool}): write the training where it says so."""'
    yield ""
    yield "from __future__ import annotations"
    yield ""
    if nested:
        if any(each.encoded for each in fields):
            yield "import json"
        yield "from typing import Any"
        yield ""
    yield "from pydantic import BaseModel"
    yield ""
    yield "import hpo"
    yield ""
    yield ""
    yield "class Parameters(BaseModel):"
    yield '    """Parameters of the search, each with its domain."""'
    yield ""
    lines = [f"    {line}" for line in iterate_lines(own)]
    yield from (part for line in lines for part in _wrap(line))
    if not any(each.value for each in own):
        yield "    # The study file has all of them."
    yield ""
    if nested:
        yield ""
        yield from _write_names(fields, search.own_key)
    reports = {each.metric: each.direction for each in metrics}
    yield ""
    yield "@hpo.training_loop("
    yield f"    {write(name)},"
    yield "    parameters=Parameters,"
    yield f"    uses={write(uses)},"
    yield f"    reports={write(reports)},"
    yield ")"
    yield "def train(trial: hpo.Trial) -> None:"
    computed = {each.name: each.domain.expression for each in search.parameters if isinstance(each.domain, Computed)}
    yield from _write_body(metrics, computed, nested=nested)


def _wrap(line: str) -> list[str]:
    if not line.strip().startswith("#"):
        return [line]
    return [f"    # {part}" for part in textwrap.wrap(comment(line.strip()[1:].strip())[2:], WIDTH)]


def _needs_names(fields: Sequence[LoopField]) -> bool:
    return any(each.encoded or (each.name,) != each.theirs.path for each in fields)


AS_WRITTEN = """
def as_written(config: hpo.TrialConfig) -> dict[str, Any]:
    \"""Return a configuration as the file has it: nested, with its names, and without what has no effect.\"""
    written: dict[str, Any] = {{}}
    for name, path in PATHS.items():
        table, value = written, getattr(config, name)
{condition}        for key in path[:-1]:
            table = table.setdefault(key, {{}})
        table[path[-1]] = {decoded}
    return written


def as_parameters(written: dict[str, Any]) -> dict[str, Any]:
    \"""Return the parameters, by their names here, of a configuration as the file has it.\"""
    parameters: dict[str, Any] = {{}}
    for name, path in PATHS.items():
        value: Any = written
        for key in path:
            value = value.get(key, MISSING) if isinstance(value, dict) else MISSING
        if value is not MISSING:
            parameters[name] = {encoded}
    return {returned}
"""
HELD = """{
        name: value
        for name, value in parameters.items()
        if all(parameters.get(parent) in values for parent, values in CONDITIONS.get(name, {}).items())
    }"""
CONDITION = """        conditions = CONDITIONS.get(name, {})
        if any(getattr(config, parent) not in values for parent, values in conditions.items()):
            continue
"""


def _write_names(fields: Sequence[LoopField], own_key: str) -> Iterator[str]:
    """Yield a table of the names that differ, and the functions that map configurations both ways."""
    encoded = [each.name for each in fields if each.encoded]
    conditions = {each.name: each.when for each in fields if each.when}
    yield "# Where each parameter stands in the file's own configuration."
    places = find_places(fields, own_key)
    yield "PATHS: dict[str, tuple[str, ...]] = {"
    for each in fields:
        place = places[each.name]
        reason = comment(f"{each.theirs.name} itself, which is a table of others, too")
        yield f"    {write(each.name)}: {write(place)},{'' if place == each.theirs.path else f'  {reason}'}"
    yield "}"
    if conditions:
        yield "# The values of others under which a parameter exists."
        yield "CONDITIONS: dict[str, dict[str, list[Any]]] = {"
        yield from (f"    {write(name)}: {write(dict(when))}," for name, when in conditions.items())
        yield "}"
    yield "MISSING = object()"
    if encoded:
        yield f"ENCODED = {write(encoded)}  # whose values are texts that hold JSON"
    yield ""
    yield from (
        AS_WRITTEN.rstrip()
        .format(
            condition=CONDITION if conditions else "",
            decoded="json.loads(value) if name in ENCODED else value" if encoded else "value",
            encoded="json.dumps(value) if name in ENCODED else value" if encoded else "value",
            returned=HELD if conditions else "parameters",
        )
        .splitlines()
    )
    yield ""


def _write_body(metrics: Sequence[Goal], computed: Mapping[str, str], *, nested: bool) -> Iterator[str]:
    reported = ", ".join(f"{each.metric}=…" for each in metrics)
    names = " and ".join(str(each.metric) for each in metrics)
    yield f'    """Train one trial, and report {names} after each epoch."""'
    yield "    config = trial.config  # config.NAME is a parameter"
    if nested:
        yield "    written = as_written(config)  # the same as your own code knows them"
    for name, expression in computed.items():
        yield f"    {comment(f'{name}: compute it here, as the file does: {expression}')}"
    yield "    # Build what is trained here, on trial.device, and replace the next line by the loop below it."
    yield f'    raise NotImplementedError("write the training of a trial here, and report {names}")'
    yield "    # for epoch in trial.epochs(model=model, optimizer=optimizer):"
    yield "    #     …"
    yield f"    #     trial.report({reported})"
