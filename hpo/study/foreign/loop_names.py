"""Names of the fields of a generated training loop: which are our shared parameters, and which only sound like them."""

from __future__ import annotations

import keyword
import re
from collections.abc import Sequence
from typing import Any

from hpo.config.aliases import canonical, find_aliases, is_context
from hpo.config.effects import ALWAYS
from hpo.config.parameter import Parameter
from hpo.config.trial_config import TrialConfig, all_parameters, is_shared
from hpo.errors import ConfigError
from hpo.study.foreign.mapping import name_other_learning, split_name
from hpo.study.foreign.search import Computed, Constant, ForeignDomain, ForeignParameter, ForeignSearch, Range

__all__ = ["list_lengths", "list_values", "name_fields"]

# What the class of parameters itself names, and what a configuration has that is no parameter.
TAKEN = frozenset(("hpo", "bool", "int", "float", "str", "list", *dir(TrialConfig)))
LENGTH = re.compile(r"(n|nb|num|max|total|train|training)*(epochs?|iters?|iterations?|timesteps|episodes|steps)")


def name_fields(search: ForeignSearch, parameters: Sequence[ForeignParameter]) -> list[str]:
    """Return an identifier for each parameter: `dqn.epsilon` is dqn_epsilon; no two are alike, and none is taken."""
    epochs = _find_epochs(search)
    names: list[str] = []
    for parameter in parameters:
        name = _identifier("_".join(parameter.path))
        if parameter is epochs:
            name = "epochs"
        elif keyword.iskeyword(name) or name in TAKEN or (is_shared(name) and not _is_ours(parameter, name)):
            name += "_"
        plain, number = name, 2
        while name in names:
            name, number = f"{plain}_{number}", number + 1
        names.append(name)
    return names


def list_lengths(search: ForeignSearch) -> list[ForeignParameter]:
    """Return the parameters whose names may say how long a trial trains."""
    return [each for each in search.parameters if LENGTH.fullmatch(canonical(split_name(each)[1]))]


def list_values(domain: ForeignDomain) -> list[Any]:
    """Return the values of a domain that can be listed."""
    if isinstance(domain, Range | Computed):
        return []
    return [domain.value] if isinstance(domain, Constant) else list(domain.values)


def _find_epochs(search: ForeignSearch) -> ForeignParameter | None:
    """Return the parameter that can only be our epochs, such as `trainer.max_epochs`.

    The epochs of another kind of learning are passes over something else.
    """
    named = [each for each in search.parameters if _names_epochs(each)]
    found = [each for each in named if each.path == ("epochs",)] or named
    if len(found) != 1 or name_other_learning(search) or not _has_values_of(found[0], "epochs"):
        return None
    return found[0]


def _names_epochs(parameter: ForeignParameter) -> bool:
    tables, last = split_name(parameter)
    is_alias = canonical(last) == "epochs" or "epochs" in find_aliases(last, ("epochs",))
    return is_alias and all(is_context(table, "epochs", "training") for table in tables)


def _identifier(text: str) -> str:
    name = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in text).strip("_")
    return name if name and not name[0].isdigit() and not name.startswith("model_") else f"p_{name}"


def _is_ours(parameter: ForeignParameter, name: str) -> bool:
    """Return whether a parameter can be our shared one of its name: always in effect, and of the same type and bounds.

    Such are batch_size, learning_rate and seed. A momentum would only exist under some optimizers of ours, and a
    patience, which may be a schedule's, would end a loop early.
    """
    if name in ("model", "optimizer", "loss", "patience", "epochs"):
        return False
    return len(parameter.path) == 1 and all_parameters()[name].effect is ALWAYS and _has_values_of(parameter, name)


def _has_values_of(parameter: ForeignParameter, name: str) -> bool:
    """Return whether a parameter that always exists has only values that ours can have, which are numbers."""
    ours, domain = all_parameters()[name], parameter.domain
    if (
        parameter.when
        or parameter.expression
        or isinstance(domain, Computed)
        or ours.kind not in (int, float)
        or ours.optional
    ):
        return False
    if isinstance(domain, Range) and (domain.integer != (ours.kind is int)):
        return False
    values = [domain.low, domain.high] if isinstance(domain, Range) else list_values(domain)
    return all(_is_valid(ours, value) for value in values)


def _is_valid(ours: Parameter, value: Any) -> bool:
    try:
        ours.check(value)
    except ConfigError:
        return False
    return True
