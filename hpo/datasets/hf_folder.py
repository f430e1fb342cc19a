"""Data sets of Hugging Face that `save_to_disk` has written into a folder: images, arrays, or the columns of a
table.
"""

from __future__ import annotations

import hashlib
import importlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from hpo.datasets.array_names import LABEL_NAMES, SAMPLE_NAMES
from hpo.datasets.dataset import Dataset, Split
from hpo.datasets.folder_state import digest_folder, read_state
from hpo.datasets.image_cache import open_images
from hpo.datasets.part_names import PARTS
from hpo.datasets.parts import check_fraction, complete_dataset
from hpo.datasets.roles import Roles
from hpo.datasets.source import DatasetSource
from hpo.errors import DataError, find_closest
from hpo.utils.text import first_line, shorten

__all__ = ["can_read", "digest", "read_source", "read_training_frame"]

Array = np.ndarray[Any, Any]


def can_read(path: Path) -> bool:
    """Return whether a folder was written by `save_to_disk`."""
    return (path / "dataset_dict.json").is_file() or (
        (path / "state.json").is_file() and (path / "dataset_info.json").is_file()
    )


def digest(path: Path) -> dict[str, str]:
    """Return the SHA-256 over names and contents of the folder's files, by the folder's name.

    A folder in which no file has changed since is not read again.

    Raises:
        DataError: a file cannot be read.
    """
    return {path.name: digest_folder(read_state(path, _belongs))}


def read_source(path: Path, source: DatasetSource) -> Dataset:
    """Read a saved data set: images are uint8 and memory-mapped, (N, H, W) or (N, H, W, 3); arrays are (N, …).

    Where it has neither, its columns are those of a table. Where it has no test part, some training samples are held
    out.

    Args:
        path: of the folder.
        source: the columns of labels, and those that are dropped; groups, times and weights.

    Raises:
        DataError: the package `datasets` is not installed, the folder is damaged, or its columns cannot be used.
    """
    parts = _load(path)
    for key in ("test", "validation"):
        if isinstance(getattr(source, key), str):
            raise DataError(
                f"{path}: {key} = {getattr(source, key)!r}; save the part in the folder, with a DatasetDict"
            )
    train = parts["train"]
    labels = _find_labels(path, train, source)
    hidden = [part for part in ("test", "validation") if part in parts and _hides_labels(parts[part], labels)]
    parts = {part: rows for part, rows in parts.items() if part not in hidden}
    notes = [f"{part} part left out: none of its rows has a label" for part in hidden]
    check_fraction(source, str(path), has_test="test" in parts)
    used = {*labels, *source.drop, *(name for name in (source.group, source.time, source.weight) if name)}
    for name in sorted(used):
        _check_column(path, name, train.column_names)
    free = [name for name in train.column_names if name not in used]
    image, array = _find_samples(path, train, free)
    if image is None and array is None:
        table = _read_table(path, parts, labels, source)
        return replace(table, notes=(*notes, *table.notes))
    for part, rows in parts.items():
        _check_column(f"{path}, {part}", str(image or array), rows.column_names)
    left = [name for name in free if name not in (image, array)]
    notes += [f"columns left out: {', '.join(left)}"] if left else []
    if image is not None:
        x, kept, told = _read_images(path, parts, image, source)
        notes += told
    else:
        assert array is not None
        x = {part: _read_array(path, rows, array) for part, rows in parts.items()}
        kept = {part: np.arange(len(rows)) for part, rows in parts.items()}
    return _make_dataset(path, parts, x, kept, labels, source, notes)


def read_training_frame(path: Path) -> Any:
    """Return the training rows of a data set of numbers, texts and dates as a table of polars.

    Raises:
        DataError: see `read_source`.
    """
    return _make_frame(_load(path)["train"])


def _load(path: Path) -> dict[str, Any]:
    """Return the parts of a saved data set, `train` among them."""
    try:
        datasets: Any = importlib.import_module("datasets")  # by name: it takes a second to import
    except ImportError as error:
        raise DataError(f"{path}: needs the package datasets; pip install 'torch-hpo[datasets]'") from error
    try:
        loaded = datasets.load_from_disk(str(path))
    except Exception as error:  # a damaged folder can make its reader raise anything
        reason = shorten(first_line(error), 200, quote=False)
        raise DataError(f"{path}: is no complete data set of save_to_disk ({reason}); save it again") from error
    if not isinstance(loaded, Mapping):
        return {"train": loaded}
    named = {PARTS[name.lower()]: part for name, part in loaded.items() if name.lower() in PARTS}
    if "train" not in named:
        raise DataError(
            f"{path}: has no split 'train', but {', '.join(map(repr, loaded))}; rename one, and save it again"
        )
    return named


def _belongs(name: str) -> bool:
    return name.endswith((".arrow", ".json"))


def _check_column(where: Path | str, name: str, columns: Sequence[str]) -> None:
    if name not in columns:
        near = find_closest(name, columns)
        hint = f"did you mean '{near}'?" if near else f"its columns are: {shorten(', '.join(columns), quote=False)}"
        raise DataError(f"{where}: has no column {shorten(name)}; {hint}")


def _find_labels(path: Path, rows: Any, source: DatasetSource) -> tuple[str, ...]:
    if source.label:
        return source.label
    classes = [name for name, feature in rows.features.items() if type(feature).__name__ == "ClassLabel"]
    named = [name for name in rows.column_names if name.lower() in LABEL_NAMES]
    for found in (classes, named):
        if len(found) == 1:
            return (found[0],)
    which = shorten(", ".join(classes or named or rows.column_names), quote=False)
    raise DataError(f"{path}: is not clear about what is predicted; say which of {which} it is: label = …")


def _hides_labels(rows: Any, labels: Sequence[str]) -> bool:
    """Return whether no row has a label, as in test parts that are published without: no column, or nothing in it."""
    for name in labels:
        unknown = _unknown_labels(rows, name)
        if name not in rows.column_names or all(value in unknown for value in rows.data.column(name).to_pylist()):
            return True
    return False


def _unknown_labels(rows: Any, name: str) -> tuple[int | None, ...]:
    """Return the values of a column that stand for no label; of classes it is -1, too."""
    return (None, -1) if type(rows.features.get(name)).__name__ == "ClassLabel" else (None,)


def _find_samples(path: Path, rows: Any, free: Sequence[str]) -> tuple[str | None, str | None]:
    """Return the column of images, or the column of arrays; neither for a table."""
    kinds = {name: type(rows.features[name]).__name__ for name in free}
    images = [name for name, kind in kinds.items() if kind == "Image"]
    arrays = [name for name, kind in kinds.items() if kind.startswith("Array") or kind in ("List", "Sequence", "list")]
    for found in (images, arrays):
        named = found if len(found) == 1 else [name for name in found if name.lower() in SAMPLE_NAMES]
        if found and len(named) != 1:
            raise DataError(f"{path}: columns {', '.join(found)} may be the samples; leave out the others: drop = […]")
        if named:
            return (named[0], None) if found is images else (None, named[0])
    return None, None


# ---- samples


def _read_images(
    path: Path, parts: Mapping[str, Any], column: str, source: DatasetSource
) -> tuple[dict[str, Array], dict[str, Array], list[str]]:
    """Return the images by part, which of its rows they are, and what is to be told."""
    own = hashlib.sha256(column.encode(errors="surrogatepass")).hexdigest()[:8]  # another column has other images
    names = {part: [f"{part}-{row:08d}-{own}.image" for row in range(len(rows))] for part, rows in parts.items()}
    every = [name for part in names.values() for name in part]
    unpack = partial(_write_images, path, parts, column, names)
    images = open_images([read_state(path, _belongs)], every, source.resize, unpack)
    x, kept, first = {}, {}, 0
    for part, listed in names.items():
        good = np.array([name not in images.faults for name in listed], bool)
        kept[part] = np.flatnonzero(good)
        x[part] = images.x[first : first + len(kept[part])]
        first += len(kept[part])
    return x, kept, list(images.notes)


def _write_images(
    path: Path, parts: Mapping[str, Any], column: str, names: Mapping[str, Sequence[str]], folder: Path
) -> None:
    """Write the images of a column into a folder, each as it is kept: encoded."""
    datasets: Any = importlib.import_module("datasets")
    folder.mkdir()
    for part, rows in parts.items():
        encoded = rows.select_columns([column]).cast_column(column, datasets.Image(decode=False))
        for name, row in zip(names[part], encoded, strict=True):
            value = row[column] or {}
            (folder / name).write_bytes(value.get("bytes") or _read_file(path, value.get("path")))


def _read_file(path: Path, name: str | None) -> bytes:
    """Return the content of an image that is kept as the name of a file; of none, nothing, which is no image."""
    try:
        return b"" if name is None else Path(os.path.join(path, name)).read_bytes()  # noqa: PTH118
    except OSError as error:
        raise DataError(
            f"{path}: its image {shorten(name)} cannot be read ({error.strerror}); save it again"
        ) from error


def _read_array(path: Path, rows: Any, column: str) -> Array:
    values = rows.select_columns([column]).with_format("numpy")[:][column]
    array = np.asarray(values)
    if array.dtype.kind not in "buif":
        raise DataError(f"{path}: column {column!r} holds arrays of different lengths, or no numbers; make them alike")
    return array.astype(np.float32) if array.dtype == np.float64 else array


# ---- labels, and the whole


def _make_dataset(
    path: Path,
    parts: Mapping[str, Any],
    x: Mapping[str, Array],
    kept: Mapping[str, Array],
    labels: tuple[str, ...],
    source: DatasetSource,
    notes: Sequence[str],
) -> Dataset:
    def read(part: str) -> Split:
        return x[part], _read_labels(path, parts[part], labels)[kept[part]]

    roles = _read_roles(parts["train"], source, kept["train"], path)
    feature = parts["train"].features[labels[0]]
    names = tuple(getattr(feature, "names", None) or ()) if len(labels) == 1 else labels
    dataset = Dataset(
        train=read("train"),
        test=(lambda: read("test")) if "test" in parts else None,
        validation=read("validation") if "validation" in parts else None,
        output_names=names,
        groups=roles.groups,
        times=roles.times,
        weights=roles.weights,
        rows={part: index + 1 for part, index in kept.items()},
    )
    return complete_dataset(dataset, source, str(path), notes)


def _read_labels(path: Path, rows: Any, labels: tuple[str, ...]) -> Array:
    columns = [_read_column(path, rows, name) for name in labels]
    return columns[0] if len(columns) == 1 else np.stack(columns, 1)


def _read_column(path: Path, rows: Any, name: str) -> Array:
    values, unknown = rows.data.column(name).to_pylist(), _unknown_labels(rows, name)
    missing = next((row for row, value in enumerate(values, 1) if value in unknown), None)
    if missing is not None:
        what = "is empty" if values[missing - 1] is None else "has no class (-1)"
        raise DataError(f"{path}: column {name!r} {what} in row {missing}; leave such rows out, and save it again")
    try:
        return np.array(values)
    except ValueError as error:
        raise DataError(f"{path}: column {name!r} holds lists of different lengths; make them alike") from error


def _read_roles(rows: Any, source: DatasetSource, kept: Array, path: Path) -> Roles:
    used = sorted({name for name in (source.group, source.time, source.weight) if name is not None})
    frame: Any = _make_frame(rows.select_columns(used))[kept] if used else None  # none of whose columns is read
    return Roles.read(frame, source, str(path), kept + 1)


def _read_table(path: Path, parts: Mapping[str, Any], labels: tuple[str, ...], source: DatasetSource) -> Dataset:
    """Read a data set of numbers, texts and dates as a table."""
    table: Any = importlib.import_module("hpo.datasets.table")
    test = 0.0 if "test" in parts else source.test
    asked = source.model_copy(update={"label": labels, "test": test})
    dataset, schema = table.read_frame(_make_frame(parts["train"]), asked, str(path))

    def read(part: str) -> tuple[Split, Array]:
        made: tuple[Split, Array] = table.read_part(_make_frame(parts[part]), schema, f"{path}, {part}")
        return made

    if "test" in parts:
        dataset = replace(dataset, test=lambda: read("test")[0])
    if "validation" in parts:
        split, rows = read("validation")
        dataset = replace(dataset, validation=split, rows={**dataset.rows, "validation": rows})
    return cast(Dataset, dataset)


def _make_frame(rows: Any) -> Any:
    """Return the rows as a table of polars, in which classes have their names."""
    import polars as pl

    frame = pl.from_arrow(rows.with_format("arrow")[:])
    assert isinstance(frame, pl.DataFrame)
    for name, feature in rows.features.items():
        if type(feature).__name__ == "ClassLabel":
            names = dict(enumerate(feature.names))
            frame = frame.with_columns(pl.col(name).replace_strict(names, default=None, return_dtype=pl.String))
    return frame
