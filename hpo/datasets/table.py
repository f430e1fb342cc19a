"""Data sets in tables: label, test and validation rows, groups, times and weights, and what is to be said of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpo.datasets.columns import Column, explain_missing
from hpo.datasets.dataset import Dataset, Split
from hpo.datasets.file_digest import digest_file
from hpo.datasets.notes import describe_held_out, describe_task, describe_unlabelled
from hpo.datasets.parts import choose_test_rows
from hpo.datasets.roles import Roles
from hpo.datasets.source import DatasetSource
from hpo.datasets.table_file import TABLE_SUFFIXES, is_table, read_table
from hpo.datasets.table_labels import TableLabels, make_labels
from hpo.datasets.table_schema import TableSchema, make_schema
from hpo.datasets.texts import TextSchema
from hpo.errors import DataError
from hpo.utils.files import absolute_path
from hpo.utils.text import quantity, shorten

if TYPE_CHECKING:
    import polars as pl

__all__ = [
    "SUFFIXES",
    "can_read",
    "digest",
    "name_columns",
    "read_frame",
    "read_part",
    "read_parts",
    "read_rows",
    "read_source",
]

Array = np.ndarray[Any, Any]
SUFFIXES = TABLE_SUFFIXES
Schema = TableSchema | TextSchema  # how rows are read
FEWEST = 4  # training rows, of which the usual sixth is one


def can_read(path: Path) -> bool:
    """Return whether a path is the file of a table."""
    return is_table(path)


def digest(path: Path) -> dict[str, str]:
    """Return the SHA-256 of a table's file, by its name.

    Raises:
        DataError: it cannot be read.
    """
    return {path.name: digest_file(path)}


def read_source(path: Path, source: DatasetSource) -> Dataset:
    """Read the data set in a table, with the raw matrix of its features as x; see `hpo.datasets.features.Feature`.

    Rows without a label are left out. Test rows that are held out are the same for each study on the file: a share of
    each class or quantile, of whole groups, or the latest in time. Columns of groups and weights are no features.

    Args:
        path: of the table.
        source: its columns, and which rows are test and validation data.

    Raises:
        DataError: the table, or what the source says of it, cannot be used; the line names file, column and row.
    """
    return read_parts(read_table(path, exact=name_columns(source), texts=source.text), source, path)


def read_parts(frame: pl.DataFrame, source: DatasetSource, path: Path) -> Dataset:
    """Read the data set in the table of a file, which is in memory, with its test and validation files.

    Relative paths of these start from the folder of the first; see `read_source`.
    """
    dataset, schema = read_frame(frame, source, str(path))

    def read(part: str) -> tuple[Split, Array]:
        file = absolute_path(path.parent / part)
        return read_part(read_table(file, exact=schema.labels.columns, texts=schema.texts), schema, str(file))

    if isinstance(test := source.test, str):
        dataset = replace(dataset, test=lambda: read(test)[0])
    if isinstance(source.validation, str):
        split, rows = read(source.validation)
        dataset = replace(dataset, validation=split, rows={**dataset.rows, "validation": rows})
    return dataset


def read_frame(frame: pl.DataFrame, source: DatasetSource, where: str) -> tuple[Dataset, Schema]:
    """Read the data set in a table that is in memory, and how rows of others are read; see `read_source`.

    Args:
        frame: the table.
        source: its columns, and which of its rows are test data; test and validation files are not read.
        where: how the table is called in errors.
    """
    _check_columns(frame, source, where)
    _check_rows(frame.height, source, where)
    frame = frame.drop(source.drop)
    labels, reason = make_labels(frame, source.label, source.task, where)
    notes = [describe_task(labels.task, "" if source.task else reason, source.label), *labels.describe_pairs()]
    labelled = labels.find_rows(frame)
    rows = np.flatnonzero(labelled) + 1
    if not labelled.all():
        frame = frame.filter(labelled)
        notes.append(describe_unlabelled(np.flatnonzero(~labelled) + 1))
        _check_rows(frame.height, source, f"{where}, rows with a label")
    y = labels.read(frame, where, rows)
    roles = Roles.read(frame, source, where, rows)
    index, held = _hold_out(y, source, labels, roles, rows, where)
    notes.append(describe_held_out(source, len(held), len(y), roles.groups, roles.times) if len(held) else "")
    chosen = np.ones(len(y), bool)
    chosen[held] = False
    schema: Schema
    if source.text:
        schema = TextSchema.fit(frame, labels, source, where, chosen)
        codes = schema.read(frame, where)
        x, x_held = codes[index], codes[held]
        notes.append(schema.describe([name for name in frame.columns if name not in name_columns(source)]))
    else:
        skip = [column for column in (source.group, source.weight) if column is not None]
        schema, noted = make_schema(frame, labels, where, chosen, rows, skip, source.time)
        notes += _describe_dropped(noted, source.time, schema)
        columns = schema.choose(frame, where)
        del frame  # each column is freed as it is used
        x, x_held = schema.fill(columns, [index, held], where, rows)
    numbers = {"train": rows[index]}
    test = None
    if len(held):
        test, numbers["test"] = (x_held, y[held]), rows[held]
    dataset = Dataset(
        train=(x, y[index]),
        test=test,
        classes=len(labels.names),
        task=labels.task,
        output_names=labels.names,
        rows=numbers,
        **_describe_samples(schema),
        notes=tuple(note for note in notes if note),
        **roles.take(index),
    )
    return dataset, schema


def read_part(frame: pl.DataFrame, schema: Schema, where: str) -> tuple[Split, Array]:
    """Read the samples and labels of a test or validation table, and the numbers of its rows; those without are left.

    Raises:
        DataError: it lacks a column, or holds a value that cannot be read as in training.
    """
    for name in schema.labels.columns:
        if name not in frame.columns:
            raise DataError(f"{where}: {explain_missing(name, frame.columns)}")
    labelled = schema.labels.find_rows(frame)
    rows = np.flatnonzero(labelled) + 1
    if not len(rows):
        raise DataError(f"{where}: no row has a label")
    frame = frame.filter(labelled)
    y = schema.labels.read(frame, where, rows)
    return (schema.read(frame, where, rows=rows), y), rows


def _describe_samples(schema: Schema) -> dict[str, Any]:
    """Return what a `Dataset` has of how its samples are read."""
    if isinstance(schema, TableSchema):
        return {"features": schema.features, "schema": schema}
    return {"texts": schema.encoder, "vocabulary": schema.encoder.vocabulary}


def read_rows(path: Path, schema: TableSchema) -> tuple[Array, Array | None]:
    """Read new rows: the raw matrix (n, features), and the labels, or None where the file has none.

    Args:
        path: of a table.
        schema: of the training data.

    Raises:
        DataError: the file lacks a column, or holds a value that cannot be read as in training.
    """
    frame, where = read_table(path, exact=schema.labels.columns, texts=schema.texts), str(path)
    x = schema.read(frame, where)
    if not set(schema.labels.columns) <= set(frame.columns) or not schema.labels.find_rows(frame).all():
        return x, None
    return x, schema.labels.read(frame, where)


def name_columns(source: DatasetSource) -> list[str]:
    """Return the columns that a source names for another use than as features."""
    return [*source.label, *(name for name in (source.group, source.time, source.weight) if name is not None)]


def _check_columns(frame: pl.DataFrame, source: DatasetSource, where: str) -> None:
    for name in (*source.drop, *source.text, *name_columns(source)):
        if name not in frame.columns:
            raise DataError(f"{where}: {explain_missing(name, frame.columns)}")
    named = [*source.drop, *source.text, *name_columns(source)]
    for name in named:
        if named.count(name) > 1 and not (name == source.group == source.time):
            raise DataError(
                f"{where}, column '{name}': is named twice; a column has one use: label, drop, text, group, time or "
                "weight"
            )


def _check_rows(count: int, source: DatasetSource, where: str) -> None:
    """Refuse a table with too few rows for the parts that are taken of them."""
    own_test = isinstance(source.test, str) or source.test == 0
    least = FEWEST if own_test or isinstance(source.validation, str) else FEWEST + 1
    if count < least:
        parts = "a test part" if isinstance(source.validation, str) else "a validation part"
        parts = parts if own_test or isinstance(source.validation, str) else "a test and a validation part"
        raise DataError(
            f"{where}: {quantity(count, 'row')} {'is' if count == 1 else 'are'} too few to hold out {parts}; "
            f"give at least {least}"
        )


def _hold_out(
    y: Array, source: DatasetSource, labels: TableLabels, roles: Roles, rows: Array, where: str
) -> tuple[Array, Array]:
    """Return the indices of the training rows, and of those that are held out as test."""
    if isinstance(source.test, str) or source.test == 0:
        return np.arange(len(y)), np.arange(0)
    index, held = choose_test_rows(y, source, labels.task, where, roles.groups, roles.times)
    if labels.task == "classification":
        unseen = np.setdiff1d(y[held], y[index])
        if len(unseen):
            first = held[np.isin(y[held], unseen).argmax()]
            raise DataError(
                f"{where}, column '{labels.columns[0]}', row {rows[first]}: the class "
                f"{shorten(labels.names[y[first]], 40)} is in rows that are held out as test, but not in the training "
                "rows; hold out others, or remove it"
            )
    return index, held


def _describe_dropped(columns: Iterable[Column], time: str | None, schema: TableSchema) -> list[str]:
    notes = [f"column '{column.name}' {column.note}" for column in columns if column.note]
    if time is not None:
        recurs = any(feature.column == time for feature in schema.features)
        what = "of it only what recurs (months, weekdays, hours) is a feature" if recurs else "it is no feature"
        notes.append(f"column '{time}' orders the rows; {what}")
    return notes
