"""MLflow tracker: trials as runs."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from hpo.config.parameter import Value
from hpo.errors import RequestError
from hpo.training.loggers.base import Tracker, missing_package_error, set_default_env
from hpo.training.member import Member, Status

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["MLflow"]

STATUSES: Mapping[Status | None, str] = {
    "interrupted": "KILLED",
    "paused": "KILLED",
    "diverged": "FAILED",
    None: "FAILED",
}
TRIAL = "hpo.trial"  # the tag that a trial's run is found by
# A server that has gone is tried for seconds, not for MLflow's minutes: a study ends no later for it.
RETRIES = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


class MLflow(Tracker[str]):
    """Tracker of runs in the experiment MLFLOW_EXPERIMENT_NAME, or else the study's name, on MLFLOW_TRACKING_URI."""

    @staticmethod
    @override
    def check() -> None:
        set_default_env(**RETRIES)
        try:
            from mlflow import MlflowClient, get_tracking_uri
        except ImportError:
            raise missing_package_error("mlflow") from None
        try:
            MlflowClient().search_experiments(max_results=1)
        except Exception as error:  # of its own kinds, and of what it is built on
            uri = get_tracking_uri().rpartition("@")[2]  # without a password
            why = " ".join(str(error).split())[:200]
            raise RequestError(f"--tracker mlflow: {uri} does not answer ({why}); see MLFLOW_TRACKING_URI") from error

    @cached_property
    def _client(self) -> MlflowClient:
        from mlflow import MlflowClient

        return MlflowClient()

    @cached_property
    def _experiment(self) -> str:
        """Id of the experiment; of two workers that create it at once, one is refused and finds the other's."""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or self._trials.study
        for _ in range(2):
            if (experiment := self._client.get_experiment_by_name(name)) is not None:
                return str(experiment.experiment_id)
            try:
                return str(self._client.create_experiment(name))
            except Exception as error:
                last = error
        raise last

    @override
    def begin(self, member: Member, params: Mapping[str, Value], may_exist: bool) -> str:
        identity = self._trials.identity(member)
        if may_exist and (existing := self._find(identity)) is not None:
            self._client.update_run(existing, status="RUNNING")
            return existing
        tags = {"hpo.study": self._trials.study, TRIAL: identity}
        run = self._client.create_run(self._experiment, tags=tags, run_name=self._trials.name(member))
        self.add_params(run.info.run_id, params)
        return str(run.info.run_id)

    @override
    def add_params(self, run: str, params: Mapping[str, Value]) -> None:
        self._client.log_batch(run, params=[_param(name, value) for name, value in params.items()])

    def _find(self, identity: str) -> str | None:
        runs = self._client.search_runs([self._experiment], f"tags.`{TRIAL}` = '{identity}'", max_results=1)
        return str(runs[0].info.run_id) if runs else None

    @override
    def record(self, run: str, metrics: Mapping[str, float], epoch: int) -> None:
        self._client.log_batch(run, metrics=_metrics(metrics, epoch))

    @override
    def end(self, run: str, status: Status | None, summary: Mapping[str, float]) -> None:
        self._client.log_batch(run, metrics=_metrics(summary, 0))
        self._client.set_tag(run, "hpo.status", status or "error")
        self._client.set_terminated(run, STATUSES.get(status, "FINISHED"))


def _metrics(metrics: Mapping[str, float], step: int) -> list[Any]:
    from mlflow.entities import Metric

    now = int(1000 * time.time())
    return [Metric(name, value, now, step) for name, value in metrics.items()]


def _param(name: str, value: Value) -> Any:
    from mlflow.entities import Param

    return Param(name, str(value))
