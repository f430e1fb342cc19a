"""Training loops of one test: their studies, and single trials of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import hpo
from hpo.config import registry
from hpo.config.trial_config import TrialConfig
from hpo.study import Study
from hpo.study.input.study_file import parse_definition
from hpo.training.checkpoint import CheckpointSpec
from hpo.training.loop import train
from hpo.training.member import TrainResult
from hpo.training.settings import TrainSettings
from tests.study.helpers import new_storage
from tests.training.resumable import data

__all__ = ["make", "outcome_of", "own", "rows_of"]


def make(folder: Path, name: str = "own", **keys: Any) -> Study:
    table = {"trials": 4, "sampler": "random", **keys}
    found, definition, budget = parse_definition(table, name, folder)
    return Study.create(new_storage(folder), found, definition, budget)


def rows_of(study: Study, number: int) -> list[dict[str, float]]:
    trial = study.trials()[number]
    rows = study.storage.read_epochs(study.id)[trial._trial_id]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def own(loop: Callable[[hpo.Trial], Any], **keywords: Any) -> str:
    """Register a loop for this test alone."""
    hpo.training_loop("loop", **{"uses": ["epochs"], **keywords})(loop)
    return "loop"


def outcome_of(loop: Callable[[hpo.Trial], Any], spec: CheckpointSpec | None = None, **keywords: Any) -> TrainResult:
    config = TrialConfig(model=own(loop), **keywords.pop("parameters", {"epochs": 4}))
    metrics = [registry.metrics.get("val_accuracy")]
    given = data(TrialConfig(validation=20))
    (outcome,) = train(
        [config], given, TrainSettings(monitor="val_accuracy", metrics=metrics, **keywords), checkpoints=[spec]
    )
    return outcome
