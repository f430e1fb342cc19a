"""Forks: new studies of a changed definition that begin with the finished trials of another one.

A trial is kept if the new space could produce the same configuration, whatever its parameters are called there. It
keeps its values, reports, attributes and times; its parameters get the distributions of the new space, choices
included, which Optuna itself does not let change. The keys of a study file that decide what a value means, such as data
set, objective and seed, cannot be changed: old trials could not be compared with new ones.

Kept trials are numbered so that the budget stays exact:

- in an adaptive study they come first, in their old order, after the baseline if that must be trained anew;
- in a grid study each takes the slot of its own point;
- in a random or quasi-random study each keeps its number, so that in an unchanged space no later slot draws the same;
  if its number is not available, it takes the lowest free slot.

Of a study whose space is learned, all finished trials are kept as they are: only its function knows the space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.trial import FrozenTrial

from hpo.config.parameter import Value
from hpo.errors import (
    HpoError,
    RequestError,
    SpaceError,
    StudyConflictError,
    StudyForeignError,
    StudyNotFoundError,
    describe_unknown,
)
from hpo.space import Choices, Constant, Space
from hpo.space.domains import Domain, Range
from hpo.storage.cache import FINAL
from hpo.storage.statements import FIXED, insert_attrs
from hpo.storage.study_storage import ENVIRONMENT
from hpo.storage.tables import (
    EPOCHS,
    FITS,
    INTERMEDIATE_VALUES,
    PARAMS,
    SAMPLES,
    SPLITS,
    STEPS,
    TRIAL_SYSTEM_ATTRS,
    TRIAL_USER_ATTRS,
    TRIALS,
    VALUES,
)
from hpo.study.attributes import RACED, SPLIT_NUMBER, read_text
from hpo.study.definition import Budget, Definition, FunctionReference
from hpo.study.input.blame import blame_options
from hpo.study.input.function_study import define_function_study, read_stored_keys
from hpo.study.input.resampling_keys import spell_resampling
from hpo.study.input.study_file import check_name, parse_definition
from hpo.study.operations.copy_study import FileCopy
from hpo.study.paused import state_name
from hpo.study.racing import rename_rival
from hpo.study.slots import fixed_trials
from hpo.study.study import Study, study_names

__all__ = ["Fork", "fork_study"]

CHANGEABLE = ("trials", "timeout", "trial_timeout", "target", "until", "sampler", "pruner")  # besides the parameters
BATCH = 200  # trials whose rows are copied at a time
COPIED = (VALUES, INTERMEDIATE_VALUES, TRIAL_USER_ATTRS, TRIAL_SYSTEM_ATTRS, EPOCHS, FITS, STEPS, SAMPLES)
# The system attributes of a trial that hold in any space, among them what a pruner compares, and the generation of
# genetic samplers. The state that CMA-ES keeps there belongs to the old space: it begins anew.
ATTRS = (ENVIRONMENT, "constraints", "artifacts:", "completed_rung_", "NSGAIISampler:generation")


@dataclass(frozen=True)
class Fork:
    """Fork that is not in the storage yet.

    Attributes:
        study: the study whose trials are kept.
        name, definition, budget: of the new study.
        first: the Optuna parameters of its first trials, kept or waiting, by number.
        kept: trials of `study` by their new numbers.
        refused: a line for each finished trial that is not kept.
        skipped: numbers of the FAIL, RUNNING, PAUSED and WAITING trials, by state; they are not kept either.
    """

    study: Study
    name: str
    definition: Definition
    budget: Budget
    first: list[dict[str, Value]]
    kept: dict[int, FrozenTrial]
    refused: list[str]
    skipped: Mapping[str, Sequence[int]]

    def create(self) -> Study:
        """Create the fork in the storage with its trials' weights and artifacts: all or nothing.

        Raises:
            StudyConflictError: the name is taken.
            StudyNotFoundError: the study was deleted or changed meanwhile.
        """
        storage = self.study.storage
        storage.flush()  # this process may have buffered writes
        files = FileCopy(self.study, storage, self.name, {trial.number: new for new, trial in self.kept.items()})

        def finish(connection: sa.Connection, study_id: int) -> None:
            self._copy_trials(connection, study_id)
            files.run(connection, study_id)

        try:
            fork = Study.insert(storage, self.name, self.definition, self.budget, self.first, finish)
        except optuna.exceptions.DuplicatedStudyError as error:
            raise _name_taken(self.study, self.name) from error
        files.link()  # once more, as in `copy_study`
        return fork

    def _copy_trials(self, connection: sa.Connection, study_id: int) -> None:
        """Turn waiting trials into the kept ones."""
        query = sa.select(TRIALS.c.number, TRIALS.c.trial_id).where(TRIALS.c.study_id == study_id)
        ids = {int(row.number): int(row.trial_id) for row in connection.execute(query)}
        numbers = list(self.kept)
        for start in range(0, len(numbers), BATCH):
            part = numbers[start : start + BATCH]
            new_ids = {self.kept[number]._trial_id: ids[number] for number in part}
            self._copy_states(connection, new_ids)
            if self.definition.learned:
                _copy_rows(connection, PARAMS, new_ids, study_id)
            else:
                self._set_params(connection, {ids[number]: self.first[number] for number in part})
                self._copy_asked(connection, {ids[number]: self.kept[number] for number in part})
                self._keep_splits(connection, {ids[number]: (number, self.kept[number]) for number in part})
            if not self.definition.fixed:  # trials of a fixed study keep the parameters of their slots
                where = TRIAL_SYSTEM_ATTRS.c.trial_id.in_(new_ids.values()), TRIAL_SYSTEM_ATTRS.c.key == FIXED
                connection.execute(sa.delete(TRIAL_SYSTEM_ATTRS).where(*where))
            for table in COPIED:
                _copy_rows(connection, table, new_ids, study_id)
            self._rename_rivals(connection, {ids[number]: self.kept[number] for number in part})
        splits = sa.select(sa.literal(study_id), SPLITS.c.digest, SPLITS.c.content)
        splits = splits.where(SPLITS.c.study_id == self.study.id)
        connection.execute(sa.insert(SPLITS).from_select(["study_id", "digest", "content"], splits))

    def _copy_states(self, connection: sa.Connection, new_ids: Mapping[int, int]) -> None:
        """Give trials the state and the times that they have in the original study."""
        where = TRIALS.c.study_id == self.study.id, TRIALS.c.trial_id.in_(new_ids), TRIALS.c.state.in_(FINAL)
        rows = connection.execute(sa.select(TRIALS).where(*where)).all()
        if len(rows) < len(new_ids):
            name, url = self.study.name, self.study.storage.masked_url
            raise StudyNotFoundError(f"study '{name}' in {url} has changed or is deleted; fork it again")
        columns = ("state", "datetime_start", "datetime_complete")
        update = sa.update(TRIALS).where(TRIALS.c.trial_id == sa.bindparam("id"))
        update = update.values({name: sa.bindparam(f"new_{name}") for name in columns})
        values = [{f"new_{name}": getattr(row, name) for name in columns} for row in rows]
        connection.execute(
            update, [{"id": new_ids[row.trial_id], **each} for row, each in zip(rows, values, strict=True)]
        )

    def _set_params(self, connection: sa.Connection, params: Mapping[int, Mapping[str, Value]]) -> None:
        """Store the parameters of trials, given by id, with the distributions of the new space."""
        distributions = {d.key: d.domain.distribution() for d in self.definition.space.varied}
        rows = [
            _param_row(trial_id, key, value, distributions[key])
            for trial_id, values in params.items()
            for key, value in values.items()
        ]
        if rows:
            connection.execute(sa.insert(PARAMS), rows)

    def _keep_splits(self, connection: sa.Connection, trials: Mapping[int, tuple[int, FrozenTrial]]) -> None:
        """Store the numbers whose splits trials were trained on, by the new ids, where others are theirs now."""
        if self.definition.shares_validation:
            return
        renumbered = [
            (trial_id, {SPLIT_NUMBER: old.number})
            for trial_id, (number, old) in trials.items()
            if number != old.number and SPLIT_NUMBER not in old.user_attrs
        ]
        insert_attrs(connection, TRIAL_USER_ATTRS, renumbered)

    def _rename_rivals(self, connection: sa.Connection, trials: Mapping[int, FrozenTrial]) -> None:
        """Let trials that were dropped name the trial that was better as it is called here, given by the new ids."""
        numbers = {trial.number: number for number, trial in self.kept.items()}
        for trial_id, trial in trials.items():
            if (text := read_text(trial.user_attrs, RACED)) is None:
                continue
            where = TRIAL_USER_ATTRS.c.trial_id == trial_id, TRIAL_USER_ATTRS.c.key == RACED
            connection.execute(sa.delete(TRIAL_USER_ATTRS).where(*where))
            insert_attrs(
                connection, TRIAL_USER_ATTRS, [(trial_id, {RACED: rename_rival(text, numbers, self.study.name)})]
            )

    def _copy_asked(self, connection: sa.Connection, trials: Mapping[int, FrozenTrial]) -> None:
        """Store what the training loops of trials asked for themselves, by the new ids, as it is stored of them."""
        known = {dimension.key for dimension in self.definition.space.dimensions}
        rows = [
            _param_row(trial_id, name, value, trial.distributions[name])
            for trial_id, trial in trials.items()
            for name, value in self.study.asked_params(trial).items()
            if name not in known
        ]
        if rows:
            connection.execute(sa.insert(PARAMS), rows)


def _param_row(trial_id: int, name: str, value: Any, distribution: BaseDistribution) -> dict[str, Any]:
    return {
        "trial_id": trial_id,
        "param_name": name,
        "param_value": distribution.to_internal_repr(value),
        "distribution_json": distribution_to_json(distribution),
    }


def fork_study(
    study: Study,
    name: str,
    parameters: Mapping[str, Any] | None = None,
    function: FunctionReference | None = None,
    **keys: Any,
) -> Fork:
    """Plan a fork of a study; nothing is created yet.

    Warm starts of the study are trials like others in its fork: they are kept if they are finished.

    Args:
        study: the study whose trials are kept, as far as they are valid.
        name: the new study's name.
        parameters: domains that override those of the study, or add to them.
        function: the objective function of the fork; by default that of the study.
        keys: keys of a study file that do not change what a value means: trials, timeout, trial_timeout, target, until,
            sampler, pruner; None leaves the study's.

    Raises:
        RequestError: the study is an evaluation or part of one, a key or a value is wrong, no trial can be kept, or
            more than the budget has.
        StudyForeignError: another tool made the study, and no function is given.
        StudyConflictError: the name is taken.
    """
    study.definition.check_readable()
    changes = {key: value for key, value in keys.items() if value is not None}
    for key in changes:
        if key not in CHANGEABLE:
            raise RequestError(
                f"fork: {describe_unknown('key', key, CHANGEABLE)}; with another {key}, launch a study of its own"
            )
    if study.definition.evaluation is not None:
        of = study.definition.evaluation.of
        raise RequestError(
            f"study '{study.name}' is the evaluation of '{of}', whose grid is no search; fork '{of}' instead"
        )
    if (whole := study.definition.nested_of) is not None:
        raise RequestError(
            f"study '{study.name}' is part of the nested evaluation of '{whole}'; fork '{whole}' instead"
        )
    if check_name(name) in study_names(study.storage):
        raise _name_taken(study, name)
    trials = study.trials()
    finished = [trial for trial in trials if trial.state in FINAL]
    if study.definition.configured:
        if function is not None:
            raise RequestError(f"fork: study '{study.name}' trains models, and calls no objective function")

        def change(sets: Mapping[str, Any], keys: Mapping[str, Any]) -> tuple[Definition, Budget]:
            return _change_definition(study, name, sets, keys)

        try:
            definition, budget = change(parameters or {}, changes)
        except RequestError as error:
            line = blame_options(error, parameters or {}, changes, change) or str(error)
            raise type(error)(f"fork of '{study.name}': {line}") from error
        candidates, refused = _validate_trials(study, definition, finished)
    else:
        definition, budget = _change_function_study(study, name, function, parameters or {}, changes)
        candidates, refused = [_Candidate(trial, trial.params, baseline=False) for trial in finished], []
    first, kept, crowded = _place_trials(definition, budget, candidates)
    skipped: dict[str, list[int]] = {}
    for trial in trials:
        if trial.state not in FINAL:
            skipped.setdefault(state_name(trial), []).append(trial.number)
    fork = Fork(study, name, definition, budget, first, kept, [*refused, *crowded], skipped)
    _check_kept(fork)
    return fork


def _name_taken(study: Study, name: str) -> StudyConflictError:
    url = study.storage.masked_url
    return StudyConflictError(f"{url} has a study '{name}' already; give the fork of '{study.name}' another name")


def _change_definition(
    study: Study, name: str, parameters: Mapping[str, Any], changes: Mapping[str, Any]
) -> tuple[Definition, Budget]:
    """Return the definition and budget of a study with some parameters and keys changed, for a study of that name."""
    old, budget = study.definition, study.budget
    report = old.report
    table = {
        "dataset": old.dataset,
        "objective": old.objectives,
        "timeout": budget.timeout,
        "trial_timeout": budget.trial_timeout,
        "target": budget.target,
        "until": budget.until,
        "sampler": {"name": old.sampler.name, **old.sampler.options},
        "pruner": {"name": old.pruner.name, **old.pruner.options},
        "seed": old.seed,
        "record_steps": old.record_steps,
        "metrics": old.recorded,
        **spell_resampling(old),
        "constraints": old.constraints,
        "baseline": old.baseline,
        "report": None if report is None else report.model_dump(mode="json", exclude_none=True),
        **changes,
        "parameters": {**old.parameters, **parameters},
    }
    sampler = table["sampler"]["name"] if isinstance(table["sampler"], Mapping) else table["sampler"]
    if sampler != "grid":  # whose budget is its number of points
        table.setdefault("trials", budget.trials)
    present = {key: value for key, value in table.items() if value is not None}
    _, definition, new_budget = parse_definition(present, name, Path(), old.declarations)
    return definition, new_budget


def _change_function_study(
    study: Study,
    name: str,
    function: FunctionReference | None,
    parameters: Mapping[str, Any],
    changes: Mapping[str, Any],
) -> tuple[Definition, Budget]:
    """Return the definition and budget of a fork of a study whose space is learned."""
    function = function or study.definition.function
    if function is None:
        raise StudyForeignError(
            f"fork: study '{study.name}' in {study.storage.masked_url} was made by another tool, and its objective "
            "function is not known; name that of the fork with --objective FILE.py:FUNCTION"
        )
    for parameter in parameters:
        raise RequestError(
            f"fork: {parameter} cannot be set: the objective function {function.label} chooses the domains of its "
            "parameters; change them there"
        )
    keys = {**read_stored_keys(study), **changes}
    if study.definition.foreign:
        keys.setdefault("trials", study.budget.trials)
    _, definition, budget = define_function_study(function, name, keys)
    return definition, budget


# Validity of trials.


@dataclass(frozen=True)
class _Candidate:
    """Trial that is valid in the new space, and its Optuna parameters there."""

    trial: FrozenTrial
    params: dict[str, Value]
    baseline: bool


def _validate_trials(
    study: Study, definition: Definition, finished: Sequence[FrozenTrial]
) -> tuple[list[_Candidate], list[str]]:
    """Return the trials that are valid under a definition, and a line for each that is not."""
    space = definition.space
    candidates, refused = [], []
    for trial in finished:
        try:
            candidates.append(_make_candidate(study, definition, space, trial))
        except (HpoError, TypeError, ValueError) as error:  # others may have added impossible values
            refused.append(f"trial {trial.number}: {error}")
    return candidates, refused


def _make_candidate(study: Study, definition: Definition, space: Space, trial: FrozenTrial) -> _Candidate:
    """Return a trial as the new space has it.

    Raises:
        SpaceError: the space could not produce its configuration; the message says why.
    """
    values, was_baseline = study.space_config_of(trial).effective(space.domains), study.is_baseline(trial.number)
    params = space.params(values)
    baseline = definition.baseline_config(space).effective(space.domains) if was_baseline else {}
    if baseline == values:
        return _Candidate(trial, params, baseline=True)
    misfits = space.misfits(values)
    if misfits and was_baseline:  # whose values need not be in the space
        name = next(name for name in [*values, *baseline] if values.get(name) != baseline.get(name))
        raise SpaceError(
            f"the baseline has {name} = {baseline.get(name)!r} in the new space, and had {values.get(name)!r}"
        )
    for name, domain in misfits.items():
        raise SpaceError(_explain_misfit(name, values[name], domain, known=name in study.space.domains))
    new = definition.config(space.values(params)).effective(space.domains)
    if new != values:
        name = next(name for name in [*values, *new] if values.get(name) != new.get(name))
        raise SpaceError(f"{name} = {values.get(name)!r}, but {new.get(name)!r} in the new space")
    return _Candidate(trial, params, baseline=False)


def _explain_misfit(name: str, value: Value, domain: Domain | None, *, known: bool) -> str:
    """Explain why a domain excludes a value; `known` if the old space had the parameter, too."""
    longer = "is no longer" if known else "is not"
    match domain:
        case Constant():
            return f"{name} = {value!r}, but {domain.value!r} in the new space"
        case Choices():
            return f"{name} = {value!r} {longer} a choice ({', '.join(map(str, domain.values))})"
        case Range():
            steps = "" if domain.step is None else f" in steps of {domain.step:g}"
            return f"{name} = {value!r} {longer} in the range from {domain.low:g} to {domain.high:g}{steps}"
    return f"{name} = {value!r}: no condition of the new space holds"


# Numbers of the kept trials.


def _place_trials(
    definition: Definition, budget: Budget, candidates: Sequence[_Candidate]
) -> tuple[list[dict[str, Value]], dict[int, FrozenTrial], list[str]]:
    """Return the first trials' parameters by number, the kept trials by number, and a line for each without a slot."""
    baselines = [each for each in candidates if each.baseline]
    others = [each for each in candidates if not each.baseline]
    placed = dict(enumerate(baselines))  # at most one, as trial 0
    leading = 1 if definition.baseline is not None else 0
    if not definition.fixed:
        first = fixed_trials(definition, 0, leading)
        placed |= {leading + i: each for i, each in enumerate(others)}
        return first + [each.params for each in others], {n: each.trial for n, each in placed.items()}, []
    first = fixed_trials(definition, 0, budget.trials)
    if definition.sampler.name == "grid":
        places, crowded = _place_at_points(first, leading, others)
    else:
        places, crowded = _place_at_numbers(leading, budget.trials, others), []
    for number, each in places.items():
        first[number : number + 1] = [each.params]
    return first, {n: each.trial for n, each in sorted((placed | places).items())}, crowded


def _place_at_points(
    points: Sequence[Mapping[str, Value]], leading: int, others: Sequence[_Candidate]
) -> tuple[dict[int, _Candidate], list[str]]:
    """Place trials at the slots of their own points in a grid; of several at one point the first."""
    slot_of = {frozenset(point.items()): number for number, point in enumerate(points) if number >= leading}
    places: dict[int, _Candidate] = {}
    crowded = []
    for each in others:
        number = slot_of.get(frozenset(each.params.items()))
        if number is None:
            crowded.append(f"trial {each.trial.number}: the grid has no such point")
        elif number in places:
            crowded.append(f"trial {each.trial.number}: trial {places[number].trial.number} already has the same point")
        else:
            places[number] = each
    return places, crowded


def _place_at_numbers(leading: int, budget: int, others: Sequence[_Candidate]) -> dict[int, _Candidate]:
    """Place trials at their own numbers if these are available, otherwise at the lowest free ones."""
    places = {each.trial.number: each for each in others if leading <= each.trial.number < budget}
    free = (number for number in count(leading) if number not in places)
    displaced = [each for each in others if places.get(each.trial.number) is not each]
    return places | dict(zip(list(islice(free, len(displaced))), displaced, strict=True))


def _check_kept(fork: Fork) -> None:
    """Refuse a fork that keeps no trial, or more than its budget."""
    name = fork.study.name
    if not fork.kept:
        more = f" (and {len(fork.refused) - 1} more)" if fork.refused[1:] else ""
        why = f"{fork.refused[0]}{more}" if fork.refused else "none is COMPLETE or PRUNED"
        raise RequestError(f"no trial of study '{name}' can be kept: {why}; launch a study of its own")
    needed = len(fork.kept) + (fork.definition.baseline is not None and 0 not in fork.kept)
    if needed > fork.budget.trials:
        raise RequestError(
            f"trials = {fork.budget.trials}: the fork of '{name}' begins with {needed} trials; "
            f"give it at least as many with --trials"
        )


# Rows of the transaction.


def _copy_rows(connection: sa.Connection, table: sa.Table, new_ids: Mapping[int, int], study_id: int) -> None:
    """Copy the rows of some trials, given by their new ids by old ones."""
    id_column = table.autoincrement_column
    query = sa.select(table).where(table.c.trial_id.in_(new_ids)).order_by(*table.primary_key)
    rows = [dict(row) for row in connection.execute(query).mappings()]
    if table is TRIAL_SYSTEM_ATTRS:
        rows = [row for row in rows if row["key"].startswith(ATTRS)]
    for row in rows:
        row["trial_id"] = new_ids[row["trial_id"]]
        if id_column is not None:
            del row[id_column.name]
        if "study_id" in row:
            row["study_id"] = study_id
    if rows:
        connection.execute(sa.insert(table), rows)
