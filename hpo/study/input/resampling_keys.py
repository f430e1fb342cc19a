"""Keys of study files that say how a trial is resampled: folds, repeats, holdout, seeds, intensify and resplit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from hpo.config import registry
from hpo.config.resampling import DivisionRule, Resampling, Resplit
from hpo.datasets import DatasetReference, DatasetSource
from hpo.errors import DefinitionError, describe_unknown
from hpo.study.definition import Definition
from hpo.utils.documents import parse_toml
from hpo.utils.text import shorten

__all__ = ["KEYS", "check_resampling", "parse_resampling", "parse_resplit", "spell_resampling"]

KEYS = ("folds", "repeats", "holdout", "seeds", "intensify", "resplit")
DEFAULT_FOLDS = 5
# Whether each trial gets a split of its own where a study does not say. Fresh splits choose better where the
# validation set is small (Nagler et al., 2024); below how many samples they become the default is for a measurement.
DEFAULT_RESPLIT: Resplit = "never"
FORM = 'give their number, or { count = 5, by = "group" }, or by = "time"'


def parse_resampling(table: Mapping[str, Any]) -> Resampling | None:
    """Parse the resampling of a study's trials from the keys of its file; None if each has one fit.

    Raises:
        DefinitionError: names the key and the value that is wrong.
        ConfigError: the values do not go together.
    """
    folds, by = _read_folds(table["folds"]) if "folds" in table else (None, None)
    resampling = Resampling(
        folds=folds,
        by=by,
        repeats=_read_count(table, "repeats", 1),
        holdout=_read_count(table, "holdout", None),
        seeds=_read_count(table, "seeds", 1),
        intensify=_read_flag(table, "intensify"),
    )
    return None if resampling == Resampling() else resampling


def parse_resplit(table: Mapping[str, Any]) -> Resplit:
    """Parse whether each trial gets a split of its own.

    Raises:
        DefinitionError: the value is neither `never` nor `per_trial`.
    """
    value = table.get("resplit", DEFAULT_RESPLIT)
    if value not in get_args(Resplit):
        raise DefinitionError(describe_unknown("resplit", shorten(value, quote=False), get_args(Resplit)))
    chosen: Resplit = value
    return chosen


def check_resampling(
    resampling: Resampling | None, resplit: Resplit, dataset: DatasetReference, given: Mapping[str, str]
) -> None:
    """Refuse a resampling that has no effect on the data, or contradicts the parameters.

    What only the loaded data tell, `hpo.execution.data_check.check_divisions` refuses before the first trial.

    Args:
        resampling, resplit: as they are parsed.
        dataset: of the study.
        given: the names of the parameters that the study gives, by the place in its file.

    Raises:
        DefinitionError: names both keys, and which to remove.
    """
    chosen = resampling or Resampling()
    if dataset.name == registry.NO_DATA and (chosen.division is not None or resplit == "per_trial"):
        raise DefinitionError(
            f"{chosen.division or 'resplit = per_trial'}: the study has no data set that could be divided; name one "
            "with dataset = …, and train on trial.data, or use seeds"
        )
    for place, name in given.items():
        if name == "validation" and chosen.folds is not None:
            raise DefinitionError(f"{place}: has no effect with folds, which all validate once; remove one of them")
        if name == "split_seed" and resplit == "per_trial":
            raise DefinitionError(
                f"{place}: with resplit = 'per_trial' each trial has a split seed of its own; remove one of them"
            )
    if chosen.intensify and resplit == "per_trial":
        raise DefinitionError(
            "intensify = true: compares trials on the same splits, and resplit = 'per_trial' gives each its own; "
            "remove one of them"
        )
    if dataset.sha256:  # of a file, whose options tell all there is
        _check_source(chosen, dataset.source or DatasetSource())


def _check_source(chosen: Resampling, source: DatasetSource) -> None:
    """Refuse folds by a column that the data set's options do not name."""
    if chosen.by is not None and getattr(source, chosen.by) is None:
        example = f"dataset = {{ path = …, {chosen.by} = … }}"
        raise DefinitionError(
            f"{chosen.division} by {chosen.by}: by which column? name it in the data set: {example}, or leave by out"
        )


def spell_resampling(definition: Definition) -> dict[str, Any]:
    """Return the keys that a study file has for a definition's resampling; those at their defaults are left out."""
    keys: dict[str, Any] = {}
    if definition.resampling is not None:
        keys = definition.resampling.model_dump(exclude_defaults=True)
        by = keys.pop("by", None)
        if by is not None:
            keys["folds"] = {"count": keys["folds"], "by": by}
    if definition.resplit != DEFAULT_RESPLIT:
        keys["resplit"] = definition.resplit
    return keys


def _read_folds(value: object) -> tuple[int, DivisionRule | None]:
    """Return the number of folds and what they go by, from a number, a table, or either as an option's text."""
    spelled = f"folds = {shorten(value, quote=False)}"
    if isinstance(value, str):
        try:
            value = parse_toml(f"value = {value}")["value"]
        except DefinitionError:
            value = None
    table = value if isinstance(value, Mapping) else {"count": value}
    for key in table:
        if key not in ("count", "by"):
            raise DefinitionError(f"{spelled}: {describe_unknown('key', key, ('count', 'by'))}")
    count, by = table.get("count", DEFAULT_FOLDS), table.get("by")
    if isinstance(count, bool) or not isinstance(count, int):
        raise DefinitionError(f"{spelled}: {FORM}")
    if by is not None and by not in get_args(DivisionRule):
        raise DefinitionError(f"{spelled}: {describe_unknown('by', shorten(by, quote=False), get_args(DivisionRule))}")
    return count, by


def _read_count(table: Mapping[str, Any], key: str, default: int | None) -> Any:
    value = table.get(key, default)
    if key in table and (isinstance(value, bool) or not isinstance(value, int)):
        raise DefinitionError(f"{key} = {shorten(value)}: must be a whole number")
    return value


def _read_flag(table: Mapping[str, Any], key: str) -> bool:
    value = table.get(key, False)
    if not isinstance(value, bool):
        raise DefinitionError(f"{key} = {shorten(value)}: must be true or false")
    return value
