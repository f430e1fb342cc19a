"""Tables of optimizers, activations, initialisations, losses and schedules; a new entry adds a choice.

An entry names the torch object that it stands for, and training resolves the name. So the command line can list, check
and sample every choice without waiting for the import of torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

__all__ = [
    "ACTIVATIONS",
    "INITIALISATIONS",
    "LOSSES",
    "OPTIMIZERS",
    "RECONSTRUCTION_LOSSES",
    "SCHEDULES",
    "TASKS",
    "TASK_LOSSES",
    "Direction",
    "Initialisation",
    "Optimizer",
    "Schedule",
    "Task",
]

ADAM: Mapping[str, str | tuple[str, ...]] = {
    "lr": "learning_rate",
    "betas": ("beta1", "beta2"),
    "eps": "epsilon",
    "weight_decay": "weight_decay",
}
SGD: Mapping[str, str | tuple[str, ...]] = {
    "lr": "learning_rate",
    "momentum": "momentum",
    "weight_decay": "weight_decay",
}


# What an optimizer takes that steps along the gradient at a rate of each layer's.
FIRST_ORDER = ("gradient_clip", "layer_learning_rate_decay", "head_learning_rate")


@dataclass(frozen=True)
class Optimizer:
    """Optimizer of torch, and the parameters that it takes.

    Attributes:
        target: dotted name of its class.
        arguments: the parameters that its keyword arguments take their values from; a tuple for a tuple.
        fixed: keyword arguments with values of their own.
        defaults: defaults of parameters under this optimizer, where they differ from the usual ones.
        first_order: whether it steps along the gradient, which can then be clipped, at a rate that may differ by layer.
    """

    target: str
    arguments: Mapping[str, str | tuple[str, ...]]
    fixed: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    defaults: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    first_order: bool = True

    def takes(self, parameter: str) -> bool:
        """Return whether the parameter of that name has an effect under this optimizer."""
        if parameter in FIRST_ORDER:
            return self.first_order
        return any(parameter in ((names,) if isinstance(names, str) else names) for names in self.arguments.values())


OPTIMIZERS: Mapping[str, Optimizer] = MappingProxyType(
    {
        "adam": Optimizer("torch.optim.Adam", ADAM),
        "sgd": Optimizer("torch.optim.SGD", SGD),
        "momentum": Optimizer("torch.optim.SGD", SGD, defaults={"momentum": 0.9}),
        "nesterov": Optimizer("torch.optim.SGD", SGD, fixed={"nesterov": True}, defaults={"momentum": 0.9}),
        "rmsprop": Optimizer("torch.optim.RMSprop", {**SGD, "eps": "epsilon"}),
        "adamw": Optimizer("torch.optim.AdamW", ADAM),
        "nadam": Optimizer("torch.optim.NAdam", ADAM),
        # L-BFGS chooses its own step along the direction, so the gradient's length is not ours to clip.
        # Torch's defaults keep 100 past gradients (430 MB for the MLP 512-256) and, without a line search, lose what
        # they learned on the next batch; learning_rate is the first step the search tries.
        "lbfgs": Optimizer(
            "torch.optim.LBFGS",
            {"lr": "learning_rate"},
            fixed={"history_size": 10, "max_iter": 4, "line_search_fn": "strong_wolfe"},
            first_order=False,
        ),
    }
)

ACTIVATIONS: Mapping[str, str] = MappingProxyType(
    {
        "relu": "torch.nn.ReLU",
        "tanh": "torch.nn.Tanh",
        "sigmoid": "torch.nn.Sigmoid",
        "elu": "torch.nn.ELU",
        "gelu": "torch.nn.GELU",
        "silu": "torch.nn.SiLU",
        "leaky_relu": "torch.nn.LeakyReLU",
    }
)


@dataclass(frozen=True)
class Initialisation:
    """Initialiser of weights; biases start at zero.

    Attributes:
        target: dotted name of torch's function; empty for the weights and biases that PyTorch's layers start with.
        arguments: its keyword arguments.
    """

    target: str
    arguments: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))


INITIALISATIONS: Mapping[str, Initialisation] = MappingProxyType(
    {
        "default": Initialisation(""),
        "xavier": Initialisation("torch.nn.init.xavier_uniform_"),  # Glorot and Bengio, 2010
        "kaiming": Initialisation("torch.nn.init.kaiming_uniform_", {"nonlinearity": "relu"}),  # He et al., 2015
        "normal": Initialisation("torch.nn.init.normal_", {"std": 0.05}),  # the scale of Keras' RandomNormal
        "orthogonal": Initialisation("torch.nn.init.orthogonal_"),  # Saxe et al., 2014
    }
)

Direction = Literal["maximize", "minimize"]  # in which a metric is better
Task = Literal["classification", "multilabel", "regression"]
# The first loss of each is the default.
TASK_LOSSES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "classification": ("cross_entropy", "mse"),
        "multilabel": ("binary_cross_entropy",),
        "regression": ("mse", "mae", "huber", "gaussian_nll"),
    }
)
TASKS = tuple(TASK_LOSSES)
RECONSTRUCTION_LOSSES = ("mse", "binary_cross_entropy")
LOSSES = tuple(dict.fromkeys([*(loss for losses in TASK_LOSSES.values() for loss in losses), *RECONSTRUCTION_LOSSES]))


@dataclass(frozen=True)
class Schedule:
    """Schedule of the learning rate.

    Attributes:
        rate: `(start, final, progress) -> rate`, where progress is 0 at the first step and 1 one past the last. Every
            one is a weighted form that returns `final` exactly at progress 1, in floating point too.
        decays: whether `final` matters.
        takes_warmup: whether a warm-up may precede it.
        final_above_zero: whether `final` must be above 0.
    """

    rate: Callable[[float, float, float], float]
    decays: bool = True
    takes_warmup: bool = True
    final_above_zero: bool = False


def _cosine(start: float, final: float, progress: float) -> float:
    weight = (1 + math.cos(math.pi * progress)) / 2
    return start * weight + final * (1 - weight)


def _one_cycle(start: float, final: float, progress: float) -> float:
    """Rise by a cosine from 1/25 of the rate in the first 30 % of the steps, then fall (Smith and Topin, 2018)."""
    peak = 0.3
    if progress < peak:
        return _cosine(start / 25, start, progress / peak)
    return _cosine(start, final, (progress - peak) / (1 - peak))


SCHEDULES: Mapping[str, Schedule] = MappingProxyType(
    {
        "constant": Schedule(lambda start, _final, _progress: start, decays=False),
        "linear": Schedule(lambda start, final, progress: start * (1 - progress) + final * progress),
        "exponential": Schedule(
            lambda start, final, progress: start ** (1 - progress) * final**progress, final_above_zero=True
        ),
        "cosine": Schedule(_cosine),
        "one_cycle": Schedule(_one_cycle, takes_warmup=False),
    }
)
