"""Log of the scores that one trial has of its validation samples, epoch by epoch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from hpo.datasets.sample_codec import count_epochs, number_type
from hpo.datasets.sample_scores import Kind, SampleScores, ValidationSplit

__all__ = ["SampleLog"]

Array = np.ndarray[Any, Any]


@dataclass(eq=False)
class SampleLog:
    """Log of sample scores: of every epoch while there is room, then of every second, every fourth, and so on.

    The best epoch and the last are always among them. What is kept follows from the epochs alone, however often
    training is interrupted.

    Attributes:
        split: the samples.
        metric, kind: of the scores; see `hpo.datasets.sample_scores.SampleScores`.
        rows: scores by epoch, (N,) or (N, columns), in the type that `number_type` names.
        best: the best epoch; None while there is none.
        trial_best: the best epoch of the trial, where it has several fits.
        pace: every so many epochs are kept.
    """

    split: ValidationSplit
    metric: str
    kind: Kind
    rows: dict[int, Array] = field(default_factory=dict)
    best: int | None = None
    trial_best: int | None = None
    pace: int = 1

    def add(self, epoch: int, scores: Array, *, best: bool) -> None:
        """Add the scores of an epoch, counted from 1, and drop epochs that there is no more room for."""
        room = count_epochs(number_type(self.kind, self.split.labels), scores.size)
        self.rows[epoch] = scores
        self.best = epoch if best else self.best
        while sum(map(self._is_due, self.rows)) > room:
            self.pace *= 2
        kept = {self.best, self.trial_best, epoch}
        self.rows = {each: row for each, row in self.rows.items() if self._is_due(each) or each in kept}

    def keep(self, epoch: int) -> None:
        """Keep an epoch, the last one if it is not due otherwise, as the best of a trial of several fits."""
        if epoch in self.rows:
            self.trial_best = epoch

    def _is_due(self, epoch: int) -> bool:
        return (epoch - 1) % self.pace == 0

    def state(self) -> dict[str, Any]:
        """Return a state for `load`, of tensors and plain values."""
        rows = {epoch: torch.from_numpy(np.ascontiguousarray(row).view(np.uint8)) for epoch, row in self.rows.items()}
        best = {"best": self.best, "trial_best": self.trial_best}
        return {"split": self.split.digest, "rows": rows, "pace": self.pace, **best}

    def load(self, state: dict[str, Any] | None) -> bool:
        """Go on from what `state` returned; return false, and change nothing, where it is of other samples or None."""
        if state is None or state["split"] != self.split.digest:
            return False
        kind = number_type(self.kind, self.split.labels)
        self.rows = {epoch: row.numpy().view(kind) for epoch, row in state["rows"].items()}
        self.best, self.trial_best, self.pace = state["best"], state["trial_best"], state["pace"]
        return True

    def result(self, fit: int = 0, best: int | None = None) -> SampleScores | None:
        """Return the scores; None where no epoch is the best.

        Args:
            fit: the number of the fit.
            best: the trial's best epoch, where it has several fits; if that is not kept, the fit's own counts.
        """
        best = best if best in self.rows else self.best
        if best is None:
            return None
        epochs = sorted(self.rows)
        scores = np.stack([self.rows[epoch] for epoch in epochs]).astype(np.float32)
        return SampleScores(
            fit, self.split.digest, np.array(epochs), epochs.index(best), scores, self.kind, self.metric
        )
