"""Chapter on the end of the search: when going on was expected to gain less than the noise."""

from __future__ import annotations

import math
from collections.abc import Iterator

from hpo.report.chapters.blocks import Block, Chapter, Note, Table, Text
from hpo.report.data.results import Results
from hpo.report.format import count_text, gain_text, number_of, sentence, values_text
from hpo.report.stats.null_result import explain_null_result
from hpo.study.definition import SETTLED
from hpo.study.outlook import explain_unsettled
from hpo.study.settled import Outlook

__all__ = ["settled_chapter"]

ROWS = 6
KEY = '`until = "settled"`'
EXPLANATION = (
    "Expected gain: what the rest of the budget was expected to add to the best value, from the spacings of the best "
    "values so far, of an adaptive sampler those of the later half of the trials. Noise: the standard error of a value."
)


def settled_chapter(results: Results) -> Chapter | None:
    """Write the chapter on when the study settled, whether or not it was to end then; None where it cannot be told."""
    last = results.outlooks[-1] if results.outlooks else None
    asked = results.budget.until == SETTLED
    if last is None or not math.isfinite(last.noise):
        if not asked:
            return None
        return _make_chapter([Text(sentence(f"not settled: {_explain(results, last)}"))])
    blocks: list[Block] = []
    if (null := explain_null_result(results)) is not None:
        blocks.append(Note("warning", sentence(null.claim).removesuffix("."), sentence(null.reason)))
    settled = results.settled
    text = _settled_text(results, settled, asked=asked) if settled and settled.left else _unsettled_text(results, last)
    return _make_chapter([*blocks, Text(text), _outlook_table(results), Text(EXPLANATION, quiet=True)])


def _make_chapter(blocks: list[Block]) -> Chapter:
    return Chapter("settled", "When to stop", blocks)


def _explain(results: Results, outlook: Outlook | None) -> str:
    return explain_unsettled(outlook, results.definition, results.budget.trials)


def _settled_text(results: Results, settled: Outlook, *, asked: bool) -> str:
    """Say when the study settled, and what the trials since then have gained."""
    metric = results.objective.metric
    after = f"after {count_text(settled.trials)} of {number_of(results.budget.trials, 'trial')}"
    start = f"The study settled {after}" if asked else f"With {KEY} the study would have ended {after}"
    text = (
        f"{start}: the other {count_text(settled.left)} were expected to gain {gain_text(metric, settled.gain)}, less "
        f"than the noise, {gain_text(metric, settled.noise)}."
    )
    since = results.counts["COMPLETE"] + results.counts["PRUNED"] - settled.trials
    if since <= 0 or results.best is None or results.best.value is None:
        return text
    gained = -results.signs[0] * results.best.value - settled.best
    what = f"gained {gain_text(metric, gained)}" if gained > 0 else "gained nothing"
    ended = number_of(since, "trial")
    return f"{text} {ended} ended after that, and {what}."


def _unsettled_text(results: Results, last: Outlook) -> str:
    if results.remaining_trials:
        return f"The study has not settled: {_explain(results, last)}."
    return "The study did not settle before its budget was used up; a larger one may find better configurations."


def _outlook_table(results: Results) -> Table:
    metric, sign = results.objective.metric, -results.signs[0]
    rows = [
        [
            count_text(each.trials),
            values_text(metric, sign * each.best),
            gain_text(metric, each.gain) if math.isfinite(each.gain) else "not known",
            gain_text(metric, each.noise),
        ]
        for each in _choose_rows(results)
    ]
    columns = ["trials", "best", "expected gain", "noise"]
    return Table(columns, rows, columns)


def _choose_rows(results: Results) -> Iterator[Outlook]:
    """Yield a few outlooks, evenly spaced, with the one at which the study settled and the last."""
    last = len(results.outlooks) - 1
    places = {round(last * step / (ROWS - 1)) for step in range(ROWS)}
    for place, outlook in enumerate(results.outlooks):
        if place in places or outlook is results.settled:
            yield outlook
