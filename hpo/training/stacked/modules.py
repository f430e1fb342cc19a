"""Stacked modules: any `nn.Module`s of equal structure, computed for all members at a time by `torch.func.vmap`.

It knows no particular model. Members may differ in their numbers and in the shares of their dropout layers; in all else
that their modules hold they are equal, which `structure_of` compares.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from hpo.training.optimizers import weight_layers
from hpo.training.stacked.member_layers import MemberDropout, make_template

__all__ = ["StackedModules", "structure_of"]

COMMON = frozenset(vars(nn.Module()))  # what every module has, whatever it computes


def structure_of(module: nn.Module) -> Hashable:
    """Return a key that is equal for modules that one stack can hold: of the same parts, with tensors of equal shapes.

    Whatever else a part holds must be equal as text. Shares of dropout may differ.
    """
    return tuple((name, type(part), _attributes(part), _shapes(part)) for name, part in module.named_modules())


def _attributes(part: nn.Module) -> tuple[tuple[str, str], ...]:
    own = {name: value for name, value in vars(part).items() if name not in COMMON}
    if type(part) is nn.Dropout:
        own.pop("p")
    # Two tensors that are no buffers may look alike as text.
    return tuple((name, str(id(value)) if isinstance(value, Tensor) else repr(value)) for name, value in own.items())


def _shapes(part: nn.Module) -> tuple[Hashable, ...]:
    parameters = ((name, each.shape, each.requires_grad) for name, each in part.named_parameters(recurse=False))
    buffers = ((name, each.shape, each.dtype) for name, each in part.named_buffers(recurse=False))
    return (*parameters, *buffers)


class Place(NamedTuple):
    """Place of a parameter: in which tensor of all of them, from which number on, and its shape."""

    group: int
    start: int
    shape: torch.Size


class StackedModules:
    """Modules that are computed as one; its interface is that of `StackedMLP`.

    Args:
        modules: the members, of equal structure.
        shape: of a sample.
        device: where they are trained.
        by_layer: whether layers have learning rates of their own.

    Attributes:
        parameters: what training changes, (members, 1, numbers) each: that of all layers in one, or of each layer; to
            be loaded.
        below: layers between each of `parameters` and the output, for each member.
        normalised: true with batch normalisation.
        tracked: unused, for each member's buffers count for themselves.
    """

    tracked = 0

    def __init__(
        self, modules: Sequence[nn.Module], shape: tuple[int, ...], device: torch.device, *, by_layer: bool
    ) -> None:
        first, count = modules[0], len(modules)
        self._shape, self._features = shape, math.prod(shape)
        self.normalised = any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in first.modules())
        layers = weight_layers(first)
        groups = layers if by_layer else [[each for layer in layers for each in layer]]
        self.below = [[len(groups) - 1 - group] * count for group in range(len(groups))]
        self.parameters = [
            group[0].new_zeros(count, 1, sum(each.numel() for each in group), device=device, requires_grad=False)
            for group in groups
        ]
        self._places = _find_places(first, groups)
        self._same = _find_same(first)
        self._leaves = {name: view.requires_grad_() for name, view in self._parts(slice(None), self.parameters).items()}
        self._buffers, self._shared = _gather_constants(modules, device)
        self._template = make_template(first).to(device)
        self._buffers |= _gather_shares(modules, self._template, self.output)
        dims = dict.fromkeys((*self._leaves, *self._buffers), 0) | dict.fromkeys(self._shared)
        self._compute = vmap(self._compute_member, (dims, None), randomness="different")
        self._outputs: Tensor | None = None

    @property
    def output(self) -> Tensor:
        """Parameters of the output layer, whose type and device all others have."""
        return self.parameters[-1]

    def _compute_member(self, tensors: dict[str, Tensor], x: Tensor) -> Tensor:
        outputs: Tensor = functional_call(self._template, tensors, (x,))
        return outputs

    def forward(self, x: Tensor, *, train: bool) -> Tensor:
        """Return the outputs (members, outputs, n) for a batch (n, width), which has the features first."""
        samples = x[:, : self._features].reshape(len(x), *self._shape)
        if self._template.training != train:
            self._template.train(train)
        with torch.set_grad_enabled(train):
            outputs: Tensor = self._compute({**self._leaves, **self._buffers, **self._shared}, samples)
        self._outputs = outputs if train else None
        return outputs.detach().mT

    def backward(self, x: Tensor, by_outputs: Tensor, into: Sequence[Tensor], *, add: bool) -> None:  # noqa: ARG002
        """Write the gradient by each parameter to `into`, or add it: to the parameters themselves, for plain descent.

        Args:
            x: the batch of the last training forward pass.
            by_outputs: the gradient by its outputs, (members, outputs, n).
            into: in the order of `parameters`.
            add: whether to add.
        """
        assert self._outputs is not None
        outputs, self._outputs = self._outputs, None
        names = list(self._leaves)
        gradients = torch.autograd.grad(
            outputs, [self._leaves[name] for name in names], by_outputs.mT, allow_unused=True, materialize_grads=True
        )
        for group, target in enumerate(into):
            own = [
                gradient.reshape(len(target), 1, -1)
                for name, gradient in zip(names, gradients, strict=True)
                if self._places[name].group == group
            ]
            if add:
                target.add_(torch.cat(own, 2))
            else:
                torch.cat(own, 2, out=target)

    def views(self, index: int, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return a member's part of tensors shaped as `parameters`, by the names of its module's parameters."""
        parts = self._parts(index, tensors)
        return parts | {name: parts[first] for name, first in self._same.items() if first in parts}

    def statistics(self, index: int) -> dict[str, Tensor]:
        """Return a member's part of what training does not change by gradients, by the names of its module's
        tensors.
        """
        own = {name: tensor[index] for name, tensor in self._buffers.items()}
        return own | {name: own[first] for name, first in self._same.items() if first in own}

    def _parts(self, members: int | slice, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        parts = {}
        for name, (group, start, shape) in self._places.items():
            part = tensors[group].detach()[members, 0, start : start + shape.numel()]
            parts[name] = part.view(*part.shape[:-1], *shape)
        return parts


def _find_places(module: nn.Module, groups: Sequence[Sequence[nn.Parameter]]) -> dict[str, Place]:
    """Return the place of each parameter, group by group."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    places: dict[str, Place] = {}
    for index, group in enumerate(groups):
        start = 0
        for parameter in group:
            places[names[id(parameter)]] = Place(index, start, parameter.shape)
            start += parameter.numel()
    return places


def _find_same(module: nn.Module) -> dict[str, str]:
    """Return, by each further name that a tensor has in the module, its first name."""
    tensors = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    first: dict[int, str] = {}
    return {name: first[id(each)] for name, each in tensors if first.setdefault(id(each), name) != name}


def _gather_constants(
    modules: Sequence[nn.Module], device: torch.device
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the buffers and untrained parameters of all members, stacked; and those that all members share.

    Shared are buffers that are no part of the weights and equal: nothing changes them.
    """
    constants = [_find_constants(module) for module in modules]
    saved = modules[0].state_dict().keys()
    stacked: dict[str, Tensor] = {}
    shared: dict[str, Tensor] = {}
    for name, first in constants[0].items():
        own = [each[name] for each in constants]
        if name not in saved and all(torch.equal(each, first) for each in own):
            shared[name] = first.to(device)
        else:
            stacked[name] = torch.stack(own).to(device)
    return stacked, shared


def _find_constants(module: nn.Module) -> dict[str, Tensor]:
    untrained = {name: each.detach() for name, each in module.named_parameters() if not each.requires_grad}
    return untrained | dict(module.named_buffers())


def _gather_shares(modules: Sequence[nn.Module], template: nn.Module, like: Tensor) -> dict[str, Tensor]:
    """Return the shares of each dropout layer, (members,), and tell layers in which no member drops any."""
    shares: dict[str, Tensor] = {}
    for name, part in template.named_modules():
        if isinstance(part, MemberDropout):
            own = [float(module.get_submodule(name).p) for module in modules]  # type: ignore[arg-type]
            part.drops = any(own)
            shares[f"{name}.share" if name else "share"] = like.new_tensor(own)
    return shares
