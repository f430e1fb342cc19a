"""Loss of the database while a study runs: one line that says what is left, and how to go on with it."""

from __future__ import annotations

import shlex
from pathlib import Path

from hpo.errors import StorageLostError
from hpo.study import Definition, Study

__all__ = ["explain_loss"]


def explain_loss(study: Study, loss: Exception, checkpoints: Path) -> StorageLostError:
    """Return an error that says what was lost, what is left of it on disk, and which command goes on with it.

    Args:
        study: the study that was running.
        loss: what has happened to its database.
        checkpoints: the folder of the study's checkpoints, or one above it.
    """
    storage = study.storage
    launch = f"hpo launch {shlex.quote(study.name)}{_import_options(study)} --storage"
    kept = f"checkpoints of the trials in training are in {checkpoints}"
    if (saved := storage.rescued) is not None:
        url = shlex.quote(str(storage.url.set(database=str(saved))))
        return StorageLostError(f"{loss}; all that it held is saved in {saved}, and {kept}; go on with: {launch} {url}")
    url = shlex.quote(storage.masked_url)
    return StorageLostError(f"{loss}; {kept}; put back a backup of it, and go on with: {launch} {url}")


def _import_options(study: Study) -> str:
    """Return the options that import the study's own models, metrics and data, as far as its definition is known."""
    definition: Definition | None = vars(study).get("definition")  # which may have been read before
    return "" if definition is None else "".join(f" --import {shlex.quote(module)}" for module in definition.imports)
