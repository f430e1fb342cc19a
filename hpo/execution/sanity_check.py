"""Sanity check of a study before it exists: its data set, and a training step of every kind of configuration."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from hpo.config import registry
from hpo.config.parameter import Value
from hpo.config.trial_config import TrialConfig
from hpo.errors import ConfigError, DataError, HpoError, OutOfMemoryError, RequestError, UserExitError
from hpo.execution.data_check import check_divisions
from hpo.space.coverage import cover
from hpo.study.definition import Definition
from hpo.training.device import select_device
from hpo.training.settings import TrainSettings
from hpo.training.single_step import SAMPLES, StepTrainer
from hpo.utils.text import locate_error, summarize_error

__all__ = ["check_study"]

SECONDS = 20.0  # after which no further configuration is tried


@dataclass
class _ModelCheck:
    """Check of one model: its configurations, the last of them first, and what has come of those that were tried."""

    model: str
    left: list[TrialConfig]
    trained: list[TrialConfig] = field(default_factory=list)
    too_large: int = 0
    finite: bool = False  # the loss before the step, in one of them at least

    @property
    def loop(self) -> bool:
        """True of a training loop of the user's own."""
        return registry.models.get(self.model).loop


def check_study(definition: Definition, device: str = "auto") -> list[str]:
    """Load a study's data set, and train a step of every kind of configuration in its space on a few samples.

    Kinds are the choices and bounds of `hpo.space.coverage.cover`, the baseline and the warm starts. An error counts
    once it has come again with as many samples as a trial has. Lack of memory is none: it prunes a trial, not a study.
    A training loop of the user's own is run until it reports for the first time; one that reads data of its own is not,
    for it would train on all of them, and only its signature is checked.

    Args:
        definition: of the study.
        device: where its trials are trained.

    Returns:
        A line for each model, which says what was tried.

    Raises:
        RequestError: the data set, a model, a loss or a metric raises an error; the line has the model, the parameters
            and the user's own line.
    """
    checks = _group_by_model(_list_kinds(definition))
    for check in checks:
        _check_signature(check.model)
    if definition.dataset.name == registry.NO_DATA:
        return [f"tried {check.model}: its signature alone, for it reads data of its own" for check in checks]
    trainer = _make_trainer(definition, device)
    check_divisions(definition, trainer.dataset)
    until = time.monotonic() + SECONDS
    while (left := [check for check in checks if check.left]) and time.monotonic() < until:
        for check in left:  # one of each model in turn
            _try_next(check, trainer)
    for check in checks:
        _check_finite(check, definition.dataset.name)
    return [_describe(check) for check in checks]


def _make_trainer(definition: Definition, device: str) -> StepTrainer:
    """Return a trainer with a study's data set, monitor and metrics."""
    objective = definition.objectives[0]
    settings = TrainSettings(
        monitor=objective.metric,
        direction=objective.direction,
        metrics=[registry.metrics.get(name) for name in definition.metrics],
        record_steps=definition.record_steps,
    )
    return StepTrainer(definition.dataset, settings, select_device(device), definition.fits[0].division)


def _list_kinds(definition: Definition) -> list[TrialConfig]:
    """Return configurations that together have every kind of value, and those that the study begins with."""
    space = definition.space
    configs = [definition.config(values) for values in cover(space)]
    if definition.baseline is not None:
        configs.append(definition.baseline_config(space))
    for table in definition.warm_start:
        values: dict[str, Any] = {**configs[0].effective(), **table}
        configs.append(definition.config(values))
    return configs


def _group_by_model(configs: Iterable[TrialConfig]) -> list[_ModelCheck]:
    groups: dict[str, list[TrialConfig]] = {}
    for config in configs:
        groups.setdefault(config.model, []).append(config)
    return [_ModelCheck(model, group[::-1]) for model, group in groups.items()]


def _check_signature(model: str) -> None:
    """Refuse a function of the user's that cannot be called as its kind is."""
    entry = registry.models.get(model)
    if isinstance(entry.target, str):
        return
    arguments = ("trial",) if entry.loop else ("config", "shape", "classes")
    try:
        inspect.signature(entry.target).bind(*arguments)
    except TypeError:
        takes = ", ".join(map(str, inspect.signature(entry.target).parameters.values()))
        kind = "training loop" if entry.loop else "model"
        raise RequestError(f"{kind} '{model}': takes ({takes}), but is called with ({', '.join(arguments)})") from None
    except ValueError:  # of a builtin, whose signature is not known
        return


def _try_next(check: _ModelCheck, trainer: StepTrainer) -> None:
    """Try the next configuration of a model.

    Raises:
        RequestError: it cannot be trained.
    """
    config = check.left.pop()
    try:
        result = trainer.train(config, few=True)
    except OutOfMemoryError:
        check.too_large += 1
        return
    except Exception:  # few samples may be too few for a metric
        error = _find_error(config, trainer)
        if error is not None:
            raise _blame(check, config, error, trainer) from error
        result = None
    check.trained.append(config)
    check.finite |= result is None or not result.history or math.isfinite(result.history[0]["train_loss"])


def _find_error(config: TrialConfig, trainer: StepTrainer) -> Exception | None:
    """Return the error that a configuration raises on as many samples as in a trial."""
    try:
        trainer.train(config, few=False)
    except OutOfMemoryError:
        return None
    except Exception as error:
        return error
    return None


def _blame(check: _ModelCheck, config: TrialConfig, error: Exception, trainer: StepTrainer) -> RequestError:
    """Return the error of a study that has a configuration like this one: which model, parameters and line."""
    if isinstance(error, ConfigError | DataError) and not locate_error(error):
        return type(error)(str(error))  # about the request itself: it names what is wrong
    works = (other for other in check.left[::-1] if _find_error(other, trainer) is None)
    reference = check.trained[0] if check.trained else next(works, None)
    values = {} if reference is None else _find_cause(config, reference, trainer)
    given = ", ".join(f"{name} = {value}" for name, value in values.items())
    kind = "training loop" if check.loop else "model"
    why = str(error) if isinstance(error, HpoError) else summarize_error(error)
    for each in ("model", "objective"):  # which the line begins with
        why = why.removeprefix(f"{each} '{check.model}': ")
    line = "" if isinstance(error, UserExitError) else locate_error(error)  # an exit's message has it
    where = f" ({line})" if line else ""
    return RequestError(f"{kind} '{check.model}'{' with ' + given if given else ''} cannot be trained: {why}{where}")


def _find_cause(config: TrialConfig, reference: TrialConfig, trainer: StepTrainer) -> dict[str, Value]:
    """Return the values by which a configuration fails and another does not: no fewer of them would do.

    One after the other is replaced by the other's, as long as it goes on failing (delta debugging: Zeller, 2002).
    """
    values, other = config.effective(), reference.effective()
    for name in [name for name, value in values.items() if other.get(name) != value]:
        fewer = {key: value for key, value in values.items() if key != name}
        fewer |= {name: other[name]} if name in other else {}
        try:
            candidate = TrialConfig(**fewer)
        except ConfigError:
            continue
        if _find_error(candidate, trainer) is not None:
            values = fewer
    return {name: value for name, value in values.items() if other.get(name) != value}


def _check_finite(check: _ModelCheck, dataset: str) -> None:
    """Refuse a model whose loss is no number whatever its parameters: each of its trials would be pruned."""
    if check.trained and not check.finite and not check.loop:
        raise RequestError(
            f"model '{check.model}': its loss on data set '{dataset}' is not finite before the first step, whatever "
            "the parameters; look for samples that are not finite"
        )


def _describe(check: _ModelCheck) -> str:
    """Say what was tried of a model, and what was not."""
    count = len(check.trained)
    tried = f"{count} configuration{'' if count == 1 else 's'}"
    done = f"{tried} to the first report" if check.loop else f"one training step of {tried}"
    more = [f"{check.too_large} out of memory"] if check.too_large else []
    more += [f"{len(check.left)} not tried within {SECONDS:g} s"] if check.left else []
    return f"tried {check.model}: {', '.join([f'{done}, on up to {SAMPLES} samples', *more])}"
