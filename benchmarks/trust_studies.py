"""Studies of `benchmarks.trust`: their data, their trials, and what a configuration is truly worth."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from scipy.stats import t as student

from hpo.config.trial_config import TrialConfig
from hpo.execution.worker import Worker
from hpo.execution.worker_options import WorkerOptions
from hpo.report.data.results import Results, TrialRow, read_results
from hpo.report.data.sample_scores import SampleTable, read_sample_scores
from hpo.report.stats.evaluation_stats import Interval, bootstrap_interval
from hpo.study import Study, StudyStorage
from hpo.study.files.study_files import weights_path
from hpo.study.input.study_file import parse_definition
from hpo.training.data import Data, prepare_data
from hpo.training.data_cache import DataCache
from hpo.training.loop import train
from hpo.training.member import TrainResult
from hpo.training.predictions import evaluate_weights
from hpo.training.settings import TrainSettings

__all__ = [
    "Chosen",
    "FinishedStudy",
    "evaluated_score",
    "fresh_scores",
    "refit_score",
    "run_study",
    "t_interval",
    "true_scores",
]

Array = np.ndarray[Any, Any]
CPU = torch.device("cpu")
FRESH = 10_000  # the first of the seeds that no study has used
SEEDS = 5


@dataclass(frozen=True)
class FinishedStudy:
    """Study that has come to its end.

    Attributes:
        study: itself.
        results: its trials.
        samples: their sample scores.
        seconds: of the processor that it took, without the imports.
    """

    study: Study
    results: Results
    samples: SampleTable
    seconds: float

    @property
    def metric(self) -> str:
        """The objective."""
        return self.results.objectives[0].metric


@dataclass(frozen=True)
class Chosen:
    """Configuration that was chosen, and its best epoch."""

    config: TrialConfig
    epochs: int

    @classmethod
    def of(cls, row: TrialRow) -> Chosen:
        """Return that of a trial."""
        assert row.config is not None
        return cls(row.config, row.best_epoch or row.config.epochs)


def run_study(
    table: Mapping[str, Any], arrays: Mapping[str, Any], folder: Path, seconds: float = math.inf
) -> FinishedStudy:
    """Run a study in this process, on one thread, in a folder that is emptied before.

    After so many seconds of the processor it stops in the midst of its trials, once one has come to its end.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ["HPO_HOME"] = str(folder / "home")
    np.savez(folder / "data.npz", **arrays)
    since = time.process_time()
    name, definition, budget = parse_definition({"dataset": str(folder / "data.npz"), **table}, "trust", folder)
    study = Study.create(StudyStorage(f"sqlite:///{folder}/studies.db"), name, definition, budget)
    worker = Worker(study, WorkerOptions(device="cpu", cpus=1))
    worker.should_stop = lambda: time.process_time() - since > seconds and "COMPLETE" in worker.finished
    worker.run()
    spent = time.process_time() - since
    found = FinishedStudy(study, read_results(study), read_sample_scores(study), spent)
    study.storage.engine.dispose()
    return found


def _settings(metric: str) -> TrainSettings:
    return TrainSettings(metric, "minimize" if metric in ("val_loss", "val_rmse") else "maximize")


def _score(result: TrainResult, data: Data, metric: str) -> float:
    """Return the score of a result on the test part of its data."""
    scores = evaluate_weights(result, data, *data.test()).scores
    return scores[metric.removeprefix("val_")]


def true_scores(finished: FinishedStudy, row: TrialRow) -> tuple[float, float]:
    """Return the scores of two models on the test part, which holds all that was left out of the study.

    The first is the trial's own, by the weights that the study has kept. The second is trained once more from the same
    seed, alone and not in a cohort, so that it has other dropout masks: another model of the same configuration.
    """
    assert row.config is not None
    data = DataCache(finished.study.definition.dataset, CPU).get(row.config)
    (again,) = train([row.config], data, _settings(finished.metric))
    path = weights_path(finished.study, row.number)
    assert path is not None
    own = replace(again, weights=load_file(path))
    return _score(own, data, finished.metric), _score(again, data, finished.metric)


def fresh_scores(finished: FinishedStudy, row: TrialRow) -> tuple[list[float], list[float]]:
    """Return the validation and the true scores of a configuration from fresh seeds, each with a split of its own."""
    assert row.config is not None
    fresh = {"split_seed": None, "init_seed": None, "order_seed": None}
    configs = [row.config.model_copy(update={**fresh, "seed": FRESH + seed}) for seed in range(SEEDS)]
    cache = DataCache(finished.study.definition.dataset, CPU)
    data = [cache.get(config) for config in configs]
    results = train(configs, data, _settings(finished.metric))
    values = [(result.best or {}).get(finished.metric, float("nan")) for result in results]
    return values, [_score(result, each, finished.metric) for result, each in zip(results, data, strict=True)]


def evaluated_score(finished: FinishedStudy, row: TrialRow, samples: int) -> tuple[Interval, float]:
    """Return what an evaluation says of a configuration on so many test samples, and what it is truly worth.

    It is trained from fresh seeds on the study's split, as `hpo evaluate` does, with its interval. The truth
    is the mean of three times as many other seeds on the other test samples.
    """
    assert row.config is not None
    fixed = {"split_seed": row.config.seed_of_split, "init_seed": None, "order_seed": None}
    configs = [row.config.model_copy(update={**fixed, "seed": FRESH + seed}) for seed in range(4 * SEEDS)]
    cache = DataCache(finished.study.definition.dataset, CPU)
    data = [cache.get(config) for config in configs]
    x, y = data[0].test()
    right = []
    for result in train(configs, data, _settings(finished.metric)):
        outputs = evaluate_weights(result, data[0], x, y).outputs
        assert outputs is not None
        right.append((outputs.argmax(1) == y).numpy())
    seen, other = np.array(right, float)[:SEEDS, :samples], np.array(right, float)[SEEDS:, samples:]
    return bootstrap_interval(list(seen.mean(1)), seen), float(other.mean())


def refit_score(finished: FinishedStudy, chosen: Chosen, seeds: int = SEEDS) -> float:
    """Return the mean test score of a configuration that is trained on all training samples, from fresh seeds."""
    fresh = {"split_seed": None, "init_seed": None, "order_seed": None}
    change = {**fresh, "validation": 0.0, "epochs": chosen.epochs}
    configs = [chosen.config.model_copy(update={**change, "seed": FRESH + seed}) for seed in range(seeds)]
    dataset = DataCache(finished.study.definition.dataset, CPU).load()
    data = [prepare_data(dataset, config, CPU) for config in configs]
    results = train(configs, data, _settings(finished.metric))
    return float(np.mean([_score(result, each, finished.metric) for result, each in zip(results, data, strict=True)]))


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of a mean."""
    mean, half = np.mean(values), student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return float(mean - half), float(mean + half)
