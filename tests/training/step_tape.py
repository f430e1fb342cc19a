"""A recorder of operations that does on the CPU what a CUDA graph does: it repeats them on the memory they had."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["Tape", "TapeRecorder", "waits"]

# What a device must be waited for: a number that the host reads, results whose shape the numbers decide, and memory of
# the host that is copied (`lift_fresh` is torch.tensor's).
WAITING = {
    *("_local_scalar_dense", "lift_fresh", "nonzero", "nonzero_static", "masked_select", "is_nonzero", "equal"),
    *("unique_dim", "_unique2", "repeat_interleave", "bincount"),
}


READING = {"tolist", "numpy", "cpu", "__array__"}  # which are no operations


@contextmanager
def waits() -> Iterator[None]:
    """Raise AssertionError where a step would wait for a CUDA device."""
    with Reads(), Waits():
        yield


class Reads(TorchFunctionMode):
    """Raises where the host reads numbers other than by an operation."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if (name := getattr(func, "__name__", "")) in READING:
            raise AssertionError(f"{name} waits for the device")
        return func(*args, **(kwargs or {}))


class Waits(TorchDispatchMode):
    """Raises where an operation would wait."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        masks = [each for each in tree_leaves(args[1:]) if isinstance(each, Tensor) and each.dtype == torch.bool]
        if name in WAITING or (name.startswith(("index", "_index_put")) and masks):
            raise AssertionError(f"{name} waits for the device")
        return func(*args, **(kwargs or {}))


class Tape(TorchDispatchMode):
    """Operations with their arguments, and undoing of what they have written.

    Attributes:
        lines: each operation with its numbers, its tensors by their shapes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._calls: list[tuple[Any, Any, Any, Any]] = []
        self._before: list[tuple[Tensor, Tensor]] = []
        self.lines: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if "batch_norm" in func.overloadpacket.__name__:  # its schema is silent about the running statistics
            self._save(args)
        for argument, value in zip(func._schema.arguments, args, strict=False):
            self._keep(argument, value)
        for argument in func._schema.arguments:
            if argument.name in kwargs:
                self._keep(argument, kwargs[argument.name])
        result = func(*args, **kwargs)
        self._calls.append((func, args, kwargs, result))
        self.lines.append(f"{func} {[_describe(each) for each in tree_leaves((args, kwargs))]}")
        return result

    def _keep(self, argument: Any, value: Any) -> None:
        if argument.alias_info is not None and argument.alias_info.is_write:
            self._save(value)

    def _save(self, values: Any) -> None:
        self._before += [(each, each.clone()) for each in tree_leaves(values) if isinstance(each, Tensor)]

    def undo(self) -> None:
        """Give what has been written its former numbers: to record is not to compute."""
        for tensor, before in reversed(self._before):
            tensor.copy_(before)
        self._before.clear()

    def replay(self) -> None:
        """Do the operations again; new results take the memory of the former ones."""
        for func, args, kwargs, result in self._calls:
            for old, new in zip(tree_leaves(result), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def _describe(value: object) -> object:
    return (tuple(value.shape), value.dtype) if isinstance(value, Tensor) else value


class TapeRecorder:
    """Recorder of tapes, in place of CUDA graphs.

    Attributes:
        tapes: one for each recording.
        replays: how many steps were replayed.
    """

    def __init__(self) -> None:
        self.tapes: list[Tape] = []
        self.replays = 0

    def warm_up(self, run: Callable[[], Tensor]) -> Tensor:
        return run()

    def record(self, run: Callable[[], Tensor]) -> tuple[Callable[[], object], Tensor]:
        with Tape() as tape:
            result = run()
        with torch.no_grad():
            tape.undo()
        self.tapes.append(tape)

        def replay() -> None:
            self.replays += 1
            with torch.no_grad():
                tape.replay()

        return replay, result
