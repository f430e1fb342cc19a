"""Keys of configurations that can train together: in one cohort, as stacked models, or even in one run.

Study and training compare them.
"""

from __future__ import annotations

from hpo.config.parameter import Value
from hpo.config.trial_config import TrialConfig, all_parameters

__all__ = ["COHORT_PARAMETERS", "UNSTACKABLE", "cohort_key", "run_key", "stack_key", "used_values"]

# Parameters that the trials of a cohort have in common: they see the same batches, in the same order.
COHORT_PARAMETERS = (
    *("model", "validation", "split_seed", "input_scaling", "batch_size", "seed"),
    *("numeric_scaling", "task", "class_weight"),  # these decide the samples, their labels or weights
)
STACKED_MODELS = frozenset({"mlp", "resnet_tabular", "autoencoder"})
UNSTACKABLE = frozenset({"lbfgs"})  # it looks at the batch several times in a step, each model as often as it needs


def stack_key(config: TrialConfig) -> tuple[Value, ...] | None:
    """Return the values of `COHORT_PARAMETERS`, equal for all trials of a cohort, or None if the model trains alone."""
    if config.model not in STACKED_MODELS or config.optimizer in UNSTACKABLE:
        return None
    return tuple(getattr(config, name) for name in COHORT_PARAMETERS)


def run_key(config: TrialConfig) -> tuple[tuple[str, Value], ...]:
    """Return a key that is equal for trials that a single run, to the largest of their `epochs`, can train.

    They differ in `epochs` alone; under a schedule or a warm-up not even in that, for there the learning rates depend
    on the number of epochs.
    """
    values = config.effective()
    if config.schedule == "constant" and not config.warmup:
        values = {name: value for name, value in values.items() if name != "epochs"}
    return tuple(values.items())


def cohort_key(config: TrialConfig) -> tuple[object, ...]:
    """Return the key shared by trials that train in one cohort, as stacked models or in a single run."""
    return stack_key(config) or run_key(config)


def used_values(config: TrialConfig) -> dict[str, Value]:
    """Return the values of a model's own parameters and of the shared ones that it uses, by name."""
    models = config._models
    entry, table = models.get(config.model), all_parameters([config.model], models)
    own = {name for name, parameter in table.items() if parameter.group == config.model}
    return {name: value for name, value in config.effective().items() if name in entry.uses or name in own}
