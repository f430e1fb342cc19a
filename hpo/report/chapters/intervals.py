"""Prediction intervals of a regression, calibrated on validation data, and what they cover on the test set."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hpo.report.chapters.blocks import Block, Subtitle, Table, Text
from hpo.report.data.predictions import TargetPredictions
from hpo.report.format import NONE, amount_text, count_text
from hpo.report.stats.conformal import ConformalInterval, calibrate_interval, expected_coverage

__all__ = ["interval_blocks"]

LEVELS = (0.8, 0.9, 0.95)


def interval_blocks(
    validation: TargetPredictions | None, test: TargetPredictions | None, name: Callable[[int], str]
) -> list[Block]:
    """Write intervals for new samples; nothing without validation predictions, on which they are calibrated.

    Args:
        validation: predictions that the model was not trained on.
        test: predictions of the test set; None where it has not been read.
        name: returns what a target is called, by its number.
    """
    if validation is None or len(validation.targets) < 2:
        return []
    tested = None if test is None or test.targets.shape[1] != validation.targets.shape[1] else test
    rows = [
        [*([name(i)] if validation.targets.shape[1] > 1 else []), *cells]
        for i in range(validation.targets.shape[1])
        for cells in _rows(validation, tested, i)
    ]
    columns = [
        *(["target"] if validation.targets.shape[1] > 1 else []),
        "level",
        "prediction plus or minus",
        *(["covered on the test set", "expected"] if tested is not None else []),
    ]
    text = _method_text(validation, tested)
    return [Subtitle("Intervals"), Table(columns, rows, columns), Text(text, quiet=True)]


def _rows(validation: TargetPredictions, test: TargetPredictions | None, target: int) -> list[list[str]]:
    scales = None if validation.deviations is None else validation.deviations[:, target]
    residuals = validation.residuals[:, target]
    rows = []
    for level in LEVELS:
        interval = calibrate_interval(residuals, level, scales)
        row = [f"{100 * level:.0f} %", _width_text(interval, scales)]
        if test is not None:
            row += _coverage_cells(interval, level, test, target)
        rows.append(row)
    return rows


def _width_text(interval: ConformalInterval | None, scales: np.ndarray[tuple[int], np.dtype[np.float64]] | None) -> str:
    if interval is None:
        return "too few validation samples"
    if scales is None:
        return amount_text(interval.factor)
    typical = amount_text(interval.factor * float(np.median(scales)))
    return f"{interval.factor:.3g} predicted deviations (median {typical})"


def _coverage_cells(
    interval: ConformalInterval | None, level: float, test: TargetPredictions, target: int
) -> list[str]:
    if interval is None:
        return [NONE, NONE]
    scales = None if test.deviations is None else test.deviations[:, target]
    covered = interval.covers(test.residuals[:, target], scales)
    low, high = expected_coverage(level, interval.samples, len(covered))
    return [f"{100 * covered.mean():.1f} %", f"{100 * low:.1f} to {100 * high:.1f} %"]


def _method_text(validation: TargetPredictions, test: TargetPredictions | None) -> str:
    count = len(validation.targets)
    what = "absolute residuals" if validation.deviations is None else "residuals over the deviations the model predicts"
    lines = [
        f"Split conformal prediction (Lei et al. 2018): the {what} of {count_text(count)} validation samples, of which "
        f"the ceil((n + 1) x level)-th smallest is taken. A new sample of the same kind is inside with at least that "
        f"probability, and at most 1/{count_text(count + 1)} more."
    ]
    if test is not None:
        lines.append(
            "Expected is the range of 95 % of such test sets. Below it, the test set differs from the validation data, "
            "or the choice of configuration and epoch by these data has made their residuals too small."
        )
    else:
        lines.append(
            "The configuration and the epoch were chosen by the same data, so they may be somewhat too narrow."
        )
    if validation.targets.shape[1] > 1:
        lines.append("Each target has its level by itself, not all at once.")
    return " ".join(lines)
