"""Export of models for use without this package: as ONNX, and as an expression of plain torch."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hpo.errors import RunError

__all__ = ["INPUT", "OUTPUT", "has_onnx", "plain_torch", "write_onnx"]

INPUT, OUTPUT = "x", "logits"
NEEDED = ("onnx", "onnxscript", "onnxruntime")
# As a part of the largest output: float32 sums in another order differ by some 1e-6, another graph by far more.
TOLERANCE = 1e-4


def has_onnx() -> bool:
    """Return true if the packages of the extra `onnx` are installed."""
    return all(importlib.util.find_spec(name) is not None for name in NEEDED)


def write_onnx(model: nn.Module, path: Path, samples: Tensor) -> float:
    """Write a model as ONNX, and check it with onnxruntime against torch.

    The graph takes `x` (any number of samples, *shape), float32 and scaled, and gives `logits` (as many, classes).

    Args:
        model: the model, in any mode; it is written in evaluation mode.
        path: path of the file.
        samples: samples (n, *shape) on the model's device, n > 1, to compare on.

    Returns:
        The largest difference of an output from torch's, as a share of the largest output where that is above 1.

    Raises:
        RunError: the model cannot be written as ONNX, or computes something else there.
    """
    model.eval()
    batch = torch.export.Dim("batch")
    with _quiet():
        try:
            program = torch.onnx.export(
                model,
                (samples[:2],),
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: batch},),
                dynamo=True,
                verbose=False,
            )
        except Exception as error:  # one of the exporter's many kinds, or a user's model's
            raise RunError(f"the model cannot be written as ONNX: {type(error).__name__}: {_line(error)}") from error
    assert program is not None
    program.save(path, external_data=False)
    return _compare(model, path, samples)


def _compare(model: nn.Module, path: Path, samples: Tensor) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (outputs,) = session.run([OUTPUT], {INPUT: samples.cpu().numpy()})
    with torch.no_grad():
        expected = model(samples).float().cpu().numpy()
    difference = float(np.abs(outputs - expected).max()) / max(1.0, float(np.abs(expected).max()))
    if not difference <= TOLERANCE:
        raise RunError(
            f"the model computes something else as ONNX: outputs differ by up to {difference:.3g} of the largest"
        )
    return difference


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's messages about its own internals, which users cannot act on."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def plain_torch(model: nn.Module) -> str | None:
    """Return a model as an expression of `torch.nn` with the same state dict keys; None if it is no plain sequence.

    Modules of torch print themselves as they are constructed: `Linear(in_features=784, out_features=10, bias=True)`.
    """
    if type(model) is not nn.Sequential or not all(_is_plain(module) for module in model):
        return None
    return "\n".join(["nn.Sequential(", *(f"    nn.{module!r}," for module in model), ")"])


def _is_plain(module: Any) -> bool:
    own = getattr(nn, type(module).__name__, None) is type(module)
    return own and not list(module.children())
