"""Constraints: bounds of metrics that a trial must keep to be a candidate for the best."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from hpo.config import registry
from hpo.errors import DefinitionError, describe_unknown

__all__ = ["INFEASIBLE", "Constraint", "compute_violations", "read_constraints"]

INFEASIBLE = "infeasible"  # the kind of failure of trials that violate a constraint
FORM = re.compile(r"\s*(?P<metric>\w+)\s*(?P<side><=|>=)\s*(?P<bound>[-+.\deE_]+)\s*")
# Optuna's own samplers read them of PRUNED trials (tpe), or choose among the feasible ones alone (nsga2).
SAMPLERS = ("tpe", "nsga2", "random", "qmc", "grid")


class Constraint(BaseModel):
    """Bound of a metric.

    Attributes:
        metric: any metric that trials have.
        at_most: whether the metric must be at most `bound`; otherwise at least.
        bound: in the metric's unit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str
    at_most: bool
    bound: float

    @property
    def text(self) -> str:
        """The constraint as a study file has it; also its name in Optuna."""
        return f"{self.metric} {'<=' if self.at_most else '>='} {self.bound:.15g}"

    def violation(self, value: float) -> float:
        """Return by how much a value is beyond the bound; 0 or less if it is not."""
        return value - self.bound if self.at_most else self.bound - value


def compute_violations(constraints: tuple[Constraint, ...], metrics: Mapping[str, float]) -> dict[str, float]:
    """Return by how much metrics violate constraints, by the constraints' texts.

    Constraints whose metric is missing or not finite are left out.
    """
    violations = {each.text: each.violation(metrics.get(each.metric, math.nan)) for each in constraints}
    return {text: value for text, value in violations.items() if math.isfinite(value)}


def read_constraints(texts: object, sampler: str) -> tuple[Constraint, ...]:
    """Read the key `constraints` of a study file: `["parameter_count <= 100000"]`.

    Raises:
        DefinitionError: a constraint is wrong, which the message names; or the sampler does not learn from constraints.
    """
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str | Constraint) for text in texts):
        raise DefinitionError(f'constraints = {texts!r}: must be a list of texts, as ["parameter_count <= 100000"]')
    if texts and sampler not in SAMPLERS:
        raise DefinitionError(f"constraints: sampler '{sampler}' does not learn from them; use tpe or nsga2")
    return tuple(text if isinstance(text, Constraint) else _parse_constraint(text) for text in texts)


def _parse_constraint(text: str) -> Constraint:
    match = FORM.fullmatch(text)
    try:
        bound = float(match["bound"]) if match else math.nan
    except ValueError:
        bound = math.nan
    if match is None or not math.isfinite(bound):
        raise DefinitionError(f"constraints: {text!r}: write METRIC <= NUMBER or METRIC >= NUMBER")
    if match["metric"] not in registry.metrics.names():
        raise DefinitionError(
            f"constraints: {text!r}: {describe_unknown('metric', match['metric'], registry.metrics.names())}"
        )
    return Constraint(metric=match["metric"], at_most=match["side"] == "<=", bound=bound)
