"""Keys of configurations that can train together: on the same batches, as stacked models, or even in one run.

Study and training compare them.
"""

from __future__ import annotations

from hpo.config.parameter import Value
from hpo.config.trial_config import TrialConfig

__all__ = ["BATCH_PARAMETERS", "UNSTACKABLE", "batch_key", "run_key", "stack_key"]

# What decides which samples a model sees and when, their labels and their weights.
BATCH_PARAMETERS = (
    *("validation", "seed_of_split", "input_scaling", "numeric_scaling", "task", "class_weight"),
    *("batch_size", "seed"),
)
STACKED_MODELS = frozenset({"mlp", "resnet_tabular", "autoencoder"})
UNSTACKABLE = frozenset({"lbfgs"})  # it looks at the batch several times in a step, each model as often as it needs


def batch_key(config: TrialConfig) -> tuple[Value, ...]:
    """Return a key that is equal for trials that see the same batches, in the same order."""
    return tuple(getattr(config, name) for name in BATCH_PARAMETERS)


def stack_key(config: TrialConfig) -> tuple[Value, ...] | None:
    """Return a key that is equal for trials whose models may be one stack, or None if the model trains alone.

    They may see batches of their own, but do as many steps in an epoch, which training knows; see
    `hpo.training.stacked.learner`.
    """
    if config.model not in STACKED_MODELS or config.optimizer in UNSTACKABLE:
        return None
    return config.model, config.task, config.batch_size


def run_key(config: TrialConfig) -> tuple[tuple[str, Value], ...]:
    """Return a key that is equal for trials that a single run, to the largest of their `epochs`, can train.

    They differ in `epochs` alone; under a schedule or a warm-up not even in that, for there the learning rates depend
    on the number of epochs.
    """
    values = config.effective()
    if config.schedule == "constant" and not config.warmup:
        values = {name: value for name, value in values.items() if name != "epochs"}
    return tuple(values.items())
