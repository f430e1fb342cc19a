"""References to data sets: identity by SHA-256, loading, and the rows of `hpo datasets`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from hpo.config import registry
from hpo.config.choices import Task
from hpo.datasets.dataset import Dataset, channels_first, check_dataset, guess_task, is_split
from hpo.datasets.idx import IDX, TRAIN_IMAGES, IdxDataset, find_idx, locate_idx, verify_idx
from hpo.datasets.labels import code_labels
from hpo.datasets.map_style import make_dataset, read_parts
from hpo.datasets.memory_data import name_saved_data
from hpo.datasets.outer_fold import OuterFold, take_outer_fold
from hpo.datasets.readers import PREFIXES, Reader, check_digest, find_path, find_reader, read_dataset, resolve_name
from hpo.datasets.resize import resize_dataset
from hpo.datasets.source import DatasetSource, parse_source, spell_inline, spell_source
from hpo.errors import DataError, DefinitionError, HpoError
from hpo.utils.exits import translate_exits
from hpo.utils.files import absolute_path
from hpo.utils.home import data_folder
from hpo.utils.text import locate_error, quantity, summarize_error

FEWEST = 4  # training samples, of which the usual sixth is one
MOST_NAMES = 1000  # of outputs that a study stores
NO_TEST_NOTE = "test: none is held out; hpo evaluate NAME --outer-folds 5 scores the study without a test set"

__all__ = [
    "DatasetReference",
    "DatasetRow",
    "check_unchanged",
    "describe",
    "full_name",
    "is_path",
    "load",
    "locate_file",
    "make_reference",
]


class DatasetReference(BaseModel):
    """Identity of a study's data set, by which workers find the same data and refuse any other.

    Attributes:
        name: a registered name, the absolute path of a file or a folder, or `sklearn:NAME`.
        sha256: hex digest by file name, of the unpacked content of gzipped files; empty for a data set that the user
            registered.
        module: the module that registers a user's data set.
        shape: of one sample as models see it, channels first; None for a user's data set.
        samples: number of training samples; None likewise.
        source: how the file is read; None for one that says all itself. Of a registered name only the size of images.
        task: what is predicted.
        output_names: see `hpo.datasets.Dataset`.
        outer: the outer fold that is left out, and is the test set; None of the whole data set.
        own_validation: whether a file brings validation samples of its own; known at the launch and not stored.
        notes: remarks on what was guessed or left out, said at the launch and not stored.
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
    outer: OuterFold | None = None
    own_validation: bool = Field(False, exclude=True)
    notes: tuple[str, ...] = Field((), exclude=True)

    def __eq__(self, other: object) -> bool:
        """Compare what identifies the data."""
        return isinstance(other, DatasetReference) and self.model_dump() == other.model_dump()

    def __hash__(self) -> int:
        return hash((self.name, self.module, *self.sha256.values()))

    def without(self, outer: OuterFold) -> DatasetReference:
        """Return the reference of the same data without an outer fold, which is the test set."""
        samples = None if self.samples is None else outer.training
        return self.model_copy(update={"outer": outer, "samples": samples})

    @property
    def tested(self) -> bool:
        """False where it is known to have no test set, because none was to be held out."""
        return self.outer is not None or self.source is None or self.source.test != 0

    @property
    def content_key(self) -> str:
        """Key of the content: equal for the same samples, labels and test set, wherever the files lie.

        One file read by other options, as another target or another test part, is other data.
        """
        options = {} if self.source is None else self.source.model_dump(exclude_defaults=True, exclude={"task"})
        options |= {part: "a file" for part in ("test", "validation") if isinstance(options.get(part), str)}
        outer = None if self.outer is None else self.outer.model_dump()
        return repr((sorted(self.sha256.values()) or self.name, self.task, options, outer))

    @property
    def label(self) -> str:
        """The data set in words: its name, and which outer fold is left out."""
        return self.name if self.outer is None else f"{self.name} without {self.outer.name}"

    @property
    def spelled(self) -> str | dict[str, Any]:
        """The data set as a study file names it: a name, or a table of path and options."""
        return spell_source(self.name, self.source)

    @property
    def spelled_inline(self) -> str:
        """The same as the option `--dataset` takes it."""
        return spell_inline(self.name, self.source)

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters that the data set decides, by name: the task, and a fraction for validation."""
        fraction = self.source.validation if self.source else None
        task = {} if self.task == "classification" else {"task": self.task}
        return task | ({"validation": fraction} if isinstance(fraction, float) else {})


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


def make_reference(value: object, base: Path | None = None) -> DatasetReference:
    """Check that a data set can be used, and return the reference by which studies name it.

    Args:
        value: a registered name, `cifar10` or `cifar100`, the path of a file or a folder, or a table of path and
            options; see `parse_source`.
        base: the folder that a relative path starts from; by default the working directory.

    Raises:
        DefinitionError: the value is none of these.
        DataError: the data set is missing or wrong; the line names the file, what is wrong and what to do.
        RegistryError: no data set of that name is registered.
    """
    name, source = parse_source(value)
    folder = base or Path.cwd()
    name = full_name(name, folder)
    if not is_path(name, folder):
        return _registered_reference(name, source)
    path, source = Path(name), None if source is None else source.resolve(folder)
    reader = find_reader(path)
    with name_saved_data(path):
        dataset = read_dataset(path, source or DatasetSource())
        if source is not None and source.text and dataset.texts is None:
            raise DataError(f"{path}, text = '{source.text[0]}': is for tables, one of whose columns holds texts")
        given = source.given if source is not None and dataset.texts is None else set()
        if idle := sorted({"text_words", "text_length"} & given):
            raise DataError(f"{path}, {idle[0]}: is for texts; name their column with text = …, or leave it out")
        if callable(dataset.test):
            dataset.test()  # checked, not looked at: a fault in it must not end a study at its very end
    x, y = dataset.train if is_split(dataset.train) else (None, None)
    task = dataset.task or guess_task(y)
    if x is not None and dataset.validation is None and len(x) < FEWEST:
        raise DataError(
            f"{path}: {quantity(len(x), 'training sample')} {'is' if len(x) == 1 else 'are'} too few to hold out a "
            f"validation part; give at least {FEWEST}, or validation data"
        )
    return DatasetReference(
        name=str(path),
        sha256=_digest(reader, path, source),
        shape=None if x is None else _sample_shape(x, dataset),
        samples=None if x is None else len(x),
        source=source,
        task=task,
        output_names=tuple(dataset.output_names)[:MOST_NAMES],
        own_validation=dataset.validation is not None,
        notes=(*dataset.notes, *(() if dataset.test is not None else (NO_TEST_NOTE,))),
    )


def full_name(name: str, base: Path | None = None) -> str:
    """Return the name that a reference has of a data set: of a file or a folder its absolute path.

    Args:
        name: as it is given.
        base: the folder that a relative path starts from; by default the working directory.

    Raises:
        DataError: there is no such file or folder.
    """
    name, folder = resolve_name(name), base or Path.cwd()
    if not is_path(name, folder):
        return name
    return str(find_path(Path(name) if name.startswith(PREFIXES) else absolute_path(folder / Path(name).expanduser())))


def _sample_shape(x: Any, dataset: Dataset) -> tuple[int, ...]:
    return tuple(x.shape[1:]) if dataset.features else channels_first(x.shape[1:])


def _digest(reader: Reader, path: Path, source: DatasetSource | None) -> dict[str, str]:
    """Return the SHA-256 of all files of a data set, by name; of one name all but the last have their place."""
    parts = [reader.digest(path), *(find_reader(part).digest(part) for part in _part_paths(source))]
    digests: dict[str, str] = {}
    for place, part in enumerate(parts):
        later = {name for other in parts[place + 1 :] for name in other}
        digests |= {f"{place + 1}:{name}" if name in later else name: sha256 for name, sha256 in part.items()}
    return digests


def _part_paths(source: DatasetSource | None) -> Iterator[Path]:
    for part in (source.test, source.validation) if source else ():
        if isinstance(part, str):
            yield find_path(Path(part))


def locate_file(reference: DatasetReference) -> Path:
    """Return the path of a reference's file or folder, and refuse another than that of the study.

    Raises:
        DataError: it, or a file of its source, is missing or another one.
    """
    path = find_path(Path(reference.name))
    check_digest(path, _digest(find_reader(path), path, reference.source), reference.sha256)
    return path


def _load_file(reference: DatasetReference) -> Dataset:
    """Read a file or folder again, and refuse another than that of the study."""
    path = locate_file(reference)

    def read_test() -> Any:
        locate_file(reference)  # hours may have passed
        return dataset.test() if callable(dataset.test) else dataset.test

    source = reference.source or DatasetSource()
    if source.task is None:
        source = source.model_copy(update={"task": reference.task})  # as the labels were understood at the launch
    dataset = read_dataset(path, source)
    return dataset if dataset.test is None else replace(dataset, test=read_test)


def check_unchanged(reference: DatasetReference) -> None:
    """Refuse data that are not those which a reference was made of, without reading samples.

    Files that have been read in this process, and folders whose digest is kept, are only looked at if they have changed
    since. Data sets of registered names pass: who loads them checks them.

    Raises:
        DataError: a file or a folder is missing, or has changed; the line names it.
    """
    if reference.module is None and is_path(reference.name):
        path = find_path(Path(reference.name))
        check_digest(path, _digest(find_reader(path), path, reference.source), reference.sha256)


def load(reference: DatasetReference) -> Dataset:
    """Load the data set of a reference; its test data are not read before `test` is called.

    Of a reference that leaves an outer fold out, that is the test set.

    Raises:
        DataError: it is missing or cannot be used, or differs from the data that the reference was made of.
        RegistryError: its name is not registered; the line names the module to import.
    """
    whole = _load_whole(reference)
    return whole if reference.outer is None else take_outer_fold(whole, reference.outer, reference.name)


def _load_whole(reference: DatasetReference) -> Dataset:
    if reference.module is None and is_path(reference.name):
        return _load_file(reference)
    entry = registry.datasets.get(reference.name, reference.module)
    where = f"data set '{entry.name}'"
    with _call_user(where):
        dataset = make_dataset(entry.load()(), where)
    if not isinstance(dataset, Dataset):
        raise DataError(
            f"{where}: its function returns {type(dataset).__name__}; it must return hpo.Dataset, "
            "or a torch.utils.data.Dataset that has its samples by number"
        )
    size = None if reference.source is None else reference.source.resize
    if entry.builtin:
        return resize_dataset(dataset, size, where)
    if dataset.task is None and reference.task != "classification":  # which labels may suggest for another task
        dataset = replace(dataset, task=reference.task)
    read = resize_dataset(read_parts(dataset, where, size), size, where)
    checked = check_dataset(code_labels(read, where), where)
    if checked.task != reference.task:
        raise DataError(
            f"{where}: its labels are for {checked.task}, but the study is for {reference.task}; register it with "
            f'@hpo.dataset("{entry.name}", task="{checked.task}")'
        )
    if not callable(read_test := checked.test):
        return checked

    def test() -> Any:
        with _call_user(f"{where}, test"):
            return read_test()

    return replace(checked, test=test)


@contextmanager
def _call_user(where: str) -> Iterator[None]:
    """Translate what a function of the user's raises, which can be anything, into one line.

    Raises:
        DataError: names the data set, the error and its place.
    """
    try:
        with translate_exits():
            yield
    except (HpoError, MemoryError):
        raise
    except Exception as error:
        line = f" ({located})" if (located := locate_error(error)) else ""
        raise DataError(f"{where}: {summarize_error(error)}{line}") from error


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


def is_path(name: str, base: Path | None = None) -> bool:
    """Return whether the name of a data set is that of a file or a folder, or of a data set of another package.

    Args:
        name: as it is given.
        base: the folder that a relative path starts from; by default the working directory.
    """
    if name.startswith(PREFIXES) or "/" in name or os.sep in name:
        return True
    places = [folder for folder in (base or Path(), data_folder()) if folder is not None]
    return not registry.datasets.has(name) and (
        bool(Path(name).suffix) or any((folder / name).is_dir() for folder in places)
    )


def _registered_reference(name: str, source: DatasetSource | None) -> DatasetReference:
    entry = registry.datasets.get(name)
    if source is not None and (wrong := sorted(source.given - {"task", "resize"})):
        raise DefinitionError(
            f"dataset, {wrong[0]}: is for files; '{name}' is registered, and its function decides that"
        )
    size = None if source is None else source.resize
    resized = None if size is None else DatasetSource(resize=size)
    if not entry.builtin:
        task = (source and source.asked_task) or entry.task
        return DatasetReference(name=name, module=entry.module, task=task, source=resized)
    if source is not None and source.asked_task not in (None, entry.task):
        raise DefinitionError(f"dataset, task = '{source.task}': the labels of {name} are for {entry.task}")
    if name == registry.NO_DATA and size is not None:
        raise DefinitionError(f"dataset, resize = {list(size)}: '{name}' has no images; leave it out")
    if name == registry.NO_DATA:
        return DatasetReference(name=name)
    data = IDX[name]
    verify_idx(data, locate_idx(data))
    return DatasetReference(
        name=name, sha256=dict(data.sha256), shape=(1, *(size or data.shape)), samples=data.train, source=resized
    )
