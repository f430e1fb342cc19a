"""State of a member of a stack: its part of the optimizer's slots and numbers, and of averages of the weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor

from hpo.training.member import Weights

__all__ = ["Holder", "load_state", "read_state"]

Views = Callable[[int, Sequence[Tensor]], dict[str, Tensor]]  # a member's part of tensors shaped as the parameters


class Holder(Protocol):
    """Holder of state; see `StackedOptimizer`."""

    slots: dict[str, list[Tensor]]
    numbers: dict[str, Tensor]


def read_state(holders: Sequence[Holder | None], index: int, views: Views) -> dict[str, Weights]:
    """Return copies of a member's state: weights by the name of the slot; a number stands under an empty name."""
    state: dict[str, Weights] = {}
    for holder in filter(None, holders):
        for name, slot in holder.slots.items():
            state[name] = {key: view.clone() for key, view in views(index, slot).items()}
        state |= {name: {"": numbers[index].clone()} for name, numbers in holder.numbers.items()}
    return state


def load_state(holders: Sequence[Holder | None], index: int, views: Views, state: dict[str, Weights]) -> None:
    """Load what `read_state` returned; what it does not have stays.

    Raises:
        KeyError: it is of another optimizer.
    """
    slots = {name: slot for holder in filter(None, holders) for name, slot in holder.slots.items()}
    numbers = {name: each for holder in filter(None, holders) for name, each in holder.numbers.items()}
    for name, weights in state.items():
        if name in numbers:
            numbers[name][index].copy_(weights[""])
            continue
        for key, view in views(index, slots[name]).items():
            view.copy_(weights[key])
