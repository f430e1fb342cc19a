"""Study files adapted to another data set than their own: an objective of its task, and a space for its samples."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from hpo.datasets import DatasetReference
from hpo.study.input.metric_names import fits

__all__ = ["FIRST", "adapt_study", "choose_template", "explain_adaptation"]

FIRST = "quickstart"  # the template that is for any data
FOR_TABLES = "quickstart_table"
VISITS = 500_000  # of samples in a trial of the first study, by which the number of epochs follows from their number
LEAST, MOST = 10, 100  # epochs
FEW = 500  # training samples, below which folds have chosen better than a split, in as much time; see BENCHMARKS.md


def choose_template(study: str, dataset: DatasetReference) -> str:
    """Return the study to launch on data: `quickstart_table` for `quickstart` where samples are rows of a table."""
    return FOR_TABLES if study == FIRST and _is_table(dataset) else study


def adapt_study(study: str, table: Mapping[str, Any], dataset: DatasetReference) -> dict[str, Any]:
    """Return the keys of a study file that is launched on another data set.

    An objective that the data set's task does not have is left out, so that the task's usual one holds. The template
    `quickstart`, which for tables is `quickstart_table`, gets as many epochs as the number of samples calls for.
    """
    adapted = dict(table)
    if study == FIRST and dataset.samples is not None:
        epochs = _choose_epochs(dataset.samples)
        adapted["parameters"] = {**adapted["parameters"], "epochs": epochs, "patience": max(5, epochs // 4)}
    names = [adapted.get("objective")] if isinstance(adapted.get("objective"), str) else adapted.get("objective", ())
    metrics = [each["metric"] if isinstance(each, Mapping) else each for each in names or ()]
    if not all(isinstance(each, str) and fits(each, dataset.task, reconstructs=False) for each in metrics):
        adapted.pop("objective", None)
        adapted.pop("target", None)
    return adapted


def explain_adaptation(
    study: str | None, dataset: DatasetReference, parameters: Collection[str], *, split_once: bool
) -> list[str]:
    """Return what `adapt_study` does to the template that is for any data, and what it leaves to ask for; a line each.

    Args:
        study: the study file or template.
        dataset: what it is launched on.
        parameters: those that the launch overrides.
        split_once: whether the study splits its training samples once.
    """
    notes: list[str] = []
    if study == FIRST and _is_table(dataset):
        notes.append(f"samples are rows of a table: the study is the template {FOR_TABLES}")
    if study == FIRST and dataset.samples is not None and "epochs" not in parameters:
        notes.append(f"epochs = {_choose_epochs(dataset.samples)}, for {dataset.samples:,} training samples")
    if study == FIRST and split_once and dataset.samples is not None and dataset.samples < FEW:
        notes.append(
            f"{dataset.samples:,} training samples are few for one validation split; folds = 5 chooses by all of them"
        )
    return notes


def _is_table(dataset: DatasetReference) -> bool:
    return dataset.shape is not None and len(dataset.shape) == 1


def _choose_epochs(samples: int) -> int:
    return min(MOST, max(LEAST, VISITS // max(1, samples)))
