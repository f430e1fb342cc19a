"""Tables as text: the separator, decimal sign, types, and damage of CSV and TSV files."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo.datasets.columns import count_categories
from hpo.errors import DataError
from hpo.utils.text import first_line, quantity, shorten

if TYPE_CHECKING:
    import polars as pl

__all__ = ["MISSING_TEXTS", "clean_names", "find_separator", "read_text_table", "to_numbers"]

# What stands for a missing value, beside nothing at all; pandas reads the same ones so, but for the question mark.
MISSING_TEXTS = ("", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "<NA>", "?")
SAMPLE_ROWS = 10_000  # whose types are those of the columns, unless a later row contradicts them
LARGEST_SAMPLE = 50_000_000  # bytes of them
SEPARATORS = ",;\t|"
DECIMAL_COMMA = rb'(?:^|;|\n)"?[+-]?\d+,\d+"?(?=;|\r|\n)'  # as spreadsheets of many countries write beside semicolons
MOST_CHECKED = 100_000  # rows that are looked at one by one, in Python


def read_text_table(path: Path, exact: Collection[str] = (), texts: Collection[str] = ()) -> pl.DataFrame:
    """Read a CSV or TSV file; see `table_file.read_table`.

    Raises:
        DataError: a fault that can be located: the header, a row's length, the encoding.
        PolarsError: any other.
    """
    import polars as pl

    separator = "\t" if path.suffix.lower() in (".tsv", ".tab") else find_separator(path)
    names = _read_names(path, separator)
    head = _read_head(path)
    options: dict[str, Any] = {
        "separator": separator,
        "decimal_comma": separator == ";" and re.search(DECIMAL_COMMA, head) is not None,
        "eol_char": "\n" if b"\n" in head else "\r",
    }
    try:
        missing = _find_missing_texts(head, options)
        sample = pl.read_csv(head, infer_schema_length=None, null_values=["", *missing], **options)
        options["null_values"] = missing or None
        types = {
            raw: _choose_type(sample[raw], name in exact, name in texts)
            for raw, name in zip(sample.columns, names, strict=True)
        }
        frame = _scan(path, types, options)
    except pl.exceptions.PolarsError as error:
        raise _explain(path, separator, error) from error
    frame.columns = names
    _check_short_rows(path, separator, frame)
    return _tidy(frame, texts)


def _read_head(path: Path) -> bytes:
    """Return the first rows of a file, up to the end of a line that is not within quotation marks."""
    with path.open("rb") as file:
        head = b"".join(itertools.islice(file, SAMPLE_ROWS + 1))[:LARGEST_SAMPLE]
    if len(head) < path.stat().st_size:
        while head.count(b'"') % 2 and b"\n" in head[:-1]:
            head = head[: head.rindex(b"\n", 0, -1) + 1]
    return head


def _find_missing_texts(head: bytes, options: dict[str, Any]) -> list[str]:
    """Return which of `MISSING_TEXTS` are in the first rows; each that polars has to look for takes it time.

    An empty text needs none of it: as a number it is missing anyway, and `_tidy` looks for it among texts.
    """
    import polars as pl

    sample = pl.read_csv(head, infer_schema=False, **options)
    found = {text for column in sample for text in column.filter(column.is_in(MISSING_TEXTS)).unique()}
    return sorted(found - {""})


def _scan(path: Path, types: dict[str, pl.DataType], options: dict[str, Any]) -> pl.DataFrame:
    """Read the whole file with the types of its first rows, or, where later rows contradict them, those of all rows."""
    import polars as pl

    try:
        return pl.scan_csv(path, schema_overrides=types, **options).collect(engine="streaming")
    except pl.exceptions.ComputeError as error:
        if "could not parse" not in str(error):
            raise
    texts = {name: dtype for name, dtype in types.items() if dtype == pl.String}
    options = {**options, "null_values": list(MISSING_TEXTS), "infer_schema_length": None}
    return pl.scan_csv(path, schema_overrides=texts, **options).collect(engine="streaming")


def _choose_type(sample: pl.Series, exact: bool, text: bool) -> pl.DataType:
    """Return the type to read a column with: the smallest that keeps what matters of it."""
    import polars as pl

    if text or sample.null_count() == len(sample):
        return pl.String()  # `_tidy` looks at what the other rows hold
    if sample.dtype == pl.Float64:
        return pl.Float64() if exact else pl.Float32()
    if sample.dtype != pl.String:
        return sample.dtype
    values = sample.drop_nulls()
    repeated = values.n_unique() <= len(values) / 2 and len(sample) >= SAMPLE_ROWS and not _is_untidy(values)
    return pl.Categorical() if repeated else pl.String()  # categories take 4 bytes a row, texts 16 and more


def find_separator(path: Path) -> str:
    """Return the separator of a CSV file: that of `SEPARATORS` which its first line has most often."""
    with path.open("rb") as file:
        header = file.readline(1_000_000).decode("utf-8", "replace")
    return max(SEPARATORS, key=header.count)


def _read_names(path: Path, separator: str) -> list[str]:
    """Return the names of the columns.

    Raises:
        DataError: there are none, one stands there twice, or the first line holds values instead.
    """
    names = next(_rows(path, separator), [])
    if not any(names):
        raise DataError(f"{path}: is empty; it must have a line of column names and at least one row")
    for position, name in enumerate(names, 1):
        if re.fullmatch(r"[+-]?\d+[.,]\d+", name.strip()):
            raise DataError(
                f"{path}: its first line holds the value {name} where the name of column {position} should stand; "
                "put a line of column names above the rows"
            )
        if "\0" in name or "\ufffd" in name:
            raise _encoding_error(path, separator)
    return clean_names(names, f"{path}, the line of column names")


def clean_names(names: Sequence[str], where: str) -> list[str]:
    """Return names of columns without line breaks and outer spaces; those without a name are called `column_1`.

    Raises:
        DataError: one stands there twice.
    """
    cleaned = [" ".join(name.split()) or f"column_{position}" for position, name in enumerate(names, 1)]
    for name in cleaned:
        if cleaned.count(name) > 1:
            raise DataError(f"{where}: two columns are called '{name}'; give each column a name of its own")
    return cleaned


def _rows(path: Path, separator: str) -> Iterator[list[str]]:
    """Yield the rows one by one, as Python reads them; slow, for the header and for what is wrong."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        rows = csv.reader(file, delimiter=separator)
        try:
            yield from (row for row in rows if row)
        except csv.Error as error:
            raise DataError(
                f"{path}, row {max(0, rows.line_num - 1)}: cannot be read as text with columns; correct it"
            ) from error


def _explain(path: Path, separator: str, error: Exception) -> DataError:
    """Return a located error for what polars says of the file as a whole."""
    text = str(error)
    if "utf-8" in text.lower():
        return _encoding_error(path, separator)
    rows = _rows(path, separator)
    names = next(rows)
    width = len(names)
    for number, row in enumerate(rows, 1):
        if len(row) > width:
            long = next((value for value in row if "\n" in value and len(value) > 1000), None)
            if long is None:
                columns = f"there {'is' if width == 1 else 'are'} {quantity(width, 'column')}"
                advice = "put texts that hold the separator in quotation marks"
                if number == 1 and len(next(rows, ())) > width:
                    advice = f"the first line must hold their names, and is {shorten(separator.join(names), 60)}"
                return DataError(f"{path}, row {number}: has {len(row)} values, but {columns}; {advice}")
    if '"' in text or "quote" in text.lower():
        return DataError(f"{path}: has a quotation mark that is not closed; close it, or remove it")
    return DataError(f"{path}: cannot be read as text with columns ({shorten(first_line(error), 200, quote=False)})")


def _encoding_error(path: Path, separator: str) -> DataError:
    """Return the error of a file that is not UTF-8, with the first row that is not; row 0 is the column names."""
    rows = enumerate(_rows(path, separator))
    row = next((number for number, values in rows if any("\ufffd" in value for value in values)), 0)
    place = f"row {row}" if row else "the line of column names"
    return DataError(f"{path}, {place}: is not written in UTF-8; save the file again with that encoding")


def _check_short_rows(path: Path, separator: str, frame: pl.DataFrame) -> None:
    """Check rows that polars fills up with missing values.

    Raises:
        DataError: a row of the first `MOST_CHECKED` has fewer values than there are columns.
    """
    last = frame[frame.columns[-1]]
    if frame.width == 1 or last.head(MOST_CHECKED).null_count() == 0:
        return
    for number, row in enumerate(itertools.islice(_rows(path, separator), 1, MOST_CHECKED), 1):
        if len(row) < frame.width:
            raise DataError(
                f"{path}, row {number}: has {quantity(len(row), 'value')}, but there are {frame.width} columns; "
                "write the separators of missing values too"
            )


def _is_untidy(values: pl.Series) -> bool:
    """Return whether some texts begin or end with a space."""
    return bool(values.str.contains(r"^\s|\s$").any())


def _tidy(frame: pl.DataFrame, texts: Collection[str]) -> pl.DataFrame:
    """Strip texts of the spaces around them, and make numbers of those that were in quotation marks or had spaces."""
    import polars as pl

    columns = [name for name, dtype in frame.schema.items() if dtype in (pl.String, pl.Categorical)]
    return frame.with_columns(_tidy_column(frame[name], name in texts) for name in columns)


def _tidy_column(values: pl.Series, text: bool) -> pl.Series:
    import polars as pl

    sample = values.drop_nulls().head(SAMPLE_ROWS).cast(pl.String)
    if values.dtype == pl.String and _is_untidy(sample):
        values, sample = values.str.strip_chars(), sample.str.strip_chars()
    if values.dtype == pl.String or set(count_categories(values)[2]) & set(MISSING_TEXTS):
        values = values.set(values.is_in(MISSING_TEXTS), None)
    return values if text or not _are_numbers(sample) else to_numbers(values)


def to_numbers(values: pl.Series) -> pl.Series:
    """Return texts as whole or real numbers where all of them are; otherwise as they are."""
    import polars as pl

    for dtype in (pl.Int64, pl.Float64):
        numbers = values.cast(pl.String).cast(dtype, strict=False)
        if numbers.null_count() == values.null_count():
            return numbers
    return values


def _are_numbers(texts: pl.Series) -> bool:
    import polars as pl

    texts = texts.filter(~texts.is_in(MISSING_TEXTS))
    return len(texts) > 0 and texts.cast(pl.Float64, strict=False).null_count() == 0
