"""Keys of study files, and where each belongs: at the top, in the data set, or under [parameters]."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from hpo.config.trial_config import all_parameters
from hpo.datasets import DatasetReference, DatasetSource, make_reference
from hpo.datasets.source import parse_source, spell_source
from hpo.errors import DefinitionError, describe_unknown
from hpo.study.input.resampling_keys import KEYS as RESAMPLING
from hpo.utils.text import shorten

__all__ = ["KEYS", "OPTIONS", "TOP", "check_parameter_places", "check_places", "join_task"]

KEYS = (
    *("name", "dataset", "task", "objective", "trials", "timeout", "trial_timeout", "target", "until", "sampler"),
    *("pruner", "seed", "space", "parameters", "constraints", "baseline", "warm_start", "report", "record_steps"),
    "metrics",
    *RESAMPLING,
)
OPTIONS = (  # keys that `hpo launch` has options for
    *("name", "dataset", "task", "objective", "trials", "timeout", "trial_timeout", "target", "until", "sampler"),
    *("pruner", "seed", "warm_start", *RESAMPLING),
)
TOP = "write it at the top of the file, before any [table]"
DATASET = "say it in the data set: dataset = {{ path = …, {key} = … }}"
PARAMETERS = "it is a parameter, write it under [parameters]"


def check_places(table: Mapping[str, Any]) -> None:
    """Refuse keys at the top or in the data set that are unknown, or stand in another place than their own.

    Raises:
        DefinitionError: names the key, and its place or the closest known one.
    """
    options = tuple(DatasetSource.model_fields)
    for key in table:
        if key not in KEYS:
            where = _find_place(key, {PARAMETERS: tuple(all_parameters()), DATASET: options})
            raise DefinitionError(f"key '{key}': {where}" if where else describe_unknown("key", key, KEYS))
    dataset = table.get("dataset")
    for key in dataset if isinstance(dataset, Mapping) else ():
        if key not in (*options, "path", "name") and (where := _find_place(key, {TOP: KEYS})):
            raise DefinitionError(f"dataset, {key}: is no option of a data set; {where}")


def check_parameter_places(parameters: Iterable[str], known: Collection[str]) -> None:
    """Refuse names under [parameters] that are no parameters, but belong in another place of a study file.

    Args:
        parameters: the names.
        known: names of all parameters, among them those of the study's own models.

    Raises:
        DefinitionError: names the key and its place.
    """
    for key in parameters:
        if key not in known and (where := _find_place(key, {TOP: KEYS, DATASET: tuple(DatasetSource.model_fields)})):
            raise DefinitionError(f"{key}: is no parameter; {where}")


def _find_place(key: str, places: Mapping[str, tuple[str, ...]]) -> str | None:
    return next((place.format(key=key) for place, keys in places.items() if key in keys), None)


def join_task(dataset: object, task: object, base: Path, *, given: bool = False) -> object:
    """Return the key `dataset` with the key `task` of a study file, which means the same as in the data set's table.

    Args:
        dataset: the file's, or one that an option has given.
        task: the file's.
        base: the folder that relative paths start from.
        given: true of an option's data set, whose own task counts, as every option counts before the file.

    Raises:
        DefinitionError: the data set is none, or its table in the file has another task; or the task is no text.
        DataError: the data are not for it.
    """
    if not isinstance(task, str):
        raise DefinitionError(f'task = {shorten(task)}: must be a text, such as "regression"')
    name, source = parse_source(dataset.spelled if isinstance(dataset, DatasetReference) else dataset)
    said = None if source is None else source.task
    if said not in (None, task) and not given:
        raise DefinitionError(
            f"task = {shorten(task)}: the data set says task = {shorten(said)}; leave one of them out"
        )
    if said is not None:
        return dataset
    spelled = spell_source(name, source)
    joined = {**({"path": spelled} if isinstance(spelled, str) else spelled), "task": task}
    return make_reference(joined, base) if isinstance(dataset, DatasetReference) else joined
