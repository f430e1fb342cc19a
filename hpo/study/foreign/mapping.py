"""Mapping of another tool's parameters to ours: only what means the same thing, and every mapping is told."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hpo.config import registry
from hpo.config.aliases import NEAR_MISSES, OTHER_LEARNING, OTHER_UNITS, canonical, find_aliases, is_context
from hpo.config.trial_config import all_parameters
from hpo.errors import ConfigError, RequestError, describe_unknown
from hpo.study.foreign.ambiguity import Company, list_numbers
from hpo.study.foreign.fit import Fit, OtherMeaningError, OutsideBoundsError, fit_domain, translate
from hpo.study.foreign.search import Choices, Computed, Constant, ForeignParameter, ForeignSearch

__all__ = ["Outcome", "ParameterMapper", "describe", "join_parameters", "match_renames", "models_of", "split_name"]

SEPARATORS = re.compile(r"[./]|__|::")
# Of a table, the key that says which one it is: optimizer.name is the optimizer.
KINDS = frozenset(("name", "type", "target", "class", "classname", "kind", "algorithm", "choice"))


@dataclass(frozen=True)
class Outcome:
    """Outcome of the mapping of one parameter.

    Attributes:
        theirs: the parameter.
        ours: the name of ours; None where it has no place.
        fit: the domain; None where it has no place, or was refused.
        when: its condition, in our names and values.
        why: why it has no place, or was refused; empty where it has one.
        refused: whether it is one of ours, but with values that ours cannot have.
        sought: the likeliest of ours, where it has no place.
    """

    theirs: ForeignParameter
    ours: str | None = None
    fit: Fit | None = None
    when: Mapping[str, Any] | None = None
    why: str = ""
    refused: bool = False
    sought: str | None = None

    @property
    def kept(self) -> bool:
        """True if the study has it."""
        return self.fit is not None

    @property
    def varies(self) -> bool:
        """True if the study searches it."""
        return self.fit is not None and isinstance(self.fit.literal, list | dict) and len(self.fit.literal) > 1

    def line(self) -> str | None:
        """Return the mapping as `theirs -> ours`; None where neither name nor values change."""
        if self.fit is None or (self.theirs.name == self.ours and not self.fit.translations):
            return None
        values = ", ".join(self.fit.translations)
        if self.theirs.name == self.ours:
            return f"{self.ours}: {values}"
        return f"{self.theirs.name} -> {self.ours}{values and f' ({values})'}"

    def label(self) -> str:
        """Return the name, and ours where it is another."""
        return self.theirs.name if self.ours in (None, self.theirs.name) else f"{self.theirs.name} -> {self.ours}"


def describe(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Yield what differs, and what has no place, a line for each, or for several that have the same reason."""
    for each in outcomes:
        if each.fit is not None:
            yield from (f"{each.theirs.name}: {note}" for note in (each.theirs.note, *each.fit.notes) if note)
    absent: dict[str, list[str]] = {}
    for each in outcomes:
        if each.why and not each.refused:
            absent.setdefault(each.why, []).append(each.theirs.name)
    for why, names in absent.items():
        yield f"{', '.join(names)}: left out: {why}"


def split_name(parameter: ForeignParameter) -> tuple[list[str], str]:
    """Return the tables that a parameter is in, and its own name; `optimizer.name` is `optimizer`."""
    parts = [part for key in parameter.path for part in SEPARATORS.split(key) if part]
    parts = parts or list(parameter.path)
    if len(parts) > 1 and canonical(parts[-1]) in KINDS:
        parts.pop()
    return parts[:-1], parts[-1]


def name_other_learning(search: ForeignSearch) -> str | None:
    """Return the kind of learning that a search is of, where that is not ours, with the words that show it."""
    words = {canonical(part): part for each in search.parameters for path in [split_name(each)] for part in flat(path)}
    metric = canonical(search.metric or "")
    for kind, markers in OTHER_LEARNING.items():
        found = [words[name] for name in words if name in markers]
        if kind == "reinforcement learning" and any(word in metric for word in ("reward", "return", "episode")):
            found.append(str(search.metric))
        if found:
            return f"{kind} ({', '.join(found[:3])})"
    return None


def flat(path: tuple[list[str], str]) -> list[str]:
    """Return the parts of a name."""
    return [*path[0], path[1]]


def models_of(search: ForeignSearch, sets: Mapping[str, Any], renames: Mapping[str, str]) -> list[str]:
    """Return the models of ours that a search names, or that are set."""
    if "model" in sets:
        given = sets["model"]
        return [str(each) for each in given] if isinstance(given, list) else [str(given)]
    parameter, names = all_parameters()["model"], []
    for each in search.parameters:
        last = split_name(each)[1]
        is_model = renames.get(each.name, renames.get(last)) == "model" or "model" in find_aliases(last, ("model",))
        if not is_model and canonical(last) != "model":
            continue
        domain = each.domain
        values = [domain.value] if isinstance(domain, Constant) else getattr(domain, "values", ())
        for value in values:
            try:
                names.append(str(translate(parameter, value, value_renames(each, renames, "model"))))
            except RequestError:
                continue
    return list(dict.fromkeys(names))


def value_renames(parameter: ForeignParameter, renames: Mapping[str, str], ours: str) -> dict[str, str]:
    """Return the renames of a parameter's values, by its name, theirs or ours: of `optimizer.LAMB=adamw`, LAMB."""
    beginnings = (f"{ours}.", f"{split_name(parameter)[1]}.", f"{parameter.name}.")
    return {
        theirs.removeprefix(beginning): ours
        for beginning in beginnings
        for theirs, ours in renames.items()
        if theirs.startswith(beginning)
    }


def match_renames(outcome: Outcome) -> set[str]:
    """Return what a rename can name of a parameter: it, and each of its values after it, or after ours."""
    names = {outcome.theirs.name, split_name(outcome.theirs)[1]}
    domain = outcome.theirs.domain
    values = [domain.value] if isinstance(domain, Constant) else getattr(domain, "values", ())
    before = names | {ours for ours in (outcome.ours, outcome.sought) if ours is not None}
    return names | {f"{name}.{value}" for name in before for value in values}


class ParameterMapper:
    """Mapper of the parameters of one search.

    Args:
        search: another tool's.
        renames: our names by theirs, and our values by `name.value` of theirs.
        sets: parameters of ours that the user sets.
    """

    def __init__(self, search: ForeignSearch, renames: Mapping[str, str], sets: Mapping[str, Any]) -> None:
        self.search, self.renames = search, renames
        named = models_of(search, sets, renames)
        self.models = named or ["mlp"]  # which is the default
        epochs = sets.get("epochs", all_parameters()["epochs"].default)
        self.company = Company(
            search.parameters,
            split_name,
            model_named=bool(named),
            default_epochs=epochs if isinstance(epochs, int) else 0,
        )
        self.table = all_parameters([name for name in self.models if registry.models.has(name)])
        self.canonical = {canonical(name): name for name in self.table}
        self.other_learning = name_other_learning(search)
        self.uses = {use for name in self.models for use in registry.models.get(name).uses}
        entries = map(registry.models.get, registry.models.names())
        self.of_models = {use for entry in entries if not entry.loop for use in entry.uses}

    def map(self) -> list[Outcome]:
        """Return the outcome of every parameter, in the file's order."""
        outcomes = [self._map_one(each) for each in self.search.parameters]
        by_name = {each.theirs.name: each for each in outcomes}
        return [self._add_condition(each, by_name) for each in outcomes]

    def _map_one(self, theirs: ForeignParameter) -> Outcome:
        containers, last = split_name(theirs)
        renamed = next((self.renames[key] for key in (theirs.name, last) if key in self.renames), None)
        if renamed is not None:
            if renamed not in self.table:
                line = f"--rename {theirs.name}={renamed}: {describe_unknown('parameter', renamed, self.table)}"
                return Outcome(theirs, why=line, refused=True)
            if isinstance(theirs.domain, Computed):
                return _explain_computed(theirs, theirs.domain, [renamed])
            return self._try(theirs, [renamed], renamed=True)
        if theirs.expression:
            why = f"the file computes with it: {theirs.expression}; give the values that it has then with --set NAME=…"
            return Outcome(theirs, why=why)
        if self.other_learning is not None:
            return Outcome(
                theirs, why=f"the search is of {self.other_learning}, where the same words mean other things"
            )
        joined = find_aliases(containers[-1] + last, self.table) if containers else ()
        own = self.canonical.get(canonical(last))
        names = list(dict.fromkeys([*joined, *([own] if own else []), *find_aliases(last, self.table)]))
        if isinstance(theirs.domain, Computed):
            return _explain_computed(theirs, theirs.domain, names)
        if not names:
            return self._find_no_place(theirs, last)
        fitting = [
            name
            for name in names
            if all(self._fits_in(each, name) for each in (containers[:-1] if name in joined else containers))
        ]
        if not fitting:
            return Outcome(theirs, why=f"it stands in {'.'.join(containers)}, so that it need not be {names[0]}")
        return self._try(theirs, fitting)

    def _fits_in(self, container: str, name: str) -> bool:
        return is_context(container, name, self.table[name].group)

    def _find_no_place(self, theirs: ForeignParameter, last: str) -> Outcome:
        ours, meaning = NEAR_MISSES.get(canonical(last), (None, ""))
        if ours == "weight_decay" and not _is_penalty(theirs):
            ours, meaning = None, ""
        if ours in self.table:
            why = f"{meaning}; if your code means {ours}, --rename {theirs.name}={ours}"
            return Outcome(theirs, why=why, sought=ours)
        return Outcome(theirs, why=meaning or "no equivalent; name one with --rename THEIRS=OURS")

    def _try(self, theirs: ForeignParameter, names: Sequence[str], *, renamed: bool = False) -> Outcome:
        """Return the outcome for the first parameter of ours that has the type of the values, and that matters."""
        reasons: list[str] = []
        for name in names:
            if name in self.of_models - self.uses and not renamed:
                models = " or ".join(self.models)
                reasons.append(f"the model {models} does not use {name}; --set model=… chooses another")
                continue
            if not renamed and (why := self.company.find_other_meaning(theirs, name)):
                reasons.append(why)
                continue
            try:
                fit = fit_domain(self.table[name], theirs.domain, value_renames(theirs, self.renames, name))
            except OtherMeaningError as error:
                reasons.append(str(error))
            except OutsideBoundsError as error:
                is_synonym = canonical(split_name(theirs)[1]) != canonical(name) and not renamed
                if is_synonym and self.table[name].kind in (int, float, list):
                    reasons.append(f"it is no {name} of ours: {error}")
                    continue
                units = " or ".join(f"--rename {theirs.name}={unit}" for unit in OTHER_UNITS.get(name, ()))
                advice = f"; if it has another unit, {units}" if units else ""
                return Outcome(theirs, name, why=f"{error}{advice}", refused=True)
            else:
                return Outcome(theirs, name, fit)
        return Outcome(theirs, why=reasons[0], sought=names[0])

    def _add_condition(self, outcome: Outcome, by_name: Mapping[str, Outcome]) -> Outcome:
        """Return an outcome with its condition in our words; without a place where they cannot say it."""
        if not outcome.kept or not outcome.theirs.when:
            return outcome
        when: dict[str, Any] = {}
        for name, values in outcome.theirs.when.items():
            parent = by_name.get(name)
            if parent is None or parent.ours is None or not parent.kept:
                why = f"it exists only under a value of {name}, which has no place"
                return Outcome(outcome.theirs, why=why, sought=outcome.ours)
            renames = value_renames(parent.theirs, self.renames, parent.ours)
            try:
                ours = [translate(self.table[parent.ours], value, renames) for value in values]
            except (OtherMeaningError, ConfigError) as error:
                why = f"it exists only under {name} = {values[0]!r}: {error}"
                return Outcome(outcome.theirs, why=why, sought=outcome.ours)
            when[parent.ours] = ours[0] if len(ours) == 1 else ours
        return replace(outcome, when=when)


def _explain_computed(theirs: ForeignParameter, domain: Computed, names: Sequence[str]) -> Outcome:
    return Outcome(theirs, why=f"the file computes it: {domain.expression}", sought=names[0] if names else None)


def _is_penalty(theirs: ForeignParameter) -> bool:
    """Return whether values can be those of a penalty, and not the sizes of a layer called l2."""
    numbers = list(list_numbers(theirs))
    return not numbers or min(numbers) < 1


def join_parameters(outcomes: Sequence[Outcome]) -> tuple[dict[str, Any], list[Outcome]]:
    """Return the `[parameters]` of a study file, and the outcomes that another one excludes, which are refused.

    Several of theirs can be one of ours if each has a condition: a learning rate for each optimizer.
    """
    grouped: dict[str, list[Outcome]] = {}
    for each in outcomes:
        if each.kept and each.ours is not None:
            grouped.setdefault(each.ours, []).append(each)
    parameters: dict[str, Any] = {}
    refused: list[Outcome] = []
    for ours, group in grouped.items():
        if len(group) > 1 and not all(each.when for each in group):
            names = [each.theirs.name for each in group]
            why = f"{names[0]} is {ours} already; --rename one, or --leave-out it"
            refused.append(replace(group[1], fit=None, why=why, refused=True))
            continue
        literals = [_longhand(each) for each in group]
        parameters[ours] = literals[0] if len(literals) == 1 else literals
    return parameters, refused


def _longhand(outcome: Outcome) -> Any:
    """Return a domain as a study file has it, with its condition."""
    assert outcome.fit is not None
    literal = outcome.fit.literal
    if not outcome.when:
        return literal
    table = literal if isinstance(literal, dict) else {"choices" if _is_choices(outcome) else "value": literal}
    return {**table, "when": dict(outcome.when)}


def _is_choices(outcome: Outcome) -> bool:
    return isinstance(outcome.theirs.domain, Choices)
