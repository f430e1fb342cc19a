"""Notices of a study's optimizers before it is launched: what they need, and what they keep out of cohorts."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

from hpo.config.choices import OPTIMIZERS
from hpo.config.cohort_key import UNSTACKABLE
from hpo.study import Definition
from hpo.study.slots import fixed_trials

__all__ = ["explain_optimizers"]


def explain_optimizers(definition: Definition, trials: int) -> Iterator[str]:
    """Yield the notices of a study's optimizers, in one line each."""
    domains = (each.domain for each in definition.space.dimensions if each.parameter.name == "optimizer")
    names = list(dict.fromkeys(str(value) for domain in domains for value in domain.points()))
    for name in names:
        choice = OPTIMIZERS[name]
        package = choice.target.partition(".")[0]
        if choice.extra and importlib.util.find_spec(package) is None:
            yield (
                f"where a model trains alone, {name} needs the package {package}, which is missing here: "
                f"pip install 'torch-hpo[{choice.extra}]'"
            )
    if UNSTACKABLE.intersection(names) and (notice := _explain_cohorts(definition, trials, names)):
        yield notice


def _explain_cohorts(definition: Definition, trials: int, names: list[str]) -> str | None:
    """Return which trials their optimizer keeps out of cohorts; None where there are none."""
    if not definition.fixed:
        kept = sorted(UNSTACKABLE.intersection(names))
        return f"trials with {' or '.join(kept)} train one model at a time, not in a cohort"
    drawn = [definition.space.values(params) for params in fixed_trials(definition, 0, trials)]
    alone = [name for values in drawn if (name := definition.config(values).optimizer) in UNSTACKABLE]
    which = " or ".join(sorted(set(alone)))
    notice = f"{len(alone)} of {len(drawn)} trials use {which}, which trains one model at a time, not in a cohort"
    return notice if alone else None
