"""The end of an evaluation's run: the one look at the test set, and the predictions that reports need."""

from __future__ import annotations

from hpo.config import registry
from hpo.execution.study_callback import RunningTrial
from hpo.study import Study
from hpo.study.definition import test_metric
from hpo.study.files.artifacts import save_artifact
from hpo.study.operations.evaluation_study import record_test_set_read
from hpo.training.data import DataCache
from hpo.training.member import TrainResult
from hpo.training.predictions import SplitPredictions, pack_predictions, predict_split

__all__ = ["PREDICTIONS", "TestSetEvaluator"]

PREDICTIONS = "predictions.npz"


class TestSetEvaluator:
    """Measures the models of an evaluation on the test set, each once, and keeps what they said as artifacts.

    Args:
        study: the evaluation.
        data: of the worker, prepared for the trials that it trains.
    """

    def __init__(self, study: Study, data: DataCache) -> None:
        self.study = study
        self.data = data

    def __call__(self, entry: RunningTrial, outcome: TrainResult) -> dict[str, float]:
        """The test metrics of a run that has ended well: `test_loss`, `test_accuracy`, …, and those of the objectives.

        Raises:
            RunError: a metric raised, or the device has too little memory.
        """
        data = self.data.get(entry.config)
        metrics = [registry.metrics.get(name) for name in self.study.definition.metrics]
        said: dict[str, SplitPredictions] = {}
        if len(data.y_val):
            said["validation"] = predict_split(outcome, data, (data.x_val, data.y_val))
        record_test_set_read(self.study, entry.claim.number, str(entry.claim.trial.params["configuration"]))
        said["test"] = tested = predict_split(outcome, data, data.test(), metrics)
        save_artifact(self.study, PREDICTIONS, pack_predictions(said), trial_id=entry.claim.id)
        own = {name: value for metric, value in tested.metrics.items() if (name := test_metric(metric))}
        return {**{f"test_{name}": value for name, value in tested.scores.items()}, **own}
