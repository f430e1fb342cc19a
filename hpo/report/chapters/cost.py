"""Chapter on cost: time by state, savings by pruning, pace and failures."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from hpo.report.chapters.blocks import Block, Chapter, Subtitle, Table, Text
from hpo.report.data.results import Results, TrialRow
from hpo.report.format import NONE, count_text, duration_text, number_of, state_text, time_text
from hpo.report.stats.trial_stats import expected_epochs

__all__ = ["cost_chapter", "estimate_pruning_savings"]

MESSAGES = 10


def cost_chapter(results: Results) -> Chapter | None:
    """Write the chapter; None before any trial has begun."""
    if results.started_at is None:
        return None
    return Chapter(
        "cost",
        "Cost",
        [
            _state_table(results),
            *_cohort_note(results),
            *_savings_text(results),
            *_wall_time(results),
            *_failure_tables(results),
        ],
    )


def _state_table(results: Results) -> Table:
    rows = []
    for state, count in results.counts.items():
        trials = [row for row in results.trials if row.state == state]
        seconds = [row.seconds for row in trials if row.seconds is not None]
        epochs = sum(len(row.epochs) for row in trials)
        if count:
            total = duration_text(sum(seconds)) if seconds else NONE
            each = duration_text(sum(seconds) / len(seconds)) if seconds else NONE
            rows.append([state_text(state), count_text(count), count_text(epochs), total, each])
    columns = ["state", "trials", f"{results.step_name}s", "total time", "mean time"]
    if not results.definition.configured and not any(row.epochs for row in results.trials):
        columns, rows = [*columns[:2], *columns[3:]], [[*row[:2], *row[3:]] for row in rows]  # it need not report
    return Table(columns, rows, columns[1:])


def _cohort_note(results: Results) -> list[Block]:
    if results.work is None or (results.work.cohort_size or 1.0) <= 1.0:
        return []
    return [
        Text(
            "The time of a trial is that of its training. Models of ours that were trained together share it; trials "
            "of a training loop of your own all count it.",
            quiet=True,
        )
    ]


def estimate_pruning_savings(results: Results) -> tuple[int, int, float] | None:
    """Return how many trials were pruned, the epochs that this saved, and an estimate of the seconds.

    Each epoch that was left out is taken to cost what the trial's others did on average. Trials that diverged or ran
    out of memory were not pruned; of those that lost a race another chapter tells. None where nothing was saved.
    """
    trials, epochs, seconds = 0, 0, 0.0
    for row in results.trials:
        left = _epochs_left(results, row)
        if left:
            trials, epochs = trials + 1, epochs + left
            seconds += left * (row.seconds or 0.0) / len(row.epochs)
    return (trials, epochs, seconds) if trials else None


def _epochs_left(results: Results, row: TrialRow) -> int:
    if row.state != "PRUNED" or row.failure is not None or row.raced is not None:
        return 0
    if row.config is None or not row.epochs:
        return 0
    return expected_epochs(results, row) - len(row.epochs)


def _savings_text(results: Results) -> list[Block]:
    saved = estimate_pruning_savings(results)
    if saved is None:
        return []
    trials, epochs, seconds = saved
    end = "its end" if trials == 1 else "their end"
    text = (
        f"Pruning stopped {number_of(trials, 'trial')} early, {number_of(epochs, 'epoch')} before {end}, and saved "
        f"about {duration_text(seconds)} of training (estimated from each trial's own time per epoch)."
    )
    return [Text(text)]


def _wall_time(results: Results) -> list[Block]:
    """Return the wall time, and how the workers spent theirs."""
    blocks: list[Block] = []
    if results.started_at and results.last_event_at:
        wall = duration_text((results.last_event_at - results.started_at).total_seconds())
        workers = len({row.worker for row in results.trials if row.worker})
        by = f" on {workers} workers" if workers > 1 else ""
        blocks.append(Text(f"From {time_text(results.started_at)} to {time_text(results.last_event_at)}: {wall}{by}."))
    if results.work is not None:
        blocks.append(Text(f"{results.work.text[:1].upper()}{results.work.text[1:]}."))
    return blocks


def _failure_tables(results: Results) -> list[Block]:
    if not results.failures:
        return []
    rows = [[kind, count_text(count)] for kind, count in results.failures.items()]
    kinds: list[Block] = [Subtitle("Failures by kind"), Table(["kind", "trials"], rows, ["trials"])]
    return [*kinds, *_message_table(results.trials)]


def _message_table(trials: Sequence[TrialRow]) -> list[Block]:
    """Return the table of messages; none where no trial has more to say than that it failed, as those of Optuna."""
    failed = (row for row in trials if row.failure and row.feasible and (row.known_failure or row.message))
    rows = [
        [str(row.number), state_text(row.state), row.failure or "", row.message or NONE]
        for row in islice(failed, MESSAGES)
    ]
    table = Table(["trial", "state", "kind", "message"], rows, ["trial"], folded="Messages of the first failures")
    return [table] if rows else []
