"""Files of tables: CSV, TSV, Parquet, Feather or Arrow, and JSON lines, read by polars.

polars reads all of them with one package that needs no other, and on all cores; pyarrow alone could neither tell the
dates of a CSV file nor compute with the columns it has read, and pandas needs pyarrow for Parquet.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hpo.datasets.text_table import clean_names, read_text_table
from hpo.errors import DataError
from hpo.utils.memory import free_memory
from hpo.utils.text import first_line, shorten

if TYPE_CHECKING:
    import polars as pl

__all__ = ["TABLE_SUFFIXES", "is_table", "read_table"]

TEXT_SUFFIXES = (".csv", ".tsv", ".tab")
ARROW_SUFFIXES = (".feather", ".arrow", ".ipc")
JSON_SUFFIXES = (".jsonl", ".ndjson")
TABLE_SUFFIXES = (*TEXT_SUFFIXES, ".parquet", ".pq", *ARROW_SUFFIXES, *JSON_SUFFIXES)
# Bytes of memory for each byte of a file, at the most, while it is read. The size of a Parquet file says nothing.
PARQUET = b"PAR1"  # how Parquet files begin and end
MEMORY_OF_TEXT = 1.5
MEMORY_OF_JSON = 4


def is_table(path: Path | str) -> bool:
    """Return whether a file is a table, by its name."""
    return Path(path).suffix.lower() in TABLE_SUFFIXES


def read_table(path: Path, exact: Collection[str] = (), texts: Collection[str] = ()) -> pl.DataFrame:
    """Read a table.

    Args:
        path: of a file with one of `TABLE_SUFFIXES`.
        exact: columns of a text file whose numbers are kept as float64; the others are read as float32, the type that
            models see, which halves the memory.
        texts: columns of a text file that are texts, whatever they look like, because they were so in training.

    Returns:
        The rows (N) and columns of the file, each with the type that all its values have.

    Raises:
        DataError: the file is missing, empty, damaged or larger than the free memory, or has rows of several lengths or
            two columns of one name.
    """
    if not path.is_file():
        raise DataError(f"{path}: {'is a folder' if path.is_dir() else 'not found'}; name a file that holds a table")
    if not is_table(path):
        raise DataError(f"{path}: is no table; name a file of one of the kinds {', '.join(TABLE_SUFFIXES)}")
    with _one_line(path):
        if path.suffix.lower() in TEXT_SUFFIXES:
            _check_memory(path, path.stat().st_size * MEMORY_OF_TEXT)
            frame = read_text_table(path, exact, texts)
        else:
            frame = _unwrap_extensions(_read_binary(path))
            frame.columns = clean_names(frame.columns, str(path))
    if frame.width == 0 or frame.height == 0:
        raise DataError(f"{path}: holds no rows; it must have columns with names and at least one row")
    return frame


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """Turn any error into a DataError, for a damaged file can make polars raise anything."""
    import polars as pl

    try:
        yield
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or first_line(error)})") from error
    except (Exception, pl.exceptions.PanicException) as error:  # a panic of Rust's is no Exception
        kind = path.suffix.lower().lstrip(".")
        reason = shorten(first_line(error), 200, quote=False)
        raise DataError(f"{path}: cannot be read as {kind} ({reason}); write it again") from error


def _read_binary(path: Path) -> pl.DataFrame:
    import polars as pl

    suffix = path.suffix.lower()
    if suffix in JSON_SUFFIXES:
        return _read_json(path)
    if suffix in ARROW_SUFFIXES:
        return _read_arrow(path)
    _check_ends(path)
    schema = pl.read_parquet_schema(path)
    rows = pl.scan_parquet(path).select(pl.len()).collect().item()
    _check_memory(path, rows * sum(_count_bytes(dtype) for dtype in schema.values()))
    return pl.read_parquet(path)


def _unwrap_extensions(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a table whose columns of extension types, such as pandas' periods, have the types that they are stored as.

    A period is then its number, and an interval a structure.
    """
    import polars as pl

    extension = getattr(pl, "BaseExtension", ())  # which earlier versions read as they are stored
    return frame.with_columns(values.ext.storage() for values in frame if isinstance(values.dtype, extension))


def _check_ends(path: Path) -> None:
    """Refuse a file that does not begin and end as Parquet does."""
    with path.open("rb") as file:
        start = file.read(4)
        file.seek(-min(4, path.stat().st_size), 2)
        end = file.read(4)
    if start != PARQUET:
        raise DataError(f"{path}: is no Parquet file, whatever its name says; give it the suffix of what it is")
    if end != PARQUET:
        raise DataError(f"{path}: is a Parquet file that is cut off; write it again")


def _count_bytes(dtype: pl.DataType) -> int:
    """Return the bytes that a value takes, at least."""
    return 4 if str(dtype) in ("Float32", "Int32", "Date") else 1 if str(dtype) in ("Boolean", "Int8", "UInt8") else 8


def _read_arrow(path: Path) -> pl.DataFrame:
    import polars as pl

    with path.open("rb") as file:
        stream = file.read(6) != b"ARROW1"  # the start of the file format; Arrow's other format is the stream
    return pl.read_ipc_stream(path) if stream else pl.read_ipc(path)


def _read_json(path: Path) -> pl.DataFrame:
    import json

    import polars as pl

    size = path.stat().st_size
    if size == 0:
        raise DataError(f"{path}: is empty; each line must be an object of columns and values")
    _check_memory(path, size * MEMORY_OF_JSON)
    try:
        return pl.read_ndjson(path, infer_schema_length=None)
    except pl.exceptions.PolarsError as error:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    row = json.loads(line or b"{}") if line.strip() else {}
                except ValueError as problem:
                    at = f", character {problem.colno}" if isinstance(problem, json.JSONDecodeError) else ""
                    raise DataError(f"{path}, row {number}{at}: is no JSON; correct it") from error
                if not isinstance(row, dict):
                    raise DataError(
                        f"{path}, row {number}: holds {shorten(row, 40)}; each line must be an object of columns and "
                        'values, such as {"age": 3}'
                    ) from error
        raise


def _check_memory(path: Path, needed: float) -> None:
    free = free_memory()
    if needed > free:
        raise DataError(
            f"{path}: takes about {needed / 1e9:,.1f} GB of memory to read, but {free / 1e9:,.1f} GB are free; "
            "keep the columns and rows that matter, or save it as Parquet with float32 columns"
        )
