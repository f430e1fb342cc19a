"""Keys of study files that say how a trial is resampled: folds, repeats, holdout, seeds, intensify and resplit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from hpo.config import registry
from hpo.config.resampling import DivisionRule, Resampling, Resplit
from hpo.datasets import DatasetReference, DatasetSource
from hpo.errors import DefinitionError, describe_unknown
from hpo.space.domains import Constant, Domain
from hpo.study.definition import Definition
from hpo.study.input.key_values import get_flag
from hpo.utils.documents import parse_toml
from hpo.utils.text import quantity, shorten

__all__ = ["KEYS", "parse_resampling", "spell_resampling"]

KEYS = ("folds", "repeats", "holdout", "seeds", "intensify", "resplit")
DEFAULT_FOLDS = 5
# Fresh splits are said to choose better where few samples validate (Nagler et al., 2024); `benchmarks/trust.py` has not
# found it on three such data sets.
DEFAULT_RESPLIT: Resplit = "never"
FORM = 'give their number, or { count = 5, by = "group" }, or by = "time"'


def parse_resampling(
    table: Mapping[str, Any],
    dataset: DatasetReference,
    literals: Mapping[str, Any],
    domains: Mapping[str, Sequence[Domain]],
    pruner: str = "none",
    objectives: int = 1,
) -> tuple[Resampling | None, Resplit]:
    """Parse how the trials of a study are resampled, None if each has one fit, and whether each has its own split.

    What only the loaded data tell, `hpo.execution.data_check.check_divisions` refuses before the first trial.

    Args:
        table: the keys of a study file.
        dataset: of the study.
        literals: the domains of its parameters, as they are given.
        domains: those of its space.
        pruner: the name of its pruner.
        objectives: how many it has.

    Raises:
        DefinitionError: a value is wrong, has no effect on the data, or contradicts a parameter; the line names it.
        ConfigError: the values do not go together.
    """
    chosen = _read_resampling(table)
    resplit = table.get("resplit", DEFAULT_RESPLIT)
    if resplit not in get_args(Resplit):
        raise DefinitionError(describe_unknown("resplit", shorten(resplit, quote=False), get_args(Resplit)))
    baseline = table.get("baseline")
    places = {f"[parameters] {name}": name for name in literals}
    places |= {f"[baseline] {name}": name for name in (baseline if isinstance(baseline, Mapping) else ())}
    places |= {f"dataset, {name}": name for name in dataset.parameters if name not in literals}
    _check_parameters(chosen, resplit, places)
    if (racing := _check_racing(chosen, resplit, pruner, objectives)) is not None:
        _check_same_splits(racing, chosen, dataset, domains)
    _check_data(chosen, resplit, dataset)
    return (None if chosen == Resampling() else chosen), resplit


def _read_resampling(table: Mapping[str, Any]) -> Resampling:
    folds, by = _read_folds(table["folds"]) if "folds" in table else (None, None)
    return Resampling(
        folds=folds,
        by=by,
        repeats=_read_count(table, "repeats", 1),
        holdout=_read_count(table, "holdout", None),
        seeds=_read_count(table, "seeds", 1),
        intensify=get_flag(table, "intensify"),
    )


def _check_parameters(chosen: Resampling, resplit: Resplit, places: Mapping[str, str]) -> None:
    """Refuse parameters that would have no effect, given by the place in the study file, and keys that contradict."""
    for place, name in places.items():
        if name == "validation" and chosen.folds is not None:
            raise DefinitionError(f"{place}: has no effect with folds, which all validate once; remove one of them")
        if name == "split_seed" and resplit == "per_trial":
            raise DefinitionError(
                f"{place}: with resplit = 'per_trial' each trial has a split seed of its own; remove one of them"
            )
    if chosen.seeds > 1 and {"init_seed", "order_seed"} <= {*places.values()}:
        raise DefinitionError(
            f"seeds = {chosen.seeds}: all would train alike, for init_seed and order_seed are given; remove one of them"
        )


def _check_racing(chosen: Resampling, resplit: Resplit, pruner: str, objectives: int) -> str | None:
    """Refuse to compare trials fit by fit if each has one fit, splits of its own, or more than one value.

    Returns:
        The key by which they are compared, as a study file has it; None without one.
    """
    if chosen.intensify and objectives > 1:
        raise DefinitionError(
            f"intensify = true: needs a single objective, by which trials are dropped, but the study has {objectives}; "
            "remove one of them"
        )
    if pruner == "wilcoxon" and chosen.count == 1:
        raise DefinitionError(
            "pruner 'wilcoxon' compares the fits of trials, and each of this study has one; give folds, holdout or "
            "seeds, or take another pruner"
        )
    racing = "intensify = true" if chosen.intensify else "pruner 'wilcoxon'" if pruner == "wilcoxon" else None
    if racing is not None and resplit == "per_trial":
        raise DefinitionError(
            f"{racing}: compares trials on the same splits, and resplit = 'per_trial' gives each its own; "
            "remove one of them"
        )
    return racing


def _check_same_splits(
    racing: str, chosen: Resampling, dataset: DatasetReference, domains: Mapping[str, Sequence[Domain]]
) -> None:
    """Refuse parameters by which trials that are compared fit by fit would have other splits."""
    source = dataset.source or DatasetSource()
    if dataset.name == registry.NO_DATA or (chosen.division is None and isinstance(source.validation, str)):
        return  # there is nothing to split
    own = [domain.value for domain in domains.get("split_seed", ()) if isinstance(domain, Constant)]
    seeds = ["split_seed"] if own and own != [None] else ["split_seed", "seed"]
    for name in [*(seeds if source.time is None else []), *(["validation"] if chosen.folds is None else [])]:
        if name in domains and not _is_constant(domains[name]):
            raise DefinitionError(
                f"{racing}: compares trials on the same splits, and [parameters] {name} gives them others; give "
                f"{'split_seed' if name == 'seed' else 'it'} one value"
            )


def _is_constant(domains: Sequence[Domain]) -> bool:
    """Return whether a parameter has one value in all trials."""
    return len(domains) == 1 and isinstance(domains[0], Constant) and not domains[0].condition.tests


def _check_data(chosen: Resampling, resplit: Resplit, dataset: DatasetReference) -> None:
    """Refuse divisions where there are no data to divide, or that go by what the data do not have."""
    if dataset.name == registry.NO_DATA and (chosen.division is not None or resplit == "per_trial"):
        raise DefinitionError(
            f"{chosen.division or 'resplit = per_trial'}: the study has no data set that could be divided; name one "
            "with dataset = …, and train on trial.data, or use seeds"
        )
    if chosen.folds is not None and dataset.samples is not None and chosen.folds > dataset.samples:
        samples = quantity(dataset.samples, "training sample")
        raise DefinitionError(f"folds = {chosen.folds}: there are only {samples}; take fewer folds")
    source = dataset.source or DatasetSource()
    if dataset.sha256 and chosen.by is not None and getattr(source, chosen.by) is None:  # a file, which says all
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
    table: Mapping[str, Any] = value if isinstance(value, Mapping) else {"count": value}
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
