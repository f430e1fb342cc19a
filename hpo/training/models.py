"""Built-in dense models, and the factory of registered models."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from hpo.config import registry
from hpo.config.choices import INITIALISATIONS
from hpo.config.model_library import find_library
from hpo.config.model_size import count_outputs, measure_input, resolve_width
from hpo.config.trial_config import TrialConfig
from hpo.errors import ConfigError, RequestError
from hpo.training.layers import make_activation, make_dropout, make_norm
from hpo.training.library_models import describe_size
from hpo.training.memory import is_out_of_memory
from hpo.training.tabular_models import FeatureEmbedding
from hpo.utils.text import shorten, summarize_error

__all__ = ["Autoencoder", "autoencoder", "build_model", "mlp", "parameter_count", "restore_model"]

Shape = tuple[int, ...]
TAKES_INTEGERS = re.compile(r"scalar types?: Long, Int|must be one of.*(int64|long)|index.*must be", re.IGNORECASE)


def build_model(config: TrialConfig, shape: Shape, classes: int) -> nn.Module:
    """Build the model of a configuration, on the CPU, its initial weights decided by `config.seed_of_init` alone.

    Args:
        config: which model, and its parameters.
        shape: of one sample: (channels, H, W) or (features,).
        classes: of the data: the number of outputs, unless the model reconstructs its input.

    Raises:
        ConfigError: the model cannot take such samples, or gives other outputs.
        RegistryError: no model of that name is registered.
    """
    entry = registry.models.get(config.model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed_of_init)
        model = _make_module(config, shape, classes)
        if not isinstance(model, nn.Module):
            raise ConfigError(f"model '{config.model}': its function returns no nn.Module but {type(model).__name__}")
        _probe(model, config, shape, count_outputs(config, shape, classes))
        _check_state(model, config.model)
        if "init" in entry.uses:
            _initialise(model, config.init)
    # On the CPU, 2.1 times as fast for the CNN 32-64 (62 to 29 ms a step on 2 cores at batch 128). Only for our own
    # models: a user's may flatten with `view`, which refuses this layout, and so does torch's L-BFGS with gradients.
    # Some of timm's (fastvit_t8) end the process in it: torch 2.13's gradient frees memory twice.
    if not entry.builtin or find_library(config.model) is not None or config.optimizer == "lbfgs":
        return model
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def restore_model(config: TrialConfig, shape: Shape, classes: int, path: Path) -> nn.Module:
    """Build the model of a configuration, on the CPU, with the weights of a safetensors file.

    A model of ours is built only if the file holds weights of its shapes: what a folder or a database says of a model
    may ask for any amount of memory.

    Raises:
        RequestError: the weights are another model's, or the file is damaged.
        ConfigError, RegistryError: as `build_model` does.
    """
    try:
        with safe_open(path, framework="pt") as file:
            stored = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        if registry.models.get(config.model).builtin and find_library(config.model) is None:
            _check_shapes(_weight_shapes(config, shape, classes), stored)
        model = build_model(config, shape, classes)
        model.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        why = shorten(" ".join(str(error).split()), 500, quote=False)
        raise RequestError(f"weights {path}: do not fit the model '{config.model}' ({why})") from error
    return model


def _weight_shapes(config: TrialConfig, shape: Shape, classes: int) -> dict[str, Shape]:
    """Return the shapes of a built-in model's weights, for which no memory is taken."""
    with torch.device("meta"):
        model = _make_module(config, shape, classes)
    return {name: tuple(weight.shape) for name, weight in model.state_dict().items()}


def _make_module(config: TrialConfig, shape: Shape, classes: int) -> nn.Module:
    """Call the model's function, with the number of outputs that the loss needs."""
    outputs = classes if config.reconstructs else count_outputs(config, shape, classes)
    module: nn.Module = registry.models.get(config.model).load()(resolve_width(config, shape, classes), shape, outputs)
    return module


def _check_shapes(expected: dict[str, Shape], stored: dict[str, Shape]) -> None:
    for name in [*expected, *(name for name in stored if name not in expected)]:
        if expected.get(name) != stored.get(name):
            wanted, found = (str(shapes.get(name, "nothing")) for shapes in (expected, stored))
            raise ValueError(f"it takes {wanted} as {name}, and the file has {found}")


def parameter_count(model: nn.Module) -> int:
    """Return how many numbers the model learns."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def mlp(config: TrialConfig, shape: Shape, classes: int) -> nn.Module:
    """Build a multilayer perceptron of `config.hidden_widths` units, with normalisation, activation and dropout.

    The categories of a table are embedded, and its numbers where `numeric_embedding` says so; see `FeatureEmbedding`.

    Raises:
        ConfigError: there is a numeric embedding, and the samples are not the features of a table.
    """
    size = measure_input(config, shape)
    widths = [size.width, *config.hidden_widths]
    layers: list[nn.Module] = [FeatureEmbedding(config, shape)] if size.embedded else []
    layers += [nn.Flatten()] if len(shape) > 1 else []
    return nn.Sequential(*layers, *_dense_layers(config, widths), nn.Linear(widths[-1], classes))


def _dense_layers(config: TrialConfig, widths: Sequence[int]) -> Iterator[nn.Module]:
    """Yield hidden layers from `widths[0]` inputs on, each with its normalisation, activation and dropout."""
    for inputs, outputs in pairwise(widths):
        # Batch normalisation takes the mean away, and a bias with it: Adam would follow its gradient's rounding noise.
        yield nn.Linear(inputs, outputs, bias=not config.batch_norm)
        yield from make_norm(config, outputs)
        yield make_activation(config)
        if config.dropout:
            yield make_dropout(config)


class Autoencoder(nn.Module):
    """Autoencoder: an encoder to `latent_size` numbers, and its mirror image, which outputs (n, numbers of a sample).

    The latent layer is linear (Hinton and Salakhutdinov, "Reducing the dimensionality of data with neural networks",
    Science 2006). Under binary cross-entropy outputs are logits.
    """

    def __init__(self, config: TrialConfig, features: int) -> None:
        super().__init__()
        *encoder, latent = config.hidden_widths[: len(config.hidden_widths) // 2 + 1]
        down, up = [features, *encoder], [latent, *reversed(encoder)]
        self.encoder = nn.Sequential(nn.Flatten(), *_dense_layers(config, down), nn.Linear(down[-1], latent))
        self.decoder = nn.Sequential(*_dense_layers(config, up), nn.Linear(up[-1], features))

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs (n, features) for samples (n, *shape)."""
        outputs: Tensor = self.decoder(self.encoder(x))
        return outputs


def autoencoder(config: TrialConfig, shape: Shape, classes: int) -> nn.Module:  # noqa: ARG001  as all models have
    """Build an autoencoder of dense layers; see `Autoencoder`.

    Raises:
        ConfigError: samples have categories, whose codes are no numbers to reconstruct.
    """
    if categories := len(getattr(shape, "categories", ())):
        raise ConfigError(
            f"model = 'autoencoder': reconstructs numbers, but {categories} of the {shape[0]} features are categories; "
            "drop their columns, or use model = 'mlp'"
        )
    return Autoencoder(config.model_copy(update={"batch_norm": False}), math.prod(shape))  # which it does not use


def _probe(model: nn.Module, config: TrialConfig, shape: Shape, classes: int) -> None:
    """Try the model on two samples: its outputs must fit, and lazy layers take their size before initialisation."""
    name, number = config.model, torch.int64 if config.integers else torch.get_default_dtype()
    model.eval()
    try:
        with torch.no_grad():
            outputs: Any = model(torch.zeros(2, *shape, dtype=number))
    except Exception as error:  # a model of the user's can raise anything
        if is_out_of_memory(error):
            raise
        why = summarize_error(error)
        if not config.integers and TAKES_INTEGERS.search(why):
            why += "; if its samples are whole numbers, such as token ids, register it with integers=True"
        size = "" if find_library(name) is None else describe_size(model)
        raise ConfigError(
            f"model '{name}': cannot take samples of shape {shape}: {why.rstrip('.') if size else why}{size}"
        ) from error
    if not isinstance(outputs, Tensor):
        raise ConfigError(
            f"model '{name}': its forward returns a value of type {type(outputs).__name__}; it must return a tensor, "
            f"of shape (2, {classes}) for 2 samples"
        )
    actual = tuple(outputs.shape)
    if actual != (2, classes):
        raise ConfigError(f"model '{name}': gives outputs of shape {actual} for 2 samples; it must be (2, {classes})")
    model.train()


def _check_state(model: nn.Module, name: str) -> None:
    """Refuse state that a file of weights cannot hold."""
    for key, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise ConfigError(
                f"model '{name}': its state has {key}, which is no tensor but {type(value).__name__}; a file of "
                "weights holds tensors alone, so keep it in a buffer"
            )
        if value.layout != torch.strided:
            raise ConfigError(
                f"model '{name}': {key} is sparse; a file of weights holds dense tensors alone, so make it "
                "dense, or register the buffer with persistent=False"
            )


def _initialise(model: nn.Module, name: str) -> None:
    """Draw the weights of linear and convolution layers; their biases start at zero."""
    choice = INITIALISATIONS[name]
    if not choice.target:
        return
    initialiser = registry.resolve(choice.target)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            initialiser(module.weight, **choice.arguments)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
