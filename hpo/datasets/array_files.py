"""Files of named arrays, all read alike: .npz, .npy side by side, safetensors, and torch's of tensors alone.

None of them runs code as it is read: arrays of objects and pickled Python are refused.
"""

from __future__ import annotations

import importlib
import pickle
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpo.errors import DataError
from hpo.utils.arrays import open_npz, read_npy
from hpo.utils.text import first_line, quantity, shorten

__all__ = ["SUFFIXES", "NamedArrays", "array_paths", "is_array_file", "open_arrays"]

Array = np.ndarray[Any, Any]
TORCH = (".pt", ".pth")
SUFFIXES = (".npz", ".npy", ".safetensors", *TORCH)
PAIRS = {2: ("x", "y"), 4: ("x_train", "y_train", "x_test", "y_test")}
SAVE_TENSORS = "save tensors alone: torch.save({'x': x, 'y': y}, path)"
MAX_CHANNELS = 4


@dataclass(frozen=True)
class NamedArrays:
    """Arrays of a file, which are read one by one.

    Attributes:
        names: of the arrays.
        read: returns the array of a name; images have their channels last.
    """

    names: tuple[str, ...]
    read: Callable[[str], Array]


def is_array_file(path: Path) -> bool:
    """Return whether a path is a file of arrays, or a folder that has .npy files and none of images or tables."""
    if path.suffix.lower() in SUFFIXES:
        return True
    return path.is_dir() and bool(array_paths(path))


def array_paths(path: Path) -> list[Path]:
    """Return the files of arrays that a path stands for: itself, or the .npy files of a folder."""
    try:
        return sorted(path.glob("*.npy")) if path.is_dir() else [path]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); correct its permissions") from error


@contextmanager
def open_arrays(path: Path, stems: Sequence[str] | None = None) -> Iterator[NamedArrays]:
    """Open a file of arrays, or a folder of .npy files, of which `stems` chooses some.

    Raises:
        DataError: it cannot be read, is damaged, or holds other things than numbers.
    """
    suffix = path.suffix.lower()
    if path.is_dir():
        files = {each.stem: each for each in array_paths(path) if stems is None or each.stem in stems}
        yield NamedArrays(tuple(files), lambda name: read_npy(files[name]))
    elif suffix == ".npz":
        with open_npz(path) as archive:
            yield NamedArrays(tuple(sorted(archive.names)), archive.read)
    elif suffix == ".safetensors":
        with _open_safetensors(path) as arrays:
            yield arrays
    else:
        tensors = _read_tensors(path)
        yield NamedArrays(tuple(tensors), lambda name: _to_array(tensors[name], path, name))


@contextmanager
def _open_safetensors(path: Path) -> Iterator[NamedArrays]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:

            def read(name: str) -> Array:
                try:
                    return _channels_last(file.get_tensor(name))
                except (SafetensorError, TypeError, KeyError, AttributeError) as error:
                    raise DataError(
                        f"{path}: {name} cannot be read as a NumPy array ({first_line(error)}); save it as float32"
                    ) from error

            yield NamedArrays(tuple(sorted(file.keys())), read)
    except SafetensorError as error:
        raise DataError(f"{path}: is no complete safetensors file ({first_line(error)}); save it again") from error
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror or error}); check its path and permissions"
        ) from error


def _channels_last(array: Array) -> Array:
    """Return images as NumPy has them: of tensors, channels are first, unless only the last size can be theirs."""
    first = array.ndim == 4 and array.shape[1] <= MAX_CHANNELS
    return array.transpose(0, 2, 3, 1) if first else array


# ---- torch's files


def _read_tensors(path: Path) -> dict[str, Any]:
    """Return the tensors of a file by name; of one inside another as `train_x`.

    Raises:
        DataError: it is damaged, not in the format of torch 1.6 and later, or holds other things than tensors.
    """
    torch: Any = importlib.import_module("torch")  # by name: only who has such a file pays for the import
    try:
        with path.open("rb") as file, warnings.catch_warnings(action="ignore"):  # torch's, of odd pickle protocols
            _check_archive(path, file)
            content = torch.load(file, map_location="cpu", weights_only=True)
    except DataError:
        raise
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{path}: holds pickled Python, which could run any code, and is not read; {SAVE_TENSORS}"
        ) from error
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror or error}); check its path and permissions"
        ) from error
    except Exception as error:  # a damaged file can make torch raise anything
        raise DataError(f"{path}: is damaged ({shorten(first_line(error), quote=False)}); save it again") from error
    return dict(_flatten(content, path, torch.Tensor))


def _check_archive(path: Path, file: Any) -> None:
    """Check that a file is an archive as torch writes it, in which each part has the sum that it should."""
    if not zipfile.is_zipfile(file):
        raise DataError(f"{path}: is not in the format of torch 1.6 and later; {SAVE_TENSORS}")
    file.seek(0)
    with zipfile.ZipFile(file) as archive:
        if any(each.compress_type != zipfile.ZIP_STORED for each in archive.infolist()):  # it could unpack to any size
            raise DataError(f"{path}: is compressed, which torch's files are not; {SAVE_TENSORS}")
        damaged = archive.testzip()
    if damaged is not None:
        raise DataError(f"{path}: is damaged (the sum of its part {shorten(damaged)} is wrong); save it again")
    file.seek(0)


def _flatten(content: Any, path: Path, kind: type, lead: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(content, kind):
        if not lead:
            raise DataError(f"{path}: holds a single tensor; {SAVE_TENSORS}")
        yield lead, content
    elif isinstance(content, Mapping):
        for name, value in content.items():
            yield from _flatten(value, path, kind, f"{lead}_{name}" if lead else str(name))
    elif isinstance(content, Sequence) and not isinstance(content, str) and len(content) in PAIRS:
        yield from _flatten(dict(zip(PAIRS[len(content)], content, strict=True)), path, kind, lead)
    else:
        of = f" of {quantity(len(content), 'value')}" if isinstance(content, list | tuple) else ""
        what = f"{shorten(lead)} is" if lead else "holds"
        raise DataError(f"{path}: {what} {type(content).__name__}{of}, where tensors are needed; {SAVE_TENSORS}")


def _to_array(tensor: Any, path: Path, name: str) -> Array:
    try:
        plain = tensor.detach()
        return _channels_last((plain.float() if str(plain.dtype) == "torch.bfloat16" else plain).numpy())
    except (TypeError, RuntimeError) as error:  # sparse, quantized
        raise DataError(f"{path}: {name} is no plain tensor ({first_line(error)}); {SAVE_TENSORS}") from error
