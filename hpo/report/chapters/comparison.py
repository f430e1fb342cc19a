"""Chapter that the `[report]` table of a study asks for: curves and scores by group of trials."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from hpo.config.builtin_metrics import BUILTIN_METRICS
from hpo.config.parameter import Value
from hpo.report.chapters.blocks import Block, Chapter, Note, Subtitle, Table, Text
from hpo.report.chapters.expectations import ScoredTrial, judge_expectations
from hpo.report.data.results import Results, TrialRow
from hpo.report.figures.axes import choose_round_ticks
from hpo.report.figures.overview import SERIES
from hpo.report.figures.plotly_spec import (
    FEW,
    HOVER,
    Figure,
    Spec,
    attach_spec,
    build_spec,
    escape_text,
    make_axis,
    make_integer_axis,
    make_value_axis,
    shorten,
)
from hpo.report.format import METRICS, NONE, count_text, duration_text, number_text, value_text, values_text
from hpo.report.stats.knee import find_knee
from hpo.report.stats.trial_stats import CHANGE, loss_margin
from hpo.study import Objective
from hpo.study.definition import Expectation, ReportTable

__all__ = ["Group", "classify_fit", "comparison_chapter", "group_trials", "measure_trial"]

GROUPS_DRAWN = 15
GROUPS_LIMIT = 60  # rows of the table of groups
PLACES = 24  # values of x up to which each has its own place
BUCKETS = 12
STYLES = tuple(product(("solid", "dash", "dot"), SERIES))
RATE = "learning_rate"  # of which only curves are drawn
SECONDS = {"epoch_seconds", "train_seconds"}
TITLES = METRICS | {"epoch_seconds": "seconds per epoch", "best_epoch": "best epoch", RATE: "learning rate"}


@dataclass(frozen=True)
class Group:
    """Trials that have the same values of the compared parameters.

    Attributes:
        name: the values in words.
        rows: the trials, by number.
    """

    name: str
    rows: tuple[TrialRow, ...]


def comparison_chapter(results: Results) -> Chapter | None:
    """Write the chapter; None where the study has no such table, or no trial is complete."""
    table = results.definition.report
    groups = group_trials(results, table.compare) if table else []
    if table is None or not groups:
        return None
    blocks: list[Block] = [*_expectation_notes(results, table)]
    for i, measure in enumerate(table.y):
        blocks += [Subtitle(_title(measure))] if len(table.y) > 1 else []
        blocks += _against_x(results, table, measure, groups, i)
        blocks += _curves(results, measure, groups, i) if table.compare else []
        blocks += (
            _learning_rate_table(table, groups) if measure == RATE else [_score_table(results, table, measure, groups)]
        )
    count = min(len(groups), GROUPS_LIMIT)
    cut = f" {count} of {len(groups)} groups are shown." if count < len(groups) else ""
    words = f"Only complete trials count.{cut} The more trials a group has, the better its best one is by chance alone."
    if results.work is not None and (results.work.cohort_size or 1) > 1 and SECONDS & {table.x, *table.y}:
        words += (
            " Times are shares of a cohort's time, divided evenly among its trials; to time each model alone, launch"
            " with --cohort 1."
        )
    return Chapter("comparison", f"Comparison by {_chapter_subject(table)}", [*blocks, Text(words, quiet=True)])


def _expectation_notes(results: Results, table: ReportTable) -> list[Note]:
    """Compare what people expect of the first measure with the results."""
    measure = table.y[0]

    maximize = _is_maximized(results, measure)
    return [
        judge_expectations(each, measure, *_split_sides(results, measure, each), maximize=maximize)
        for each in table.expect
    ]


def _split_sides(
    results: Results, measure: str, expectation: Expectation
) -> tuple[list[ScoredTrial], list[ScoredTrial]]:
    """Return the scores of the trials that are expected to be better, and of those they are compared with.

    Their rests hold what trials of both have, for nothing pairs by what one side alone has, as the width profile of
    deep models, or the learning rates of one optimizer.
    """
    compared = {*expectation.better, *expectation.than}
    known = results.space.domains
    better, worse = (
        [row for row in results.ranked if row.config is not None and _matches(row.config.effective(known), case)]
        for case in (expectation.better, expectation.than)
    )
    keys = {key for row in better for key in row.params} & {key for row in worse for key in row.params}
    common = {key for key in keys if key.partition("[")[0] not in compared}

    def scored(rows: Sequence[TrialRow]) -> list[ScoredTrial]:
        return [
            ScoredTrial(value, frozenset((key, row.params[key]) for key in common & row.params.keys()))
            for value, row in _score_trials(results, rows, measure)
        ]

    return scored(better), scored(worse)


def _matches(values: Mapping[str, Value], case: Mapping[str, Value]) -> bool:
    return all(values.get(name) == value for name, value in case.items())


def _chapter_subject(table: ReportTable) -> str:
    return " and ".join(TITLES.get(name, name) for name in (*([table.x] if table.x else []), *table.compare))


def _title(measure: str) -> str:
    return TITLES.get(measure, measure)


def group_trials(results: Results, names: Sequence[str]) -> list[Group]:
    """Group the complete trials by their values of the named parameters, in the order of each parameter's values."""
    trials: dict[tuple[object, ...], list[TrialRow]] = {}
    for row in sorted(results.ranked, key=lambda row: row.number):
        if row.config is not None:
            values = row.config.effective(results.space.domains)
            trials.setdefault(tuple(values.get(name) for name in names), []).append(row)
    places = [_value_order([key[i] for key in trials]) for i in range(len(names))]
    keys = sorted(trials, key=lambda key: [place[value] for place, value in zip(places, key, strict=True)])
    return [Group(_group_name(names, key), tuple(trials[key])) for key in keys]


def _value_order(values: Sequence[Any]) -> dict[Any, int]:
    """Return the place of each value: numbers in their order, others as they came."""
    distinct = list(dict.fromkeys(values))
    numeric = all(isinstance(value, int | float) for value in distinct)
    return {value: i for i, value in enumerate(sorted(distinct) if numeric else distinct)}


def _group_name(names: Sequence[str], key: Sequence[object]) -> str:
    values = [value_text(value) for value in key]  # type: ignore[arg-type]
    if len(names) == 1:
        return f"{names[0]} = {values[0]}"
    return ", ".join(values) or "all trials"


def measure_trial(results: Results, row: TrialRow, measure: str) -> float | None:
    """Return a trial's score: an objective, a cost, or a metric at its best epoch; None where it has none."""
    objectives = dict(zip([o.metric for o in results.objectives], row.values or (), strict=False))
    last = row.epochs[-1] if row.epochs else {}
    seconds = last.get("seconds")
    best = next((e for e in row.epochs if e.get("epoch") == row.best_epoch), {})
    costs = {
        "parameter_count": row.parameter_count,
        "train_seconds": seconds,
        "epoch_seconds": None if seconds is None else seconds / max(last.get("epoch", len(row.epochs)), 1),
        "best_epoch": row.best_epoch,
    }
    value = objectives.get(measure, costs[measure] if measure in costs else best.get(measure))
    return float(value) if value is not None and math.isfinite(value) else None


def _is_maximized(results: Results, measure: str) -> bool:
    directions = {objective.metric: objective.direction for objective in results.objectives}
    builtin = BUILTIN_METRICS.get(measure.replace("train_", "val_", 1))
    usual = builtin.direction if builtin is not None else "minimize"
    return directions.get(measure, usual) == "maximize"


def _score_trials(results: Results, rows: Sequence[TrialRow], measure: str) -> list[tuple[float, TrialRow]]:
    """Return scores with their trials, the best first."""
    sign = -1 if _is_maximized(results, measure) else 1
    scored = [(value, row) for row in rows if (value := measure_trial(results, row, measure)) is not None]
    return sorted(scored, key=lambda pair: (sign * pair[0], pair[1].number))


# The table of groups.


def _score_table(results: Results, table: ReportTable, measure: str, groups: Sequence[Group]) -> Table:
    columns = [", ".join(table.compare) or "group", "trials", "best", "best trial", "median", "quartiles"]
    rows = []
    for group in groups[:GROUPS_LIMIT]:
        scored = _score_trials(results, group.rows, measure)
        rows.append([group.name, count_text(len(scored)), *_summary_cells(measure, scored)])
    return Table(columns, rows, columns[1:])


def _summary_cells(measure: str, scored: Sequence[tuple[float, TrialRow]]) -> list[str]:
    if not scored:
        return [NONE] * 4
    low, middle, high = np.quantile([value for value, _ in scored], [0.25, 0.5, 0.75])
    best, row = scored[0]
    quartiles = f"{_score_text(measure, low)} to {_score_text(measure, high)}"
    return [_score_text(measure, best), str(row.number), _score_text(measure, middle), quartiles]


def _score_text(measure: str, value: float) -> str:
    return duration_text(value) if measure == "train_seconds" else values_text(measure, float(value))


def _learning_rate_table(table: ReportTable, groups: Sequence[Group]) -> list[Block]:
    """Tabulate the first and last learning rates of each group's trials that trained all their epochs."""
    columns = [", ".join(table.compare) or "group", "trials", "initial", "final, configured", "final, recorded"]
    rows, exact, ended = [], 0, 0
    for group in groups[:GROUPS_LIMIT]:
        triples = [rates for row in group.rows if (rates := _learning_rates(row)) is not None]
        exact, ended = exact + sum(asked == last for _, asked, last in triples), ended + len(triples)
        if triples:
            texts = [", ".join(f"{rate:.12g}" for rate in sorted(set(each))) for each in zip(*triples, strict=True)]
            rows.append([group.name, count_text(len(triples)), *texts])
    if not rows:
        return []
    words = f"{count_text(exact)} of {count_text(ended)} trials ended at exactly the learning rate that was configured."
    return [Text(words), Table(columns, rows, columns[1:])]


def _learning_rates(row: TrialRow) -> tuple[float, float, float] | None:
    """Return a trial's first learning rate, the last one configured, and the last one recorded; or None."""
    config, last = row.config, row.epochs[-1].get(RATE) if row.epochs else None
    if config is None or last is None or len(row.epochs) < config.epochs or config.schedule == "one_cycle":
        return None
    if config.schedule == "constant":
        return config.learning_rate, config.learning_rate, last
    return (config.learning_rate, config.final_rate, last) if config.ends_at_final_rate else None


# Curves by epoch.


def _curves(results: Results, measure: str, groups: Sequence[Group], index: int) -> list[Block]:
    """Draw the median of each group's curves; nothing of a measure that is not recorded by epoch."""
    drawn = [
        group for group in groups[:GROUPS_DRAWN] if any(measure in epoch for row in group.rows for epoch in row.epochs)
    ]
    traces = [_median_curve(group, measure, i) for i, group in enumerate(drawn)]
    if not traces:
        return []
    values = [value for trace in traces for value in trace["y"]]
    objective = Objective(metric=measure, direction="maximize" if _is_maximized(results, measure) else "minimize")
    upright = make_value_axis(objective, values, _title(measure))
    high = max(trace["x"][-1] for trace in traces)
    spec = build_spec(traces, 380, xaxis=make_integer_axis("epoch", high), yaxis=upright, showlegend=True)
    cut = f" {len(drawn)} of {len(groups)} groups are drawn." if len(drawn) < len(groups) else ""
    caption = f"The median of each group's trials at each epoch, over the trials that reached it.{cut}"
    return [
        attach_spec(Figure(f"comparison-curves-{index}", f"{_title(measure).capitalize()} by epoch"), spec, caption)
    ]


def _median_curve(group: Group, measure: str, index: int) -> Spec:
    by_epoch: dict[int, list[float]] = {}
    for row in group.rows:
        for i, epoch in enumerate(row.epochs, start=1):
            if math.isfinite(epoch.get(measure, math.nan)):
                by_epoch.setdefault(int(epoch.get("epoch", i)), []).append(epoch[measure])
    x = sorted(by_epoch)
    y = [float(np.median(by_epoch[epoch])) for epoch in x]
    name = escape_text(shorten(group.name, 40))
    texts = [
        f"<b>{name}</b><br>epoch {e}: {_score_text(measure, v)}, {len(by_epoch[e])} trials"
        for e, v in zip(x, y, strict=True)
    ]
    return {**_style(index, 2), "mode": "lines", "name": name, "x": x, "y": y, "text": texts, "hovertemplate": HOVER}


def _style(index: int, width: float) -> Spec:
    dash, colour = STYLES[index % len(STYLES)]
    return {"type": "scatter", "line": {"color": colour, "width": width, "dash": dash}, "marker": {"color": colour}}


# Scores against x.


def _against_x(results: Results, table: ReportTable, measure: str, groups: Sequence[Group], index: int) -> list[Block]:
    if table.x is None or measure == RATE:
        return []
    places = _XPositions(results, table)
    lines = [
        (group, _group_traces(results, places, measure, group, i)) for i, group in enumerate(groups[:GROUPS_DRAWN])
    ]
    traces = [trace for _, line in lines for trace in line]
    if not traces:
        return []
    values = [value for trace in traces for value in trace["y"]]
    objective = Objective(metric=measure, direction="maximize" if _is_maximized(results, measure) else "minimize")
    side = {"type": "log"} if "y" in table.log and min(values) > 0 else {}
    upright = make_value_axis(objective, values, _title(measure), **side)
    bends = table.knee and not index and places.numeric and not _is_maximized(results, measure)
    knees = [_knee_mark(table, measure, group, line[-1]) for group, line in lines if line] if bends else []
    marks = [mark for mark, _ in knees if mark]
    spec = build_spec([*traces, *marks], 400, xaxis=places.axis(), yaxis=upright, showlegend=True)
    cut = f" {GROUPS_DRAWN} of {len(groups)} groups are drawn." if len(groups) > GROUPS_DRAWN else ""
    rings = " A ring marks the knee." if marks else ""
    caption = f"Lines: the best trial of each group; pale lines: its median.{rings}{_fit_caption(measure)}{cut}"
    title = f"{_title(measure).capitalize()} against {TITLES.get(table.x, table.x)}"
    figure = attach_spec(Figure(f"comparison-{index}", title), spec, caption)
    return [figure, *([Text(" ".join(words for _, words in knees))] if knees else [])]


def _knee_mark(table: ReportTable, measure: str, of: Group, trace: Spec) -> tuple[Spec, str]:
    """Return a mark at the knee of a group's best trials, on the axes as they are drawn, and a sentence."""
    x, y = [float(place) for place in trace["x"]], [float(value) for value in trace["y"]]
    across = [math.log(place) for place in x] if "x" in table.log and min(x) > 0 else x
    down = [math.log(value) for value in y] if "y" in table.log and min(y) > 0 else y
    knee = find_knee(across, down)
    where = f"{TITLES.get(table.x or '', table.x or '')}"
    group = f" with {of.name}" if table.compare else ""
    if knee is None:
        return {}, f"The curve{group} has no knee."
    beside = f"{_score_text(measure, y[knee])} there, {_score_text(measure, y[-1])} at {x[-1]:g}"
    mark = {
        "type": "scatter",
        "mode": "markers",
        "x": [x[knee]],
        "y": [y[knee]],
        "marker": {"symbol": "circle-open", "size": 17, "color": trace["marker"]["color"], "line": {"width": 2}},
        "legendgroup": trace["legendgroup"],
        "showlegend": False,
        "hoverinfo": "skip",
    }
    return mark, f"The knee{group} is at {where} {x[knee]:g}, an estimate of the {table.knee} ({beside})."


class _XPositions:
    """Positions of trials along x: their values, or the middle of a bucket where values are many."""

    def __init__(self, results: Results, table: ReportTable) -> None:
        assert table.x is not None
        self.results, self.x = results, table.x
        held = [value for row in results.ranked if (value := self._raw(row)) is not None]
        self.numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in held)
        numbers = [float(value) for value in held] if self.numeric else []
        self.log = "x" in table.log and bool(numbers) and min(numbers) > 0
        self.places = sorted(set(numbers)) if len(set(numbers)) <= PLACES else []
        self.edges = self._edges(numbers) if len(set(numbers)) > PLACES else None

    def _raw(self, row: TrialRow) -> Any:
        effective = row.config.effective(self.results.space.domains) if row.config is not None else {}
        return (
            effective[self.x]
            if self.x in effective
            else measure_trial(self.results, row, self.x)
            if self.x in TITLES
            else None
        )

    def _edges(self, numbers: Sequence[float]) -> list[float]:
        spread = np.geomspace if self.log else np.linspace
        return [float(edge) for edge in spread(min(numbers), max(numbers), BUCKETS + 1)]

    def of(self, row: TrialRow) -> float | str | None:
        """Return a trial's place; None where it has no value."""
        value = self._raw(row)
        if value is None or not self.numeric:
            return None if value is None else escape_text(shorten(value_text(value), 24))
        if self.edges is None:
            return float(value)
        index = min(int(np.searchsorted(self.edges, float(value), side="right")) - 1, BUCKETS - 1)
        low, high = self.edges[max(index, 0)], self.edges[max(index, 0) + 1]
        return math.sqrt(low * high) if self.log else (low + high) / 2

    def axis(self) -> Spec:
        """Return the axis that they stand on."""
        title = TITLES.get(self.x, self.x)
        kind = "log" if self.log else "linear" if self.numeric else "category"
        return make_axis(title, type=kind, showgrid=False, **self._ticks())

    def _ticks(self) -> Spec:
        """Name each of few values; on a logarithmic axis round ones, for Plotly's own leave out what they are."""
        at = self.places if len(self.places) <= FEW else []
        if self.log and not at:
            ends = self.places or self.edges or [1.0]
            at = choose_round_ticks(ends[0], ends[-1])
        return {"tickvals": at, "ticktext": [number_text(value) for value in at]} if at else {}


def _group_traces(results: Results, places: _XPositions, measure: str, group: Group, index: int) -> list[Spec]:
    """Return the traces of a group's best trials and of its medians, by place."""
    trials: dict[float | str, list[TrialRow]] = {}
    for row in group.rows:
        place = places.of(row)
        if place is not None:
            trials.setdefault(place, []).append(row)
    order = sorted(trials, key=float) if places.numeric else list(trials)
    scored = {place: pairs for place in order if (pairs := _score_trials(results, trials[place], measure))}
    if not scored:
        return []
    name, x = escape_text(shorten(group.name, 40)), list(scored)
    best = [pairs[0] for pairs in scored.values()]
    middle = [float(np.median([value for value, _ in pairs])) for pairs in scored.values()]
    fits = [classify_fit(row) if "loss" in measure or "accuracy" in measure else "" for _, row in best]
    texts = [
        f"<b>{name}</b><br>best: trial {row.number}, {_score_text(measure, value)}{f', {fit}' if fit else ''}<br>"
        f"median {_score_text(measure, m)} of {len(pairs)} trials"
        for (value, row), fit, m, pairs in zip(best, fits, middle, scored.values(), strict=True)
    ]
    style, group_of = _style(index, 2.2), {"legendgroup": f"group {index}"}
    symbols = {"overfits": "triangle-up", "underfits": "triangle-down", "": "circle"}
    marker = {"color": style["marker"]["color"], "size": 8, "symbol": [symbols[fit] for fit in fits]}
    line = {**style["line"], "width": 1}
    pale = {"opacity": 0.45, "mode": "lines", "showlegend": False, "hoverinfo": "skip", "line": line}
    own = {"mode": "lines+markers", "name": name, "text": texts, "hovertemplate": HOVER, "marker": marker}
    return [
        {**style, **group_of, **pale, "x": x, "y": middle},
        {**style, **group_of, **own, "x": x, "y": [value for value, _ in best]},
    ]


def _fit_caption(measure: str) -> str:
    if "loss" not in measure and "accuracy" not in measure:
        return ""
    part = f"{100 * CHANGE:.0f} %"
    return (
        f" Triangle up: the trial overfits (its validation loss ended more than {part} above its minimum while the "
        f"training loss kept falling). Triangle down: it underfits (both losses still fell by more than {part} over "
        "the last fifth of the epochs)."
    )


def classify_fit(row: TrialRow) -> str:
    """Return `overfits`, `underfits` or nothing, by the losses of the epochs; nothing of fewer than five."""
    pairs = [(e.get("train_loss", math.nan), e.get("val_loss", math.nan)) for e in row.epochs]
    if len(pairs) < 5 or not all(math.isfinite(value) for pair in pairs for value in pair):
        return ""
    train, validation = (np.array(losses) for losses in zip(*pairs, strict=True))
    lowest, back = int(validation.argmin()), max(1, math.ceil(len(pairs) / 5))
    if validation[-1] - validation[lowest] > loss_margin(validation[lowest]) and train[-1] < train[lowest]:
        return "overfits"
    ends = [(losses[-1 - back], losses[-1]) for losses in (train, validation)]
    falling = all(before - after > loss_margin(before) for before, after in ends)
    return "underfits" if falling else ""
