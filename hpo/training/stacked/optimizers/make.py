"""Choice of the stacked optimizer that serves members of a stack."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from hpo.config.trial_config import TrialConfig
from hpo.training.optimizers import has_layer_rates
from hpo.training.stacked.optimizers.adam import Adam
from hpo.training.stacked.optimizers.adaptive import Adadelta, Adagrad, RMSprop
from hpo.training.stacked.optimizers.base import StackedOptimizer
from hpo.training.stacked.optimizers.descent import ASGD, SGD, Rprop
from hpo.training.stacked.optimizers.moments import Adamax, Lion, NAdam, RAdam
from hpo.training.stacked.optimizers.schedule_free import ScheduleFreeAdamW

__all__ = ["make_stacked_optimizer", "optimizer_family"]

Make = Callable[[Sequence[TrialConfig], Sequence[Tensor], Sequence[Sequence[int]]], StackedOptimizer]

OPTIMIZERS: Mapping[str, Make] = {
    "sgd": SGD,
    "asgd": ASGD,
    "rprop": Rprop,
    "rmsprop": RMSprop,
    "adagrad": Adagrad,
    "adadelta": Adadelta,
    "adam": Adam,
    "adamw": Adam,
    "nadam": NAdam,
    "adamax": Adamax,
    "radam": RAdam,
    "lion": Lion,
    "schedule_free_adamw": ScheduleFreeAdamW,
}


def optimizer_family(config: TrialConfig) -> str:
    """Return the family of a configuration's optimizer, which one stacked optimizer serves.

    `descent` is SGD that has no state and changes no gradient.
    """
    kind = "sgd" if config.optimizer in ("sgd", "momentum", "nesterov") else config.optimizer
    even = not has_layer_rates(config) and config.batches_per_step == 1
    plain = even and not (config.momentum or config.weight_decay or config.gradient_clip)
    return "descent" if kind == "sgd" and plain else kind


def make_stacked_optimizer(
    configs: Sequence[TrialConfig], parameters: Sequence[Tensor], below: Sequence[Sequence[int]]
) -> StackedOptimizer | None:
    """Make the optimizer of members of one family; None for `descent`, whose step is a part of backpropagation.

    Args:
        configs: the members.
        parameters: the stacked weights, (members, outputs, inputs) each; the first members of the stack have them.
        below: layers between each parameter and the output, for each member that has the parameter.
    """
    kind = optimizer_family(configs[0])
    return None if kind == "descent" else OPTIMIZERS[kind](configs, parameters, below)
