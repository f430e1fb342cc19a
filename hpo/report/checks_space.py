"""Checks of the space: bounds, density, fairness, what was fixed, anti-patterns."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from hpo.config import Value
from hpo.report.evaluations import EvaluationResults
from hpo.report.findings import Finding
from hpo.report.results import Results
from hpo.report.sight import caution, numbers, standard_error, unit
from hpo.report.words import dimension_text
from hpo.space.domains import Choices, Range

__all__ = ["SPACE_CHECKS", "toml_value"]

Evaluations = Sequence[EvaluationResults]
FEWEST = 10  # trials of a parameter below which its good region cannot be told from chance
CHANCE = 0.05  # the usual level of a test
TOP_SHARE = 0.1  # the trials that count as the best ones
WIDEN = 0.5  # of the range's length on its own scale: far enough to see whether the optimum lies beyond
FEW_GOOD = 3  # below this the best trial may be a lucky one
UNFAIR = 3.0  # so many times the trials give a value so many more chances


def toml_value(value: object) -> str:
    """A value as TOML; a table stands on one line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = "".join(f"\\u{ord(c):04x}" if ord(c) < 32 or c in '"\\\x7f' else c for c in value)
        return f'"{escaped}"'
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(k)} = {toml_value(v)}" for k, v in value.items()) + " }" if value else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return repr(value)


def _key(name: str) -> str:
    return name if name and all(c.isascii() and (c.isalnum() or c in "_-") for c in name) else toml_value(name)


def boundary(results: Results, _: Evaluations) -> list[Finding]:
    """Check 1: the best trials crowd a bound."""
    found = []
    for dimension in results.space.varied:
        domain, name = dimension.domain, dimension.parameter.name
        held = numbers(results.ranked, dimension)
        if not isinstance(domain, Range) or len(held) < FEWEST:
            continue
        at = np.array([unit(domain, float(value)) for _, value in held])
        side = _crowded(at)
        if side is None:
            found.append(
                Finding(
                    "boundary",
                    f"bounds of {dimension_text(dimension)}",
                    "ok",
                    f"best at {at[0]:.0%} of the range",
                    parameters=(name,),
                )
            )
            continue
        low, high = _widened(domain, side)
        low, high = _legal(dimension.parameter, low, high, domain)
        bound = domain.high if side == "high" else domain.low
        evidence = (
            f"the best trials of {len(held)} crowd the {side} bound {bound:g} of {dimension_text(dimension)}: the "
            f"best one lies at {at[0]:.0%} of the range{caution(results)}"
        )
        if (low, high) == (domain.low, domain.high):
            found.append(
                Finding(
                    "boundary",
                    f"bounds of {dimension_text(dimension)}",
                    "note",
                    evidence,
                    "the bound is a limit of the parameter: it cannot be widened",
                    parameters=(name,),
                )
            )
            continue
        table = {**domain.to_json(), "low": low, "high": high}
        found.append(
            Finding(
                "boundary",
                f"bounds of {dimension_text(dimension)}",
                "warning",
                evidence,
                f"widen it to {low:g} .. {high:g}",
                f"{_key(name)} = {toml_value(table)}",
                (name,),
            )
        )
    return found


def _crowded(at: np.ndarray[tuple[int], np.dtype[np.float64]]) -> str | None:
    """The side that the best ones crowd; `at` is from the best to the worst."""
    from scipy.stats import mannwhitneyu  # half a second to import

    top, rest = np.split(at, [max(3, math.ceil(TOP_SHARE * len(at)))])
    # Among few trials even the outermost one lies off the bound.
    edge = 0.1 + 1.5 / len(at)
    for side, where, other, best in (("high", top, rest, at[0]), ("low", 1 - top, 1 - rest, 1 - at[0])):
        near = min(float(np.median(where)), float(best)) >= 1 - edge
        if near and mannwhitneyu(where, other, alternative="greater").pvalue < CHANCE:
            return side
    return None


def _widened(domain: Range, side: str) -> tuple[float, float]:
    if domain.log:
        # At least tenfold: a narrow range that lies far off would else need many studies.
        factor = max((domain.high / domain.low) ** WIDEN, 10.0)
        return (domain.low / factor, domain.high) if side == "low" else (domain.low, domain.high * factor)
    length = WIDEN * (domain.high - domain.low)
    if domain.step is not None or isinstance(domain.low, int):
        step = domain.step or 1
        length = step * max(1, math.ceil(length / step))
    return (domain.low - length, domain.high) if side == "low" else (domain.low, domain.high + length)


def _legal(parameter: object, low: float, high: float, domain: Range) -> tuple[float, float]:
    """Bounds of the domain's kind that the parameter allows; a side that is not allowed stays as it was."""
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
    from scipy.stats import kruskal  # half a second to import

    found = []
    for dimension in results.space.varied:
        held = numbers(results.ranked, dimension)
        groups: dict[object, list[float]] = {}
        for row, value in held:
            key = (
                min(2, int(3 * unit(dimension.domain, float(value)))) if isinstance(dimension.domain, Range) else value
            )
            groups.setdefault(key, []).append(row.value or 0.0)
        if len(held) < 2 * FEWEST or len(groups) < 2 or len({v for g in groups.values() for v in g}) < 2:
            continue
        p = float(kruskal(*groups.values()).pvalue)
        shown = p < CHANCE
        evidence = (
            f"{dimension_text(dimension)}: the objective {'differs' if shown else 'does not visibly differ'} over "
            f"its values in {len(held)} trials (p = {p:.2g}){caution(results)}"
        )
        advice = "" if shown else "it could be fixed, to spend the trials on what matters"
        found.append(
            Finding(
                "axis",
                f"effect of {dimension_text(dimension)}",
                "ok" if shown else "note",
                evidence,
                advice,
                parameters=(dimension.parameter.name,),
            )
        )
    return found


def density(results: Results, _: Evaluations) -> list[Finding]:
    """Check 3: how many trials lie in the good region."""
    values = [row.value or 0.0 for row in results.ranked]
    if len(values) < FEWEST:
        return []
    # A tenth of the way to the median, and never less than what the validation set can tell apart.
    reach = max(TOP_SHARE * abs(float(np.median(values)) - values[0]), standard_error(results) or 0.0)
    good = sum(abs(value - values[0]) <= reach for value in values)
    evidence = f"{good} of {len(values)} trials lie within {reach:.3g} of the best{caution(results)}"
    few = good < FEW_GOOD
    return [
        Finding(
            "density",
            "trials in the good region",
            "warning" if few else "ok",
            evidence,
            "run more trials, or narrow the space around the best one" if few else "",
        )
    ]


def isolation(results: Results, _: Evaluations) -> list[Finding]:
    """Check 15: the best trial per choice, the others free."""
    found, error = [], standard_error(results) or 0.0
    for dimension in results.space.varied:
        held = numbers(results.ranked, dimension)
        if not isinstance(dimension.domain, Choices) or len(held) < FEWEST:
            continue
        groups: dict[Value, list[float]] = {}
        for row, value in held:
            groups.setdefault(value, []).append(row.value or 0.0)
        first = next(iter(groups))
        worse = [v for v in groups if v != first and _beaten(groups[first], groups[v], error)]
        told = ", ".join(f"{v}: {g[0]:.4g} of {len(g)}" for v, g in groups.items())
        kept = [v for v in dimension.domain.values if v not in worse]
        table = {**dimension.domain.to_json(), "choices": kept}
        found.append(
            Finding(
                "isolation",
                f"best per {dimension_text(dimension)}",
                "note" if worse else "ok",
                f"best trial by value ({told}){caution(results)}",
                f"drop {', '.join(map(str, worse))}" if worse else "",
                f"{_key(dimension.parameter.name)} = {toml_value(table)}" if worse else "",
                (dimension.parameter.name,),
            )
        )
    return found


def _beaten(best: list[float], other: list[float], error: float) -> bool:
    """Whether a value had its chances, and its best and its trials are worse beyond noise."""
    from scipy.stats import mannwhitneyu  # half a second to import

    if min(len(best), len(other)) < 5 or abs(best[0] - other[0]) <= 2 * math.sqrt(2) * error:
        return False
    return bool(mannwhitneyu(best, other).pvalue < 0.01)  # strict: what is dropped is not looked at again


def fairness(results: Results, _: Evaluations) -> list[Finding]:
    """Check 16: each compared value had as many trials."""
    found = []
    for dimension in results.space.varied:
        if not isinstance(dimension.domain, Choices):
            continue
        counts = Counter(
            value
            for _, value in numbers([r for r in results.trials if r.state not in ("WAITING", "RUNNING")], dimension)
        )
        if sum(counts.values()) < FEWEST:
            continue
        each = [counts[value] for value in dimension.domain.values]
        unfair = max(each) > UNFAIR * min(each)
        told = ", ".join(f"{value}: {counts[value]}" for value in dimension.domain.values)
        found.append(
            Finding(
                "fairness",
                f"trials per {dimension_text(dimension)}",
                "note" if unfair else "ok",
                f"trials by value ({told})",
                "compare these values in a random or quasi-random study" if unfair else "",
                parameters=(dimension.parameter.name,),
            )
        )
    return found


def fixed(results: Results, _: Evaluations) -> list[Finding]:
    """Check 17: what was fixed is a caveat."""
    names = sorted({d.parameter.name for d in results.space.dimensions} - set(results.varied))
    told = ", ".join(names) if names else "nothing but defaults"
    missing = "learning_rate" not in results.varied
    evidence = f"fixed: {told}; {'learning_rate is fixed too' if missing else 'learning_rate is varied'}"
    advice = "conclusions hold for this learning rate alone: vary it, for most others depend on it" if missing else ""
    return [Finding("fixed", "what was fixed", "note" if missing else "ok", evidence, advice)]


def conditional(results: Results, _: Evaluations) -> list[Finding]:
    """Check 18: the learning rates of different optimizers are not one parameter."""
    rates = [d for d in results.space.varied if d.parameter.name == "learning_rate"]
    if "optimizer" not in results.varied or not rates:
        return [
            Finding(
                "conditional", "parameters of the same name", "ok", "no learning rate is shared by several optimizers"
            )
        ]
    shared = any("optimizer" not in d.domain.condition.tests for d in rates)
    return [
        Finding(
            "conditional",
            "parameters of the same name",
            "note" if shared else "ok",
            f"{len(rates)} learning-rate domain(s) for several optimizers",
            "give every optimizer its own range, with when = { optimizer = … }" if shared else "",
            parameters=("learning_rate",),
        )
    ]


def patterns(results: Results, _: Evaluations) -> list[Finding]:
    """Check 19: anti-patterns."""
    names = set(results.varied)
    found = []
    if "epochs" in names and results.definition.sampler.name != "grid":
        found.append(
            Finding(
                "patterns",
                "epochs tuned",
                "warning",
                "epochs is varied outside a grid: longer mostly wins",
                "fix epochs; let a pruner stop what is bad",
                parameters=("epochs",),
            )
        )
    if "batch_size" in names and "learning_rate" not in names:
        found.append(
            Finding(
                "patterns",
                "batch size alone",
                "warning",
                "batch_size is varied while learning_rate is fixed",
                "vary learning_rate with it",
                parameters=("batch_size",),
            )
        )
    return found or [
        Finding("patterns", "anti-patterns", "ok", "neither epochs outside a grid nor batch_size alone is tuned")
    ]


def adam(results: Results, _: Evaluations) -> list[Finding]:
    """Check 25: how many parameters of Adam the budget carries [P]."""
    count = sum(row.config is not None and row.config.optimizer.startswith(("adam", "nadam")) for row in results.trials)
    too_many = [n for n, least in (("beta1", 10), ("epsilon", 25)) if n in results.varied and count < least]
    if not count:
        return []
    return [
        Finding(
            "adam",
            "parameters of Adam",
            "note" if too_many else "ok",
            f"{count} trials with Adam; varied beyond what they carry: {', '.join(too_many) or 'nothing'}",
            f"fix {', '.join(too_many)}, or run more trials" if too_many else "",
            parameters=tuple(too_many),
        )
    ]


SPACE_CHECKS = (boundary, axis, density, isolation, fairness, fixed, conditional, patterns, adam)
