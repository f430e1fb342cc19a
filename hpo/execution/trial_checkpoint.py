"""Checkpoint of a trial of an objective function: a folder for a later attempt, and a state in it."""

from __future__ import annotations

import re
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna

from hpo.errors import CheckpointError, RunError
from hpo.storage.study_storage import StudyStorage
from hpo.utils.files import write_atomically
from hpo.utils.text import first_line

__all__ = ["TrialCheckpoint", "checkpoint"]

STATE = re.compile(r"state_(\d+)\.pt")


class TrialCheckpoint:
    """Checkpoint of one trial.

    ```python
    def objective(trial):
        model, optimizer = build(trial)
        checkpoint = hpo.checkpoint(trial)
        state = checkpoint.load() or {"epoch": 0}
        ...
        for epoch in range(state["epoch"], EPOCHS):
            ...
            trial.report(accuracy, epoch)
            checkpoint.save({"epoch": epoch + 1, "model": model.state_dict(), "optimizer": optimizer.state_dict()})
    ```

    A trial whose worker dies is taken over under its own number, with its own parameters. With a checkpoint it goes on
    after the last `save`, and the reports up to there stay; without one it begins anew.

    Attributes:
        folder: folder for further files that a later attempt needs; it is removed when the trial has ended.
    """

    def __init__(self, folder: Path, trial: optuna.trial.Trial | None = None) -> None:
        self.folder = folder
        self._trial = trial

    def save(self, state: Mapping[str, Any]) -> None:
        """Save the state after all steps that have been reported so far.

        Args:
            state: tensors and plain values, which torch reads back with `weights_only`.

        Raises:
            RunError: the state holds anything else, or cannot be written.
        """
        import torch

        reports = {} if self._trial is None else self._trial._cached_frozen_trial.intermediate_values
        self._flush_reports()
        path = self.folder / f"state_{max(reports, default=-1) + 1}.pt"
        try:
            write_atomically(path, lambda file: torch.save(dict(state), file))
        except (OSError, RuntimeError, TypeError, AttributeError) as error:
            raise RunError(f"checkpoint {path}: cannot be written: {first_line(error)}") from error
        for other in self._states():
            if other != path:
                other.unlink(missing_ok=True)

    def _flush_reports(self) -> None:
        """Write what the storage has buffered: a later attempt does not repeat reports from before its checkpoint."""
        storage = getattr(getattr(self._trial, "study", None), "_storage", None)
        if isinstance(storage, StudyStorage):
            storage.flush()

    def load(self) -> dict[str, Any] | None:
        """Return the state that the last attempt saved; None if there is none.

        Raises:
            CheckpointError: it cannot be read.
        """
        import torch

        states = self._states()
        if not states:
            return None
        try:
            state: dict[str, Any] = torch.load(states[-1], weights_only=True, map_location="cpu")
        except Exception as error:  # of whatever kind: the file is damaged, or holds objects
            raise CheckpointError(f"checkpoint {states[-1]}: cannot be read: {first_line(error)}") from error
        return state

    @property
    def last_step(self) -> int | None:
        """Last step whose report a new attempt keeps; None if it keeps all, for the folder has files of its own."""
        states = self._states()
        if states:
            return _count_steps(states[-1]) - 1
        return None if self.folder.is_dir() and any(self.folder.iterdir()) else -1

    def _states(self) -> list[Path]:
        """List the files of states, the latest last."""
        return sorted((path for path in self.folder.glob("state_*.pt") if STATE.fullmatch(path.name)), key=_count_steps)


def _count_steps(path: Path) -> int:
    match = STATE.fullmatch(path.name)
    return 0 if match is None else int(match[1])


def checkpoint(trial: optuna.trial.Trial) -> TrialCheckpoint:
    """Return the checkpoint of a trial, for an objective function that is to go on where a killed worker left it.

    Outside a worker, as under `study.optimize`, the folder is a temporary one, and there is nothing to go on with.
    """
    if hasattr(trial, "save"):
        raise RunError(
            "hpo.checkpoint(trial): is for objective functions; in a training loop take trial.epochs(model=…), or "
            "trial.state and trial.save"
        )
    folder: Path | None = getattr(trial, "folder", None)
    if folder is None:
        temporary = tempfile.TemporaryDirectory(prefix="hpo-")
        weakref.finalize(trial, temporary.cleanup)
        folder = Path(temporary.name)
        trial.folder = folder  # type: ignore[attr-defined]
    folder.mkdir(parents=True, exist_ok=True)
    return TrialCheckpoint(folder, trial)
