"""The honest score: what an evaluation measured, beside the score by which each configuration was chosen."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Sequence

from hpo.report.chapters.blocks import Block, Chapter, Code, Subtitle, Table, Text
from hpo.report.commands import format_command
from hpo.report.data.evaluations import EvaluationResults
from hpo.report.data.results import Results
from hpo.report.figures.plotly_spec import (
    Figure,
    Spec,
    attach_spec,
    build_spec,
    escape_text,
    make_value_axis,
    mark_missing,
    shorten,
)
from hpo.report.format import NONE, count_text, gain_text, metric_text, seeds_text, values_text
from hpo.report.stats.evaluation_stats import Comparison, EvaluationStats, Interval, Score, list_lost_runs
from hpo.study.operations.evaluation_study import TestSetRead

__all__ = ["test_scores_chapter"]


def test_scores_chapter(
    results: Results,
    evaluations: Sequence[EvaluationResults],
    judgements: Sequence[EvaluationStats],
    looks: Sequence[TestSetRead],
) -> Chapter | None:
    """What each evaluation says, and how often test sets have been looked at; None of a study without results.

    Args:
        results: the study.
        evaluations: of the study.
        judgements: one per evaluation.
        looks: every look at a test set.
    """
    if results.best is None:
        return None
    blocks: list[Block] = []
    for index, (evaluation, judgement) in enumerate(zip(evaluations, judgements, strict=True)):
        blocks += [Subtitle(_evaluation_title(evaluation))] if len(evaluations) > 1 else []
        blocks += _evaluation_blocks(results, evaluation, judgement, index)
    if not any(evaluation.own for evaluation in evaluations) and results.definition.evaluation is None:
        blocks += _not_evaluated_blocks(results, looked=bool(looks))
    return Chapter("honest", "The honest score", [*blocks, Text(_test_set_reads_text(looks), quiet=True)])


def _not_evaluated_blocks(results: Results, *, looked: bool) -> list[Block]:
    chosen = len(results.ranked)
    among = f"the best of {count_text(chosen)} complete trials" if chosen > 1 else "of the only complete trial"
    bias = ", and having been chosen it flatters a little" if chosen > 1 else ""
    data = "on validation data" if any(o.metric.startswith("val_") for o in results.objectives) else "of this study"
    text = f"This is a score {data}: {among}{bias}."
    text += " Its evaluations are not here." if looked else " The study has not looked at the test set."
    how = "An evaluation trains the best again from fresh seeds, beside the baseline, and looks at the test set."
    return [Text(text), Text(how), Code(format_command(results, "evaluate"))]


def _evaluation_title(evaluation: EvaluationResults) -> str:
    what = f"On {evaluation.dataset}" if evaluation.own else f"Transfer to {evaluation.dataset}"
    return f"{what}, refit" if evaluation.refit else what


def _evaluation_blocks(
    results: Results, evaluation: EvaluationResults, judgement: EvaluationStats, index: int
) -> list[Block]:
    blocks: list[Block] = [Text(_method_text(evaluation))]
    if judgement.best is None:
        blocks.append(Text("No run is complete yet."))
    else:
        blocks += [
            _score_table(evaluation, judgement),
            _scores_figure(evaluation, judgement, index),
            *_comparison_table(judgement),
        ]
    if lost := list_lost_runs(evaluation):
        blocks.append(Text(f"Runs that are in no mean: {'; '.join(lost)}."))
    if evaluation.left:
        blocks.append(
            Text(f"{evaluation.left} {'run is' if evaluation.left == 1 else 'runs are'} left. To finish them:")
        )
        blocks.append(Code(_finish_command(results, evaluation)))
    return blocks


def _method_text(evaluation: EvaluationResults) -> str:
    """What this evaluation is, and what its scores stand for."""
    if evaluation.refit:
        trained = "Each was trained on training and validation data together, for a fixed number of epochs"
        what = f"{trained}: there is no validation score, and the last epoch's weights are tested."
    else:
        what = "Each was trained again on the same split from fresh seeds; the weights of its best epoch are tested."
    if evaluation.own:
        return what
    return f"The configurations were chosen on other data, and carried to {evaluation.dataset} as they were. {what}"


def _finish_command(results: Results, evaluation: EvaluationResults) -> str:
    top = sum(not each.baseline for each in evaluation.candidates)
    seeds = max(len(each.runs) for each in evaluation.candidates)
    more = ["--top", str(top or 1), "--seeds", str(seeds), *(["--refit"] if evaluation.refit else [])]
    more += [] if evaluation.own else ["--dataset", shlex.quote(evaluation.path)]
    return format_command(results, "evaluate", " ".join(more))


def _score_table(evaluation: EvaluationResults, judgement: EvaluationStats) -> Table:
    metric, test = evaluation.objective.metric, evaluation.test_metric
    chosen = any(score.chosen is not None for score in judgement.scores)
    fresh = evaluation.validation_metric is not None
    columns = ["configuration", *(["chosen by"] if chosen else []), *(["fresh seeds", "deviation"] if fresh else [])]
    columns += ["flattered by"] if chosen and fresh else []
    columns += ["test", "test deviation", "95 % interval", "seeds"] if test else ["seeds"]
    rows = []
    for score in judgement.scores:
        told = {
            "configuration": score.candidate.label,
            "chosen by": values_text(metric, score.chosen),
            "fresh seeds": _mean_text(metric, score.validation),
            "deviation": _deviation_text(metric, score.validation),
            "flattered by": NONE if score.bias is None else _signed_text(metric, score.bias),
            "test": _mean_text(test or metric, score.test),
            "test deviation": _deviation_text(test or metric, score.test),
            "95 % interval": _interval_cell(test or metric, score.test),
            "seeds": str(_seed_count(score)),
        }
        rows.append([told[column] for column in columns])
    return Table(columns, rows, columns[1:])


def _seed_count(score: Score) -> int:
    found = score.test or score.validation
    return found.count if found is not None else 0


def _mean_text(metric: str, interval: Interval | None) -> str:
    return NONE if interval is None else values_text(metric, interval.mean)


def _deviation_text(metric: str, interval: Interval | None) -> str:
    known = interval is not None and math.isfinite(interval.deviation)
    return gain_text(metric, interval.deviation).replace(" percentage points", " %") if interval and known else NONE


def _interval_cell(metric: str, interval: Interval | None) -> str:
    if interval is None or not math.isfinite(interval.low):
        return NONE
    low, high = values_text(metric, interval.low), values_text(metric, interval.high)
    return f"{low.removesuffix(' %')} to {high}"


def _signed_text(metric: str, amount: float) -> str:
    sign = "-" if amount < 0 else ""
    return sign + gain_text(metric, amount).replace("percentage points", "points")


def _comparison_table(judgement: EvaluationStats) -> list[Block]:
    """The best with each other one, paired over seeds."""
    if not judgement.comparisons:
        return []
    rows = [
        [each.second, *_gain_cells(each), str(each.difference.count), _significance_text(each)]
        for each in judgement.comparisons
    ]
    first, metric = judgement.comparisons[0].first, metric_text(judgement.comparisons[0].metric)
    columns = ["compared with", f"{first} is better by", "interval", "seeds", "told apart"]
    how = (
        f"The {metric} of {first} less that of each other one, seed by seed and sample by sample; above 0 where "
        f"{first} is better. Where the interval holds 0 the two cannot be told apart. Together "
        "the intervals are right in 95 % of evaluations."
    )
    return [Table(columns, rows, columns[1:4]), Text(how, quiet=True)]


def _gain_cells(comparison: Comparison) -> tuple[str, str]:
    metric, difference = comparison.metric, comparison.difference
    if not math.isfinite(difference.low):
        return _signed_text(metric, difference.mean), NONE
    low, high = _signed_text(metric, difference.low), _signed_text(metric, difference.high)
    return _signed_text(metric, difference.mean), f"{low.removesuffix(' points')} to {high}"


def _significance_text(comparison: Comparison) -> str:
    if not comparison.told_apart:
        return "no"
    return "yes, better" if comparison.difference.mean > 0 else "yes, worse"


def _test_set_reads_text(looks: Sequence[TestSetRead]) -> str:
    """How often each test set was read: with every look, choosing by what one saw becomes a little easier."""
    if not looks:
        return "No test set has been looked at."
    told = []
    for dataset, count in Counter(look.dataset for look in looks).items():
        configurations = len({look.configuration for look in looks if look.dataset == dataset})
        of = "1 configuration" if configurations == 1 else f"{configurations} configurations"
        told.append(f"of {dataset} {'once' if count == 1 else f'{count} times'}, by {of}")
    return f"The test set has been looked at: {'; '.join(told)}. Each run looks once; choose nothing by what it shows."


# The figure.


def _scores_figure(evaluation: EvaluationResults, judgement: EvaluationStats, index: int) -> Figure:
    """Per configuration the chosen score, that from fresh seeds, and that on the test set, with their intervals."""
    figure = Figure(f"honest-{index}", "Chosen, measured again, tested")
    scores = [score for score in judgement.scores if score.validation or score.test]
    if not scores:
        return mark_missing(figure, "No run is complete yet.")
    validation = [score.validation for score in scores]
    test = [score.test for score in scores]
    metric, tested = evaluation.objective.metric, evaluation.test_metric or ""
    data = [
        *_seed_traces(scores, metric, validation, "fresh seeds, validation", "@accent", 0.0),
        *_seed_traces(scores, tested, test, "fresh seeds, test", "@second", 0.22),
        *_study_score_trace(evaluation, scores),
    ]
    labels = [escape_text(shorten(score.candidate.label, 18)) for score in scores]
    ticks = {"tickvals": list(range(len(labels))), "ticktext": labels, "range": [len(labels) - 0.5, -0.5]}
    shown = [value for trace in data for value in trace["x"] if value is not None]
    side = {**make_value_axis(evaluation.objective, shown, " "), "showgrid": True}
    if metric.endswith("accuracy"):
        side["tickformat"] = ".2%" if max(shown) - min(shown) < 0.02 else ".1%"
    margin = 0.04 * (max(shown) - min(shown)) or 0.01 * abs(shown[0]) or 0.01
    side["range"] = [min(shown) - margin, max(shown) + margin]
    spec = build_spec(
        data,
        110 + 54 * len(scores),
        xaxis={**side, "nticks": 6},
        yaxis={"showgrid": False, "zeroline": False, "automargin": True, "ticksuffix": "  ", **ticks},
    )
    caption = (
        "Dots are means over seeds, lines their 95 % intervals, small dots single seeds; the diamond is the score by "
        "which the study chose."
    )
    return attach_spec(figure, spec, caption)


def _seed_traces(
    scores: Sequence[Score], metric: str, intervals: Sequence[Interval | None], name: str, colour: str, offset: float
) -> list[Spec]:
    """Means with their intervals as lines, and each seed as a small dot."""
    held = [(i + offset, score, found) for i, (score, found) in enumerate(zip(scores, intervals, strict=True)) if found]
    if not held:
        return []
    lines: dict[str, list[float | None]] = {"x": [], "y": []}
    for place, _, found in held:
        if math.isfinite(found.low):
            lines["x"] += [found.low, found.high, None]
            lines["y"] += [place, place, None]
    seeds = [(value, place) for place, score, _ in held for value in score.candidate.scores(metric).values()]
    texts = [
        f"{escape_text(score.candidate.label)}: {escape_text(metric)} {values_text(metric, found.mean)}, {seeds_text(found.count)}"
        for _, score, found in held
    ]
    common = {"type": "scatter", "hoverinfo": "skip", "showlegend": False}
    dots = {"color": colour, "size": 5, "opacity": 0.45}
    return [
        {**common, "mode": "lines", **lines, "line": {"color": colour, "width": 2}},
        {**common, "mode": "markers", "x": [x for x, _ in seeds], "y": [y for _, y in seeds], "marker": dots},
        {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "x": [found.mean for _, _, found in held],
            "y": [place for place, _, _ in held],
            "text": texts,
            "hovertemplate": "%{text}<extra></extra>",
            "marker": {"color": colour, "size": 11},
        },
    ]


def _study_score_trace(evaluation: EvaluationResults, scores: Sequence[Score]) -> list[Spec]:
    held = [(score.chosen, i - 0.22, score) for i, score in enumerate(scores) if score.chosen is not None]
    if not held:
        return []
    metric = evaluation.objective.metric
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "chosen by",
            "x": [value for value, _, _ in held],
            "y": [place for _, place, _ in held],
            "text": [
                f"{escape_text(score.candidate.label)}: chosen by {values_text(metric, value)}"
                for value, _, score in held
            ],
            "hovertemplate": "%{text}<extra></extra>",
            "marker": {"color": "@muted", "size": 10, "symbol": "diamond-open"},
        }
    ]
