"""Transfer of pretrained weights: a model's first weights from a file, and the parts of it that are frozen."""

from __future__ import annotations

import logging
import pickle
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from hpo.config.trial_config import TrialConfig
from hpo.errors import ConfigError
from hpo.training.models import build_model
from hpo.training.optimizers import find_head
from hpo.utils.text import first_line, shorten, summarize_error

__all__ = ["build_initial_model", "find_frozen_norms"]

log = logging.getLogger("hpo.training")
Weights = dict[str, Tensor]
WRAPPERS = ("state_dict", "model_state_dict", "model")  # under which checkpoints of other programs keep weights
PREFIXES = ("module.", "_orig_mod.", "model.")  # of wrappers: data parallel, compiled, Lightning's
COUNTER = "num_batches_tracked"  # of batch normalisation; files of old versions of torch lack it
AUXILIARY = ("AuxLogits.", "aux1.", "aux2.")  # further heads of torchvision's Inception models, which are not built
RGB = 3


def build_initial_model(config: TrialConfig, shape: tuple[int, ...], classes: int) -> nn.Module:
    """Build the model of a configuration as training begins with it: with its pretrained weights, and parts frozen.

    Args:
        config, shape, classes: see `hpo.training.models.build_model`.

    Raises:
        ConfigError: the file of weights cannot be read, or does not fit the model; or as `build_model`.
        RegistryError: no model of that name is registered.
    """
    module = build_model(config, shape, classes)
    if config.pretrained is not None:
        _load_pretrained(module, Path(config.pretrained), config.model)
    if config.freeze == "backbone":
        _freeze_backbone(module)
    return module


def _freeze_backbone(module: nn.Module) -> None:
    """Leave nothing but the head to be trained: no gradient, no weight decay, and no change of running statistics."""
    head = find_head(module)
    for parameter in module.parameters():
        if parameter not in head:
            parameter.requires_grad = False


def find_frozen_norms(module: nn.Module) -> list[nn.Module]:
    """Return the normalisations with running statistics, but without weights to be trained.

    In training they compute as in evaluation: by their running statistics, which stay as they are.
    """
    norms = (part for part in module.modules() if isinstance(part, nn.modules.batchnorm._NormBase))
    return [norm for norm in norms if not any(each.requires_grad for each in norm.parameters())]


def _load_pretrained(module: nn.Module, path: Path, model: str) -> None:
    """Load weights from a file; those of a head of another size, or that the file lacks, stay as they were drawn.

    Raises:
        ConfigError: the file cannot be read, or anything else does not fit.
    """
    head = find_head(module)
    names = {name for name, parameter in module.named_parameters() if parameter in head}
    own = module.state_dict()
    found = _adapt_channels(_renumber(_strip(_read(path), own), own), own)
    fitting = {name: weight for name, weight in found.items() if _shape(own.get(name)) == _shape(weight)}
    left_out = sorted(name for name in names if name not in fitting)
    missing = [name for name in own if name not in fitting and name not in names and not name.endswith(COUNTER)]
    foreign = [name for name in found if name not in own and not name.startswith(AUXILIARY)]
    if missing or foreign:
        name = (missing or foreign)[0]
        raise ConfigError(
            f"pretrained = {shorten(str(path))}: does not fit the model '{model}': "
            f"{_describe_misfit(name, own.get(name), found.get(name))}; {len(fitting)} of the model's {len(own)} "
            "tensors fit; give the file of a model of the same kind and size"
        )
    if broken := [name for name, weight in fitting.items() if not weight.isfinite().all()]:
        raise ConfigError(
            f"pretrained = {shorten(str(path))}: holds numbers that are not finite, in {broken[0]}"
            f"{f' and {len(broken) - 1} more' if len(broken) > 1 else ''}; give weights from before that"
        )
    module.load_state_dict(fitting, strict=False)
    if left_out:
        sizes = " and ".join(f"{name} of {_describe(found.get(name))}" for name in left_out)
        _say(f"pretrained = {path}: the head of '{model}' begins anew; the file has {sizes}")


@cache
def _say(line: str) -> None:
    """Log a line, once a process."""
    log.warning("%s", line)


def _read(path: Path) -> Any:
    """Return what a file of weights holds; nothing in it is run.

    Raises:
        ConfigError: it is missing, damaged, or holds more than tensors and plain values.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ConfigError(f"pretrained = {shorten(str(path))}: there is no such file") from error
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f"pretrained = {shorten(str(path))}: is no file of weights alone, or is damaged; objects in it would be "
            "code: save a state dict, torch.save(model.state_dict(), …)"
        ) from error
    except OSError as error:
        why = error.strerror or first_line(error)
        raise ConfigError(f"pretrained = {shorten(str(path))}: cannot be read ({why})") from error
    except (SafetensorError, RuntimeError, ValueError, EOFError, LookupError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"pretrained = {shorten(str(path))}: is no file of weights, or is damaged ({summarize_error(error)})"
        ) from error


def _strip(content: Any, own: Weights) -> Weights:
    """Return the weights of a file's content by the model's names, without what other programs wrap around them."""
    for key in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    items = content.items() if isinstance(content, Mapping) else ()
    weights = {str(name): value for name, value in items if isinstance(value, Tensor)}
    for prefix in PREFIXES:
        if weights and not weights.keys() & own.keys() and all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights


def _renumber(found: Weights, own: Weights) -> Weights:
    """Return weights by the model's names, if the file's differ in their numbers alone.

    The layers of a sequence are numbered, and those without weights, such as dropout, shift the numbers of others.
    """
    ours, theirs = sorted(own, key=_split_numbers), sorted(found, key=_split_numbers)
    if [_split_numbers(name)[::2] for name in ours] != [_split_numbers(name)[::2] for name in theirs]:
        return found
    return {name: found[their] for name, their in zip(ours, theirs, strict=True)}


def _split_numbers(name: str) -> list[str]:
    """Return the parts of a name, its numbers at the odd places, in an order that is theirs."""
    return [part.zfill(20) if place % 2 else part for place, part in enumerate(re.split(r"(\d+)", name))]


def _adapt_channels(found: Weights, own: Weights) -> Weights:
    """Return weights whose first convolution reads as many channels as the model's, if that of the file reads RGB.

    One channel gets the sum of the three, as if it were each of them; more repeat the three, scaled so that their sum
    stays.
    """
    first = next((name for name, weight in own.items() if weight.ndim == 4), None)
    if first is None or first not in found or found[first].ndim != 4:
        return found
    wanted, given = own[first], found[first]
    channels = wanted.shape[1]
    if given.shape[1] != RGB or channels == RGB or wanted.shape != (given.shape[0], channels, *given.shape[2:]):
        return found
    repeated = given[:, [index % RGB for index in range(channels)]] * (RGB / channels)
    return found | {first: given.sum(1, keepdim=True) if channels == 1 else repeated}


def _shape(weight: Tensor | None) -> tuple[int, ...] | None:
    return None if weight is None else tuple(weight.shape)


def _describe_misfit(name: str, own: Tensor | None, found: Tensor | None) -> str:
    """Say how a tensor of the model and that of the file differ."""
    if found is None:
        return f"the file has no {name}"
    if own is None:
        return f"the file has {name}, and the model has not"
    return f"{name} has {_describe(found)} in the file, and {_describe(own)} in the model"


def _describe(weight: Tensor | None) -> str:
    return "nothing" if weight is None else f"shape {tuple(weight.shape)}"
