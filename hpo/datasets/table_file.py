"""Files of tables: CSV, TSV, Parquet, Feather or Arrow, and JSON lines, read by polars.

polars reads all of them with one package, several threads and types; pyarrow has no streaming CSV reader that infers
types over the whole file, and pandas needs pyarrow for Parquet.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo.errors import DataError
from hpo.utils.text import first_line, shorten

if TYPE_CHECKING:
    import polars as pl

__all__ = ["TABLE_SUFFIXES", "is_table", "read_table"]

# What stands for a missing value in a file of text, beside nothing at all.
MISSING = ("", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "?")
SAMPLE_ROWS = 10_000  # whose types are those of the columns, unless a later row contradicts them


def is_table(path: Path | str) -> bool:
    """Return whether a file is a table, by its name."""
    return Path(path).suffix.lower() in TABLE_SUFFIXES


def read_table(path: Path) -> pl.DataFrame:
    """Read a table.

    Args:
        path: of a file with one of `TABLE_SUFFIXES`.

    Returns:
        The rows (N) and columns of the file, each with the type that all its values have.

    Raises:
        DataError: the file is missing, empty, damaged, or has rows of several lengths or two columns of one name.
    """
    if not path.is_file():
        raise DataError(f"{path}: {'is a folder' if path.is_dir() else 'not found'}; name a file with a table")
    try:
        frame = TABLE_SUFFIXES[path.suffix.lower()](path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or first_line(error)})") from error
    except DataError:
        raise
    except Exception as error:  # polars' own kinds, and those of what it is built on
        raise DataError(f"{path}: {_explain(path, error)}") from error
    if frame.height == 0:
        raise DataError(f"{path}: holds no rows; it must have a line of column names and at least one row")
    return frame


def _read_csv(path: Path) -> pl.DataFrame:
    return _read_text(path, _find_separator(path))


def _read_tsv(path: Path) -> pl.DataFrame:
    return _read_text(path, "\t")


def _read_text(path: Path, separator: str) -> pl.DataFrame:
    import polars as pl

    _check_header(path, separator)
    options: Mapping[str, Any] = {
        "separator": separator,
        "null_values": list(MISSING),
        "try_parse_dates": True,
        "decimal_comma": separator == ";",  # of the countries whose spreadsheets write semicolons
    }
    try:
        return pl.read_csv(path, infer_schema_length=SAMPLE_ROWS, **options)
    except pl.exceptions.ComputeError as error:
        if "could not parse" not in str(error):
            raise
    return pl.read_csv(path, infer_schema_length=None, **options)  # twice as long, and right for all rows


def _find_separator(path: Path) -> str:
    """Return the separator of a CSV file: that of comma, semicolon, tab and bar which its first line has most often."""
    with path.open("rb") as file:
        header = file.readline(1_000_000).decode("utf-8", "replace")
    return max(",;\t|", key=header.count)


def _check_header(path: Path, separator: str) -> None:
    """Check the line of column names.

    Raises:
        DataError: a name is missing, or stands there twice.
    """
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        names = next(csv.reader(file, delimiter=separator), [])
    if not names:
        raise DataError(f"{path}: is empty; it must have a line of column names and at least one row")
    for position, name in enumerate(names, 1):
        if names.count(name) > 1:
            called = f"two columns are called '{name}'" if name else f"column {position} has no name"
            raise DataError(f"{path}, line 1: {called}; give each column a name of its own")


def _explain(path: Path, error: Exception) -> str:
    text = first_line(error)
    if "found more fields" in text:
        return _find_long_row(path)
    if "utf-8" in text:
        return "is not written in UTF-8; save it again with that encoding"
    return f"cannot be read as {path.suffix.lower().lstrip('.')} ({shorten(text, 200, quote=False)})"


def _find_long_row(path: Path) -> str:
    """Say which row of a file of text has more fields than there are columns."""
    separator = "\t" if path.suffix.lower() == ".tsv" else _find_separator(path)
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        rows = csv.reader(file, delimiter=separator)
        width = len(next(rows))
        for row in rows:
            if len(row) > width:
                return (
                    f"line {rows.line_num}: has {len(row)} fields, but there are {width} columns; "
                    "put texts that hold the separator in quotation marks"
                )
    return "a row has more fields than there are columns"


def _read_parquet(path: Path) -> pl.DataFrame:
    import polars as pl

    return pl.read_parquet(path)


def _read_arrow(path: Path) -> pl.DataFrame:
    import polars as pl

    return pl.read_ipc(path)


def _read_json_lines(path: Path) -> pl.DataFrame:
    import polars as pl

    return pl.read_ndjson(path, infer_schema_length=None)


TABLE_SUFFIXES: Mapping[str, Callable[[Path], pl.DataFrame]] = dict(
    itertools.chain(
        [(".csv", _read_csv), (".tsv", _read_tsv)],
        ((suffix, _read_parquet) for suffix in (".parquet", ".pq")),
        ((suffix, _read_arrow) for suffix in (".feather", ".arrow", ".ipc")),
        ((suffix, _read_json_lines) for suffix in (".jsonl", ".ndjson")),
    )
)
