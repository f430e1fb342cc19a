"""CUDA graphs of training steps: what a stack's step launches is recorded once, and then launched by one call.

A graph repeats kernels on the memory that they had when it was recorded. So each step's batch and learning rates are
copied into memory of the graph's own, and its random bits too, which are drawn outside, in the order of steps that are
not recorded. Whatever the host counts, the step leaves to its caller.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from hpo.training.stacked.batches import StackBatch
from hpo.training.stacked.noise import Noise
from hpo.utils.text import first_line

__all__ = ["Compute", "CudaRecorder", "Recorder", "StepGraph", "find_recorder"]

log = logging.getLogger("hpo.training")
WARM_UP = 3  # steps of one shape before it is recorded: libraries choose kernels and memory in the first ones

Compute = Callable[[StackBatch, Tensor], Tensor]  # of a batch and learning rates (members, 1, 1); returns the outputs


class Recorder(Protocol):
    """Recorder of what a device computes."""

    def warm_up(self, run: Callable[[], Tensor]) -> Tensor:
        """Compute as before a recording, and return the result."""

    def record(self, run: Callable[[], Tensor]) -> tuple[Callable[[], object], Tensor]:
        """Record without computing; return what replays it, and the memory of its result.

        Raises:
            RuntimeError: it cannot be recorded.
        """


class CudaRecorder:
    """Recorder of CUDA graphs, as `torch.cuda.graph` documents them.

    Args:
        device: of all tensors.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def warm_up(self, run: Callable[[], Tensor]) -> Tensor:
        """Compute on a stream beside the current one, which waits for it on the device; see `Recorder`."""
        with torch.cuda.device(self._device):
            current = torch.cuda.current_stream()
            self._stream.wait_stream(current)
            with torch.cuda.stream(self._stream):
                result = run()
            current.wait_stream(self._stream)
        return result

    def record(self, run: Callable[[], Tensor]) -> tuple[Callable[[], object], Tensor]:
        """Record a graph; see `Recorder`."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self._device):
            current = torch.cuda.current_stream()
            try:
                # Other threads, such as the one that renews leases, may use the device meanwhile.
                with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                    result = run()
            finally:  # where the end of a recording raises, torch leaves its stream the current one
                torch.cuda.set_stream(current)
        return graph.replay, result


def find_recorder(device: torch.device) -> Recorder | None:
    """Return the recorder of a device; None where recording would not pay."""
    return CudaRecorder(device) if device.type == "cuda" else None


class StepGraph:
    """Training step of a stack, recorded for the shape of batches that come in a row; others are computed as they are.

    Args:
        compute: the step. It reads and writes the same memory each time, except for its arguments and the noise.
        noise: that it draws from.
        recorder: of the device.
        memory: returns what the step writes to for batches of n samples, which is kept as long as a graph uses it.
    """

    def __init__(self, compute: Compute, noise: Noise, recorder: Recorder, memory: Callable[[int], object]) -> None:
        self._compute, self._noise, self._recorder, self._memory = compute, noise, recorder, memory
        self._shape: Hashable = None  # of the last batch that was not replayed
        self._seen = 0  # batches of that shape in a row
        self._words: list[int] = []  # random words of each draw of such a step
        self._recording: Recording | None = None
        self._failed = False

    def step(self, batch: StackBatch, rate: Tensor) -> Tensor:
        """Do a step and return the outputs; the next one may overwrite them.

        Args:
            batch: all of whose samples count.
            rate: learning rates, (members, 1, 1).
        """
        shape = _shape_of(batch)
        if self._recording is not None and self._recording.shape == shape:
            self._shape, self._seen = None, 0  # others, such as an epoch's last batch, are not in a row
            return self._recording.replay(batch, rate)
        if self._failed:
            return self._compute(batch, rate)
        self._seen = self._seen + 1 if shape == self._shape else 1
        self._shape = shape
        if self._seen > WARM_UP:
            return self._record(batch, rate)
        with self._noise.list_draws() as self._words:
            return self._recorder.warm_up(lambda: self._compute(batch, rate))

    def _record(self, batch: StackBatch, rate: Tensor) -> Tensor:
        """Record a graph and do the first step by it; where that fails, do it, and all others, without."""
        self._recording, self._seen = None, 0
        bits = [self._noise.draw(words).clone() for words in self._words]
        w = None if batch.w is None else batch.w.clone()
        own, own_rate = StackBatch(batch.x.clone(), batch.y.clone(), batch.target.clone(), w), rate.clone()

        def run() -> Tensor:
            with self._noise.give(bits):
                return self._compute(own, own_rate)

        try:
            replay, outputs = self._recorder.record(run)
        except RuntimeError as error:
            self._failed = True
            log.info("training steps are launched one operation at a time, for no CUDA graph: %s", first_line(error))
            return run()
        kept = self._memory(batch.x.shape[-2])
        self._recording = Recording(_shape_of(batch), replay, outputs, own, own_rate, bits, self._noise, kept)
        replay()
        return outputs

    def drop(self) -> None:
        """Drop the graph, so that the next steps are those of a stack that has just been made."""
        self._recording, self._shape, self._seen = None, None, 0


class Recording:
    """Graph of a step, with the memory that it reads.

    Attributes:
        shape: of its batches.
    """

    def __init__(
        self,
        shape: Hashable,
        replay: Callable[[], object],
        outputs: Tensor,
        batch: StackBatch,
        rate: Tensor,
        bits: Sequence[Tensor],
        noise: Noise,
        kept: object,
    ) -> None:
        self.shape = shape
        self._replay, self._outputs, self._kept = replay, outputs, kept
        self._tensors, self._rate, self._bits, self._noise = _tensors_of(batch), rate, bits, noise

    def replay(self, batch: StackBatch, rate: Tensor) -> Tensor:
        """Do the step on a batch."""
        for name, tensor in _tensors_of(batch).items():
            self._tensors[name].copy_(tensor)
        self._rate.copy_(rate)
        for own in self._bits:
            own.copy_(self._noise.draw(own.shape[1]))
        self._replay()
        return self._outputs


def _tensors_of(batch: StackBatch) -> dict[str, Tensor]:
    return {name: each for name, each in batch._asdict().items() if isinstance(each, Tensor)}


def _shape_of(batch: StackBatch) -> Hashable:
    return tuple((name, each.shape, each.dtype) for name, each in _tensors_of(batch).items())
