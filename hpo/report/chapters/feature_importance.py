"""Chapter on the importance of a table's features, by permutation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpo.report.chapters.blocks import Block, Chapter, Table, Text
from hpo.report.data.evaluations import CandidateRuns, EvaluationResults
from hpo.report.data.predictions import FeatureImportance
from hpo.report.figures.plotly_spec import HOVER, Figure, attach_spec, build_spec, escape_text, make_axis, shorten
from hpo.report.format import NONE, count_text, gain_text, is_share, metric_text, number_of, values_text
from hpo.study import Objective

__all__ = ["FeatureLoss", "average_losses", "feature_importance_chapter"]

Array = np.ndarray[Any, Any]
FEATURES_LIMIT = 25  # that are drawn
LEVEL = 0.95


@dataclass(frozen=True)
class FeatureLoss:
    """Loss of score where a feature is shuffled.

    Attributes:
        feature: its name.
        mean: over runs, or of one run over repeats.
        low, high: a 95 % interval of it (Student's t).
    """

    feature: str
    mean: float
    low: float
    high: float


def feature_importance_chapter(evaluations: Sequence[EvaluationResults]) -> Chapter | None:
    """Write how much the best models lose without each feature; None where no table was evaluated on this machine."""
    for evaluation in evaluations:
        best = evaluation.best
        runs = _read_runs(best) if best is not None else []
        if best is not None and runs:
            return Chapter("features", "Feature importance", _blocks(evaluation, best, runs))
    return None


def _read_runs(candidate: CandidateRuns) -> list[FeatureImportance]:
    """Read the importances of a candidate's runs, of those that have the features of the first."""
    runs = [found for run in candidate.complete_runs if (found := run.importance()) is not None]
    return [run for run in runs if run.features == runs[0].features]


def average_losses(runs: Sequence[FeatureImportance]) -> list[FeatureLoss]:
    """Average losses over models trained from several seeds, each over its repeats; the largest first.

    Of a single model the interval is over the repeats of shuffling alone.
    """
    from scipy.stats import t  # half a second to import

    draws = np.array([run.losses.mean(0) for run in runs]) if len(runs) > 1 else runs[0].losses
    reach = float(t.isf((1 - LEVEL) / 2, len(draws) - 1)) / math.sqrt(len(draws)) * draws.std(0, ddof=1)
    means = draws.mean(0)
    found = [
        FeatureLoss(name, float(mean), float(mean - r), float(mean + r))
        for name, mean, r in zip(runs[0].features, means, reach, strict=True)
    ]
    return sorted(found, key=lambda each: (-each.mean, each.feature))


def _blocks(evaluation: EvaluationResults, best: CandidateRuns, runs: Sequence[FeatureImportance]) -> list[Block]:
    objective = evaluation.objective
    losses = average_losses(runs)
    models = f"{len(runs)} models of {best.label}" if len(runs) > 1 else f"The model of {best.label}"
    score = values_text(objective.metric, float(np.mean([run.score for run in runs])))
    text = (
        f"{models} on {number_of(runs[0].samples, 'validation sample')} of {evaluation.dataset}: "
        f"{metric_text(objective.metric)} {score}, and how much worse it is with the values of a feature shuffled."
    )
    over = (
        f"their spread over {len(runs)} seeds" if len(runs) > 1 else f"the {len(runs[0].losses)} repeats of one model"
    )
    note = (
        f"Permutation importance (Breiman 2001), {len(runs[0].losses)} repeats each. Lines are 95 % intervals, from "
        f"{over}; one that reaches zero tells nothing. Of features that say the same, each looks unimportant, for the "
        "model has the other one. It says what these models use, not what causes the target."
    )
    rows = [[each.feature, _loss_text(objective, each.mean), _interval_text(objective, each)] for each in losses]
    change = _change(objective)
    table = Table(["feature", change, "95 % interval"], rows, [change, "95 % interval"], folded="all features")
    return [Text(text), _figure(objective, losses), Text(note, quiet=True), table]


def _change(objective: Objective) -> str:
    """Return what happens to a metric that becomes worse."""
    return "drop" if objective.direction == "maximize" else "rise"


def _loss_text(objective: Objective, value: float) -> str:
    return f"{'-' if value < 0 else ''}{gain_text(objective.metric, value).replace('percentage points', 'points')}"


def _interval_text(objective: Objective, loss: FeatureLoss) -> str:
    if not math.isfinite(loss.low):
        return NONE
    return f"{_loss_text(objective, loss.low).removesuffix(' points')} to {_loss_text(objective, loss.high)}"


def _figure(objective: Objective, losses: Sequence[FeatureLoss]) -> Figure:
    shown = list(reversed(losses[:FEATURES_LIMIT]))
    names = [escape_text(shorten(each.feature, 28)) for each in shown]
    names = [f"{name} ({i})" if names.count(name) > 1 else name for i, name in enumerate(names)]
    factor = 100 if is_share(objective.metric) else 1
    dots = {
        "type": "bar",
        "orientation": "h",
        "y": names,
        "x": [float(f"{factor * each.mean:.5g}") for each in shown],
        "error_x": {
            "type": "data",
            "array": [float(f"{factor * (each.high - each.mean):.5g}") for each in shown],
            "color": "@ink",
            "thickness": 1.2,
            "width": 4,
        },
        "text": [f"{name}: {_loss_text(objective, each.mean)}" for name, each in zip(names, shown, strict=True)],
        "textposition": "none",
        "hovertemplate": HOVER,
        "marker": {"color": "@accent"},
    }
    change = f"{_change(objective)} of the {metric_text(objective.metric)}"
    spec = build_spec(
        [dots],
        80 + 22 * len(shown),
        xaxis=make_axis(f"{change}, percentage points" if factor == 100 else change, nticks=6),
        yaxis=make_axis(type="category", ticksuffix="  ", showgrid=False),
        bargap=0.4,
    )
    cut = f"{FEATURES_LIMIT} of {count_text(len(losses))} features are drawn." if len(losses) > FEATURES_LIMIT else ""
    return attach_spec(Figure("features", f"{change[:1].upper()}{change[1:]} without each feature"), spec, cut)
