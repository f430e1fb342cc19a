"""Axes over the values of a parameter."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hpo.config.parameter import Value
from hpo.errors import SpaceError
from hpo.report.figures.plotly_spec import FEW
from hpo.space.domains import Domain, Range

__all__ = ["choose_round_ticks", "list_named_values", "round_float"]


def round_float(value: Value | None) -> Value | None:
    """Round a value so that equals are found: samplers give 0.30000000000000004 where the domain has 0.3."""
    return round(value, 12) if isinstance(value, float) else value


def list_named_values(domains: Sequence[Domain], values: Sequence[Value]) -> list[Value] | None:
    """List every value where each is named on the axis: of choices, or of few steps; else None.

    Args:
        domains: the parameter's alternatives.
        values: what trials have; others may have added some that no domain holds.
    """
    points_by_domain = [_points(domain) for domain in domains]
    if any(points is None for points in points_by_domain):
        return None
    listed = [value for points in points_by_domain for value in points or ()]
    distinct = list(dict.fromkeys(v for value in [*listed, *values] if (v := round_float(value)) is not None))
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in distinct)
    return sorted(distinct, key=float) if numeric else distinct


def _points(domain: Domain) -> Sequence[Value] | None:
    """Return a domain's values where they are few or have no order."""
    try:
        points = domain.points()
    except SpaceError:
        return None
    return None if isinstance(domain, Range) and len(points) > FEW else points


def choose_round_ticks(low: float, high: float) -> list[float]:
    """Round numbers from `low` to `high` for a logarithmic axis: 1, 2, 5 within two decades, else powers of ten.

    Both bounds are above 0.
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    wide = math.log10(high / low) > 2
    ticks = [float(f"{digit}e{decade}") for decade in decades for digit in ((1,) if wide else (1, 2, 5))]
    inside = [tick for tick in ticks if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
    return inside if len(inside) >= 2 else [low, high]
