"""Chapter on comparisons of the study with others, paired over fresh seeds and splits."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence

from hpo.report.chapters.blocks import Block, Chapter, Code, Subtitle, Table, Text
from hpo.report.commands import format_command
from hpo.report.data.evaluations import EvaluationResults
from hpo.report.data.results import Results
from hpo.report.format import NONE, gain_text, metric_text, number_of, sentence, values_text
from hpo.report.stats.study_comparison import PairedScore, compare_studies, describe_comparison

__all__ = ["study_comparison_chapter"]

NOTE = (
    "The chosen configuration of each study was trained from the same fresh seeds, which decide split, order of the "
    "data and initial weights. The probability is that of a better score in a pair. Validation scores of overlapping "
    "splits depend on each other, which their interval allows for."
)


def study_comparison_chapter(results: Results, comparisons: Sequence[EvaluationResults]) -> Chapter | None:
    """Write how the study compares with others; None where it has not been compared."""
    blocks: list[Block] = []
    for each in comparisons:
        scores = compare_studies(each)
        blocks += [Subtitle(f"With {each.compare}")] if len(comparisons) > 1 else []
        blocks += [Text(" ".join(sentence(line) for line in describe_comparison(each, scores)))]
        blocks += [_table(each, scores)] if scores else []
        if left := each.remaining_runs:
            seeds = max(len(candidate.runs) for candidate in each.candidates)
            more = f"--compare {shlex.quote(each.compare)} --seeds {seeds}"
            blocks += [
                Text(f"To finish the {number_of(left, 'run')}:"),
                Code(format_command(results, "evaluate", more)),
            ]
    return Chapter("studies", "Comparison with other studies", [*blocks, Text(NOTE, quiet=True)]) if blocks else None


def _table(comparison: EvaluationResults, scores: Sequence[PairedScore]) -> Table:
    first, second = (each.label for each in comparison.candidates)
    columns = ["metric", first, second, f"{first} is better by", "95 % interval"]
    columns += ["probability", "interval of it", "pairs"]
    return Table(columns, [_row(each) for each in scores], columns[1:])


def _row(score: PairedScore) -> list[str]:
    metric, difference, probability = score.metric, score.difference, score.probability
    bounds = NONE
    if math.isfinite(difference.low):
        low = _signed_text(metric, difference.low).removesuffix(" points")
        bounds = f"{low} to {_signed_text(metric, difference.high)}"
    return [
        metric_text(metric),
        values_text(metric, score.first),
        values_text(metric, score.second),
        _signed_text(metric, difference.mean),
        bounds,
        f"{probability.value:.2f}",
        f"{probability.low:.2f} to {probability.high:.2f}",
        str(probability.count),
    ]


def _signed_text(metric: str, amount: float) -> str:
    return ("-" if amount < 0 else "") + gain_text(metric, amount).replace("percentage points", "points")
