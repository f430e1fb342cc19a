"""Defaults of ours that an imported study has, because its file leaves them open."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hpo.config.choices import FINAL, SCHEDULES
from hpo.config.trial_config import TrialConfig, all_parameters
from hpo.config.values import spell_value
from hpo.space.coverage import cover
from hpo.space.space import Space

__all__ = ["describe_defaults"]

# What decides a training most, and the size of each model; it is said where it has an effect.
CORE = ("model", "optimizer", "epochs", "learning_rate", "batch_size")
SIZES = ("depth", "width", "conv_layers", "channels", "dense_width", "latent_size", "token_embedding_size")
# Defaults that follow from the epochs; see `hpo.training.schedules`.
COMPUTED = dict.fromkeys(("step_epochs", "restart_epochs"), "a third of the epochs") | {
    "plateau_patience": "a tenth of the epochs"
}


def describe_defaults(parameters: Mapping[str, Any], space: Space, sought: Sequence[str]) -> Iterator[str]:
    """Yield a line for what a study does not name, and is a default of ours.

    Args:
        parameters: that the study names.
        space: of the study.
        sought: parameters of ours that something in the file was for, and that have not become one.
    """
    said: set[str] = set(parameters)
    for name in _choices(parameters, "schedule"):
        if open_values := dict(_open_values(name, parameters)):
            values = ", ".join(f"{key} = {value}" for key, value in open_values.items())
            yield f"schedule {name}: the file leaves open {values}; --set changes them"
            said |= open_values.keys()
    if "huber" in _choices(parameters, "loss") and "huber_delta" not in said:
        default = f"huber_delta = {all_parameters()['huber_delta'].default:g}, in standard deviations of the target"
        yield f"loss huber: the file leaves open {default}; --set changes it"
        said.add("huber_delta")
    used = _used_values(space)
    said |= {name for name in sought if name not in space.table or space.table[name].default is None}
    names = [name for name in dict.fromkeys((*CORE, *SIZES, *sought)) if name in used and name not in said]
    if names:
        listed = ", ".join(f"{name} = {' or '.join(used[name])}" for name in names)
        yield f"the file leaves these open, and ours are used: {listed}; --set changes them"


def _used_values(space: Space) -> dict[str, list[str]]:
    """Return what the configurations of a space have of every parameter that has an effect in them."""
    used: dict[str, list[str]] = {}
    for values in cover(space):
        config = TrialConfig.of(values, space.registered)
        for name, value in config.effective(named=space.table).items():
            text = spell_value(value)
            if text not in used.setdefault(name, []):
                used[name].append(text)
    return used


def _choices(parameters: Mapping[str, Any], name: str) -> list[str]:
    """Return the values of a parameter of text that a study can take."""
    domain = parameters.get(name, [])
    branches = domain if isinstance(domain, list) and any(isinstance(each, dict) for each in domain) else [domain]
    values: list[Any] = []
    for branch in branches:
        given = branch.get("choices", branch.get("value", [])) if isinstance(branch, dict) else branch
        values += given if isinstance(given, list) else [given]
    return [str(each) for each in dict.fromkeys(values)]


def _open_values(schedule: str, parameters: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """Yield the parameters of a schedule that a study does not name, each with what is used."""
    entry = SCHEDULES.get(schedule)
    if entry is None:
        return
    defaults = {name: row.default for name, row in all_parameters().items()} | dict(entry.defaults) | COMPUTED
    by_gamma = schedule == "exponential" and "gamma" in parameters
    for name in entry.takes:
        given = parameters.keys() & set(FINAL if name in FINAL else (name,))
        is_second = name in FINAL and defaults[name] is None  # the ratio decides
        if not given and not is_second and not (name in FINAL and by_gamma) and defaults[name] is not None:
            yield name, defaults[name]
