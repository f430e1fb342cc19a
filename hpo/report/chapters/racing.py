"""Chapter on racing: which trials were dropped on their shared fits, and what that saved."""

from __future__ import annotations

from hpo.report.chapters.blocks import Block, Chapter, Table, Text
from hpo.report.data.results import Results, TrialRow
from hpo.report.format import NONE, count_text, duration_text, number_of, values_text
from hpo.report.stats.trial_stats import expected_epochs

__all__ = ["racing_chapter"]

SHOWN = 20  # trials


def racing_chapter(results: Results) -> Chapter | None:
    """Write the chapter; None of a study whose trials do not race, and before one has ended."""
    definition = results.definition
    intensifies = definition.resampling is not None and definition.resampling.intensify
    if not definition.several_fits or not (intensifies or definition.pruner.name == "wilcoxon"):
        return None
    ended = [row for row in results.trials if row.fits and row.state in ("COMPLETE", "PRUNED")]
    if not ended:
        return None
    dropped = [row for row in ended if row.raced is not None]
    whole = sum(_whole_epochs(row, results) for row in ended)
    saved = sum(_saved_epochs(row, results) for row in dropped)
    blocks: list[Block] = [
        Text(_savings_text(results, len(ended), dropped, saved, whole)),
        *([_table(results, dropped)] if dropped else []),
        Text(
            "A trial is compared with the best one on the fits that both have, by Wilcoxon's test of signed ranks"
            + (
                ", and has more fits only if it passes. Where fits are too few for so small a p, it also ends if it is "
                "worse on each of them."
                if intensifies
                else ", and ends where it fails."
            ),
            quiet=True,
        ),
    ]
    return Chapter("racing", "Racing", blocks)


def _savings_text(results: Results, ended: int, dropped: list[TrialRow], saved: int, whole: int) -> str:
    if not dropped:
        of = f"None of {number_of(ended, 'trial')} was dropped"
        return f"{of}: on shared fits none was worse than the best beyond noise."
    seconds = sum(_saved_epochs(row, results) * (row.seconds or 0.0) / max(1, _done_epochs(row)) for row in dropped)
    was = "was" if len(dropped) == 1 else "were"
    return (
        f"{count_text(len(dropped))} of {number_of(ended, 'trial')} {was} dropped, worse than the best on shared fits. "
        f"That saved {count_text(saved)} of {count_text(whole)} epochs of fits ({100 * saved / max(1, whole):.0f} %), "
        f"about {duration_text(seconds)} of training (estimated from each trial's own time per epoch)."
    )


def _table(results: Results, dropped: list[TrialRow]) -> Table:
    fits = len(results.definition.fits)
    rows = [
        [
            str(row.number),
            f"{len(row.fits)} of {fits}",
            f"{len(row.epochs)} of {row.config.epochs}" if row.config else str(len(row.epochs)),
            values_text(results.objective.metric, row.value),
            row.raced or NONE,
        ]
        for row in dropped[:SHOWN]
    ]
    more = f", the first {SHOWN}" if len(dropped) > SHOWN else ""
    columns = ["trial", "fits", "epochs", results.objective.metric, "why"]
    return Table(columns, rows, columns[:4], folded=f"{number_of(len(dropped), 'trial')} that were dropped{more}")


def _done_epochs(row: TrialRow) -> int:
    return sum(map(len, row.fits.values()))


def _whole_epochs(row: TrialRow, results: Results) -> int:
    """Return the epochs of all fits of a trial, had it gone on; of one that ended by itself, those that it has.

    The later fits of a trial have no more epochs than its first ones, which may have stopped early.
    """
    if row.raced is None or row.config is None:
        return _done_epochs(row)
    each = expected_epochs(results, row) if row.stage_epochs is None else len(row.epochs)
    return each * len(results.definition.fits)


def _saved_epochs(row: TrialRow, results: Results) -> int:
    return max(0, _whole_epochs(row, results) - _done_epochs(row))
