"""TrialConfig, the configuration of one trial, and the table of all parameters.

The table is made of the fields of `TrialConfig`; a registered model's own parameters, declared as a pydantic model,
are read by the same code and join it. No torch.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping
from dataclasses import replace
from functools import cache, lru_cache
from itertools import product
from typing import Any

from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidationInfo, model_validator
from pydantic_core import PydanticUndefined

from hpo.config import registry
from hpo.config.choices import (
    OPTIMIZERS,
    RECONSTRUCTION_LOSSES,
    SCHEDULES,
    TASK_LOSSES,
)
from hpo.config.effects import (
    LOOP_PARAMETERS,
    Values,
    restrict_to_loops,
    when_model_is,
)
from hpo.config.parameter import Parameter, parameter_from_field, unknown_parameter
from hpo.config.parameter_table.data_parameters import DataParameters
from hpo.config.parameter_table.model_parameters import ModelParameters
from hpo.config.parameter_table.optimizer_parameters import OptimizerParameters
from hpo.config.parameter_table.schedule_parameters import ScheduleParameters
from hpo.config.parameter_table.training_parameters import TrainingParameters
from hpo.config.parameter_table.transfer_parameters import TransferParameters
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
# What a configuration has whose optimizer follows no schedule, whatever else it is given.
UNSCHEDULED = {"schedule": "constant", "warmup": 0.0, "warmup_steps": None, "warmup_epochs": None}


class TrialConfig(
    TrainingParameters, TransferParameters, ScheduleParameters, OptimizerParameters, ModelParameters, DataParameters
):  # the last one's fields come first
    """Configuration of one trial, checked against the table of parameters.

    A registered model's own parameters are attributes as well: `config.blocks`.

    Raises:
        ConfigError: a name is unknown, or a value is invalid; the message names the parameter, its value, what is valid
            and the closest valid name.
    """

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())

    _models: Models = PrivateAttr(default_factory=lambda: registry.models)

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
        for name, default in OPTIMIZERS[resolved["optimizer"]].defaults.items():
            if name not in values and table[name].domain is None:  # a model's own default counts before
                resolved[name] = default
        if not OPTIMIZERS[resolved["optimizer"]].takes("schedule"):
            resolved |= UNSCHEDULED
        if resolved["gamma"] is None:
            resolved["gamma"] = SCHEDULES[resolved["schedule"]].defaults.get("gamma")
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
    def batches_per_step(self) -> int:
        """Batches of a step of the optimizer."""
        takes = OPTIMIZERS[self.optimizer].takes("gradient_accumulation")
        return (self.gradient_accumulation or 1) if takes else 1

    @property
    def rates_depend_on_epochs(self) -> bool:
        """True if another number of epochs would change the learning rates of those that both have."""
        if self.warmup_steps is None and self.warmup_epochs is None and self.warmup:
            return True
        fixed_by = SCHEDULES[self.schedule].fixed_by
        return fixed_by is None or any(getattr(self, name) is None for name in fixed_by)

    @property
    def ends_at_final_rate(self) -> bool:
        """True if the schedule decays to `final_rate`, which the step after the last has exactly."""
        by_gamma = self.schedule == "exponential" and self.gamma is not None
        return SCHEDULES[self.schedule].ends_at_final and not by_gamma

    @property
    def final_rate(self) -> float:
        """Learning rate one step after the last, if the schedule decays to it."""
        return (
            self.learning_rate * self.final_learning_rate_ratio
            if self.final_learning_rate is None
            else self.final_learning_rate
        )

    @property
    def averaging(self) -> str | None:
        """Average of weights that is evaluated: a `weight_averaging` that has an effect, or None."""
        named = self.weight_averaging
        return named if named is not None and "weight_averaging" in self.effective() else None

    @property
    def averages_weights(self) -> bool:
        """True if the weights that are evaluated are averages, made by the optimizer or by `weight_averaging`."""
        return self.averaging is not None or OPTIMIZERS[self.optimizer].averages

    @property
    def normalises(self) -> bool:
        """True if one of our models normalises each batch; of the user's own it is not known here."""
        return _find_normalisation(self.model_dump(), self._models) is not None

    @property
    def first_averaged_epoch(self) -> int:
        """First epoch, from 1, whose weights are part of the mean of `swa`."""
        # The product of a decimal fraction can lie just below a whole number: 0.29 * 100 is 28.999999999999996.
        return math.floor(self.swa_start * self.epochs + 1e-9) + 1

    @property
    def head_rate_factor(self) -> float:
        """Learning rate of the model's last layer, as a multiple of the others'; 1 where it is the same."""
        if self.head_learning_rate is not None:
            return self.head_learning_rate / self.learning_rate
        return self.head_learning_rate_ratio or 1.0

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
    def integers(self) -> bool:
        """True if the model's samples are whole numbers, which are not scaled."""
        return self._models.get(self.model).integers

    @property
    def _profile(self) -> tuple[int, ...]:
        if self.widths is not None:
            return tuple(int(width) for width in self.widths.split("-"))
        if self.width_profile == "uniform":
            return (self.width,) * self.depth
        decreasing = [max(1, round(self.width * (self.depth - i) / self.depth)) for i in range(self.depth)]
        return tuple(decreasing if self.width_profile == "decreasing" else reversed(decreasing))

    def effective(self, named: Container[str] = ()) -> dict[str, Value]:
        """Return the parameters that have an effect under the others, in the order of the table and in plain form.

        A model's own parameter that is None is `none`. Of ours those are left out, and so are those whose default goes
        without saying where they have it, except the ones named by `named`.
        """
        values, ours, models = self.model_dump(), _own_parameters(), self._models

        def is_said(name: str, parameter: Parameter) -> bool:
            if values[name] is None:
                return (name not in ours or name in named) and parameter.is_off(OFF)
            return name in named or not (parameter.implied and values[name] == parameter.default)

        return {
            name: plain_value(values[name])
            for name, parameter in all_parameters([self.model], models).items()
            if is_said(name, parameter) and parameter.effect.holds(values, models)
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
    decays = SCHEDULES[values["schedule"]].final_above_zero and values["gamma"] is None
    if decays and not (ratio if rate is None else rate):
        raise ConfigError(f"schedule = '{values['schedule']}': its final learning rate must be above 0, but got 0")
    if values["validation"] >= 1 and values["validation"] != int(values["validation"]):
        raise ConfigError(f"validation = {values['validation']}: from 1 on it is a count, and must be a whole number")
    names = (values["augment"] or "").split("+")
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"augment = '{values['augment']}': has {twice[0]} twice; keep one of them")
    own = _own_parameters()
    if all(values[name] and own[name].effect.holds(values, models) for name in ("batch_norm", "layer_norm")):
        raise ConfigError(
            "batch_norm = true, layer_norm = true: a layer is normalised once; turn one of them off, in a search by "
            "when = { batch_norm = false } at layer_norm"
        )
    if values["model"] == "vit" and values["depth"] and values["width"] % values["heads"]:
        raise ConfigError(f"heads = {values['heads']}: must be a divisor of width, which is {values['width']}")
    if (values["precision"], values["optimizer"]) == ("float16", "lbfgs") and own["precision"].effect.holds(
        values, models
    ):
        raise ConfigError("precision = 'float16': its losses are scaled, which lbfgs cannot have; use bfloat16")
    free = values["optimizer"] == "schedule_free_adamw" and own["beta1"].effect.holds(values, models)
    if free and values["beta1"] == 0:
        raise ConfigError("beta1 = 0: schedule_free_adamw needs a number above 0")
    if values["batch_size"] == 1 and (normalises := _find_normalisation(values, models)):
        raise ConfigError(f"batch_size = 1: {normalises} needs at least 2 samples in a batch")


def _find_normalisation(values: Values, models: Models) -> str | None:
    """Return what normalises each batch, or None."""
    if values["batch_norm"] and _own_parameters()["batch_norm"].effect.holds(values, models):
        return "batch_norm"
    normalises = values["model"] == "resnet_tabular" and values["depth"] and not values["layer_norm"]
    return "model = 'resnet_tabular'" if normalises else None


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
        shared[name] = replace(ours, default=declared.default, domain=declared.domain, implied=False)
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
    if entry.integers and parameter.group == "augmentation":  # of images
        return False
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
