"""Which trials may be trained at the same time, as one cohort, and which even in one run. Study and training ask."""

from __future__ import annotations

from hpo.config.parameter import Value
from hpo.config.trial_config import TrialConfig

__all__ = ["SHARED", "UNSTACKABLE", "cohort_key", "run_key", "stack_key"]

# What the trials of a cohort have in common, for they see the same batches, in the same order.
SHARED = ("model", "validation", "split_seed", "input_scaling", "batch_size", "seed")
STACKED_MODELS = frozenset({"mlp", "autoencoder"})
UNSTACKABLE = frozenset({"lbfgs"})  # it looks at the batch several times in a step, each model as often as it needs


def stack_key(config: TrialConfig) -> tuple[Value, ...] | None:
    """The values of `SHARED`, equal for all trials of a cohort; None where a trial is trained alone."""
    if config.model not in STACKED_MODELS or config.optimizer in UNSTACKABLE:
        return None
    return tuple(getattr(config, name) for name in SHARED)


def run_key(config: TrialConfig) -> tuple[tuple[str, Value], ...]:
    """Equal for trials that one run answers, to the largest of their `epochs`: they differ in nothing else.

    Where the learning rate depends on how far training has come, that is a different run for each number of epochs.
    """
    values = config.effective()
    if config.schedule == "constant" and not config.warmup:
        values = {name: value for name, value in values.items() if name != "epochs"}
    return tuple(values.items())


def cohort_key(config: TrialConfig) -> tuple[object, ...]:
    """Equal for trials that are trained at the same time: a cohort's, or those that one run answers."""
    return stack_key(config) or run_key(config)
