"""Corrected score: that of the best trial, corrected for its being the best of many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from hpo.report.format import count_text, metric_text, percent_text, values_text

__all__ = [
    "BestSoFar",
    "CorrectedScore",
    "corrected_json",
    "describe_choice",
    "describe_corrected",
    "describe_correction",
]


@dataclass(frozen=True)
class BestSoFar:
    """The best of the first trials.

    Attributes:
        trials: how many trials it is the best of.
        chosen: its value.
        corrected: its value, corrected for its having been chosen.
    """

    trials: int
    chosen: float
    corrected: float


@dataclass(frozen=True)
class CorrectedScore:
    """The best trial's corrected score; all in the units of its metric.

    Attributes:
        number: of the best trial.
        metric: by which it was chosen.
        chosen: its value, by which it was chosen.
        corrected: what its model is worth on new samples.
        low, high: 95 % interval of that.
        error: standard error of `corrected`.
        sample_error: standard error of the value of a trial that was not chosen, by the samples alone.
        bias: by how much its value flatters it, at least 0.
        chosen_again: share of the draws of the samples in which it is the best again.
        others: the trials that are the best in the other draws, with their shares, the largest first.
        trials: how many it was chosen from.
        left_out: complete trials without sample scores, which took no part.
        samples: how many it was validated on, each counted once.
        fits: how many times it was trained.
        history: the best of the first quarter, half and three quarters of the trials, and of all.
        difference_errors: standard error of each trial's difference from the best, sample by sample, by its number.
        groups: how many groups the samples are in, which are drawn whole; 0 of samples without groups.
    """

    number: int
    metric: str
    chosen: float
    corrected: float
    low: float
    high: float
    error: float
    sample_error: float
    bias: float
    chosen_again: float
    others: tuple[tuple[int, float], ...]
    trials: int
    left_out: int
    samples: int
    fits: int
    history: tuple[BestSoFar, ...] = ()
    difference_errors: Mapping[int, float] = field(default_factory=dict)
    groups: int = 0


def corrected_json(score: CorrectedScore) -> dict[str, Any]:
    """Return a corrected score for JSON: its attributes without the errors of differences.

    Of each other trial it has `trial` and `share`.
    """
    others = [{"trial": number, "share": share} for number, share in score.others]
    table = {**asdict(score), "others": others, "history": [asdict(each) for each in score.history]}
    del table["difference_errors"]
    return table


def describe_corrected(score: CorrectedScore) -> str:
    """Return the corrected value with its interval."""
    return f"{values_text(score.metric, score.corrected)} {_interval_text(score)}"


def _interval_text(score: CorrectedScore) -> str:
    low, high = values_text(score.metric, score.low).removesuffix(" %"), values_text(score.metric, score.high)
    return f"(95 % interval {low} to {high})"


def describe_correction(score: CorrectedScore, *, said: bool = False) -> str:
    """Describe the corrected score in a sentence that follows the best trial's name.

    Args:
        score: the corrected score.
        said: whether the value, and that it is the best, have just been said.
    """
    name, metric = metric_text(score.metric), score.metric
    chosen, corrected = values_text(metric, score.chosen), values_text(metric, score.corrected)
    interval = _interval_text(score)
    of = f"the best of {count_text(score.trials)}" if score.trials > 1 else "that of its best epoch"
    if said and chosen != corrected:
        choice = f"being the best of {count_text(score.trials)}" if score.trials > 1 else "being its best epoch's"
        return f"{choice.capitalize()} flatters it: corrected for that choice it is {corrected} {interval}."
    if said:
        return f"Corrected for its having been chosen it is the same {interval}."
    if chosen == corrected:
        return f"Its {name} of {chosen} was {of}; corrected for that choice it is the same {interval}."
    return (
        f"Its {name} of {chosen} was {of}, which flatters it: corrected for that choice it is {corrected} {interval}."
    )


def describe_choice(score: CorrectedScore) -> str:
    """Say how often another trial would have been chosen, in a sentence; nothing of a single trial."""
    if score.trials < 2:
        return ""
    if not score.others:
        return "With other validation samples of the same kind it would have been chosen, too."
    others = 1 - score.chosen_again
    share = percent_text(others) if others >= 0.005 else "less than 1 %"
    return (
        f"With other validation samples of the same kind, another trial would have been chosen in {share} of the draws."
    )
