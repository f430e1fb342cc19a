"""Bias of a choice: what the best of many scored on the samples that it was chosen by, less what it is worth.

The best of many is lucky. How lucky, the samples themselves tell: draw them again with replacement, choose again by
those drawn, and score that choice on those left out (BBC-CV: Tsamardinos, Greasidou and Borboudakis, "Bootstrapping the
out-of-sample predictions for efficient and accurate cross-validation", Machine Learning 2018). Among equals that is
without bias. Among unequals it is too low, for a choice by drawn samples has twice the noise, and so is a worse choice
than the one that was made. What that costs is estimated by what doubling the noise once more would cost, from centres
that are drawn together until they spread as much as the noise leaves room for (James and Stein's shrinkage).

The error of that estimate is its own in a nested bootstrap, where the centres are the truth; noise is drawn as normal
there, by the deviations of the first bootstrap, for a draw of a draw would take hours. The percentiles of
the scores on the samples left out are no interval for it: those are a third of the samples, and the choices other ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

__all__ = ["BiasCorrection", "Resamples", "score_interval"]

Array = np.ndarray[Any, Any]
OUTER, INNER = 200, 100  # draws of the nested bootstrap
AT_ONCE = 2**18  # numbers in memory
QUANTILE = 1.959964  # of the normal distribution, at 97.5 %


@dataclass(frozen=True, eq=False)
class Resamples:
    """Scores of K candidates, and of B draws of their samples; larger is better.

    Attributes:
        whole: on all samples, (K,).
        in_bag: on the samples of each draw, (B, K).
        out_of_bag: of each draw, the score of its best candidate on the samples left out, (B,).
    """

    whole: Array
    in_bag: Array
    out_of_bag: Array

    @cached_property
    def winners(self) -> Array:
        """Position of each draw's best candidate, (B,); of equals the first."""
        winners: Array = self.in_bag.argmax(1)
        return winners

    @property
    def deviations(self) -> Array:
        """The difference of each draw from each candidate's score, (B, K)."""
        moved: Array = self.in_bag - self.whole
        return moved

    def correct(self) -> BiasCorrection:
        """Estimate how much the best candidate's score flatters it, and the error of the score less that."""
        centres = _shrink(self.whole, self.deviations)
        noise = math.sqrt(2) * self.deviations
        again = (centres + noise).argmax(1)
        contenders = np.unique(np.concatenate([self.winners, again]))
        best = int(self.whole.argmax())
        deviation = float(self.deviations[:, best].std())
        if len(contenders) == 1:
            return BiasCorrection(0.0, deviation, deviation)
        loss = (centres[(centres + self.deviations).argmax(1)] - centres[again]).mean()
        ratio = _error_ratio(centres[contenders], self.deviations[:, contenders], deviation)
        bias = float(self.whole[best] - self.out_of_bag.mean() - loss)
        return BiasCorrection(max(bias, 0.0), deviation * ratio, deviation)


@dataclass(frozen=True)
class BiasCorrection:
    """Correction of the best candidate's score.

    Attributes:
        bias: by how much its score flatters it, at least 0.
        error: standard error of its score less the bias.
        sample_error: standard error of the score of a candidate that was not chosen.
    """

    bias: float
    error: float
    sample_error: float


def _shrink(whole: Array, deviations: Array) -> Array:
    """Return centres that, with noise, spread as the scores do: scores drawn towards the best; of equals all the same.

    Only the best quarter counts: bad candidates are far apart, whatever the good ones are.
    """
    spread = _spread_of_leaders(whole[None])[0]
    if spread <= 0:
        return np.full_like(whole, whole.max())
    share = max(0.0, 1 - float(_spread_of_leaders(deviations).mean() / spread))
    best = whole.max()
    shrunk: Array = best + math.sqrt(share) * (whole - best)
    return shrunk


def _spread_of_leaders(scores: Array) -> Array:
    """Return the variance of the best quarter of each row's scores, of two at least."""
    kept = max(2, math.ceil(scores.shape[1] / 4))
    spread: Array = np.sort(scores, axis=1)[:, -kept:].var(1)
    return spread


def _error_ratio(centres: Array, deviations: Array, deviation: float) -> float:
    """Return the error of the corrected score where the centres are the truth, in units of one score's deviation."""
    if deviation <= 0 or len(centres) < 2:
        return 1.0
    truth = centres + deviations[:OUTER]
    inner = deviations[-INNER:]
    size, draws, errors = max(1, AT_ONCE // inner.size), np.arange(len(inner)), []
    for begin in range(0, len(truth), size):
        scores = truth[begin : begin + size]
        chosen = (scores[:, None] + inner).argmax(2)
        estimates = (np.take_along_axis(scores, chosen, 1) - inner[draws, chosen]).mean(1)
        errors.append(estimates - centres[scores.argmax(1)])
    return float(np.concatenate(errors).std()) / deviation


def score_interval(score: float, samples: float, bounds: tuple[float, float]) -> tuple[float, float]:
    """Return the 95 % interval (Wilson's) of a score between bounds that is the mean of so many samples.

    It holds for small numbers too, and for scores near a bound, where the normal one leaves its bounds or has no width.
    """
    least, most = bounds
    share = min(max((score - least) / (most - least), 0.0), 1.0)
    square = QUANTILE**2 / samples
    half = QUANTILE * math.sqrt(share * (1 - share) / samples + square / (4 * samples))
    low, high = ((share + square / 2 + sign * half) / (1 + square) for sign in (-1, 1))
    return least + low * (most - least), least + high * (most - least)
