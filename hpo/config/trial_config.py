"""TrialConfig, the configuration of one trial, and the table of all parameters.

The table is made of the fields of `TrialConfig`; a registered model's own parameters, declared as a pydantic model,
are read by the same code and join it. No torch.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import replace
from functools import cache, lru_cache
from itertools import product
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationInfo, model_validator
from pydantic_core import PydanticUndefined

from hpo.config import registry
from hpo.config.choices import (
    ACTIVATIONS,
    INITIALISATIONS,
    LOSSES,
    OPTIMIZERS,
    RECONSTRUCTION_LOSSES,
    SCHEDULES,
    TASK_LOSSES,
    TASKS,
)
from hpo.config.effects import (
    LOOP_PARAMETERS,
    WHEN_CLASSES_ARE_WEIGHTED,
    WHEN_CROSS_ENTROPY,
    WHEN_HUBER,
    WHEN_RATIO_DECIDES,
    WHEN_SCHEDULE_DECAYS,
    WHEN_TASK_IS_OTHER,
    WHEN_WARMUP_IS_POSSIBLE,
    Values,
    restrict_to_loops,
    when_hidden_layers_use,
    when_model_is,
    when_model_uses,
    when_numbers_are_embedded,
    when_optimizer_takes,
    when_shape_uses,
)
from hpo.config.parameter import AllowedNames, Group, Parameter, Separator, parameter_from_field, unknown_parameter
from hpo.config.registry import Models, ModelTraits
from hpo.config.values import OFF, Value, plain_value
from hpo.errors import ConfigError

__all__ = [
    "SEEDS",
    "TrialConfig",
    "all_parameters",
    "is_shared",
    "model_parameters",
    "parameter_rows",
    "shared_parameters",
]

SEEDS = ("seed", "split_seed", "init_seed", "order_seed")
WIDTHS_PATTERN = r"[1-9]\d{0,4}(-[1-9]\d{0,4}){0,15}"


class TrialConfig(BaseModel):
    """Configuration of one trial, checked against the table of parameters.

    A registered model's own parameters are attributes as well: `config.blocks`.

    Raises:
        ConfigError: a name is unknown, or a value is invalid; the message names the parameter, its value, what is valid
            and the closest valid name.
    """

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())

    _models: Models = PrivateAttr(default_factory=lambda: registry.models)

    validation: Annotated[
        float,
        Field(
            ge=0,
            description="validation samples split off the training data: a count, or a fraction if below 1; 0 trains "
            "on all data without validation, and keeps the last epoch",
        ),
        Group("data"),
    ] = 1 / 6  # 10,000 of MNIST's 60,000
    split_seed: Annotated[
        int | None,
        Field(ge=0, lt=2**32, description="seed of the validation split alone; by default, seed decides the split too"),
        Group("data"),
    ] = None
    input_scaling: Annotated[
        str,
        AllowedNames(("standard", "unit", "symmetric")),
        Field(description="standard: mean 0, standard deviation 1; unit: 0 to 1; symmetric: -1 to 1"),
        Group("data"),
    ] = "standard"
    numeric_scaling: Annotated[
        str | None,
        AllowedNames(("standard", "robust", "quantile")),
        Field(
            description="instead of input_scaling, of the numbers of a table: standard; robust: median 0, quartiles "
            "1 apart; quantile: normally distributed by rank"
        ),
        Group("data"),
    ] = None
    task: Annotated[
        str,
        AllowedNames(TASKS),
        Field(description="what is predicted: a class, several labels, or real numbers; the data set decides it"),
        Group("data"),
        WHEN_TASK_IS_OTHER,
    ] = "classification"

    model: Annotated[
        str, Field(description="mlp, resnet_tabular, cnn, autoencoder, or a registered model's name"), Group("model")
    ] = "mlp"
    activation: Annotated[
        str,
        AllowedNames(tuple(ACTIVATIONS)),
        Field(description="activation function of the hidden layers"),
        Group("model"),
        when_hidden_layers_use("activation"),
    ] = "relu"
    init: Annotated[
        str,
        AllowedNames(tuple(INITIALISATIONS)),
        Field(description="initialisation of the weights; default is PyTorch's own"),
        Group("model"),
        when_hidden_layers_use("init"),
    ] = "default"
    dropout: Annotated[
        float,
        Field(ge=0, lt=1, description="fraction of hidden units dropped in training; 0 is off"),
        Group("model"),
        when_hidden_layers_use("dropout"),
    ] = 0.0
    batch_norm: Annotated[
        bool,
        Field(description="batch normalisation before each activation"),
        Group("model"),
        when_hidden_layers_use("batch_norm"),
    ] = False

    depth: Annotated[
        int,
        Field(
            ge=0,
            le=16,
            description="number of hidden layers; of an autoencoder, in the encoder and in the decoder each",
        ),
        Group("mlp"),
        when_shape_uses("depth"),
    ] = 2
    width: Annotated[
        int,
        Field(ge=1, le=65536, description="units of the widest hidden layer"),
        Group("mlp"),
        when_shape_uses("width", 1, unless_budget=True),
    ] = 128
    parameter_budget: Annotated[
        int | None,
        Field(
            ge=1,
            le=10**10,
            description="instead of width: the approximate number of weights and biases; the width follows from it",
        ),
        Group("mlp"),
        when_shape_uses("parameter_budget", 1),
    ] = None
    width_profile: Annotated[
        str,
        AllowedNames(("uniform", "decreasing", "increasing")),
        Field(
            description="widths of the layers: all equal, or decreasing from width or increasing to it in equal steps"
        ),
        Group("mlp"),
        when_shape_uses("width_profile", 2),
    ] = "uniform"
    widths: Annotated[
        str | None,
        Field(
            pattern=WIDTHS_PATTERN,
            description="instead of depth, width and width_profile: units of each hidden layer, as in 512-256, or as a "
            "list",
        ),
        Separator("-"),
        Group("mlp"),
        when_model_uses("widths"),
    ] = None

    hidden_factor: Annotated[
        float,
        Field(gt=0, le=16, description="units of a residual block's hidden layer, as a multiple of width"),
        Group("resnet_tabular"),
        when_shape_uses("hidden_factor", 1),
    ] = 2.0
    residual_dropout: Annotated[
        float,
        Field(ge=0, lt=1, description="fraction of a residual block's outputs dropped in training; 0 is off"),
        Group("resnet_tabular"),
        when_hidden_layers_use("residual_dropout"),
    ] = 0.0

    embedding_factor: Annotated[
        float | None,
        Field(
            gt=0,
            le=100,
            description="numbers that a table's category of K codes is embedded in: factor * K ** 0.56, at most 600; "
            "by default 1.6",
        ),
        Group("table"),
        when_model_uses("embedding_factor"),
    ] = None
    numeric_embedding: Annotated[
        str | None,
        AllowedNames(("periodic", "piecewise_linear")),
        Field(description="embedding of each number of a table: of its sines and cosines, or of its place among bins"),
        Group("table"),
        when_model_uses("numeric_embedding"),
    ] = None
    numeric_embedding_size: Annotated[
        int,
        Field(ge=1, le=1024, description="numbers that each number is embedded in"),
        Group("table"),
        when_numbers_are_embedded("numeric_embedding_size"),
    ] = 16
    periodic_frequencies: Annotated[
        int,
        Field(ge=1, le=1024, description="learned frequencies of each number's sines and cosines"),
        Group("table"),
        when_numbers_are_embedded("periodic_frequencies", "periodic"),
    ] = 16
    periodic_sigma: Annotated[
        float,
        Field(gt=0, le=1000, description="standard deviation that the frequencies are drawn with"),
        Group("table"),
        when_numbers_are_embedded("periodic_sigma", "periodic"),
    ] = 0.1
    numeric_bins: Annotated[
        int,
        Field(ge=1, le=1024, description="bins of each number's range"),
        Group("table"),
        when_numbers_are_embedded("numeric_bins", "piecewise_linear"),
    ] = 16

    latent_size: Annotated[
        int,
        Field(ge=1, le=65536, description="numbers into which the encoder compresses a sample"),
        Group("autoencoder"),
        when_model_uses("latent_size"),
    ] = 32

    conv_layers: Annotated[
        int,
        Field(ge=1, le=3, description="number of convolution blocks, each of which halves height and width"),
        Group("cnn"),
        when_model_uses("conv_layers"),
    ] = 2
    channels: Annotated[
        int,
        Field(ge=1, le=1024, description="channels of the first block; each further block doubles them"),
        Group("cnn"),
        when_model_uses("channels"),
    ] = 32
    kernel_size: Annotated[
        int,
        Field(ge=1, le=11, description="side of the convolution window in pixels"),
        Group("cnn"),
        when_model_uses("kernel_size"),
    ] = 3
    dense_width: Annotated[
        int,
        Field(ge=1, le=65536, description="units of the dense layer after the convolutions"),
        Group("cnn"),
        when_model_uses("dense_width"),
    ] = 64

    optimizer: Annotated[
        str,
        AllowedNames(tuple(OPTIMIZERS)),
        Field(description="momentum and nesterov are SGD with that kind of momentum"),
        Group("optimizer"),
    ] = "adam"
    learning_rate: Annotated[
        float, Field(gt=0, le=1000, description="learning rate that schedules start from"), Group("optimizer")
    ] = 0.001
    momentum: Annotated[
        float,
        Field(ge=0, lt=1, description="0.9 by default for momentum and nesterov"),
        Group("optimizer"),
        when_optimizer_takes("momentum"),
    ] = 0.0
    beta1: Annotated[
        float,
        Field(ge=0, lt=1, description="decay rate of the running mean of the gradients"),
        Group("optimizer"),
        when_optimizer_takes("beta1"),
    ] = 0.9
    beta2: Annotated[
        float,
        Field(ge=0, lt=1, description="decay rate of the running mean of their squares"),
        Group("optimizer"),
        when_optimizer_takes("beta2"),
    ] = 0.999
    epsilon: Annotated[
        float,
        Field(gt=0, le=1, description="added to the denominator"),
        Group("optimizer"),
        when_optimizer_takes("epsilon"),
    ] = 1e-8
    weight_decay: Annotated[
        float,
        Field(ge=0, le=100, description="L2 penalty: decoupled under adamw, else added to the gradient; 0 is off"),
        Group("optimizer"),
        when_optimizer_takes("weight_decay"),
    ] = 0.0
    gradient_clip: Annotated[
        float,
        Field(ge=0, description="largest norm of the gradient of a step; 0 is off"),
        Group("optimizer"),
        when_optimizer_takes("gradient_clip"),
    ] = 0.0

    layer_learning_rate_decay: Annotated[
        float,
        Field(
            gt=0,
            le=100,
            description="ratio of a layer's learning rate to the next layer's; the output layer has learning_rate; "
            "1 is off",
        ),
        Group("optimizer"),
        when_optimizer_takes("layer_learning_rate_decay"),
    ] = 1.0

    schedule: Annotated[
        str,
        AllowedNames(tuple(SCHEDULES)),
        Field(description="change of the learning rate from step to step"),
        Group("schedule"),
    ] = "constant"
    final_learning_rate: Annotated[
        float | None,
        Field(ge=0, le=1000, description="learning rate that the step after the last one would use"),
        Group("schedule"),
        WHEN_SCHEDULE_DECAYS,
    ] = None
    final_learning_rate_ratio: Annotated[
        float,
        Field(ge=0, le=1000, description="instead of final_learning_rate: its ratio to learning_rate"),
        Group("schedule"),
        WHEN_RATIO_DECIDES,
    ] = 0.01
    warmup: Annotated[
        float,
        Field(
            ge=0, lt=1, description="fraction of all steps in which the learning rate rises linearly from 0; 0 is off"
        ),
        Group("schedule"),
        WHEN_WARMUP_IS_POSSIBLE,
    ] = 0.0

    loss: Annotated[
        str,
        AllowedNames(LOSSES),
        Field(
            description="cross_entropy by default of classes, binary_cross_entropy of several labels, mse of real "
            "numbers; mse: mean squared difference between the softmax outputs and the one-hot label, between outputs "
            "and target, or outputs and sample for models that reconstruct; mae, huber, gaussian_nll: of real numbers"
        ),
        Group("loss"),
    ] = "cross_entropy"
    label_smoothing: Annotated[
        float,
        Field(ge=0, lt=1, description="fraction of a label's weight that is spread over all classes"),
        Group("loss"),
        WHEN_CROSS_ENTROPY,
    ] = 0.0
    huber_delta: Annotated[
        float,
        Field(gt=0, le=1000, description="error from which huber is linear, in standard deviations of the target"),
        Group("loss"),
        WHEN_HUBER,
    ] = 1.0
    class_weight: Annotated[
        str | None,
        AllowedNames(("balanced",)),
        Field(description="balanced: samples of rare classes, or rare labels, weigh more, so that each counts alike"),
        Group("loss"),
        WHEN_CLASSES_ARE_WEIGHTED,
    ] = None

    batch_size: Annotated[int, Field(ge=1, le=1_000_000, description="samples per step"), Group("training")] = 128
    epochs: Annotated[int, Field(ge=1, le=100_000, description="passes over the training data"), Group("training")] = 5
    precision: Annotated[
        str,
        AllowedNames(("float32", "bfloat16", "float16")),
        Field(description="number type of the products in a model of your own; sums and weights stay float32"),
        Group("training"),
        when_model_uses("precision"),
    ] = "float32"
    patience: Annotated[
        int,
        Field(ge=0, description="stop after this many epochs without an improvement of the objective; 0 is off"),
        Group("training"),
    ] = 0
    seed: Annotated[
        int,
        Field(
            ge=0,
            lt=2**32,
            description="seed of the split, the order of the data and the initial weights; in a study, its seed",
        ),
        Group("training"),
    ] = 0
    init_seed: Annotated[
        int | None,
        Field(ge=0, lt=2**32, description="seed of the initial weights alone; by default, seed decides them too"),
        Group("training"),
    ] = None
    order_seed: Annotated[
        int | None,
        Field(
            ge=0,
            lt=2**32,
            description="seed of the order of the data, and of noise such as dropout, alone; by default, seed decides "
            "them too",
        ),
        Group("training"),
    ] = None

    @classmethod
    def of(cls, values: Mapping[str, Any], models: Models) -> TrialConfig:
        """Return the configuration with these values, of a study that declares models of the user's own.

        Raises:
            ConfigError: see above.
            RegistryError: the model is neither declared nor registered.
        """
        return cls.model_validate(dict(values), context=models)

    @model_validator(mode="before")
    @classmethod
    def _check(cls, data: Any, info: ValidationInfo) -> dict[str, Any]:
        models: Models = info.context or registry.models
        values = dict(data)
        table = all_parameters([str(values.get("model", "mlp"))], models)
        for name in values:
            if name not in table:
                raise ConfigError(unknown_parameter(name, table))
        checked = {name: table[name].check(value) for name, value in values.items()}
        given = {name: None if table[name].is_off(value) else value for name, value in checked.items()}
        resolved = {name: parameter.default for name, parameter in table.items()} | given
        model = models.get(resolved["model"])
        if "momentum" not in values:
            resolved["momentum"] = OPTIMIZERS[resolved["optimizer"]].defaults.get("momentum", 0.0)
        if "loss" not in values:
            resolved["loss"] = (RECONSTRUCTION_LOSSES if model.reconstructs else TASK_LOSSES[resolved["task"]])[0]
        _check_combination(resolved, models)
        return _gained_parameters(model, table) | resolved

    def model_post_init(self, context: Any, /) -> None:
        """Keep the models of the study."""
        if context is not None:
            self._models = context

    def __eq__(self, other: object) -> bool:
        """Compare the values, wherever the models that they may name are declared."""
        return isinstance(other, TrialConfig) and self.model_dump() == other.model_dump()

    def __hash__(self) -> int:
        return hash(tuple(self.__dict__.values()))

    def __getattr__(self, name: str) -> Any:
        """Return a registered model's own parameter; a list is a new one at each access, and may be changed."""
        value = super().__getattr__(name)  # type: ignore[misc]  # pydantic hides it from type checkers
        if not isinstance(value, str):
            return value
        # The code knows the type of a list, which a study does not store.
        model = registry.models.find(self.model) or self._models.get(self.model)
        parameter = model_parameters(model).get(name)
        return value if parameter is None else parameter.load(value)

    @property
    def seed_of_split(self) -> int:
        """Seed of the draw of the validation samples."""
        return self.seed if self.split_seed is None else self.split_seed

    @property
    def seed_of_init(self) -> int:
        """Seed of the initial weights."""
        return self.seed if self.init_seed is None else self.init_seed

    @property
    def seed_of_order(self) -> int:
        """Seed of the order of the data, and of noise such as dropout."""
        return self.seed if self.order_seed is None else self.order_seed

    @property
    def final_rate(self) -> float:
        """Learning rate one step after the last, if the schedule decays."""
        return (
            self.learning_rate * self.final_learning_rate_ratio
            if self.final_learning_rate is None
            else self.final_learning_rate
        )

    @property
    def hidden_widths(self) -> tuple[int, ...]:
        """Units per hidden layer of a dense model, from `widths` or from `depth`, `width` and `width_profile`.

        A decreasing profile of depth d gives layer i (from 0) `width * (d - i) / d` units, at least 1. An autoencoder's
        are those of its encoder, its latent layer, and the encoder's in reverse. If the width follows from a
        `parameter_budget`, take the configuration that `hpo.config.model_size.resolve_width` returns.
        """
        if self.model != "autoencoder":
            return self._profile
        return (*self._profile, self.latent_size, *reversed(self._profile))

    @property
    def reconstructs(self) -> bool:
        """True if the model's target is its input."""
        return self._models.get(self.model).reconstructs

    @property
    def _profile(self) -> tuple[int, ...]:
        if self.widths is not None:
            return tuple(int(width) for width in self.widths.split("-"))
        if self.width_profile == "uniform":
            return (self.width,) * self.depth
        decreasing = [max(1, round(self.width * (self.depth - i) / self.depth)) for i in range(self.depth)]
        return tuple(decreasing if self.width_profile == "decreasing" else reversed(decreasing))

    def effective(self, off: Container[str] = ()) -> dict[str, Value]:
        """Return the parameters that have an effect under the others, in the order of the table and in plain form.

        A model's own parameter that is None is `none`. Of ours those are left out, except the ones named by `off`.
        """
        values, ours, models = self.model_dump(), _own_parameters(), self._models
        table = all_parameters([self.model], models)
        return {
            name: plain_value(values[name])
            for name, parameter in table.items()
            if (values[name] is not None or ((name not in ours or name in off) and parameter.is_off(OFF)))
            and parameter.effect.holds(values, models)
        }

    def literals(self, none: object = None) -> dict[str, Any]:
        """Return the same parameters as a file holds them: lists as lists, and None as the format has it."""
        table = all_parameters([self.model], self._models)
        literals = {name: table[name].load(value) for name, value in self.effective().items()}
        return {name: none if value is None else value for name, value in literals.items()}


def _check_loss(values: Values, models: Models) -> None:
    model, loss = values["model"], values["loss"]
    reconstructs, task = models.get(model).reconstructs, values["task"]
    valid = RECONSTRUCTION_LOSSES if reconstructs else TASK_LOSSES[task]
    if loss not in valid:
        where = f"model = '{model}'" if reconstructs or task == "classification" else f"task = '{task}'"
        raise ConfigError(f"loss = '{loss}': under {where} it must be {' or '.join(valid)}")
    if reconstructs and loss == "binary_cross_entropy" and values["input_scaling"] != "unit":
        raise ConfigError(
            f"loss = '{loss}': its targets lie from 0 to 1, but input_scaling is '{values['input_scaling']}'; "
            "set input_scaling = 'unit'"
        )


def _check_combination(values: Values, models: Models) -> None:
    """Check the rules that concern several parameters."""
    _check_loss(values, models)
    rate, ratio = values["final_learning_rate"], values["final_learning_rate_ratio"]
    if SCHEDULES[values["schedule"]].final_above_zero and not (ratio if rate is None else rate):
        raise ConfigError(f"schedule = '{values['schedule']}': its final learning rate must be above 0, but got 0")
    if values["validation"] >= 1 and values["validation"] != int(values["validation"]):
        raise ConfigError(f"validation = {values['validation']}: from 1 on it is a count, and must be a whole number")
    own = _own_parameters()
    if (values["precision"], values["optimizer"]) == ("float16", "lbfgs") and own["precision"].effect.holds(
        values, models
    ):
        raise ConfigError("precision = 'float16': its losses are scaled, which lbfgs cannot have; use bfloat16")
    if values["batch_size"] == 1 and (normalises := _find_normalisation(values, models)):
        raise ConfigError(f"batch_size = 1: {normalises} needs at least 2 samples in a batch")


def _find_normalisation(values: Values, models: Models) -> str | None:
    """Return what normalises each batch, or None."""
    if values["batch_norm"] and _own_parameters()["batch_norm"].effect.holds(values, models):
        return "batch_norm"
    return "model = 'resnet_tabular'" if values["model"] == "resnet_tabular" and values["depth"] else None


def is_shared(name: str) -> bool:
    """Return whether a parameter is ours, and not a registered model's own."""
    return name in _own_parameters()


@cache
def _own_parameters() -> dict[str, Parameter]:
    return {name: parameter_from_field(name, info) for name, info in TrialConfig.model_fields.items()}


def model_parameters(model: ModelTraits) -> dict[str, Parameter]:
    """Return the extra parameters that a model declares.

    Raises:
        ConfigError: one of them has the name of one of ours and no domain, no default, or an impossible type.
    """
    rows = {name: row for name, row in _read_rows(model).items() if not is_shared(name)}
    return {name: replace(row, group=model.name, effect=when_model_is(model.name)) for name, row in rows.items()}


def shared_parameters(model: ModelTraits) -> dict[str, Parameter]:
    """Return the parameters of ours for which a model declares a domain, with that and its default.

    Raises:
        ConfigError: one has another type than ours.
    """
    shared: dict[str, Parameter] = {}
    for name, declared in _read_rows(model).items():
        if not is_shared(name) or name == "model":
            continue
        ours = _own_parameters()[name]
        if declared.kind is not ours.kind:
            raise ConfigError(
                f"model '{model.name}': its parameter '{name}' is {declared.type_text}, but the shared one is "
                f"{ours.type_text}"
            )
        shared[name] = replace(ours, default=declared.default, domain=declared.domain)
    return shared


@lru_cache(1000)
def _read_rows(model: ModelTraits) -> Mapping[str, Parameter]:
    """Return all parameters that a model declares, ours as well."""
    declared = model.parameters or {}
    rows = declared if isinstance(declared, Mapping) else _read_fields(model.name, declared)
    for name, row in rows.items():
        if is_shared(name) and row.domain is None:
            raise ConfigError(
                f"model '{model.name}': its parameter '{name}' is one of ours already; give it a domain: hpo.Float(…)"
            )
    return rows


def _read_fields(model: str, declared: type[BaseModel]) -> dict[str, Parameter]:
    for name, info in declared.model_fields.items():
        if info.default is PydanticUndefined and info.default_factory is None:
            raise ConfigError(f"model '{model}': its parameter '{name}' needs a default")
    return {name: parameter_from_field(name, info) for name, info in declared.model_fields.items()}


def _gained_parameters(model: ModelTraits, table: Mapping[str, Parameter]) -> dict[str, Value | None]:
    """Return parameters that a declared model's code has gained since, with their defaults: its function reads them.

    They are attributes of the configuration, but no parameters of its study.
    """
    entry = registry.models.find(model.name)
    if entry is None or entry is model:
        return {}
    return {name: row.default for name, row in model_parameters(entry).items() if name not in table}


def all_parameters(models: Iterable[str] = (), declared: Models = registry.models) -> dict[str, Parameter]:
    """Return every parameter by name: ours, then the extra ones of the named models, which `declared` knows.

    Raises:
        RegistryError: a model is not registered.
        ConfigError: two models declare the same extra parameter differently.
    """
    return dict(_make_table(tuple(declared.get(model) for model in models)))


@lru_cache(1000)
def _make_table(entries: tuple[ModelTraits, ...]) -> Mapping[str, Parameter]:
    loops = any(entry.loop for entry in entries)
    table = dict(_own_parameters())
    if loops:
        table = {name: replace(row, effect=restrict_to_loops(name, row.effect)) for name, row in table.items()}
    if len(entries) == 1:
        shared = shared_parameters(entries[0])
        table |= {name: replace(row, effect=table[name].effect) for name, row in shared.items()}
    for entry in entries:
        for name, parameter in model_parameters(entry).items():
            if name in table:
                raise ConfigError(
                    f"parameter '{name}' is declared by two models, {table[name].group} and {entry.name}; rename one"
                )
            table[name] = parameter
    return table


def _may_matter(parameter: Parameter, model: str) -> bool:
    """Return whether some values of the other parameters give this one an effect under the model of that name."""
    entry = registry.models.get(model)
    if entry.loop:
        return parameter.name in entry.uses | LOOP_PARAMETERS or parameter.group == model
    probe = {name: row.default for name, row in _own_parameters().items()} | {"model": model}
    effect = parameter.effect
    # Every rule over the model is monotone in depth, and `widths` only ever replaces what depth decides.
    probes = product((None, "1"), (None, "periodic", "piecewise_linear"))
    return "model" not in effect.parents or any(
        effect.holds(probe | {"depth": 16, "widths": widths, "numeric_embedding": embedding}, registry.models)
        for widths, embedding in probes
    )


def parameter_rows(model: str | None = None) -> list[dict[str, Any]]:
    """Return a row for each parameter; with a model's name, for those alone that can have an effect under it.

    Raises:
        RegistryError: the model is not registered.
    """
    table = all_parameters(registry.models.names() if model is None else [model])
    return [
        {
            "group": row.group,
            "name": row.name,
            "type": row.type_text,
            "default": row.default,
            "bounds": row.bounds,
            "effect": row.effect.text,
            "help": row.help,
        }
        for row in table.values()
        if model is None or _may_matter(row, model)
    ]
