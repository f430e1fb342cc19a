"""A model for use without this package: as ONNX, and as lines of plain torch."""

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
# Of the outputs' largest size: float32 sums in another order differ by some 1e-6, another graph by far more.
TOLERANCE = 1e-4


def has_onnx() -> bool:
    """Whether the packages of the extra `onnx` are installed."""
    return all(importlib.util.find_spec(name) is not None for name in NEEDED)


def write_onnx(model: nn.Module, path: Path, samples: Tensor) -> float:
    """Write a model as ONNX, and check it with onnxruntime against torch.

    The graph takes `x` (any number of samples, *shape), float32 and scaled, and gives `logits` (as many, classes).

    Args:
        model: in whatever mode; it is written as it predicts.
        path: of the file.
        samples: (n, *shape) on the model's device, n > 1, to compare on.

    Returns:
        The largest difference of an output from torch's.

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
        except Exception as error:  # of the exporter, which has many; or of a user's model
            raise RunError(f"the model cannot be written as ONNX: {type(error).__name__}: {_line(error)}") from error
    assert program is not None
    program.save(path, external_data=False)
    return _checked(model, path, samples)


def _checked(model: nn.Module, path: Path, samples: Tensor) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (said,) = session.run([OUTPUT], {INPUT: samples.cpu().numpy()})
    with torch.no_grad():
        expected = model(samples).float().cpu().numpy()
    difference = float(np.abs(said - expected).max())
    if not difference <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise RunError(f"the model computes something else as ONNX: outputs differ by up to {difference:.3g}")
    return difference


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter speaks of its own insides, which no user can mend."""
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
    """The model as an expression of `torch.nn`, whose state dict has the same keys; None of what is no plain sequence.

    The modules of torch print themselves as they are made: `Linear(in_features=784, out_features=10, bias=True)`.
    """
    if type(model) is not nn.Sequential or not all(_is_plain(module) for module in model):
        return None
    return "\n".join(["nn.Sequential(", *(f"    nn.{module!r}," for module in model), ")"])


def _is_plain(module: Any) -> bool:
    own = getattr(nn, type(module).__name__, None) is type(module)
    return own and not list(module.children())
