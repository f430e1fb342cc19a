"""Import of another tool's search as a study of our models: right, or refused with everything that is against it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hpo.config import registry
from hpo.config.aliases import DATASET_ALIASES, canonical
from hpo.datasets.cifar import NAMES as CIFAR
from hpo.errors import ImportRefusedError, RequestError
from hpo.space.coverage import cover
from hpo.space.space import Space
from hpo.study.definition import longest_epochs
from hpo.study.foreign.defaults import describe_defaults
from hpo.study.foreign.imported import ImportedStudy, ImportOptions, name_study, valid_name
from hpo.study.foreign.invalid import explain_invalid
from hpo.study.foreign.mapping import Outcome, ParameterMapper, describe, join_parameters, match_renames, split_name
from hpo.study.foreign.objective import add_objective, our_metrics
from hpo.study.foreign.readers import read_search
from hpo.study.foreign.search import Choices, Constant, ForeignParameter, ForeignSearch
from hpo.study.foreign.trials import add_trials, note_idle_pruner
from hpo.study.input.study_file import DEFAULT_TRIALS, parse_budget, parse_definition
from hpo.utils.text import shorten

__all__ = ["import_study", "map_search"]

DATASET_NAMES = ("dataset", "data", "datasetname", "dataname")


def import_study(path: Path, options: ImportOptions = ImportOptions()) -> ImportedStudy:  # noqa: B008  # it is frozen
    """Import a file of another tool as a study, which is checked and ready to launch.

    Args:
        path: a YAML, JSON or Python file; its content decides whose it is.
        options: of the import.

    Raises:
        ImportRefusedError: less than half of its parameters would be kept, nothing would vary, or some of what it says
            is none of ours; `lines` has all of it.
        RequestError: the file is wrong; the message names the file, the key and the value.
    """
    search = read_search(path, options.left_out)
    try:
        return map_search(search, path, options)
    except ImportRefusedError as error:
        raise ImportRefusedError(f"{path}: {error}", error.lines) from error
    except RequestError as error:
        raise type(error)(f"{path}: {error}") from error


def map_search(search: ForeignSearch, path: Path, options: ImportOptions) -> ImportedStudy:
    """Map a search to a study of our models.

    Args:
        search: what the file says.
        path: of the file, after which the study is named where the search has no name.
        options: of the import.

    Raises:
        ImportRefusedError: see above.
    """
    _check_left_out(search, options)
    names = {each.name for each in search.parameters} - set(options.left_out)
    data = [each for each in search.parameters if each.name in names and _names_data(each, options)]
    searched = [each for each in search.parameters if each.name in names and each not in data]
    study = ImportedStudy(search.tool, notes=list(search.notes), about=search.about, total=len(data) + len(searched))
    refusals: list[str] = []
    if name := name_study(search):
        study.table["name"] = name
    elif search.name is not None:
        study.notes.append(f"name = {shorten(search.name)} cannot be a study's name; the file's name is used instead")
    refusals += _add_dataset(study, data, options)
    mapper = ParameterMapper(replace_parameters(search, searched), options.renames, options.sets)
    outcomes = mapper.map()
    _check_renames(search, outcomes, options)
    parameters, doubles = join_parameters(outcomes)
    refusals += [f"{each.label()}: {each.why}" for each in [*outcomes, *doubles] if each.refused]
    for each in outcomes:
        study.mappings += filter(None, [each.line()])
    study.notes += describe(outcomes)
    refusals += add_objective(study, search, options.renames)
    add_trials(study, search)
    study.table["parameters"] = {**parameters, **options.sets}
    study.kept = sum(isinstance(each.domain, Constant) for each in data) + sum(each.kept for each in outcomes)
    _refuse(study, refusals, outcomes, options)
    base = Path.cwd() if options.out is None else options.out.resolve().parent
    try:
        definition = parse_definition(study.table, valid_name(path.stem) or "imported", base)[1]
        parse_budget(study.table, definition, DEFAULT_TRIALS)
    except RequestError as error:
        if lines := explain_invalid(error, outcomes, options.sets, our_metrics(search, options.renames)):
            _refuse(study, lines, outcomes, options)
        raise
    space = definition.space
    if search.metric is None:
        default = definition.objectives[0]
        study.notes.append(f"it has no metric; the study's is {default.metric}, the default, to {default.direction}")
    sought = [each.sought for each in outcomes if each.sought is not None]
    study.notes += describe_defaults(study.table["parameters"], space, sought)
    _leave_out_idle(study, space, outcomes, options)
    note_idle_pruner(study, longest_epochs(space))
    return study


def replace_parameters(search: ForeignSearch, parameters: Sequence[ForeignParameter]) -> ForeignSearch:
    """Return a search with other parameters."""
    return ForeignSearch(**{**vars(search), "parameters": tuple(parameters)})


def _check_left_out(search: ForeignSearch, options: ImportOptions) -> None:
    names = [each.name for each in search.parameters]
    for name in options.left_out:
        if name not in names:
            raise RequestError(f"--leave-out {name}: the file has no such parameter; it has {', '.join(names)}")


def _check_renames(search: ForeignSearch, outcomes: Sequence[Outcome], options: ImportOptions) -> None:
    metrics = {str(each) for each in (search.metric, *(goal.metric for goal in search.also))}
    known = metrics.union(*map(match_renames, outcomes))
    names = ", ".join(each.theirs.name for each in outcomes)
    for theirs, ours in options.renames.items():
        if theirs not in known:
            what = "no such parameter, metric, or value of a parameter, as optimizer.LAMB"
            raise RequestError(f"--rename {theirs}={ours}: the file has {what}; its parameters are {names}")


def _names_data(parameter: ForeignParameter, options: ImportOptions) -> bool:
    """Return whether a parameter is the data set: by its name and those of its tables, with texts as values."""
    domain = parameter.domain
    values = [domain.value] if isinstance(domain, Constant) else getattr(domain, "values", [None])
    is_text = all(isinstance(each, str) for each in values)
    containers, last = split_name(parameter)
    is_data = all(canonical(each) in DATASET_NAMES for each in (*containers, last))
    is_class = canonical(parameter.path[-1]) in ("target", "class")  # of what loads the data
    return is_data and not is_class and is_text and parameter.name not in options.renames


def _add_dataset(study: ImportedStudy, data: Sequence[ForeignParameter], options: ImportOptions) -> Iterator[str]:
    """Add the data set that is named; yield a refusal where there is none."""
    asked = "name it with --dataset: mnist, a file, a folder of images, …"
    if options.dataset is not None:
        study.table["dataset"] = options.dataset
        for each in data:
            if isinstance(each.domain, Choices):
                values = shorten(list(each.domain.values))
                study.notes.append(
                    f"{each.name}: left out: {values} are not searched; --dataset names the one data set"
                )
            else:
                study.mappings.append(f"{each.name} -> the data set that --dataset names")
        return
    if not data:
        yield f"no data set: the file names none, and none is assumed; {asked}"
        return
    domain = data[0].domain
    names = domain.values if isinstance(domain, Choices) else (getattr(domain, "value", None),)
    theirs = str(names[0])
    ours = DATASET_ALIASES.get(canonical(theirs), theirs)
    if len(data) > 1:
        yield f"{', '.join(each.name for each in data)}: each is a data set, and a study has one; {asked}"
    elif len(names) > 1:
        yield f"{data[0].name} = {shorten(list(names))}: a study has one data set; {asked}"
    elif not registry.datasets.has(ours) and ours not in CIFAR:
        yield f"{data[0].name} = {shorten(theirs)}: is no data set that is known here; {asked}"
    else:
        study.table["dataset"] = ours
        study.mappings.append(f"{data[0].name} = {theirs} -> dataset = {ours}")


def _refuse(study: ImportedStudy, refusals: list[str], outcomes: Sequence[Outcome], options: ImportOptions) -> None:
    """Refuse a study that is not the search of the file.

    Raises:
        ImportRefusedError: with every reason.
    """
    loop = "write a training loop of your own, which has all of them: --loop LOOP.py"
    varies = any(each.varies for each in outcomes) or any(
        isinstance(each, list | dict) for each in options.sets.values()
    )
    reasons = []
    if 2 * study.kept < study.total:
        reasons.append(f"only {study.kept} of {study.total} parameters have a place here; {loop}")
    elif not varies:
        reasons.append(f"nothing would vary, so that all trials would be the same; {loop}")
    if refusals:
        count = f"{len(refusals)} things are" if len(refusals) > 1 else "1 thing is"
        reasons.append(
            f"{count} refused: {refusals[0]}" if len(refusals) == 1 else f"{count} refused, each on a line above"
        )
    if reasons:
        lines = [*(f"note: {note}" for note in describe(outcomes)), *(refusals if len(refusals) > 1 else ())]
        raise ImportRefusedError("; ".join(reasons), lines)


def _leave_out_idle(study: ImportedStudy, space: Space, outcomes: Sequence[Outcome], options: ImportOptions) -> None:
    """Leave out parameters that have no effect in any configuration of the study, such as momentum under adam."""
    effective = {name for values in cover(space) for name in values}
    parameters: dict[str, Any] = study.table["parameters"]
    idle = [each for each in outcomes if each.kept and each.ours in parameters and each.ours not in effective]
    if not idle:
        return
    for each in idle:
        assert each.ours is not None
        parameters.pop(each.ours, None)
        rule = space.table[each.ours].effect.text
        study.notes.append(f"{each.theirs.name} is left out: {each.ours} has no effect here ({rule})")
    study.kept -= len(idle)
    _refuse(study, [], [each for each in outcomes if each not in idle], options)
