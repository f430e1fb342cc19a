"""Map-style data sets of torch's (`torch.utils.data.Dataset`): recognized, checked, and read into arrays.

Torch itself is not imported: who has such a data set has imported it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from hpo.config.choices import Task
from hpo.datasets.dataset import Dataset, Split, is_split
from hpo.datasets.image_arrays import Size, resize_images
from hpo.datasets.labels import tell_declared_task
from hpo.datasets.part_names import PARTS
from hpo.errors import DataError, describe_unknown
from hpo.utils.memory import free_memory
from hpo.utils.text import locate_error, shorten, summarize_error

__all__ = ["Samples", "is_map_style", "is_torch", "make_dataset", "read_parts"]

log = logging.getLogger("hpo.datasets")
Array = np.ndarray[Any, Any]
SAMPLE_KEYS = {"image", "img", "pixel_values", "x", "input", "inputs", "feature", "features", "data"}
LABEL_KEYS = {"label", "labels", "y", "target", "targets", "class"}
SHARE = 0.5  # of the free memory that a part may take
PROBES = 8  # samples whose size stands for that of all


def is_map_style(value: object) -> bool:
    """Return whether a value is a data set of torch's whose samples have numbers."""
    return _is_torch(value, "Dataset") and not _is_torch(value, "IterableDataset")


def is_torch(value: object) -> bool:
    """Return whether a value is a data set of torch's of any kind, or a loader of one."""
    return _is_torch(value, "Dataset") or _is_torch(value, "DataLoader")


def _is_torch(value: object, kind: str) -> bool:
    module = sys.modules.get("torch.utils.data")
    return module is not None and isinstance(value, getattr(module, kind))


@dataclass(frozen=True)
class Samples:
    """Samples of a map-style data set, checked one by one.

    Attributes:
        dataset: the user's.
        where: the beginning of an error's line: the data set and the part.
        size: height and width that images are brought to; None for their own.
        collate: makes a batch (x, y) of a list of samples, as torch's `collate_fn`; None stacks them.
        workers: how many processes read batches in training; 0 reads them in the training process.
        labels: (N,) or (N, columns), where they are known because the samples are held in memory.
    """

    dataset: Any
    where: str
    size: Size | None = None
    collate: Callable[[list[Any]], Any] | None = None
    workers: int = 0
    labels: Array | None = None

    def __len__(self) -> int:
        """Return the number of samples.

        Raises:
            DataError: the data set does not tell.
        """
        try:
            return len(self.dataset)
        except Exception as error:  # of whatever kind: the method is the user's
            raise DataError(
                f"{self.where}: {type(self.dataset).__name__} does not tell its length ({summarize_error(error)}); "
                "give it a __len__"
            ) from error

    def __getitem__(self, index: int) -> tuple[Array, Array]:
        """Return a sample, channels first where it is a tensor, and its label, of shape () or (columns,).

        Raises:
            DataError: it cannot be read, or is no sample with a label.
        """
        where = f"{self.where}, sample {index}"
        x, y = _pick(self._get(index), where)
        return self._resize(x, _to_array(x, where), where), _to_label(y, where)

    def _get(self, index: int) -> Any:
        """Return a sample with its label, as the data set has them."""
        try:
            return self.dataset[index]
        except Exception as error:
            line = f" ({located})" if (located := locate_error(error)) else ""
            raise DataError(f"{self.where}, sample {index}: {summarize_error(error)}{line}") from error

    def _resize(self, x: Any, sample: Array, where: str) -> Array:
        """Return a sample, an array of what the data set gave, in the size; channels first where that is a tensor."""
        if self.size is None:
            return sample
        first = _is_tensor(x) and sample.ndim == 3
        resized: Array = resize_images((sample.transpose(1, 2, 0) if first else sample)[None], self.size, where)[0]
        return resized.transpose(2, 0, 1) if first else resized

    @cached_property
    def has_tensors(self) -> bool:
        """True where samples are tensors, which have their channels first."""
        x, _ = _pick(self.dataset[0], self.where)
        return _is_tensor(x)

    def estimate_bytes(self) -> int:
        """Return about how many bytes all samples take in memory: as they are, and as float32.

        Raises:
            DataError: there are none, or one cannot be read.
        """
        if not len(self):
            raise DataError(f"{self.where}: no samples; give at least one")
        indices = sorted({int(index) for index in np.linspace(0, len(self) - 1, PROBES)})
        arrays = [self[index][0] for index in indices]
        return len(self) * max(array.nbytes + 4 * array.size for array in arrays)

    def read(self, indices: Sequence[int] | None = None) -> Split:
        """Return samples, x (N, …), a tensor where the samples are tensors, and labels, y (N,) or (N, columns).

        Args:
            indices: which ones; by default all.

        Raises:
            DataError: a sample cannot be read, or has another shape or type than the first.
        """
        chosen = range(len(self)) if indices is None else indices
        if self.collate is not None:
            return self._collate(chosen)
        first, label = self[chosen[0]]
        x, labels = np.empty((len(chosen), *first.shape), first.dtype), []
        for row, index in enumerate(chosen):
            sample, y = self[index]
            self._check_alike(index, "shape", sample.shape, first.shape)
            self._check_alike(index, "type", sample.dtype, first.dtype)
            self._check_alike(index, "a label of shape", y.shape, label.shape)
            self._check_alike(index, "a label that is", _name_kind(y), _name_kind(label))
            x[row] = sample
            labels.append(y)
        return (sys.modules["torch"].from_numpy(x) if self.has_tensors else x), np.stack(labels)

    def _collate(self, indices: Sequence[int]) -> Split:
        """Return the batch that the user's function makes of samples."""
        assert self.collate is not None
        items = [self._get(index) for index in indices]
        try:
            batch = self.collate(items)
        except Exception as error:
            line = f" ({located})" if (located := locate_error(error)) else ""
            raise DataError(f"{self.where}: collate: {summarize_error(error)}{line}") from error
        if not (isinstance(batch, Sequence) and len(batch) == 2 and all(hasattr(part, "shape") for part in batch)):
            parts = [type(part).__name__ for part in batch] if isinstance(batch, Sequence) else []
            what = f"({', '.join(parts)})" if parts else type(batch).__name__
            raise DataError(
                f"{self.where}: collate returns {what}; it must return (x, y), a tensor of samples (n, …) and one of "
                "their labels (n,)"
            )
        return batch[0], batch[1]

    def hold(self) -> Samples:
        """Return the same samples, read and held in memory, with their labels.

        Raises:
            DataError: a sample cannot be read, or has no label, or another kind of label than the first.
        """
        self._check_random()
        items = [self._get(index) for index in range(len(self))]
        labels = [
            _to_label(_pick(item, f"{self.where}, sample {i}")[1], f"{self.where}, sample {i}")
            for i, item in enumerate(items)
        ]
        for index, label in enumerate(labels):
            self._check_alike(index, "a label of shape", label.shape, labels[0].shape)
            self._check_alike(index, "a label that is", _name_kind(label), _name_kind(labels[0]))
        return replace(self, dataset=items, labels=np.stack(labels))

    def take(self, indices: Sequence[int]) -> Samples:
        """Return some of the samples that are held in memory, with their labels."""
        assert self.labels is not None
        return replace(self, dataset=[self.dataset[index] for index in indices], labels=self.labels[indices])

    def read_all(self) -> Split:
        """Return all samples and labels, as `read` does, and say so where they are others each time.

        Raises:
            DataError: a sample cannot be read, or has another shape or type than the first.
        """
        self._check_random()
        return self.read()

    def _check_random(self) -> None:
        """Say so where samples that are read once would be others each time."""
        if not np.array_equal(self[0][0], self[0][0], equal_nan=True):
            log.warning(
                "%s: sample 0 is another one each time that it is read (a random transform?); each is read once, "
                "before training: the parameter augment, or @hpo.model(augment=…), changes them from batch to batch",
                self.where,
            )

    def _check_alike(self, index: int, what: str, value: object, first: object) -> None:
        if value != first:
            raise DataError(
                f"{self.where}, sample {index}: {what} {value}, where others have {first}; "
                "make them equal, such as by a transform"
            )


def _name_kind(label: Array) -> str:
    return "a text" if label.dtype.kind == "U" else "a number"


def make_dataset(returned: object, where: str) -> object:
    """Return the data set that a user's function means by one of torch's, or a dict or tuple of them; else the value.

    Args:
        returned: a map-style data set, for training; a dict of `train`, `validation` and `test`; or a tuple of the
            three, in this order.
        where: the beginning of an error's line.

    Raises:
        DataError: the parts are not named, or not map-style.
    """
    if is_map_style(returned):
        return Dataset(train=returned)  # type: ignore[arg-type]
    if _is_torch(returned, "IterableDataset"):
        raise DataError(
            f"{where}: an IterableDataset has no samples by number; return a map-style one, or its batches with "
            "hpo.Dataset(train=DataLoader(…), validation=…, classes=…)"
        )
    parts = (
        returned.values() if isinstance(returned, Mapping) else returned if isinstance(returned, tuple) else [returned]
    )
    if any(_is_torch(part, "DataLoader") for part in parts):
        raise DataError(
            f"{where}: returns a DataLoader; return the data set that it reads (its .dataset), or its batches with "
            "hpo.Dataset(train=loader, validation=…, classes=…)"
        )
    if isinstance(returned, tuple) and any(map(is_map_style, returned)):
        if len(returned) != 3:
            raise DataError(
                f"{where}: returns {len(returned)} data sets; return a dict that says which is which: "
                '{"train": …, "validation": …, "test": …}'
            )
        return Dataset(train=returned[0], validation=returned[1], test=returned[2])
    if isinstance(returned, Mapping) and any(map(is_map_style, returned.values())):
        return _name_parts(returned, where)
    return returned


def _name_parts(parts: Mapping[Any, Any], where: str) -> Dataset:
    named: dict[str, Any] = {}
    for key, part in parts.items():
        if key not in PARTS:
            raise DataError(f"{where}: {describe_unknown('part', str(key), PARTS)}")
        if PARTS[key] in named:
            raise DataError(f"{where}: gives its {PARTS[key]} data twice")
        named[PARTS[key]] = part
    if "train" not in named:
        raise DataError(f"{where}: has no training data; give it a part 'train'")
    return Dataset(**named)


def read_parts(dataset: Dataset, where: str, size: Size | None = None) -> Dataset:
    """Read those parts of a data set that are map-style into memory; the test data when they are asked for.

    Training data that do not fit stay `Samples`, which are read batch by batch.

    Args:
        dataset: as a user's function returned it.
        where: the beginning of an error's line.
        size: height and width that images are brought to, one by one, so that they may differ in size.

    Raises:
        DataError: a part cannot be read, or does not fit where it must.
    """
    if dataset.workers < 0 or not isinstance(dataset.workers, int):
        raise DataError(f"{where}: workers = {shorten(dataset.workers)}; give the number of processes that read, or 0")
    if dataset.collate is not None:
        if size is not None:
            raise DataError(f"{where}: resize: its collate function makes the batches; bring images to one size there")
        return _collate_parts(dataset, where)
    train, validation, test = dataset.train, dataset.validation, dataset.test
    if dataset.workers and not is_map_style(train):
        raise DataError(
            f"{where}: workers = {dataset.workers}: they read samples by number, as a torch.utils.data.Dataset has "
            f"them, but train is {_name_type(train)}; leave `workers` out"
        )
    if is_map_style(train):
        samples = Samples(train, f"{where}, train", size, workers=dataset.workers)
        train = _read_train(samples, dataset)
        if isinstance(train, Samples):
            dataset = replace(dataset, task=dataset.task or _probe_task(samples))
    if is_map_style(validation):
        validation = _read(Samples(validation, f"{where}, validation", size))

    def read_test() -> Any:
        part = test() if callable(test) and not is_map_style(test) else test
        return _read(Samples(part, f"{where}, test", size)) if is_map_style(part) else part

    lazy = read_test if callable(test) or is_map_style(test) else test
    return replace(dataset, train=train, validation=validation, test=lazy)


def _collate_parts(dataset: Dataset, where: str) -> Dataset:
    """Return a data set whose samples become batches by its own function; validation and test data are one batch each.

    Training samples that fit in memory are held there.
    """

    def samples(part: Any, name: str) -> Samples:
        if is_split(part) or not (hasattr(part, "__len__") and hasattr(part, "__getitem__")):
            raise DataError(
                f"{where}, {name}: collate makes batches of samples, but {name} is {_name_type(part)}; give a list of "
                "samples (x, y), or a torch.utils.data.Dataset"
            )
        workers = dataset.workers if name == "train" else 0
        return Samples(part, f"{where}, {name}", collate=dataset.collate, workers=workers)

    train, test = samples(dataset.train, "train"), dataset.test
    train = _read_train(train, dataset)
    validation = None if dataset.validation is None else samples(dataset.validation, "validation").read()

    def read_test() -> Split:
        return samples(test() if callable(test) and not is_map_style(test) else test, "test").read()

    return replace(dataset, train=train, validation=validation, test=None if test is None else read_test)


def _name_type(part: Any) -> str:
    return "one tuple of arrays (x, y)" if is_split(part) else type(part).__name__


def _read_train(samples: Samples, dataset: Dataset) -> Any:
    problem = _lacks_memory(samples)
    if samples.workers:  # which read the samples in training, so that nothing is held
        if dataset.validation is None or dataset.classes is None:
            raise DataError(f"{samples.where}: with `workers`, give hpo.Dataset `classes` and `validation` as well")
        return samples
    if not problem and samples.collate is not None:
        return samples.hold()
    if not problem:
        return samples.read_all()
    if dataset.validation is None or dataset.classes is None:
        raise DataError(f"{problem}; to have them read batch by batch, give hpo.Dataset `classes` and `validation`")
    log.warning("%s: they are read batch by batch, and not scaled", problem)
    return samples


def _probe_task(samples: Samples) -> Task:
    """Return the task that the labels of some samples suggest."""
    indices = sorted({int(index) for index in np.linspace(0, len(samples) - 1, PROBES)})
    return tell_declared_task(samples.read(indices)[1])


def _read(samples: Samples) -> Split:
    problem = _lacks_memory(samples)
    if problem:
        raise DataError(f"{problem}; only training data can be read batch by batch, give fewer")
    return samples.read_all()


def _lacks_memory(samples: Samples) -> str:
    """Return what is wrong where samples would take too much memory; else an empty text."""
    size, free = samples.estimate_bytes(), free_memory()
    if size <= SHARE * free:
        return ""
    return (
        f"{samples.where}: {len(samples):,} samples take about {size / 1e9:,.3g} GB, more than half of the "
        f"{free / 1e9:,.3g} GB that are free"
    )


def _pick(item: Any, where: str) -> tuple[Any, Any]:
    """Return the sample and the label of what a data set gives."""
    if isinstance(item, Mapping):
        x, y = ([key for key in item if str(key).lower() in keys] for keys in (SAMPLE_KEYS, LABEL_KEYS))
        if len(x) == len(y) == 1:
            return item[x[0]], item[y[0]]
        names = shorten(", ".join(map(str, item)), quote=False)
        raise DataError(f"{where}: a dict of {names}, where sample and label are not clear; return a tuple (x, y)")
    if isinstance(item, Sequence) and not isinstance(item, str) and len(item) == 2:
        return item[0], item[1]
    size = f" of {len(item)}" if isinstance(item, Sequence) and not isinstance(item, str) else ""
    raise DataError(f"{where}: is {type(item).__name__}{size}; it must be a tuple (x, y), a sample and its label")


def _is_tensor(x: object) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def _to_array(x: Any, where: str) -> Array:
    if _is_tensor(x):
        x = x.detach().cpu()
        x = x.float() if str(x.dtype) == "torch.bfloat16" else x
    elif getattr(x, "mode", None) in ("P", "PA", "CMYK", "YCbCr"):  # a picture of PIL's whose numbers are no colours
        x = x.convert("RGB")
    try:
        array = np.asarray(x)
    except Exception as error:  # a list of lists of different lengths
        raise DataError(f"{where}: {type(x).__name__} is no array: {summarize_error(error)}") from error
    if array.dtype.kind not in "buif":
        advice = "give the data set a transform that makes it one"
        raise DataError(f"{where}: {type(x).__name__} {shorten(x, 40)} is no array of numbers; {advice}")
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _to_label(y: Any, where: str) -> Array:
    """Return a label: a text or a number, of shape (), or a row of numbers, (columns,)."""
    advice = "it must be a class (a number or a text), a real number, or a row of numbers"
    if _is_tensor(y):
        y = y.detach().cpu()
        y = y.float() if str(y.dtype) == "torch.bfloat16" else y
    try:
        array = np.asarray(y)
    except Exception as error:  # a list of lists of different lengths
        raise DataError(f"{where}: its label is {shorten(y, 40)}; {advice}") from error
    if array.dtype.kind not in ("buifU" if array.ndim == 0 else "buif"):
        raise DataError(f"{where}: its label is {shorten(y, 40)}; {advice}")
    if array.ndim > 1 or array.size == 0:
        raise DataError(f"{where}: a label of shape {array.shape}; {advice}")
    whole = array.astype(np.int64) if array.dtype.kind in "bui" else array
    return whole.reshape(()) if whole.size == 1 else whole
