"""Notices of options that change nothing, or no good, in trainings as short and small as a study's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from hpo.config.choices import FINAL
from hpo.config.model_library import find_library
from hpo.config.trial_config import TrialConfig
from hpo.config.values import Value
from hpo.study import Definition
from hpo.training.schedules import plateau_patience
from hpo.utils.text import quantity

__all__ = ["explain_training"]

MOST_OF_FIRST = 0.1  # share of an average that the weights of the first step may have at the end


@dataclass(frozen=True)
class Training:
    """Training of a configuration.

    Attributes:
        config: of the trial.
        batches: in an epoch; None where the number of samples is not known.
    """

    config: TrialConfig
    batches: int | None

    @property
    def steps(self) -> int | None:
        """Steps of the optimizer in all epochs."""
        return None if self.batches is None else self.config.epochs * -(-self.batches // self.config.batches_per_step)

    @cached_property
    def values(self) -> dict[str, Value]:
        """The parameters that have an effect."""
        return self.config.effective()

    @property
    def epochs(self) -> str:
        """The number of epochs in words."""
        return quantity(self.config.epochs, "epoch")


def explain_training(definition: Definition) -> Iterator[str]:
    """Yield a line for each kind of option that some configuration of a study's space has for nothing.

    Training loops of the user's own, which decide themselves what an epoch and a step are, are left out.
    """
    if not definition.configured:
        return
    configs: list[TrialConfig] = []
    definition.space.check(configs.append)
    trainings = [
        Training(config, _count_batches(definition, config))
        for config in configs
        if not config._models.get(config.model).loop
    ]
    for explain in EXPLANATIONS:
        lines = [line for each in trainings if (line := explain(each))]
        if lines:
            yield f"{'' if len(lines) == len(trainings) else 'in some configurations, '}{lines[0]}"
    decays = [each for each in trainings if _final_rate_name(each) is not None]
    if decays and all(each.config.final_rate > each.config.learning_rate for each in decays):
        yield _explain_rise(decays[0])


def _count_batches(definition: Definition, config: TrialConfig) -> int | None:
    """Count the batches of an epoch, as `hpo.training.data.Data.steps` does; None where the data are not known."""
    dataset, division, share = definition.dataset, definition.fits[0].division, config.validation
    if dataset.samples is None:
        return None
    samples = dataset.samples
    if division is not None and division.kind == "fold":
        samples -= samples // division.count
    elif division is not None or not dataset.own_validation:
        samples -= int(share) if share >= 1 else round(share * samples)
    whole, rest = divmod(max(samples, 1), config.batch_size)
    return whole + (rest > 1 or whole == 0)


def _explain_swa(training: Training) -> str | None:
    config = training.config
    if training.values.get("weight_averaging") != "swa" or config.first_averaged_epoch < config.epochs:
        return None
    return (
        f"swa_start = {config.swa_start:g} of {training.epochs}: swa averages the last epoch alone, which is the same "
        "as none; lower it, or train for longer"
    )


def _explain_ema(training: Training) -> str | None:
    config, steps = training.config, training.steps
    if training.values.get("weight_averaging") != "ema" or steps is None:
        return None
    share = config.ema_decay ** (steps - 1)  # the average begins with the weights after the first step
    if share <= MOST_OF_FIRST:
        return None
    return (
        f"ema_decay = {config.ema_decay:g} over {quantity(steps, 'step')}: at the end, {100 * share:.0f} % of the "
        "average are the weights of the first step; choose a lower one"
    )


def _explain_asgd(training: Training) -> str | None:
    config, steps = training.config, training.steps
    if config.optimizer != "asgd" or steps is None or config.asgd_start < steps:
        return None
    return f"asgd_start = {config.asgd_start} of {quantity(steps, 'step')}: asgd averages nothing; choose a lower one"


def _explain_warmup(training: Training) -> str | None:
    config, values, steps = training.config, training.values, training.steps
    if "warmup_steps" in values and steps is not None and (config.warmup_steps or 0) >= steps:
        length = f"warmup_steps = {config.warmup_steps} of {quantity(steps, 'step')}"
    elif "warmup_epochs" in values and (config.warmup_epochs or 0) >= config.epochs:
        length = f"warmup_epochs = {config.warmup_epochs:g} of {training.epochs}"
    else:
        return None
    return f"{length}: the learning rate rises until the end, and its schedule never begins"


def _explain_step(training: Training) -> str | None:
    config = training.config
    if config.schedule != "step" or config.step_epochs is None or config.step_epochs < config.epochs:
        return None
    return f"step_epochs = {config.step_epochs} of {training.epochs}: the learning rate never falls"


def _explain_restarts(training: Training) -> str | None:
    config = training.config
    if config.schedule != "cosine_restarts" or config.restart_epochs is None or config.restart_epochs < config.epochs:
        return None
    return f"restart_epochs = {config.restart_epochs} of {training.epochs}: the schedule never restarts"


def _explain_plateau(training: Training) -> str | None:
    config = training.config
    # The first epoch improves, and a fall counts from the epoch after the one that it follows.
    if config.schedule != "reduce_on_plateau" or (patience := plateau_patience(config)) + 2 < config.epochs:
        return None
    return f"plateau_patience = {patience} of {training.epochs}: the learning rate falls too late to count"


def _explain_accumulation(training: Training) -> str | None:
    count, batches = training.config.batches_per_step, training.batches
    if batches is None or count <= batches:
        return None
    return f"gradient_accumulation = {count}, but batches of an epoch = {batches}: the optimizer does one step an epoch"


def _explain_freeze(training: Training) -> str | None:
    config = training.config
    ours = config._models.get(config.model).builtin or find_library(config.model) is not None
    if not ours or config.pretrained is not None or "freeze" not in training.values:
        return None  # a model of the user's own may load weights by itself
    return f"freeze = {config.freeze} without pretrained: the backbone keeps the random weights that it begins with"


def _final_rate_name(training: Training) -> str | None:
    """Return the parameter that gives the final learning rate of a schedule, if it has one."""
    return next((name for name in FINAL if name in training.values), None)


def _explain_rise(training: Training) -> str:
    config, name = training.config, _final_rate_name(training)
    does = "never falls" if config.schedule == "reduce_on_plateau" else "rises instead of falling"
    return (
        f"{name} = {getattr(config, str(name)):g} at learning_rate = {config.learning_rate:g}: under "
        f"schedule = {config.schedule} the learning rate {does}"
    )


EXPLANATIONS: tuple[Callable[[Training], str | None], ...] = (
    _explain_swa,
    _explain_ema,
    _explain_asgd,
    _explain_warmup,
    _explain_step,
    _explain_restarts,
    _explain_plateau,
    _explain_accumulation,
    _explain_freeze,
)
