"""Plain Optuna, as its example for PyTorch and its page on several processes with one journal."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing import Process
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from benchmarks.rivals.session import session
from benchmarks.rivals.tools.torch_loop import train


def suggest(trial: optuna.Trial) -> dict[str, Any]:
    space = session.space
    config = {name: trial.suggest_categorical(name, choices) for name, choices in space.choices.items()}
    config |= {name: trial.suggest_int(name, *bounds) for name, bounds in space.integers.items()}
    return config | {name: trial.suggest_float(name, *bounds, log=True) for name, bounds in space.rates.items()}


def objective(trial: optuna.Trial) -> float:
    accuracy = 0.0
    for epoch, accuracy in enumerate(train(suggest(trial))):
        trial.report(accuracy, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return accuracy


def optimize(objective: Callable[[optuna.Trial], float], process: int) -> None:
    study = optuna.create_study(
        study_name="rivals",
        storage=JournalStorage(JournalFileBackend(f"{session.folder}/journal.log")),
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=2 * session.seed + process),
        pruner=optuna.pruners.MedianPruner(),
        load_if_exists=True,
    )
    limit = optuna.study.MaxTrialsCallback(session.trials, states=None)
    study.optimize(objective, timeout=session.seconds, callbacks=[limit])


def run(objective: Callable[[optuna.Trial], float]) -> None:
    processes = [Process(target=optimize, args=(objective, number)) for number in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()


if __name__ == "__main__":
    run(objective)
