"""Feature visualization of a trained model: weights of its units, and the inputs that activate them most.

Erhan et al., "Visualizing Higher-Layer Features of a Deep Network" (2009): the input of a given norm at which a unit
responds most, found by following the gradient. The steps are those of Frank and Wolfe (1956), whose points stay inside
of the ball by themselves: for a unit that is linear in the input the first one is the answer, its own weights.

A unit's response is what goes into its activation: the output of its layer, or of the normalisation right behind it. A
channel of a convolution responds at every place; the one in the middle is taken, so that its picture shows exactly what
it can see.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from hpo.training.memory import is_out_of_memory
from hpo.utils.text import first_line

__all__ = ["LAYERS", "UNITS", "Filters", "LayerResponses", "Responses", "maximize_activation", "measure_responses"]

Array = np.ndarray[Any, Any]
Kind = Literal["linear", "convolution", "outputs"]
Respond = Callable[[Tensor], Tensor]
UNITS = 24  # of each layer
LAYERS = 6
STEPS = 64
PART = 128  # samples per forward pass
WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMALISATIONS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm)


@dataclass(frozen=True)
class LayerResponses:
    """Responses of a layer's units, and the inputs that activate them most.

    Attributes:
        name: of the layer in the model, as in its state dict; `outputs` for the model's outputs.
        number: its place among the layers with weights, from 1.
        kind: linear layer, convolution, or the outputs.
        of: how many units it has.
        units: (k,), indices of the units that are shown: those with the largest outgoing weights first; of the outputs,
            the first.
        inputs: (k, *shape), of the norm of `Responses`, scaled as the model takes them.
        responses: (k,), to these inputs.
        to_samples: (k,), the largest response to a real sample.
        silent: how many of all its units respond above 0 to no sample.
    """

    name: str
    number: int
    kind: Kind
    of: int
    units: Array
    inputs: Array
    responses: Array
    to_samples: Array
    silent: int


@dataclass(frozen=True)
class Filters:
    """Weights of the first layer, which reads the samples themselves.

    Attributes:
        name: of the layer.
        of: how many units it has.
        units: (k,), indices of the units that are shown.
        weights: (k, *shape) of a linear layer, (k, channels, height, width) of a convolution.
        only: whether it is the only layer, so that its units are the classes.
    """

    name: str
    of: int
    units: Array
    weights: Array
    only: bool


@dataclass(frozen=True)
class Responses:
    """Responses of a model's units.

    Attributes:
        filters: of the first layer; None where it does not read the samples themselves.
        layers: the hidden ones in the order in which they work, then the outputs.
        norm: of the inputs.
        notes: what was left out or could not be done, and why; a sentence each.
    """

    filters: Filters | None
    layers: tuple[LayerResponses, ...]
    norm: float
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Layer:
    """Layer of a model: its module, the module where its response is read, and the next layer with weights."""

    name: str
    number: int
    kind: Kind
    module: nn.Module
    read: nn.Module
    next_layer: nn.Module | None = None


def measure_responses(model: nn.Module, x: Tensor) -> Responses:
    """Measure what the units of a model respond to.

    Args:
        model: trained; it is left unchanged, but in evaluation mode.
        x: samples, (n, *shape), on its device: their mean norm is that of the inputs, and the inputs start from them.
    """
    model.eval()
    layers = _layers(model, x[:2])
    shown = _spread_layers(layers[:-1])
    notes = [] if layers else ["The model has no linear layer and no convolution that could be looked into."]
    if len(shown) < len(layers) - 1:
        notes.append(f"{len(shown)} of {len(layers) - 1} hidden layers are shown.")
    norm = x.flatten(1).norm(dim=1).mean().item()
    responses = []
    for layer in [*shown, Layer("outputs", len(layers), "outputs", model, model)]:
        try:
            responses.append(_layer_responses(model, layer, x, norm))
        except RuntimeError as error:  # a user's model may lead no gradient back to its inputs
            if is_out_of_memory(error):
                raise
            notes.append(f"Of {layer.name} no inputs can be found: {first_line(error)}")
    return Responses(_filters(layers, tuple(x.shape[1:])), tuple(responses), norm, tuple(notes))


# Finding the layers.


def _layers(model: nn.Module, x: Tensor) -> list[Layer]:
    """Return the linear layers and convolutions in the order of their first use, each once."""
    order = _modules_in_order(model, x)
    places = [i for i, (_, module) in enumerate(order) if isinstance(module, WEIGHTED)]
    layers: list[Layer] = []
    for number, place in enumerate(places, start=1):
        name, module = order[place]
        next_module = order[place + 1][1] if place + 1 < len(order) else module
        read = next_module if isinstance(next_module, NORMALISATIONS) else module
        kind: Kind = "linear" if isinstance(module, nn.Linear) else "convolution"
        next_layer = order[places[number]][1] if number < len(places) else None
        layers.append(Layer(name, number, kind, module, read, next_layer))
    return layers


@torch.no_grad()
def _modules_in_order(model: nn.Module, x: Tensor) -> list[tuple[str, nn.Module]]:
    """Return the innermost modules, with their names, in the order of their first use."""
    seen: dict[nn.Module, None] = {}
    names = {module: name for name, module in model.named_modules() if not any(module.children())}
    hooks = [module.register_forward_hook(lambda module, *_: seen.setdefault(module)) for module in names]
    try:
        model(x)
    finally:
        for hook in hooks:
            hook.remove()
    return [(names[module], module) for module in seen]


def _spread_layers(layers: Sequence[Layer]) -> list[Layer]:
    """Return at most `LAYERS` of them, spread evenly from the first to the last."""
    indices = np.linspace(0, len(layers) - 1, min(LAYERS, len(layers))).round().astype(int)
    return [layers[i] for i in indices]


def _weight(module: nn.Module) -> Tensor:
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight.detach()


def _strongest_units(layer: Layer) -> Tensor:
    """Return units of a layer by the size of their outgoing weights, or of the incoming ones where those do not fit."""
    weight = _weight(layer.module)
    norms = weight.flatten(1).norm(dim=1)
    if layer.next_layer is not None:
        outgoing = _weight(layer.next_layer)
        if outgoing.shape[1] % len(norms) == 0:  # behind a convolution, each channel has several places
            norms = outgoing.reshape(len(outgoing), len(norms), -1).norm(dim=(0, 2))
    order: Tensor = norms.argsort(descending=True, stable=True)
    return order[:UNITS]


def _filters(layers: Sequence[Layer], shape: tuple[int, ...]) -> Filters | None:
    """Return the weights of the first layer in the samples' shape; of the only layer, those of each class in order."""
    if not layers:
        return None
    layer, weight, only = layers[0], _weight(layers[0].module), len(layers) == 1
    units = torch.arange(min(UNITS, len(weight))) if only else _strongest_units(layer)
    shown = weight[units.to(weight.device)].cpu()
    if layer.kind == "linear" and shown[0].numel() == math.prod(shape):
        shown = shown.reshape(-1, *shape)
    elif shown.ndim != 4 or shown.shape[1] != shape[0]:
        return None
    return Filters(layer.name, len(weight), units.cpu().numpy(), shown.numpy(), only)


# Finding the inputs.


def _layer_responses(model: nn.Module, layer: Layer, x: Tensor, norm: float) -> LayerResponses:
    def respond(samples: Tensor) -> Tensor:
        return _response(model, layer, samples)

    with torch.no_grad():
        natural = torch.cat([respond(part) for part in torch.split(x, PART)])
    total = natural.shape[1]
    units = torch.arange(min(UNITS, total)) if layer.kind == "outputs" else _strongest_units(layer)
    units = units.to(x.device)
    largest, which = natural[:, units].max(0)
    inputs, values = maximize_activation(respond, x[which], units, norm)
    return LayerResponses(
        layer.name,
        layer.number,
        layer.kind,
        of=total,
        units=_to_numpy(units),
        inputs=_to_numpy(inputs),
        responses=_to_numpy(values),
        to_samples=_to_numpy(largest),
        silent=int((natural.amax(0) <= 0).sum()),
    )


def _to_numpy(x: Tensor) -> Array:
    array: Array = x.detach().cpu().numpy()
    return array


def _response(model: nn.Module, layer: Layer, x: Tensor) -> Tensor:
    """Return the response of each unit of a layer to samples x: (n, units)."""
    outputs: list[Tensor] = []
    # A copy: the activation behind may overwrite it.
    hook = layer.read.register_forward_hook(lambda _module, _inputs, output: outputs.append(output.clone()))
    try:
        model(x)
    finally:
        hook.remove()
    response = outputs[0]
    if layer.kind == "convolution":
        for size in response.shape[2:]:
            response = response.select(2, size // 2)
        return response
    return response.reshape(len(x), -1, response.shape[-1]).mean(1)


def maximize_activation(
    respond: Respond, start: Tensor, units: Tensor, norm: float, steps: int = STEPS
) -> tuple[Tensor, Tensor]:
    """Find, for each of some units, the input of a given norm at which it responds most, by following the gradient.

    Args:
        respond: gives each unit's response to inputs (k, *shape), (k, units); no input may affect another's.
        start: (k, *shape), an input for each of the units to begin from; it is scaled to the norm.
        units: (k,).
        norm: of the inputs.
        steps: of the search; the best point on the way counts.

    Returns:
        The inputs (k, *shape), inside of the ball of that norm, and the responses (k,) to them.
    """
    rows = torch.arange(len(units), device=start.device)
    x = _scale_to_norm(start, norm)
    best, largest = x, torch.full((len(units),), -torch.inf, device=start.device)
    for step in range(steps + 1):
        x = x.detach().requires_grad_()
        values = respond(x)[rows, units]
        (gradient,) = torch.autograd.grad(values.sum(), x)
        better = values.detach() > largest
        largest = torch.where(better, values.detach(), largest)
        best = torch.where(_broadcast(better, x), x.detach(), best)
        target = torch.where(_broadcast(gradient.flatten(1).any(1), x), _scale_to_norm(gradient, norm), x.detach())
        x = x.detach().lerp(target, 2 / (step + 2))
    return best, largest


def _broadcast(values: Tensor, like: Tensor) -> Tensor:
    """Reshape one value a row, so that it is broadcast over rows of any shape."""
    return values.view(-1, *(1,) * (like.ndim - 1))


def _scale_to_norm(x: Tensor, norm: float) -> Tensor:
    """Scale each row to that norm; a row of zeros stays."""
    size = x.flatten(1).norm(dim=1).clamp_min(torch.finfo(x.dtype).tiny)
    return x * _broadcast(norm / size, x)
