"""Plain Optuna with our training loop, whose data are resident tensors: the difference that is left is the search."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import optuna
from typing_extensions import override

from benchmarks.rivals import session as runs
from benchmarks.rivals.data import find_data
from benchmarks.rivals.session import session
from benchmarks.rivals.tools.optuna_dataloader import run, suggest
from hpo import TrialConfig
from hpo.datasets import make_reference
from hpo.training.callbacks import Callback
from hpo.training.data_cache import DataCache
from hpo.training.device import select_device
from hpo.training.loop import train
from hpo.training.member import Member
from hpo.training.settings import TrainSettings


class Report(Callback):
    def __init__(self, trial: optuna.Trial, record: Callable[[float], None]) -> None:
        self.trial, self.record = trial, record

    @override
    def on_epoch(self, member: Member, metrics: dict[str, float]) -> None:
        self.record(metrics["val_accuracy"])
        self.trial.report(metrics["val_accuracy"], int(metrics["epoch"]))
        if self.trial.should_prune():
            member.stop("pruned")


@cache
def cached_data() -> DataCache:
    return DataCache(make_reference(find_data(session.task, Path(session.folder).parent)), select_device("cpu"))


def objective(trial: optuna.Trial) -> float:
    space = session.space
    config = TrialConfig(model=space.model, epochs=space.epochs, seed=session.seed, **suggest(trial))
    with runs.trial() as record:
        settings = TrainSettings(callbacks=[Report(trial, record)])
        result = train([config], cached_data().get(config), settings)[0]
    if result.status == "pruned":
        raise optuna.TrialPruned
    return result.history[-1]["val_accuracy"]


if __name__ == "__main__":
    run(objective)
