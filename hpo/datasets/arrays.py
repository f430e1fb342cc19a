"""Data sets in files of arrays: .npz, .npy side by side, safetensors, torch's of tensors alone.

Arrays are called as `hpo.datasets.array_names` tells: x and y, or x_train, y_train, x_test and so on.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hpo.datasets.array_files import NamedArrays, array_paths, is_array_file, open_arrays
from hpo.datasets.array_names import ArrayRoles, find_family, find_roles
from hpo.datasets.dataset import Dataset, Split
from hpo.datasets.file_digest import digest_file
from hpo.datasets.parts import check_fraction, complete_dataset
from hpo.datasets.roles import Roles
from hpo.datasets.source import DatasetSource
from hpo.errors import DataError
from hpo.utils.files import absolute_path
from hpo.utils.text import shorten

__all__ = ["can_read", "digest", "read_source"]

Array = np.ndarray[Any, Any]


def can_read(path: Path) -> bool:
    """Return whether a path is a file, or a folder of files, of arrays."""
    return is_array_file(path)


def digest(path: Path) -> dict[str, str]:
    """Return the SHA-256 of each file that a path stands for, in hex digits, by file name.

    Raises:
        DataError: a file cannot be read.
    """
    return {each.name: digest_file(each) for each in _files(path)}


def read_source(path: Path, source: DatasetSource) -> Dataset:
    """Read the training data of a file of arrays; test data are read when `test` is called.

    Where there are no test data, some of the training samples are held out.

    Args:
        path: of the file, or of a folder of .npy files; of one .npy file, those beside it belong to it.
        source: the names of the labels, and where the parts are.

    Raises:
        DataError: the file is damaged, or its arrays cannot be used.
    """
    where = str(path)
    with _open(path) as arrays:
        roles = find_roles(arrays.names, source, where)
        if "train" not in roles:
            raise DataError(
                f"{where}: has no training data, but {' and '.join(roles)} data; call them x_train, y_train"
            )
        train = roles["train"]
        x, y = _read_part(arrays, train, f"{where}, train")
        shape = x.shape[1:]
        used = _read_roles(arrays, train, len(x), where)
        validation = _read_validation(arrays, roles, shape, path, source)
    dataset = Dataset(
        train=(x, y),
        test=_find_test(path, roles, shape, source),
        validation=validation,
        output_names=train.y if len(train.y) > 1 else (),
        rows={"train": np.arange(1, len(x) + 1)},
        groups=used.groups,
        times=used.times,
        weights=used.weights,
    )
    return complete_dataset(dataset, source, where, _tell_left(roles))


def _tell_left(roles: dict[str, ArrayRoles]) -> list[str]:
    """Return which arrays are not read, for splits go by groups or times only if these are named."""
    left = sorted(name for part in roles.values() for name in part.left)
    names = shorten(", ".join(left), 120, quote=False)
    how = "name those that say something of each sample, as group = …, time = … or weight = …"
    return [f"arrays left out: {names}; {how}"] if left else []


def _files(path: Path) -> list[Path]:
    """Return the files that a path stands for: with a .npy file, those beside it whose names go with its own."""
    if path.suffix.lower() != ".npy" or path.is_dir():
        return array_paths(path)
    family = find_family(path.stem)
    return [each for each in array_paths(path.parent) if find_family(each.stem) == family] or [path]


def _open(path: Path) -> Any:
    files = _files(path)
    if path.suffix.lower() != ".npy" or path.is_dir():
        return open_arrays(path)
    return open_arrays(path.parent, [each.stem for each in files])


def _read_part(arrays: NamedArrays, roles: ArrayRoles, where: str, shape: tuple[int, ...] | None = None) -> Split:
    x, *columns = (arrays.read(name) for name in (roles.x, *roles.y))
    for name, array in zip((roles.x, *roles.y), (x, *columns), strict=True):
        if array.ndim == 0:
            raise DataError(f"{where}: {name} is a single value; it must be an array with a row for each sample")
    if shape is not None and x.shape[1:] != shape:
        raise DataError(f"{where}: samples of shape {x.shape[1:]}, not {shape} as in train; make them equal")
    return x, columns[0] if len(columns) == 1 else _stack(columns, roles.y, where)


def _stack(columns: list[Array], names: tuple[str, ...], where: str) -> Array:
    flat = [column[:, 0] if column.ndim == 2 and column.shape[1] == 1 else column for column in columns]
    for name, column in zip(names, flat, strict=True):
        if column.shape != flat[0].shape or column.ndim != 1:
            raise DataError(f"{where}: {name} has shape {column.shape}; several labels must be (N,) each")
    return np.stack(flat, 1)


def _read_roles(arrays: NamedArrays, roles: ArrayRoles, count: int, where: str) -> Roles:
    """Read the arrays of groups, times and weights."""
    import polars as pl

    columns: dict[str, Array] = {}
    for name in (roles.group, roles.time, roles.weight):
        if name is None:
            continue
        column = arrays.read(name)
        if column.shape != (count,):
            raise DataError(f"{where}: {name} has shape {column.shape}; it must be ({count},), a value for each sample")
        columns[name] = column.astype("datetime64[us]") if column.dtype.kind == "M" else column
    source = DatasetSource(group=roles.group, time=roles.time, weight=roles.weight)
    return Roles.read(pl.DataFrame(columns), source, where, np.arange(1, count + 1))


def _read_validation(
    arrays: NamedArrays, roles: dict[str, ArrayRoles], shape: tuple[int, ...], path: Path, source: DatasetSource
) -> Split | None:
    if isinstance(source.validation, str):
        return _read_other(path, source.validation, "validation", shape, source)
    if "validation" not in roles:
        return None
    return _read_part(arrays, roles["validation"], f"{path}, validation", shape)


def _find_test(
    path: Path, roles: dict[str, ArrayRoles], shape: tuple[int, ...], source: DatasetSource
) -> Callable[[], Split] | None:
    """Return a function that reads the test data, or None if there are none."""
    if isinstance(source.test, str):
        other = source.test
        return lambda: _read_other(path, other, "test", shape, source)
    check_fraction(source, str(path), has_test="test" in roles)
    if "test" not in roles:
        return None

    def test() -> Split:
        with _open(path) as arrays:
            return _read_part(arrays, roles["test"], f"{path}, test", shape)

    return test


def _read_other(path: Path, name: str, part: str, shape: tuple[int, ...], source: DatasetSource) -> Split:
    """Read a part from a file of its own, whose arrays may be called as that part, or as none."""
    other = absolute_path(path.parent / Path(name).expanduser())
    with _open(other) as arrays:
        roles = find_roles(arrays.names, source, str(other))
        held = roles.get(part) or roles.get("train") or next(iter(roles.values()))
        return _read_part(arrays, held, f"{other}, {part}", shape)
