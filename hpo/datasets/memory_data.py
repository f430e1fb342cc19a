"""Data of a Python session: tables and arrays in memory, saved to a file of HPO_HOME that workers read."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np

from hpo.datasets.dataset import Dataset, is_split
from hpo.datasets.map_style import is_torch, make_dataset, read_parts
from hpo.errors import DataError, DefinitionError
from hpo.utils.files import write_atomically
from hpo.utils.home import home, make_folder
from hpo.utils.text import shorten, summarize_error

__all__ = ["name_saved_data", "save_data"]

SAVED = re.compile(r"(table|arrays|samples)-[0-9a-f]{12}\.(?:parquet|npz)")
KINDS = {"table": "the DataFrame", "arrays": "the arrays (X, y)", "samples": "the data set"}
OPTION = " (--label)"  # of the command, in advice for those who have a file


def save_data(data: object) -> object:
    """Return a data set as a study file names it; one in memory is saved, under a name that follows from its content.

    Args:
        data: a pandas or polars DataFrame; a tuple `(X, y)` of arrays, or of a DataFrame and a column or an array; a
            map-style data set of torch's, or a dict or tuple of them, see `hpo.datasets.map_style.make_dataset`;
            anything else is returned as it is: a name, a path, a table of path and options.

    Raises:
        DefinitionError: it cannot be saved.
        DataError: samples of a map-style data set cannot be read, or do not fit in memory.
    """
    if isinstance(data, str | None) or hasattr(data, "sha256"):
        return data
    if isinstance(data, Path):
        return str(data)
    if _holds_samples(data):
        return str(_save_samples(data))
    if isinstance(data, Mapping):
        _check_table(data)
        return data
    if isinstance(data, tuple) and len(data) == 2:
        _check_missing(data[1])
    frame = data[0] if isinstance(data, tuple) and data else data
    if _is_frame(frame):
        _check_names([str(name) for name in cast(Any, frame).columns])
    try:
        if isinstance(data, tuple) and len(data) == 2 and not _is_frame(data[0]):
            return str(_save("arrays", ".npz", lambda file: np.savez(file, X=_to_array(data[0]), y=_to_array(data[1]))))
        if isinstance(data, tuple) and len(data) == 2:
            return _save_with_labels(*data)
        if _is_frame(data):
            return str(_save("table", ".parquet", lambda file: _to_polars(data).write_parquet(file)))
    except Exception as error:  # of pandas, polars or NumPy: objects in a column, arrays of different lengths
        if _is_frame(frame) and (column := _find_unsavable(frame)) is not None:
            raise DefinitionError(
                f"dataset: column '{column}' of the DataFrame holds {_name_types(frame, column)}, where numbers, texts "
                "or dates, of one type, are needed; drop it, or write a column for each of its values"
            ) from error
        raise DefinitionError(f"dataset: {type(data).__name__} cannot be saved: {summarize_error(error)}") from error
    raise DefinitionError(
        f"dataset = {shorten(type(data).__name__)}: give a name, a path, a DataFrame, a tuple (X, y) of "
        "arrays, or a torch.utils.data.Dataset that has its samples by number"
    )


def _holds_samples(data: object) -> bool:
    """Return whether it is a data set of torch's, or a dict or tuple of them."""
    parts = data.values() if isinstance(data, Mapping) else data if isinstance(data, tuple) else [data]
    return any(map(is_torch, parts))


def _save_samples(data: object) -> Path:
    """Read the samples of map-style data sets into arrays, and save these under the names of their parts."""
    try:
        dataset = read_parts(cast(Dataset, make_dataset(data, "dataset")), "dataset")
        test = dataset.test() if callable(dataset.test) else dataset.test
    except DataError as error:
        raise DataError(f"{error}; or register a function that returns it, with @hpo.dataset") from error
    if not is_split(dataset.train):
        raise DataError(
            "dataset: its samples do not fit in memory; register a function that returns hpo.Dataset(train=…, "
            "validation=…, classes=…), with @hpo.dataset"
        )
    arrays: dict[str, Any] = {}
    for name, part in (("train", dataset.train), ("validation", dataset.validation), ("test", test)):
        if part is not None:
            x, y = cast(tuple[Any, Any], part)
            arrays |= {f"x_{name}": _to_array(x), f"y_{name}": _to_array(y)}
    return _save("samples", ".npz", lambda file: np.savez(file, **arrays))


def _is_frame(value: object) -> bool:
    return (hasattr(value, "to_parquet") or hasattr(value, "write_parquet")) and hasattr(value, "columns")


def _check_table(data: Mapping[Any, Any]) -> None:
    """Refuse arrays by name, for a table is one of path and options."""
    held = [name for name, value in data.items() if hasattr(value, "shape") or isinstance(value, tuple)]
    if held and not {"path", "name"} & data.keys():
        raise DefinitionError(
            f"dataset: a dict with arrays ({', '.join(map(str, held))}); give a tuple (X, y), or parts as data sets of "
            "torch's: {'train': TensorDataset(X, y), 'test': …}"
        )


def _check_names(names: Sequence[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DefinitionError(f"dataset: two columns of the DataFrame are called '{twice}'; rename one of them")


def _find_unsavable(frame: Any) -> str | None:
    """Return the first column of a table that cannot be saved."""
    for column in frame.columns:
        try:
            _to_polars(frame[[column]]).write_parquet(io.BytesIO())
        except Exception:  # see `save_data`
            return str(column)
    return None


def _name_types(frame: Any, column: str) -> str:
    """Return the types of the values of a column."""
    names = sorted({type(value).__name__ for value in frame[column] if value is not None})
    return f"values of the {'type' if len(names) == 1 else 'types'} {', '.join(names)}"


@contextmanager
def name_saved_data(path: Path) -> Iterator[None]:
    """Call data that were saved here what they are, in the line of an error: they have no name that the user knows."""
    try:
        yield
    except DataError as error:
        saved = SAVED.fullmatch(path.name)
        if saved is None or path.parent != home() / "datasets":
            raise
        raise DataError(str(error).replace(str(path), KINDS[saved[1]]).replace(OPTION, "")) from error


def _save_with_labels(frame: Any, labels: Any) -> dict[str, object]:
    """Save a table with its labels as columns, and return its path with their names."""
    import polars as pl

    table = _to_polars(frame)
    if _is_frame(labels):
        columns = _to_polars(labels)
    else:
        array = _to_array(labels)
        named = getattr(labels, "name", None)
        names = ["label"] if array.ndim == 1 else [f"label{i}" for i in range(array.shape[1])]
        names = [str(named)] if named else [_find_free_name(name, table.columns) for name in names]
        columns = pl.DataFrame(array, schema=names)
    whole = table.drop(columns.columns, strict=False).hstack(columns)
    path = _save("table", ".parquet", lambda file: whole.write_parquet(file))
    return {"path": str(path), "label": list(columns.columns)}


def _find_free_name(name: str, taken: Collection[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _check_missing(labels: Any) -> None:
    """Refuse labels of which some are missing: as texts they would be a class of their own.

    Raises:
        DefinitionError: says how many.
    """
    if _is_frame(labels) or hasattr(labels, "detach"):
        return
    array = np.asarray(labels)
    if array.dtype.kind != "O":
        return
    missing = sum(map(_is_missing, array.ravel()))
    if missing:
        raise DefinitionError(
            f"dataset: {missing:,} of {array.size:,} labels of y are missing; leave these rows out of X and y, or give "
            "one DataFrame and the label's name, of which they are left out"
        )


def _is_missing(value: Any) -> bool:
    return (
        value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value)
    )


def _to_polars(frame: Any) -> Any:
    import polars as pl

    return frame if isinstance(frame, pl.DataFrame) else pl.from_pandas(frame)


def _to_array(value: Any) -> Any:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value  # which NumPy does not have
        value = value.permute(0, 2, 3, 1) if value.ndim == 4 else value  # images as files of arrays have them
    array = np.asarray(value)
    return array.astype(str) if array.dtype.kind == "O" else array


def _save(stem: str, suffix: str, write: Callable[[io.BytesIO], Any]) -> Path:
    file = io.BytesIO()
    write(file)
    content = file.getvalue()
    name = f"{stem}-{hashlib.sha256(content).hexdigest()[:12]}{suffix}"
    path = make_folder(home() / "datasets") / name
    if not path.exists():
        write_atomically(path, content)
    return path
