"""Test of an evaluation's trained models on the test set, and the predictions that reports need."""

from __future__ import annotations

from dataclasses import replace

from hpo.config import registry
from hpo.execution.study_callback import RunningTrial
from hpo.study import Study
from hpo.study.definition import test_metric
from hpo.study.files.artifacts import save_artifact
from hpo.study.operations.evaluation_study import record_test_set_read
from hpo.training.data import Data
from hpo.training.data_cache import DataCache
from hpo.training.member import TrainResult
from hpo.training.predictions import SplitPredictions, measure_importance, pack_predictions, predict_split

__all__ = ["PREDICTIONS", "TestSetEvaluator"]

PREDICTIONS = "predictions.npz"


class TestSetEvaluator:
    """Evaluator of an evaluation's models on the test set, each once. It keeps their predictions as artifacts.

    Args:
        study: the evaluation.
        data: the worker's prepared data.
    """

    def __init__(self, study: Study, data: DataCache) -> None:
        self.study = study
        self.data = data

    def __call__(self, trial: RunningTrial, result: TrainResult) -> dict[str, float]:
        """Return the test metrics of a trained model: `test_loss`, `test_accuracy`, …, and those of the objectives.

        Raises:
            RunError: a metric raised, or the device has too little memory.
        """
        data = self.data.get(trial.config)
        metrics = [registry.metrics.get(name) for name in self.study.definition.metrics]
        splits: dict[str, SplitPredictions] = {}
        if len(data.y_val):
            splits["validation"] = self._predict_validation(result, data)
        record_test_set_read(self.study, trial.claim.number, str(trial.claim.trial.params["configuration"]))
        splits["test"] = test = predict_split(result, data, data.test(), metrics, "test")
        save_artifact(self.study, PREDICTIONS, pack_predictions(splits), trial_id=trial.claim.id)
        own = {name: value for metric, value in test.metrics.items() if (name := test_metric(metric))}
        return {**{f"test_{name}": value for name, value in test.scores.items()}, **own}

    def _predict_validation(self, result: TrainResult, data: Data) -> SplitPredictions:
        """Return the predictions on the validation split, and of a table how important its features are for them."""
        found = predict_split(result, data, (data.x_val, data.y_val), split="validation")
        objective = next((each for each in self.study.definition.objectives if test_metric(each.metric)), None)
        if objective is None:
            return found
        importance = measure_importance(result, data, registry.metrics.get(objective.metric), objective.direction)
        return found if importance is None else replace(found, arrays={**found.arrays, **importance.arrays()})
