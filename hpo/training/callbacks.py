"""Callbacks of the training loop, which calls each of them for every member: a CSV log and a progress line."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from typing_extensions import override

from hpo.config import registry
from hpo.config.trial_config import TrialConfig
from hpo.training.member import Member, Metrics, TrainResult

__all__ = ["COLUMNS", "Callback", "CsvLog", "Progress"]

COLUMNS = ("epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds")
REGRESSION_COLUMNS = ("epoch", "train_loss", "train_r2", "val_loss", "val_r2", "learning_rate", "seconds")
RECONSTRUCTION_COLUMNS = ("epoch", "train_loss", "val_loss", "val_reconstruction_error", "learning_rate", "seconds")


def _columns(config: TrialConfig) -> tuple[str, ...]:
    """Return the columns that every epoch of a configuration has."""
    if config.reconstructs:
        return RECONSTRUCTION_COLUMNS
    return REGRESSION_COLUMNS if config.task == "regression" else COLUMNS


class Callback:
    """Base class that does nothing; override what you need. A callback ends a trial with `member.stop("pruned")`."""

    def on_start(self, member: Member) -> None:
        """Act before the first epoch, or a resumed trial's next: `member.history` then holds the earlier ones."""

    def on_epoch(self, member: Member, metrics: Metrics) -> None:
        """Act after every epoch, the last too, with its row of metrics; `member.stopped` says if training ends here."""

    def on_round(self, members: Sequence[Member]) -> None:
        """Act once the whole cohort has done an epoch, and `on_epoch` was called for each of its members.

        Args:
            members: those that have just ended an epoch and still train; never empty. They may be in different epochs.
        """

    def on_end(self, member: Member, outcome: TrainResult) -> None:
        """Act once training has ended, for whatever reason but an error."""


class CsvLog(Callback):
    """CSV file with a row per epoch, written at once; registered metrics follow the fixed columns.

    Args:
        path: the file; an existing one is replaced.
        metrics: names of the registered metrics.
    """

    def __init__(self, path: Path, metrics: Sequence[str] = ()) -> None:
        self._path, self._metrics = path, metrics
        self._columns: tuple[str, ...] = ()
        self._file: TextIO | None = None

    @override
    def on_start(self, member: Member) -> None:
        """Write the header, and the rows of a resumed trial's earlier epochs."""
        fixed = _columns(member.config)
        self._columns = () if registry.models.get(member.config.model).loop else (*fixed, *self._metrics)
        self._file = self._path.open("w", newline="")
        if self._columns:
            self._write(self._columns)
        for metrics in member.history:
            self.on_epoch(member, metrics)

    @override
    def on_epoch(self, member: Member, metrics: Metrics) -> None:
        """Write the row; in a loop of the user's own, the first row decides the columns."""
        if not self._columns:
            self._columns = tuple(metrics)
            self._write(self._columns)
        self._write([int(metrics["epoch"]), *(metrics.get(name, "") for name in self._columns[1:])])

    @override
    def on_end(self, member: Member, outcome: TrainResult) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _write(self, row: Sequence[object]) -> None:
        assert self._file is not None
        csv.writer(self._file).writerow(row)
        self._file.flush()


class Progress(Callback):
    """Progress line per epoch on standard error."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False)

    @override
    def on_epoch(self, member: Member, metrics: Metrics) -> None:
        """Print the line."""
        if "train_loss" not in metrics:  # a loop of the user's own
            others = (f"{name} {value:.4g}" for name, value in metrics.items() if name not in ("epoch", "seconds"))
            self._console.print(f"epoch {int(metrics['epoch'])}  {'  '.join(others)}", soft_wrap=True)
            return
        line = f"epoch {int(metrics['epoch'])}/{member.config.epochs}  {_format_scores(metrics, 'train', 'train')}"
        if "val_loss" in metrics:
            line += f"  {_format_scores(metrics, 'validation', 'val')}"
        self._console.print(f"{line}  {metrics['seconds']:.1f} s", soft_wrap=True)


def _format_scores(metrics: Metrics, name: str, prefix: str) -> str:
    shown = {"loss": "loss", "accuracy": "accuracy", "r2": "R²"}
    values = {words: metrics.get(f"{prefix}_{score}") for score, words in shown.items()}
    return f"{name} {' '.join(f'{words} {value:.4f}' for words, value in values.items() if value is not None)}"
