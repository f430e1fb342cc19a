"""What a result depends on beside its configuration: versions, hardware, threads and data."""

from __future__ import annotations

import importlib.metadata
import platform
from functools import cache
from pathlib import Path

import torch

from hpo.training.data import Data

__all__ = ["describe_environment"]


def describe_environment(data: Data) -> dict[str, str]:
    """What this process trains with, each as a short text by its name.

    Keys: `python`, `torch-hpo`, `torch`, `numpy`, `cuda` (where the device is one), `device`, `threads` and `data`, a
    digest of labels, split and scaling.
    """
    found = {
        "python": platform.python_version(),
        "torch-hpo": importlib.metadata.version("torch-hpo"),
        "torch": torch.__version__,
        "numpy": importlib.metadata.version("numpy"),
    }
    if data.device.type == "cuda":
        found["cuda"] = str(torch.version.cuda)
        found["device"] = torch.cuda.get_device_name(data.device)
    else:
        found["device"] = _processor()
    return {**found, "threads": str(torch.get_num_threads()), "data": data.digest}


@cache
def _processor() -> str:
    """The processor's name; where the system does not tell, its kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()
