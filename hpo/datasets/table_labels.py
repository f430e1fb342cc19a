"""Labels of a table: the columns that are predicted, the task they make, and the numbers that stand for them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from hpo.config.choices import Task
from hpo.datasets.columns import (
    count_missing,
    describe_column,
    explain_missing,
    find_date_formats,
    find_marked_number,
    find_misfit,
)
from hpo.datasets.dataset import MAX_CLASSES
from hpo.errors import DataError
from hpo.utils.text import shorten

if TYPE_CHECKING:
    import polars as pl

__all__ = ["TableLabels", "make_labels"]

Array = np.ndarray[Any, Any]
TaskName = Task | Literal["binary", "multiclass"]
MOST_CLASSES = 20  # that whole numbers are taken for without being asked
LABEL_SEPARATORS = ("|", ";")  # of several labels in one text
NAME_ANOTHER = "name another label"
POSITIVE = ("yes", "y", "true", "t", "1", "positive", "present", "on", "ja", "si", "oui")
NEGATIVE = ("no", "n", "false", "f", "0", "negative", "absent", "off", "nein", "non")


class TableLabels(BaseModel):
    """Labels of a table, and how they are read.

    Attributes:
        columns: of the file.
        task: what is predicted.
        names: of the outputs: the classes in their order, or the labels or targets.
        separator: of several labels in the texts of one column; None where they are columns or lists.
        pairs: by column, of several labels that are texts, the text that stands for 0 and the one for 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: tuple[str, ...]
    task: Task
    names: tuple[str, ...]
    separator: str | None = None
    pairs: dict[str, tuple[str, str]] = {}

    def describe_pairs(self) -> list[str]:
        """Return what is to be said of the columns of texts that are read as 0 and 1."""
        return [f"column '{name}': {one} is 1, {zero} is 0" for name, (zero, one) in self.pairs.items()]

    def find_rows(self, frame: pl.DataFrame) -> Array:
        """Return which rows (N,) have all their labels; a list of labels may be empty."""
        if self.task == "multilabel" and len(self.columns) == 1:
            return np.ones(frame.height, bool)
        known: Array = np.stack([_is_present(frame[name]).to_numpy() for name in self.columns])
        rows: Array = known.min(axis=0)
        return rows

    def read(self, frame: pl.DataFrame, where: str, rows: Array | None = None) -> Array:
        """Return the labels of a table, of which no row lacks one: (N,) of int64, or (N, columns) of float32.

        Args:
            frame: the table, (N rows).
            where: how the file is called in errors.
            rows: the number of each row in its file.

        Raises:
            DataError: a column is missing, or a row holds a class that training did not have, or no number.
        """
        for name in self.columns:
            if name not in frame.columns:
                raise DataError(f"{where}: {explain_missing(name, frame.columns)}")
        rows = np.arange(1, frame.height + 1) if rows is None else rows
        if self.task == "classification":
            return self._read_classes(frame[self.columns[0]], where, rows)
        if self.task == "multilabel" and len(self.columns) == 1:
            return self._read_lists(frame[self.columns[0]], where, rows)
        return np.stack([self._read_numbers(frame[name], where, rows) for name in self.columns], axis=1)

    def _read_classes(self, values: pl.Series, where: str, rows: Array) -> Array:
        texts = to_texts(values)
        codes = _encode(texts, self.names)
        unknown = np.flatnonzero(codes < 0)
        if len(unknown):
            raise self._unknown(str(texts[int(unknown[0])]), where, int(rows[unknown[0]]))
        return codes

    def _unknown(self, value: str, where: str, row: int) -> DataError:
        what = "class" if self.task == "classification" else "label"
        return DataError(
            f"{where}, column '{self.columns[0]}', row {row}: the {what} {shorten(value, 40)} is not in the training "
            "data; add samples of it there, or remove the row"
        )

    def _read_lists(self, values: pl.Series, where: str, rows: Array) -> Array:
        import polars as pl

        y = np.zeros((len(values), len(self.names)), np.float32)
        table = pl.DataFrame({"row": np.arange(len(values)), "label": _split_labels(values, self.separator)})
        table = table.explode("label").drop_nulls()
        codes, at = _encode(table["label"], self.names), table["row"].to_numpy()
        if (codes < 0).any():
            first = int((codes < 0).argmax())
            raise self._unknown(str(table["label"][first]), where, int(rows[at[first]]))
        y[at, codes] = 1
        return y

    def _read_numbers(self, values: pl.Series, where: str, rows: Array) -> Array:
        import polars as pl

        pair = self.pairs.get(values.name)
        if pair is None or values.dtype.is_numeric() or values.dtype == pl.Boolean:
            numbers = values.cast(pl.Float64, strict=False).to_numpy()
        else:
            codes = _encode(values.cast(pl.String), pair)
            numbers = np.where(codes < 0, np.nan, codes)
        bad = ~np.isfinite(numbers.astype(np.float32))
        if self.task == "multilabel":
            bad |= (numbers != 0) & (numbers != 1)
        if bad.any():
            row = int(bad.argmax())
            must = "0 or 1" if self.task == "multilabel" else "a finite number"
            must = " or ".join(pair) if pair else must
            raise DataError(
                f"{where}, column '{values.name}', row {rows[row]}: holds {shorten(values[row], 40)}, but a label must "
                f"be {must}; correct or remove the row"
            )
        return numbers.astype(np.float32)


def _is_present(values: pl.Series) -> pl.Series:
    return values.is_not_null() & values.is_not_nan() if values.dtype.is_float() else values.is_not_null()


def to_texts(values: pl.Series) -> pl.Series:
    """Return values as texts: whole numbers without a point, whatever their type."""
    import polars as pl

    if values.dtype.is_float():
        whole = values.drop_nulls().drop_nans()
        if (whole % 1 == 0).all() and (whole.abs() < 2**53).all():
            return values.fill_nan(None).cast(pl.Int64).cast(pl.String)
    return values.cast(pl.String)


def _encode(texts: pl.Series, names: Sequence[str]) -> Array:
    """Return the position (N,) of each text among the names, -1 where it is not among them."""
    import polars as pl

    return texts.cast(pl.Enum(names), strict=False).to_physical().cast(pl.Int64).fill_null(-1).to_numpy()


def _split_labels(values: pl.Series, separator: str | None) -> pl.Series:
    import polars as pl

    if separator is None:
        return values.cast(pl.List(pl.String))
    parts = values.cast(pl.String).str.split(separator).list.eval(pl.element().str.strip_chars())
    return parts.list.eval(pl.element().filter(pl.element() != ""))


def make_labels(
    frame: pl.DataFrame, columns: Sequence[str], task: TaskName | None, where: str
) -> tuple[TableLabels, str]:
    """Return the labels that columns of the training data make, and why their task is what it is.

    Args:
        frame: the table.
        columns: the names of one label or several.
        task: instead of the one that the labels suggest.
        where: how the file is called in errors.

    Raises:
        DataError: there is no such column, or it holds nothing that can be predicted.
    """
    if not columns:
        names = ", ".join(frame.columns[:20]) + (", …" if frame.width > 20 else "")
        raise DataError(f'{where}: which column is predicted? Say label = "…" (--label); its columns are: {names}')
    for name in columns:
        if name not in frame.columns:
            raise DataError(f"{where}: {explain_missing(name, frame.columns)}")
        _check_label(frame[name], where)
    reason = "as the study says"
    if task is None:
        _check_identifier(frame[columns[0]], where)
        task, reason = _guess_task([frame[name] for name in columns])
    if len(columns) > 1:
        return _make_columns(frame, tuple(columns), task, where), reason
    return _make_one(frame[columns[0]], task, where), reason


def _check_label(values: pl.Series, where: str) -> None:
    import polars as pl

    place = f"{where}, column '{values.name}'"
    if count_missing(values) == len(values):
        raise DataError(f"{place}: holds no values; {NAME_ANOTHER}")
    text = values.dtype in (pl.String, pl.Categorical)
    if values.dtype.is_temporal() or (text and find_date_formats(values)):
        raise DataError(f"{place}: holds dates, which cannot be predicted; {NAME_ANOTHER}, or write numbers instead")
    if values.dtype in (pl.Struct, pl.Object, pl.Binary):
        raise DataError(f"{place}: holds {values.dtype}, which cannot be predicted; {NAME_ANOTHER}")
    if text and (misfit := find_misfit(values)) is not None:
        raise DataError(
            f"{place}, row {misfit[0]}: holds {shorten(misfit[1], 40)}, but nearly all others are numbers; "
            "correct or remove the row"
        )


def _check_identifier(values: pl.Series, where: str) -> None:
    import polars as pl

    if describe_column(values, count=False).kind != "identifier":
        return
    place = f"{where}, column '{values.name}'"
    texts = values.dtype in (pl.String, pl.Categorical)
    if texts and (marked := find_marked_number(values.drop_nulls().cast(pl.String))) is not None:
        raise DataError(f"{place}: holds numbers such as {shorten(marked, 40)}; write plain numbers, or {NAME_ANOTHER}")
    raise DataError(f"{place}: differs in every row like an identifier; {NAME_ANOTHER}, or say the task")


def _guess_task(labels: Sequence[pl.Series]) -> tuple[TaskName, str]:
    """Return the task that labels suggest, and why."""
    import polars as pl

    if len(labels) > 1:
        if all(_is_zero_or_one(values) or _find_pair(values) for values in labels):
            return "multilabel", f"each of its {len(labels)} columns holds two values"
        return "regression", f"it has {len(labels)} columns of numbers"
    values = labels[0].drop_nulls()
    if values.dtype == pl.List:
        return "multilabel", "its rows hold lists"
    if values.dtype in (pl.String, pl.Categorical) and (separator := _find_separator(values)):
        return "multilabel", f"its texts are lists, with '{separator}' between the labels"
    if not values.dtype.is_numeric():
        return "classification", f"it has {values.n_unique():,} different values that are no numbers"
    if values.dtype.is_float():
        values = values.drop_nans()
        if not (values % 1 == 0).all():
            return "regression", "its values are numbers with fractions"
    distinct = values.n_unique()
    if distinct > MOST_CLASSES or distinct > max(2, len(values) // 2):  # a class has several rows
        return "regression", f"it has {distinct:,} different numbers in {len(values):,} rows"
    return "classification", f"it has {distinct} different whole numbers"


def _is_zero_or_one(values: pl.Series) -> bool:
    import polars as pl

    if values.dtype == pl.Boolean:
        return True
    return values.dtype.is_numeric() and bool(((values == 0) | (values == 1)).all())


def _find_pair(values: pl.Series) -> tuple[str, str] | None:
    """Return the two texts of a column, first the one that stands for 0; None of a column with others than two."""
    import polars as pl

    if values.dtype not in (pl.String, pl.Categorical):
        return None
    texts = sorted(values.drop_nulls().unique().cast(pl.String))
    if len(texts) != 2:
        return None
    negative = texts[1].lower() in NEGATIVE or texts[0].lower() in POSITIVE
    return (texts[1], texts[0]) if negative else (texts[0], texts[1])


def _find_separator(texts: pl.Series) -> str | None:
    """Return what stands between the labels of one text: their parts are fewer than the texts, for they recur."""
    import polars as pl

    distinct = texts.cast(pl.String).unique()
    for separator in LABEL_SEPARATORS:
        split = distinct.filter(distinct.str.contains(separator, literal=True))
        if len(split) and 1 < _split_labels(distinct, separator).explode().n_unique() < len(distinct):
            return separator
    return None


def _make_columns(frame: pl.DataFrame, columns: tuple[str, ...], task: TaskName, where: str) -> TableLabels:
    if task not in ("multilabel", "regression"):
        raise DataError(
            f"{where}: {len(columns)} labels are a multilabel or regression task, not {task}; name one label"
        )
    pairs = {}
    for values in (frame[name] for name in columns):
        place = f"{where}, column '{values.name}'"
        if values.drop_nulls().n_unique() == 1:
            raise DataError(f"{place}: has the same value in every row; leave it out of the labels")
        if values.dtype.is_numeric() or _is_zero_or_one(values):
            continue
        pair = _find_pair(values) if task == "multilabel" else None
        if pair is None:
            row = int(values.is_not_null().arg_max() or 0)
            raise DataError(
                f"{place}, row {row + 1}: holds {shorten(values[row], 40)}; several labels must be numbers, or hold "
                "two different values each, such as yes and no: leave the column out of the labels, or name it alone"
            )
        pairs[values.name] = pair
    chosen: Task = "multilabel" if task == "multilabel" else "regression"
    return TableLabels(columns=columns, task=chosen, names=columns, pairs=pairs)


def _make_one(values: pl.Series, task: TaskName, where: str) -> TableLabels:
    import polars as pl

    place, columns = f"{where}, column '{values.name}'", (values.name,)
    if task == "regression":
        if not values.dtype.is_numeric():
            text = shorten(values.drop_nulls()[0], 40)
            raise DataError(f"{place}: holds {text}, which is no number; regression needs numbers: {NAME_ANOTHER}")
        _check_several(values.drop_nulls().n_unique(), values, place)
        return TableLabels(columns=columns, task=task, names=columns)
    if task == "multilabel":
        separator = None if values.dtype == pl.List else _find_separator(values) or LABEL_SEPARATORS[0]
        names = _sort(_split_labels(values, separator).explode().drop_nulls())
        if len(names) < 2:
            raise DataError(f"{place}: holds {len(names)} label; several need at least 2, with '|' between them")
        return TableLabels(columns=columns, task=task, names=names, separator=separator)
    names = _sort(to_texts(values).drop_nulls())
    _check_classes(names, values, task, place)
    return TableLabels(columns=columns, task="classification", names=names)


def _sort(texts: pl.Series) -> tuple[str, ...]:
    """Return the different texts in a stable order: by size if all are numbers, else by the alphabet."""
    import polars as pl

    distinct = texts.unique().sort()
    numbers = distinct.cast(pl.Float64, strict=False)
    return tuple(distinct if numbers.null_count() else distinct.gather(numbers.arg_sort()))


def _check_several(distinct: int, values: pl.Series, place: str) -> None:
    if distinct == 1:
        only = shorten(values.drop_nulls()[0], 40)
        raise DataError(f"{place}: holds {only} in every row, so there is nothing to learn; {NAME_ANOTHER}")


def _check_classes(names: Sequence[str], values: pl.Series, task: TaskName, place: str) -> None:
    samples = len(values) - count_missing(values)
    _check_several(len(names), values, place)
    if len(names) > samples / 2 and len(names) > MOST_CLASSES:
        identifier = "; it is an identifier" if len(names) == samples else ""
        raise DataError(
            f"{place}: has {len(names):,} classes for {samples:,} samples{identifier}; {NAME_ANOTHER}, or say "
            'task = "regression" if its values are quantities'
        )
    if len(names) > MAX_CLASSES:
        raise DataError(f"{place}: has {len(names):,} classes; there can be {MAX_CLASSES:,}")
    if (task == "binary") != (len(names) == 2) and task in ("binary", "multiclass"):
        shown = ", ".join(_shorten_all(names[:5])) + (", …" if len(names) > 5 else "")
        raise DataError(f"{place}: has {len(names):,} classes ({shown}), which is not {task}")


def _shorten_all(texts: Iterable[str]) -> list[str]:
    return [shorten(text, 20, quote=False) for text in texts]
