"""A study's definition and budget: what is stored in the study, so that a worker needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from hpo.config import registry
from hpo.config.trial_config import TrialConfig, Value
from hpo.datasets import DatasetReference
from hpo.space import Constant, Space
from hpo.study.constraints import Constraint
from hpo.study.samplers import SAMPLERS

__all__ = [
    "Budget",
    "Candidate",
    "ComponentSpec",
    "Definition",
    "Evaluation",
    "Expectation",
    "Objective",
    "ReportTable",
    "WarmFrom",
    "constant_parameters",
    "longest_epochs",
    "test_metric",
]

VERSION = 1


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Objective(_Frozen):
    """A metric and the direction that is better."""

    metric: str
    direction: registry.Direction


class ComponentSpec(_Frozen):
    """A sampler or a pruner: its name and its options."""

    name: str
    options: dict[str, Any] = {}


class Budget(_Frozen):
    """How much of a study is to be run. Not part of its definition: it can be extended.

    Attributes:
        trials: slots in all.
        timeout: seconds after a launch in which trials are begun, or None.
        target: value of the objective that ends the study, or None.
    """

    trials: int
    timeout: float | None = None
    target: float | None = None

    def merge(self, other: Budget) -> Budget:
        """The larger number of trials, and the other's timeout and target where it has them."""
        return Budget(
            trials=max(self.trials, other.trials),
            timeout=self.timeout if other.timeout is None else other.timeout,
            target=self.target if other.target is None else other.target,
        )


class Candidate(_Frozen):
    """A configuration that an evaluation trains again.

    Attributes:
        label: what it is called: `trial 12`, `baseline`, `defaults`.
        trial: its number in the study that is evaluated; None of the default configuration.
        baseline: whether it is the rival: the study's baseline, or without one the default configuration.
        values: its parameters that have an effect, but for the seeds.
    """

    label: str
    trial: int | None
    baseline: bool
    values: dict[str, Value]


class Evaluation(_Frozen):
    """What makes a study an evaluation: a grid of the parameters `seed` and `configuration`, the latter a label.

    Attributes:
        of: the name of the study that is evaluated.
        candidates: its configurations.
        metrics: what the objectives of that study are.
        refit: whether they are trained on training and validation data together, for a fixed number of epochs. Then the
            objectives are those on the test set, for there is no other.
    """

    of: str
    candidates: tuple[Candidate, ...]
    metrics: tuple[str, ...]
    refit: bool = False


class Expectation(_Frozen):
    """What people expect of a study's trials: those with some values are better than those with others.

    Attributes:
        better, than: values of parameters.
        text: the same in words, or nothing.
    """

    better: dict[str, Value]
    than: dict[str, Value]
    text: str = ""


class ReportTable(_Frozen):
    """What a study's report compares. It says nothing of the trials: another one makes no other study.

    Attributes:
        x: a parameter or a cost (`parameter_count`, …) that scores are drawn against, or None.
        compare: parameters whose values make the groups.
        y: what is measured: metrics of the best epoch, or costs.
        log: the axes that are logarithmic, of `x` and `y`.
        knee: whether the knee of the curve against `x` is looked for, and what `x` is there an estimate of.
        expect: what is held against the first `y`.
    """

    x: str | None = None
    compare: tuple[str, ...] = ()
    y: tuple[str, ...]
    log: tuple[str, ...] = ()
    knee: str = ""
    expect: tuple[Expectation, ...] = ()


class WarmFrom(_Frozen):
    """Where a study's warm starts come from: the best trials of another one, as they were when it was launched.

    Attributes:
        study: its name.
        top: how many were asked for.
    """

    study: str
    top: int


class Definition(_Frozen):
    """What a study is. Self-contained: a worker needs nothing else."""

    version: int = VERSION
    dataset: DatasetReference
    objectives: tuple[Objective, ...]
    sampler: ComponentSpec
    pruner: ComponentSpec
    seed: int
    parameters: dict[str, Any]
    constraints: tuple[Constraint, ...] = ()
    baseline: dict[str, Value] | None = None
    modules: dict[str, str] = {}
    warm_start: tuple[dict[str, Value], ...] = ()
    warm_from: WarmFrom | None = None
    evaluation: Evaluation | None = None
    report: ReportTable | None = None
    record_steps: bool = False

    @property
    def space(self) -> Space:
        """The space, parsed anew from the stored parameters."""
        candidates = self.evaluation.candidates if self.evaluation else ()
        return Space(self.parameters, configurations={each.label: each.values for each in candidates})

    @property
    def fixed(self) -> bool:
        """Whether every slot's parameters are known from the start."""
        return SAMPLERS[self.sampler.name].fixed

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that are measured for the objectives and constraints."""
        if self.evaluation:
            return self.evaluation.metrics
        bounded = [constraint.metric for constraint in self.constraints]
        return tuple(dict.fromkeys([*(objective.metric for objective in self.objectives), *bounded]))

    def config(self, values: Mapping[str, Value]) -> TrialConfig:
        """The configuration of a trial with these values; its seed is the study's."""
        return TrialConfig(**{"seed": self.seed, **values})

    def baseline_config(self, space: Space) -> TrialConfig:
        """The baseline: the values given for it, the space's constants, and defaults for the rest."""
        return self.config({**constant_parameters(space), **(self.baseline or {})})

    def check_registered(self) -> None:
        """Refuse to work on a study whose models, metrics or data set are not registered here.

        Raises:
            RegistryError: names the module to import.
        """
        for key, module in self.modules.items():
            kind, _, name = key.partition(":")
            (registry.models if kind == "model" else registry.metrics).get(name, module)
        if self.dataset.module is not None:
            registry.datasets.get(self.dataset.name, self.dataset.module)

    def differences(self, other: Definition) -> list[str]:
        """What differs in `other`, a line a key; what the report compares makes no difference.

        Nor does where warm starts come from, in one that gives them as tables, as a report's study file does.
        """
        mine, theirs = _comparable(self), _comparable(other)
        if other.warm_from is None:
            del mine["warm_from"], theirs["warm_from"]
        return _differences(mine, theirs)


def constant_parameters(space: Space) -> dict[str, Value]:
    """The values that all configurations of a space have in common."""
    return {
        d.parameter.name: d.domain.value
        for d in space.dimensions
        if isinstance(d.domain, Constant) and not d.domain.condition.tests
    }


def _comparable(definition: Definition) -> dict[str, Any]:
    """A definition as JSON; a data file is told by its hash, wherever it lies."""
    data = definition.model_dump(mode="json", exclude={"report"})
    if definition.dataset.sha256:
        data["dataset"]["name"] = Path(data["dataset"]["name"]).name
    return data


def _differences(mine: Any, theirs: Any, key: str = "") -> list[str]:
    if (
        isinstance(mine, dict)
        and isinstance(theirs, dict)
        and not (set(mine) | set(theirs)) & {"value", "choices", "low"}
    ):
        keys = [*mine, *(k for k in theirs if k not in mine)]
        return [line for k in keys for line in _differences(mine.get(k), theirs.get(k), f"{key}.{k}" if key else k)]
    return [] if mine == theirs else [f"{key}: stored {mine!r}, asked {theirs!r}"]


def longest_epochs(space: Space) -> int:
    """The most epochs that a trial of the space can have."""
    domains = [d.domain for d in space.dimensions if d.parameter.name == "epochs"]
    tops = [d.high if hasattr(d, "high") else max(d.points()) for d in domains]
    return int(max(tops, default=TrialConfig().epochs))


def test_metric(metric: str) -> str | None:
    """What a metric of the validation split is called on the test set; None where it says nothing of data."""
    if metric in registry.BUILTIN_METRICS and metric.startswith("val_"):
        return metric.replace("val_", "test_", 1)
    return None if metric in registry.BUILTIN_METRICS or metric.startswith("test_") else f"test_{metric}"
