"""Sampler, budget and pruner of another tool's search as ours."""

from __future__ import annotations

from collections.abc import Mapping

from hpo.study.foreign.imported import ImportedStudy
from hpo.study.foreign.search import ForeignSearch
from hpo.study.input.study_file import DEFAULT_TRIALS

__all__ = ["add_trials", "note_idle_pruner"]

# By pruner, the option that says how many epochs no trial is pruned in, and its default.
WARMUPS = {"asha": ("min_resource", 1), "hyperband": ("min_resource", 1), "median": ("n_warmup_steps", 0)}
WARMUPS["percentile"] = WARMUPS["median"]


def add_trials(study: ImportedStudy, search: ForeignSearch) -> None:
    """Add the sampler, the budget and the pruner to a study's table."""
    table = study.table
    if search.method is not None:
        options = dict(search.sampler_options)
        table["sampler"] = {"name": search.method, **options} if options else search.method
    else:
        study.notes.append("it names no search method of ours; the study's sampler is the default, tpe")
    if search.method == "grid":
        if search.trials is not None:
            study.notes.append(f"its limit of {search.trials} trials is left out: a grid has as many trials as points")
    elif search.trials is None:
        table["trials"] = DEFAULT_TRIALS
        study.notes.append(f"it has no limit of trials and would never end; trials = {DEFAULT_TRIALS} is set instead")
    else:
        table["trials"] = search.trials
    if search.seed is not None:
        table["seed"] = search.seed
        study.notes.append(f"seed = {search.seed} decides the data split and the initial weights here, too")
    if search.timeout is not None:
        table["timeout"] = search.timeout
    table["pruner"] = "none" if search.pruner is None else search.pruner
    if search.also and search.pruner not in (None, "none"):
        table["pruner"] = "none"
        study.notes.append("its pruner is left out: a study of several objectives has none")


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
