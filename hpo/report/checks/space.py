"""Checks of the space: bounds, density, fairness, fixed parameters, anti-patterns."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from hpo.config.choices import OPTIMIZERS
from hpo.config.parameter import Value
from hpo.report.checks.finding import Finding, Level
from hpo.report.data.evaluations import EvaluationResults
from hpo.report.data.results import Results, TrialRow
from hpo.report.format import dimension_text, percent_text, value_text
from hpo.report.stats.trial_stats import (
    adaptive_caveat,
    difference_error,
    standard_error,
    to_unit_interval,
    trials_with_value,
)
from hpo.space import Dimension
from hpo.space.domains import Choices, Range
from hpo.utils.text import format_rough
from hpo.utils.toml import toml_key, toml_value

__all__ = ["SPACE_CHECKS"]

Evaluations = Sequence[EvaluationResults]
Places = np.ndarray[tuple[int], np.dtype[np.float64]]  # on a parameter's own scale, 0 to 1, the best trial's first
FEWEST = 10  # trials of a parameter below which its good region cannot be told from chance
CHANCE = 0.05  # the usual level of a test
TOP_SHARE = 0.1  # the trials that count as the best ones
WIDEN = 0.5  # of the range's length on its own scale: far enough to see whether the optimum lies beyond
ROOM = 0.15  # of the range's length, on each side of the best trials
NARROWER = 0.7  # a range that would keep more of its length is not worth narrowing
FEW_GOOD = 3  # below this the best trial may be a lucky one
INFEASIBLE = 0.2  # a fifth of the budget lost
UNFAIR = 3.0  # so many times the trials give a value so many more chances


def boundary(results: Results, _: Evaluations) -> list[Finding]:
    """Check 1: the best trials crowd a bound."""
    findings = []
    for dimension in results.space.varied:
        trials = trials_with_value(results.ranked, dimension)
        if isinstance(dimension.domain, Range) and len(trials) >= FEWEST:
            at = np.array([to_unit_interval(dimension.domain, float(value)) for _, value in trials])
            findings.append(_bound_finding(dimension, dimension.domain, at, adaptive_caveat(results)))
    return findings


def _bound_finding(dimension: Dimension, domain: Range, at: Places, warning: str) -> Finding:
    name, side, text = dimension.parameter.name, _find_crowded_side(at), dimension_text(dimension)
    title = f"bounds of {text}"
    if side is None:
        return Finding(
            "boundary", title, "ok", f"the best trial lies at {percent_text(at[0])} of the range", parameters=(name,)
        )
    bound = domain.high if side == "high" else domain.low
    evidence = (
        f"the best of {len(at)} trials crowd the {side} bound {bound:g} of {text}: the best one lies at "
        f"{percent_text(at[0])} of the range{warning}"
    )
    low, high = _clamp_bounds(dimension.parameter, *_widen(domain, side), domain)
    if (low, high) == (domain.low, domain.high):
        advice = "this bound is the limit of the parameter itself and cannot be widened"
        return Finding("boundary", title, "note", evidence, advice, parameters=(name,))
    toml = f"{toml_key(name)} = {toml_value({**domain.to_json(), 'low': low, 'high': high})}"
    return Finding(
        "boundary", title, "warning", evidence, f"widen the range of {text} to {low:g} .. {high:g}", toml, (name,)
    )


def _find_crowded_side(at: Places) -> str | None:
    """Return the side that the best ones crowd; `at` is from the best to the worst."""
    from scipy.stats import mannwhitneyu  # half a second to import

    top, rest = np.split(at, [max(3, math.ceil(TOP_SHARE * len(at)))])
    # Among few trials even the outermost one lies off the bound.
    edge = 0.1 + 1.5 / len(at)
    for side, where, other, best in (("high", top, rest, at[0]), ("low", 1 - top, 1 - rest, 1 - at[0])):
        near = min(float(np.median(where)), float(best)) >= 1 - edge
        if near and mannwhitneyu(where, other, alternative="greater").pvalue < CHANCE:
            return side
    return None


def _widen(domain: Range, side: str) -> tuple[float, float]:
    if domain.log:
        # At least tenfold: a narrow range that lies far off would else need many studies.
        factor = max((domain.high / domain.low) ** WIDEN, 10.0)
        return (domain.low / factor, domain.high) if side == "low" else (domain.low, domain.high * factor)
    length = WIDEN * (domain.high - domain.low)
    if domain.step is not None or isinstance(domain.low, int):
        step = domain.step or 1
        length = step * max(1, math.ceil(length / step))
    return (domain.low - length, domain.high) if side == "low" else (domain.low, domain.high + length)


def _clamp_bounds(parameter: object, low: float, high: float, domain: Range) -> tuple[float, float]:
    """Return bounds of the domain's kind that the parameter allows; a side that is not allowed stays as it was."""
    whole = isinstance(domain.distribution().to_external_repr(domain.low), int)
    low, high = (round(low), round(high)) if whole else (float(f"{low:.6g}"), float(f"{high:.6g}"))
    floor, ceiling = getattr(parameter, "low", None), getattr(parameter, "high", None)
    floor_open, ceiling_open = getattr(parameter, "low_open", False), getattr(parameter, "high_open", False)
    if floor is not None and (low < floor or (floor_open and low == floor)):
        low = domain.low if floor_open or domain.step else max(floor, low)
    if domain.log and low <= 0:
        low = domain.low
    if ceiling is not None and (high > ceiling or (ceiling_open and high == ceiling)):
        high = domain.high if ceiling_open or domain.step else min(ceiling, high)
    low, high = (round(low), round(high)) if whole else (low, high)
    return min(low, domain.low), max(high, domain.high)


def axis(results: Results, _: Evaluations) -> list[Finding]:
    """Check 2: which varied parameters show no effect by themselves (Kruskal-Wallis over values or thirds)."""
    tested = [(d, _effect_p_value(trials_with_value(results.ranked, d), d)) for d in results.space.varied]
    visible = [(d, p) for d, p in tested if p is not None and p < CHANCE]
    hidden = [(d, p) for d, p in tested if p is not None and p >= CHANCE]
    findings, caveat = [], adaptive_caveat(results)
    if hidden:
        evidence = f"the objective does not differ significantly over the values of {_p_values_text(hidden)}{caveat}"
        advice = "consider fixing these parameters, to spend the trials on what matters"
        findings.append(Finding("axis", "no visible effect", "note", evidence, advice, parameters=_names(hidden)))
    if visible:
        evidence = f"the objective differs significantly over the values of {_p_values_text(visible)}{caveat}"
        findings.append(Finding("axis", "visible effect", "ok", evidence, parameters=_names(visible)))
    return findings


def _effect_p_value(trials: Sequence[tuple[TrialRow, Value]], dimension: Dimension) -> float | None:
    """Return the chance that values without any effect differ as much; None of too few trials."""
    from scipy.stats import kruskal  # half a second to import

    domain, groups = dimension.domain, defaultdict(list)
    for row, value in trials:
        key = min(2, int(3 * to_unit_interval(domain, float(value)))) if isinstance(domain, Range) else value
        groups[key].append(row.value or 0.0)
    if len(trials) < 2 * FEWEST or len(groups) < 2 or len({v for group in groups.values() for v in group}) < 2:
        return None
    return float(kruskal(*groups.values()).pvalue)


def _p_values_text(tested: Sequence[tuple[Dimension, float]]) -> str:
    return ", ".join(f"{dimension_text(dimension)} (p = {p:.2g})" for dimension, p in tested)


def _names(tested: Sequence[tuple[Dimension, object]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(dimension.parameter.name for dimension, _ in tested))


def density(results: Results, _: Evaluations) -> list[Finding]:
    """Check 3: how many trials lie in the good region."""
    values = [row.value or 0.0 for row in results.ranked]
    if len(values) < FEWEST:
        return []
    # A tenth of the way to the median, and never less than what the validation set can tell apart.
    reach = max(TOP_SHARE * abs(float(np.median(values)) - values[0]), difference_error(results) or 0.0)
    good = sum(abs(value - values[0]) <= reach for value in values)
    title, few = "trials in the good region", good < FEW_GOOD
    near = f"within {format_rough(reach, 3)} of the best value{adaptive_caveat(results)}"
    evidence = f"{good} of {len(values)} trials {'lies' if good == 1 else 'lie'} {near}"
    if not few:
        return [Finding("density", title, "ok", evidence)]
    narrow = _narrow_ranges(results)
    lines = [f"{toml_key(name)} = {toml_value(table)}" for name, table in narrow.items()]
    advice = "run more trials, or narrow the space around the best one"
    return [Finding("density", title, "warning", evidence, advice, "\n".join(lines), tuple(narrow))]


def _narrow_ranges(results: Results) -> dict[str, dict[str, Any]]:
    """Return narrower ranges around the best trials, by parameter, where they leave out much of the range.

    A parameter of several domains is left as it is: few trials have each of them.
    """
    names = Counter(dimension.parameter.name for dimension in results.space.dimensions)
    narrow = {}
    for dimension in results.space.varied:
        domain, trials = dimension.domain, trials_with_value(results.ranked, dimension)
        if not isinstance(domain, Range) or names[dimension.parameter.name] > 1 or len(trials) < FEWEST:
            continue
        best = [
            to_unit_interval(domain, float(value)) for _, value in trials[: max(3, math.ceil(TOP_SHARE * len(trials)))]
        ]
        left, right = max(0.0, min(best) - ROOM), min(1.0, max(best) + ROOM)
        if right - left <= NARROWER and domain.step is None and not isinstance(domain.low, int):
            low, high = (float(f"{_from_unit_interval(domain, place):.6g}") for place in (left, right))
            bounds = {"low": max(low, domain.low), "high": min(high, domain.high)}
            narrow[dimension.parameter.name] = {**domain.to_json(), **bounds}
    return narrow


def _from_unit_interval(domain: Range, place: float) -> float:
    """Return the value at a place between the bounds; the inverse of `to_unit_interval`."""
    if domain.log:
        return float(domain.low * (domain.high / domain.low) ** place)
    return float(domain.low + (domain.high - domain.low) * place)


def infeasible(results: Results, _: Evaluations) -> list[Finding]:
    """Check 5: the share of trials that diverged or failed."""
    ended = [row for row in results.trials if row.state in ("COMPLETE", "PRUNED", "FAIL") and row.feasible]
    if not ended:
        return []
    lost = [row for row in ended if row.failure is not None or row.state == "FAIL"]
    evidence = (
        f"{len(lost)} of {len(ended)} finished trials diverged or failed ({percent_text(len(lost) / len(ended))})"
    )
    if len(lost) < INFEASIBLE * len(ended):
        return [Finding("infeasible", "diverged or failed trials", "ok", evidence)]
    cut = _find_cut(results, lost)
    if cut is None:
        advice = (
            "shrink the space where they fail, or look for a bug: no bound of a single parameter separates them from "
            "the rest"
        )
        return [Finding("infeasible", "diverged or failed trials", "warning", evidence, advice)]
    count, dimension, side, bound = cut
    name = dimension.parameter.name
    evidence += f", {count} of them {'above' if side == 'high' else 'below'} the whole better half in {name}"
    change = "lower the upper" if side == "high" else "raise the lower"
    advice = f"{change} bound of {dimension_text(dimension)} to {bound:.6g}"
    toml = f"{toml_key(name)} = {toml_value({**dimension.domain.to_json(), side: bound})}"
    return [Finding("infeasible", "diverged or failed trials", "warning", evidence, advice, toml, (name,))]


def _find_cut(results: Results, lost: Sequence[TrialRow]) -> tuple[int, Dimension, str, float] | None:
    """Find the bound that excludes most of the lost trials, and keeps the better half of the others.

    Returns:
        How many lie outside, of what, on which side, and the bound; None where that are not most of the lost.
    """
    cuts: list[tuple[int, Dimension, str, float]] = []
    for dimension in results.space.varied:
        values = [value for _, value in trials_with_value(results.ranked, dimension)]
        if not isinstance(dimension.domain, Range) or len(values) < FEWEST:
            continue
        better = [float(value) for value in values[: len(values) // 2]]
        failed = [float(value) for _, value in trials_with_value(lost, dimension)]
        for side, bound, out in (
            ("high", max(better), [value for value in failed if value > max(better)]),
            ("low", min(better), [value for value in failed if value < min(better)]),
        ):
            whole = dimension.domain.step is not None or isinstance(dimension.domain.low, int)
            cuts.append((len(out), dimension, side, type(dimension.domain.low)(bound) if whole else bound))
    best = max(cuts, key=lambda cut: cut[0], default=None)
    return best if best is not None and 2 * best[0] > len(lost) else None


def isolation(results: Results, _: Evaluations) -> list[Finding]:
    """Check 15: the best trial per choice, the others free."""
    error, findings = standard_error(results) or 0.0, []
    for dimension in results.space.varied:
        trials = trials_with_value(results.ranked, dimension)
        if isinstance(dimension.domain, Choices) and len(trials) >= FEWEST:
            findings.append(_choices_finding(dimension, dimension.domain, trials, error, adaptive_caveat(results)))
    return findings


def _choices_finding(
    dimension: Dimension, domain: Choices, trials: Sequence[tuple[TrialRow, Value]], error: float, warning: str
) -> Finding:
    groups: dict[Value, list[float]] = {}
    for row, value in trials:
        groups.setdefault(value, []).append(row.value or 0.0)
    first, name = next(iter(groups)), dimension.parameter.name
    worse = [value for value in groups if value != first and _is_clearly_worse(groups[first], groups[value], error)]
    text = ", ".join(f"{value_text(value)} {scores[0]:.4g} ({len(scores)} trials)" for value, scores in groups.items())
    title, evidence = f"best trial by {dimension_text(dimension)}", f"the best trial by value: {text}{warning}"
    if not worse:
        return Finding("isolation", title, "ok", evidence, parameters=(name,))
    kept = [value for value in domain.values if value not in worse]
    table = dimension.parameter.spell({**domain.to_json(), "choices": kept})
    advice = f"drop {', '.join(map(value_text, worse))} from {dimension_text(dimension)}"
    return Finding("isolation", title, "note", evidence, advice, f"{toml_key(name)} = {toml_value(table)}", (name,))


def _is_clearly_worse(best: list[float], other: list[float], error: float) -> bool:
    """Return whether a value had its chances, and its best and its trials are worse beyond noise."""
    from scipy.stats import mannwhitneyu  # half a second to import

    if min(len(best), len(other)) < 5 or abs(best[0] - other[0]) <= 2 * math.sqrt(2) * error:
        return False
    side = "greater" if best[0] > other[0] else "less"  # trials that are better beside a lucky best are no reason
    return bool(mannwhitneyu(best, other, alternative=side).pvalue < 0.01)  # what is dropped is not looked at again


def fairness(results: Results, _: Evaluations) -> list[Finding]:
    """Check 16: each compared value had as many trials."""
    begun = [row for row in results.trials if row.state not in ("WAITING", "PAUSED", "RUNNING")]
    counts_by_value = []
    for dimension in results.space.varied:
        if isinstance(dimension.domain, Choices):
            counts = Counter(value for _, value in trials_with_value(begun, dimension))
            if sum(counts.values()) >= FEWEST:
                counts_by_value.append((dimension, [(value, counts[value]) for value in dimension.domain.values]))
    unfair = [(d, each) for d, each in counts_by_value if max(n for _, n in each) > UNFAIR * min(n for _, n in each)]
    fair = [(d, each) for d, each in counts_by_value if (d, each) not in unfair]
    findings = []
    if unfair:
        advice = "compare these values in a random or quasi-random study"
        findings.append(_counts_finding("unbalanced trials per value", "note", unfair, advice))
    if fair:
        findings.append(_counts_finding("balanced trials per value", "ok", fair))
    return findings


def _counts_finding(
    title: str, level: Level, counts_by_value: Sequence[tuple[Dimension, list[tuple[Value, int]]]], advice: str = ""
) -> Finding:
    texts = (
        f"{dimension_text(dimension)} ({', '.join(f'{value_text(value)} {count}' for value, count in each)})"
        for dimension, each in counts_by_value
    )
    return Finding(
        "fairness", title, level, f"trials per value of {', '.join(texts)}", advice, "", _names(counts_by_value)
    )


def fixed(results: Results, _: Evaluations) -> list[Finding]:
    """Check 17: what was fixed is a caveat."""
    names = sorted({d.parameter.name for d in results.space.dimensions} - set(results.varied))
    text = ", ".join(names) if names else "nothing"
    missing = "learning_rate" not in results.varied
    evidence = f"fixed: {text}; learning_rate is {'not varied' if missing else 'varied'}"
    advice = (
        "vary learning_rate: the best values of most parameters depend on it, so conclusions hold for this one alone"
        if missing
        else ""
    )
    return [Finding("fixed", "fixed parameters", "note" if missing else "ok", evidence, advice)]


def conditional(results: Results, _: Evaluations) -> list[Finding]:
    """Check 18: the learning rates of different optimizers are not one parameter."""
    rates = [d for d in results.space.varied if d.parameter.name == "learning_rate"]
    if "optimizer" not in results.varied or not rates:
        return [
            Finding(
                "conditional", "learning rate by optimizer", "ok", "no learning rate is shared by several optimizers"
            )
        ]
    shared = any("optimizer" not in d.domain.condition.tests for d in rates)
    return [
        Finding(
            "conditional",
            "learning rate by optimizer",
            "note" if shared else "ok",
            "several optimizers share a range of learning_rate"
            if shared
            else "each optimizer has its own range of learning_rate",
            "give every optimizer its own range, with when = { optimizer = … }" if shared else "",
            parameters=("learning_rate",),
        )
    ]


def patterns(results: Results, _: Evaluations) -> list[Finding]:
    """Check 19: anti-patterns."""
    names = set(results.varied)
    findings = []
    if "epochs" in names and results.definition.sampler.name != "grid":
        findings.append(
            Finding(
                "patterns",
                "epochs tuned",
                "warning",
                "the study varies epochs outside a grid, where longer training mostly wins",
                "fix epochs, and let a pruner stop the bad trials",
                parameters=("epochs",),
            )
        )
    if "batch_size" in names and "learning_rate" not in names:
        findings.append(
            Finding(
                "patterns",
                "batch size alone",
                "warning",
                "the study varies batch_size while learning_rate is fixed",
                "vary learning_rate together with batch_size",
                parameters=("batch_size",),
            )
        )
    return findings or [
        Finding("patterns", "anti-patterns", "ok", "the study tunes neither epochs outside a grid nor batch_size alone")
    ]


def adam(results: Results, _: Evaluations) -> list[Finding]:
    """Check 25: how many parameters of Adam the budget carries [P]."""
    count = sum(row.config is not None and OPTIMIZERS[row.config.optimizer].takes("beta1") for row in results.trials)
    too_many = [n for n, least in (("beta1", 10), ("epsilon", 25)) if n in results.varied and count < least]
    if not count:
        return []
    return [
        Finding(
            "adam",
            "parameters of Adam",
            "note" if too_many else "ok",
            f"{count} trials with Adam are too few to tune {' and '.join(too_many)}"
            if too_many
            else f"{count} trials with Adam are enough for those of its parameters that are varied",
            f"fix {' and '.join(too_many)}, or run more trials" if too_many else "",
            parameters=tuple(too_many),
        )
    ]


SPACE_CHECKS = (boundary, axis, density, infeasible, isolation, fairness, fixed, conditional, patterns, adam)
