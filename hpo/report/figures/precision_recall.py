"""Figure of precision-recall curves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hpo.report.figures.overview import SERIES
from hpo.report.figures.plotly_spec import (
    HOVER,
    Figure,
    Spec,
    attach_spec,
    build_spec,
    escape_text,
    make_axis,
    mark_missing,
    shorten,
)
from hpo.report.stats.precision_recall import PrecisionRecall

__all__ = ["CURVES_LIMIT", "precision_recall_figure"]

CURVES_LIMIT = len(SERIES)
POINTS_LIMIT = 400


def precision_recall_figure(key: str, curves: Sequence[tuple[str, PrecisionRecall, float]]) -> Figure:
    """Draw the curves of some classes or labels, at most `CURVES_LIMIT`.

    Args:
        key: the figure's.
        curves: what each is called, the curve, and the share of the samples that are positive.
    """
    figure = Figure(f"precision-recall-{key}", "Precision and recall")
    if not curves:
        return mark_missing(figure, "No class has both samples that belong to it and samples that do not.")
    data = [_curve_trace(*curve, colour) for curve, colour in zip(curves[:CURVES_LIMIT], SERIES, strict=False)]
    chance = [_chance_line(share, colour) for (_, _, share), colour in zip(curves[:CURVES_LIMIT], SERIES, strict=False)]
    span = {"range": [-0.02, 1.02], "tickformat": ".0%"}
    spec = build_spec(
        data,
        340,
        xaxis=make_axis("recall", **span),
        yaxis=make_axis("precision", **span),
        shapes=chance,
        showlegend=True,
    )
    caption = (
        "Each point is a threshold on the probability. Recall: the share of the positive samples that are found. "
        "Precision: the share of those called positive that are. AP: average precision. The dashed lines are the "
        "shares of positive samples, which is the precision of guessing."
    )
    return attach_spec(figure, spec, caption)


def _curve_trace(name: str, curve: PrecisionRecall, _share: float, colour: str) -> Spec:
    points = np.unique(np.linspace(0, len(curve.recall) - 1, POINTS_LIMIT).round().astype(int))
    label = escape_text(shorten(name, 24))
    rows = list(zip(curve.thresholds[points], curve.precision[points], curve.recall[points], strict=True))
    return {
        "type": "scatter",
        "mode": "lines" if len(rows) > 20 else "lines+markers",
        "name": f"{label} (AP {curve.average_precision:.3f})",
        "x": [round(float(recall), 4) for _, _, recall in rows],
        "y": [round(float(precision), 4) for _, precision, _ in rows],
        "text": [
            f"{label} from a probability of {threshold:.2f}: precision {100 * precision:.1f} %, "
            f"recall {100 * recall:.1f} %"
            for threshold, precision, recall in rows
        ],
        "hovertemplate": HOVER,
        "line": {"color": colour, "width": 2},
        "marker": {"color": colour, "size": 5},
    }


def _chance_line(share: float, colour: str) -> Spec:
    line = {"color": colour, "dash": "dash", "width": 1}
    return {"type": "line", "x0": 0, "x1": 1, "y0": share, "y1": share, "line": line}
