"""Chapter on test scores, beside the scores by which each configuration was chosen."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Sequence

from hpo.report.chapters.blocks import Block, Chapter, Code, Subtitle, Table, Text
from hpo.report.chapters.reference_models import reference_blocks, reference_note
from hpo.report.commands import format_command
from hpo.report.data.evaluations import EvaluationResults
from hpo.report.data.reference_models import ReferenceModel, ReferenceModels
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
from hpo.report.format import NONE, count_text, gain_text, is_share, metric_text, names_text, number_of, values_text
from hpo.report.stats.evaluation_stats import Comparison, EvaluationStats, Interval, Score, list_lost_runs
from hpo.study.operations.evaluation_study import REFERENCE, TestSetRead

__all__ = ["test_scores_chapter"]

SAMPLED = ("val_accuracy", "test_accuracy")  # means over samples, which are resampled as well as seeds
EDGE = 0.1  # of the figure's width, in which the half of a name has no room
NOT_READ = "The test set has not been read."


def test_scores_chapter(
    results: Results,
    evaluations: Sequence[EvaluationResults],
    stats: Sequence[EvaluationStats],
    test_set_reads: Sequence[TestSetRead],
    reference_models: ReferenceModels | None,
) -> Chapter | None:
    """Write what each evaluation says, and how often test sets were read; None of a study without results.

    Args:
        results: the study.
        evaluations: of the study.
        stats: one per evaluation.
        test_set_reads: every look at a test set.
        reference_models: models of scikit-learn on the study's validation split.
    """
    if results.best is None or not (results.definition.configured or evaluations):
        return None  # an objective function alone knows what it measures
    blocks: list[Block] = []
    for index, (evaluation, each) in enumerate(zip(evaluations, stats, strict=True)):
        blocks += [Subtitle(_evaluation_title(evaluation))] if len(evaluations) > 1 else []
        blocks += _evaluation_blocks(results, evaluation, each, index)
    if not any(evaluation.on_own_data for evaluation in evaluations) and results.definition.evaluation is None:
        blocks += _not_evaluated_blocks(results, test_set_read=bool(test_set_reads))
        blocks += reference_blocks(results, reference_models)
    if not results.definition.configured:
        return Chapter("honest", "Scores from fresh seeds", blocks)
    if (own := results.definition.evaluation) is not None:
        if own.tested:
            blocks.append(Text(f"Each run reads the test set once; the report of {own.of} counts the reads."))
    elif test_set_reads or results.definition.dataset.tested:
        blocks.append(Text(_test_set_reads_text(results.name, test_set_reads), quiet=True))
    return Chapter("honest", "Test scores", blocks)


def _not_evaluated_blocks(results: Results, *, test_set_read: bool) -> list[Block]:
    count = len(results.ranked)
    best = f"The best of {count_text(count)} complete trials" if count > 1 else "The only complete trial"
    bias = ", and the best of several such scores is optimistic" if count > 1 else ""
    on_validation = any(objective.metric.startswith("val_") for objective in results.objectives)
    data = "on validation data only" if on_validation else "in this study only"
    elsewhere = " The evaluations that read the test set are not in this storage." if test_set_read else ""
    text = f"{best} has been scored {data}{bias}.{elsewhere}"
    if results.definition.dataset.tested:
        advice = "An evaluation retrains the best from fresh seeds, beside the baseline, and reads the test set:"
        return [Text(text), Text(advice), Code(format_command(results, "evaluate"))]
    advice = (
        "There is no test set. A nested evaluation scores the whole study on samples that its choices have not seen:"
    )
    return [Text(text), Text(advice), Code(format_command(results, "evaluate", "--outer-folds 5"))]


def _evaluation_title(evaluation: EvaluationResults) -> str:
    what = f"On {evaluation.dataset}" if evaluation.on_own_data else f"Transfer to {evaluation.dataset}"
    return f"{what}, refit" if evaluation.refit else what


def _evaluation_blocks(
    results: Results, evaluation: EvaluationResults, stats: EvaluationStats, index: int
) -> list[Block]:
    blocks: list[Block] = [Text(_method_text(evaluation))]
    if stats.best is None:
        blocks.append(Text("No run is complete yet."))
    else:
        blocks += [
            _score_table(evaluation, stats),
            *reference_note(evaluation.reference_models),
            _scores_figure(evaluation, stats, index),
            *_comparison_table(evaluation, stats),
        ]
    if lost := list_lost_runs(evaluation):
        blocks.append(Text(f"Runs without a score, which no mean includes: {'; '.join(lost)}."))
    if left := evaluation.remaining_runs:
        blocks.append(Text("1 run is left. To finish it:" if left == 1 else f"{left} runs are left. To finish them:"))
        blocks.append(Code(_finish_command(results, evaluation)))
    return blocks


def _method_text(evaluation: EvaluationResults) -> str:
    """Describe how the configurations were trained, and what their scores are of."""
    if evaluation.function:
        return (
            f"{evaluation.function} was called again with the parameters of the best trials, and with seeds that the "
            "study has not used. The scores are what it returns."
        )
    if evaluation.refit:
        what = (
            "Each configuration was trained on training and validation data together for a fixed number of epochs: "
            "there is no validation score, and the weights of the last epoch are tested."
        )
    else:
        what = (
            f"Each configuration was retrained from fresh seeds on {evaluation.split}; the weights of its best epoch "
            "are tested."
        )
    if evaluation.on_own_data:
        return what
    return f"The configurations were chosen on other data and are used unchanged on {evaluation.dataset}. {what}"


def _finish_command(results: Results, evaluation: EvaluationResults) -> str:
    top = sum(not each.baseline for each in evaluation.candidates)
    seeds = max(len(each.runs) for each in evaluation.candidates)
    more = ["--top", str(top or 1), "--seeds", str(seeds), *(["--refit"] if evaluation.refit else [])]
    more += [] if evaluation.on_own_data else ["--dataset", shlex.quote(evaluation.path)]
    return format_command(results, "evaluate", " ".join(more))


def _score_table(evaluation: EvaluationResults, stats: EvaluationStats) -> Table:
    metric, test = evaluation.objective.metric, evaluation.test_metric
    chosen = any(score.study_score is not None for score in stats.scores)
    fresh = evaluation.validation_metric is not None
    columns = [
        "parameters of" if evaluation.function else "configuration",
        *(["study score"] if chosen else []),
        *(["fresh seeds", "std"] if fresh else []),
    ]
    columns += ["selection bias"] if chosen and fresh else []
    columns += ["test", "test std", "95 % interval", "seeds"] if test else ["seeds"]
    rows = []
    for score in stats.scores:
        cells = {
            columns[0]: score.candidate.label,
            "study score": values_text(metric, score.study_score),
            "fresh seeds": _mean_text(metric, score.validation),
            "std": _deviation_text(metric, score.validation),
            "selection bias": NONE if score.bias is None else _signed_text(metric, score.bias),
            "test": _mean_text(test or metric, score.test),
            "test std": _deviation_text(test or metric, score.test),
            "95 % interval": _interval_cell(test or metric, score.test),
            "seeds": str(_seed_count(score)),
        }
        rows.append([cells[column] for column in columns])
    for model in _reference_models(evaluation):
        known = {"fresh seeds": evaluation.validation_metric, "test": test}
        scores = {column: values_text(name or "", model.score(name)) for column, name in known.items()}
        rows.append([model.name if column == columns[0] else scores.get(column, NONE) for column in columns])
    return Table(columns, rows, columns[1:])


def _reference_models(evaluation: EvaluationResults) -> Sequence[ReferenceModel]:
    return () if evaluation.reference_models is None else evaluation.reference_models.models


def _seed_count(score: Score) -> int:
    interval = score.test or score.validation
    return interval.count if interval is not None else 0


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


def _comparison_table(evaluation: EvaluationResults, stats: EvaluationStats) -> list[Block]:
    """Compare the best with each other one, paired over seeds."""
    if not stats.comparisons:
        return []
    rows = [
        [each.second, *_gain_cells(each), str(each.difference.count), _significance_text(each)]
        for each in stats.comparisons
    ]
    first, metric = stats.comparisons[0].first, metric_text(stats.comparisons[0].metric)
    config = stats.scores[0].candidate.config
    sampled = config is not None and config.task == "classification" and stats.comparisons[0].metric in SAMPLED
    sample = " and by sample" if sampled else ""
    columns = ["compared with", f"{first} is better by", "interval", "seeds", "significant"]
    larger = evaluation.objective.direction == "maximize"
    less = f"of {first} less that of the other" if larger else f"of the other less that of {first}"
    note = (
        f"The {metric} {less}, paired by seed{sample}; above 0 where {first} is "
        "better. Where the interval contains 0, the difference is not significant. The intervals hold jointly in 95 % "
        "of evaluations (Bonferroni)."
    )
    return [Table(columns, rows, columns[1:4]), Text(note, quiet=True)]


def _gain_cells(comparison: Comparison) -> tuple[str, str]:
    metric, difference = comparison.metric, comparison.difference
    if not math.isfinite(difference.low):
        return _signed_text(metric, difference.mean), NONE
    low, high = _signed_text(metric, difference.low), _signed_text(metric, difference.high)
    return _signed_text(metric, difference.mean), f"{low.removesuffix(' points')} to {high}"


def _significance_text(comparison: Comparison) -> str:
    if not comparison.significant:
        return "no"
    return "yes, better" if comparison.difference.mean > 0 else "yes, worse"


def _test_set_reads_text(study: str, reads: Sequence[TestSetRead]) -> str:
    """Count the reads of each test set: with every one, choosing by what it showed becomes easier.

    A comparison of two studies calls a configuration of this one by its name, too: `wine trial 3`.
    """
    if not reads:
        return NOT_READ
    parts = []
    for dataset, count in Counter(read.dataset for read in reads).items():
        own = [read for read in reads if read.dataset == dataset and not read.by.endswith(f" {REFERENCE}")]
        configurations = number_of(len({read.configuration.removeprefix(f"{study} ") for read in own}), "configuration")
        readers = [f"{_times(len(own))} by runs of {configurations}"] if own else []
        readers += [f"{_times(count - len(own))} by reference models"] if count > len(own) else []
        parts.append(f"The test set of {dataset} has been read {_times(count)}: {names_text(readers)}.")
    return " ".join([*parts, "Each run reads it once. Choose nothing by what it shows."])


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count_text(count)} times"


# The figure.


def _scores_figure(evaluation: EvaluationResults, stats: EvaluationStats, index: int) -> Figure:
    """Draw each configuration's score in the study, from fresh seeds, and on the test set, with intervals."""
    chosen = any(score.study_score is not None for score in stats.scores)  # none was on other data
    parts = [
        *(["study score"] if chosen else []),
        "fresh seeds",
        *(["test"] if any(score.test for score in stats.scores) else []),
    ]
    title = (", " if len(parts) > 2 else " and ").join(parts).capitalize()
    figure = Figure(f"honest-{index}", title)
    scores = [score for score in stats.scores if score.validation or score.test]
    if not scores:
        return mark_missing(figure, "No run is complete yet.")
    validation = [score.validation for score in scores]
    test = [score.test for score in scores]
    metric, test_metric = evaluation.objective.metric, evaluation.test_metric or ""
    data = [
        *_seed_traces(
            scores,
            metric,
            validation,
            "fresh seeds" if evaluation.function else "fresh seeds, validation",
            "@accent",
            0.0,
        ),
        *_seed_traces(scores, test_metric, test, "fresh seeds, test", "@second", 0.22),
        *_study_score_trace(evaluation, scores),
    ]
    labels = [escape_text(shorten(score.candidate.label, 18)) for score in scores]
    ticks = {"tickvals": list(range(len(labels))), "ticktext": labels, "range": [len(labels) - 0.5, -0.5]}
    shapes, names = _reference_lines(evaluation, scores)
    values = [value for trace in data for value in trace["x"] if value is not None] + [each["x0"] for each in shapes]
    xaxis = {**make_value_axis(evaluation.objective, values, " "), "showgrid": True}
    if is_share(metric):
        xaxis["tickformat"] = ".2%" if max(values) - min(values) < 0.02 else ".1%"
    margin = 0.04 * (max(values) - min(values)) or 0.01 * abs(values[0]) or 0.01
    xaxis["range"] = [min(values) - margin, max(values) + margin]
    for name in names:  # beside its line where there is no room for half of it
        name["xanchor"] = _choose_side((name["x"] - min(values)) / ((max(values) - min(values)) or 1.0))
    spec = build_spec(
        data,
        110 + 54 * len(scores),
        xaxis={**xaxis, "nticks": 6},
        yaxis={"showgrid": False, "zeroline": False, "automargin": True, "ticksuffix": "  ", **ticks},
        shapes=shapes,
        annotations=names,
    )
    caption = "Large dots are means over seeds, lines their 95 % intervals, small dots single seeds" + (
        "; diamonds are the scores in the study." if chosen else "."
    )
    if shapes:
        caption += " Dashed lines are reference models of scikit-learn."
    return attach_spec(figure, spec, caption)


def _choose_side(place: float) -> str:
    """Return which end of a name stands at a place, from 0 at the left to 1."""
    return "left" if place < EDGE else "right" if place > 1 - EDGE else "center"


def _reference_lines(evaluation: EvaluationResults, scores: Sequence[Score]) -> tuple[list[Spec], list[Spec]]:
    """Draw a line with a name at the score of each reference model: on the test set, if the others have been there."""
    metric = evaluation.test_metric if any(score.test for score in scores) else evaluation.validation_metric
    shapes, names = [], []
    for i, model in enumerate(_reference_models(evaluation)):
        value = model.score(metric)
        if value is not None:
            line = {"color": "@muted", "dash": "dash", "width": 1}
            shapes.append({"type": "line", "x0": value, "x1": value, "yref": "paper", "y0": 0, "y1": 1, "line": line})
            place = {"x": value, "yref": "paper", "y": 0.02 + 0.09 * i, "yanchor": "bottom", "showarrow": False}
            names.append({**place, "text": escape_text(model.name), "font": {"size": 11, "color": "@muted"}})
    return shapes, names


def _seed_traces(
    scores: Sequence[Score], metric: str, intervals: Sequence[Interval | None], name: str, colour: str, offset: float
) -> list[Spec]:
    """Draw means with their intervals as lines, and each seed as a small dot."""
    rows = [
        (i + offset, score, interval)
        for i, (score, interval) in enumerate(zip(scores, intervals, strict=True))
        if interval
    ]
    if not rows:
        return []
    lines: dict[str, list[float | None]] = {"x": [], "y": []}
    for place, _, interval in rows:
        if math.isfinite(interval.low):
            lines["x"] += [interval.low, interval.high, None]
            lines["y"] += [place, place, None]
    seeds = [(value, place) for place, score, _ in rows for value in score.candidate.scores(metric).values()]
    texts = [
        f"{escape_text(score.candidate.label)}: {escape_text(metric)} {values_text(metric, interval.mean)}, "
        f"{number_of(interval.count, 'seed')}"
        for _, score, interval in rows
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
            "x": [interval.mean for _, _, interval in rows],
            "y": [place for place, _, _ in rows],
            "text": texts,
            "hovertemplate": "%{text}<extra></extra>",
            "marker": {"color": colour, "size": 11},
        },
    ]


def _study_score_trace(evaluation: EvaluationResults, scores: Sequence[Score]) -> list[Spec]:
    rows = [(score.study_score, i - 0.22, score) for i, score in enumerate(scores) if score.study_score is not None]
    if not rows:
        return []
    metric = evaluation.objective.metric
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "study score",
            "x": [value for value, _, _ in rows],
            "y": [place for _, place, _ in rows],
            "text": [
                f"{escape_text(score.candidate.label)}: study score {values_text(metric, value)}"
                for value, _, score in rows
            ],
            "hovertemplate": "%{text}<extra></extra>",
            "marker": {"color": "@muted", "size": 10, "symbol": "diamond-open"},
        }
    ]
