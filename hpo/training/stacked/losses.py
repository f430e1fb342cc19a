"""Losses of stacked outputs, (members, outputs, samples), and records of an epoch's losses."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from hpo.config.trial_config import TrialConfig
from hpo.training.member import Scores

__all__ = ["ReconstructionLoss", "ReconstructionRecord", "StackLoss", "StackRecord", "count_correct"]

CHUNK = 1024  # samples measured at once


class StackLoss:
    """Loss of all members of a stack, each with its own label smoothing; see `hpo.training.losses.loss_function`.

    Args:
        configs: the members, all with the same `loss`.
        classes: the number of outputs.
        like: a tensor of the weights' type and device.
    """

    def __init__(self, configs: Sequence[TrialConfig], classes: int, like: Tensor) -> None:
        self._squared = configs[0].loss == "mse"
        self._classes = classes
        shares = [config.label_smoothing for config in configs]
        self._smoothing = like.new_tensor(shares).view(-1, 1, 1) if any(shares) and not self._squared else None

    def gradient(self, outputs: Tensor, one_hot: Tensor, scale: Tensor | float) -> Tensor:
        """Return the gradient of the summed loss by the outputs, times `scale`: (members, 1, 1) or a number.

        Args:
            outputs: (members, classes, n).
            one_hot: the labels, (classes, n).
            scale: for the mean loss, 1 / n.
        """
        p = torch.softmax(outputs, 1)
        if self._squared:
            by_p = p.sub(one_hot).mul_(2 / self._classes)
            return p.mul_(by_p.sub_((by_p * p).sum(1, keepdim=True))).mul_(scale)
        return p.sub_(one_hot if self._smoothing is None else self._target(one_hot)).mul_(scale)

    def _target(self, one_hot: Tensor) -> Tensor:
        assert self._smoothing is not None
        return one_hot * (1 - self._smoothing) + self._smoothing / self._classes

    def value(self, outputs: Tensor, y: Tensor, *, smoothing: bool = True) -> Tensor:
        """Return the summed loss of each member against labels (n,), in float64: (members,)."""
        return self.samples(outputs, y, smoothing=smoothing).sum(1, dtype=torch.float64)

    def samples(self, outputs: Tensor, y: Tensor, *, smoothing: bool = True) -> Tensor:
        """Return the loss of each member on each sample, against labels (n,): (members, n)."""
        if self._squared:
            one_hot = torch.nn.functional.one_hot(y, self._classes).t().to(outputs.dtype)
            return (outputs.softmax(1) - one_hot).square_().mean(1)
        logs = torch.log_softmax(outputs, 1)
        losses = -_at_label(logs, y)
        if smoothing and self._smoothing is not None:
            share = self._smoothing[:, 0]
            losses = losses * (1 - share) - logs.sum(1) * (share / self._classes)
        return losses


def _at_label(outputs: Tensor, y: Tensor) -> Tensor:
    """Return the outputs of the right classes, (members, n)."""
    return outputs.gather(1, y.expand(len(outputs), 1, -1)).squeeze(1)


def count_correct(outputs: Tensor, y: Tensor) -> Tensor:
    """Count each member's right samples, (members,); of equal largest outputs the first counts, as in argmax."""
    if outputs.device.type == "cpu":
        # argmax over a dimension that is not the last takes a hundred times as long as the largest values.
        largest = outputs.amax(1, keepdim=True)
        if bool(((outputs >= largest).sum(1) == 1).all()):  # neither ties nor NaN in any member
            return (_at_label(outputs, y) >= largest.squeeze(1)).sum(1)
    return (outputs.argmax(1) == y).sum(1)


class StackRecord:
    """Record of losses and right answers of an epoch's steps, each before its step; computed many samples at a time.

    Args:
        loss: of the stack.
        members: how many.
        classes: the number of outputs.
        like: a tensor of the weights' type and device.
        by_step: whether to keep the mean loss of each step, too.
    """

    def __init__(self, loss: StackLoss, members: int, classes: int, like: Tensor, *, by_step: bool = False) -> None:
        self._loss = loss
        self._by_step = by_step
        self._sizes: list[int] = []  # of the steps that still wait
        self._steps: list[Tensor] = []  # of those that do not: mean losses, (members, steps) each
        self._outputs = like.new_empty(members, classes, 0)
        self._labels = torch.empty(0, dtype=torch.int64, device=like.device)
        self._sums = torch.zeros(members, 2, dtype=torch.float64, device=like.device)
        self._used = self._samples = 0

    def begin(self) -> None:
        """Start an epoch."""
        self._sums.zero_()
        self._used = self._samples = 0
        self._sizes.clear()
        self._steps.clear()

    def add(self, outputs: Tensor, y: Tensor, target: Tensor) -> None:  # noqa: ARG002  for ReconstructionRecord
        """Copy a step's outputs (members, classes, n) and labels (n,)."""
        n = len(y)
        if self._used + n > len(self._labels):
            self._process_waiting()
            if n > len(self._labels):
                self._grow(max(CHUNK, n))
        part = slice(self._used, self._used + n)
        self._outputs[:, :, part] = outputs
        self._labels[part] = y
        self._used += n
        self._samples += n
        self._sizes.append(n)

    def _grow(self, samples: int) -> None:
        self._outputs = self._outputs.new_empty(*self._outputs.shape[:2], samples)
        self._labels = self._labels.new_empty(samples)

    def _process_waiting(self) -> None:
        """Compute losses and right answers of the samples that still wait."""
        if not self._used:
            return
        outputs, y = self._outputs[:, :, : self._used], self._labels[: self._used]
        losses = self._loss.samples(outputs, y)
        self._sums += torch.stack([losses.sum(1, dtype=torch.float64), count_correct(outputs, y).double()], 1)
        if self._by_step:
            parts = torch.split(losses, self._sizes, 1)
            self._steps.append(torch.stack([part.mean(1, dtype=torch.float64) for part in parts], 1))
        self._used = 0
        self._sizes.clear()

    def read(self) -> list[Scores]:
        """Return each member's mean loss and accuracy."""
        self._process_waiting()
        means = (self._sums / self._samples).tolist()
        return [{"loss": loss, "accuracy": accuracy} for loss, accuracy in means]

    def steps(self) -> Tensor:
        """Return each member's mean loss at each step, (members, steps), in float64."""
        self._process_waiting()
        return torch.cat(self._steps, 1)

    def state(self, member: int) -> list[Tensor] | None:
        """Return a member's record: sums, number of samples, and waiting outputs and labels; None before any step.

        With the loss of each step: also the losses so far, and the sizes of the steps that wait.
        """
        if not self._samples:
            return None
        rest = self._outputs[member, :, : self._used].clone(), self._labels[: self._used].clone()
        state = [self._sums[member].clone(), torch.tensor(self._samples), *rest]
        if self._by_step:
            losses = [steps[member] for steps in self._steps] or [self._sums.new_empty(0)]
            state += [torch.cat(losses), torch.tensor(self._sizes, dtype=torch.int64)]
        return state

    def load(self, member: int, state: Sequence[Tensor]) -> None:
        """Load what `state` returned, after `begin`; all members have seen the same samples."""
        sums, samples, outputs, labels, *by_step = state
        if len(labels) > len(self._labels):
            self._grow(max(CHUNK, len(labels)))
        self._sums[member], self._samples, self._used = sums.to(self._sums), int(samples), len(labels)
        self._outputs[member, :, : self._used] = outputs.to(self._outputs)
        self._labels[: self._used] = labels.to(self._labels)
        if by_step:
            steps, sizes = by_step
            if not self._steps:
                self._steps.append(self._sums.new_zeros(len(self._sums), len(steps)))
            self._steps[0][member] = steps.to(self._sums)
            self._sizes = sizes.tolist()


class ReconstructionLoss:
    """Loss of all members of a stack whose targets are their inputs; see `hpo.training.losses.loss_function`.

    Args:
        configs: the members, all with the same `loss`.
        features: numbers of a sample, which are as many outputs.
    """

    def __init__(self, configs: Sequence[TrialConfig], features: int) -> None:
        self._binary = configs[0].loss == "binary_cross_entropy"
        self._features = features

    def gradient(self, outputs: Tensor, target: Tensor, scale: Tensor | float) -> Tensor:
        """Return the gradient of the summed loss by the outputs, times `scale`: (members, 1, 1) or a number.

        Args:
            outputs: (members, features, n).
            target: the samples, (features, n).
            scale: for the mean loss, 1 / n.
        """
        if self._binary:
            return outputs.sigmoid().sub_(target).mul_(scale).div_(self._features)
        return outputs.sub(target).mul_(scale).mul_(2 / self._features)

    def value(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the summed loss of each member, in float64: (members,)."""
        if not self._binary:
            return self.error(outputs, target)
        losses = F.binary_cross_entropy_with_logits(outputs, target.expand_as(outputs), reduction="none")
        return losses.sum((1, 2), dtype=torch.float64) / self._features

    def error(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the summed reconstruction error of each member, in float64: (members,)."""
        difference = (outputs.sigmoid() if self._binary else outputs).sub(target)
        return difference.square_().sum((1, 2), dtype=torch.float64) / self._features


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

    def add(self, outputs: Tensor, y: Tensor, target: Tensor) -> None:
        """Measure a step's outputs (members, features, n) against its samples (features, n), as many as labels y."""
        losses = self._loss.value(outputs, target)
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
