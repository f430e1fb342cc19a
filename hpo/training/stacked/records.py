"""Records of the losses and scores of an epoch's steps, of all members of a stack."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hpo.training.member import Scores
from hpo.training.scores import TargetMoments
from hpo.training.stacked.losses import Count, ReconstructionLoss, StackLoss, keep_valid

__all__ = ["ReconstructionRecord", "StackRecord"]

CHUNK = 1024  # samples measured at once


class StackRecord:
    """Record of losses and scores of an epoch's steps, each before its step; computed many samples at a time.

    The samples are those of all members, or each has its own: labels and weights then have a first dimension of
    members, which all of an epoch's batches must have in common. After a last batch of unequal sizes the epoch is over,
    and nothing of it is saved.

    Args:
        loss: of the stack.
        members: how many.
        outputs: the number of outputs.
        like: a tensor of the weights' type and device.
        by_step: whether to keep the mean loss of each step, too.
    """

    def __init__(self, loss: StackLoss, members: int, outputs: int, like: Tensor, *, by_step: bool = False) -> None:
        self._loss = loss
        self._by_step = by_step
        self._sizes: list[int] = []  # of the steps that still wait
        self._steps: list[Tensor] = []  # of those that do not: mean losses, (members, steps) each
        self._outputs = like.new_empty(members, outputs, 0)
        self._labels: Tensor | None = None
        self._weights: Tensor | None = None
        self._sums: Tensor | None = None  # of losses and what the score needs, (members, 1 + sums)
        self._moments: TargetMoments | None = None
        self._along = 0  # the dimension of the samples in labels and weights: 1 where each member has its own
        self._used = 0
        self._samples: Count = 0

    def begin(self, *, own: bool = False) -> None:
        """Start an epoch, in which each member may have samples of its own."""
        self._sums = self._moments = None
        self._used = self._samples = 0
        self._sizes.clear()
        self._steps.clear()
        if self._along != int(own):
            self._along, self._labels, self._weights = int(own), None, None

    def add(
        self,
        outputs: Tensor,
        y: Tensor,
        target: Tensor,  # noqa: ARG002
        w: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> None:
        """Copy a step's outputs (members, outputs, n), y (n,) or (n, columns), and weights.

        The target is for `ReconstructionRecord`. Where not all are `valid`, (members, n), this is the last step.
        """
        n = y.shape[self._along]
        if valid is not None:
            self._process_waiting()
        labels = self._make_room(n, y, w)
        self._outputs[:, :, self._used : self._used + n] = outputs
        labels.narrow(self._along, self._used, n).copy_(y)
        if w is not None:
            assert self._weights is not None
            self._weights.narrow(self._along, self._used, n).copy_(w)
        self._used += n
        self._samples = self._samples + (n if valid is None else valid.sum(1))
        self._sizes.append(n)
        if valid is not None:
            self._process_waiting(valid)

    def _make_room(self, n: int, y: Tensor, w: Tensor | None) -> Tensor:
        """Make room for n more samples, and return the memory of their labels."""
        room = 0 if self._labels is None else self._labels.shape[self._along]
        if self._used + n > room:
            self._process_waiting()
            if n > room:
                size = max(CHUNK, n)
                self._outputs = self._outputs.new_empty(*self._outputs.shape[:2], size)
                self._labels = self._new_room(y, size)
                self._weights = None if w is None else self._new_room(w, size)
        assert self._labels is not None
        return self._labels

    def _new_room(self, like: Tensor, size: int) -> Tensor:
        shape = *like.shape[: self._along], size, *like.shape[self._along + 1 :]
        return like.new_empty(shape, device=self._outputs.device)

    def _process_waiting(self, valid: Tensor | None = None) -> None:
        """Compute losses and scores of the samples that still wait, of each member those that are valid."""
        if not self._used:
            return
        assert self._labels is not None
        outputs, y = self._outputs[:, :, : self._used], self._labels.narrow(self._along, 0, self._used)
        w = None if self._weights is None else self._weights.narrow(self._along, 0, self._used)
        losses = keep_valid(self._loss.samples(outputs, y, w), valid)
        sums = torch.cat([losses.sum(1, dtype=torch.float64)[:, None], self._loss.score_sums(outputs, y, valid)], 1)
        self._sums = sums if self._sums is None else self._sums + sums
        if self._loss.score == "r2":
            self._moments = self._moments or TargetMoments(y)
            self._moments.add(y, valid)
        if self._by_step:
            parts = torch.split(losses, self._sizes, 1)
            each = [part.mean(1, dtype=torch.float64) for part in parts]
            if valid is not None:  # a single step
                each = [sums[:, 0] / valid.sum(1)]
            self._steps.append(torch.stack(each, 1))
        self._used = 0
        self._sizes.clear()

    def read(self) -> list[Scores]:
        """Return each member's mean loss and score."""
        self._process_waiting()
        assert self._sums is not None
        scores = self._loss.scores(self._sums[:, 1:], self._samples, self._moments)
        means = torch.stack([self._sums[:, 0] / self._samples, scores], 1).tolist()
        return [{"loss": loss, self._loss.score: score} for loss, score in means]

    def steps(self) -> Tensor:
        """Return each member's mean loss at each step, (members, steps), in float64."""
        self._process_waiting()
        return torch.cat(self._steps, 1)

    def state(self, member: int) -> list[Tensor] | None:
        """Return a member's record: sums, number of samples, and waiting outputs and labels; None before any step.

        With the loss of each step: also the losses so far, and the sizes of the steps that wait. With real targets:
        also their moments. With weights: also those that wait.
        """
        if isinstance(self._samples, Tensor) or not self._samples:
            return None
        assert self._labels is not None
        y = self._labels.narrow(self._along, 0, self._used)
        rest = self._outputs[member, :, : self._used].clone(), self._part_of(y, member).clone()
        state = [self._sums_of(y)[member].clone(), torch.tensor(self._samples), *rest]
        if self._by_step:
            losses = [steps[member] for steps in self._steps] or [self._outputs.new_empty(0, dtype=torch.float64)]
            state += [torch.cat(losses), torch.tensor(self._sizes, dtype=torch.int64)]
        if self._loss.score == "r2":
            moments = self._moments or TargetMoments(y)
            state.append(moments.state(member))
        if self._weights is not None:
            state.append(self._part_of(self._weights.narrow(self._along, 0, self._used), member).clone())
        return state

    def _part_of(self, tensor: Tensor, member: int) -> Tensor:
        """Return a member's labels or weights of those that all share, or each has its own of."""
        return tensor[member] if self._along else tensor

    def _sums_of(self, y: Tensor) -> Tensor:
        """Return the sums so far; before there are any, zeros of their number."""
        if self._sums is None:
            empty = self._loss.score_sums(self._outputs[:, :, :0], y.narrow(self._along, 0, 0))
            self._sums = torch.zeros(len(empty), 1 + empty.shape[1], dtype=torch.float64, device=empty.device)
        return self._sums

    def load(self, member: int, state: Sequence[Tensor]) -> None:
        """Load what `state` returned, after `begin`; all members have seen as many samples."""
        sums, samples, outputs, labels, *more = state
        by_step = [more.pop(0), more.pop(0)] if self._by_step else []
        moments = more.pop(0) if self._loss.score == "r2" else None
        weights = more.pop(0).to(self._outputs) if more else None
        y = self._share(labels.to(self._outputs.device))
        if not self._samples:
            self._make_room(max(1, len(labels)), y, None if weights is None else self._share(weights))
        assert self._labels is not None
        self._sums_of(y)[member] = sums.to(self._outputs.device)
        self._samples, self._used = int(samples), len(labels)
        self._outputs[member, :, : self._used] = outputs.to(self._outputs)
        self._part_of(self._labels.narrow(self._along, 0, self._used), member).copy_(labels)
        if weights is not None:
            assert self._weights is not None
            self._part_of(self._weights.narrow(self._along, 0, self._used), member).copy_(weights)
        if moments is not None:
            self._moments = self._moments or TargetMoments(y)
            self._moments.load(member, moments)
        if by_step:
            steps, sizes = by_step
            if not self._steps:
                self._steps.append(torch.zeros(len(self._outputs), len(steps), dtype=torch.float64, device=y.device))
            self._steps[0][member] = steps.to(self._steps[0])
            self._sizes = sizes.tolist()

    def _share(self, tensor: Tensor) -> Tensor:
        """Return what is shaped as the labels or weights of all members, given those of one."""
        return tensor.expand(len(self._outputs), *tensor.shape) if self._along else tensor


class ReconstructionRecord:
    """Record of losses of an epoch's steps, each measured before its step.

    Args:
        loss: of the stack.
        members: how many.
        like: a tensor of the weights' type and device.
        by_step: whether to keep the mean loss of each step, too.
    """

    def __init__(self, loss: ReconstructionLoss, members: int, like: Tensor, *, by_step: bool = False) -> None:
        self._loss = loss
        self._by_step = by_step
        self._steps: list[Tensor] = []  # mean losses, (members,) each
        self._sums = torch.zeros(members, dtype=torch.float64, device=like.device)
        self._samples: Count = 0

    def begin(self, *, own: bool = False) -> None:  # noqa: ARG002  as `StackRecord` has it
        """Start an epoch."""
        self._sums.zero_()
        self._samples = 0
        self._steps.clear()

    def add(
        self,
        outputs: Tensor,
        y: Tensor,  # noqa: ARG002  as `StackRecord` has it
        target: Tensor,
        w: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> None:
        """Measure a step's outputs (members, features, n) against its samples; see `StackRecord`."""
        losses = self._loss.value(outputs, target, w, valid)
        samples: Count = target.shape[-1] if valid is None else valid.sum(1)
        self._sums += losses
        self._samples = self._samples + samples
        if self._by_step:
            self._steps.append(losses / samples)

    def read(self) -> list[Scores]:
        """Return each member's mean loss."""
        return [{"loss": loss} for loss in (self._sums / self._samples).tolist()]

    def steps(self) -> Tensor:
        """Return each member's mean loss at each step, (members, steps), in float64."""
        return torch.stack(self._steps, 1)

    def state(self, member: int) -> list[Tensor] | None:
        """Return a member's record: its sum, number of samples, and losses by step; None before any step."""
        if isinstance(self._samples, Tensor) or not self._samples:
            return None
        by_step = [self.steps()[member]] if self._by_step else []
        return [self._sums[member].clone(), torch.tensor(self._samples), *by_step]

    def load(self, member: int, state: Sequence[Tensor]) -> None:
        """Load what `state` returned, after `begin`; all members have seen as many samples."""
        self._sums[member], self._samples = state[0].to(self._sums), int(state[1])
        for steps in state[2:]:
            if not self._steps:
                self._steps = [torch.zeros_like(self._sums) for _ in steps]
            for losses, loss in zip(self._steps, steps.to(self._sums), strict=True):
                losses[member] = loss
