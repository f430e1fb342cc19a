"""Data sets in folders of images, which are decoded once; see `hpo.datasets.image_folder` for what a folder may be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hpo.datasets.dataset import Dataset, Split, check_dataset
from hpo.datasets.folder_state import digest_folder, has_images, read_state
from hpo.datasets.image_cache import Images, open_images
from hpo.datasets.image_folder import ImageFiles, list_images
from hpo.datasets.labels import LabelCoding, fit_coding
from hpo.datasets.notes import describe_task
from hpo.datasets.parts import NO_TEST, check_class_count, check_fraction, choose_test_rows, tell_held_out
from hpo.datasets.source import DatasetSource
from hpo.utils.files import absolute_path

__all__ = ["can_read", "digest", "read_source"]

Array = np.ndarray[Any, Any]


def can_read(path: Path) -> bool:
    """Return whether a path is a folder of images."""
    return has_images(path)


def digest(path: Path) -> dict[str, str]:
    """Return the SHA-256 over names and contents of a folder's images and label files, by the folder's name.

    A folder in which no file has changed since is not read again.

    Raises:
        DataError: a file cannot be read.
    """
    return {path.name: digest_folder(read_state(path))}


def read_source(path: Path, source: DatasetSource) -> Dataset:
    """Read a folder of images: x is uint8, memory-mapped, (N, H, W) if all are grey, else (N, H, W, 3).

    Test samples are held out of the training data where the folder has no test folder.

    Args:
        path: of the folder.
        source: its labels, parts, and the size that images are brought to.

    Raises:
        DataError: no images, no labels, a class of which none can be held out; more than 1 % corrupt; too many for
            this machine.
    """
    state = read_state(path)
    given = {"test": source.test, "validation": source.validation}
    others = {part: read_state(_beside(path, name)) for part, name in given.items() if isinstance(name, str)}
    parts = list_images(state, others, source)
    check_fraction(source, str(path), has_test="test" in parts and "test" not in others)
    train = parts["train"]
    coding = fit_coding(train.labels, f"{path}, train", source.asked_task, train.columns)
    orders = _order_parts(parts, coding, source, str(path))
    names = [name for part, index in orders.values() for name in np.array(part.names, object)[index]]
    images = open_images([state, *others.values()], names, source.resize)
    dataset = _make_dataset(orders, images, coding, path)
    check_class_count(dataset, source, str(path))
    told = [note for part in parts.values() for note in part.notes] + list(images.notes)
    if "test" not in parts and dataset.test is not None:
        told.append(tell_held_out(dataset, source))
    told.insert(0, describe_task(coding.task, coding.reason, source.label or train.columns))
    return replace(dataset, notes=tuple(note for note in told if note))


def _beside(path: Path, part: str) -> Path:
    return absolute_path(path.parent / Path(part).expanduser())


Orders = Mapping[str, tuple[ImageFiles, Array]]


def _order_parts(parts: Mapping[str, ImageFiles], coding: LabelCoding, source: DatasetSource, where: str) -> Orders:
    """Return the files that each part takes, and which of them, so that each lies in one piece of the array."""
    orders = {name: (part, np.arange(len(part.names))) for name, part in parts.items()}
    if "test" in parts or source.test == NO_TEST:
        return orders
    train = parts["train"]
    labels = coding.apply(train.labels, f"{where}, train")
    rest, taken = choose_test_rows(labels, source, coding.task, where, train.groups, train.times)
    return {**orders, "train": (train, rest), "test": (train, taken)}


def _make_dataset(orders: Orders, images: Images, coding: LabelCoding, path: Path) -> Dataset:
    made: dict[str, tuple[Array, Array]] = {}
    kept: dict[str, Array] = {}
    first = 0
    for name, (part, index) in orders.items():
        good = np.array([part.names[i] not in images.faults for i in index], bool)
        kept[name] = index[good]
        x = images.x[first : first + len(kept[name])]
        made[name] = x, coding.apply(part.labels[kept[name]], f"{path}, {name}")
        first += len(x)
    train = orders["train"][0]

    def choose(values: Array | None) -> Array | None:
        return None if values is None else values[kept["train"]]

    dataset = Dataset(
        train=made["train"],
        test=_later(made["test"]) if "test" in made else None,
        validation=made.get("validation"),
        classes=len(coding.output_names) or None if coding.task == "classification" else None,
        task=coding.task,
        output_names=coding.output_names,
        groups=choose(train.groups),
        times=choose(train.times),
        weights=choose(train.weights),
        rows={name: part.rows[kept[name]] for name, (part, _) in orders.items()},
    )
    return check_dataset(dataset, str(path))


def _later(part: Split) -> Callable[[], Split]:
    return lambda: part
