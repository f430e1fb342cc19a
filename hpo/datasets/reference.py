"""References to data sets: identity by SHA-256, loading, and the rows of `hpo datasets`."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from hpo.config import registry
from hpo.config.choices import Task
from hpo.datasets.dataset import Dataset, channels_first, check_dataset
from hpo.datasets.idx import IDX, TRAIN_IMAGES, IdxDataset, find_idx, locate_idx, verify_idx
from hpo.datasets.map_style import make_dataset, read_parts
from hpo.datasets.npz import digest_npz, find_npz, load_npz
from hpo.datasets.source import DatasetSource
from hpo.errors import DataError, HpoError
from hpo.utils.exits import translate_exits
from hpo.utils.text import locate_error, summarize_error

__all__ = ["DatasetReference", "DatasetRow", "describe", "is_path", "load", "make_reference"]


class DatasetReference(BaseModel):
    """Identity of a study's data set, by which workers find the same data and refuse any other.

    Attributes:
        name: a registered name, or the absolute path of an .npz file.
        sha256: hex digest by file name, of the unpacked content of gzipped files; empty for a data set that the user
            registered.
        module: the module that registers a user's data set.
        shape: of one sample as models see it, channels first; None for a user's data set.
        samples: number of training samples; None likewise.
        source: how the file is read; None for one that says all itself, and for a registered name.
        task: what is predicted.
        output_names: see `hpo.datasets.Dataset`.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    sha256: dict[str, str] = {}
    module: str | None = None
    shape: tuple[int, ...] | None = None
    samples: int | None = None
    source: DatasetSource | None = None
    task: Task = "classification"
    output_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class DatasetRow:
    """Row of `hpo datasets`.

    Attributes:
        name: the registered name.
        shape: of one sample, as `28x28`.
        classes: number of classes.
        train: number of training samples.
        test: number of test samples.
        path: the folder of the files.
        checksum: SHA-256 of the unpacked training images.
        module: the module that registers a user's data set.
        problem: why the data set cannot be used and what to do, or empty.
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


def make_reference(name: str, base: Path | None = None) -> DatasetReference:
    """Check that a data set can be used, and return the reference by which studies name it.

    Args:
        name: a registered name, or the path of an .npz file.
        base: the folder that a relative path starts from; by default the working directory.

    Raises:
        DataError: the data set is missing or wrong; the line names the file, what is wrong and what to do.
        RegistryError: no data set of that name is registered.
    """
    if not is_path(name):
        return _registered_reference(name)
    path = find_npz(((base or Path.cwd()) / Path(name).expanduser()).absolute())
    dataset = load_npz(path)
    assert callable(dataset.test)
    dataset.test()  # checked, not looked at: a fault in it must not end a study at its very end
    x = np.asarray(dataset.train[0]) if isinstance(dataset.train, tuple) else np.empty(0)
    return DatasetReference(
        name=str(path), sha256={path.name: digest_npz(path)}, shape=channels_first(x.shape[1:]), samples=len(x)
    )


def load(reference: DatasetReference) -> Dataset:
    """Load the data set of a reference; its test data are not read before `test` is called.

    Raises:
        DataError: it is missing or cannot be used, or differs from the data that the reference was made of.
        RegistryError: its name is not registered; the line names the module to import.
    """
    if is_path(reference.name):
        return load_npz(find_npz(Path(reference.name)), reference.sha256)
    entry = registry.datasets.get(reference.name, reference.module)
    where = f"data set '{entry.name}'"
    try:
        with translate_exits():
            dataset = make_dataset(entry.load()(), where)
    except (HpoError, MemoryError):
        raise
    except Exception as error:  # a function of the user's can raise anything
        line = f" ({located})" if (located := locate_error(error)) else ""
        raise DataError(f"{where}: {summarize_error(error)}{line}") from error
    if not isinstance(dataset, Dataset):
        raise DataError(
            f"{where}: its function returns {type(dataset).__name__}; it must return hpo.Dataset, "
            "or a torch.utils.data.Dataset that has its samples by number"
        )
    return dataset if entry.builtin else check_dataset(read_parts(dataset, where), where)


def describe() -> list[DatasetRow]:
    """Return a row for each registered data set; the built-in ones are verified, the user's are not read."""
    names = [name for name in registry.datasets.names() if name != registry.NO_DATA]
    return [_describe_idx(IDX[name]) if name in IDX else _describe_own(name) for name in names]


def _describe_own(name: str) -> DatasetRow:
    return DatasetRow(name, module=registry.datasets.get(name).module)


def _describe_idx(data: IdxDataset) -> DatasetRow:
    row = DatasetRow(
        data.name,
        "x".join(map(str, data.shape)),
        data.classes,
        data.train,
        data.test,
        checksum=data.sha256[TRAIN_IMAGES],
    )
    folder = find_idx(data)
    if folder is None:
        advice = "is downloaded on first use" if data.mirrors else data.advice
        return replace(row, problem=f"not found on this machine; {advice}")
    row = replace(row, path=str(folder))
    try:
        verify_idx(data, folder)
    except DataError as error:
        return replace(row, problem=str(error))
    return row


def is_path(name: str) -> bool:
    """Return whether the name of a data set is that of a file."""
    return name.endswith(".npz") or "/" in name or os.sep in name


def _registered_reference(name: str) -> DatasetReference:
    entry = registry.datasets.get(name)
    if not entry.builtin:
        return DatasetReference(name=name, module=entry.module)
    if name == registry.NO_DATA:
        return DatasetReference(name=name)
    data = IDX[name]
    verify_idx(data, locate_idx(data))
    return DatasetReference(name=name, sha256=dict(data.sha256), shape=(1, *data.shape), samples=data.train)
