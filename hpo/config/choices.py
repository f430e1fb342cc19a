"""Tables of optimizers, activations, initialisations, losses and schedules; a new entry adds a choice.

An entry names the torch object that it stands for, and training resolves the name. So the command line can list, check
and sample every choice without waiting for the import of torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

__all__ = [
    "ACTIVATIONS",
    "AUGMENTATIONS",
    "FINAL",
    "INITIALISATIONS",
    "LOSSES",
    "OPTIMIZERS",
    "RECONSTRUCTION_LOSSES",
    "SCHEDULES",
    "TASKS",
    "TASK_LOSSES",
    "WEIGHT_AVERAGES",
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
FIRST_ORDER = ("layer_learning_rate_decay", "head_learning_rate", "gradient_accumulation")


@dataclass(frozen=True)
class Optimizer:
    """Optimizer of torch, and the parameters that it takes.

    Attributes:
        target: dotted name of its class.
        arguments: the parameters that its keyword arguments take their values from; a tuple for a tuple.
        fixed: keyword arguments with values of their own.
        defaults: defaults of parameters under this optimizer, where they differ from the usual ones.
        first_order: whether it steps along the gradient, which can then be clipped, and be that of several batches, at
            a rate that may differ by layer.
        signs: whether only the signs of the gradient's numbers count, so that clipping it changes nothing.
        averages: whether it averages weights by itself, with which models are then evaluated.
        keeps_rate: whether only the learning rate of the first step counts, so that no schedule has an effect.
        extra: the extra of this package that installs the optimizer's own; empty where torch, or we, have it.
    """

    target: str
    arguments: Mapping[str, str | tuple[str, ...]]
    fixed: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    defaults: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    first_order: bool = True
    signs: bool = False
    averages: bool = False
    keeps_rate: bool = False
    extra: str = ""

    def takes(self, parameter: str) -> bool:
        """Return whether the parameter of that name has an effect under this optimizer."""
        if parameter == "gradient_clip":
            return self.first_order and not self.signs
        if parameter in FIRST_ORDER:
            return self.first_order
        if parameter == "weight_averaging":
            return not self.averages
        if parameter == "schedule":
            return not self.keeps_rate
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
        "adagrad": Optimizer(
            "torch.optim.Adagrad",
            {"lr": "learning_rate", "eps": "epsilon", "weight_decay": "weight_decay"},
            defaults={"learning_rate": 0.01, "epsilon": 1e-10},
        ),
        "adadelta": Optimizer(
            "torch.optim.Adadelta",
            {"lr": "learning_rate", "rho": "rho", "eps": "epsilon", "weight_decay": "weight_decay"},
            defaults={"learning_rate": 1.0, "epsilon": 1e-6},
        ),
        "adamax": Optimizer("torch.optim.Adamax", ADAM, defaults={"learning_rate": 0.002}),
        "radam": Optimizer("torch.optim.RAdam", ADAM),
        "asgd": Optimizer(
            "torch.optim.ASGD",
            {
                "lr": "learning_rate",
                "lambd": "asgd_decay",
                "alpha": "asgd_power",
                "t0": "asgd_start",
                "weight_decay": "weight_decay",
            },
            defaults={"learning_rate": 0.01},
            averages=True,
        ),
        "rprop": Optimizer(
            "torch.optim.Rprop",
            {"lr": "learning_rate"},
            defaults={"learning_rate": 0.01},
            signs=True,
            keeps_rate=True,
        ),
        "lion": Optimizer(
            "hpo.training.optimizers.Lion",
            {"lr": "learning_rate", "betas": ("beta1", "beta2"), "weight_decay": "weight_decay"},
            defaults={"learning_rate": 1e-4, "beta2": 0.99},
        ),
        "schedule_free_adamw": Optimizer(
            "schedulefree.AdamWScheduleFree",
            ADAM,
            defaults={"learning_rate": 0.0025},
            averages=True,
            extra="schedulefree",
        ),
    }
)

AUGMENTATIONS = ("flip", "crop", "cutout", "randaugment")
# Averages of weights, with which models are evaluated: exponential moving, of steps; and stochastic, of epochs.
WEIGHT_AVERAGES = ("ema", "swa")

ACTIVATIONS: Mapping[str, str] = MappingProxyType(
    {
        "relu": "torch.nn.ReLU",
        "tanh": "torch.nn.Tanh",
        "sigmoid": "torch.nn.Sigmoid",
        "elu": "torch.nn.ELU",
        "gelu": "torch.nn.GELU",
        "silu": "torch.nn.SiLU",
        "leaky_relu": "torch.nn.LeakyReLU",
        "mish": "torch.nn.Mish",  # Misra, 2019
        "hardswish": "torch.nn.Hardswish",  # Howard et al., 2019
        "softplus": "torch.nn.Softplus",
        "selu": "torch.nn.SELU",  # Klambauer et al., 2017
        "prelu": "torch.nn.PReLU",  # He et al., 2015: with a slope that each layer learns
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


FINAL = ("final_learning_rate", "final_learning_rate_ratio")


@dataclass(frozen=True)
class Schedule:
    """Schedule of the learning rate: the parameters that it takes. `hpo.training.schedules` has the formulas.

    Attributes:
        takes: its parameters beside the learning rate and the warm-up.
        defaults: defaults of parameters under this schedule, where they differ from the usual ones.
        fixed_by: the parameters that, where all are given, fix its rates whatever the number of epochs; None if none
            do.
        ends_at_final: whether the step after the last has the final learning rate, unless it decays by `gamma`.
        takes_warmup: whether a warm-up may precede it.
        final_above_zero: whether the final learning rate must be above 0.
    """

    takes: tuple[str, ...] = ()
    defaults: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    fixed_by: tuple[str, ...] | None = None
    ends_at_final: bool = False
    takes_warmup: bool = True
    final_above_zero: bool = False


SCHEDULES: Mapping[str, Schedule] = MappingProxyType(
    {
        "constant": Schedule(fixed_by=()),
        "linear": Schedule(FINAL, ends_at_final=True),
        "exponential": Schedule(("gamma", *FINAL), fixed_by=("gamma",), ends_at_final=True, final_above_zero=True),
        "cosine": Schedule(FINAL, ends_at_final=True),
        "one_cycle": Schedule(FINAL, ends_at_final=True, takes_warmup=False),
        "step": Schedule(("step_epochs", "gamma"), {"gamma": 0.1}, ("step_epochs",)),
        "polynomial": Schedule(("polynomial_power", *FINAL), ends_at_final=True),
        "cosine_restarts": Schedule(("restart_epochs", "restart_factor", *FINAL), fixed_by=("restart_epochs",)),
        "reduce_on_plateau": Schedule(
            ("plateau_patience", "gamma", "final_learning_rate"), {"gamma": 0.1}, ("plateau_patience",)
        ),
    }
)
