"""Data sets' files: found, verified, read. No torch.

Arrays keep the layout of where they come from: a NumPy array has the channels last, as Keras and .npz files have
it; a torch tensor has them first, as torch has it. `hpo.training.data` brings both to torch's.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from hpo.config import registry
from hpo.errors import DataError

__all__ = [
    "Dataset",
    "DatasetReference",
    "DatasetRow",
    "check_split",
    "describe",
    "fashion_mnist",
    "is_path",
    "is_split",
    "load",
    "mnist",
    "none",
    "reference",
]

Split = tuple[Any, Any]
Part = Split | Iterable[Split]
NPZ_KEYS = ("x_train", "y_train", "x_test", "y_test")
MAX_CHANNELS = 4
CHUNK = 4096


@dataclass(frozen=True)
class Dataset:
    """A data set as a function registered with `@hpo.dataset` returns it.

    A part (`train`, `test`, `validation`) is either a tuple `(x, y)` or an iterable of batches `(x, y)`.
    `x` holds uint8 or other real numbers: features (N, F), grey images (N, H, W), or colour images, which are
    (N, H, W, C) in a NumPy array and (N, C, H, W) in a torch tensor. `y` holds the labels: whole numbers from 0,
    shape (N,) or (N, 1).

    An iterable is gone through once per epoch, in its own order and batch sizes; it needs a length (`len()`), and
    `classes` and `validation` must be given with it.

    Attributes:
        train: what trials learn from.
        test: or a function that returns it, so that it is not read until it is asked for.
        validation: when it is given, none is split off the training data.
        classes: when it is not given, the largest training label + 1.
    """

    train: Part
    test: Part | Callable[[], Part] | None = None
    validation: Part | None = None
    classes: int | None = None


class DatasetReference(BaseModel):
    """How a study names its data set: what a worker needs to find the same data, and to refuse any other.

    Attributes:
        name: a registered name, or the absolute path of an .npz file.
        sha256: hex digest by file name; of the unpacked content where the files are gzip. Empty for a registered
            data set of the user's.
        module: where a registered data set of the user's comes from.
        shape: of one sample as models see it, channels first; None for a registered data set of the user's.
        samples: how many the training data have; None likewise.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    sha256: dict[str, str] = {}
    module: str | None = None
    shape: tuple[int, ...] | None = None
    samples: int | None = None


@dataclass(frozen=True)
class DatasetRow:
    """A row of `hpo datasets`. `checksum` is the SHA-256 of the unpacked training images; `problem` is empty or says
    what is wrong and what to do.
    """

    name: str
    shape: str = ""
    classes: int | None = None
    train: int | None = None
    test: int | None = None
    path: str = ""
    checksum: str = ""
    module: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Idx:
    """A data set of four gzipped IDX files, their names MNIST's, by SHA-256 of the unpacked content."""

    name: str
    sha256: Mapping[str, str]
    advice: str
    folders: Callable[[], list[Path]]
    mirrors: tuple[str, ...] = ()
    shape: tuple[int, int] = (28, 28)
    classes: int = 10
    train: int = 60_000
    test: int = 10_000


TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"


def _cache_folder() -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_dir("torch-hpo"))


def _user_folder() -> Path | None:
    """The folder of data that the user names with HPO_DATA."""
    folder = os.environ.get("HPO_DATA")
    return Path(folder).expanduser() if folder else None


def _fashion_folders() -> list[Path]:
    mine = _user_folder()
    given = [mine, mine / "fashion_mnist", mine / "fashion-mnist"] if mine else []
    return [*given, _cache_folder() / "fashion_mnist", Path("/usr/share/datasets/fashion-mnist")]


MNIST = Idx(
    "mnist",
    {
        TRAIN_IMAGES: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        TRAIN_LABELS: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        TEST_IMAGES: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        TEST_LABELS: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
    "install torch-hpo again",
    lambda: [Path(__file__).parent / "mnist"],
)
FASHION_MNIST = Idx(
    "fashion_mnist",
    {
        TRAIN_IMAGES: "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        TRAIN_LABELS: "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        TEST_IMAGES: "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        TEST_LABELS: "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
    "put its four files into the folder that HPO_DATA names, or install Debian's package dataset-fashion-mnist",
    _fashion_folders,
    (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    ),
)
IDX = {data.name: data for data in (MNIST, FASHION_MNIST)}


def mnist() -> Dataset:
    """Handwritten digits, 28 x 28 grey, 10 classes (LeCun, Cortes, Burges); ships with this package.

    Raises:
        DataError: a file is missing or altered.
    """
    return _load_idx(MNIST)


def fashion_mnist() -> Dataset:
    """Articles of clothing, 28 x 28 grey, 10 classes (Xiao, Rasul, Vollgraf, 2017); found or downloaded.

    Looked for in HPO_DATA, the user's cache and the folder of Debian's package, then downloaded into the cache.

    Raises:
        DataError: a file is altered, or is nowhere and cannot be downloaded.
    """
    return _load_idx(FASHION_MNIST)


def none() -> Dataset:
    """No data: the loops of such a study read their own."""
    return Dataset(train=(np.empty((0, 0), np.float32), np.empty(0, np.int64)), classes=0)


def reference(name: str, base: Path | None = None) -> DatasetReference:
    """How a study refers to the data set `name`, once it has been checked that it can be used.

    Args:
        name: a registered name, or the path of an .npz file.
        base: the folder that a relative path starts from; by default the current one.

    Raises:
        DataError: the data set is missing or wrong; the line names the file, what is wrong and what to do.
        RegistryError: no data set of that name is registered.
    """
    if not is_path(name):
        return _registered_reference(name)
    path = _find_npz(((base or Path.cwd()) / Path(name).expanduser()).absolute())
    dataset = _load_npz(path, {})
    assert callable(dataset.test)
    dataset.test()  # checked, not looked at: a fault in it must not end a study at its very end
    x = np.asarray(dataset.train[0]) if isinstance(dataset.train, tuple) else np.empty(0)
    return DatasetReference(
        name=str(path), sha256={path.name: _digest_file(path)}, shape=channels_first(x.shape[1:]), samples=len(x)
    )


def channels_first(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a NumPy sample as models see it: (H, W) is (1, H, W), and (H, W, C) is (C, H, W)."""
    return {2: (1, *shape), 3: (*shape[2:], *shape[:2])}.get(len(shape), shape)


def load(reference: DatasetReference) -> Dataset:
    """The data set of a reference; the test set is not read before `test` is called.

    Raises:
        DataError: it is missing or wrong, or is not the data that the reference was made of.
        RegistryError: its name is not registered; the line names the module to import.
    """
    if is_path(reference.name):
        return _load_npz(_find_npz(Path(reference.name)), reference.sha256)
    entry = registry.datasets.get(reference.name, reference.module)
    dataset = entry.load()()
    if not isinstance(dataset, Dataset):
        raise DataError(f"data set '{entry.name}': its function returns no hpo.Dataset but {type(dataset).__name__}")
    if not entry.builtin:
        return _checked(dataset, f"data set '{entry.name}'")
    return dataset


def describe() -> list[DatasetRow]:
    """A row for each registered data set; ours are verified, the user's are named and not read."""
    names = [name for name in registry.datasets.names() if name != registry.NO_DATA]
    return [_describe_idx(IDX[name]) if name in IDX else _describe_own(name) for name in names]


def _describe_own(name: str) -> DatasetRow:
    return DatasetRow(name, module=registry.datasets.get(name).module)


def _describe_idx(data: Idx) -> DatasetRow:
    row = DatasetRow(
        data.name,
        "x".join(map(str, data.shape)),
        data.classes,
        data.train,
        data.test,
        checksum=data.sha256[TRAIN_IMAGES],
    )
    folder = _find_idx(data)
    if folder is None:
        advice = "is downloaded on first use" if data.mirrors else data.advice
        return replace(row, problem=f"not found on this machine; {advice}")
    row = replace(row, path=str(folder))
    try:
        for name in data.sha256:
            _read_idx(data, folder, name)
    except DataError as error:
        return replace(row, problem=str(error))
    return row


def is_path(name: str) -> bool:
    """Whether a data set's name is that of a file."""
    return name.endswith(".npz") or "/" in name or os.sep in name


def _registered_reference(name: str) -> DatasetReference:
    entry = registry.datasets.get(name)
    if not entry.builtin:
        return DatasetReference(name=name, module=entry.module)
    if name == registry.NO_DATA:
        return DatasetReference(name=name)
    data = IDX[name]
    folder = _folder(data)
    for file in data.sha256:
        _read_idx(data, folder, file)
    return DatasetReference(name=name, sha256=dict(data.sha256), shape=(1, *data.shape), samples=data.train)


# ---- what a split must be


def is_split(part: Any) -> bool:
    """Whether a part of a data set is one `(x, y)`, rather than an iterable of batches."""
    return isinstance(part, tuple) and len(part) == 2 and hasattr(part[0], "shape") and hasattr(part[1], "shape")


def check_split(x: Any, y: Any, where: str, classes: int | None = None) -> int:
    """The number of classes of a split, once it is found to be usable.

    Args:
        x: samples, a NumPy array or a torch tensor in the layout that `Dataset` describes.
        y: labels.
        where: what the error line begins with: the file or the data set, and the split.
        classes: the labels must be below; by default the largest label + 1.

    Raises:
        DataError: no samples; another shape, kind of numbers or count; labels out of range.
    """
    _check_samples(x, where)
    labels = flat_labels(y, where)
    if len(labels) != len(x):
        raise DataError(f"{where}: {len(x)} samples but {len(labels)} labels; give one label per sample")
    low, high = int(labels.min()), int(labels.max())
    bound = high + 1 if classes is None else classes
    if low < 0 or high >= bound:
        raise DataError(f"{where}: labels from {low} to {high}; they must be from 0 to {bound - 1}, renumber them")
    if bound < 2:
        raise DataError(f"{where}: every label is 0; at least 2 classes are needed")
    return bound


def flat_labels(y: Any, where: str) -> np.ndarray[Any, Any]:
    """Labels as a NumPy array of shape (N,).

    Raises:
        DataError: not whole numbers, or another shape.
    """
    labels = np.asarray(y.cpu() if hasattr(y, "cpu") else y)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise DataError(f"{where}: labels of shape {labels.shape}; they must be (N,), one class number per sample")
    if labels.dtype.kind not in "iu":
        raise DataError(f"{where}: labels of type {labels.dtype}; they must be whole numbers, save them as int64")
    return labels


def _check_samples(x: Any, where: str) -> None:
    shape = tuple(x.shape)
    if len(shape) not in (2, 3, 4):
        raise DataError(f"{where}: samples of shape {shape}; they must be (N, features), (N, H, W) or images in colour")
    if 0 in shape:
        raise DataError(f"{where}: holds no samples (shape {shape}); give at least one")
    if isinstance(x, np.ndarray):
        _check_array(x, where)


def _check_array(x: np.ndarray[Any, Any], where: str) -> None:
    if x.dtype.kind not in "buif":
        raise DataError(f"{where}: samples of type {x.dtype}; they must be numbers, save them as uint8 or float32")
    if x.ndim == 4 and x.shape[3] > MAX_CHANNELS:
        raise DataError(
            f"{where}: samples of shape {x.shape} would have {x.shape[3]} channels; "
            "arrays have the channels last, transpose them to (N, H, W, channels)"
        )
    if x.dtype.kind == "f" and not all(np.isfinite(x[i : i + CHUNK]).all() for i in range(0, len(x), CHUNK)):
        raise DataError(f"{where}: samples hold values that are not finite; remove or replace them")


def _checked(dataset: Dataset, where: str) -> Dataset:
    """A data set of the user's once its splits are checked, its classes filled in, its test set checked on call."""
    classes = dataset.classes
    if is_split(dataset.train):
        x, y = dataset.train
        classes = check_split(x, y, f"{where}, train", classes)
    elif classes is None or dataset.validation is None:
        raise DataError(f"{where}: gives batches, so it must also give `classes` and `validation`")
    elif not hasattr(dataset.train, "__len__"):
        raise DataError(f"{where}: its batches have no length; schedules need the number of steps, give them a __len__")
    if dataset.validation is not None and is_split(dataset.validation):
        x, y = dataset.validation
        check_split(x, y, f"{where}, validation", classes)
    return replace(dataset, classes=classes)


# ---- .npz files in the Keras layout


def _find_npz(path: Path) -> Path:
    """The file at its absolute path, or by its name in the folder HPO_DATA."""
    mine = _user_folder()
    for candidate in (path, *([mine / path.name] if mine else [])):
        if candidate.is_file():
            return candidate.absolute()
    also = f" and not in HPO_DATA ({mine})" if mine else ""
    raise DataError(f"{path}: not found{also}; correct the path, or put the file into the folder that HPO_DATA names")


def _digest_file(path: Path) -> str:
    with _readable(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _readable(path: Path) -> io.BufferedReader:
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); correct its permissions") from error


def _load_npz(path: Path, expected: Mapping[str, str]) -> Dataset:
    _verify_npz(path, expected)
    with _opened(path) as arrays:
        classes = _check_npz(path, arrays)
        train = _npz_split(path, arrays, "train", classes)

    def test() -> Split:
        _verify_npz(path, expected)
        with _opened(path) as arrays:
            return _npz_split(path, arrays, "test", classes)

    return Dataset(train=train, test=test, classes=classes)


def _verify_npz(path: Path, expected: Mapping[str, str]) -> None:
    wanted = expected.get(path.name)
    if wanted is not None and _digest_file(path) != wanted:
        raise DataError(
            f"{path}: is not the file that the study was made with (its SHA-256 is not {wanted[:12]}…); "
            "restore that file, or launch a new study"
        )


def _opened(path: Path) -> Any:
    """The .npz archive, open."""
    try:
        with _readable(path):
            archive = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: is not a whole .npz file ({_line(error)}); save it again with numpy.savez") from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise DataError(f"{path}: holds one bare array; save {', '.join(NPZ_KEYS)} with numpy.savez")
    return archive


def _check_npz(path: Path, arrays: Any) -> int:
    """The number of classes: the largest training label + 1."""
    missing = [key for key in NPZ_KEYS if key not in arrays]
    if missing:
        raise DataError(f"{path}: has no {', '.join(missing)}; it must hold {', '.join(NPZ_KEYS)}")
    labels = flat_labels(_npz_array(path, arrays, "y_train"), f"{path}, train")
    if not len(labels):
        raise DataError(f"{path}, train: holds no samples; give at least one")
    return int(labels.max()) + 1


def _npz_split(path: Path, arrays: Any, part: str, classes: int) -> Split:
    x, y = _npz_array(path, arrays, f"x_{part}"), _npz_array(path, arrays, f"y_{part}")
    check_split(x, y, f"{path}, {part}", classes)
    wanted = _npz_shape(path, arrays)
    if x.shape[1:] != wanted:
        raise DataError(f"{path}, {part}: samples of shape {x.shape[1:]}, not {wanted} as in x_train; make them equal")
    return x, y


def _npz_shape(path: Path, arrays: Any) -> tuple[int, ...]:
    """The shape of a training sample, from the array's header alone."""
    try:
        with arrays.zip.open("x_train.npy") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape: tuple[int, ...] = read(file)[0]
            return shape[1:]
    except (ValueError, OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: x_train cannot be read ({_line(error)}); save the file again") from error


def _npz_array(path: Path, arrays: Any, key: str) -> np.ndarray[Any, Any]:
    try:
        array: np.ndarray[Any, Any] = arrays[key]
    except (ValueError, OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: {key} cannot be read ({_line(error)}); save the file again") from error
    return array


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


# ---- MNIST's format, IDX: two zero bytes, the type, the number of dimensions, the sizes, the values


def _load_idx(data: Idx) -> Dataset:
    folder = _folder(data)

    def part(images: str, labels: str) -> Split:
        return _read_idx(data, folder, images), _read_idx(data, folder, labels)

    train = part(TRAIN_IMAGES, TRAIN_LABELS)
    return Dataset(train=train, test=lambda: part(TEST_IMAGES, TEST_LABELS), classes=data.classes)


def _find_idx(data: Idx) -> Path | None:
    """The first folder that holds all four files."""
    for folder in data.folders():
        if all((folder / name).is_file() for name in data.sha256):
            return folder
    return None


def _folder(data: Idx) -> Path:
    folder = _find_idx(data)
    if folder is not None:
        return folder
    if data.mirrors:
        return _download(data)
    where = data.folders()[0]
    missing = [name for name in data.sha256 if not (where / name).is_file()]
    raise DataError(f"{where / missing[0]}: not found; {data.advice}")


def _read_idx(data: Idx, folder: Path, name: str) -> np.ndarray[Any, Any]:
    """The values of a gzipped IDX file, verified."""
    path = folder / name
    try:
        with gzip.open(path) as file:
            content = file.read()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: is damaged ({_line(error)}); replace it: {data.advice}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); correct its permissions") from error
    if hashlib.sha256(content).hexdigest() != data.sha256[name]:
        raise DataError(f"{path}: is not the file of {data.name} (another SHA-256); replace it: {data.advice}")
    dimensions = content[3]
    sizes = struct.unpack_from(f">{dimensions}I", content, 4)
    return np.frombuffer(content, np.uint8, math.prod(sizes), 4 + 4 * dimensions).reshape(sizes)


def _download(data: Idx) -> Path:
    """Download the four files into the user's cache; each is checked, unpacked, before it counts."""
    folder = _cache_folder() / data.name
    for name in data.sha256:
        if not (folder / name).is_file():
            _download_file(data, folder, name)
    return folder


def _download_file(data: Idx, folder: Path, name: str) -> None:
    import pooch

    pooch.get_logger().setLevel("ERROR")
    why = ""
    for mirror in data.mirrors:
        arriving = f"{name}.{os.getpid()}.part"
        try:
            pooch.retrieve(mirror + name, known_hash=None, fname=arriving, path=folder)
            _read_idx(replace(data, sha256={arriving: data.sha256[name]}), folder, arriving)
            (folder / arriving).replace(folder / name)
        except (DataError, OSError, ValueError) as error:  # requests' errors are OSErrors
            (folder / arriving).unlink(missing_ok=True)
            why = type(error).__name__
        else:
            return
    raise DataError(f"{folder / name}: not found, and cannot be downloaded from the mirrors ({why}); {data.advice}")
