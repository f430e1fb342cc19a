"""Evaluating: the best configurations of a study and its baseline, trained again over several seeds and tested once."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from hpo.config import registry
from hpo.config.parameter import Value
from hpo.config.trial_config import TrialConfig
from hpo.datasets import Dataset, DatasetReference, flat_labels, is_split, load, make_reference
from hpo.errors import DataError, RequestError
from hpo.execution.backends.base import Backend, WorkerOptions
from hpo.execution.launch import run_plan
from hpo.report.data.results import Results, read_results
from hpo.study import Study
from hpo.study.definition import test_metric
from hpo.study.files.artifacts import find_artifact, save_artifact
from hpo.study.operations.evaluation_study import check_evaluation_dataset, parameter_values_of

__all__ = ["SAMPLES", "plan_evaluations", "run_evaluations"]

Array = np.ndarray[Any, Any]
SAMPLES = "samples.npz"
PER_CLASS = 10
CLASSES = 20  # pictures of more are no picture any more


def plan_evaluations(
    study: Study, top: int = 3, seeds: int = 5, dataset: str | None = None, *, refit: bool = False
) -> list[Study]:
    """The evaluations of a study's best configurations and its baseline, made or extended; nothing is run.

    Args:
        study: what is evaluated.
        top: how many of its configurations, the best first; those of the Pareto front where it has several objectives.
        seeds: how many seeds each is trained from.
        dataset: a name or an .npz file instead of the study's data set.
        refit: train on training and validation data together, for a fixed number of epochs.

    Raises:
        RequestError: no trial is complete, the study is an evaluation itself, a configuration does not fit the data, or
            these have no test set.
    """
    if study.definition.evaluation is not None:
        of = study.definition.evaluation.of
        raise RequestError(f"evaluate: '{study.name}' is an evaluation itself; evaluate '{of}' with other options")
    if not any(test_metric(objective.metric) for objective in study.definition.objectives):
        metrics = ", ".join(study.definition.metrics)
        raise RequestError(
            f"evaluate: study '{study.name}' has no objective that data are needed to measure ({metrics})"
        )
    results = read_results(study)
    chosen = list(_best(results, top))
    if not chosen:
        raise RequestError(f"evaluate: study '{study.name}' has no COMPLETE trial to train again; launch it first")
    if registry.NO_DATA in (study.definition.dataset.name, dataset):
        raise RequestError(
            f"evaluate: study '{study.name}' reads data of its own, of which no test set is known here; register them "
            "with @hpo.dataset, name them in the study file, and let the loop take them from trial.data"
        )
    if refit and any(registry.models.get(name).loop for name in study.space.models):
        raise RequestError(
            "evaluate --refit: a loop of one's own decides itself what it trains on; evaluate without it"
        )
    other = None if dataset is None else make_reference(dataset)
    data = _tested(other or study.definition.dataset)
    made = check_evaluation_dataset(study, chosen, seeds, other, refit=refit)
    for each in made:
        if find_artifact(each, SAMPLES) is None and (content := _samples(data)) is not None:
            save_artifact(each, SAMPLES, content)
    return made


def run_evaluations(
    made: list[Study],
    options: WorkerOptions,
    should_stop: Callable[[], bool] = lambda: False,
    backend: Backend | None = None,
) -> None:
    """Run evaluations one after the other, on a backend, until nothing is left to begin.

    Raises:
        RunError: a worker failed.
    """
    for each in made:
        if each.remaining() and not should_stop():
            run_plan(each, options, should_stop, backend)


def _best(results: Results, top: int) -> Iterator[tuple[int, TrialConfig, int | None]]:
    """Number, configuration and best epoch of the best trials; of those that are the same one, the best."""
    seen: list[dict[str, Value]] = []
    for row in results.top(len(results.trials)):
        if row.config is None:
            continue
        values = {
            **parameter_values_of(row.config, None),
            "split_seed": 0,
        }  # from another seed it is the same configuration
        if values not in seen:
            seen.append(values)
            yield row.number, row.config, row.best_epoch
        if len(seen) == top:
            return


def _tested(data: DatasetReference) -> Dataset:
    """The data set, which must have a test set; that is not read here."""
    dataset = load(data)
    if dataset.test is None:
        raise DataError(f"{data.name}: has no test set to evaluate on; give `test` in its hpo.Dataset")
    return dataset


def _samples(data: Dataset) -> bytes | None:
    """The first training images of each class, as an .npz file's content; None where samples are no images."""
    if not isinstance(data.train, tuple) or not is_split(data.train):
        return None
    images, labels = _images(data.train[0]), flat_labels(data.train[1], "train")
    if images is None:
        return None
    classes = np.unique(labels)[:CLASSES]
    first = np.concatenate([np.flatnonzero(labels == label)[:PER_CLASS] for label in classes])
    file = io.BytesIO()
    np.savez_compressed(file, images=_bytes(images[first]), labels=labels[first])
    return file.getvalue()


def _images(x: Any) -> Array | None:
    """(N, H, W) or (N, H, W, 3), as an array; None of features and of other channels."""
    array = np.asarray(x.cpu() if hasattr(x, "cpu") else x)
    if array.ndim == 4 and not isinstance(x, np.ndarray):
        array = array.transpose(0, 2, 3, 1)  # a tensor has its channels first
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    return array if array.ndim == 3 or (array.ndim == 4 and array.shape[3] == 3) else None


def _bytes(images: Array) -> Array:
    """Between their extremes, unless they are bytes already."""
    if images.dtype == np.uint8:
        return images
    low, high = float(images.min()), float(images.max())
    scaled: Array = np.rint(255 * (images - low) / max(high - low, 1e-12)).astype(np.uint8)
    return scaled
