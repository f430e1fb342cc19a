"""One trial's configuration: every parameter once, with type, default, bounds, help and when it has an effect.

No torch. The table is made of the fields of `TrialConfig`; a registered model's own parameters, declared as a
pydantic model, are read by the same code and join it.
"""

from __future__ import annotations

import math
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Annotated, Any

import annotated_types
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from hpo.config import registry
from hpo.config.aliases import PARAMETER_ALIASES
from hpo.config.choices import (
    ACTIVATIONS,
    CLASSIFICATION_LOSSES,
    INITIALISATIONS,
    LOSSES,
    OPTIMIZERS,
    RECONSTRUCTION_LOSSES,
    SCHEDULES,
)
from hpo.errors import ConfigError, unknown

__all__ = ["Effect", "Parameter", "TrialConfig", "Value", "all_parameters", "parameter_rows", "unknown_parameter"]

Value = bool | int | float | str
Values = Mapping[str, Any]


@dataclass(frozen=True)
class Effect:
    """When a parameter has an effect: in words, the parameters that decide, and the rule over their values."""

    text: str
    parents: tuple[str, ...] = ()
    holds: Callable[[Values], bool] = lambda _: True


@dataclass(frozen=True)
class Group:
    """The group a parameter is listed in."""

    name: str


@dataclass(frozen=True)
class AllowedNames:
    """The valid values of a parameter of names."""

    names: tuple[str, ...]


ALWAYS = Effect("always")
OF_LOOPS = frozenset({"model", "seed"})  # what has an effect under any loop of the user's own


@dataclass(frozen=True)
class Parameter:
    """A named hyperparameter: a row of `hpo parameters`."""

    name: str
    kind: type
    default: Value | None
    help: str
    group: str
    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False
    choices: tuple[Value, ...] = ()
    pattern: str | None = None
    optional: bool = False
    effect: Effect = ALWAYS

    @property
    def bounds(self) -> str:
        """The valid values in words: `0 <= x < 1`, or the choices, or nothing."""
        if self.choices:
            return " ".join(str(choice) for choice in self.choices)
        low = "" if self.low is None else f"{self.low:g} {'<' if self.low_open else '<='} "
        high = "" if self.high is None else f" {'<' if self.high_open else '<='} {self.high:g}"
        return f"{low}x{high}" if low or high else ""

    def possible_under(self, model: str) -> bool:
        """Whether there are values of the other parameters under which this one has an effect with that model."""
        entry = registry.models.get(model)
        if entry.loop:
            return self.name in entry.uses | OF_LOOPS or self.group == model
        probe = {name: parameter.default for name, parameter in _own().items()} | {"model": model}
        # Every rule over the model is monotone in depth, and `widths` only ever replaces what depth decides.
        return "model" not in self.effect.parents or any(
            self.effect.holds(probe | {"depth": 16, "widths": widths}) for widths in (None, "1")
        )

    def check(self, value: object) -> Value | None:
        """`value` in this parameter's type.

        Raises:
            ConfigError: wrong type, or out of the parameter's bounds; the message names both.
        """
        if value is None and self.optional:
            return None
        typed = self._typed(value)
        if self.choices and typed not in self.choices:
            raise ConfigError(f"{self.name} = {value!r}: {unknown('value', str(value), map(str, self.choices))}")
        if self.pattern and not re.fullmatch(self.pattern, str(typed)):
            raise ConfigError(f"{self.name} = {value!r}: must be given as the help says: {self.help}")
        if isinstance(typed, int | float) and not isinstance(typed, bool) and not self._within(typed):
            raise ConfigError(f"{self.name} = {value!r}: out of bounds, must be {self.bounds}")
        return typed

    def _typed(self, value: object) -> Value:
        wrong = ConfigError(f"{self.name} = {value!r}: must be {ARTICLES[self.kind]}, not {type(value).__name__}")
        if self.kind in (bool, str):
            if not isinstance(value, self.kind):
                raise wrong
            return typing.cast(Value, value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise wrong
        if not math.isfinite(value):
            raise ConfigError(f"{self.name} = {value!r}: must be finite")
        if self.kind is int and value != int(value):
            raise ConfigError(f"{self.name} = {value!r}: must be a whole number")
        return int(value) if self.kind is int else float(value)

    def _within(self, value: float) -> bool:
        above = self.low is None or (value > self.low if self.low_open else value >= self.low)
        below = self.high is None or (value < self.high if self.high_open else value <= self.high)
        return above and below


ARTICLES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def _used_by_model(name: str) -> Effect:
    """The effect of a parameter that matters under the models that say they use it, hidden layers permitting."""

    def holds(values: Values) -> bool:
        uses = registry.models.get(str(values["model"])).uses
        if name not in uses:
            return False
        return "depth" not in uses or name == "init" or values["widths"] is not None or values["depth"] > 0

    return Effect("the model uses it, and has a hidden layer", ("model", "widths", "depth"), holds)


def _used(name: str) -> Effect:
    """The effect of a parameter that matters under the models that say they use it."""
    return Effect(
        f"the model uses {name}", ("model",), lambda values: name in registry.models.get(values["model"]).uses
    )


def _shape(name: str, minimal_depth: int = 0, *, unless_budget: bool = False) -> Effect:
    """The effect of a parameter that shapes a dense model, from that many hidden layers on."""

    def holds(values: Values) -> bool:
        deep = values["widths"] is None and (not minimal_depth or values["depth"] >= minimal_depth)
        free = not unless_budget or values["parameter_budget"] is None
        return name in registry.models.get(str(values["model"])).uses and deep and free

    others = {f"depth >= {minimal_depth}": "depth"} if minimal_depth else {}
    others |= {"no parameter_budget": "parameter_budget"} if unless_budget else {}
    return Effect(
        ", ".join(["the model uses it, widths is not given", *others]), ("model", "widths", *others.values()), holds
    )


def _under_optimizer(name: str) -> Effect:
    takers = ", ".join(key for key, optimizer in OPTIMIZERS.items() if optimizer.takes(name))
    return Effect(f"optimizer is one of {takers}", ("optimizer",), lambda v: OPTIMIZERS[v["optimizer"]].takes(name))


def _under_model(name: str) -> Effect:
    return Effect(f"model is {name}", ("model",), lambda values: values["model"] == name)


def _under_loops(parameter: Parameter) -> Parameter:
    """The same parameter where loops of the user's own may train: under these it needs to be among what they use."""
    rule = parameter.effect

    def holds(values: Values) -> bool:
        entry = registry.models.get(str(values["model"]))
        return (not entry.loop or parameter.name in entry.uses | OF_LOOPS) and rule.holds(values)

    parents = rule.parents if "model" in rule.parents or parameter.name in OF_LOOPS else ("model", *rule.parents)
    text = "the model uses it" if rule is ALWAYS and parameter.name not in OF_LOOPS else rule.text
    return replace(parameter, effect=Effect(text, parents, holds))


DECAYS = Effect("the schedule decays", ("schedule",), lambda v: SCHEDULES[v["schedule"]].decays)
RATIO = Effect(
    "the schedule decays, and final_learning_rate is not given",
    ("schedule", "final_learning_rate"),
    lambda v: SCHEDULES[v["schedule"]].decays and v["final_learning_rate"] is None,
)
WARMUP = Effect("the schedule is not one_cycle", ("schedule",), lambda v: SCHEDULES[v["schedule"]].takes_warmup)
CROSS_ENTROPY = Effect(
    "loss is cross_entropy, of classes",
    ("loss", "model"),
    lambda v: v["loss"] == "cross_entropy" and not registry.models.get(v["model"]).reconstructs,
)
WIDTHS_PATTERN = r"[1-9]\d{0,4}(-[1-9]\d{0,4}){0,15}"
PROFILES = AllowedNames(("uniform", "decreasing", "increasing"))


class TrialConfig(BaseModel):
    """The configuration of one trial. Unknown names and values out of bounds are refused.

    A registered model's own parameters are attributes as well: `config.blocks`.

    Raises:
        ConfigError: names the parameter, its value, what is valid and the closest valid name.
    """

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())

    validation: Annotated[
        float,
        Field(
            ge=0,
            description="validation samples taken from the training data: a count, or below 1 a fraction; 0 trains on "
            "all, measures no validation, and keeps the last epoch",
        ),
        Group("data"),
    ] = 1 / 6  # 10,000 of MNIST's 60,000
    split_seed: Annotated[
        int | None,
        Field(ge=0, lt=2**32, description="of the split alone; by default seed decides the split, too"),
        Group("data"),
    ] = None
    input_scaling: Annotated[
        str,
        AllowedNames(("standard", "unit", "symmetric")),
        Field(description="standard: mean 0, deviation 1; unit: 0 to 1; symmetric: -1 to 1"),
        Group("data"),
    ] = "standard"

    model: Annotated[str, Field(description="mlp, cnn, autoencoder, or a registered model's name"), Group("model")] = (
        "mlp"
    )
    activation: Annotated[
        str,
        AllowedNames(tuple(ACTIVATIONS)),
        Field(description="function of the hidden layers"),
        Group("model"),
        _used_by_model("activation"),
    ] = "relu"
    init: Annotated[
        str,
        AllowedNames(tuple(INITIALISATIONS)),
        Field(description="initial weights; default is PyTorch's own"),
        Group("model"),
        _used_by_model("init"),
    ] = "default"
    dropout: Annotated[
        float,
        Field(ge=0, lt=1, description="share of hidden units dropped in training; 0 is off"),
        Group("model"),
        _used_by_model("dropout"),
    ] = 0.0
    batch_norm: Annotated[
        bool,
        Field(description="batch normalisation before each activation"),
        Group("model"),
        _used_by_model("batch_norm"),
    ] = False

    depth: Annotated[
        int,
        Field(ge=0, le=16, description="hidden layers; of an autoencoder, of its encoder and its decoder each"),
        Group("mlp"),
        _shape("depth"),
    ] = 2
    width: Annotated[
        int,
        Field(ge=1, le=65536, description="units of the widest hidden layer"),
        Group("mlp"),
        _shape("width", 1, unless_budget=True),
    ] = 128
    parameter_budget: Annotated[
        int | None,
        Field(
            ge=1,
            le=10**10,
            description="instead of width: about how many numbers the model learns; the width follows from it",
        ),
        Group("mlp"),
        _shape("parameter_budget", 1),
    ] = None
    width_profile: Annotated[
        str,
        PROFILES,
        Field(description="widths over the layers: equal, or from width down or up in equal steps"),
        Group("mlp"),
        _shape("width_profile", 2),
    ] = "uniform"
    widths: Annotated[
        str | None,
        Field(
            pattern=WIDTHS_PATTERN,
            description="instead of depth, width and width_profile: units per hidden layer, as 512-256",
        ),
        Group("mlp"),
        _used("widths"),
    ] = None

    latent_size: Annotated[
        int,
        Field(ge=1, le=65536, description="numbers that the encoder makes of a sample, and the decoder a sample of"),
        Group("autoencoder"),
        _used("latent_size"),
    ] = 32

    conv_layers: Annotated[
        int,
        Field(ge=1, le=3, description="convolution blocks, each halving the picture"),
        Group("cnn"),
        _used("conv_layers"),
    ] = 2
    channels: Annotated[
        int,
        Field(ge=1, le=1024, description="channels of the first block; doubled per block"),
        Group("cnn"),
        _used("channels"),
    ] = 32
    kernel_size: Annotated[
        int,
        Field(ge=1, le=11, description="pixels of a side of the convolution window"),
        Group("cnn"),
        _used("kernel_size"),
    ] = 3
    dense_width: Annotated[
        int,
        Field(ge=1, le=65536, description="units of the dense layer after the convolutions"),
        Group("cnn"),
        _used("dense_width"),
    ] = 64

    optimizer: Annotated[
        str,
        AllowedNames(tuple(OPTIMIZERS)),
        Field(description="momentum and nesterov are SGD with that kind of momentum"),
        Group("optimizer"),
    ] = "adam"
    learning_rate: Annotated[
        float, Field(gt=0, le=1000, description="the rate that schedules start from"), Group("optimizer")
    ] = 0.001
    momentum: Annotated[
        float,
        Field(ge=0, lt=1, description="0.9 by default for momentum and nesterov"),
        Group("optimizer"),
        _under_optimizer("momentum"),
    ] = 0.0
    beta1: Annotated[
        float,
        Field(ge=0, lt=1, description="decay of the mean of gradients"),
        Group("optimizer"),
        _under_optimizer("beta1"),
    ] = 0.9
    beta2: Annotated[
        float,
        Field(ge=0, lt=1, description="decay of the mean of their squares"),
        Group("optimizer"),
        _under_optimizer("beta2"),
    ] = 0.999
    epsilon: Annotated[
        float, Field(gt=0, le=1, description="added to the divisor"), Group("optimizer"), _under_optimizer("epsilon")
    ] = 1e-8
    weight_decay: Annotated[
        float,
        Field(ge=0, le=100, description="0 is off; decoupled under adamw, else added to the gradient"),
        Group("optimizer"),
        _under_optimizer("weight_decay"),
    ] = 0.0
    gradient_clip: Annotated[
        float,
        Field(ge=0, description="largest norm of a step's gradient; 0 is off"),
        Group("optimizer"),
        _under_optimizer("gradient_clip"),
    ] = 0.0

    layer_learning_rate_decay: Annotated[
        float,
        Field(
            gt=0,
            le=100,
            description="each layer's learning rate, of the next one's; the output layer has learning_rate; 1 is off",
        ),
        Group("optimizer"),
        _under_optimizer("layer_learning_rate_decay"),
    ] = 1.0

    schedule: Annotated[
        str,
        AllowedNames(tuple(SCHEDULES)),
        Field(description="how the learning rate moves, at every step"),
        Group("schedule"),
    ] = "constant"
    final_learning_rate: Annotated[
        float | None,
        Field(ge=0, le=1000, description="the rate that the step after the last one would use"),
        Group("schedule"),
        DECAYS,
    ] = None
    final_learning_rate_ratio: Annotated[
        float,
        Field(ge=0, le=1000, description="instead of final_learning_rate: its share of learning_rate"),
        Group("schedule"),
        RATIO,
    ] = 0.01
    warmup: Annotated[
        float,
        Field(ge=0, lt=1, description="share of all steps in which the rate rises in equal steps from 0; 0 is off"),
        Group("schedule"),
        WARMUP,
    ] = 0.0

    loss: Annotated[
        str,
        AllowedNames(LOSSES),
        Field(
            description="mse: mean squared difference between the softmax outputs and the one-hot label, or, where the "
            "target is the sample, between outputs and sample: the default there; binary_cross_entropy: there alone"
        ),
        Group("loss"),
    ] = "cross_entropy"
    label_smoothing: Annotated[
        float, Field(ge=0, lt=1, description="share of a label spread over all classes"), Group("loss"), CROSS_ENTROPY
    ] = 0.0

    batch_size: Annotated[int, Field(ge=1, le=1_000_000, description="samples per step"), Group("training")] = 128
    epochs: Annotated[int, Field(ge=1, le=100_000, description="passes over the training data"), Group("training")] = 5
    precision: Annotated[
        str,
        AllowedNames(("float32", "bfloat16", "float16")),
        Field(description="of the products in a model of your own; sums and weights have 32 bits"),
        Group("training"),
        _used("precision"),
    ] = "float32"
    patience: Annotated[
        int,
        Field(ge=0, description="stop after this many epochs without a better objective; 0 is off"),
        Group("training"),
    ] = 0
    seed: Annotated[
        int,
        Field(
            ge=0,
            lt=2**32,
            description="of the split, the order of the data and the initial weights; in a study, the study's",
        ),
        Group("training"),
    ] = 0

    @model_validator(mode="before")
    @classmethod
    def _check(cls, data: Any) -> dict[str, Any]:
        given = dict(data)
        table = all_parameters([str(given.get("model", "mlp"))])
        for name in given:
            if name not in table:
                raise ConfigError(unknown_parameter(name, table))
        checked = {name: table[name].check(value) for name, value in given.items()}
        resolved = {name: parameter.default for name, parameter in table.items()} | checked
        if "momentum" not in given:
            resolved["momentum"] = OPTIMIZERS[resolved["optimizer"]].defaults.get("momentum", 0.0)
        if "loss" not in given and registry.models.get(resolved["model"]).reconstructs:
            resolved["loss"] = RECONSTRUCTION_LOSSES[0]
        _check_together(resolved)
        return resolved

    @property
    def seed_of_split(self) -> int:
        """What decides which samples are for validation."""
        return self.seed if self.split_seed is None else self.split_seed

    @property
    def final_rate(self) -> float:
        """The learning rate one step after the last, where the schedule decays."""
        return (
            self.learning_rate * self.final_learning_rate_ratio
            if self.final_learning_rate is None
            else self.final_learning_rate
        )

    @property
    def hidden_widths(self) -> tuple[int, ...]:
        """Units per hidden layer of a dense model, from `widths` or from `depth`, `width` and `width_profile`.

        A decreasing profile of depth d gives layer i (from 0) `width * (d - i) / d` units, at least 1. An autoencoder's
        are those of its encoder, its latent layer, and the encoder's mirrored. Where the width follows from a
        `parameter_budget`, ask the configuration that `hpo.config.model_size.resolve_width` gives.
        """
        if self.model != "autoencoder":
            return self._profile
        return (*self._profile, self.latent_size, *reversed(self._profile))

    @property
    def reconstructs(self) -> bool:
        """Whether the model's target is its input."""
        return registry.models.get(self.model).reconstructs

    @property
    def _profile(self) -> tuple[int, ...]:
        if self.widths is not None:
            return tuple(int(width) for width in self.widths.split("-"))
        if self.width_profile == "uniform":
            return (self.width,) * self.depth
        decreasing = [max(1, round(self.width * (self.depth - i) / self.depth)) for i in range(self.depth)]
        return tuple(decreasing if self.width_profile == "decreasing" else reversed(decreasing))

    def effective(self) -> dict[str, Value]:
        """The parameters that have an effect under the others, in the order of the table."""
        values = self.model_dump()
        table = all_parameters([self.model])
        return {
            name: values[name]
            for name, parameter in table.items()
            if values[name] is not None and parameter.effect.holds(values)
        }


def _check_loss(values: Values) -> None:
    model, loss = values["model"], values["loss"]
    reconstructs = registry.models.get(model).reconstructs
    valid = RECONSTRUCTION_LOSSES if reconstructs else CLASSIFICATION_LOSSES
    if loss not in valid:
        raise ConfigError(f"loss = '{loss}': under model = '{model}' it must be {' or '.join(valid)}")
    if loss == "binary_cross_entropy" and values["input_scaling"] != "unit":
        raise ConfigError(
            f"loss = '{loss}': its targets lie from 0 to 1, but input_scaling is '{values['input_scaling']}'; "
            "set input_scaling = 'unit'"
        )


def _check_together(values: Values) -> None:
    """Rules over several parameters."""
    _check_loss(values)
    rate, ratio = values["final_learning_rate"], values["final_learning_rate_ratio"]
    if SCHEDULES[values["schedule"]].final_above_zero and not (ratio if rate is None else rate):
        raise ConfigError(f"schedule = '{values['schedule']}': its final learning rate must be above 0, but got 0")
    if values["validation"] >= 1 and values["validation"] != int(values["validation"]):
        raise ConfigError(f"validation = {values['validation']}: from 1 on it is a count, and must be a whole number")
    if (values["precision"], values["optimizer"]) == ("float16", "lbfgs") and _own()["precision"].effect.holds(values):
        raise ConfigError("precision = 'float16': its losses are scaled, which lbfgs cannot have; use bfloat16")
    if values["batch_norm"] and values["batch_size"] == 1 and _own()["batch_norm"].effect.holds(values):
        raise ConfigError("batch_size = 1: batch_norm needs at least 2 samples in a batch")


def unknown_parameter(name: str, table: Iterable[str]) -> str:
    """The one line for a parameter that does not exist, with ours for another tool's name."""
    if name.lower() in PARAMETER_ALIASES:
        return f"unknown parameter {name!r}: `{name}` is called `{PARAMETER_ALIASES[name.lower()]}` here"
    return unknown("parameter", name, table)


def _parameter(name: str, info: FieldInfo) -> Parameter:
    """A table row from a pydantic field: the type, the default, and what its metadata say."""
    kind, optional, choices = _kind(name, info.annotation)
    row = Parameter(name, kind, info.default, info.description or "", "model", choices=choices, optional=optional)
    for item in info.metadata:
        match item:
            case annotated_types.Ge(ge=bound):
                row = replace(row, low=typing.cast(float, bound))
            case annotated_types.Gt(gt=bound):
                row = replace(row, low=typing.cast(float, bound), low_open=True)
            case annotated_types.Le(le=bound):
                row = replace(row, high=typing.cast(float, bound))
            case annotated_types.Lt(lt=bound):
                row = replace(row, high=typing.cast(float, bound), high_open=True)
            case Group(name=group):
                row = replace(row, group=group)
            case AllowedNames(names=names):
                row = replace(row, choices=names)
            case Effect():
                row = replace(row, effect=item)
            case _ if getattr(item, "pattern", None):
                row = replace(row, pattern=item.pattern)
    return row


def _kind(name: str, annotation: Any) -> tuple[type, bool, tuple[Value, ...]]:
    """Type, whether None is valid, and the choices, of a field's annotation."""
    if typing.get_origin(annotation) is typing.Literal:
        choices = typing.get_args(annotation)
        return type(choices[0]), False, choices
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        inner = [part for part in typing.get_args(annotation) if part is not type(None)]
        kind, _, choices = _kind(name, inner[0])
        return kind, True, choices
    if annotation not in ARTICLES:
        raise ConfigError(
            f"parameter '{name}': its type must be bool, int, float, str or a Literal of them, but got {annotation}"
        )
    return annotation, False, ()


@cache
def _own() -> dict[str, Parameter]:
    return {name: _parameter(name, info) for name, info in TrialConfig.model_fields.items()}


def _of_model(entry: registry.ModelEntry) -> dict[str, Parameter]:
    """The extra parameters that a registered model declares."""
    fields = entry.parameters.model_fields if entry.parameters else {}
    for name, info in fields.items():
        if name in _own() or info.default is PydanticUndefined:
            why = "is one of ours already" if name in _own() else "needs a default"
            raise ConfigError(f"model '{entry.name}': its parameter '{name}' {why}")
    return {
        name: replace(_parameter(name, info), group=entry.name, effect=_under_model(entry.name))
        for name, info in fields.items()
    }


def all_parameters(models: Iterable[str] = ()) -> dict[str, Parameter]:
    """Every parameter by name: ours, then the extra ones of the named models.

    Raises:
        RegistryError: a model is not registered.
        ConfigError: two models declare the same extra parameter differently.
    """
    entries = [registry.models.get(model) for model in models]
    loops = any(entry.loop for entry in entries)
    table = {name: _under_loops(row) if loops else row for name, row in _own().items()}
    for entry in entries:
        for name, parameter in _of_model(entry).items():
            if name in table:
                raise ConfigError(
                    f"parameter '{name}' is declared by two models, {table[name].group} and {entry.name}; rename one"
                )
            table[name] = parameter
    return table


def parameter_rows(model: str | None = None) -> list[dict[str, Any]]:
    """A row per parameter; with a model's name, only of those that may have an effect under it.

    Raises:
        RegistryError: the model is not registered.
    """
    table = all_parameters(registry.models.names() if model is None else [model])
    return [
        {
            "group": row.group,
            "name": row.name,
            "type": row.kind.__name__,
            "default": row.default,
            "bounds": row.bounds,
            "effect": row.effect.text,
            "help": row.help,
        }
        for row in table.values()
        if model is None or row.possible_under(model)
    ]
