"""Sampler, budget and pruner of another tool's search as ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpo.study.foreign.imported import ImportedStudy
from hpo.study.foreign.search import ForeignSearch
from hpo.study.input.study_file import DEFAULT_TRIALS, parse_component
from hpo.study.pruners import check_pruner
from hpo.study.samplers import SAMPLERS, check_sampler

__all__ = ["add_trials", "check_trials", "note_idle_pruner"]

SEEDS = 2**32  # that a study can have
# By pruner, the option that says how many epochs no trial is pruned in, and its default.
WARMUPS = {"asha": ("min_resource", 1), "hyperband": ("min_resource", 1), "median": ("n_warmup_steps", 0)}
WARMUPS["percentile"] = WARMUPS["median"]


def add_trials(study: ImportedStudy, search: ForeignSearch) -> None:
    """Add the sampler, the budget and the pruner to a study's table."""
    table = study.table
    if search.method is None:
        study.notes.append("it names no search method of ours; the study's sampler is the default, tpe")
    elif search.also and not SAMPLERS[search.method].several_objectives:
        study.notes.append(f"its sampler {search.method} takes one objective; the study's is the default, tpe")
    else:
        options = dict(search.sampler_options)
        table["sampler"] = {"name": search.method, **options} if options else search.method
    if search.method == "grid":
        if search.trials is not None:
            study.notes.append(f"its limit of {search.trials} trials is left out: a grid has as many trials as points")
    elif search.trials is None:
        table["trials"] = DEFAULT_TRIALS
        study.notes.append(f"it has no limit of trials and would never end; trials = {DEFAULT_TRIALS} is set instead")
    else:
        table["trials"] = search.trials
    if search.seed is not None and 0 <= search.seed < SEEDS:
        table["seed"] = search.seed
        study.notes.append(f"seed = {search.seed} decides the data split and the initial weights here, too")
    elif search.seed is not None:
        study.notes.append(f"seed = {search.seed} is left out: a study's is from 0 to {SEEDS - 1:,}")
    if search.timeout is not None:
        table["timeout"] = search.timeout
    table["pruner"] = "none" if search.pruner is None else search.pruner
    if search.also and search.pruner not in (None, "none"):
        table["pruner"] = "none"
        study.notes.append("its pruner is left out: a study of several objectives has none")
    if search.also and table.pop("target", None) is not None:
        study.notes.append("its target is left out: a study of several objectives has none")


def check_trials(table: Mapping[str, Any], objectives: int, epochs: int) -> None:
    """Refuse a sampler or a pruner that no study of so many objectives and epochs can have.

    Raises:
        DefinitionError: names the option and the value.
    """
    sampler = parse_component(table.get("sampler", "tpe"), "sampler")
    check_sampler(sampler.name, sampler.options, objectives)
    pruner = parse_component(table["pruner"], "pruner")
    check_pruner(pruner.name, pruner.options, epochs, objectives)


def note_idle_pruner(study: ImportedStudy, epochs: int) -> None:
    """Say that a pruner never prunes, where trials of at most so many epochs end before it may."""
    pruner = study.table["pruner"]
    options = pruner if isinstance(pruner, Mapping) else {"name": pruner}
    if (warmup := WARMUPS.get(str(options["name"]))) is None:
        return
    first = options.get(warmup[0], warmup[1])
    if first >= epochs:
        length = f"{epochs} epoch{'s' if epochs > 1 else ''}"
        study.notes.append(
            f"the pruner never prunes: it begins at epoch {first}, and a trial has {length}; set more epochs, or a "
            f"lower {warmup[0]}"
        )
