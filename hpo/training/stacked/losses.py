"""Losses of stacked outputs, (members, outputs, samples), with their gradients in closed form, and their scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from hpo.config.trial_config import TrialConfig
from hpo.training.losses import SMALLEST_VARIANCE
from hpo.training.scores import TargetMoments, count_right_labels, r2_score, sum_squared_errors

__all__ = [
    "Count",
    "ReconstructionLoss",
    "StackLoss",
    "count_correct",
    "find_correct",
    "make_stack_loss",
    "weigh_columns",
]

Count = int | Tensor  # of samples: the same for all members, or (members,)


class StackLoss(ABC):
    """Loss of all members of a stack, of one task and one `loss`; see `hpo.training.losses.loss_function`.

    All members share the samples, or each has its own: then `y`, targets and weights have a first dimension of members,
    and `valid` (members, n) tells samples from what only fills up the batches of members that have fewer.

    The gradient is for those who go through the models by hand, and may be the start of autograd's way through them;
    autograd can also go through `samples` itself. Weights of a batch multiply the gradient: `gradient(…) *
    weigh_columns(w, y)`.

    Attributes:
        score: the name of the score beside the loss.
    """

    score: ClassVar[str]

    @abstractmethod
    def gradient(self, outputs: Tensor, target: Tensor, scale: Tensor | float) -> Tensor:
        """Return the gradient of the summed loss by the outputs, times `scale`: (members, 1, 1) or a number.

        Args:
            outputs: (members, outputs, n).
            target: what `target` returns.
            scale: for the mean loss, 1 / n.
        """

    @abstractmethod
    def target(self, y: Tensor) -> Tensor:
        """Return what gradients need of a batch: one-hot classes (classes, n), or labels or targets (columns, n)."""

    @abstractmethod
    def samples(self, outputs: Tensor, y: Tensor, w: Tensor | None = None, *, smoothing: bool = True) -> Tensor:
        """Return the loss of each member on each sample, (members, n).

        Args:
            outputs: (members, outputs, n).
            y: classes (n,), labels or targets (n, columns).
            w: weights, (n,) or (n, columns).
            smoothing: whether labels are smoothed as in training.
        """

    def value(self, outputs: Tensor, y: Tensor, valid: Tensor | None = None, *, smoothing: bool = True) -> Tensor:
        """Return the summed loss of each member, in float64: (members,)."""
        losses = self.samples(outputs, y, smoothing=smoothing)
        return keep_valid(losses, valid).sum(1, dtype=torch.float64)

    @abstractmethod
    def score_sums(self, outputs: Tensor, y: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return what the score needs, summed over samples in float64: (members, sums)."""

    @abstractmethod
    def scores(self, sums: Tensor, samples: Count, moments: TargetMoments | None) -> Tensor:
        """Return each member's score, (members,), from `score_sums` of some samples and the moments of their targets.

        Only real targets have moments.
        """


def keep_valid(values: Tensor, valid: Tensor | None) -> Tensor:
    """Return values (members, n) with zeros in place of those that are not valid."""
    return values if valid is None else values.masked_fill(~valid, 0)


def weigh_columns(w: Tensor, y: Tensor) -> Tensor:
    """Return weights as factors of what is (members, columns, n), given the labels y that they belong to.

    Args:
        w: of samples, (n,) or (members, n), or of each of their labels, as y.
        y: classes (n,) or (members, n), labels or targets (n, columns) or (members, n, columns).
    """
    several = w.ndim == y.ndim and y.is_floating_point()
    return w.mT if several else w.unsqueeze(-2)


def make_stack_loss(configs: Sequence[TrialConfig], outputs: int, like: Tensor) -> StackLoss:
    """Return the loss of a stack whose members do not reconstruct their input.

    Args:
        configs: the members, all with the same `task` and `loss`.
        outputs: the number of outputs; see `hpo.config.model_size.count_outputs`.
        like: a tensor of the weights' type and device.
    """
    if configs[0].task == "classification":
        return ClassLoss(configs, outputs, like)
    if configs[0].task == "multilabel":
        return LabelLoss()
    if configs[0].loss == "gaussian_nll":
        return GaussianLoss()
    return TargetLoss(configs, like)


class ClassLoss(StackLoss):
    """Loss of classes, each member with its own label smoothing."""

    score = "accuracy"

    def __init__(self, configs: Sequence[TrialConfig], classes: int, like: Tensor) -> None:
        self._squared = configs[0].loss == "mse"
        self._classes = classes
        self._eye = torch.eye(classes, dtype=like.dtype, device=like.device)
        shares = [config.label_smoothing for config in configs]
        self._smoothing = like.new_tensor(shares).view(-1, 1, 1) if any(shares) and not self._squared else None

    def target(self, y: Tensor) -> Tensor:
        """Return the one-hot classes; see `StackLoss`."""
        return self._eye.index_select(1, y) if y.ndim == 1 else self._eye[y].mT

    def gradient(self, outputs: Tensor, target: Tensor, scale: Tensor | float) -> Tensor:
        """Return the gradient; see `StackLoss`."""
        p = torch.softmax(outputs, 1)
        if self._squared:
            by_p = p.sub(target).mul_(2 / self._classes)
            return p.mul_(by_p.sub_((by_p * p).sum(1, keepdim=True))).mul_(scale)
        return p.sub_(target if self._smoothing is None else self._smooth(target)).mul_(scale)

    def _smooth(self, one_hot: Tensor) -> Tensor:
        assert self._smoothing is not None
        return one_hot * (1 - self._smoothing) + self._smoothing / self._classes

    def samples(self, outputs: Tensor, y: Tensor, w: Tensor | None = None, *, smoothing: bool = True) -> Tensor:
        """Return the loss of each sample; see `StackLoss`."""
        losses = self._losses(outputs, y, smoothing=smoothing)
        return losses if w is None else losses * w

    def _losses(self, outputs: Tensor, y: Tensor, *, smoothing: bool) -> Tensor:
        if self._squared:
            return (outputs.softmax(1) - self.target(y)).square().mean(1)
        logs = torch.log_softmax(outputs, 1)
        losses = -_at_label(logs, y)
        if smoothing and self._smoothing is not None:
            share = self._smoothing[:, 0]
            losses = losses * (1 - share) - logs.sum(1) * (share / self._classes)
        return losses

    def score_sums(self, outputs: Tensor, y: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return the right answers, (members, 1)."""
        return count_correct(outputs, y, valid).double()[:, None]

    def scores(self, sums: Tensor, samples: Count, moments: TargetMoments | None) -> Tensor:  # noqa: ARG002
        """Return the accuracy; see `StackLoss`."""
        return sums[:, 0] / samples


class ColumnLoss(StackLoss):
    """Loss of labels or targets y (n, columns), whose target of a gradient is y transposed."""

    def target(self, y: Tensor) -> Tensor:
        """Return the labels or targets, (columns, n); see `StackLoss`."""
        return y.mT.contiguous()

    @abstractmethod
    def losses(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each number, (members, columns, n)."""

    def samples(self, outputs: Tensor, y: Tensor, w: Tensor | None = None, *, smoothing: bool = True) -> Tensor:  # noqa: ARG002
        """Return the loss of each sample; see `StackLoss`."""
        losses = self.losses(outputs, y.mT)
        return (losses if w is None else losses * weigh_columns(w, y)).mean(1)


class LabelLoss(ColumnLoss):
    """Binary cross-entropy of several labels."""

    score = "accuracy"

    def gradient(self, outputs: Tensor, target: Tensor, scale: Tensor | float) -> Tensor:
        """Return the gradient; see `StackLoss`."""
        return outputs.sigmoid().sub_(target).mul_(scale).div_(target.shape[-2])

    def losses(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each number, (members, labels, n)."""
        return F.binary_cross_entropy_with_logits(outputs, target.expand_as(outputs), reduction="none")

    def score_sums(self, outputs: Tensor, y: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return the share of a sample's labels that are right, summed: (members, 1)."""
        target = y.mT
        if valid is not None:  # the others have no right label
            target = torch.where(valid.unsqueeze(1), target, (outputs <= 0).to(target.dtype))
        return (count_right_labels(outputs, target).double() / y.shape[-1])[:, None]

    def scores(self, sums: Tensor, samples: Count, moments: TargetMoments | None) -> Tensor:  # noqa: ARG002
        """Return the share of all labels that are right; see `StackLoss`."""
        return sums[:, 0] / samples


class TargetLoss(ColumnLoss):
    """Loss of real targets by their errors: mse, mae, or huber with each member's own `huber_delta`."""

    score = "r2"

    def __init__(self, configs: Sequence[TrialConfig], like: Tensor) -> None:
        self._kind = configs[0].loss
        self._delta = like.new_tensor([config.huber_delta for config in configs]).view(-1, 1, 1)

    def gradient(self, outputs: Tensor, target: Tensor, scale: Tensor | float) -> Tensor:
        """Return the gradient; see `StackLoss`."""
        error = outputs.sub(target)
        if self._kind == "mae":
            return error.sign_().mul_(scale).div_(target.shape[-2])
        if self._kind == "huber":
            return error.clamp_(-self._delta, self._delta).mul_(scale).div_(target.shape[-2])
        return error.mul_(scale).mul_(2 / target.shape[-2])

    def losses(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each number, (members, targets, n)."""
        error = outputs - target
        if self._kind == "mae":
            return error.abs()
        if self._kind == "huber":
            size = error.abs()
            inner = size.minimum(self._delta)  # error^2 / 2 up to delta, and beyond delta (|error| - delta / 2)
            return inner * (size - inner / 2)
        return error.square()

    def score_sums(self, outputs: Tensor, y: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return the squared errors of each target, (members, targets)."""
        means, target = outputs[:, : y.shape[-1]], y.mT
        if valid is not None:  # the others have no error
            means = torch.where(valid.unsqueeze(1), means, target)
        return sum_squared_errors(means, target)

    def scores(self, sums: Tensor, samples: Count, moments: TargetMoments | None) -> Tensor:  # noqa: ARG002
        """Return R², the mean over targets; see `StackLoss`."""
        assert moments is not None
        return r2_score(sums, moments.deviations)


class GaussianLoss(TargetLoss):
    """Negative logarithm of the normal density: outputs are means, then logarithms of variances."""

    def __init__(self) -> None:
        """Make the loss, which no member has settings of."""

    def gradient(self, outputs: Tensor, target: Tensor, scale: Tensor | float) -> Tensor:
        """Return the gradient, as torch has it: where the variance is at its bound, it still follows exp(s)."""
        mean, log_variance = outputs.chunk(2, 1)
        exp = log_variance.exp()
        variance = exp.clamp_min(SMALLEST_VARIANCE)
        error = mean - target
        by_mean = error / variance
        by_log_variance = (1 - error * by_mean) * (exp / variance) / 2
        return torch.cat([by_mean, by_log_variance], 1).mul_(scale).div_(target.shape[-2])

    def losses(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each number, (members, targets, n)."""
        mean, log_variance = outputs.chunk(2, 1)
        variance = log_variance.exp().clone()
        with torch.no_grad():
            variance.clamp_(min=SMALLEST_VARIANCE)
        return (variance.log() + (mean - target).square() / variance) / 2


def _at_label(outputs: Tensor, y: Tensor) -> Tensor:
    """Return the outputs of the right classes, (members, n)."""
    return outputs.gather(1, y.unsqueeze(-2).expand(len(outputs), 1, -1)).squeeze(1)


def count_correct(outputs: Tensor, y: Tensor, valid: Tensor | None = None) -> Tensor:
    """Count each member's right samples, (members,); of equal largest outputs the first counts, as in argmax."""
    return keep_valid(find_correct(outputs, y), valid).count_nonzero(1)


def find_correct(outputs: Tensor, y: Tensor) -> Tensor:
    """Return which samples each member has right, (members, n); see `count_correct`."""
    if outputs.device.type == "cpu":
        # argmax over a dimension that is not the last takes a hundred times as long as the largest values, and a sum of
        # booleans eight times as long as one of floats.
        marks = torch.ge(outputs, outputs.amax(1, keepdim=True), out=torch.empty_like(outputs))
        if bool((marks.sum(1) == 1).all()):  # neither ties nor NaN in any member
            return _at_label(marks, y) > 0
    return outputs.argmax(1) == y


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
            target: the samples, (features, n) or (members, features, n).
            scale: for the mean loss, 1 / n.
        """
        if self._binary:
            return outputs.sigmoid().sub_(target).mul_(scale).div_(self._features)
        return outputs.sub(target).mul_(scale).mul_(2 / self._features)

    def value(self, outputs: Tensor, target: Tensor, w: Tensor | None = None, valid: Tensor | None = None) -> Tensor:
        """Return the summed loss of each member, each sample times its weight, in float64: (members,)."""
        return self._sum(self._losses(outputs, target), w, valid)

    def samples(self, outputs: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return loss and reconstruction error of each sample, in float64: (members, 2, n); 0 where it is not valid."""
        errors = self._errors(outputs, target).mean(1, dtype=torch.float64)
        losses = self._losses(outputs, target).mean(1, dtype=torch.float64) if self._binary else errors
        both = torch.stack([losses, errors], 1)
        return both if valid is None else both.masked_fill_(~valid.unsqueeze(1), 0)

    def _losses(self, outputs: Tensor, target: Tensor) -> Tensor:
        if not self._binary:
            return self._errors(outputs, target)
        return F.binary_cross_entropy_with_logits(outputs, target.expand_as(outputs), reduction="none")

    def _errors(self, outputs: Tensor, target: Tensor) -> Tensor:
        return (outputs.sigmoid() if self._binary else outputs).sub(target).square_()

    def _sum(self, losses: Tensor, w: Tensor | None, valid: Tensor | None) -> Tensor:
        """Return the sum of losses (members, features, n) over samples, and their mean over features."""
        if w is not None:
            losses.mul_(w.unsqueeze(-2))
        if valid is not None:
            losses.masked_fill_(~valid.unsqueeze(1), 0)
        return losses.sum((1, 2), dtype=torch.float64) / self._features
