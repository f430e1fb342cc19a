"""Chapter on nested evaluations: the score of the whole study on samples that none of its choices has seen."""

from __future__ import annotations

from collections.abc import Sequence

from hpo.report.chapters.blocks import Block, Chapter, Code, Subtitle, Table, Text
from hpo.report.commands import format_command
from hpo.report.data.results import Results
from hpo.report.figures.plotly_spec import Figure, Spec, attach_spec, build_spec, make_axis, make_value_axis
from hpo.report.format import (
    NONE,
    candidate_text,
    count_text,
    gain_text,
    is_share,
    metric_text,
    names_text,
    number_of,
    percent_text,
    value_text,
    values_text,
)
from hpo.report.stats.nested_score import FoldMean, FoldScore, NestedScore, ParameterAgreement
from hpo.study import Objective

__all__ = ["describe_agreement", "describe_nested", "nested_chapter"]


def nested_chapter(results: Results, nested: Sequence[NestedScore]) -> Chapter | None:
    """Write what each nested evaluation says; None without one."""
    blocks: list[Block] = []
    for each in nested:
        blocks += [Subtitle(_division_text(each))] if len(nested) > 1 else []
        blocks += _nested_blocks(results, each)
    return Chapter("nested", "Nested evaluation", blocks) if blocks else None


def _nested_blocks(results: Results, nested: NestedScore) -> list[Block]:
    blocks: list[Block] = [Text(line) for line in describe_nested(nested)]
    if nested.score is not None:
        blocks += [_score_table(nested), _scores_figure(nested)]
    if nested.parameters:
        blocks += [Text(describe_agreement(nested)), _parameter_table(nested)]
    blocks.append(Text(_method_text(nested), quiet=True))
    if nested.lost:
        folds = names_text([str(number) for number in nested.lost])
        blocks.append(Text(f"Runs failed or diverged on fold {folds}; no mean includes them."))
    if nested.remaining or len(nested.folds) < nested.count:
        blocks += [Text("To finish it:"), Code(format_command(results, "evaluate", f"--outer-folds {nested.count}"))]
    return blocks


def _division_text(nested: NestedScore) -> str:
    return f"{number_of(nested.count, 'outer fold')}{f' by {nested.by}' if nested.by else ''}"


def describe_nested(nested: NestedScore) -> list[str]:
    """Say in sentences what the score is, how optimistic the selection was, and whether tuning paid."""
    if nested.score is None:
        return [f"Nested evaluation with {_division_text(nested)}: none is tested yet."]
    tested = "" if nested.complete else f", of which {nested.score.count} {_are(nested.score.count)} tested"
    lines = [
        f"Nested evaluation with {_division_text(nested)}{tested}: {metric_text(nested.metric)} "
        f"{_mean_text(nested.metric, nested.score)}."
    ]
    if nested.optimism is not None:
        claimed = values_text(nested.claimed_metric, nested.claimed)
        lines.append(f"The scores by which the same folds had chosen are {claimed} on average{_optimism_text(nested)}.")
    if nested.gain is not None:
        lines.append(_gain_text(nested, nested.gain))
    return lines


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _mean_text(metric: str, mean: FoldMean) -> str:
    text = values_text(metric, mean.mean)
    if mean.low is None or mean.high is None:
        return f"{text} (one fold, so no interval)"
    low, high = values_text(metric, mean.low), values_text(metric, mean.high)
    return f"{text} (95 % interval {low.removesuffix(' %')} to {high})"


def _optimism_text(nested: NestedScore) -> str:
    assert nested.optimism is not None
    amount = gain_text(nested.metric, nested.optimism.mean)
    way = "better" if nested.optimism.mean > 0 else "worse"
    if not nested.optimism.mean:
        return ", as on the folds"
    chance = ", which may be chance" if nested.optimism.contains_zero else ": they are optimistic" * (way == "better")
    return f", {amount} {way} than on the folds{chance}"


def _gain_text(nested: NestedScore, gain: FoldMean) -> str:
    rival = candidate_text(nested.rival)
    amount = gain_text(nested.metric, gain.mean)
    way = "better" if gain.mean > 0 else "worse"
    if gain.contains_zero:
        difference = f"the difference of {amount}" if gain.mean else "the difference"
        return f"What the study chooses cannot be told from {rival} on the folds: {difference} may be chance."
    return f"What the study chooses is {way} than {rival} on the folds by {amount}{_bounds_text(nested.metric, gain)}."


def _bounds_text(metric: str, gain: FoldMean) -> str:
    if gain.low is None or gain.high is None:
        return ""
    low, high = sorted((abs(gain.low), abs(gain.high)))
    return f" ({gain_text(metric, low).removesuffix(' percentage points')} to {gain_text(metric, high)})"


def describe_agreement(nested: NestedScore) -> str:
    """Say how many configurations were chosen, and on which parameters they agree."""
    chosen = sum(fold.trial is not None for fold in nested.folds)
    if chosen < 2:
        return "One fold has chosen a configuration so far."
    if nested.configurations == 1:
        return f"All {chosen} folds have chosen the same configuration."
    common = [each for each in nested.parameters if 2 * each.values.count(None) < len(each.values)]
    agreed = [each.parameter for each in common if each.agrees]
    other = [each.parameter for each in common if not each.agrees]
    text = f"{chosen} folds have chosen {nested.configurations} different configurations."
    if agreed:
        text += f" They agree on {names_text(agreed)}."
    if other:
        text += f" They differ in {names_text(other)}."
    return text


def _method_text(nested: NestedScore) -> str:
    how = (
        "The configuration that was chosen was then trained once more on the whole training part, for the number of "
        "epochs that was best, and tested on the fold."
        if nested.refit
        else "The weights of the best epoch of the configuration that was chosen were tested on the fold."
    )
    more = " Folds by time are no exchangeable draws, so their interval is approximate." if nested.by == "time" else ""
    return (
        f"For each fold the whole study was launched anew on the rest of the training data. {how} The data set's own "
        "test set, if it has one, was not read. The interval is Student's t with the variance of Nadeau and Bengio "
        f"(2003), which allows for the overlap of the training parts.{more}"
    )


def _score_table(nested: NestedScore) -> Table:
    columns = ["outer fold", "samples", "trial", "study score", "on the fold", nested.rival]
    rows = [_fold_cells(nested, fold) for fold in nested.folds]
    assert nested.score is not None
    rivals = [fold.rival for fold in nested.folds if fold.rival is not None]
    rows.append(
        [
            "mean",
            "",
            "",
            values_text(nested.claimed_metric, nested.claimed),
            values_text(nested.metric, nested.score.mean),
            values_text(nested.metric, sum(rivals) / len(rivals)) if rivals else NONE,
        ]
    )
    return Table(columns, rows, columns[1:])


def _fold_cells(nested: NestedScore, fold: FoldScore) -> list[str]:
    return [
        f"{fold.fold} of {nested.count}",
        count_text(fold.testing),
        NONE if fold.trial is None else str(fold.trial),
        values_text(nested.claimed_metric, fold.claimed),
        values_text(nested.metric, fold.score),
        values_text(nested.metric, fold.rival),
    ]


def _parameter_table(nested: NestedScore) -> Table:
    """Return a row for each parameter: the chosen value of each fold, and how far they agree."""
    folds = [f"fold {fold.fold}" for fold in nested.folds if fold.trial is not None]
    columns = ["parameter", *folds, "agreement"]
    rows = [
        [each.parameter, *(value_text(value) for value in each.values), _agreement_text(each)]
        for each in nested.parameters
    ]
    return Table(columns, rows, folds)


def _agreement_text(each: ParameterAgreement) -> str:
    if each.spread is not None:
        return f"within {percent_text(each.spread)} of the range"
    return f"{round((each.common or 0) * len(each.values))} of {len(each.values)}"


def _scores_figure(nested: NestedScore) -> Figure:
    """Draw for each fold the score by which its study chose, and that on the fold."""
    figure = Figure(
        f"nested-{nested.count}{f'-{nested.by}' if nested.by else ''}", "Study score, and score on the fold"
    )
    folds = [fold for fold in nested.folds if fold.score is not None and fold.claimed is not None]
    kinds = (
        ("study score", [fold.claimed for fold in folds], "@accent", "diamond"),
        ("on the fold", [fold.score for fold in folds], "@second", "circle"),
        (nested.rival, [fold.rival for fold in folds], "@muted", "line-ns-open"),
    )
    ticks = [f"fold {fold.fold}" for fold in folds]
    data: list[Spec] = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "x": values,
            "y": list(range(len(folds))),
            "marker": {"color": colour, "size": 10, "symbol": symbol},
            "text": [
                f"{tick}: {name} {values_text(nested.metric, value)}" for tick, value in zip(ticks, values, strict=True)
            ],
            "hovertemplate": "%{text}<extra></extra>",
        }
        for name, values, colour, symbol in kinds
    ]
    known = [value for _, values, *_ in kinds for value in values if value is not None]
    xaxis = {**make_value_axis(Objective(metric=nested.metric, direction="maximize"), known, " "), "showgrid": True}
    margin = 0.04 * (max(known) - min(known)) or 0.01 * abs(known[0]) or 0.01
    xaxis["range"] = [min(known) - margin, max(known) + margin]
    if is_share(nested.metric):
        xaxis["tickformat"] = ".1%"
    yaxis = make_axis(showgrid=False, tickvals=list(range(len(folds))), ticktext=ticks, range=[len(folds) - 0.5, -0.5])
    spec = build_spec(data, 110 + 34 * len(folds), xaxis={**xaxis, "nticks": 6}, yaxis={**yaxis, "ticksuffix": "  "})
    caption = (
        "Where the diamonds lie beyond the dots, the score by which a study chose is better than what its choice "
        "does on new samples."
    )
    return attach_spec(figure, spec, caption)
