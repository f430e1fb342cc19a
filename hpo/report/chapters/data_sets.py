"""Chapter on configurations over several data sets: scores, ranks and what differs significantly."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hpo.report.chapters.blocks import Block, Chapter, Subtitle, Table, Text
from hpo.report.format import NONE, metric_text, sentence, values_text
from hpo.report.stats.across_datasets import AcrossDatasets, Estimate, describe_across

__all__ = ["data_sets_chapter"]

NOTE = (
    "The rank is averaged over data sets. The interquartile mean is that of the middle half of all runs. Improvement "
    "is the probability that a run of the first configuration is better than one of this row, averaged over data sets. "
    "Their 95 % intervals are those of a bootstrap that draws the runs of each data set again."
)


def data_sets_chapter(found: Sequence[AcrossDatasets]) -> Chapter | None:
    """Write how the configurations compare over several data sets; None where there is one alone.

    Args:
        found: of the configurations that were not refit, and of those that were.
    """
    blocks: list[Block] = []
    for index, each in enumerate(found):
        blocks += [Subtitle("Refit")] if index else []
        blocks += [Text(" ".join(sentence(line) for line in describe_across(each))), _table(each)]
    return Chapter("data_sets", "Several data sets", [*blocks, Text(NOTE, quiet=True)]) if blocks else None


def _table(found: AcrossDatasets) -> Table:
    metric = metric_text(found.metric)
    scores = [f"{metric}, {name}" for name in found.datasets]
    columns = ["configuration", "rank", *scores, "interquartile mean", "interval", "improvement", "interval of it"]
    columns += ["rank differs"] if found.same else []
    return Table(columns, [_row(found, label) for label in found.labels], columns[1:])


def _row(found: AcrossDatasets, label: str) -> list[str]:
    scale = "" if found.scaled else found.metric
    mean, interval = _cells(scale, found.interquartile[label])
    improvement = _cells("", found.improvement.get(label))
    differs = {True: "no", False: "yes", None: NONE}[found.same.get(label)]
    return [
        label,
        f"{found.ranks[label]:.2f}",
        *(values_text(found.metric, found.scores[label][name]) for name in found.datasets),
        mean,
        interval,
        *improvement,
        *([differs] if found.same else []),
    ]


def _cells(metric: str, estimate: Estimate | None) -> tuple[str, str]:
    """Return a number and its interval as texts: values of a metric, or without one numbers from 0 to 1."""
    if estimate is None:
        return NONE, NONE
    value, low, high = (
        values_text(metric, number) if metric else f"{number:.2f}"
        for number in (estimate.value, estimate.low, estimate.high)
    )
    if not math.isfinite(estimate.low):
        return value, NONE
    return value, f"{low.removesuffix(' %')} to {high}"
