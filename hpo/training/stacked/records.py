"""Records of the losses and scores of an epoch's steps, of all members of a stack."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hpo.training.member import Scores
from hpo.training.scores import TargetMoments
from hpo.training.stacked.losses import ReconstructionLoss, StackLoss

__all__ = ["ReconstructionRecord", "StackRecord"]

CHUNK = 1024  # samples measured at once


class StackRecord:
    """Record of losses and scores of an epoch's steps, each before its step; computed many samples at a time.

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
        self._used = self._samples = 0

    def begin(self) -> None:
        """Start an epoch."""
        self._sums = self._moments = None
        self._used = self._samples = 0
        self._sizes.clear()
        self._steps.clear()

    def add(self, outputs: Tensor, y: Tensor, target: Tensor, w: Tensor | None = None) -> None:  # noqa: ARG002
        """Copy a step's outputs (members, outputs, n), y (n,) or (n, columns), and weights.

        The target is for `ReconstructionRecord`.
        """
        n = len(y)
        labels = self._make_room(n, y, w)
        part = slice(self._used, self._used + n)
        self._outputs[:, :, part] = outputs
        labels[part] = y
        if w is not None:
            assert self._weights is not None
            self._weights[part] = w
        self._used += n
        self._samples += n
        self._sizes.append(n)

    def _make_room(self, n: int, y: Tensor, w: Tensor | None) -> Tensor:
        """Make room for n more samples, and return the memory of their labels."""
        room = 0 if self._labels is None else len(self._labels)
        if self._used + n > room:
            self._process_waiting()
            if n > room:
                size = max(CHUNK, n)
                self._outputs = self._outputs.new_empty(*self._outputs.shape[:2], size)
                self._labels = y.new_empty(size, *y.shape[1:], device=self._outputs.device)
                self._weights = None if w is None else w.new_empty(size, *w.shape[1:], device=self._outputs.device)
        assert self._labels is not None
        return self._labels

    def _process_waiting(self) -> None:
        """Compute losses and scores of the samples that still wait."""
        if not self._used:
            return
        assert self._labels is not None
        outputs, y = self._outputs[:, :, : self._used], self._labels[: self._used]
        losses = self._loss.samples(outputs, y, None if self._weights is None else self._weights[: self._used])
        sums = torch.cat([losses.sum(1, dtype=torch.float64)[:, None], self._loss.score_sums(outputs, y)], 1)
        self._sums = sums if self._sums is None else self._sums + sums
        if self._loss.score == "r2":
            self._moments = self._moments or TargetMoments(y.shape[1], y.device)
            self._moments.add(y)
        if self._by_step:
            parts = torch.split(losses, self._sizes, 1)
            self._steps.append(torch.stack([part.mean(1, dtype=torch.float64) for part in parts], 1))
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
        if not self._samples:
            return None
        assert self._labels is not None
        rest = self._outputs[member, :, : self._used].clone(), self._labels[: self._used].clone()
        state = [self._sums_of(rest[1])[member].clone(), torch.tensor(self._samples), *rest]
        if self._by_step:
            losses = [steps[member] for steps in self._steps] or [self._outputs.new_empty(0, dtype=torch.float64)]
            state += [torch.cat(losses), torch.tensor(self._sizes, dtype=torch.int64)]
        if self._loss.score == "r2":
            moments = self._moments or TargetMoments(self._labels.shape[1], self._labels.device)
            state.append(moments.state())
        if self._weights is not None:
            state.append(self._weights[: self._used].clone())
        return state

    def _sums_of(self, y: Tensor) -> Tensor:
        """Return the sums so far; before there are any, zeros of their number."""
        if self._sums is None:
            empty = self._loss.score_sums(self._outputs[:, :, :0], y[:0])
            self._sums = torch.zeros(len(empty), 1 + empty.shape[1], dtype=torch.float64, device=empty.device)
        return self._sums

    def load(self, member: int, state: Sequence[Tensor]) -> None:
        """Load what `state` returned, after `begin`; all members have seen the same samples."""
        sums, samples, outputs, labels, *more = state
        by_step = [more.pop(0), more.pop(0)] if self._by_step else []
        moments = more.pop(0) if self._loss.score == "r2" else None
        weights = more.pop(0).to(self._outputs) if more else None
        y = labels.to(self._outputs.device)
        if not self._samples:
            self._make_room(max(1, len(y)), y, weights)
        assert self._labels is not None
        self._sums_of(y)[member] = sums.to(self._outputs.device)
        self._samples, self._used = int(samples), len(y)
        self._outputs[member, :, : self._used] = outputs.to(self._outputs)
        self._labels[: self._used] = y
        if weights is not None:
            assert self._weights is not None
            self._weights[: self._used] = weights
        if moments is not None:
            self._moments = TargetMoments(y.shape[1], y.device)
            self._moments.load(moments)
        if by_step:
            steps, sizes = by_step
            if not self._steps:
                self._steps.append(torch.zeros(len(self._outputs), len(steps), dtype=torch.float64, device=y.device))
            self._steps[0][member] = steps.to(self._steps[0])
            self._sizes = sizes.tolist()


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
        self._samples = 0

    def begin(self) -> None:
        """Start an epoch."""
        self._sums.zero_()
        self._samples = 0
        self._steps.clear()

    def add(self, outputs: Tensor, y: Tensor, target: Tensor, w: Tensor | None = None) -> None:
        """Measure a step's outputs (members, features, n) against its samples (features, n), as many as labels y."""
        losses = self._loss.value(outputs, target, w)
        self._sums += losses
        self._samples += len(y)
        if self._by_step:
            self._steps.append(losses / len(y))

    def read(self) -> list[Scores]:
        """Return each member's mean loss."""
        return [{"loss": loss} for loss in (self._sums / self._samples).tolist()]

    def steps(self) -> Tensor:
        """Return each member's mean loss at each step, (members, steps), in float64."""
        return torch.stack(self._steps, 1)

    def state(self, member: int) -> list[Tensor] | None:
        """Return a member's record: its sum, number of samples, and losses by step; None before any step."""
        if not self._samples:
            return None
        by_step = [self.steps()[member]] if self._by_step else []
        return [self._sums[member].clone(), torch.tensor(self._samples), *by_step]

    def load(self, member: int, state: Sequence[Tensor]) -> None:
        """Load what `state` returned, after `begin`; all members have seen the same samples."""
        self._sums[member], self._samples = state[0].to(self._sums), int(state[1])
        for steps in state[2:]:
            if not self._steps:
                self._steps = [torch.zeros_like(self._sums) for _ in steps]
            for losses, loss in zip(self._steps, steps.to(self._sums), strict=True):
                losses[member] = loss
