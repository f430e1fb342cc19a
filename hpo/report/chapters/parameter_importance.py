"""Chapter on parameter importance: PED-ANOVA shares, and the best trial by value."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

from optuna.trial import FrozenTrial

from hpo.config.values import Value, plain_value
from hpo.report.chapters.blocks import Block, Chapter, Subtitle, Text
from hpo.report.data.results import Results
from hpo.report.figures.axes import choose_round_ticks, list_named_values, round_float
from hpo.report.figures.plotly_spec import (
    HOVER,
    Figure,
    Spec,
    attach_spec,
    build_spec,
    clip,
    escape_text,
    find_limits,
    make_axis,
    make_value_axis,
    mark_missing,
    shorten,
)
from hpo.report.format import count_text, dimension_text, value_text, values_text
from hpo.report.stats.importance import RESAMPLES, SAMPLE_LIMIT, Importances, Share, list_ranked_trials
from hpo.space import Dimension
from hpo.space.domains import Domain, Range
from hpo.storage.stored_values import is_number
from hpo.study import Objective, Study

__all__ = ["Bucket", "group_by_value", "parameter_importance_chapter"]

BUCKETS = 10
DIMENSIONS_LIMIT = 24  # isolation plots
ROUGH = 100  # complete trials below which the words warn


def parameter_importance_chapter(study: Study, results: Results, importances: Importances) -> Chapter:
    """Write the chapter: the shares of all parameters, and a plot of the best trial by value for each.

    Parameters that exist only under a condition have a figure of their own.
    """
    trials = list_ranked_trials(study)
    keys_of_trials = {key for trial in trials for key in trial.params}
    dimensions = {dimension.key: dimension for dimension in results.space.varied if dimension.key in keys_of_trials}
    shares = importances.shares
    blocks: list[Block] = [*_bar_blocks(shares, dimensions, importances.reason), *_caveats(shares, len(trials))]
    order = [share.key for share in shares] or list(dimensions)
    plots = [_best_by_value_figure(study, dimensions[key], i, trials) for i, key in enumerate(order[:DIMENSIONS_LIMIT])]
    if plots:
        blocks += [
            Subtitle("Best trial by value of each parameter"),
            *plots,
            Text(_best_by_value_caption(len(order)), quiet=True),
        ]
    return Chapter("mattered", "Parameter importance", blocks)


def _bar_blocks(shares: Sequence[Share], dimensions: dict[str, Dimension], reason: str) -> list[Block]:
    """Draw the parameters that have one domain, and apart those whose domain depends on others."""
    figure = Figure("importance", "Importance of each parameter")
    if not shares:
        return [mark_missing(figure, reason)]
    names = Counter(dimension.parameter.name for dimension in dimensions.values())
    conditional = [share for share in shares if _is_conditional(dimensions[share.key], names)]
    unconditional = [share for share in shares if share not in conditional]
    high = max(share.high for share in shares)
    blocks: list[Block] = [_bar_figure(figure, unconditional, dimensions, high)] if unconditional else []
    if conditional:
        title = "Importance of parameters that only some trials have" if unconditional else figure.title
        blocks.append(_bar_figure(Figure("importance-conditional", title), conditional, dimensions, high))
    return blocks


def _is_conditional(dimension: Dimension, names: Counter[str]) -> bool:
    return names[dimension.parameter.name] > 1 or bool(dimension.domain.condition.tests)


def _bar_figure(figure: Figure, shares: Sequence[Share], dimensions: dict[str, Dimension], high: float) -> Figure:
    rows = list(reversed(shares))
    names = [_bar_name(dimensions[share.key]) for share in rows]
    bars = {
        "type": "bar",
        "orientation": "h",
        "y": names,
        "x": [round(share.value, 4) for share in rows],
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [round(share.high - share.value, 4) for share in rows],
            "arrayminus": [round(share.value - share.low, 4) for share in rows],
            "color": "@ink",
            "thickness": 1.2,
            "width": 4,
        },
        "text": [_share_text(share) for share in rows],
        "textposition": "none",
        "hovertemplate": HOVER,
        "marker": {"color": "@accent"},
    }
    spec = build_spec(
        [bars],
        70 + sum(18 * max(2, name.count("<br>") + 1) for name in names),
        xaxis=make_axis(tickformat=".0%", range=[0, min(1.0, 1.05 * high) or 1], nticks=6),
        yaxis=make_axis(type="category", ticksuffix="  ", showgrid=False),
        bargap=0.4,
    )
    only = any(dimensions[share.key].domain.condition.tests for share in shares)
    caption = "Each is compared only among the trials that have it. Both figures have the same scale." if only else ""
    return attach_spec(figure, spec, caption)


def _bar_name(dimension: Dimension) -> str:
    """Return the name on lines that leave a phone's width to the bars."""
    name, bracket, condition = shorten(dimension_text(dimension), 60).partition(" (")
    return "<br>".join(map(escape_text, [name, *wrap(f"({condition}", 24)] if bracket else [name]))


def _share_text(share: Share) -> str:
    return f"{100 * share.value:.0f} % ({100 * share.low:.0f} to {100 * share.high:.0f} %)"


def _caveats(shares: Sequence[Share], count: int) -> list[Block]:
    if not shares:
        return []
    drawn_again = f"{count_text(SAMPLE_LIMIT)} trials, drawn" if count > SAMPLE_LIMIT else "all trials, drawn again"
    first = (
        f"PED-ANOVA compares the best tenth of {count_text(count)} complete trials with all of them; the shares sum to "
        f"100 %. Error bars are 90 % bootstrap intervals: {RESAMPLES} draws, each of {drawn_again} with replacement."
    )
    rough = f" With {count} trials the shares are rough." if count < ROUGH else ""
    second = (
        "A small share means that no values in this domain were much better or worse than others, not that the "
        f"parameter never matters. An adaptive sampler rarely tries bad values, which hides what they cost.{rough}"
    )
    return [Text(f"{first} {second}", quiet=True)]


# Isolation: the best trial at each value of one parameter, all others free.


@dataclass(frozen=True)
class Bucket:
    """The trials whose value of a parameter is the same, or lies in the same part of its domain.

    Attributes:
        place: where it stands on the axis: a value's position, or the middle of the part on the domain's own scale.
        name: the value, or the part, in words.
        count: its feasible trials.
        best: number and value of the best feasible trial; where there is none, of the best of all.
        feasible: whether `best` is.
    """

    place: float
    name: str
    count: int
    best: tuple[int, float]
    feasible: bool


def group_by_value(study: Study, dimension: Dimension, trials: Sequence[FrozenTrial]) -> list[Bucket]:
    """Return the buckets of a dimension that hold any trial, in the order of the domain.

    A trial is infeasible where it breaks a constraint, as Optuna's `set_constraint` noted it: a value above 0.
    """
    with_value = [trial for trial in trials if dimension.key in trial.params]
    values = {trial.number: plain_value(trial.params[dimension.key]) for trial in with_value}
    name_of, place_of = _bucket_scale(dimension.domain, list(values.values()))
    groups: dict[float, list[FrozenTrial]] = {}
    for trial in with_value:
        groups.setdefault(place_of(values[trial.number]), []).append(trial)
    return [_make_bucket(study, place, name_of(place), groups[place]) for place in sorted(groups)]


def _make_bucket(study: Study, place: float, name: str, trials: Sequence[FrozenTrial]) -> Bucket:
    sign = -1 if study.maximize else 1
    feasible = [trial for trial in trials if _is_feasible(trial)]
    best = min(feasible or trials, key=lambda trial: (sign * trial.values[0], trial.number))
    return Bucket(place, name, len(feasible), (best.number, best.values[0]), bool(feasible))


def _is_feasible(trial: FrozenTrial) -> bool:
    # Whoever may write to the database may set them to anything.
    return all(value <= 0 for value in trial.constraints.values() if is_number(value))


def _bucket_scale(domain: Domain, values: Sequence[Value]) -> tuple[Callable[[float], str], Callable[[Value], float]]:
    """Return functions that give the name of a bucket by its place, and the place of a value."""
    named = list_named_values([domain], values)
    if named is not None:
        places = {value: float(i) for i, value in enumerate(named)}
        return lambda place: value_text(named[int(place)]), lambda value: places[round_float(value) or value]
    assert isinstance(domain, Range)
    log = domain.log and domain.low > 0 and all(float(value) > 0 for value in values)
    to, back = (math.log, math.exp) if log else (float, float)
    low, high = to(min(domain.low, *map(float, values))), to(max(domain.high, *map(float, values)))
    width = (high - low) / BUCKETS or 1.0

    def middle(value: Value) -> float:
        index = min(int((to(float(value)) - low) / width), BUCKETS - 1)
        return back(low + (index + 0.5) * width)

    def name(place: float) -> str:
        bounds = (back(to(place) - width / 2), back(to(place) + width / 2))
        return " to ".join(value_text(bound) for bound in bounds)

    return name, middle


def _best_by_value_figure(study: Study, dimension: Dimension, index: int, trials: Sequence[FrozenTrial]) -> Figure:
    buckets, objective = group_by_value(study, dimension, trials), study.definition.objectives[0]
    maximize = study.maximize
    limits = find_limits([bucket.best[1] for bucket in buckets], maximize) or (0.0, 1.0)
    span = limits[1] - limits[0]
    floor = limits[0] - 0.14 * span  # the counts stand below the lowest dot
    data = [_best_trace(objective, [b for b in buckets if b.feasible], limits, "@accent", "circle")]
    data[0]["mode"] = "lines+markers" if isinstance(dimension.domain, Range) or _is_numeric(dimension) else "markers"
    data += [_best_trace(objective, [b for b in buckets if not b.feasible], limits, "@fail", "x")]
    data += [_count_trace(buckets, floor + 0.05 * span)]
    yaxis = make_value_axis(objective, limits, " ", range=[floor, limits[1]], nticks=5)
    xaxis = _value_axis(dimension.domain, buckets)
    spec = build_spec([trace for trace in data if trace["x"]], 230, xaxis=xaxis, yaxis=yaxis, showlegend=False)
    return Figure(f"isolation-{index}", dimension_text(dimension), "", spec)


def _is_numeric(dimension: Dimension) -> bool:
    """Return whether its choices have an order, so that a line between them means something."""
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in dimension.domain.points())


def _best_trace(
    objective: Objective, buckets: Sequence[Bucket], limits: tuple[float, float], colour: str, mark: str
) -> Spec:
    """Draw the best values; infeasible ones are no part of the line."""
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [bucket.place for bucket in buckets],
        "y": clip([bucket.best[1] for bucket in buckets], limits),
        "text": [_bucket_text(objective, bucket) for bucket in buckets],
        "hovertemplate": HOVER,
        "line": {"color": colour, "width": 1.5},
        "marker": {"color": colour, "size": 8, "symbol": mark},
    }


def _bucket_text(objective: Objective, bucket: Bucket) -> str:
    number, value = bucket.best
    best = f"best: trial {number}, {values_text(objective.metric, value)}{'' if bucket.feasible else ', infeasible'}"
    return f"<b>{escape_text(shorten(bucket.name, 60))}</b><br>{best}<br>{count_text(bucket.count)} feasible trials"


def _count_trace(buckets: Sequence[Bucket], height: float) -> Spec:
    return {
        "type": "scatter",
        "mode": "text",
        "x": [bucket.place for bucket in buckets],
        "y": [height] * len(buckets),
        "text": [str(bucket.count) for bucket in buckets],
        "textfont": {"size": 10, "color": "@muted"},
        "hoverinfo": "skip",
    }


def _value_axis(domain: Domain, buckets: Sequence[Bucket]) -> Spec:
    values: list[Any] = [bucket.place for bucket in buckets]
    if list_named_values([domain], []) is not None:
        ticks = {"tickvals": values, "ticktext": [escape_text(shorten(bucket.name, 14)) for bucket in buckets]}
        return make_axis(" ", showgrid=False, range=[-0.5, max(values, default=0) + 0.5], **ticks)
    assert isinstance(domain, Range)
    low, high = min([domain.low, *values]), max([domain.high, *values])
    if domain.log and low > 0:
        ticks_at = choose_round_ticks(low, high)
        texts = {"tickvals": ticks_at, "ticktext": [value_text(tick) for tick in ticks_at]}
        return make_axis(" ", type="log", showgrid=False, range=[math.log10(low), math.log10(high)], **texts)
    return make_axis(" ", showgrid=False, nticks=6, range=[low, high])


def _best_by_value_caption(count: int) -> str:
    cut = f" The first {DIMENSIONS_LIMIT} of {count} parameters are shown." if count > DIMENSIONS_LIMIT else ""
    return (
        "The best trial at each value, or in each tenth of a range on its own scale, with all other parameters free. "
        "The numbers count the feasible trials; a cross marks values that only infeasible trials have. The best of "
        f"many trials beats the best of few by chance alone, so a slope may reflect no more than the counts.{cut}"
    )
