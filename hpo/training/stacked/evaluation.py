"""Evaluation of stacks, on samples that all members share, or on each member's own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hpo.training.learner import EVALUATION_BATCH, EvalResult
from hpo.training.member import Scores
from hpo.training.scores import TargetMoments
from hpo.training.stacked.batches import PaddedSamples
from hpo.training.stacked.losses import ReconstructionLoss, StackLoss
from hpo.training.stacked.mlp import StackedMLP
from hpo.training.stacked.stack import Stack

__all__ = ["evaluate_own", "evaluate_shared"]


class Evaluation:
    """Evaluation of a stack, a part of the samples at a time.

    Args:
        stack: with its present weights.
        outputs: false drops those of models that reconstruct their input.
    """

    def __init__(self, stack: Stack, *, outputs: bool) -> None:
        self._stack = stack
        self._keep = outputs or isinstance(stack.loss, StackLoss)
        self._outputs: list[Tensor] = []
        self._errors: list[Tensor] = []  # of samples, (members, 2, n) each

    def add(self, batch: Tensor, target: Tensor | None, valid: Tensor | None = None) -> None:
        """Compute a padded batch; the target is of models that reconstruct their input."""
        predicted = self._stack.dense.forward(batch, train=False)
        if isinstance(self._stack.loss, ReconstructionLoss):
            assert target is not None
            self._errors.append(self._stack.loss.samples(predicted, target, valid))
        if self._keep:
            self._outputs.append(predicted.clone())

    def results(self, y: Tensor, sizes: Sequence[int], valid: Tensor | None = None) -> list[EvalResult]:
        """Return the result of each member, of which the first samples count, as many as its size."""
        whole = torch.cat(self._outputs, 2) if self._outputs else None
        scores = self._scores(whole, y, sizes, valid)
        kept: list[Tensor | None] = [None] * len(sizes)
        if whole is not None:
            kept = [each[:, :size].t() for each, size in zip(whole, sizes, strict=True)]
        errors: list[Tensor | None] = [None] * len(sizes)
        if self._errors:
            errors = [each[:, :size] for each, size in zip(torch.cat(self._errors, 2), sizes, strict=True)]
        return [EvalResult(*each) for each in zip(scores, kept, errors, strict=True)]

    def _scores(self, outputs: Tensor | None, y: Tensor, sizes: Sequence[int], valid: Tensor | None) -> list[Scores]:
        loss = self._stack.loss
        counts = y.new_tensor(sizes, dtype=torch.float64)
        if isinstance(loss, ReconstructionLoss):
            means = (sum(each.sum(2) for each in self._errors) / counts[:, None]).tolist()
            return [{"loss": each, "reconstruction_error": error} for each, error in means]
        assert outputs is not None
        losses = loss.value(outputs, y, valid, smoothing=False) / counts
        moments = _moments(y, valid) if loss.score == "r2" else None
        scores = loss.scores(loss.score_sums(outputs, y, valid), counts, moments)
        return [{"loss": each, loss.score: score} for each, score in torch.stack([losses, scores], 1).tolist()]


def _moments(y: Tensor, valid: Tensor | None) -> TargetMoments:
    if y.ndim == 2:
        return TargetMoments.of(y)
    moments = TargetMoments(y)
    moments.add(y, valid)
    return moments


def evaluate_shared(
    stacks: Sequence[Stack], padded: PaddedSamples, x: Tensor, y: Tensor, *, outputs: bool
) -> list[list[EvalResult]]:
    """Evaluate all members of stacks on the same samples x (N, *shape) and y; return their results, stack by stack."""
    evaluations = [Evaluation(stack, outputs=outputs) for stack in stacks]
    dense = all(isinstance(stack.dense, StackedMLP) for stack in stacks)  # which read samples where they lie
    for chunk in torch.split(x, EVALUATION_BATCH):
        batch, target = chunk.flatten(1) if dense else padded.pad(chunk), _target(stacks[0], chunk)
        for each in evaluations:
            each.add(batch, target)
    return [each.results(y, [len(x)] * len(stack.models)) for each, stack in zip(evaluations, stacks, strict=True)]


def evaluate_own(
    stack: Stack, padded: PaddedSamples, parts: Sequence[tuple[Tensor, Tensor]], *, outputs: bool
) -> list[EvalResult]:
    """Evaluate each member of a stack on samples of its own, x (N, *shape) and y."""
    sizes = [len(x) for x, _ in parts]
    longest, first_y = max(sizes), parts[0][1]
    y = first_y.new_zeros(len(parts), longest, *first_y.shape[1:])
    for row, (_, own) in zip(y, parts, strict=True):
        row[: len(own)] = own
    valid = torch.arange(longest, device=y.device) < torch.tensor(sizes, device=y.device)[:, None]
    evaluation = Evaluation(stack, outputs=outputs)
    for start in range(0, longest, EVALUATION_BATCH):
        end = min(start + EVALUATION_BATCH, longest)
        chunk = parts[0][0].new_zeros(len(parts), end - start, *parts[0][0].shape[1:])
        for row, (x, _) in zip(chunk, parts, strict=True):
            row[: max(0, len(x) - start)] = x[start:end]
        evaluation.add(padded.pad(chunk), _target(stack, chunk), valid[:, start:end])
    return evaluation.results(y, sizes, valid)


def _target(stack: Stack, x: Tensor) -> Tensor | None:
    """Return samples (…, n, *shape) as targets of models that reconstruct them, (…, features, n)."""
    if isinstance(stack.loss, StackLoss):
        return None
    return x.flatten(x.ndim - stack.dimensions).mT.contiguous()
