"""Identity, definition and budget of a study, as its storage has them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from functools import cached_property
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from hpo.config import registry
from hpo.config.parameter import Value
from hpo.datasets import DataFacts, DatasetReference
from hpo.errors import (
    RequestError,
    StudyConflictError,
    StudyDeletedError,
    StudyForeignError,
    StudyNotFoundError,
    find_closest,
)
from hpo.space import LearnedSpace, Space
from hpo.storage.identity import KEY
from hpo.storage.study_storage import StudyStorage
from hpo.study.attributes import BUDGET, DATA_FACTS, DEADLINE, DEFINITION, SLOTS, STOPPED, StudyAttributes
from hpo.study.definition import Budget, ComponentSpec, Definition, Objective, default_metrics, longest_epochs
from hpo.study.halving import AshaPruner
from hpo.study.halving_study import HalvingStudy
from hpo.study.pruners import build_pruner
from hpo.study.samplers import UNKNOWN
from hpo.study.slots import fixed_trials
from hpo.utils.text import quantity

__all__ = ["StoredStudy", "study_names"]

COMPONENTS = ("sampler", "pruner")


def study_names(storage: StudyStorage) -> list[str]:
    """Return the names of all studies in a storage, whoever made them."""
    return [study.study_name for study in storage.get_all_studies()]


class StoredStudy:
    """Study as its storage has it: its identity, definition, space and budget.

    A study that another tool has made has a definition, too: what its rows say. Its space is learned from its trials,
    its budget is the trials that it has, and nothing can train it.

    Raises:
        StudyNotFoundError: the storage has no study of that name.
    """

    def __init__(self, storage: StudyStorage, name: str) -> None:
        self.storage = storage
        self.name = name
        try:
            self.id = storage.get_study_id_from_name(name)
        except KeyError:
            raise StudyNotFoundError(self._not_found()) from None
        self._key: object = storage.get_study_user_attrs(self.id).get(KEY)

    def _not_found(self) -> str:
        names = study_names(self.storage)
        near = find_closest(self.name, names)
        content = f"it holds: {', '.join(sorted(names))}" if names else "it holds no studies"
        hint = f"did you mean '{near}'? " if near else ""
        return f"no study '{self.name}' in {self.storage.masked_url}; {hint}{content}"

    def adopt(self, definition: Definition, budget: Budget) -> None:
        """Store the definition of a study that another tool made, so that workers can go on with it.
        Its objectives must be the study's.
        """
        attrs = {DEFINITION: definition.model_dump(mode="json"), BUDGET: budget.model_dump(), SLOTS: []}
        self.storage.update_study(self.id, {DEFINITION: None}, attrs)
        self._forget_definition()

    def check_trainable(self) -> None:
        """Refuse to train a study of which only its trials are known.

        Raises:
            StudyForeignError: another tool made the study; the line says how to go on with it.
        """
        if self.definition.foreign:
            raise StudyForeignError(
                f"study '{self.name}' in {self.storage.masked_url} was made by another tool, and its objective "
                "function is not known; go on with it with: "
                f"hpo launch FILE.py:FUNCTION --name {shlex.quote(self.name)} --trials N"
            )

    def check_configured(self, what: str) -> None:
        """Refuse what needs configurations of ours, which trials of an objective function are not.

        Args:
            what: what was asked for, as its error begins.

        Raises:
            RequestError: the trials are calls of an objective function.
            StudyForeignError: another tool made the study.
        """
        self.check_trainable()
        if (function := self.definition.function) is not None:
            raise RequestError(
                f"{what}: is for studies of models and training loops; study '{self.name}' calls the objective "
                f"function {function.label}, which alone knows what its parameters mean"
            )

    def check_definition(self, definition: Definition) -> None:
        """Refuse another definition than the stored one.

        Raises:
            StudyConflictError: names every difference and what to do.
        """
        differences = self.definition.differences(definition)
        if not differences:
            return
        name = shlex.quote(self.name)
        paths = [difference.partition(":")[0].split(".") for difference in differences]
        changed = {path[0] for path in paths}
        options = [f"--{key} {_spell_component(getattr(definition, key))}" for key in COMPONENTS if key in changed]
        options += [f"--set {path[1]}=…" for path in paths if path[0] == "parameters"]
        if changed <= {*COMPONENTS, "parameters"}:
            advice = (
                f"keep its trials with: hpo fork {name} NEW {' '.join(options)}; or launch this one with --name NEW"
            )
        else:
            advice = f"launch this one with --name NEW, or remove the old one with: hpo delete {name}"
        raise StudyConflictError(
            f"study '{self.name}' exists with another definition ({'; '.join(differences)}); {advice}"
        )

    # Identity.

    @property
    def _attrs(self) -> StudyAttributes:
        """The stored attributes.

        Raises:
            StudyDeletedError: the study was deleted, or its id and name are another study's by now.
        """
        try:
            attrs = self.storage.get_study_user_attrs(self.id)
        except StudyDeletedError:
            raise self._deletion() from None
        key = attrs.get(KEY)
        if self._key is not None and key != self._key:
            raise StudyDeletedError(
                f"study '{self.name}' in {self.storage.masked_url} was deleted while it was in use, and made again"
            )
        self._key = key  # which the first worker has drawn, in a study that was created without one
        return StudyAttributes(self.name, self.storage.masked_url, attrs)

    def replace_key(self, old: str, new: str) -> None:
        """Replace the study's key, unless another worker was faster, and know the study by the one that it has now."""
        self.storage.update_study(self.id, {KEY: old}, {KEY: new})
        self._key = self.storage.get_study_user_attrs(self.id).get(KEY)

    def _deletion(self) -> StudyDeletedError:
        return StudyDeletedError(f"study '{self.name}' is not in {self.storage.masked_url} any more: it was deleted")

    @cached_property
    def definition(self) -> Definition:
        """The stored definition; of a study of another tool, what its rows say.

        Raises:
            StudyDamagedError: it cannot be read.
        """
        attrs = self._attrs
        return attrs.definition if DEFINITION in attrs.values else self._describe_foreign()

    def _describe_foreign(self) -> Definition:
        """Return the definition of a study that another tool has made."""
        directions = self.storage.get_study_directions(self.id)
        names = self.storage.get_study_system_attrs(self.id).get("study:metric_names")
        named = isinstance(names, list) and len(names) == len(directions) and all(isinstance(n, str) for n in names)
        metrics: list[str] = names if named and names else default_metrics(len(directions))
        return Definition(
            dataset=DatasetReference(name=registry.NO_DATA),
            objectives=tuple(
                Objective(metric=metric, direction="maximize" if each == StudyDirection.MAXIMIZE else "minimize")
                for metric, each in zip(metrics, directions, strict=True)
            ),
            sampler=ComponentSpec(name=UNKNOWN),
            pruner=ComponentSpec(name="none"),
            seed=0,
            parameters={},
            foreign=True,
        )

    @property
    def space(self) -> Space:
        """The search space of the definition, or what the trials have shown of it so far.

        Raises:
            StudyDamagedError: the definition has none.
            RegistryError: it uses a model that is not registered.
        """
        if self.definition.learned:
            return LearnedSpace(trial.distributions for trial in self.trials())
        return self._defined_space

    @cached_property
    def _defined_space(self) -> Space:
        return StudyAttributes(self.name, self.storage.masked_url, {}).space(self.definition)

    @property
    def budget(self) -> Budget:
        """The stored budget, as it is now; of a study of another tool, the trials that are there.

        Raises:
            StudyDamagedError: it cannot be read.
        """
        return self._read_budget(self._attrs)

    def _read_budget(self, attrs: StudyAttributes) -> Budget:
        if BUDGET in attrs.values or DEFINITION in attrs.values:
            return attrs.budget
        return Budget(trials=sum(self.storage.count_trials(self.id).values()))

    @property
    def maximize(self) -> bool:
        """True if larger values of the first objective are better."""
        return self.definition.objectives[0].direction == "maximize"

    @cached_property
    def optuna_study(self) -> optuna.Study:
        """The same study as Optuna's, with the definition's pruner (Optuna itself forgets it)."""
        pruner = self.definition.pruner
        function = self.definition.function is not None
        built = build_pruner(pruner.name, pruner.options, longest_epochs(self.space), function=function)
        halves = isinstance(built, AshaPruner) and built.promotes
        return (HalvingStudy if halves else optuna.Study)(self.name, self.storage, pruner=built)

    @property
    def data_facts(self) -> DataFacts | None:
        """A worker's findings about the data; None before it has looked."""
        return self._attrs.data_facts

    def record_data_facts(self, facts: DataFacts) -> bool:
        """Store what was found in the data; return false if another worker was faster."""
        held = {DATA_FACTS: self._attrs.values.get(DATA_FACTS)}
        return self.storage.update_study(self.id, held, {DATA_FACTS: facts.model_dump(mode="json")})

    def check_growth(self, trials: int | None) -> None:
        """Refuse a number of trials that was asked for and is smaller than the budget, which only grows.

        Raises:
            RequestError: says how to run that many more.
        """
        stored = self.budget.trials
        if trials is not None and trials < stored and not self.definition.foreign:
            raise RequestError(
                f"trials = {trials}: study '{self.name}' has a budget of {quantity(stored, 'trial')} already, and a "
                f"budget, which counts all trials from the first, only grows; for {trials} more give --trials "
                f"{stored + trials}, or leave it out to go on"
            )

    def extend(self, budget: Budget) -> None:
        """Raise the budget; a smaller one changes nothing. Timeout and target stay unless they are given."""
        while True:
            attrs = self._attrs
            stored = attrs.budget
            merged = stored.merge(budget)
            more: list[dict[str, Value]] = []
            start = sum(self.storage.count_trials(self.id).values())
            changed: dict[str, Any] = {BUDGET: merged.model_dump()}
            if self.definition.fixed and merged.trials > stored.trials:
                more = fixed_trials(self.definition, start, start + merged.trials - stored.trials)
                changed[SLOTS] = [*attrs.slots, [start, start + len(more)]]
            held = {BUDGET: attrs.values[BUDGET]}
            if merged == stored or self.storage.update_study(self.id, held, changed, more, start):
                return

    def replace_definition(self, definition: Definition) -> None:
        """Replace the definition. The caller makes sure that it means the same for all existing trials."""
        stored = self._attrs.values[DEFINITION]
        self.storage.update_study(self.id, {DEFINITION: stored}, {DEFINITION: definition.model_dump(mode="json")})
        self._forget_definition()

    def _forget_definition(self) -> None:
        for name in ("definition", "_defined_space", "_taken"):
            self.__dict__.pop(name, None)

    def start_clock(self, deadline: float | None = None) -> None:
        """Start the timeout now: every launch gives the study its full time again.

        Args:
            deadline: when no more trials are begun, by `StudyStorage.read_clock`; by default as the budget says.
        """
        timeout = self.budget.timeout
        if deadline is None and timeout is not None:
            self.storage.start_clock()
            deadline = self.storage.read_clock() + timeout
        self.storage.set_study_user_attr(self.id, DEADLINE, deadline)

    @property
    def seconds_left(self) -> float | None:
        """The seconds in which trials are begun; None before the first launch, or without a timeout."""
        deadline = self._attrs.deadline
        return None if deadline is None else deadline - self.storage.read_clock()

    def stop(self) -> None:
        """Begin no more trials, whoever works on the study, until it is launched again."""
        self.storage.set_study_user_attr(self.id, DEADLINE, STOPPED)

    def trials(self) -> list[FrozenTrial]:
        """Return all trials, ordered by number.

        Raises:
            StudyDeletedError: the study was deleted.
        """
        return self._ask(lambda: self.storage.get_all_trials(self.id, deepcopy=False))

    def recent_trials(self) -> list[FrozenTrial]:
        """Return all trials, ordered by number, as they were at most a second ago.

        Raises:
            StudyDeletedError: the study was deleted.
        """
        return self._ask(lambda: self.storage.recent_trials(self.id))

    def _ask(self, read: Callable[[], list[FrozenTrial]]) -> list[FrozenTrial]:
        try:
            return read()
        except StudyDeletedError:
            raise self._deletion() from None


def _spell_component(component: ComponentSpec) -> str:
    """Return a sampler or pruner as an option of a command, with its options as a table of TOML."""
    table = {"name": component.name, **component.options}
    text = ", ".join(f"{key} = {json.dumps(value)}" for key, value in table.items())
    return shlex.quote(f"{{{text}}}" if component.options else component.name)
