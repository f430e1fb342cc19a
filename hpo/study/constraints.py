"""Constraints: bounds of a trial's metrics, beyond which it is no candidate for the best."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from hpo.config import registry
from hpo.errors import DefinitionError, unknown

__all__ = ["INFEASIBLE", "Constraint", "compute_violations", "read_constraints"]

INFEASIBLE = "infeasible"  # the kind of failure of trials that violate a constraint
FORM = re.compile(r"\s*(?P<metric>\w+)\s*(?P<side><=|>=)\s*(?P<bound>[-+.\deE_]+)\s*")
# Optuna's own samplers read them of PRUNED trials (tpe), or choose among the feasible ones alone (nsga2).
SAMPLERS = ("tpe", "nsga2", "random", "qmc", "grid")


class Constraint(BaseModel):
    """A bound of a metric.

    Attributes:
        metric: any that trials have.
        at_most: whether it is to be at most `bound`, else at least.
        bound: in the metric's unit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str
    at_most: bool
    bound: float

    @property
    def text(self) -> str:
        """As a study file has it; also its name in Optuna."""
        return f"{self.metric} {'<=' if self.at_most else '>='} {self.bound:.15g}"

    def violation(self, value: float) -> float:
        """By how much a value is beyond the bound; at most 0 where it is not."""
        return value - self.bound if self.at_most else self.bound - value


def compute_violations(constraints: tuple[Constraint, ...], known: Mapping[str, float]) -> dict[str, float]:
    """By how much metrics violate constraints, by their texts; of those whose metric is known and finite."""
    held = {each.text: each.violation(known.get(each.metric, math.nan)) for each in constraints}
    return {text: value for text, value in held.items() if math.isfinite(value)}


def read_constraints(given: object, sampler: str) -> tuple[Constraint, ...]:
    """What the key `constraints` of a study file says: `["parameter_count <= 100000"]`.

    Raises:
        DefinitionError: with the constraint that is wrong; or the sampler does not learn from any.
    """
    if not isinstance(given, list | tuple) or not all(isinstance(text, str) for text in given):
        raise DefinitionError(f'constraints = {given!r}: must be a list of texts, as ["parameter_count <= 100000"]')
    if given and sampler not in SAMPLERS:
        raise DefinitionError(f"constraints: sampler '{sampler}' does not learn from them; use tpe or nsga2")
    return tuple(_constraint(text) for text in given)


def _constraint(text: str) -> Constraint:
    found = FORM.fullmatch(text)
    try:
        bound = float(found["bound"]) if found else math.nan
    except ValueError:
        bound = math.nan
    if found is None or not math.isfinite(bound):
        raise DefinitionError(f"constraints: {text!r}: write METRIC <= NUMBER or METRIC >= NUMBER")
    if found["metric"] not in registry.metrics.names():
        raise DefinitionError(f"constraints: {text!r}: {unknown('metric', found['metric'], registry.metrics.names())}")
    return Constraint(metric=found["metric"], at_most=found["side"] == "<=", bound=bound)
