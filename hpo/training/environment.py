"""Environment of a training run: versions, hardware, threads and data."""

from __future__ import annotations

import importlib.metadata
import platform
from functools import cache
from pathlib import Path

import torch

from hpo.training.data import Data

__all__ = ["describe_environment"]


def describe_environment(data: Data | None = None) -> dict[str, str]:
    """Return what a result depends on beside its configuration, as short texts by name.

    Without data, which an objective function of the user's reads itself, neither a GPU nor the data are named.

    Keys: `python`, `torch-hpo`, `torch`, `numpy`, `cuda` (where the device is one), `device`, `threads` and `data`, a
    digest of labels, split and scaling.
    """
    versions = {
        "python": platform.python_version(),
        "torch-hpo": importlib.metadata.version("torch-hpo"),
        "torch": torch.__version__,
        "numpy": importlib.metadata.version("numpy"),
    }
    if data is None:
        return {**versions, "device": _processor(), "threads": str(torch.get_num_threads())}
    if data.device.type == "cuda":
        versions["cuda"] = str(torch.version.cuda)
        versions["device"] = torch.cuda.get_device_name(data.device)
    else:
        versions["device"] = _processor()
    return {**versions, "threads": str(torch.get_num_threads()), "data": data.digest}


@cache
def _processor() -> str:
    """Return the processor's name, or its kind where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
