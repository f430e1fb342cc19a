"""Keys of configurations that can train together: on the same batches, as stacked models, or even in one run.

Study and training compare them.
"""

from __future__ import annotations

from hpo.config.augmentation import augmentation_key
from hpo.config.model_library import find_library
from hpo.config.parameter import Value
from hpo.config.trial_config import TrialConfig, all_parameters

__all__ = [
    "AVERAGES_ALONE",
    "BATCH_PARAMETERS",
    "UNSTACKABLE",
    "batch_key",
    "is_measured",
    "run_key",
    "stack_key",
    "used_values",
    "why_unstackable",
]

# What decides which samples a model sees and when, their labels and their weights.
BATCH_PARAMETERS = (
    *("validation", "seed_of_split", "input_scaling", "numeric_scaling", "task", "class_weight"),
    *("batch_size", "seed_of_order"),
)
CONVOLUTIONAL = frozenset({"cnn"})  # of our models: a CPU is no faster with several at a time, a GPU may be
TRANSFORMERS = frozenset({"vit"})  # of our models: whether a stack is faster depends on their size
UNSTACKABLE = frozenset({"lbfgs"})  # it looks at the batch several times in a step, each model as often as it needs

AVERAGES_ALONE = "batch normalisation of averaged weights is measured one model at a time"


def batch_key(config: TrialConfig) -> tuple[Value, ...]:
    """Return a key that is equal for trials that see the same batches, in the same order."""
    return *(getattr(config, name) for name in BATCH_PARAMETERS), *augmentation_key(config)


def stack_key(config: TrialConfig, device: str = "cpu") -> tuple[Value, ...] | None:
    """Return a key that is equal for trials whose models may be one stack, or None if the model trains alone.

    They may see batches of their own, but do as many steps in an epoch, which training knows; see
    `hpo.training.stacked.learner`.

    Args:
        config: of the trial.
        device: the type of the device that trains it.
    """
    if why_unstackable(config, device) is not None:
        return None
    if config._models.get(config.model).loop:  # it goes through the batches of one of them with all
        return config.model, *batch_key(config)
    accumulated = () if config.batches_per_step == 1 else (config.batches_per_step,)
    return config.model, config.task, config.batch_size, *accumulated


def is_measured(config: TrialConfig) -> bool:
    """Return whether a model is stacked only where a measurement shows a gain: the user's own, and those of images."""
    return not config._models.get(config.model).builtin or config.model in CONVOLUTIONAL | TRANSFORMERS


def why_unstackable(config: TrialConfig, device: str = "cpu") -> str | None:
    """Return in one phrase why a configuration is trained alone, as far as that can be told without its module.

    Those for which `is_measured` holds are checked further: see `hpo.training.stacked.check`.

    Args:
        config: of the trial.
        device: the type of the device that trains it.
    """
    entry, values = config._models.get(config.model), config.effective()
    if entry.loop:
        return None if entry.stack else "its loop does not ask for stacks (stack=True)"
    if (library := find_library(config.model)) is not None:
        return f"it is a model of {library.package}"
    if values.get("freeze"):
        return "the frozen part of a model is not stacked"
    if config.model in CONVOLUTIONAL and device == "cpu":
        return "stacked convolutions are no faster"
    if entry.builtin and entry.integers:  # text_classifier
        return "it computes a batch of texts only as far as its longest"
    if config.optimizer in UNSTACKABLE:
        return f"{config.optimizer} looks at a batch several times in a step"
    if config.averages_weights and config.normalises:
        return AVERAGES_ALONE
    if values.get("precision") == "float16":
        return "float16 scales each model's losses in steps of its own"
    return None


def run_key(config: TrialConfig) -> tuple[tuple[str, Value], ...]:
    """Return a key that is equal for trials that a single run, to the largest of their `epochs`, can train.

    They differ in `epochs` alone; not even in that where learning rates, or which epochs are averaged, depend on the
    number of epochs.
    """
    values = config.effective()
    if not config.rates_depend_on_epochs and config.averaging != "swa":
        values = {name: value for name, value in values.items() if name != "epochs"}
    return tuple(values.items())


def used_values(config: TrialConfig) -> dict[str, Value]:
    """Return the values of a model's own parameters and of the shared ones that it uses, by name."""
    models = config._models
    entry, table = models.get(config.model), all_parameters([config.model], models)
    own = {name for name, parameter in table.items() if parameter.group == config.model}
    return {name: value for name, value in config.effective().items() if name in entry.uses or name in own}
