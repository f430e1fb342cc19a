"""Data sets of scikit-learn by name, `sklearn:iris`: those that it ships, and larger ones that are on this machine."""

from __future__ import annotations

import hashlib
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpo.config.choices import Task
from hpo.datasets.dataset import Dataset
from hpo.datasets.features import Feature
from hpo.datasets.notes import describe_task
from hpo.datasets.parts import complete_dataset
from hpo.datasets.source import DatasetSource
from hpo.errors import DataError, describe_unknown
from hpo.utils.text import first_line

__all__ = ["NAMES", "PREFIX", "can_read", "digest", "read_source"]

Array = np.ndarray[Any, Any]
PREFIX = "sklearn:"
SHIPPED = ("breast_cancer", "diabetes", "digits", "iris", "linnerud", "wine")
# Which scikit-learn downloads; here they are only read where somebody has done so before.
DOWNLOADED = ("california_housing", "covtype", "olivetti_faces")
NAMES = tuple(sorted(SHIPPED + DOWNLOADED))
IMAGES = ("digits", "olivetti_faces")
REGRESSION = ("california_housing", "diabetes", "linnerud")


@dataclass(frozen=True)
class _Loaded:
    """Data as scikit-learn returns them: x (N, F), or (N, H, W) of images, y (N,) or (N, T), and names."""

    x: Array
    y: Array
    features: tuple[str, ...]
    outputs: tuple[str, ...]


def can_read(path: Path) -> bool:
    """Return whether a data set's name is one of scikit-learn's."""
    return str(path).startswith(PREFIX)


def digest(path: Path) -> dict[str, str]:
    """Return the SHA-256 over samples and labels of a data set, by its name.

    Raises:
        DataError: there is none of that name, or it is not on this machine.
    """
    name = str(path)
    loaded = _load(name)
    content = hashlib.sha256()
    for array in (loaded.x, loaded.y):
        content.update(repr((array.shape, array.dtype.str)).encode())
        content.update(np.ascontiguousarray(array).data)
    return {name.removeprefix(PREFIX): content.hexdigest()}


def read_source(path: Path, source: DatasetSource) -> Dataset:
    """Read a data set of scikit-learn: x is float32, (N, features), or (N, H, W) of images.

    Some of the samples are held out as test, the same in each study.

    Args:
        path: as `sklearn:iris`.
        source: the features that are dropped, which of several targets are predicted, how much is held out.

    Raises:
        DataError: there is no such data set or feature, or scikit-learn is not installed.
    """
    name = str(path)
    loaded = _load(name)
    y, outputs = _choose_targets(name, loaded, source)
    short = name.removeprefix(PREFIX)
    if short in IMAGES:
        if source.drop:
            raise DataError(f"{name}: holds images, of which no feature can be dropped; leave out `drop`")
        return complete_dataset(Dataset((loaded.x, y), output_names=outputs, task="classification"), source, name)
    _check_names(name, "drop", source.drop, loaded.features)
    kept = [i for i, feature in enumerate(loaded.features) if feature not in source.drop]
    if not kept:
        raise DataError(f"{name}: every feature is dropped; leave some")
    features = tuple(Feature(name=loaded.features[i], column=loaded.features[i]) for i in kept)
    task: Task = "regression" if short in REGRESSION else "classification"
    dataset = Dataset((loaded.x[:, kept], y), task=task, output_names=outputs, features=features)
    guessed = task == "regression" and source.asked_task is None
    notes = [describe_task(task, "scikit-learn has it for regression", outputs)] if guessed else []
    return complete_dataset(dataset, source, name, notes)


def _choose_targets(name: str, loaded: _Loaded, source: DatasetSource) -> tuple[Array, tuple[str, ...]]:
    for key in ("group", "time", "weight", "validation"):
        if getattr(source, key) is not None:
            raise DataError(f"{name}: has no column for `{key}`; leave it out, or save the data as a file")
    if isinstance(source.test, str):
        raise DataError(f"{name}: test = {source.test!r}; it must be a fraction, such as 0.2")
    if loaded.y.ndim == 1:
        _check_names(name, "label", source.label, ("target", *(loaded.outputs if len(loaded.outputs) == 1 else ())))
        return loaded.y, loaded.outputs
    _check_names(name, "label", source.label, loaded.outputs)
    chosen = source.label or loaded.outputs
    return loaded.y[:, [loaded.outputs.index(each) for each in chosen]], chosen


def _check_names(name: str, key: str, given: tuple[str, ...], known: tuple[str, ...]) -> None:
    for each in given:
        if each not in known:
            raise DataError(f"{name}: {key}: {describe_unknown('name', each, known)}")


def _load(name: str) -> _Loaded:
    short = name.removeprefix(PREFIX)
    if short not in NAMES:
        raise DataError(f"{describe_unknown('data set of scikit-learn', short, NAMES)}")
    try:
        module: Any = importlib.import_module("sklearn.datasets")
    except ImportError as error:
        raise DataError(f"{name}: needs scikit-learn; pip install 'torch-hpo[sklearn]'") from error
    if short in SHIPPED:
        return _convert(short, getattr(module, f"load_{short}")())
    try:
        return _convert(short, getattr(module, f"fetch_{short}")(download_if_missing=False))
    except OSError as error:
        raise DataError(
            f"{name}: is not on this machine ({first_line(error)}); download it once with "
            f"python -c 'import sklearn.datasets; sklearn.datasets.fetch_{short}()'"
        ) from error


def _convert(short: str, bunch: Any) -> _Loaded:
    x, y = np.asarray(bunch.images if short in IMAGES else bunch.data), np.asarray(bunch.target)
    outputs = getattr(bunch, "target_names", ["target"] if short in REGRESSION else None)
    names = tuple(map(str, getattr(bunch, "feature_names", range(x.shape[1]))))
    if short == "covtype":
        y = y - 1  # its classes are numbers from 1, which have no names
        outputs = None
    return _Loaded(x.astype(np.float32), y, names, tuple(map(str, outputs)) if outputs is not None else ())
