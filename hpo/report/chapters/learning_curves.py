"""Chapter on learning curves, and on the time to reach given levels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpo.report.chapters.blocks import Block, Chapter, Table, Text
from hpo.report.data.results import Results, TrialRow
from hpo.report.figures import overview
from hpo.report.format import NONE, count_text, duration_text, metric_text, values_text
from hpo.report.stats.trial_stats import choose_curve_objective

__all__ = ["LevelReach", "find_reach", "learning_curves_chapter"]

QUANTILES = (0.25, 0.5, 0.75, 0.95)  # of the trials' best values, from worse to better


@dataclass(frozen=True)
class LevelReach:
    """First epoch of a trial's curve that was as good as a level.

    Attributes:
        trial: its number.
        epoch: the first epoch that was.
        seconds: of training until then; None where they were not recorded.
    """

    trial: int
    epoch: int
    seconds: float | None


def learning_curves_chapter(results: Results) -> Chapter | None:
    """Write the chapter: the curves, and a table of epochs and seconds until given values were reached.

    None for trials of an objective function that has reported nothing, for it need not.
    """
    if not results.definition.configured and not any(row.epochs for row in results.trials):
        return None
    blocks: list[Block] = [overview.curves_figure(results), *_reach_table(results)]
    return Chapter("curves", overview.curves_title(results), blocks)


def find_reach(row: TrialRow, metric: str, level: float, *, maximize: bool) -> LevelReach | None:
    """Find the first epoch at which the trial's curve was at `level` or better; None where there is none."""
    for i, epoch in enumerate(row.epochs, start=1):
        value = epoch.get(metric, math.nan)
        if value >= level if maximize else value <= level:
            return LevelReach(row.number, int(epoch.get("epoch", i)), epoch.get("seconds"))
    return None


def _choose_levels(results: Results, metric: str, *, maximize: bool) -> list[float]:
    """Round values that a part of the trials reached: quantiles of their best, rounded to the worse side."""
    curves = [[e.get(metric, math.nan) for e in row.epochs] for row in results.trials]
    finite = [[value for value in values if math.isfinite(value)] for values in curves]
    bests = [max(values) if maximize else min(values) for values in finite if values]
    if not bests:
        return []
    shares = QUANTILES if maximize else [1 - share for share in QUANTILES]
    levels = np.quantile(bests, shares, method="lower" if maximize else "higher")
    return list(dict.fromkeys(_round_level(float(value), up=not maximize) for value in levels))


def _round_level(value: float, *, up: bool) -> float:
    """Round to three digits after the point between 0.1 and 1 (a tenth of a percent), else to two significant ones."""
    if value == 0:
        return 0.0
    digits = 3 if 0.1 <= abs(value) <= 1 else 1 - math.floor(math.log10(abs(value)))
    scale = 10.0**digits
    # The small step keeps a value that is round already from moving on by an error of its last bit.
    whole = math.ceil(value * scale - 1e-9) if up else math.floor(value * scale + 1e-9)
    return float(round(whole / scale, max(digits, 0)))


def _reach_table(results: Results) -> list[Block]:
    objective = choose_curve_objective(results)
    if objective is None:
        return []
    metric, maximize = objective.metric, objective.direction == "maximize"
    levels = _choose_levels(results, metric, maximize=maximize)
    if not levels:
        return []
    trials = [row for row in results.trials if row.epochs]
    rows = []
    for level in levels:
        reaches = [reach for row in trials if (reach := find_reach(row, metric, level, maximize=maximize))]
        rows.append(
            [
                values_text(metric, level),
                f"{count_text(len(reaches))} of {count_text(len(trials))}",
                *_reach_cells(reaches),
            ]
        )
    columns = [metric_text(metric), "trials", "fewest epochs", "median epochs", "shortest time", "median time"]
    time = ", and in seconds of training on the machines that ran them"
    if not results.definition.configured:  # an objective function reports no time
        columns, rows, time = [*columns[:2], "first step", "median step"], [row[:4] for row in rows], ""
    note = (
        f"How long it took until the {metric_text(metric)} was {'at least' if maximize else 'at most'} the level, over "
        f"the trials that reached it: in {results.step_name}s{time}. The levels are the 25, 50, 75 and 95 % quantiles "
        "of the trials' best values, rounded."
    )
    return [Table(columns, rows, columns), Text(note, quiet=True)]


def _reach_cells(reaches: Sequence[LevelReach]) -> list[str]:
    if not reaches:
        return [NONE] * 4
    first = min(reaches, key=lambda reach: (reach.epoch, reach.trial))
    timed = [reach for reach in reaches if reach.seconds is not None and math.isfinite(reach.seconds)]
    quick = min(timed, key=lambda reach: (reach.seconds or 0.0, reach.trial), default=None)
    return [
        f"{first.epoch} (trial {first.trial})",
        f"{np.median([reach.epoch for reach in reaches]):g}",
        f"{duration_text(quick.seconds)} (trial {quick.trial})" if quick else NONE,
        duration_text(float(np.median([reach.seconds or 0.0 for reach in timed]))) if timed else NONE,
    ]
