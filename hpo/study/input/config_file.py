"""Configuration files, which `hpo export` writes and `hpo train` reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpo.config.trial_config import TrialConfig
from hpo.datasets import DatasetReference, make_reference
from hpo.errors import DefinitionError, RequestError, describe_unknown
from hpo.study.definition import Objective
from hpo.study.input.compatibility import check_compatible, check_task
from hpo.study.input.key_values import get_table
from hpo.study.input.study_file import (
    check_objective_metrics,
    default_objective,
    parse_objectives,
)
from hpo.study.input.weight_files import resolve_weight_files
from hpo.utils.documents import read_document

__all__ = ["Configuration", "read_config", "read_parameters"]

CONFIG_KEYS = ("dataset", "objective", "parameters")


@dataclass(frozen=True)
class Configuration:
    """Input of `hpo train`.

    Attributes:
        config: the configuration to train.
        dataset: the data set.
        objective: the metric by which the best epoch is chosen.
        notes: remarks for the user.
    """

    config: TrialConfig
    dataset: DatasetReference
    objective: Objective
    notes: list[str]


def read_config(
    path: Path | None = None,
    sets: Mapping[str, Any] | None = None,
    dataset: object = None,
    objective: str | None = None,
) -> Configuration:
    """Read a configuration from a file as `hpo export` writes it, with overrides.

    Args:
        path: the file, with `dataset`, `objective` and `[parameters]`; None for defaults.
        sets: parameters that override those of the file.
        dataset: a name, a path, or a table of path and options, instead of the file's.
        objective: a metric instead of the file's.

    Raises:
        RequestError: names the file, the key and the value that is wrong.
    """
    table = read_document(path) if path else {}
    base = path.absolute().parent if path and dataset is None else Path.cwd()
    where = f"{path}: " if path else ""
    try:
        for key in table:
            if key not in CONFIG_KEYS:
                raise DefinitionError(describe_unknown("key", key, CONFIG_KEYS))
        file_parameters = resolve_weight_files(get_table(table, "parameters"), path.absolute().parent if path else base)
        parameters = {**file_parameters, **resolve_weight_files(sets or {}, Path.cwd())}
        data = make_reference(dataset or table.get("dataset", "mnist"), base)
        parameters = {**data.parameters, **parameters}
        config = TrialConfig(**parameters)
        check_task(config.task, data)
        usual = default_objective([config.model], task=data.task)
        objectives = parse_objectives(objective or table.get("objective", usual), data.task)
        named = {each.metric: f"objective = '{each.metric}'" for each in objectives}
        check_objective_metrics(named, [config.model], task=config.task)
        check_compatible(config, data)
    except RequestError as error:
        raise type(error)(f"{where}{error}") from error
    idle = [name for name in parameters if name not in config.effective(parameters)]
    return Configuration(
        config,
        data,
        objectives[0],
        [*data.notes, *(f"{name} has no effect under the other parameters" for name in idle)],
    )


def read_parameters(path: Path) -> TrialConfig:
    """Read the configuration in such a file, whether its data set is here or not.

    Raises:
        RequestError: names the file, the key and the value that is wrong.
    """
    table = read_document(path)
    try:
        return TrialConfig(**get_table(table, "parameters"))
    except RequestError as error:
        raise type(error)(f"{path}: {error}") from error
