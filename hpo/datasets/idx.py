"""MNIST and Fashion-MNIST, read from gzipped files of MNIST's format, IDX.

A file of that format is two zero bytes, the type, the number of dimensions, the sizes, and the values.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from hpo.datasets.dataset import Dataset, Split
from hpo.errors import DataError
from hpo.utils.digest import DigestCache, file_state
from hpo.utils.home import data_folder
from hpo.utils.text import first_line

__all__ = ["IDX", "IdxDataset", "fashion_mnist", "find_idx", "locate_idx", "mnist", "verify_idx"]

UNPACKED_LIMIT = 100_000_000  # bytes; the largest of the files has 47 MB
_digests = DigestCache()  # of the files' unpacked content


@dataclass(frozen=True)
class IdxDataset:
    """Data set of four gzipped IDX files that are named as MNIST's.

    Attributes:
        name: its registered name.
        sha256: hex digest of the unpacked content, by file name.
        advice: how to get its files.
        folders: returns the folders that may hold the files, in the order in which they are searched.
        mirrors: URLs that its files can be downloaded from.
        shape: of one sample.
        classes: how many there are.
        train: number of training samples.
        test: number of test samples.
    """

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


def _fashion_folders() -> list[Path]:
    folder = data_folder()
    own = [folder, folder / "fashion_mnist", folder / "fashion-mnist"] if folder else []
    return [*own, _cache_folder() / "fashion_mnist", Path("/usr/share/datasets/fashion-mnist")]


MNIST = IdxDataset(
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
FASHION_MNIST = IdxDataset(
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
    """Load MNIST: handwritten digits, 28 x 28 grey, 10 classes (LeCun, Cortes, Burges). It ships with this package.

    Raises:
        DataError: a file is missing or altered.
    """
    return _load(MNIST)


def fashion_mnist() -> Dataset:
    """Load Fashion-MNIST: articles of clothing, 28 x 28 grey, 10 classes (Xiao, Rasul, Vollgraf, 2017).

    Its files are searched for in HPO_DATA, the user's cache and the folder of Debian's package, and downloaded into the
    cache if they are in none of them.

    Raises:
        DataError: a file is altered, or is nowhere and cannot be downloaded.
    """
    return _load(FASHION_MNIST)


def verify_idx(data: IdxDataset, folder: Path) -> None:
    """Check the SHA-256 of the four files; files that this process has checked before are not read again.

    Raises:
        DataError: a file cannot be read, is damaged or altered.
    """
    for name in data.sha256:
        _verify(data, folder / name)


def _verify(data: IdxDataset, path: Path) -> None:
    with _open(path, data.advice) as file:
        digest = _digests.get(file_state(file), lambda: _digest(_unpack(file)))
    _check_digest(data, path, digest)


def _load(data: IdxDataset) -> Dataset:
    folder = locate_idx(data)

    def part(images: str, labels: str) -> Split:
        return _read(data, folder, images), _read(data, folder, labels)

    train = part(TRAIN_IMAGES, TRAIN_LABELS)
    return Dataset(train=train, test=lambda: part(TEST_IMAGES, TEST_LABELS), classes=data.classes)


def find_idx(data: IdxDataset) -> Path | None:
    """Return the first folder that holds all four files, or None if none does."""
    for folder in data.folders():
        if all((folder / name).is_file() for name in data.sha256):
            return folder
    return None


def locate_idx(data: IdxDataset) -> Path:
    """Return the folder that holds all four files, which are downloaded if there is none.

    Raises:
        DataError: a file is missing and cannot be downloaded.
    """
    folder = find_idx(data)
    if folder is not None:
        return folder
    if data.mirrors:
        return _download(data)
    where = data.folders()[0]
    missing = [name for name in data.sha256 if not (where / name).is_file()]
    raise DataError(f"{where / missing[0]}: not found; {data.advice}")


def _read(data: IdxDataset, folder: Path, name: str) -> np.ndarray[Any, Any]:
    """Return the values of a file, once its SHA-256 is checked."""
    path = folder / name
    with _open(path, data.advice) as file:
        state = file_state(file)
        content = _unpack(file)
    _check_digest(data, path, _digests.get(state, lambda: _digest(content)))
    dimensions = content[3]
    sizes = struct.unpack_from(f">{dimensions}I", content, 4)
    return np.frombuffer(content, np.uint8, math.prod(sizes), 4 + 4 * dimensions).reshape(sizes)


@contextmanager
def _open(path: Path, advice: str) -> Iterator[BinaryIO]:
    """Open a gzipped file; turn the errors of reading it into a DataError."""
    try:
        with path.open("rb") as file:
            yield file
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: is damaged ({first_line(error)}); replace it: {advice}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); correct its permissions") from error


def _unpack(file: BinaryIO) -> bytes:
    """Return the unpacked content, up to a limit: it is not known yet whether it is the right file."""
    with gzip.open(file) as unpacked:
        return unpacked.read(UNPACKED_LIMIT)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _check_digest(data: IdxDataset, path: Path, digest: str) -> None:
    if digest != data.sha256[path.name]:
        raise DataError(f"{path}: is not the file of {data.name} (another SHA-256); replace it: {data.advice}")


def _download(data: IdxDataset) -> Path:
    """Download the four files into the user's cache, each under its name only once it is verified."""
    folder = _cache_folder() / data.name
    for name in data.sha256:
        if not (folder / name).is_file():
            _download_file(data, folder, name)
    return folder


def _download_file(data: IdxDataset, folder: Path, name: str) -> None:
    import pooch

    pooch.get_logger().setLevel("ERROR")
    reason = ""
    for mirror in data.mirrors:
        partial = f"{name}.{os.getpid()}.part"
        try:
            pooch.retrieve(mirror + name, known_hash=None, fname=partial, path=folder)
            _read(replace(data, sha256={partial: data.sha256[name]}), folder, partial)
            (folder / partial).replace(folder / name)
        except (DataError, OSError, ValueError) as error:  # requests' errors are OSErrors
            (folder / partial).unlink(missing_ok=True)
            reason = type(error).__name__
        else:
            return
    raise DataError(f"{folder / name}: not found, and cannot be downloaded from the mirrors ({reason}); {data.advice}")
