"""Definition and budget of a study, as stored in it so that a worker needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, JsonValue

from hpo.config import registry
from hpo.config.declaration import NONE_DECLARED, Declarations
from hpo.config.model_library import find_library
from hpo.config.parameter import Value
from hpo.config.resampling import Fit, Resampling, Resplit, derive_split_seed
from hpo.config.trial_config import TrialConfig, all_parameters
from hpo.datasets import DatasetReference
from hpo.errors import ConfigError
from hpo.space import Constant, LearnedSpace, Space
from hpo.space.space import list_models
from hpo.study.constraints import Constraint
from hpo.study.samplers import SAMPLERS

__all__ = [
    "SETTLED",
    "Budget",
    "Candidate",
    "ComponentSpec",
    "Definition",
    "Evaluation",
    "Expectation",
    "FunctionReference",
    "Objective",
    "ReportTable",
    "WarmFrom",
    "constant_parameters",
    "default_metrics",
    "longest_epochs",
    "test_metric",
]

VERSION = 1
SETTLED = "settled"
DOMAIN_KEYS = {"value", "choices", "low"}  # of a domain, which is compared as a whole


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Objective(_Frozen):
    """Metric and the direction in which it is better."""

    metric: str
    direction: registry.Direction


class ComponentSpec(_Frozen):
    """Name and options of a sampler or a pruner."""

    name: str
    options: dict[str, Any] = {}


class Budget(_Frozen):
    """Extent of a study. It is no part of the definition, because it can be extended.

    Attributes:
        trials: number of trials.
        timeout: seconds after a launch in which trials are begun, or None.
        target: value of the objective that ends the study, or None.
        until: what ends it before all trials are run: `settled`, see `hpo.study.settled`; `trials`, nothing; or None,
            which is the same and changes nothing where a budget is extended.
        trial_timeout: seconds that an attempt at a trial may take, or None.
    """

    trials: int
    timeout: float | None = None
    target: float | None = None
    trial_timeout: float | None = None
    until: Literal["settled", "trials"] | None = None

    def merge(self, other: Budget) -> Budget:
        """Return the larger number of trials, with the other's timeouts, target and end where it has them."""
        return Budget(
            trials=max(self.trials, other.trials),
            timeout=self.timeout if other.timeout is None else other.timeout,
            target=self.target if other.target is None else other.target,
            trial_timeout=self.trial_timeout if other.trial_timeout is None else other.trial_timeout,
            until=self.until if other.until is None else other.until,
        )


Source = Literal["split", "order", "init", "seed", "all"]  # of the spread of a score


class Candidate(_Frozen):
    """Configuration that an evaluation trains again.

    Attributes:
        label: its name: `trial 12`, `baseline`, `defaults`.
        trial: its number in the evaluated study; None for the default configuration.
        baseline: whether the others are compared with it: the study's baseline, or without one the default
            configuration.
        values: its parameters that have an effect, except the seeds; of an objective function, its parameters as they
            are stored, among them None and lists.
        asked: the parameters that a training loop asked for itself as the trial was trained.
        study: the name of the study that it comes from, if that is not the evaluated one.
    """

    label: str
    trial: int | None
    baseline: bool
    values: dict[str, JsonValue]
    asked: dict[str, Any] = {}
    study: str = ""


class Evaluation(_Frozen):
    """Part of a definition that makes a study an evaluation: a grid of the parameters `seed` and `configuration`.

    The values of `configuration` are the candidates' labels.

    Attributes:
        of: the name of the study that is evaluated.
        candidates: its configurations.
        metrics: the metrics of that study's objectives.
        refit: whether they are trained on training and validation data together, for a fixed number of epochs. The
            objectives are then metrics of the test set, since no other data is left.
        tested: whether each model is measured on the test set, once; otherwise the data have none.
        vary: what follows the fresh seed while the rest stays as it was in the study: the split, the order of the data
            with noise such as dropout, the initial weights, the seed of both (`seed`), or all of it.
        compare: the name of the study that this one is compared with, or empty.
    """

    of: str
    candidates: tuple[Candidate, ...]
    metrics: tuple[str, ...]
    refit: bool = False
    tested: bool = True
    vary: Source = "seed"
    compare: str = ""


class Expectation(_Frozen):
    """Expectation of a study's author: trials with some values are better than trials with others.

    Attributes:
        better, than: values of parameters.
        text: the expectation in words, or empty.
    """

    better: dict[str, Value]
    than: dict[str, Value]
    text: str = ""


class ReportTable(_Frozen):
    """Comparison that a study's report makes. It does not affect the trials, so changing it makes no other study.

    Attributes:
        x: the parameter or the cost (`parameter_count`, …) that scores are plotted against, or None.
        compare: parameters by whose values trials are grouped.
        y: metrics of the best epoch, or costs.
        log: the logarithmic axes, of `x` and `y`.
        knee: the quantity that `x` estimates at the knee of the curve; empty if no knee is looked for.
        expect: expectations that are checked against the first `y`.
    """

    x: str | None = None
    compare: tuple[str, ...] = ()
    y: tuple[str, ...]
    log: tuple[str, ...] = ()
    knee: str = ""
    expect: tuple[Expectation, ...] = ()


class WarmFrom(_Frozen):
    """Origin of a study's warm starts: the best trials of another one, as they were at the launch.

    Attributes:
        study: the other study's name.
        top: the number of trials requested.
    """

    study: str
    top: int


class FunctionReference(_Frozen):
    """Reference to the objective function of a study: a function of the user's that takes Optuna's trial.

    Attributes:
        name: of the function.
        file: the absolute path of its file; None for one that lives in a notebook or an importable module.
        module: the module that holds it; None for a function of a file.
        sha256: hex digest of its source; empty where there is none to read.
    """

    name: str
    file: str | None = None
    module: str | None = None
    sha256: str = ""

    @property
    def label(self) -> str:
        """The function as a command names it: `train.py:objective`."""
        return f"{Path(self.file).name}:{self.name}" if self.file else f"{self.module or 'notebook'}:{self.name}"

    @property
    def location(self) -> str:
        """The function as a worker in another folder finds it: `/home/me/train.py:objective`."""
        return f"{self.file or self.module or 'FILE.py'}:{self.name}"


class Definition(_Frozen):
    """Definition of a study. It is self-contained: a worker needs nothing else, apart from the user's own code.

    Attributes:
        warm_start: values of the first trials; of an objective function, parameters as Optuna has them.
        recorded: metrics that are recorded each epoch beside those that are needed.
        function: the objective function, of which each trial is one call; None where trials are configurations of ours.
        foreign: whether another tool made the study, and nothing else is known of it.
        resampling: how often each trial is fitted, on which splits and from which seeds; None is one fit.
        resplit: whether each trial is divided by a seed of its own, or all by the study's.
        nested_of: the name of the study whose nested evaluation this one is part of: the same study on a data set
            without an outer fold.
        modules: by `model:NAME` and `metric:NAME`, the modules that register what is the user's own.
        declarations: what is known of these without their modules; of a study of an earlier version, nothing.
        weights: SHA-256 of the files of pretrained weights, by path.
    """

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
    declarations: Declarations = NONE_DECLARED
    warm_start: tuple[dict[str, JsonValue], ...] = ()
    warm_from: WarmFrom | None = None
    evaluation: Evaluation | None = None
    report: ReportTable | None = None
    record_steps: bool = False
    recorded: tuple[str, ...] = ()
    function: FunctionReference | None = None
    foreign: bool = False
    resampling: Resampling | None = None
    resplit: Resplit = "never"
    nested_of: str | None = None
    weights: dict[str, str] = {}

    @property
    def companion_of(self) -> str | None:
        """The name of the study that this one evaluates, or is part of the nested evaluation of; None of others."""
        return self.nested_of if self.evaluation is None else self.evaluation.of

    @property
    def refit(self) -> bool:
        """True of an evaluation that trains on training and validation data together: it has test scores alone."""
        return self.evaluation is not None and self.evaluation.refit

    @property
    def configured(self) -> bool:
        """True if trials are configurations of ours; otherwise an objective function knows what they mean."""
        return self.function is None and not self.foreign

    @property
    def learned(self) -> bool:
        """True if the space is what the trials recorded: an objective function, or another tool, chose it."""
        return not self.configured and self.evaluation is None

    @property
    def space(self) -> Space:
        """The search space, parsed anew from the stored parameters; an empty one if it is learned from the trials."""
        if self.learned:
            return LearnedSpace()
        candidates = self.evaluation.candidates if self.evaluation else ()
        known = {each.label: cast(dict[str, Value], each.values) if self.configured else {} for each in candidates}
        return Space(self.parameters, configurations=known, registered=self.declarations)

    @property
    def function_location(self) -> str | None:
        """The objective function as a command names it, or `FILE.py:FUNCTION` where it is not known; None of models."""
        if self.configured:
            return None
        return "FILE.py:FUNCTION" if self.function is None else self.function.location

    @property
    def fixed(self) -> bool:
        """True if every trial's parameters are known from the start."""
        return not self.learned and SAMPLERS[self.sampler.name].fixed

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that the objectives and constraints need, and those that are recorded beside them."""
        if self.evaluation:
            return self.evaluation.metrics
        bounded = [constraint.metric for constraint in self.constraints]
        objectives = [objective.metric for objective in self.objectives]
        return tuple(dict.fromkeys([*objectives, *bounded, *self.recorded]))

    @property
    def fits(self) -> tuple[Fit, ...]:
        """The fits of each trial, of which there is at least one."""
        return (self.resampling or Resampling()).fits

    @property
    def several_fits(self) -> bool:
        """True if a trial has more than one fit."""
        return self.resampling is not None and self.resampling.count > 1

    @property
    def shares_validation(self) -> bool:
        """True if all trials are validated on the same samples, as far as parameters leave them the same."""
        return self.resplit == "never"

    def config(self, values: Mapping[str, Value]) -> TrialConfig:
        """Return the configuration of a trial with these values; its seed is the study's where the model allows it."""
        seed = all_parameters([str(values.get("model", "mlp"))], self.declarations)["seed"]
        excluded = seed.domain is not None and not seed.domain.allows(self.seed)
        return TrialConfig.of(values if excluded else {"seed": self.seed, **values}, self.declarations)

    def resplit_config(self, config: TrialConfig, number: int) -> TrialConfig:
        """Return the configuration of trial `number`: with a split of its own, if each trial has one."""
        if self.resplit == "never":
            return config
        return config.model_copy(update={"split_seed": derive_split_seed(self.seed, number)})

    def shared_split_config(self, config: TrialConfig) -> TrialConfig:
        """Return a configuration without a trial's own split: on the study's, which no trial was chosen by."""
        return config if self.resplit == "never" else config.model_copy(update={"split_seed": self.seed})

    def baseline_config(self, space: Space) -> TrialConfig:
        """Return the baseline: its own values, the space's constants, and defaults for the rest.

        Where the study names none, and the defaults do not go with the constants, it is the first point of the space.
        """
        try:
            return self.config({**constant_parameters(space), **(self.baseline or {})})
        except ConfigError:
            if self.baseline is not None:
                raise
            return self.config(space.values(space.draw([0.0] * len(space.varied))))

    @property
    def imports(self) -> tuple[str, ...]:
        """The modules to import for training; what a notebook has registered is in none."""
        modules = dict.fromkeys(filter(None, [*self.modules.values(), self.dataset.module]))
        return tuple(module for module in modules if module != registry.MAIN)

    def check_readable(self) -> None:
        """Refuse to read a study of models or metrics that are neither declared in it nor registered here.

        Raises:
            RegistryError: names the module to import.
        """
        for kind, name, module in self._own_names():
            if not self.declarations.has(kind, name):
                _get_entry(kind, name, module)

    @property
    def declared(self) -> bool:
        """True if it can be read without the user's code."""
        return all(self.declarations.has(kind, name) for kind, name, _ in self._own_names())

    def check_registered(self) -> None:
        """Refuse to train a study whose models, metrics or data set are not registered here, or of another kind by now.

        Raises:
            RegistryError: names the module to import, the library to install, or the difference.
        """
        for kind, name, module in self._own_names():
            _get_entry(kind, name, module)
        if self.dataset.module is not None:
            registry.datasets.get(self.dataset.name, self.dataset.module)
        for name in self._list_models():
            if (library := find_library(name)) is not None:
                library.check_installed(name)
        self.declarations.check_code()

    def _list_models(self) -> set[str]:
        """Return the names of all models that a trial may have, or of none that are configurations of ours."""
        if not self.configured:
            return set()
        candidates = self.evaluation.candidates if self.evaluation else ()
        return {*list_models(self.parameters), *(str(each.values.get("model", "")) for each in candidates)}

    def _own_names(self) -> Iterator[tuple[str, str, str]]:
        """Yield kind, name and module of the user's own models and metrics."""
        for key, module in self.modules.items():
            kind, _, name = key.partition(":")
            yield kind, name, module

    def complete(self) -> Definition:
        """Return the definition with declarations of what is registered here, where an earlier version stored none."""
        names: dict[str, list[str]] = {"model": [], "metric": []}
        for kind, name, _ in self._own_names():
            names[kind].append(name)
        return self.model_copy(update={"declarations": self.declarations.select(names["model"], names["metric"])})

    def has_other_data(self, other: Definition) -> bool:
        """Return whether the data of `other`, or the options by which they are read, are others."""
        return bool(_comparable(self)["dataset"] != _comparable(other)["dataset"])

    def differences(self, other: Definition) -> list[str]:
        """List the differences of `other`, one line a key. The report's comparison makes no difference.

        Nor does the origin of warm starts, if `other` gives them as tables, as a report's study file does.
        """
        stored, requested = _comparable(self), _comparable(other)
        if other.warm_from is None:
            del stored["warm_from"], requested["warm_from"]
        if stored.pop("dataset") == requested.pop("dataset"):
            return _differences(stored, requested)
        return [_describe_other_data(self.dataset, other.dataset), *_differences(stored, requested)]


def _get_entry(kind: str, name: str, module: str) -> registry.Entry:
    return registry.models.get(name, module) if kind == "model" else registry.metrics.get(name, module)


def constant_parameters(space: Space) -> dict[str, Value]:
    """Return the values that all configurations of a space have in common."""
    return {
        d.parameter.name: d.domain.value
        for d in space.dimensions
        if isinstance(d.domain, Constant) and not d.domain.condition.tests
    }


def _comparable(definition: Definition) -> dict[str, Any]:
    """Return a definition as JSON; a data file is identified by its hash, wherever it lies.

    An objective function is identified by its name, and so are models and metrics, for people go on editing them.
    """
    left_out: dict[str, Any] = {"report": True, "declarations": True, "function": {"file", "sha256"}}
    data = definition.model_dump(mode="json", exclude=left_out)
    if definition.dataset.sha256:
        data["dataset"]["name"] = Path(data["dataset"]["name"]).name
    del data["resampling"]  # whose keys are those of a study file
    return data | (definition.resampling or Resampling()).model_dump()


def _describe_other_data(stored: DatasetReference, requested: DatasetReference) -> str:
    """Say that a study has other data, by what a person can see of them."""
    named, asked = (_describe_data(stored, full=False), _describe_data(requested, full=False))
    if named == asked:  # of the same name and labels
        named, asked = (_describe_data(stored, full=True), _describe_data(requested, full=True))
    if named == asked:
        return f"dataset: {asked} has other content than the study's, of the same name"
    return f"dataset: another one, {asked} (stored: {named})"


def _describe_data(dataset: DatasetReference, *, full: bool) -> str:
    """Return a data set's name and labels; in full with its other options, task and number of samples."""
    name = Path(dataset.name).name if dataset.sha256 else dataset.name
    options = {} if dataset.source is None else dataset.source.model_dump(mode="json", exclude_defaults=True)
    shown = {key: value for key, value in options.items() if full or key == "label"}
    if full:
        shown |= {"task": dataset.task, "samples": dataset.samples, "module": dataset.module}
    values = {key: " and ".join(map(str, value)) if isinstance(value, list) else value for key, value in shown.items()}
    return ", ".join([name, *(f"{key} {value}" for key, value in values.items() if value is not None)])


def _differences(stored: Any, requested: Any, key: str = "") -> list[str]:
    if isinstance(stored, dict) and isinstance(requested, dict) and not {*stored, *requested} & DOMAIN_KEYS:
        keys = dict.fromkeys([*stored, *requested])
        return [
            line for k in keys for line in _differences(stored.get(k), requested.get(k), f"{key}.{k}" if key else k)
        ]
    return [] if stored == requested else [f"{key}: stored {stored!r}, requested {requested!r}"]


def default_metrics(count: int) -> list[str]:
    """Name the objectives of a study that gives them no names, as Optuna's tables do."""
    return ["value"] if count == 1 else [f"value_{place}" for place in range(count)]


def longest_epochs(space: Space) -> int:
    """Return the largest number of epochs that a trial of the space can have."""
    domains = [d.domain for d in space.dimensions if d.parameter.name == "epochs"]
    maxima = [d.high if hasattr(d, "high") else max(d.points()) for d in domains]
    return int(max(maxima, default=TrialConfig().epochs))


def test_metric(metric: str) -> str | None:
    """Return a validation metric's name on the test set, or None if it does not depend on data."""
    if metric in registry.BUILTIN_METRICS:
        return metric.replace("val_", "test_", 1) if metric.startswith("val_") else None
    return None if metric.startswith("test_") else f"test_{metric}"
