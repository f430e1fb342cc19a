"""Parameters that a data set leaves without an effect, for it brings validation samples, or batches, of its own."""

from __future__ import annotations

from hpo.config.values import Value, spell_value
from hpo.space.domains import Choices, Domain, Range
from hpo.study import Definition

__all__ = ["describe_data_parameters"]


def describe_data_parameters(definition: Definition, *, own_validation: bool, batches: bool = False) -> list[str]:
    """Return a line for each parameter of the space that the data set leaves without an effect.

    A training loop of the user's own may do with them what it likes.

    Args:
        definition: of the study.
        own_validation: whether the data set brings validation samples.
        batches: whether its training data are batches.
    """
    space = definition.space
    if any(space.registered.get(model).loop for model in space.models):
        return []
    own_validation &= definition.fits[0].division is None  # which leaves its validation samples out
    whys = dict.fromkeys(("validation", "split_seed"), "validation samples of its own") if own_validation else {}
    whys |= {"batch_size": "batches of its own"} if batches else {}
    lines = []
    for name, why in whys.items():
        values = {value for domain in space.domains.get(name, ()) for value in _list_bounds(domain)}
        if name == "validation":
            values.discard(0)  # which trains on them too
        if values:
            given = f" = {spell_value(values.pop())}" if len(values) == 1 else " is searched, but"
            lines.append(f"{name}{given} has no effect, for {definition.dataset.name} brings {why}")
    return lines


def _list_bounds(domain: Domain) -> tuple[Value, ...]:
    """Return the choices of a domain, or its bounds."""
    if isinstance(domain, Range):
        return domain.low, domain.high
    return domain.values if isinstance(domain, Choices) else (domain.at(0),)
