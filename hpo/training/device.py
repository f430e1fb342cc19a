"""Devices and threads of training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hpo.errors import ConfigError

__all__ = ["copy_to_cpu", "select_device", "send_numbers", "set_threads"]


def select_device(name: str = "auto") -> torch.device:
    """Return the device of that name: `cpu`, `cuda`, `cuda:1`, or `auto` for CUDA where there is one, else the CPU.

    Raises:
        ConfigError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    kind, _, index = name.partition(":")
    if kind != "cuda" or not (index.isdigit() or name == "cuda"):
        raise ConfigError(f"device = '{name}': must be auto, cpu, cuda or cuda:N")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(index or 0) >= count:
        raise ConfigError(f"device = '{name}': this machine has {count} CUDA devices; use --device auto")
    return torch.device(name)


def set_threads(count: int) -> None:
    """Let torch use that many threads, at least one."""
    torch.set_num_threads(max(1, count))


def send_numbers(numbers: Sequence[float], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return numbers as a tensor on a device, without waiting for what that still computes."""
    tensor = torch.tensor(numbers, dtype=dtype)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)  # from other memory it would wait


def copy_to_cpu(value: Tensor) -> Tensor:
    """Return a copy on the CPU whose numbers follow one another, as files of weights have them."""
    return value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
