"""Objective functions of tests, run by workers of this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna

from hpo.execution.launch_function import plan_function_launch
from hpo.execution.objective_function import ObjectiveFunction
from hpo.study import Study
from hpo.study.definition import FunctionReference
from tests.workers import make_worker

PLACEHOLDER = "def objective(trial):\n    return 0.0\n"


def launch(folder: Path, name: str, **keys: Any) -> Study:
    """A study of an objective function, for `work` to call another one under its name."""
    url = f"sqlite:///{folder / 'hpo.db'}"
    function = ObjectiveFunction(lambda _: 0.0, FunctionReference(name="objective", sha256=""))
    return plan_function_launch(function, url, name=name, **{"trials": 1, "pruner": "none", **keys}).create(url)


def work(
    study: Study, folder: Path, function: Callable[[optuna.Trial], Any], stop_after: int | None = None
) -> list[optuna.trial.FrozenTrial]:
    """Call a function for the trials of a study; after so many reports of this worker, as a request to stop ends it."""
    path = folder / "placeholder.py"
    path.write_text(PLACEHOLDER)
    reports: list[int] = []
    worker = make_worker(study, lambda: len(reports) == stop_after, function=f"{path}:objective")

    def call(trial: optuna.Trial) -> Any:
        report = trial.report

        def counted(value: float, step: int) -> None:
            reports.append(step)
            report(value, step)

        trial.report = counted  # type: ignore[method-assign]
        return function(trial)

    worker.trials.function = call  # type: ignore[union-attr]
    worker.run()
    return study.trials()
