"""Chapter on the corrected score: what the best trial is worth, and how often another would have been chosen."""

from __future__ import annotations

from collections.abc import Sequence

from hpo.report.chapters.blocks import Block, Chapter, Table, Text
from hpo.report.data.corrected_score import CorrectedScore, describe_choice, describe_correction
from hpo.report.data.results import Results
from hpo.report.format import NONE, count_text, gain_text, metric_text, number_of, values_text
from hpo.report.stats.pairwise import PairedComparison

__all__ = ["corrected_score_chapter"]


def corrected_score_chapter(results: Results, comparisons: Sequence[PairedComparison] = ()) -> Chapter | None:
    """Write the chapter; None where no corrected score has been computed.

    Args:
        results: the study.
        comparisons: of the best trial with those that other samples would have chosen most often.
    """
    score = results.corrected
    if score is None:
        return None
    said = f"Trial {score.number}. {describe_correction(score)} {describe_choice(score)}".rstrip()
    blocks: list[Block] = [Text(said), *_rivals_table(results, score, comparisons), *_history_table(score)]
    return Chapter(
        "corrected", "Corrected score", [*blocks, Text(_method_text(results, score, comparisons), quiet=True)]
    )


def _rivals_table(results: Results, score: CorrectedScore, comparisons: Sequence[PairedComparison]) -> list[Block]:
    """List the trials that other samples would have chosen, beside the best."""
    if not comparisons:
        return []
    shares, metric = dict(score.others), score.metric
    columns = ["trial", metric_text(metric), "chosen", "behind by", "95 % interval", "p", "weights"]
    rows = [[str(score.number), values_text(metric, score.chosen), _share_text(score.chosen_again), NONE, NONE, NONE]]
    rows += [
        [
            str(each.second),
            values_text(metric, results.trial(each.second).value),
            _share_text(shares.get(each.second, 0.0)),
            _signed_text(metric, each.difference),
            f"{_signed_text(metric, each.low)} to {_signed_text(metric, each.high)}",
            f"{each.p_value:.2g}",
        ]
        for each in comparisons
    ]
    rows = [[*row, count_text(results.trial(int(row[0])).parameter_count)] for row in rows]
    return [Table(columns, rows, [name for name in columns if name != "95 % interval"])]


def _share_text(share: float) -> str:
    return f"{100 * share:.1f} %"


def _signed_text(metric: str, difference: float) -> str:
    """Format a difference with its sign, in the units of the metric: shares in percentage points."""
    sign = "-" if difference < 0 else ""
    return f"{sign}{gain_text(metric, difference).removesuffix('percentage points')}".strip()


def _history_table(score: CorrectedScore) -> list[Block]:
    if len(score.history) < 2:
        return []
    rows = [
        [count_text(each.trials), values_text(score.metric, each.chosen), values_text(score.metric, each.corrected)]
        for each in score.history
    ]
    columns = ["best of the first trials", metric_text(score.metric), "corrected"]
    return [Table(columns, rows, columns, folded="what more trials have gained")]


def _groups_clause(score: CorrectedScore) -> str:
    return f"are in {number_of(score.groups, 'group')}, which " if score.groups else ""


def _method_text(results: Results, score: CorrectedScore, comparisons: Sequence[PairedComparison]) -> str:
    """Say how the numbers came about, and what they do not say."""
    samples = f"{count_text(score.samples)} validation samples"
    shared = results.definition.shares_validation
    which = f"The {samples}" if shared else f"Each trial has {samples} of its own. All of these together"
    text = (
        f"{which} {_groups_clause(score)}were drawn again many times, with replacement. In each draw the best trial "
        "and epoch were chosen by the samples drawn, and scored on those left out (BBC-CV, Tsamardinos et al. 2018). "
        "The interval is of the model as it was trained"
    )
    text += "." if score.fits > 1 else "; another seed adds its own chance, which `hpo evaluate` measures."
    if score.left_out:
        text += f" {number_of(score.left_out, 'trial').capitalize()} without sample scores took no part."
    if pruned := sum(row.state == "PRUNED" and row.failure is None for row in results.trials):
        were = "trial was" if pruned == 1 else "trials were"
        text += (
            f" {count_text(pruned)} {were} pruned, and took no part: that choice is not corrected for, so "
            "the corrected score may still flatter a little."
        )
    if comparisons:
        test = "by McNemar's exact test" if comparisons[0].test == "McNemar" else "by a paired bootstrap"
        text += (
            f" Chosen: in how many draws. Behind by: sample by sample; p {test}, adjusted for "
            f"{number_of(len(comparisons), 'comparison')}, but not for the best having been picked."
        )
    return text
