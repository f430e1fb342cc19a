"""Stacked sequential modules: layers that follow each other, with forward and backward passes by hand for all members.

It takes the models of tables that `StackedMLP` does not, and any `nn.Sequential` of the same layers. Modules of other
kinds go through `StackedModules`, which takes twice as long for small ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from hpo.training.models import Autoencoder
from hpo.training.optimizers import weight_layers
from hpo.training.stacked.alpha_dropout import AlphaDropoutPart
from hpo.training.stacked.embeddings import EmbeddingPart
from hpo.training.stacked.layer_norm import LayerNormPart
from hpo.training.stacked.layers import EPSILON, MOMENTUM
from hpo.training.stacked.noise import Noise
from hpo.training.stacked.parts import (
    ActivationPart,
    DropoutPart,
    LinearPart,
    NormPart,
    Part,
    Pass,
    ResidualPart,
    backward_through,
    find_activation,
    make_passes,
    part_views,
)
from hpo.training.stacked.prelu import PReLUPart
from hpo.training.tabular_models import FeatureEmbedding, ResidualBlock, ResNetTabular

__all__ = ["StackedSequential", "is_sequential"]

Named = tuple[str, nn.Module]
WITH_PART = (FeatureEmbedding, nn.Linear, nn.PReLU, nn.Dropout, nn.AlphaDropout)


def is_sequential(module: nn.Module) -> bool:
    """Return whether a module is layers that follow each other, all of kinds that have a part, from the samples on."""
    parameters = [each for _, each in module.named_parameters(remove_duplicate=False)]
    if len({id(each) for each in parameters if each.requires_grad}) < len(parameters):
        return False
    leaves = list(_leaves("", module))
    if not leaves or leaves[0][1] is module:  # a layer by itself is no sequence
        return False
    ends = isinstance(leaves[0][1], FeatureEmbedding | nn.Linear) and type(leaves[-1][1]) is nn.Linear
    later = (isinstance(leaf, FeatureEmbedding) for _, leaf in leaves[1:])
    return ends and not any(later) and all(_has_part(leaf) for _, leaf in leaves) and _is_flat(leaves)


def _is_flat(leaves: Iterable[Named]) -> bool:
    """Return whether each linear layer takes what the one before it gives: else samples become flat on the way."""
    linear = [leaf for _, leaf in leaves if isinstance(leaf, nn.Linear)]
    return all(before.out_features == after.in_features for before, after in pairwise(linear))


def _leaves(name: str, module: nn.Module) -> Iterator[Named]:
    """Yield the layers of a module in their order, one that is used twice at both its places; a residual block is one.

    A sequence with tensors of its own, such as a buffer, is yielded itself: it has no part.
    """
    if type(module) in (nn.Sequential, ResNetTabular, Autoencoder) and not (module._parameters or module._buffers):
        for child, each in module._modules.items():  # named_children leaves repeats out
            assert each is not None
            yield from _leaves(f"{name}.{child}" if name else child, each)
    elif type(module) is not nn.Flatten:  # samples arrive flat
        yield name, module


def _has_part(leaf: nn.Module) -> bool:
    if type(leaf) is ResidualBlock:
        inner = [each for _, each in _leaves("", leaf.layers)]
        return all(_has_part(each) for each in inner)
    if type(leaf) is nn.BatchNorm1d:
        plain = leaf.affine and leaf.track_running_stats and leaf.momentum == MOMENTUM and leaf.eps == EPSILON
        return bool(plain)
    if type(leaf) is nn.LayerNorm:
        return len(leaf.normalized_shape) == 1 and leaf.elementwise_affine and leaf.bias is not None
    return type(leaf) in WITH_PART or find_activation(leaf) is not None


class StackedSequential:
    """Sequential modules that are computed as one; its interface is that of `StackedMLP`.

    Args:
        modules: the members, of equal structure, for which `is_sequential` holds.
        like: a tensor whose type and device the weights get; they are zero until they are loaded.

    Attributes:
        parameters: what training changes, (members, …, …) each.
        below: layers between each of `parameters` and the output, for each member.
        normalised: true with batch normalisation.
        tracked: batches that the running statistics have seen.
        noise: the random bits of dropouts.
    """

    def __init__(self, modules: Sequence[nn.Module], like: Tensor) -> None:
        self.noise = Noise(len(modules), like.device)
        self._parts = list(_make_parts(modules, _leaves("", modules[0]), self.noise, like, first=True))
        self.tracked = 0
        self.normalised = any(part.normalised for part in self._parts)
        self.parameters = [each for part in self._parts for each in part.parameters]
        names = [each for part in self._parts for each in part.names]
        layers = [{id(each) for each in layer} for layer in weight_layers(modules[0])]
        layer_of = {
            name: index
            for name, parameter in modules[0].named_parameters()
            for index, layer in enumerate(layers)
            if id(parameter) in layer
        }
        self.below = [[len(layers) - 1 - layer_of[own[0]]] * len(modules) for own in names]
        self._counters = [name for name, _ in modules[0].named_buffers() if name.endswith("num_batches_tracked")]
        self._passes: dict[int, list[Pass]] = {}

    @property
    def output(self) -> Tensor:
        """Parameters of the output layer, whose type and device all others have."""
        return self.parameters[-1]

    def forward(self, x: Tensor, *, train: bool) -> Tensor:
        """Return the outputs (members, outputs, n) for a batch (n, inputs), or one of each member.

        The next call may reuse their memory.
        """
        passes = self._passes_for(x.shape[-2])
        for each in passes:
            each.forward(x, train=train)
        return passes[-1].rows.h

    def backward(self, x: Tensor, by_outputs: Tensor, into: Sequence[Tensor], *, add: bool) -> None:
        """Write the gradient by each parameter to `into`, or add it: to the parameters themselves, for plain descent.

        Args:
            x: the batch of the last training forward pass, (n, inputs), or one of each member.
            by_outputs: the gradient by its outputs, (members, outputs, n).
            into: in the order of `parameters`.
            add: whether to add.
        """
        passes = self._passes_for(x.shape[-2])
        passes[-1].rows.d.copy_(by_outputs)
        backward_through(self._parts, passes, x, into, add=add)

    def memory(self, n: int) -> object:
        """Return what a step on n samples writes to, for those who need it kept."""
        return self._passes_for(n)

    def _passes_for(self, n: int) -> list[Pass]:
        """Return the passes for batches of that size; four are kept: an epoch and an evaluation have two each."""
        if n not in self._passes:
            while len(self._passes) > 3:
                del self._passes[next(iter(self._passes))]
            self._passes[n] = make_passes(self._parts, None, n)
        return self._passes[n]

    def views(self, index: int, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return a member's part of tensors shaped as `parameters`, by the names of its module's parameters."""
        return part_views(self._parts, index, tensors)

    def statistics(self, index: int) -> dict[str, Tensor]:
        """Return a member's part of the running statistics, by the names of its module's buffers."""
        views = {name: each for part in self._parts for name, each in part.statistics(index).items()}
        return views | {name: torch.tensor(self.tracked) for name in self._counters}


def _make_parts(
    modules: Sequence[nn.Module], leaves: Iterable[Named], noise: Noise, like: Tensor, *, first: bool = False
) -> Iterator[Part]:
    """Yield the parts of layers that follow each other, without dropouts that drop nothing; `first` reads the batch."""
    count = len(modules)
    for name, leaf in leaves:
        if isinstance(leaf, FeatureEmbedding):
            yield EmbeddingPart(name, leaf, count, like)
        elif isinstance(leaf, ResidualBlock):
            yield ResidualPart(list(_make_parts(modules, _leaves(f"{name}.layers", leaf.layers), noise, like)))
        elif isinstance(leaf, nn.BatchNorm1d):
            yield NormPart(name, leaf.num_features, count, like)
        elif isinstance(leaf, nn.Linear):
            yield LinearPart(name, leaf, count, like, first=first)
        elif isinstance(leaf, nn.LayerNorm):
            yield LayerNormPart(name, leaf, count, like)
        elif isinstance(leaf, nn.PReLU):
            yield PReLUPart(name, leaf, count, like)
        elif (function := find_activation(leaf)) is not None:
            yield ActivationPart(function)
        elif any(shares := [float(module.get_submodule(name).p) for module in modules]):  # type: ignore[arg-type]
            yield (AlphaDropoutPart if isinstance(leaf, nn.AlphaDropout) else DropoutPart)(shares, noise, like)
        first = False
