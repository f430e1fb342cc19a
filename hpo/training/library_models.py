"""Models of timm and torchvision by name, built for the channels and classes of the data."""

from __future__ import annotations

import importlib
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import nn

from hpo.config.model_library import LIBRARIES
from hpo.config.trial_config import TrialConfig
from hpo.errors import ConfigError, RegistryError, find_closest
from hpo.utils.text import summarize_error

__all__ = ["check_name", "describe_size", "timm_model", "torchvision_model"]

# Operators that torchvision's own compiled part defines, and that it describes to torch at its import whether they are
# there or not.
OPERATORS = ("nms", "qnms")
SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
INCEPTIONS = (
    "googlenet",
    "inception_v3",
)  # which in training return the outputs of further heads too, if these are built


def timm_model(config: TrialConfig, shape: tuple[int, ...], classes: int) -> nn.Module:
    """Build a model of timm with random weights; `dropout` is its `drop_rate`, in most models that of the head.

    Raises:
        ConfigError: timm has no model of that name, or it has no dropout; or samples are no images.
        RegistryError: timm is not installed, or cannot be imported.
    """
    channels, name = _count_channels(config, shape), check_name(config.model)
    options = {"drop_rate": config.dropout} if config.dropout else {}
    try:
        return _create_timm(name, num_classes=classes, in_chans=channels, **options)
    except TypeError as error:
        if "drop_rate" not in str(error):
            raise
        raise ConfigError(f"dropout = {config.dropout:g}: the model '{config.model}' has none") from error


def _create_timm(name: str, **options: Any) -> nn.Module:
    model: nn.Module = _import_library("timm").create_model(name, pretrained=False, **options)
    return model


def torchvision_model(config: TrialConfig, shape: tuple[int, ...], classes: int) -> nn.Module:
    """Build a model of torchvision for the classification of images, with random weights.

    Its first convolution has as many input channels as the data; where these are not three it is drawn as torch's are.

    Raises:
        ConfigError, RegistryError: as `timm_model`.
    """
    channels, name = _count_channels(config, shape), check_name(config.model)
    options = {"aux_logits": False, "init_weights": True} if name in INCEPTIONS else {}
    model: nn.Module = _import_library("torchvision.models").get_model(
        name, weights=None, num_classes=classes, **options
    )
    if channels != 3:
        _replace_first_convolution(model, channels)
    return model


def _replace_first_convolution(model: nn.Module, channels: int) -> None:
    name, old = next((name, part) for name, part in model.named_modules() if isinstance(part, nn.Conv2d))
    parent, _, attribute = name.rpartition(".")
    new = nn.Conv2d(
        channels,
        old.out_channels,
        old.kernel_size,  # type: ignore[arg-type]  # pairs, which torch's annotations leave open
        old.stride,  # type: ignore[arg-type]
        old.padding,  # type: ignore[arg-type]
        bias=old.bias is not None,
    )
    setattr(model.get_submodule(parent), attribute, new)


def check_name(model: str) -> str:
    """Return a model's name in its library, which is imported.

    Raises:
        ConfigError: the library has no such model; the message names the closest one.
        RegistryError: the library is not installed, or cannot be imported.
    """
    package, _, name = model.partition(":")
    LIBRARIES[package].check_installed(model)
    if name.partition(".")[0] not in (names := _list_names(package)):  # timm's may name their weights after a dot
        near = find_closest(name, sorted(names))
        listed = "timm.list_models()" if package == "timm" else "torchvision.models.list_models()"
        hint = f"did you mean '{package}:{near}'?" if near else f"{listed} lists them"
        raise ConfigError(f"model = '{model}': {package} has no such model of images; {hint}")
    return name


@cache
def _list_names(package: str) -> frozenset[str]:
    if package == "timm":
        return frozenset(_import_library("timm").list_models())
    models = _import_library("torchvision.models")
    return frozenset(models.list_models(module=models))


def _count_channels(config: TrialConfig, shape: tuple[int, ...]) -> int:
    if len(shape) != 3:
        raise ConfigError(
            f"model = '{config.model}': needs images, but a sample has shape {tuple(shape)}; use model = 'mlp'"
        )
    return shape[0]


def describe_size(model: nn.Module) -> str:
    """Return what a message adds where a model cannot take images: the size that its library gives it, if any."""
    library_size = (getattr(model, "default_cfg", None) or {}).get("input_size")
    size = library_size[1:] if library_size else (getattr(model, "image_size", None),) * 2
    return f"; it is made for images of {size[0]} x {size[1]}: resize them" if isinstance(size[0], int) else ""


@cache
def _import_library(name: str) -> ModuleType:
    try:
        _import_torchvision()
        return importlib.import_module(name)
    except Exception as error:  # what is installed may not fit torch
        raise RegistryError(
            f"{name.partition('.')[0]}: is installed, but cannot be imported: {summarize_error(error)}; install the "
            f"version that fits torch {torch.__version__}"
        ) from error


def _import_torchvision() -> None:
    """Import torchvision, which timm needs too, also where its compiled part does not fit this build of torch.

    Beside a CPU build of torch that part cannot be loaded, and the import then fails at operators on boxes that it
    would have defined. No model of images needs them, so their names are defined, and nothing but their names.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        for operator in OPERATORS:
            _OPERATORS.define(f"{operator}{SIGNATURE}")  # type: ignore[no-untyped-call]
        importlib.import_module("torchvision")


# What it defines lasts as long as it does.
_OPERATORS = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
