"""Chapters on the search: Pareto front, history, slices, parallel coordinates, timeline."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from hpo.report.chapters.blocks import Chapter, Table, Text
from hpo.report.data.results import Results, TrialRow
from hpo.report.figures.overview import history_figure, pareto_figure
from hpo.report.figures.parallel_coordinates import parallel_coordinates_figure
from hpo.report.figures.plotly_spec import POINTS_LIMIT
from hpo.report.figures.slices import slice_figures
from hpo.report.figures.timeline import timeline_figure
from hpo.report.format import duration_text, gain_text, metric_text, value_text, values_text
from hpo.report.stats.trial_stats import standard_error

__all__ = [
    "find_cheapest_within_noise",
    "history_chapter",
    "parallel_coordinates_chapter",
    "pareto_chapter",
    "slices_chapter",
    "timeline_chapter",
]

FRONT = 20


def pareto_chapter(results: Results) -> Chapter | None:
    """Write the chapter on the Pareto front; None of one objective, and without a complete trial."""
    if len(results.objectives) < 2 or not results.front:
        return None
    trials = results.front[:FRONT]
    names = [name for name in results.varied if any(name in results.settings(row) for row in trials)]
    metrics = [objective.metric for objective in results.objectives]
    rows = [_front_row(results, row, names) for row in trials]
    more = [Text(f"The first {FRONT} of {len(results.front)}.", quiet=True)] if len(results.front) > FRONT else []
    table = Table(["trial", *metrics, *names, "time"], rows, ["trial", *metrics, "time"])
    smallest = [Text(text) for other in range(1, len(results.objectives)) if (text := _cheapest_text(results, other))]
    return Chapter("pareto", "Pareto front", [pareto_figure(results), *smallest, table, *more])


def find_cheapest_within_noise(results: Results, other: int) -> TrialRow | None:
    """Find the trial best in another objective among those within a standard error of the best first one.

    That is the rule of one standard error (Breiman et al., "Classification and Regression Trees", 1984): of models that
    do not differ significantly, take the cheapest. None where the noise of the first objective is not known.
    """
    error, best = standard_error(results), results.best
    if error is None or best is None or best.value is None:
        return None
    sign, cost = results.signs[0], results.signs[other]
    near = [row for row in results.front if row.values and sign * (row.values[0] - best.value) <= error]
    return min(near, key=lambda row: cost * (row.values or ())[other])


def _cheapest_text(results: Results, other: int) -> str:
    cheapest, error, best = find_cheapest_within_noise(results, other), standard_error(results), results.best
    if cheapest is None or error is None or best is None or not cheapest.values or not best.values:
        return ""
    first, second = (results.objectives[place].metric for place in (0, other))
    start = f"Within one standard error ({gain_text(first, error)}) of the best {metric_text(first)},"
    if cheapest.number == best.number:
        return f"{start} no trial has a better {metric_text(second)} than the best one, trial {best.number}."
    values = [f"{values_text(second, row.values[other])}" for row in (cheapest, best) if row.values]
    scores = [f"{values_text(first, row.values[0])}" for row in (cheapest, best) if row.values]
    return (
        f"{start} trial {cheapest.number} has the best {metric_text(second)}: {values[0]} against {values[1]} of "
        f"trial {best.number}, at {scores[0]} against {scores[1]}."
    )


def _front_row(results: Results, row: TrialRow, names: Sequence[str]) -> list[str]:
    values = [values_text(o.metric, v) for o, v in zip(results.objectives, row.values or (), strict=False)]
    settings = results.settings(row)
    return [str(row.number), *values, *(value_text(settings.get(name)) for name in names), duration_text(row.seconds)]


def history_chapter(results: Results) -> Chapter | None:
    """Draw the first objective of every trial by number."""
    figure = history_figure(results)
    return None if figure.spec is None else Chapter("history", "Optimization history", [figure])


def slices_chapter(results: Results, order: Sequence[str] = ()) -> Chapter | None:
    """Draw the first objective over each parameter; `order` are keys of dimensions, most important first."""
    figures = slice_figures(results, order)
    if not figures:
        return None
    note = (
        "The objective over each parameter, most important first. Filled dots are complete trials, open ones were "
        "pruned, the ring is the best."
    )
    if max(results.counts["COMPLETE"], results.counts["PRUNED"]) > POINTS_LIMIT:
        note += f" At most {POINTS_LIMIT} trials of each kind are drawn, evenly spaced by rank or number."
    return Chapter("slices", "Slices", [Text(note, quiet=True), *figures])


def parallel_coordinates_chapter(results: Results, order: Sequence[str] = ()) -> Chapter | None:
    """Draw every trial as a line over all parameters; `order` are names, most important first."""
    figure = parallel_coordinates_figure(results, order)
    return None if figure.spec is None else Chapter("parallel", "Parallel coordinates", [figure])


def timeline_chapter(results: Results, now: datetime) -> Chapter | None:
    """Draw the workers' trials over time; running trials end at `now`, in naive local time."""
    figure = timeline_figure(results, now)
    return None if figure.spec is None else Chapter("timeline", "Timeline", [figure])
