"""Checks of learning curves: stability, overfitting, length of training, bugs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hpo.config.trial_config import TrialConfig
from hpo.report.checks.finding import Finding
from hpo.report.data.evaluations import EvaluationResults
from hpo.report.data.results import Results, TrialRow
from hpo.report.format import metric_text, number_of, percent_text
from hpo.report.stats.trial_stats import list_top_trials, loss_margin, read_curve, read_value_curve, standard_error
from hpo.utils.text import format_rough

__all__ = ["CURVE_CHECKS"]

Evaluations = Sequence[EvaluationResults]
NEAR_EDGE = 3.0  # the best learning rate within half a decade of the divergence
FEWEST = 5  # steps of a curve, of which the last fifth is told from the rest
STILL = 0.05  # of the whole improvement, in the last fifth of the epochs
FLAT = 0.5  # of the epochs after which nothing more is won
EARLY, LATE = 0.1, 0.75  # [P]
ROUGH = 0.15  # of the curve's range, from one late epoch to the next
PERIODIC = 0.6  # of the detrended curve's power in one frequency
WARM = 0.05  # [P]
LINEAR = ("ridge regression", "logistic regression")  # reference models that any network should reach
SMOOTHER = "measure the reported value on more data, or report a mean of it"
WARMED = "warmup = { low = 0.0, high = 0.2 }"


def _learning_rates(rows: Sequence[TrialRow]) -> list[tuple[float, TrialRow]]:
    return [(row.config.learning_rate, row) for row in rows if row.config is not None]


def stability(results: Results, _: Evaluations) -> list[Finding]:
    """Check 6: the best learning rate lies right below where every trial diverges, by optimizer."""
    best = results.best
    if best is None or best.config is None:
        return []
    same_optimizer = [
        (rate, row)
        for rate, row in _learning_rates(results.trials)
        if row.config and row.config.optimizer == best.config.optimizer
    ]
    sound = [rate for rate, row in same_optimizer if row.comparable]
    above = [rate for rate, row in same_optimizer if row.failure == "diverged" and rate > max(sound)]
    edge = (
        len(above) >= 2
        and max(sound) <= NEAR_EDGE * best.config.learning_rate
        and min(above) <= NEAR_EDGE * best.config.learning_rate
    )
    evidence = (
        f"the best learning rate is {best.config.learning_rate:.3g}; above {max(sound):.3g}, the largest one that "
        f"trained, {number_of(len(above), 'trial')} diverged"
    )
    return [
        Finding(
            "stability",
            "edge of stability",
            "warning" if edge else "ok",
            evidence,
            "try warm-up or gradient clipping, which allow larger learning rates" if edge else "",
            WARMED if edge and best.config.effective().get("warmup") == 0.0 else "",
            ("learning_rate",),
        )
    ]


def rising(results: Results, _: Evaluations) -> list[Finding]:
    """Check 7: just above the best learning rate the training loss falls, then rises."""
    best = results.best
    if best is None or best.config is None:
        return []
    rate = best.config.learning_rate
    losses = [
        read_curve(row, "train_loss") for r, row in _learning_rates(results.trials) if rate < r <= NEAR_EDGE * rate
    ]
    losses = [loss for loss in losses if len(loss) >= 4]
    turned = sum(bool(loss.argmin() >= 1 and _rises(loss)) for loss in losses)
    bad = bool(losses) and turned * 2 >= len(losses)
    return [
        Finding(
            "rising",
            "loss above the best learning rate",
            "note" if bad else "ok",
            f"the training loss of {turned} of {len(losses)} trials just above the learning rate {rate:.3g} fell and "
            f"then rose"
            if losses
            else f"no trial has a learning rate just above {rate:.3g}",
            "try gradient clipping, or a schedule that lowers the learning rate" if bad else "",
        )
    ]


def _rises(loss: np.ndarray[tuple[int], np.dtype[np.float64]]) -> bool:
    return bool(loss[-1] > loss.min() + loss_margin(loss.min()))


def overfitting(results: Results, evaluations: Evaluations) -> list[Finding]:
    """Check 8: the best trial's validation loss rises during training."""
    loss = read_curve(results.best, "val_loss") if results.best else np.array([])
    if len(loss) < FEWEST:  # a loss that rises in the first epochs is one of steps too large
        return []
    bad = _rises(loss)
    return [
        Finding(
            "overfitting",
            "overfitting",
            "warning" if bad else "ok",
            f"the best trial's validation loss was lowest ({loss.min():.4g}) at epoch {loss.argmin() + 1} and ended at "
            f"{loss[-1]:.4g}",
            (_advise_fit(evaluations) or _advise_regularization(results)) if bad else "",
        )
    ]


def _advise_fit(evaluations: Evaluations) -> str:
    """Return what to do first where even a linear model is better, which no regularization mends."""
    for evaluation in evaluations:
        models = () if evaluation.reference_models is None else evaluation.reference_models.models
        metric, best = evaluation.validation_metric, evaluation.best
        scores = list(best.scores(metric).values()) if best is not None and metric else []
        sign = 1 if evaluation.objective.direction == "maximize" else -1
        for model in models:
            score = model.score(metric)
            if model.name in LINEAR and scores and score is not None and sign * (score - float(np.mean(scores))) > 0:
                return (
                    f"search the learning rate and the size of the network first: {model.name}, a linear model, is "
                    "better than it"
                )
    return ""


def _advise_regularization(results: Results) -> str:
    config = results.best.config if results.best else None
    smooths = config is not None and "label_smoothing" in config.effective()
    return f"regularize: dropout{', weight_decay or label_smoothing' if smooths else ' or weight_decay'}"


def rough(results: Results, _: Evaluations) -> list[Finding]:
    """Check 9: the validation curve jumps late in training."""
    values = read_value_curve(results, results.best) if results.best else np.array([])
    if len(values) < 6 or np.ptp(values) == 0:
        return []
    late = values[len(values) // 2 :]
    step = float(np.std(np.diff(late)))
    of_models = results.definition.configured
    bad = step > max(ROUGH * float(np.ptp(values)), 2 * (standard_error(results) or 0.0))
    return [
        Finding(
            "rough",
            "noise late in training",
            "note" if bad else "ok",
            f"late in training the best trial's {metric_text(results.objective.metric)} changes by "
            f"{format_rough(step, 3)} from one {results.step_name} to the next (standard deviation), and by "
            f"{format_rough(float(np.ptp(values)), 3)} over the whole run",
            ("use a larger validation set, or lower the learning rate towards the end" if of_models else SMOOTHER)
            if bad
            else "",
        )
    ]


def _gain_curves(results: Results) -> list[tuple[TrialRow, np.ndarray[tuple[int], np.dtype[np.float64]]]]:
    """Return the best trials' curves, larger better."""
    curves = [(row, -results.signs[0] * read_value_curve(results, row)) for row in list_top_trials(results)]
    return [(row, values) for row, values in curves if len(values) >= FEWEST]


def _epochs_toml(results: Results, factor: float) -> str:
    domains = [d for d in results.space.dimensions if d.parameter.name == "epochs"]
    best = results.best
    if best is None or best.config is None or "epochs" in results.varied or len(domains) > 1:
        return ""
    return f"epochs = {max(1, math.ceil(best.config.epochs * factor))}"


def improving(results: Results, _: Evaluations) -> list[Finding]:
    """Check 10: the best trials still improve at the end."""
    curves = _gain_curves(results)
    if not curves:
        return []
    still = sum(_still_improves(values) for _, values in curves)
    bad = still * 2 > len(curves)
    return [
        Finding(
            "improving",
            "still improving",
            "warning" if bad else "ok",
            f"{still} of the best {len(curves)} trials still improved in the last fifth of their {results.step_name}s",
            f"train for more {results.step_name}s" if bad else "",
            _epochs_toml(results, 2) if bad else "",
            ("epochs",),
        )
    ]


def _still_improves(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> bool:
    last = len(values) // 5
    return bool(values[-last:].max() - values[:-last].max() > STILL * np.ptp(values) > 0)


def flat(results: Results, _: Evaluations) -> list[Finding]:
    """Check 11: the best trials are flat long before the end."""
    curves = [values for _, values in _gain_curves(results)]
    if not curves:
        return []
    error = standard_error(results) or 0.0
    reached = [int(np.argmax(v >= v.max() - max(0.01 * np.ptp(v), error))) + 1 for v in curves]
    bad = all(at <= FLAT * len(v) for at, v in zip(reached, curves, strict=True))
    share = max(at / len(v) for at, v in zip(reached, curves, strict=True))
    return [
        Finding(
            "flat",
            "converged early",
            "note" if bad else "ok",
            f"the best {len(curves)} trials reached their final level after at most {percent_text(share)} of their "
            f"{results.step_name}s",
            f"train for fewer {results.step_name}s" if bad else "",
            _epochs_toml(results, share * 1.25) if bad else "",
            ("epochs",),
        )
    ]


def best_epoch(results: Results, _: Evaluations) -> list[Finding]:
    """Check 12: where in training the best epoch lies [P]."""
    shares = [
        place / len(row.epochs)
        for row in list_top_trials(results)
        if len(row.epochs) >= 10 and row.value_from != "returned"
        for place, epoch in enumerate(row.epochs, 1)
        if epoch.get("epoch") == row.best_epoch
    ]
    if not shares:
        return []
    early, late = all(s <= EARLY for s in shares), all(s > LATE for s in shares)
    advice = (
        "train for fewer epochs, or lower the learning rate"
        if early
        else "train for longer, and tune the decay of the learning rate again"
        if late
        else ""
    )
    return [
        Finding(
            "best_epoch",
            "the best epoch",
            "warning" if early else "note" if late else "ok",
            f"the best epochs of the best {len(shares)} trials lie at {percent_text(min(shares))} to "
            f"{percent_text(max(shares))} of training",
            advice,
        )
    ]


def training_loss(results: Results, _: Evaluations) -> list[Finding]:
    """Check 13: the training loss increases."""
    losses = [loss for row in list_top_trials(results) if len(loss := read_curve(row, "train_loss")) >= 2]
    if not losses:
        return []
    up = sum(bool(loss[-1] > loss[0]) for loss in losses)
    return [
        Finding(
            "training_loss",
            "training loss",
            "warning" if up else "ok",
            f"the training loss of {up} of the best {len(losses)} trials ended higher than it began",
            "look for a bug, for example in the loss or the labels" if up else "",
        )
    ]


def periodic(results: Results, _: Evaluations) -> list[Finding]:
    """Check 14: the validation curve is periodic (power spectrum of its second half, detrended)."""
    values = read_value_curve(results, results.best) if results.best else np.array([])
    if len(values) < 16:
        return []
    late = values[len(values) // 4 :]
    at = np.arange(len(late))
    left = late - np.polyval(np.polyfit(at, late, 2), at)
    power = 2 * np.abs(np.fft.rfft(left))[3:] ** 2  # three periods at least, each frequency with its mirror image
    if len(left) % 2 == 0:
        power[-1] /= 2  # the highest one has none
    share = float(power.max() / (len(left) * (left**2).sum())) if (left**2).sum() > 0 else 0.0
    bad = share > PERIODIC and float(np.std(left)) > (standard_error(results) or 0.0) / 2
    return [
        Finding(
            "periodic",
            "periodic validation",
            "warning" if bad else "ok",
            f"one frequency holds {percent_text(share)} of the variance of the best trial's validation curve",
            "check the shuffling, and whether training and validation data overlap" if bad else "",
        )
    ]


def checkpoint(results: Results, _: Evaluations) -> list[Finding]:
    """Check 22: values are of the best epoch, and epochs follow each other."""
    rows = [row for row in results.ranked if row.epochs]
    if not rows:
        return []
    counted = [row for row in rows if row.value_from is None]  # a training loop of one's own may number as it likes
    gaps = sum([e.get("epoch") for e in row.epochs] != list(range(1, len(row.epochs) + 1)) for row in counted)
    other = sum(row.best_epoch is None for row in rows)
    bad = gaps + other > 0
    return [
        Finding(
            "checkpoint",
            "evaluation by epoch",
            "warning" if bad else "ok",
            f"of {len(rows)} trials, {gaps} lack the evaluation of an epoch, and {other} do not record their best epoch"
            if bad
            else "every trial has the evaluations of all its epochs, and records the best one",
            "evaluate every epoch, and keep the best one" if bad else "",
        )
    ]


def clipping(_: Results, __: Evaluations) -> list[Finding]:
    """Check 23."""
    return [
        Finding(
            "clipping",
            "gradient norms",
            "unknown",
            "gradient norms are not recorded, so the share of clipped steps cannot be computed",
        )
    ]


def warm_up(results: Results, _: Evaluations) -> list[Finding]:
    """Check 24: warm-up longer than a twentieth of training [P]."""
    if results.best is None or results.best.config is None:
        return []
    values = results.best.config.effective()
    length = next((name for name in ("warmup_steps", "warmup_epochs") if name in values), "warmup")
    share = _warmup_share(results, results.best.config, float(values.get(length) or 0.0), length)
    if share is None:
        return []
    bad = share > WARM
    return [
        Finding(
            "warm_up",
            "warm-up",
            "note" if bad else "ok",
            f"warm-up takes {percent_text(share)} of the best trial's steps",
            "train for longer" if bad else "",
            parameters=(length,),
        )
    ]


def _warmup_share(results: Results, config: TrialConfig, value: float, length: str) -> float | None:
    """Return the share of all steps that a warm-up takes; None where the number of steps is not known."""
    if length == "warmup" or not value:
        return value
    if length == "warmup_epochs":
        return min(1.0, value / config.epochs)
    if results.data_facts is None:
        return None
    steps = math.ceil(results.data_facts.train / (config.batch_size * config.batches_per_step))
    return min(1.0, value / (steps * config.epochs))


CURVE_CHECKS = (
    stability,
    rising,
    overfitting,
    rough,
    improving,
    flat,
    best_epoch,
    training_loss,
    periodic,
    checkpoint,
    clipping,
    warm_up,
)
