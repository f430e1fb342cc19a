"""Effects of parameters: the rules that say when a parameter matters, given the values of the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from hpo.config.choices import OPTIMIZERS, SCHEDULES
from hpo.config.registry import Models

__all__ = [
    "ALWAYS",
    "LOOP_PARAMETERS",
    "WHEN_CLASSES_ARE_WEIGHTED",
    "WHEN_CROSS_ENTROPY",
    "WHEN_GRU_POOLS",
    "WHEN_HEAD_RATIO_DECIDES",
    "WHEN_HUBER",
    "WHEN_IMPROVEMENTS_COUNT",
    "WHEN_INPUTS_ARE_SCALED",
    "WHEN_RATIO_DECIDES",
    "WHEN_SCHEDULE_HAS_FINAL_RATE",
    "WHEN_TASK_IS_OTHER",
    "Effect",
    "Values",
    "restrict_to_loops",
    "when_augmented_by",
    "when_blocks_use",
    "when_hidden_layers_use",
    "when_model_is",
    "when_model_uses",
    "when_numbers_are_embedded",
    "when_optimizer_takes",
    "when_schedule_takes",
    "when_shape_uses",
    "when_warmed_up_by",
    "when_weights_are_averaged",
]

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Effect:
    """Rule for when a parameter has an effect.

    Attributes:
        text: the rule in words.
        parents: the parameters that decide.
        holds: the rule itself, over the values of all parameters by name, and the models that these may name.
    """

    text: str
    parents: tuple[str, ...] = ()
    holds: Callable[[Values, Models], bool] = lambda *_: True


ALWAYS = Effect("always")
# These have an effect under every loop of the user's own.
LOOP_PARAMETERS = frozenset({"model", "seed", "init_seed", "order_seed"})


def when_hidden_layers_use(name: str) -> Effect:
    """Return the effect of a parameter of hidden layers: the model says that it uses it, and has such layers."""

    def holds(values: Values, models: Models) -> bool:
        uses = models.get(str(values["model"])).uses
        if name not in uses:
            return False
        if "depth" not in uses or name == "init":
            return True
        return values["depth"] > 0 or ("widths" in uses and values["widths"] is not None)

    return Effect("the model uses it, and has a hidden layer", ("model", "widths", "depth"), holds)


def when_model_uses(name: str) -> Effect:
    """Return the effect of a parameter that matters under the models that say they use it."""
    return Effect(f"the model uses {name}", ("model",), lambda values, models: name in models.get(values["model"]).uses)


def when_shape_uses(name: str, min_depth: int = 0, *, unless_budget: bool = False) -> Effect:
    """Return the effect of a parameter that shapes a dense model of at least `min_depth` hidden layers."""

    def holds(values: Values, models: Models) -> bool:
        uses = models.get(str(values["model"])).uses
        given = values["widths"] is not None and "widths" in uses
        deep = not given and (not min_depth or values["depth"] >= min_depth)
        free = not unless_budget or values["parameter_budget"] is None or "parameter_budget" not in uses
        return name in uses and deep and free

    others = {f"depth >= {min_depth}": "depth"} if min_depth else {}
    others |= {"no parameter_budget": "parameter_budget"} if unless_budget else {}
    return Effect(
        ", ".join(["the model uses it, widths is not given", *others]), ("model", "widths", *others.values()), holds
    )


def when_blocks_use(name: str) -> Effect:
    """Return the effect of a parameter that shapes all blocks of convolutions, where they are not given one by one."""

    def holds(values: Values, models: Models) -> bool:
        uses = models.get(str(values["model"])).uses
        return name in uses and (values["block_channels"] is None or "block_channels" not in uses)

    return Effect("the model uses it, block_channels is not given", ("model", "block_channels"), holds)


def when_numbers_are_embedded(name: str, kind: str | None = None) -> Effect:
    """Return the effect of a parameter of numeric embeddings: of one kind, or of all."""

    def holds(values: Values, models: Models) -> bool:
        given = values["numeric_embedding"]
        return name in models.get(str(values["model"])).uses and given is not None and kind in (None, given)

    text = f"numeric_embedding is {kind or 'given'}"
    return Effect(f"the model uses it, {text}", ("model", "numeric_embedding"), holds)


def when_augmented_by(name: str) -> Effect:
    """Return the effect of a parameter of one of the changes that `augment` names."""
    return Effect(
        f"augment has {name}", ("augment",), lambda v, _: v["augment"] is not None and name in v["augment"].split("+")
    )


def when_optimizer_takes(name: str) -> Effect:
    """Return the effect of a parameter that some optimizers take."""
    takers = [key for key, optimizer in OPTIMIZERS.items() if optimizer.takes(name)]
    others = [key for key in OPTIMIZERS if key not in takers]
    text = f"optimizer is one of {', '.join(takers)}"
    if len(others) <= 2:
        text = f"optimizer is {'not' if len(others) == 1 else 'neither'} {' nor '.join(others)}"
    return Effect(text, ("optimizer",), lambda v, _: OPTIMIZERS[v["optimizer"]].takes(name))


def when_weights_are_averaged(kind: str) -> Effect:
    """Return the effect of a parameter of one kind of weight averaging."""
    return Effect(
        f"weight_averaging is {kind}",
        ("optimizer", "weight_averaging"),
        lambda v, _: v["weight_averaging"] == kind and OPTIMIZERS[v["optimizer"]].takes("weight_averaging"),
    )


@cache
def when_model_is(name: str) -> Effect:
    """Return the effect of a parameter of one model."""
    return Effect(f"model is {name}", ("model",), lambda values, _: values["model"] == name)


def restrict_to_loops(name: str, effect: Effect) -> Effect:
    """Return the effect of a parameter where loops of the user's own may train: there the loop must also use it."""

    def holds(values: Values, models: Models) -> bool:
        entry = models.get(str(values["model"]))
        return (not entry.loop or name in entry.uses | LOOP_PARAMETERS) and effect.holds(values, models)

    parents = effect.parents if "model" in effect.parents or name in LOOP_PARAMETERS else ("model", *effect.parents)
    text = "the model uses it" if effect is ALWAYS and name not in LOOP_PARAMETERS else effect.text
    return Effect(text, parents, holds)


def when_schedule_takes(name: str) -> Effect:
    """Return the effect of a parameter that some schedules take."""
    takers = [key for key, schedule in SCHEDULES.items() if name in schedule.takes]
    text = f"schedule is {'one of ' if len(takers) > 1 else ''}{', '.join(takers)}"
    return Effect(text, ("schedule",), lambda v, _: name in SCHEDULES[v["schedule"]].takes)


def when_warmed_up_by(*others: str) -> Effect:
    """Return the effect of a length of the warm-up: the schedule has one, and it is not given in another unit."""

    def holds(values: Values, _: Models) -> bool:
        optimizer, schedule = OPTIMIZERS[values["optimizer"]], SCHEDULES[values["schedule"]]
        warms = optimizer.takes("schedule") and schedule.takes_warmup
        return warms and all(values[other] is None for other in others)

    text = f", and neither {' nor '.join(others)} is given" if len(others) > 1 else ""
    text = f", and {others[0]} is not given" if len(others) == 1 else text
    text = f"the optimizer follows a schedule, which is not one_cycle{text}"
    return Effect(text, ("optimizer", "schedule", *others), holds)


def _takes_final(values: Values, name: str) -> bool:
    """Return whether a schedule takes that parameter of a final rate; the exponential one decays to it, or by gamma."""
    by_gamma = values["schedule"] == "exponential" and values["gamma"] is not None
    return name in SCHEDULES[values["schedule"]].takes and not by_gamma


WHEN_SCHEDULE_HAS_FINAL_RATE = Effect(
    "the schedule has one, and is not exponential by gamma",
    ("schedule", "gamma"),
    lambda v, _: _takes_final(v, "final_learning_rate"),
)
WHEN_HEAD_RATIO_DECIDES = Effect(
    "the optimizer takes it, and head_learning_rate is not given",
    ("optimizer", "head_learning_rate"),
    lambda v, _: OPTIMIZERS[v["optimizer"]].takes("head_learning_rate") and v["head_learning_rate"] is None,
)
WHEN_RATIO_DECIDES = Effect(
    "the schedule decays to it, and final_learning_rate is not given",
    ("schedule", "gamma", "final_learning_rate"),
    lambda v, _: _takes_final(v, "final_learning_rate_ratio") and v["final_learning_rate"] is None,
)
WHEN_IMPROVEMENTS_COUNT = Effect(
    "patience is on, or schedule is reduce_on_plateau",
    ("patience", "schedule"),
    lambda v, _: v["patience"] > 0 or v["schedule"] == "reduce_on_plateau",
)
WHEN_INPUTS_ARE_SCALED = Effect(
    "the model's samples are not whole numbers",
    ("model",),
    lambda v, models: not models.get(str(v["model"])).integers,
)
# Of a constant that the data set decides; it is shown where it says something.
WHEN_TASK_IS_OTHER = Effect("it is not classification", (), lambda v, _: v["task"] != "classification")
WHEN_GRU_POOLS = Effect(
    "the model uses it, pooling is gru",
    ("model", "pooling"),
    lambda v, models: "gru_size" in models.get(str(v["model"])).uses and v["pooling"] == "gru",
)
WHEN_HUBER = Effect("loss is huber", ("loss",), lambda v, _: v["loss"] == "huber")
WHEN_CLASSES_ARE_WEIGHTED = Effect(
    "samples have classes or labels",
    ("task", "model"),
    lambda v, models: v["task"] != "regression" and not models.get(v["model"]).reconstructs,
)
WHEN_CROSS_ENTROPY = Effect(
    "loss is cross_entropy, of classes",
    ("loss", "task", "model"),
    lambda v, models: (
        v["loss"] == "cross_entropy" and v["task"] == "classification" and not models.get(v["model"]).reconstructs
    ),
)
