"""Runs of evaluations: one configuration trained from one seed each."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from hpo.report.data.predictions import (
    FeatureImportance,
    LabelPredictions,
    Predictions,
    Reconstructions,
    TargetPredictions,
    read_importance,
    read_label_predictions,
    read_predictions,
    read_reconstructions,
    read_target_predictions,
)
from hpo.storage.statements import FIXED
from hpo.storage.study_storage import EpochMetrics
from hpo.study import Study
from hpo.study.attributes import read_number, read_origin, read_table, read_whole
from hpo.study.files.artifacts import find_artifact

__all__ = ["EvaluationRun", "is_validation_metric", "read_runs"]

NO_METRICS = {"epoch", "learning_rate", "seconds"}  # of what an epoch records


def is_validation_metric(name: str, objectives: Collection[str]) -> bool:
    """Tell whether what an epoch records is a metric of validation data, or an objective of its study."""
    return name in objectives or not (name in NO_METRICS or name.startswith("train_"))


@dataclass(frozen=True)
class EvaluationRun:
    """One configuration trained from one seed.

    Attributes:
        study: the name of the evaluation's study.
        number: the trial's number there.
        seed: of the weights and of the order of the data.
        state: COMPLETE, PRUNED (diverged), FAIL, RUNNING or WAITING.
        validation: metrics of its best epoch on the validation split, by name (`val_accuracy`, …); empty of a refit.
        test: metrics of that epoch's weights on the test set, by name (`test_accuracy`, …); empty before the look.
        epochs: metrics of every epoch, in order.
        parameter_count, train_seconds: as a trial has them.
        file: where its predictions are, if they are here.
    """

    study: str
    number: int
    seed: int
    state: str
    validation: Mapping[str, float] = field(default_factory=dict)
    test: Mapping[str, float] = field(default_factory=dict)
    epochs: Sequence[EpochMetrics] = ()
    parameter_count: int | None = None
    train_seconds: float | None = None
    file: Path | None = None

    def predictions(self, split: str) -> Predictions | None:
        """Read those of classes for the split `validation` or `test`; None where they are not here."""
        return None if self.file is None else read_predictions(self.file, split)

    def label_predictions(self, split: str) -> LabelPredictions | None:
        """Read those of several labels for the split `validation` or `test`; None where they are not here."""
        return None if self.file is None else read_label_predictions(self.file, split)

    def target_predictions(self, split: str) -> TargetPredictions | None:
        """Read those of real numbers for the split `validation` or `test`; None where they are not here."""
        return None if self.file is None else read_target_predictions(self.file, split)

    def reconstructions(self, split: str) -> Reconstructions | None:
        """Read those of the split `validation` or `test`; None where they are not here, or the model has classes."""
        return None if self.file is None else read_reconstructions(self.file, split)

    def importance(self) -> FeatureImportance | None:
        """Read the permutation importance of a table's features; None where it is not here."""
        return None if self.file is None else read_importance(self.file)


def _test_metrics(attrs: Mapping[str, Any]) -> dict[str, float]:
    found = {name: read_number(attrs, name) for name in attrs if name.startswith("test_")}
    return {name: value for name, value in found.items() if value is not None}


def read_runs(companion: Study) -> dict[str, list[EvaluationRun]]:
    """Read the runs of an evaluation, by the label of the configuration."""
    epochs = companion.storage.read_epochs(companion.id)
    wanted = companion.definition.metrics
    metrics = [] if companion.definition.configured else [each.metric for each in companion.definition.objectives]
    runs: dict[str, list[EvaluationRun]] = {}
    for trial in companion.trials():
        params = {**read_table(trial.system_attrs, FIXED), **trial.params}
        seed = read_whole(params, "seed")
        if seed is None or "configuration" not in params:
            continue  # it was added by others
        rows, attrs = epochs.get(trial._trial_id, []), trial.user_attrs
        best = next((row for row in rows if row.get("epoch") == attrs.get("best_epoch")), {})
        if read_origin(attrs) == "returned":
            best = {**best, **_read_values(companion, trial)}
        run = EvaluationRun(
            companion.name,
            trial.number,
            seed,
            trial.state.name,
            # An objective function's score is what it returns, and it knows on which data.
            dict(zip(metrics, trial.values or (), strict=False))
            or {name: value for name, value in best.items() if is_validation_metric(name, wanted)},
            _test_metrics(attrs),
            rows,
            read_whole(attrs, "parameter_count"),
            read_number(attrs, "train_seconds"),
            find_artifact(companion, "predictions.npz", trial.system_attrs),
        )
        runs.setdefault(str(params["configuration"]), []).append(run)
    return runs


def _read_values(companion: Study, trial: FrozenTrial) -> dict[str, float]:
    """Return the values of a trial by metric."""
    metrics = (objective.metric for objective in companion.definition.objectives)
    return dict(zip(metrics, trial.values or (), strict=False))
