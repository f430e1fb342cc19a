"""Files of pretrained weights that a study file names: their absolute paths, and their SHA-256."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpo.config.values import OFF
from hpo.datasets.file_digest import digest_file
from hpo.errors import ConfigError
from hpo.space import Space
from hpo.space.domains import Domain
from hpo.utils.files import absolute_path
from hpo.utils.text import shorten

__all__ = ["digest_weight_files", "resolve_weight_files", "resolve_weight_tables"]

PARAMETER = "pretrained"


def resolve_weight_files(literals: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """Return the values or domains of parameters with the paths of pretrained weights as they are from the root.

    Args:
        literals: by parameter, as a study file has them.
        base: the folder that relative paths start from.
    """
    if PARAMETER not in literals:
        return dict(literals)
    return {**literals, PARAMETER: _resolve(literals[PARAMETER], base)}


def resolve_weight_tables(table: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """Return a study file's keys with such paths in its baseline and its warm starts; what is no table is left as
    is.
    """
    resolved = dict(table)
    if isinstance(table.get("baseline"), Mapping):
        resolved["baseline"] = resolve_weight_files(table["baseline"], base)
    if isinstance(first := table.get("warm_start"), list | tuple):
        resolved["warm_start"] = [
            resolve_weight_files(each, base) if isinstance(each, Mapping) else each for each in first
        ]
    return resolved


def _resolve(literal: Any, base: Path) -> Any:
    if isinstance(literal, Domain):
        return _resolve(literal.to_json(), base)
    if isinstance(literal, str) and literal != OFF:
        return str(absolute_path(base / Path(literal).expanduser()))
    if isinstance(literal, list | tuple):
        return [_resolve(each, base) for each in literal]
    if isinstance(literal, Mapping):
        return {key: _resolve(part, base) if key in ("value", "choices") else part for key, part in literal.items()}
    return literal


def digest_weight_files(space: Space) -> dict[str, str]:
    """Return the SHA-256 of the files of pretrained weights that a space names, by path.

    Raises:
        ConfigError: there is no such file.
        DataError: it cannot be read.
    """
    domains = [each.domain for each in space.dimensions if each.parameter.name == PARAMETER]
    paths = dict.fromkeys(str(value) for domain in domains for value in domain.points() if value != OFF)
    for path in paths:
        if not Path(path).is_file():
            raise ConfigError(
                f"{PARAMETER} = {shorten(path)}: there is no such file; give the path of a file of weights"
            )
    return {path: digest_file(Path(path)) for path in paths}
