"""Memory of training: the process's allocator, and the many ways in which torch says that none is left."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

from hpo.errors import OutOfMemoryError
from hpo.utils.text import first_line

__all__ = ["is_out_of_memory", "keep_freed_memory", "release_memory", "translate_memory_errors"]

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
LARGE = 64 << 20  # blocks above this, such as a data set, still go back to the system when they are freed
KEPT = 256 << 20
# What the CPU's allocator says instead of raising an exception of its own.
ALLOCATOR_WORDS = ("DefaultCPUAllocator", "not enough memory", "can't allocate memory", "Cannot allocate memory")


@cache
def keep_freed_memory() -> None:
    """Let the C library keep freed blocks of up to 64 MB, and 256 MB in all, for the next step.

    By default it gives a step's activations back to the system and takes them again in the next, page by page: for
    the CNN 32-64 at batch 128 some 3,000 page faults a step, and 28 ms instead of 25. Does nothing where the C library
    is another than glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE)
        mallopt(M_TRIM_THRESHOLD, KEPT)


def release_memory() -> None:
    """Free unused memory, on CUDA also the cache that torch keeps for itself."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error is one of the ways in which torch and Python say that memory is short."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in ALLOCATOR_WORDS)


@contextmanager
def translate_memory_errors() -> Iterator[None]:
    """Turn each of torch's ways to say that memory is short into an OutOfMemoryError."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise OutOfMemoryError(f"out of memory: {first_line(error)}; try a smaller batch_size or model") from error
        raise
