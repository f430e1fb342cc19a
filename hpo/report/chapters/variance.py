"""Chapter on the sources of variance: how much the split, the order of the data and the initial weights contribute."""

from __future__ import annotations

from collections.abc import Sequence

from hpo.report.chapters.blocks import Block, Chapter, Code, Subtitle, Table, Text
from hpo.report.commands import format_command
from hpo.report.data.evaluations import EvaluationResults
from hpo.report.data.results import Results
from hpo.report.format import NONE, gain_text, metric_text, number_of, percent_text
from hpo.report.stats.variance_sources import (
    VarianceSources,
    measure_spread,
    measure_variance_sources,
)
from hpo.study.definition import Source
from hpo.study.operations.candidates import SOURCES

__all__ = ["variance_chapter"]

NOTE = (
    "Each source is varied alone while the others stay as they were in the study, and then all together; the variances "
    "of the configurations are pooled. std is the standard deviation of a single run. Sources may add up to less or "
    "more than everything together, for they act on each other."
)


def variance_chapter(results: Results, evaluations: Sequence[EvaluationResults]) -> Chapter | None:
    """Write what each source of chance contributes to the spread of a score; None where none was varied."""
    found = [(each, sources) for each in evaluations if (sources := measure_variance_sources(each)) is not None]
    blocks: list[Block] = []
    for evaluation, sources in found:
        blocks += [Subtitle(f"On {evaluation.dataset}")] if len(found) > 1 else []
        blocks += [Text(sources.verdict), _source_table(sources), *_test_table(evaluation)]
        blocks += _configuration_table(evaluation, sources)
        blocks += _unfinished(results, evaluation)
    return Chapter("variance", "Sources of variance", [*blocks, Text(NOTE, quiet=True)]) if blocks else None


def _source_table(found: VarianceSources) -> Table:
    metric = metric_text(found.metric)
    columns = ["varied", f"std of the {metric}", "95 % interval", "share of the variance", "interval of it", "runs"]
    return Table(columns, [_row(found, source) for source in found.spreads], columns[1:])


def _row(found: VarianceSources, source: Source) -> list[str]:
    spread, share = found.spreads[source], found.shares.get(source)
    low, high = spread.interval
    return [
        SOURCES[source],
        _deviation_text(found.metric, spread.deviation),
        f"{_deviation_text(found.metric, low).removesuffix(' %')} to {_deviation_text(found.metric, high)}",
        percent_text(share.share) if share else NONE,
        f"{percent_text(share.low).removesuffix(' %')} to {percent_text(share.high)}" if share else NONE,
        str(spread.runs),
    ]


def _test_table(evaluation: EvaluationResults) -> list[Block]:
    """Return the same of the test scores, folded."""
    found = measure_variance_sources(evaluation, evaluation.test_metric) if evaluation.test_metric else None
    if found is None:
        return []
    table = _source_table(found)
    return [Table(table.columns, table.rows, table.numeric, folded=f"The same of the {metric_text(found.metric)}")]


def _configuration_table(evaluation: EvaluationResults, found: VarianceSources) -> list[Block]:
    """Return the deviation of each configuration by source, folded, where there are several."""
    if len(evaluation.candidates) < 2:
        return []
    kinds = {evaluation.vary: evaluation, **evaluation.varied}
    rows = []
    for label in (each.label for each in evaluation.candidates):
        cells = []
        for source in found.spreads:
            scores = [each.scores(found.metric) for each in kinds[source].candidates if each.label == label]
            spread = measure_spread(scores)
            cells.append(NONE if spread is None else _deviation_text(found.metric, spread.deviation))
        rows.append([label, *cells])
    columns = ["configuration", *(SOURCES[source] for source in found.spreads)]
    return [Table(columns, rows, columns[1:], folded="Standard deviation of each configuration")]


def _unfinished(results: Results, evaluation: EvaluationResults) -> list[Block]:
    left = sum(each.remaining_runs for each in evaluation.varied.values())
    if not left:
        return []
    top = sum(not each.baseline for each in evaluation.candidates) or 1
    seeds = max(len(runs.runs) for each in evaluation.varied.values() for runs in each.candidates)
    words = ",".join(source for source in evaluation.varied if source != "all") or "all"
    command = format_command(results, "evaluate", f"--vary {words} --top {top} --seeds {seeds}")
    return [Text(f"{number_of(left, 'run')} {'is' if left == 1 else 'are'} left. To finish:"), Code(command)]


def _deviation_text(metric: str, deviation: float) -> str:
    return gain_text(metric, deviation).replace(" percentage points", " %")
