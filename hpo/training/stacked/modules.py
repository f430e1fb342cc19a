"""Stacked modules: any `nn.Module`s of equal structure, computed for all members at a time, as `torch.func.vmap` does.

It knows no particular model. Members may differ in their numbers and in the shares of their dropout layers; in all else
that their modules hold they are equal, which `structure_of` compares. What cannot be computed so is found by
`hpo.training.stacked.check` before it is trusted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from hpo.errors import RunError
from hpo.training.optimizers import group_by_depth, weight_layers
from hpo.training.stacked.member_functions import Draws, Members, Share, member_functions
from hpo.training.stacked.noise import Noise, keep_generators
from hpo.training.stacked.structure import share_name

__all__ = ["SerialModules", "StackedModules", "flatten_samples", "is_normalised"]


def is_normalised(module: nn.Module) -> bool:
    """Return whether a module has batch normalisation."""
    return any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules())


def flatten_samples(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Return samples (…, n, *shape) with their numbers in one dimension, (…, n, features)."""
    return x.reshape(*x.shape[: x.ndim - len(shape)], math.prod(shape))


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
        precision: the type of products, where that is not the weights' own: under torch's autocast.

    Attributes:
        shape: of a sample.
        features: how many numbers a sample has.
        layout: of pictures (n, channels, H, W) that all members share, in memory.
        parameters: what training changes, (members, 1, numbers) each: that of all layers in one, or of each layer; to
            be loaded.
        below: layers between each of `parameters` and the output, for each member.
        normalised: true with batch normalisation.
        tracked: unused, for each member's buffers count for themselves.
        noise: the random bits of dropouts.
        draws: the dropouts' draws.
    """

    tracked = 0

    def __init__(
        self,
        modules: Sequence[nn.Module],
        shape: tuple[int, ...],
        device: torch.device,
        *,
        by_layer: bool,
        precision: torch.dtype | None = None,
    ) -> None:
        first, count = modules[0], len(modules)
        self.take_shape(shape)
        self._precision = precision
        self.layout = torch.contiguous_format
        self.normalised = is_normalised(first)
        by_depth = group_by_depth(first)
        if not by_layer:
            by_depth = {0: [each for layer in weight_layers(first) for each in layer]}
        groups = list(by_depth.values())
        self.below = [[below] * count for below in by_depth]
        self.parameters = [
            group[0].new_zeros(count, 1, sum(each.numel() for each in group), device=device, requires_grad=False)
            for group in groups
        ]
        self._places = _find_places(first, groups)
        self._same = _find_same(first)
        self._leaves = _make_leaves(self._parts(slice(None), self.parameters))
        self._buffers, self._shared = _gather_constants(modules, device)
        self.noise = Noise(count, device)
        self.draws = Draws(self.noise)
        self._shares = _gather_shares(modules, self.output)
        self._template = self._make_template(modules).to(device)
        self._slots = list(_find_slots(self._template))
        self._training: bool | None = None  # the mode that the template was put into; its own may be half of each
        self._outputs: Tensor | None = None
        self._replaced: list[tuple[Tensor, Tensor]] = []  # buffers, and what is to be in them
        self._idle: list[tuple[str, int | slice]] = []  # parameters without a gradient, and the members of whom

    @property
    def output(self) -> Tensor:
        """Parameters of the output layer, whose type and device all others have."""
        return self.parameters[-1]

    def _make_template(self, modules: Sequence[nn.Module]) -> nn.Module:
        return make_template(modules)

    def _compute_member(
        self, tensors: dict[str, Tensor], shares: dict[str, Tensor], x: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute a member; return the outputs (n, outputs), and the buffers that it has put in the place of others."""
        self.draws.shares = shares
        kept = [holder[key] for holder, key, _ in self._slots]
        for holder, key, name in self._slots:
            holder[key] = tensors[self._same.get(name, name)]
        try:
            outputs: Tensor = self._template(x)
            own = ((name, holder[key]) for holder, key, name in self._slots)
            changed = {name: each for name, each in own if each is not tensors[self._same.get(name, name)]}
        finally:
            for (holder, key, _), before in zip(self._slots, kept, strict=True):
                holder[key] = before
        if changed.keys() - self._buffers.keys():
            raise RuntimeError(f"it replaces {sorted(changed)[0]} while it computes")
        return outputs, changed

    def forward(self, x: Tensor, *, train: bool) -> Tensor:
        """Return the outputs (members, outputs, n) for a batch (n, width), which has the features first.

        Members with batches of their own get (members, n, width).
        """
        own = x.ndim == 3
        # A copy, for a model may change its samples, and others see them too.
        samples = x[..., : self.features].reshape(*x.shape[:-1], *self.shape).clone()
        if samples.ndim == 4 and self.layout != torch.contiguous_format:
            samples = samples.contiguous(memory_format=self.layout)
        if self._training != train:
            self._training = train
            self._template.train(train)
        self._write_buffers()
        with torch.set_grad_enabled(train), self._autocast():
            outputs = self._compute(samples, own=own).to(self.output.dtype)
        if not train:  # else the gradient may need them as they were
            self._write_buffers()
        self._outputs = outputs if train else None
        detached: Tensor = outputs.detach().mT
        return detached

    def _compute(self, samples: Tensor, *, own: bool) -> Tensor:
        """Return the outputs of all members, (members, n, outputs)."""
        with member_functions(self.draws), Members(len(self.output)) as members:
            tensors = {name: members.each(tensor) for name, tensor in (*self._leaves.items(), *self._buffers.items())}
            shares = {name: members.each(share) for name, share in self._shares.items()}
            batch = members.each(samples) if own else samples
            computed, replaced = self._compute_member({**tensors, **self._shared}, shares, batch)
            outputs = members.all(computed)
            self._replaced = [(self._buffers[name], members.all(buffer).detach()) for name, buffer in replaced.items()]
        return outputs

    def _write_buffers(self) -> None:
        """Write what the last pass has put in the place of buffers."""
        for buffer, value in self._replaced:
            buffer.copy_(value)
        self._replaced = []

    def flatten(self, x: Tensor) -> Tensor:
        """Return samples (…, n, *shape) as `forward` takes them; their lengths may be others than before."""
        self.take_shape(x.shape[x.ndim - len(self.shape) :])
        return flatten_samples(x, self.shape)

    def take_shape(self, shape: Sequence[int]) -> None:
        """Expect samples of another shape, with as many dimensions, from now on."""
        self.shape, self.features = tuple(shape), math.prod(shape)

    def _autocast(self) -> AbstractContextManager[object]:
        if self._precision is None:
            return nullcontext()
        return torch.autocast(self.output.device.type, self._precision)

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
        gradients = self._differentiate(outputs, by_outputs.mT)
        self._write_buffers()
        for group, target in enumerate(into):
            own = [
                gradient.reshape(len(target), 1, -1)
                for name, gradient in gradients.items()
                if self._places[name].group == group
            ]
            if add:
                target.add_(torch.cat(own, 2))
            else:
                torch.cat(own, 2, out=target)

    def _differentiate(self, outputs: Tensor, by_outputs: Tensor) -> dict[str, Tensor]:
        """Return the gradient by each parameter, zeros where there is none, and remember where that is."""
        found = torch.autograd.grad(outputs, list(self._leaves.values()), by_outputs, allow_unused=True)
        gradients = dict(zip(self._leaves, found, strict=True))
        self._idle = [(name, slice(None)) for name, gradient in gradients.items() if gradient is None]
        return {
            name: torch.zeros_like(self._leaves[name]) if gradient is None else gradient
            for name, gradient in gradients.items()
        }

    @contextmanager
    def keep_idle(self, averages: Sequence[Sequence[Tensor]]) -> Iterator[None]:
        """Leave parameters as they are that the last outputs did not depend on, as torch's optimizers do.

        A zero for a gradient would have them decay.

        Args:
            averages: further weights, shaped as `parameters`; those of such parameters become the parameters.
        """
        idle = [(name, of, self._leaves[name][of].detach().clone()) for name, of in self._idle]
        yield
        for tensors in (self.parameters, *averages) if idle else ():
            parts = self._parts(slice(None), tensors)
            for name, of, before in idle:
                parts[name][of].copy_(before)

    def memory(self, n: int) -> object:  # noqa: ARG002
        """Return what a step writes to and does not keep itself: nothing."""
        return None

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
            parts[name] = part.view((*part.shape[:-1], *shape))
        return parts


class SerialModules(StackedModules):
    """Modules that are computed one after the other, with the interface of a stack: what cannot be stacked.

    Args:
        modules: the members, of equal structure; they are kept, and in use from now on.
        shape, device, by_layer, precision: as `StackedModules` has them.
    """

    def __init__(
        self, modules: Sequence[nn.Module], shape: tuple[int, ...], device: torch.device, **settings: Any
    ) -> None:
        super().__init__(modules, shape, device, **settings)
        self._members = [module.to(device) for module in modules]
        saved = modules[0].state_dict().keys()  # other buffers stay with their modules, which outlive the stack
        self._buffers = {name: buffer for name, buffer in self._buffers.items() if name in saved}
        self._own = [_make_leaves(self._parts(index, self.parameters)) for index in range(len(modules))]

    def _make_template(self, modules: Sequence[nn.Module]) -> nn.Module:
        return modules[0]  # not every module can be copied

    def _compute(self, samples: Tensor, *, own: bool) -> Tensor:
        outputs = []
        seeds = self.noise.next_seeds() if self._training else []
        with keep_generators(samples.device):
            for index, module in enumerate(self._members):
                if self._training:  # whoever else is in the stack, a member draws the same
                    torch.manual_seed(seeds[index])
                outputs.append(self._compute_alone(index, module, samples[index] if own else samples))
        return torch.stack(outputs)

    def _compute_alone(self, index: int, module: nn.Module, samples: Tensor) -> Tensor:
        module.train(bool(self._training))
        buffers = {name: buffer[index] for name, buffer in self._buffers.items()}
        tensors = self._own[index] | buffers
        outputs: Tensor = functional_call(module, tensors, (samples,))
        if (returned := _name_unfit(outputs)) is not None:
            raise RunError(
                f"trial.stack: the model's forward returns {returned}; return a tensor of real numbers, (samples, …), "
                "or write a loop of one trial, without stack=True"
            )
        _keep_place(self._own[index], self._parts(index, self.parameters))
        own = ((buffer, tensors[name].detach()) for name, buffer in buffers.items() if tensors[name] is not buffer)
        self._replaced.extend(own)
        return outputs

    def _differentiate(self, outputs: Tensor, by_outputs: Tensor) -> dict[str, Tensor]:
        """Return the gradient by each parameter; what a member does not use has none, whatever the others use."""
        gradients = {name: torch.zeros_like(leaf) for name, leaf in self._leaves.items()}
        places = [(name, index) for index, own in enumerate(self._own) for name in own]
        leaves = [self._own[index][name] for name, index in places]
        found = torch.autograd.grad(outputs, leaves, by_outputs, allow_unused=True)
        self._idle = [place for place, gradient in zip(places, found, strict=True) if gradient is None]
        for (name, index), gradient in zip(places, found, strict=True):
            if gradient is not None:
                gradients[name][index] = gradient.to_dense()
        return gradients


def _name_unfit(outputs: object) -> str | None:
    """Return what outputs are that the one tensor of all members' cannot hold; None of those that it can."""
    if not isinstance(outputs, Tensor):
        return f"a value of type {type(outputs).__name__}"
    if not outputs.ndim:
        return "a single number"
    return "complex numbers" if outputs.is_complex() else None


def _make_leaves(parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what gradients are asked for, in the same memory.

    They share no count of their changes: what a module does to one of them in place, as `max_norm` of an embedding
    does, says nothing of others.
    """
    return {name: part.data.requires_grad_() for name, part in parts.items()}


def _keep_place(leaves: Mapping[str, Tensor], parts: Mapping[str, Tensor]) -> None:
    """Keep leaves in their memory, where a module has assigned to the `data` of some."""
    for name, part in parts.items():
        if leaves[name].data_ptr() != part.data_ptr():
            part.copy_(leaves[name].detach())
            leaves[name].data = part


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
            shared[name] = first.to(device, copy=True)  # the first member's own stays as it is
        else:
            stacked[name] = torch.stack(own).to(device)
    return stacked, shared


def _find_constants(module: nn.Module) -> dict[str, Tensor]:
    untrained = {name: each.detach() for name, each in module.named_parameters() if not each.requires_grad}
    return untrained | dict(module.named_buffers())


def _gather_shares(modules: Sequence[nn.Module], like: Tensor) -> dict[str, Tensor]:
    """Return the shares of each dropout, (members,), by the names of its part; under "" zeros.

    Where no member drops any, there are none.
    """
    shares = {"": like.new_zeros(len(modules))}
    for name, part in modules[0].named_modules():
        if (attribute := share_name(part)) is not None:
            own = [float(getattr(module.get_submodule(name), attribute)) for module in modules]
            if any(own):
                shares[f".{name}"] = like.new_tensor(own)
    return shares


def make_template(modules: Sequence[nn.Module]) -> nn.Module:
    """Return a copy of the first module, with the same names of tensors, whose dropouts take each member's own
    share.
    """
    template = deepcopy(modules[0]).requires_grad_(False)
    for name, part in template.named_modules():
        if (attribute := share_name(part)) is not None:
            largest = max(getattr(module.get_submodule(name), attribute) for module in modules)
            setattr(part, attribute, Share.of(largest, f".{name}"))
    return template


def _find_slots(module: nn.Module) -> Iterator[tuple[dict[str, Any], str, str]]:
    """Yield where each tensor of a module is kept: the dictionary of its part, the key there, and its name."""
    for prefix, part in module.named_modules():
        holders: tuple[dict[str, Any], ...] = part._parameters, part._buffers
        for holder in holders:
            for key, value in holder.items():
                if value is not None:
                    yield holder, key, f"{prefix}.{key}" if prefix else key
