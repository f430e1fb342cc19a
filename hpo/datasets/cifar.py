"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009) as they are downloaded: folders of pickled or of binary batches.

32 x 32 colour images of 10 classes, or of 100 in 20 groups. A pickle is read without running what it asks for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpo.datasets.cifar_pickle import unpickle_batch
from hpo.datasets.dataset import Dataset, Split
from hpo.datasets.file_digest import digest_file
from hpo.datasets.parts import check_fraction, complete_dataset
from hpo.datasets.source import DatasetSource
from hpo.errors import DataError, describe_unknown
from hpo.utils.home import data_folder
from hpo.utils.text import shorten

__all__ = ["NAMES", "can_read", "digest", "locate_cifar", "read_source"]

Array = np.ndarray[Any, Any]
FOLDERS = ("cifar-10-batches-py", "cifar-10-batches-bin", "cifar-100-python", "cifar-100-binary")  # in the archives
NAMES = {"cifar10": FOLDERS[:2], "cifar100": FOLDERS[2:]}  # that a study may give instead of a path
SIDE, CHANNELS = 32, 3
PIXELS = CHANNELS * SIDE * SIDE
BATCHES = 5  # of CIFAR-10's training images
LARGEST_FILE = 1 << 30  # bytes; the largest of the data set has 155 MB
NOT_HERE = ("drop", "group", "time", "weight")


@dataclass(frozen=True)
class Layout:
    """Layout of a folder of batches.

    Attributes:
        train: regular expression of the names of the training files.
        test: name of the test file.
        names: the file of the classes' names.
        labels: what a sample has, in the order of the binary files; by default the last one is predicted.
        binary: whether the batches are binary, else pickles.
    """

    train: str
    test: str
    names: str
    labels: tuple[str, ...]
    binary: bool


COARSE, FINE = "coarse_labels", "fine_labels"
LAYOUTS = (
    Layout(r"data_batch_(\d{1,2})", "test_batch", "batches.meta", ("labels",), binary=False),
    Layout(r"data_batch_(\d{1,2})\.bin", "test_batch.bin", "batches.meta.txt", ("labels",), binary=True),
    Layout("train", "test", "meta", (COARSE, FINE), binary=False),
    Layout(r"train\.bin", "test.bin", "fine_label_names.txt", (COARSE, FINE), binary=True),
)
TEXTS = {"labels": "batches.meta.txt", FINE: "fine_label_names.txt", COARSE: "coarse_label_names.txt"}
KEYS = {"labels": "label_names", FINE: "fine_label_names", COARSE: "coarse_label_names"}


@dataclass(frozen=True)
class Batches:
    """Files of a data set in a folder.

    Attributes:
        folder: where they are.
        layout: theirs.
        train: the training files, in their order.
    """

    folder: Path
    layout: Layout
    train: tuple[Path, ...]

    @property
    def test(self) -> Path | None:
        """The test file; None without one."""
        path = self.folder / self.layout.test
        return path if path.is_file() else None


def locate_cifar(name: str) -> Path:
    """Return the folder of a data set by its name, `cifar10` or `cifar100`.

    It is searched for in the folder that HPO_DATA names, in the working directory and in `data` there.

    Raises:
        DataError: it is in none of them.
    """
    own = data_folder()
    roots = [*([own] if own else []), Path.cwd(), Path.cwd() / "data"]
    for root in roots:
        for folder in NAMES[name]:
            if (root / folder).is_dir():
                return root / folder
    raise DataError(
        f"{name}: {' or '.join(NAMES[name])} not found in {', '.join(map(str, roots))}; unpack the data set's archive "
        "there, or give a folder: --dataset FOLDER"
    )


def can_read(path: Path) -> bool:
    """Return whether a path is a folder of CIFAR's batches, or holds one under the name that its archive gives it."""
    return _find_batches(path) is not None


def digest(path: Path) -> dict[str, str]:
    """Return the SHA-256 of each file, in hex digits, by its name.

    Raises:
        DataError: a file cannot be read.
    """
    batches = _locate(path)
    texts = [batches.folder / name for name in {batches.layout.names, *TEXTS.values()}]
    others = [each for each in (batches.test, *texts) if each is not None and each.is_file()]
    return {each.name: digest_file(each) for each in sorted({*batches.train, *others})}


def read_source(path: Path, source: DatasetSource) -> Dataset:
    """Read a folder of CIFAR's batches: x is uint8, (N, 32, 32, 3), and y the classes.

    Args:
        path: of the folder, or of one that holds it.
        source: of CIFAR-100 the label, `fine_labels` or `coarse_labels`; and what is held out.

    Raises:
        DataError: a file is missing, damaged, or none of CIFAR's.
    """
    batches = _locate(path)
    label = _choose_label(batches, source)
    check_fraction(source, str(path), has_test=batches.test is not None)
    names = _read_names(batches, label)
    parts = [_read_file(each, batches.layout, label) for each in batches.train]
    x, y = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    few = batches.train[0].name != "train" and len(batches.train) < BATCHES and batches.layout.labels == ("labels",)
    notes = [f"{len(batches.train)} of {BATCHES} training batches"] if few else []
    test = batches.test
    dataset = Dataset(
        train=(x, y),
        test=None if test is None else _later(test, batches.layout, label),
        classes=len(names) or None,
        task="classification",
        output_names=names,
        rows={"train": np.arange(1, len(x) + 1)},
    )
    return complete_dataset(dataset, source, str(path), notes)


def _later(path: Path, layout: Layout, label: str) -> Callable[[], Split]:
    return lambda: _read_file(path, layout, label)


def _find_batches(path: Path) -> Batches | None:
    """Return the batches in a folder, or in the only one in it that is named as in an archive."""
    if not path.is_dir():
        return None
    inner = [path / name for name in FOLDERS if (path / name).is_dir()]
    for folder in (path, *(inner if len(inner) == 1 else ())):
        names = {each.name for each in folder.iterdir() if each.is_file()}
        for layout in LAYOUTS:
            train = [name for name in names if re.fullmatch(layout.train, name)]
            if train and (layout.test in names or layout.names in names):
                return Batches(folder, layout, tuple(folder / name for name in sorted(train, key=_number)))
    return None


def _locate(path: Path) -> Batches:
    batches = _find_batches(path)
    if batches is None:
        raise DataError(f"{path}: holds no batches of CIFAR any more; restore them")
    numbers = [_number(each.name) for each in batches.train]
    for expected, number in enumerate(numbers, 1):
        if number and number != expected:
            missing = batches.train[0].name.replace(str(numbers[0]), str(expected))
            raise DataError(f"{batches.folder / missing}: not found; unpack the archive again")
    return batches


def _number(name: str) -> int:
    """Return the number of a batch, 0 where it has none."""
    return int("".join(filter(str.isdigit, name)) or 0)


def _choose_label(batches: Batches, source: DatasetSource) -> str:
    for key in NOT_HERE:
        if getattr(source, key):
            raise DataError(f"{batches.folder}: {key}: images of CIFAR have no columns; leave it out")
    for key in ("test", "validation"):
        if isinstance(value := getattr(source, key), str):
            raise DataError(
                f"{batches.folder}: {key} = {shorten(value)}: must be a fraction; or give a folder of images"
            )
    known = batches.layout.labels
    if len(source.label) > 1:
        raise DataError(f"{batches.folder}: label: name one of {', '.join(known)}")
    for name in source.label:
        if name not in known:
            raise DataError(f"{batches.folder}: {describe_unknown('label', name, known)}")
    return source.label[0] if source.label else known[-1]


def _read_names(batches: Batches, label: str) -> Sequence[str]:
    """Return the names of the classes; none where there is no file of them."""
    path = batches.folder / (TEXTS[label] if batches.layout.binary else batches.layout.names)
    if not path.is_file():
        return ()
    content = _read(path)
    if batches.layout.binary:
        try:
            return content.decode("utf-8").split()
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: is no text in UTF-8; unpack the archive again") from error
    names = _unpickle(path, content).get(KEYS[label])
    if not isinstance(names, list) or not all(isinstance(name, str | bytes) for name in names):
        raise DataError(f"{path}: has no list {KEYS[label]}; unpack the archive again")
    return [name.decode("utf-8", "replace") if isinstance(name, bytes) else name for name in names]


def _read_file(path: Path, layout: Layout, label: str) -> Split:
    """Return images (N, 32, 32, 3) and classes (N,) of a file."""
    content = _read(path)
    pixels, labels = (_read_records if layout.binary else _read_pickle)(path, content, layout, label)
    return np.ascontiguousarray(pixels.reshape(-1, CHANNELS, SIDE, SIDE).transpose(0, 2, 3, 1)), labels


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise DataError(f"{path}: has more than {LARGEST_FILE:,} bytes, and is no file of CIFAR; remove it")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); correct its permissions") from error


def _read_records(path: Path, content: bytes, layout: Layout, label: str) -> tuple[Array, Array]:
    """Return pixels (N, 3072) and classes (N,) of binary records: a byte for each label, then the pixels."""
    size = len(layout.labels) + PIXELS
    if not content or len(content) % size:
        raise DataError(f"{path}: has {len(content):,} bytes, no multiple of {size:,}; unpack the archive again")
    records = np.frombuffer(content, np.uint8).reshape(-1, size)
    return records[:, len(layout.labels) :], records[:, layout.labels.index(label)].astype(np.int64)


def _read_pickle(path: Path, content: bytes, layout: Layout, label: str) -> tuple[Array, Array]:  # noqa: ARG001
    """Return pixels (N, 3072) and classes (N,) of a pickled dict."""
    batch = _unpickle(path, content)
    pixels, labels = batch.get("data"), batch.get(label)
    if not isinstance(pixels, np.ndarray) or pixels.ndim != 2 or pixels.shape[1] != PIXELS:
        raise DataError(f"{path}: has no data of {PIXELS:,} bytes an image; unpack the archive again")
    if not isinstance(labels, list) or {*map(type, labels)} != {int} or len(labels) != len(pixels):
        raise DataError(f"{path}: has no list {label} of a number for each of {len(pixels):,} images")
    try:
        return pixels, np.array(labels, np.int64)
    except OverflowError as error:
        raise DataError(f"{path}: its {label} are no classes: a number is too large") from error


def _unpickle(path: Path, content: bytes) -> dict[str, Any]:
    try:
        return unpickle_batch(content)
    except ValueError as error:
        raise DataError(f"{path}: {error}; unpack the archive again") from error
