"""Descriptions of data in files and folders: columns, sizes, classes with counts, samples, and what is odd about
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpo.datasets.dataset import Dataset
from hpo.datasets.leakage import find_issues
from hpo.datasets.readers import find_path, read_dataset, resolve_name
from hpo.datasets.source import DatasetSource
from hpo.datasets.table_file import is_table
from hpo.utils.text import format_number, quantity, shorten

if TYPE_CHECKING:
    import polars as pl

__all__ = ["DatasetDescription", "describe_dataset", "describe_source"]

Array = np.ndarray[Any, Any]
SAMPLES = 5
MOST_OUTPUTS = 100  # classes, labels or targets that have a row of their own
WIDEST = 60  # characters of a sample's values


@dataclass(frozen=True)
class DatasetDescription:
    """Description of a data set.

    Attributes:
        summary: what a sample is, and how many each part has.
        outputs: a row for each class or label with its count in each part, or for each target with its range.
        samples: a row for each of some training samples, the first of each class.
        notes: what was guessed, what was left out, and what is odd about the data.
        columns: of a table, a row for each.
    """

    summary: str
    outputs: list[dict[str, Any]]
    samples: list[dict[str, Any]]
    notes: list[str]
    columns: list[dict[str, Any]] = field(default_factory=list)

    def list_remarks(self) -> list[str]:
        """Return what is odd about columns, but for those of which the notes tell already."""
        odd = {f"column '{column['name']}' ": column["note"] for column in self.columns if column["note"]}
        return [f"{lead}{note}" for lead, note in odd.items() if not any(each.startswith(lead) for each in self.notes)]


def describe_source(name: str, source: DatasetSource | None) -> DatasetDescription:
    """Return what a file or folder holds, and what would be learnt from it.

    Args:
        name: the path, or `sklearn:NAME`.
        source: how it is read; of a table without a label only the columns are described.

    Raises:
        DataError: it cannot be read, or the label cannot be predicted.
    """
    from hpo.datasets.columns import describe_columns
    from hpo.datasets.hf_folder import read_training_frame

    path, options = find_path(Path(resolve_name(name)).expanduser()), source or DatasetSource()
    if is_table(path):
        return _describe_table(path, options)
    dataset = read_dataset(path, options)
    description = describe_dataset(dataset)
    notes = [*description.notes, *_list_issues(dataset)]
    if dataset.schema is None:
        return replace(description, notes=notes)
    columns = [asdict(column) for column in describe_columns(read_training_frame(path))]
    return replace(description, notes=notes, samples=[], columns=columns)


def _describe_table(path: Path, source: DatasetSource) -> DatasetDescription:
    from hpo.datasets.columns import describe_columns
    from hpo.datasets.table import name_columns, read_parts
    from hpo.datasets.table_file import read_table

    frame: pl.DataFrame = read_table(path, exact=name_columns(source), texts=source.text)
    columns = [asdict(column) for column in describe_columns(frame)]
    summary = f"{frame.height:,} rows, {quantity(len(columns), 'column')}"
    if not source.label:
        note = "with --label COLUMN, the column to predict, the task, the classes and what is held out are told"
        return DatasetDescription(summary, [], [], [note], columns)
    dataset = read_parts(frame, source, path)
    description = describe_dataset(dataset)
    used = ", ".join(dataset.texts.columns) if dataset.texts is not None else ""
    if dataset.schema is not None:
        used = f"{quantity(len(dataset.features), 'feature')} of {quantity(len(dataset.schema.columns), 'column')}"
    return replace(
        description,
        summary=f"{summary}; {used}",
        samples=[],
        notes=[*description.notes, *_list_issues(dataset)],
        columns=columns,
    )


def _list_issues(dataset: Dataset) -> list[str]:
    test = dataset.test() if callable(dataset.test) else dataset.test
    # Rows without a label are in the reader's notes, with their numbers.
    return [issue.text for issue in find_issues(dataset, test) if issue.topic != "unlabelled"]


def describe_dataset(dataset: Dataset) -> DatasetDescription:
    """Return what a data set holds. Its test data are read.

    Args:
        dataset: as a reader returns it, with its task.
    """
    test = dataset.test() if callable(dataset.test) else dataset.test
    parts = {"train": dataset.train, "validation": dataset.validation, "test": test}
    splits = {name: part for name, part in parts.items() if isinstance(part, tuple)}
    x, _ = splits["train"]
    sizes = ", ".join(f"{len(part[1]):,} {name}" for name, part in splits.items())
    labels = {name: np.asarray(part[1]) for name, part in splits.items()}
    outputs = _describe_targets(dataset, labels) if dataset.task == "regression" else _count_labels(dataset, labels)
    notes = list(getattr(dataset, "notes", ()))
    if len(outputs) > MOST_OUTPUTS:
        notes.append(f"the first {MOST_OUTPUTS} of {len(outputs):,} are shown")
    values = f"{_describe_shape(np.asarray(x))}, {_describe_values(np.asarray(x))}"
    if dataset.texts is not None:
        values = f"texts of {dataset.texts.length:,} tokens, of a vocabulary of {len(dataset.texts.words):,} words"
    summary = f"{sizes} samples: {values}" + (f"; task {dataset.task}" if dataset.task else "")
    return DatasetDescription(summary, outputs[:MOST_OUTPUTS], _pick_samples(dataset, labels["train"]), notes)


def _describe_shape(x: Array) -> str:
    if x.ndim == 2:
        return f"{x.shape[1]:,} features"
    kind = "colour" if x.ndim == 4 and x.shape[3] == 3 else "grey" if x.ndim == 3 else f"{x.shape[3]}-channel"
    return f"{kind} images of {x.shape[1]}x{x.shape[2]} (height, width)"


def _describe_values(x: Array) -> str:
    some = x[:: max(1, len(x) // 1000)]
    return f"{x.dtype} from {format_number(np.nanmin(some))} to {format_number(np.nanmax(some))}"


def _name_outputs(dataset: Dataset, count: int) -> list[str]:
    return list(dataset.output_names) or [str(i) for i in range(count)]


def _count_labels(dataset: Dataset, labels: Mapping[str, Array]) -> list[dict[str, Any]]:
    classes = dataset.classes or 0
    counts = {
        part: np.bincount(y, minlength=classes) if y.ndim == 1 else y.sum(0).astype(int) for part, y in labels.items()
    }
    what = "label" if dataset.task == "multilabel" else "class"
    return [
        {what: name, **{part: int(count[i]) for part, count in counts.items()}}
        for i, name in enumerate(_name_outputs(dataset, classes))
    ]


def _describe_targets(dataset: Dataset, labels: Mapping[str, Array]) -> list[dict[str, Any]]:
    y = labels["train"].reshape(len(labels["train"]), -1)
    low, median, high = np.quantile(y, (0, 0.5, 1), axis=0)
    return [
        {
            "target": name,
            "lowest": float(low[i]),
            "median": float(median[i]),
            "mean": float(y[:, i].mean(dtype=float)),
            "highest": float(high[i]),
        }
        for i, name in enumerate(_name_outputs(dataset, y.shape[1]))
    ]


def _pick_samples(dataset: Dataset, y: Array) -> list[dict[str, Any]]:
    x = dataset.train[0] if isinstance(dataset.train, tuple) else y
    _, firsts = np.unique(y, return_index=True) if y.ndim == 1 else (None, np.arange(len(y)))
    names = _name_outputs(dataset, dataset.classes or 0)
    rows = dataset.rows.get("train")
    return [
        {
            "row": int(index) + 1 if rows is None else int(rows[index]),
            "label": names[int(y[index])] if y.ndim == 1 else _shorten(y[index]),
            "sample": _shorten(np.asarray(x[index])),
        }
        for index in sorted(firsts)[:SAMPLES]
    ]


def _shorten(values: Array) -> str:
    """Return the beginning of a sample's or a label's values."""
    flat = values.reshape(-1)
    text = " ".join(f"{value:g}" for value in flat[:20].tolist())
    return shorten(text + (" …" if len(flat) > 20 else ""), WIDEST, quote=False)
