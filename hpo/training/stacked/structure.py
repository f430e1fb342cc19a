"""Structure of modules: what those that one stack holds have in common."""

from __future__ import annotations

import zlib
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from hpo.config.cohort_key import used_values
from hpo.config.trial_config import TrialConfig

__all__ = ["DROPOUTS", "attributes_of", "number_structures", "share_name", "structure_of"]

COMMON = frozenset(vars(nn.Module()))  # what every module has, whatever it computes
DROPOUTS = (
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout),
    *(nn.MultiheadAttention, nn.RNN, nn.GRU, nn.LSTM),
)
FLAT = frozenset({"_flat_weights", "_flat_weight_refs"})  # of recurrent layers: their parameters once more
DEEPEST, MOST_ITEMS = 8, 1000  # objects within objects that are compared by what they hold, and items of one of them
CONTAINERS = (list, tuple, set, frozenset, dict)
PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.memory_format)


def structure_of(module: nn.Module) -> Hashable:
    """Return a key that is equal for modules that one stack can hold: of the same parts, with tensors of equal shapes.

    Whatever else a part holds must be equal too: numbers, arrays and texts by their value, a configuration in what its
    model uses, other objects in what pickle would keep of them, or else in being the same one. Shares of torch's
    dropouts may differ.
    """
    parts = module.named_modules(remove_duplicate=False)
    return tuple((name, _class(part), attributes_of(part), _tensors(part)) for name, part in parts), _ties(module)


def number_structures(modules: Sequence[nn.Module]) -> list[int]:
    """Return a number for each module, equal for those of one stack: of one structure, and with the same draws.

    A member's dropouts draw from one generator, also where its share is 0 and another's is not. So that no member's
    draws depend on the others, those that drop at all do so at the same places.
    """
    keys = [(structure_of(module), _dropping(module)) for module in modules]
    first: dict[Hashable, tuple[bool, ...]] = {}
    for structure, drops in keys:
        if any(drops):
            first.setdefault(structure, drops)
    numbers: dict[Hashable, int] = {}
    joined = [(structure, drops if any(drops) else first.get(structure, drops)) for structure, drops in keys]
    return [numbers.setdefault(key, len(numbers)) for key in joined]


def _dropping(module: nn.Module) -> tuple[bool, ...]:
    """Return of each dropout of a module whether its share is above 0."""
    return tuple(bool(getattr(part, name)) for part in module.modules() if (name := share_name(part)) is not None)


def _class(part: nn.Module) -> type:
    """Return a part's class; a parametrisation gives each object one of its own, so it is the one below."""
    return type(part).__bases__[0] if is_parametrized(part) else type(part)


def share_name(part: nn.Module) -> str | None:
    """Return the attribute that is a part's share of dropout; None for other parts."""
    if type(part) not in DROPOUTS:  # a subclass may compute something else
        return None
    return "p" if hasattr(part, "p") else "dropout"


def attributes_of(part: nn.Module) -> tuple[tuple[str, Hashable], ...]:
    """Return what a part holds beside its tensors, parts and share of dropout, comparable and hashable."""
    left_out = COMMON | FLAT | {share_name(part)}
    return tuple((name, _value(value)) for name, value in sorted(vars(part).items()) if name not in left_out)


def _value(value: Any, depth: int = DEEPEST) -> Hashable:
    if isinstance(value, PLAIN):
        return type(value), repr(value)
    if isinstance(value, Tensor):
        content = value.detach().cpu().contiguous()
        return Tensor, content.dtype, content.shape, zlib.crc32(content.flatten().view(torch.uint8).numpy().tobytes())
    if isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject:
        return type(value), str(value.dtype), value.shape, zlib.crc32(np.ascontiguousarray(value).tobytes())
    if isinstance(value, TrialConfig):
        return TrialConfig, _value(used_values(value), depth)
    if depth < DEEPEST and isinstance(value, CONTAINERS) and len(value) > MOST_ITEMS:  # such as a tokenizer's words
        return Identity(value)
    if isinstance(value, dict):
        return type(value), tuple((_value(key, depth), _value(each, depth)) for key, each in value.items())
    if isinstance(value, CONTAINERS):
        return type(value), tuple(_value(each, depth) for each in value)
    state = None if depth == 0 or isinstance(value, type | nn.Module) else _read_state(value)
    return Identity(value) if state is None else (type(value), *(_value(each, depth - 1) for each in state))


def _read_state(value: object) -> tuple[object, ...] | None:
    """Return what pickle would keep of an object, such as a data class; None of one that it does not know whole."""
    try:
        reduced = value.__reduce_ex__(2)
    except Exception:  # a class of the user's can raise anything
        return None
    return reduced[:3] if isinstance(reduced, tuple) and not any(reduced[3:]) else None


class Identity:
    """Object that is equal to itself alone; it is kept, so that no other one gets its place in memory."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and other.value is self.value

    def __hash__(self) -> int:
        return hash(id(self.value))


def _tensors(part: nn.Module) -> Hashable:
    parameters = tuple(
        (n, each.shape, each.dtype, each.requires_grad) for n, each in part.named_parameters(recurse=False)
    )
    buffers = tuple((n, each.shape, each.dtype) for n, each in part.named_buffers(recurse=False))
    return parameters, buffers


def _ties(module: nn.Module) -> Hashable:
    """Return which names stand for the same tensor."""
    first: dict[int, str] = {}
    tensors = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    return tuple((name, first[id(each)]) for name, each in tensors if first.setdefault(id(each), name) != name)
