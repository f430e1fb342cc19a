"""Chapter on the study's definition and its space."""

from __future__ import annotations

from collections.abc import Mapping

from hpo.config.registry import NO_DATA
from hpo.report.chapters.blocks import Chapter, Subtitle, Table, Text
from hpo.report.data.results import Results
from hpo.report.format import (
    condition_text,
    count_text,
    domain_text,
    duration_text,
    number_of,
    value_text,
    values_text,
)
from hpo.space import Constant, LearnedSpace
from hpo.study.input.preview import format_resampling

__all__ = ["definition_chapter"]


def definition_chapter(results: Results) -> Chapter:
    """Write the chapter."""
    notes = [Text(f"{line}.", quiet=True) for line in results.space.notices()] if results.definition.learned else []
    return Chapter(
        "definition", "Definition", [_study_table(results), Subtitle("Space"), _space_table(results), *notes]
    )


def _study_table(results: Results) -> Table:
    definition, budget = results.definition, results.budget
    objectives = ", ".join(f"{objective.direction} {objective.metric}" for objective in definition.objectives)
    made_by = ["objective function", definition.function.label] if definition.function else ["made by", "another tool"]
    data = "read by the training loop" if definition.dataset.name == NO_DATA else definition.dataset.label
    rows = [
        made_by if not definition.configured else ["data set", data],
        ["objective" if len(definition.objectives) == 1 else "objectives", objectives],
        ["budget", f"{budget.trials} trials"],
        ["sampler", _component_text(definition.sampler.name, definition.sampler.options)],
        ["pruner", _component_text(definition.pruner.name, definition.pruner.options)],
        ["seed", str(definition.seed)],
    ]
    if definition.foreign:
        rows = [row for row in rows if row[0] not in ("sampler", "pruner", "seed")]  # which Optuna does not store
    if results.origins:
        rows.append(["values", ", ".join(map(_origin_text, results.origins.items()))])
    if definition.constraints:
        violated = sum(not row.feasible for row in results.trials)
        texts = ", ".join(constraint.text for constraint in definition.constraints)
        rows.append(["constraints", f"{texts} (violated by {violated} of {len(results.trials)} trials)"])
    rows += [["resampling", line] for line in format_resampling(definition)]
    if budget.timeout is not None:
        rows.append(["timeout", duration_text(budget.timeout)])
    if budget.trial_timeout is not None:
        rows.append(["timeout of a trial", duration_text(budget.trial_timeout)])
    if budget.target is not None:
        rows.append(["target", values_text(results.objective.metric, budget.target)])
    if definition.baseline is not None:
        rows.append(
            ["baseline", ", ".join(f"{k} = {value_text(v)}" for k, v in definition.baseline.items()) or "defaults"]
        )
    return Table(["", ""], rows)


def _origin_text(count: tuple[str, int]) -> str:
    """Say where the values of a number of trials come from."""
    origin, trials = count
    words = "returned by the training loop" if origin == "returned" else f"of the {origin}"
    return f"{words} ({number_of(trials, 'trial')})"


def _component_text(name: str, options: Mapping[str, object]) -> str:
    text = ", ".join(f"{key} = {value}" for key, value in options.items())
    return f"{name} ({text})" if text else name


def _space_table(results: Results) -> Table:
    space = results.space
    varied = {dimension.key for dimension in space.varied}
    rows = [
        [
            dimension.parameter.name,
            domain_text(dimension.domain) + ("" if dimension.key in varied else " (constant)"),
            f"{space.count(dimension.key)} of {count_text(len(results.trials))}"
            if isinstance(space, LearnedSpace)
            else condition_text(dimension.domain.when),
        ]
        for dimension in sorted(space.dimensions, key=lambda d: isinstance(d.domain, Constant))
    ]
    return Table(["parameter", "domain", "trials" if isinstance(space, LearnedSpace) else "condition"], rows)
