"""Data sets in training: split, scaled and resident on the device as float32 tensors.

Everything random follows from seeds alone: the split from (split seed), the order of an epoch from (order seed, epoch).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from hpo.config.choices import Task
from hpo.config.registry import NO_DATA
from hpo.config.resampling import Division
from hpo.config.trial_config import TrialConfig
from hpo.datasets import (
    Dataset,
    Feature,
    SampleShape,
    Split,
    check_split,
    divide_rows,
    guess_task,
    is_split,
    read_labels,
    split_rows,
)
from hpo.datasets.map_style import Samples
from hpo.datasets.table_encoder import TableEncoder
from hpo.errors import ConfigError, DataError
from hpo.training.augmentation import Augmentation, make_augmentation
from hpo.training.conversion import (
    INTEGERS,
    Conversion,
    convert_batch,
    count_codes,
    load_part,
    scaling_kind,
    to_integers,
)
from hpo.training.process_state import contain_user_code
from hpo.training.sample_reader import read_batches
from hpo.training.scaling import Scaling
from hpo.training.weights import make_weights, read_weights

__all__ = ["Data", "augment_data", "epoch_seed", "prepare_data", "samples_key"]

Array = np.ndarray[Any, Any]
Batch = tuple[Tensor, Tensor]
TrainBatch = tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor]  # with the weights of its samples
Room = Callable[[int], Tensor | None]  # for so many samples
# Parameters that decide the samples, the labels or their weights.
DATA_PARAMETERS = ("validation", "seed_of_split", "input_scaling", "numeric_scaling", "class_weight")
ORDER, NOISE = 1, 2  # purposes of a random stream, so that no two share their numbers


def samples_key(config: TrialConfig, division: Division | None = None) -> tuple[object, ...]:
    """Return a key that is equal for fits whose samples, labels and weights are the same, in any order."""
    values = {name: getattr(config, name) for name in DATA_PARAMETERS}
    if config.integers:
        values |= {"input_scaling": INTEGERS, "numeric_scaling": None}  # which have no effect
    if division is not None and division.kind == "fold":
        values["validation"] = None  # which has no effect
    return (division, *values.values())


def epoch_seed(seed: int, epoch: int) -> int:
    """Return a 63-bit seed for torch's own generator (dropout) in an epoch, from (seed, epoch) alone."""
    return int(np.random.SeedSequence([seed, NOISE, epoch]).generate_state(1, np.uint64)[0] >> np.uint64(1))


@dataclass
class Data:
    """Data set on a device, for one split and scaling. Tensors of samples are float32 in torch's layout.

    Attributes:
        x_train, y_train: (N, *shape), and classes (N,) of int64, labels (N, L) of 0 and 1, or targets (N, T) of
            float32, scaled; empty where the data set gives batches.
        x_val, y_val: the validation split.
        shape: of one sample: (channels, H, W) or (features,).
        classes: the number of classes, labels or targets.
        device: where the tensors are.
        seed: decides the order of the samples.
        dataset: the data set as it was loaded; with a division, without validation samples of its own.
        name: what error messages call it.
        input_scaling: the kind of the scaling; `integers` where samples are whole numbers, tensors of int64.
        scaling: shift and scale of the samples; None of a table, of integers, and where the data set gives batches.
        task: what is predicted.
        target_scaling: shift and scale of the targets of regression, fitted to the training part.
        weights: of the training samples, (N,), or of each of their labels, (N, L), with mean 1; None where all weigh
            the same. They count in the training loss alone, in no validation and no metric.
        val_index: the validation samples' positions among the training samples of the data set; None where it has
            validation samples of its own.
        encoder: of a table, fitted to the training part; None of other samples.
        division: of the samples of this fit; None is the configuration's own validation split.
        augmentation: changes the images of training batches; None where they are as they are.
        vocabulary: of integers, how many codes there are, from 0; None where none is known.

    Where all samples are for training (`validation` 0), the validation split has none.
    """

    x_train: Tensor
    y_train: Tensor
    x_val: Tensor
    y_val: Tensor
    classes: int
    device: torch.device
    seed: int
    dataset: Dataset
    name: str
    input_scaling: str
    scaling: Scaling | None = None
    task: Task = "classification"
    target_scaling: Scaling | None = None
    weights: Tensor | None = None
    val_index: Array | None = None
    encoder: TableEncoder | None = None
    division: Division | None = None
    augmentation: Augmentation | None = None
    vocabulary: int | None = None

    @property
    def shape(self) -> SampleShape:
        """The shape of one sample."""
        shape = SampleShape(self.x_val.shape[1:]) if self.encoder is None else self.encoder.shape
        unknown = self.vocabulary is None and self.input_scaling == INTEGERS
        return SampleShape(shape, shape.categories, self._explain_vocabulary() if unknown else self.vocabulary)

    def _explain_vocabulary(self) -> str:
        """Say why it is not known how many codes there are."""
        train = self.dataset.train
        if is_split(train) or (isinstance(train, Samples) and train.labels is not None):  # all of which were read
            return f"codes of {self.name} are below 0; number them from 0"
        return f"the batches of {self.name} do not tell it; give `vocabulary` in hpo.Dataset"

    @property
    def features(self) -> Sequence[Feature]:
        """The meaning of the columns of a table's raw matrix; empty for other samples."""
        return self.dataset.features

    @property
    def output_names(self) -> Sequence[str]:
        """The values of the classes, or the names of the labels or targets; empty where they have none."""
        return self.dataset.output_names

    def to_targets(self, outputs: Tensor) -> Tensor:
        """Return the targets (N, T), in their own units, that outputs of a regression stand for.

        Args:
            outputs: (N, T), or (N, 2 T) with the means first; or scaled targets.
        """
        scaled = outputs[:, : self.classes]
        if self.target_scaling is None:
            return scaled
        shift, scale = (
            torch.from_numpy(np.asarray(each, np.float32)).to(scaled)
            for each in (self.target_scaling.shift, self.target_scaling.scale)
        )
        return scaled * scale + shift

    @property
    def integers(self) -> bool:
        """True where samples are whole numbers as they are, tensors of int64."""
        return self.input_scaling == INTEGERS

    @property
    def raw_bytes(self) -> bool:
        """True where the samples were bytes, from 0 to 255, before they were scaled."""
        if self.integers:
            return False
        part: Any = self.dataset.validation if self.streams else self.dataset.train
        if part is None:  # of samples that are held one by one
            part = cast(Any, self.dataset.train).read([0])
        x = part[0] if is_split(part) else next(iter(part))[0]
        return str(x.dtype).endswith("uint8")

    @property
    def nbytes(self) -> int:
        """The bytes of its tensors."""
        tensors = self.x_train, self.y_train, self.x_val, self.y_val, self.weights
        return sum(0 if tensor is None else tensor.nbytes for tensor in tensors)

    @property
    def streams(self) -> bool:
        """True where training reads its batches from the data set instead of resident samples."""
        return not is_split(self.dataset.train)

    @cached_property
    def digest(self) -> str:
        """Digest of the labels on both sides of the split, of scaling and weights, hence of every training sample.

        Folds of a data set in order may have the same labels, so a division is part of it.
        """
        arrays = [self.y_train.cpu().numpy(), self.y_val.cpu().numpy()]
        for scaling in filter(None, (self.scaling, self.target_scaling)):
            arrays += [scaling.shift, scaling.scale]
        arrays += [] if self.weights is None else [self.weights.cpu().numpy()]
        parts = [array.tobytes() for array in arrays]
        parts += [self.encoder.model_dump_json().encode()] if self.encoder else []
        parts += [str(self.division).encode()] if self.division else []
        return hashlib.sha256(b"".join(parts)).hexdigest()[:16]

    def steps(self, batch_size: int) -> int:
        """Return the steps of one epoch. A last batch of one sample is left out: it has no statistics."""
        if isinstance(self.dataset.train, Samples):
            return _steps(len(self.dataset.train), batch_size)
        if self.streams:
            assert isinstance(self.dataset.train, Sized)
            return len(self.dataset.train)
        return _steps(len(self.y_train), batch_size)

    def last_batch(self, batch_size: int) -> int:
        """Return how many samples in memory the last batch of an epoch has."""
        return min(batch_size, len(self.y_train) - (self.steps(batch_size) - 1) * batch_size)

    @property
    def seeks(self) -> bool:
        """True where batches may begin anywhere in an epoch, because reading the ones before would change nothing."""
        train = self.dataset.train
        return isinstance(train, Samples) and (train.workers > 0 or train.collate is not None)

    def batches(self, batch_size: int, epoch: int, room: Room | None = None, first: int = 0) -> Iterator[TrainBatch]:
        """Return the batches of an epoch, in the order that follows from (seed, epoch), their images augmented.

        They are x (n, *shape) and y (n,) or (n, columns), and the weights of these where there are any.

        Args:
            batch_size: the samples of each batch but the last.
            epoch: from 1.
            room: returns memory for the samples of the next batch, (n, features), or None for memory of their own.
            first: the number of the batch to begin with, from 0, where `seeks` allows another than that.
        """
        if isinstance(self.dataset.train, Samples):
            batches = self._read_batches(self.dataset.train, batch_size, epoch, first)
        elif self.streams:
            batches = self._convert_batches(self.dataset.train)
        else:
            batches = self._resident_batches(batch_size, epoch, room)
        return batches if self.augmentation is None else self._augment(batches, epoch, first)

    def _augment(self, batches: Iterator[TrainBatch], epoch: int, first: int) -> Iterator[TrainBatch]:
        assert self.augmentation is not None
        for step, (x, *rest) in enumerate(batches, first):
            yield self.augmentation(x, self.seed, epoch, step), *rest  # type: ignore[misc]

    def _resident_batches(self, batch_size: int, epoch: int, room: Room | None) -> Iterator[TrainBatch]:
        samples, flat = len(self.y_train), self.x_train.flatten(1)
        order = self.order(epoch)
        for i in range(_steps(samples, batch_size)):
            index = order[i * batch_size : (i + 1) * batch_size]
            x = torch.index_select(flat, 0, index, out=room(len(index)) if room else None)
            x = x.view(-1, *self.x_train.shape[1:])
            y = self.y_train.index_select(0, index)
            yield (x, y) if self.weights is None else (x, y, self.weights.index_select(0, index))

    def order(self, epoch: int) -> Tensor:
        """Return the order of the samples in memory in an epoch, (N,), which follows from (seed, epoch)."""
        return torch.from_numpy(self._order(len(self.y_train), epoch)).to(self.device)

    def _read_batches(self, samples: Samples, batch_size: int, epoch: int, first: int) -> Iterator[TrainBatch]:
        order = self._order(len(samples), epoch)
        steps = _steps(len(samples), batch_size)
        indices = [order[i * batch_size : (i + 1) * batch_size] for i in range(steps)]
        batches = read_batches(samples, indices, (self.seed, epoch), first, pin=self.device.type == "cuda")
        for index, batch in zip(indices[first:], self._convert_batches(batches), strict=True):
            yield batch if self.weights is None else (*batch, self.weights[torch.from_numpy(index).to(self.device)])

    def _order(self, samples: int, epoch: int) -> Array:
        return np.random.default_rng([self.seed, ORDER, epoch]).permutation(samples)

    def _convert_batches(self, batches: Iterable[Split]) -> Iterator[TrainBatch]:
        where = f"{self.name}, train"
        for x, y in batches:
            yield convert_batch(x, y, where, self._how)

    @contain_user_code()
    def test(self) -> Batch:
        """Read the test set, and scale it as the training split is: x (N, *shape) and y (N,), on the device.

        Raises:
            DataError: the data set has none, or a wrong one.
        """
        part = self.dataset.test() if callable(self.dataset.test) else self.dataset.test
        if part is None:
            raise DataError(f"{self.name}: has no test set; give `test` in its hpo.Dataset")
        return load_part(part, f"{self.name}, test", self._how)

    @property
    def _how(self) -> Conversion:
        return Conversion(
            self.input_scaling,
            self.task,
            self.classes,
            self.device,
            self.scaling,
            self.target_scaling,
            self.encoder,
            self.features,
            tuple(self.shape) if self.scaling is not None or (self.integers and is_split(self.dataset.train)) else None,
            self.vocabulary,
            self.dataset.collate is not None,
        )


def _steps(samples: int, batch_size: int) -> int:
    whole, rest = divmod(samples, batch_size)
    return whole + (rest > 1 or (rest == 1 and whole == 0))


def augment_data(data: Data, config: TrialConfig) -> Data:
    """Return data with the same samples, in the order and with the augmentation that a configuration asks for.

    Raises:
        ConfigError: the samples cannot be augmented so.
        RequestError: a package for it is missing.
    """
    return replace(data, seed=config.seed_of_order, augmentation=make_augmentation(config, data))


def prepare_data(
    dataset: Dataset,
    config: TrialConfig,
    device: torch.device,
    name: str = "data set",
    division: Division | None = None,
) -> Data:
    """Split, scale and move a data set, as a configuration asks, which may also ask for an augmentation.

    A division divides the training samples; validation samples that the data set has of its own are left out.

    Batches of a data set that streams are not scaled, for their statistics are not known: their numbers are used as
    they are, except uint8, which is brought to 0..1, or to -1..1 where `input_scaling` is `symmetric`.

    Args:
        dataset: a data set from `hpo.datasets.load`, which has checked it.
        config: its `validation`, seeds and `input_scaling` decide.
        device: where the tensors will be.
        name: what error lines call the data set.
        division: of the samples of this fit; None is the configuration's own validation split.

    Raises:
        ConfigError: `validation` or `augment` does not fit the data, or there are too few samples for the division.
        DataError: validation data are wrong, or the data cannot be divided.
        RequestError: a package for the augmentation is missing.
    """
    return augment_data(_prepare(dataset, config, device, name, division), config)


def _prepare(dataset: Dataset, config: TrialConfig, device: torch.device, name: str, division: Division | None) -> Data:
    if name == NO_DATA:
        none = torch.empty(0)
        return Data(none, none, none, none, 0, device, config.seed_of_order, dataset, name, config.input_scaling)
    if dataset.vocabulary is not None and not config.integers:
        raise ConfigError(
            f"model = '{config.model}': takes numbers, but the samples of {name} are codes, such as of words; use "
            "model = 'text_classifier', or one of your own that is registered with integers=True"
        )
    if is_split(dataset.train):
        return _prepare_resident(dataset, config, device, name, division)
    if isinstance(dataset.train, Samples) and dataset.train.labels is not None:
        return _prepare_held(dataset, dataset.train, config, device, name, division)
    if division is not None:
        raise DataError(
            f"{name}: its training data are batches, which cannot be divided into folds or random splits; give arrays"
        )
    if dataset.validation is None or dataset.classes is None:
        raise DataError(f"{name}: its training data are batches, so `classes` and `validation` must be given too")
    if not config.validation:
        raise ConfigError(f"validation = 0: {name} gives batches, which its validation data cannot be added to")
    if dataset.weights is not None:
        raise DataError(f"{name}: its training data are batches, which cannot be weighed; give arrays, or no weights")
    if config.class_weight is not None:
        raise ConfigError(
            f"class_weight = '{config.class_weight}': {name} gives batches, whose classes are not counted"
        )
    if dataset.features:
        raise DataError(
            f"{name}: its training data are batches, which have no `features`; give x and y, or encode them"
        )
    kind, classes, task = scaling_kind(config), dataset.classes, dataset.task or "classification"
    how = Conversion(kind, task, classes, device, vocabulary=dataset.vocabulary, collated=dataset.collate is not None)
    x_val, y_val = load_part(dataset.validation, f"{name}, validation", how)
    none = torch.empty(0)
    return Data(
        none,
        none,
        x_val,
        y_val,
        classes,
        device,
        config.seed_of_order,
        dataset,
        name,
        kind,
        task=task,
        vocabulary=dataset.vocabulary,
    )


def _prepare_held(
    dataset: Dataset, samples: Samples, config: TrialConfig, device: torch.device, name: str, division: Division | None
) -> Data:
    """Split samples that become batches by the data set's own function; they are not scaled."""
    own = dataset.validation is not None and division is None
    if own and not config.validation:
        raise ConfigError(f"validation = 0: {name} has validation data of its own, which are one batch already")
    dataset = dataset if own else replace(dataset, validation=None)
    assert dataset.classes is not None
    task, kind = dataset.task or "classification", scaling_kind(config)
    labels = read_labels(samples.labels, name, task)
    train, validation = _split(dataset, labels, config, task, name, division)
    target_scaling = Scaling.fit("standard", labels, train) if task == "regression" else None
    how = Conversion(
        kind, task, dataset.classes, device, None, target_scaling, None, (), None, dataset.vocabulary, True
    )
    some = validation if len(validation) else np.arange(1)  # one has the shape
    part = dataset.validation if own else samples.read(some.tolist())
    assert part is not None
    x_val, y_val = load_part(part, f"{name}, validation", how)
    y_train = how.labels(labels, train)
    weights = None if dataset.weights is None else read_weights(dataset.weights, len(labels), name)[train]
    weights = make_weights(y_train.cpu().numpy(), task, config.class_weight, weights)
    return Data(
        torch.empty(0),
        y_train,
        x_val if own else x_val[: len(validation)],
        y_val if own else y_val[: len(validation)],
        dataset.classes,
        device,
        config.seed_of_order,
        replace(dataset, train=cast(Any, samples.take(train.tolist()))),
        name,
        kind,
        None,
        task,
        target_scaling,
        None if weights is None else torch.from_numpy(weights).to(device),
        val_index=None if own else validation,
        division=division,
        vocabulary=_count_held_codes(samples, dataset, kind),
    )


def _count_held_codes(samples: Samples, dataset: Dataset, kind: str) -> int | None:
    """Return how many codes samples have; see `_find_vocabulary`."""
    if dataset.vocabulary is not None or kind != INTEGERS:
        return dataset.vocabulary
    where, size = samples.where, 1024
    parts = (samples.read(range(i, min(i + size, len(samples)))) for i in range(0, len(samples), size))
    return count_codes(torch.from_numpy(to_integers(x, where)) for x, _ in parts)


def _prepare_resident(
    dataset: Dataset, config: TrialConfig, device: torch.device, name: str, division: Division | None
) -> Data:
    if division is not None:
        dataset = replace(dataset, validation=None)
    x, y = dataset.train
    task = dataset.task or guess_task(y)
    classes = dataset.classes
    if classes is None:
        classes = check_split(x, y, f"{name}, train", None, task, dataset.features)
    where, kind = f"{name}, train", scaling_kind(config)
    how = Conversion(kind, task, classes, device, features=dataset.features, vocabulary=dataset.vocabulary)
    samples, labels = how.read(x, where), read_labels(y, name, task)
    train, validation = _split(dataset, labels, config, task, name, division)
    scaling, encoder = _fit_inputs(samples, train, dataset.features, config)
    target_scaling = Scaling.fit("standard", labels, train) if task == "regression" else None
    how = replace(how, scaling=scaling, target_scaling=target_scaling, encoder=encoder, shape=samples.shape[1:])
    x_train, y_train = how.samples(samples, train, where), how.labels(labels, train)
    if dataset.validation is None:
        x_val, y_val = how.samples(samples, validation, where), how.labels(labels, validation)
    else:
        x_val, y_val = load_part(dataset.validation, f"{name}, validation", how)
    own = None if dataset.weights is None else read_weights(dataset.weights, len(labels), name)[train]
    if dataset.validation is not None and not config.validation:  # its own, which is trained on as well
        own = None if own is None else np.concatenate([own, np.full(len(y_val), own.mean())])  # these have none
        x_train, y_train = torch.cat([x_train, x_val]), torch.cat([y_train, y_val])
        x_val, y_val = x_val[:0], y_val[:0]
    weights = make_weights(y_train.cpu().numpy(), task, config.class_weight, own)
    return Data(
        x_train,
        y_train,
        x_val,
        y_val,
        classes,
        device,
        config.seed_of_order,
        dataset,
        name,
        kind,
        scaling,
        task,
        target_scaling,
        None if weights is None else torch.from_numpy(weights).to(device),
        val_index=validation if dataset.validation is None else None,
        encoder=encoder,
        division=division,
        vocabulary=_find_vocabulary(dataset, kind, name, x_train, x_val),
    )


def _find_vocabulary(dataset: Dataset, kind: str, name: str, *parts: Tensor) -> int | None:
    """Return how many codes samples have: as many as the data set says, else as there are in training and validation.

    Both, so that it is the same for all folds.

    Raises:
        DataError: test samples that need not be read first have others, so that no model could be tested.
    """
    if kind != INTEGERS:
        return dataset.vocabulary
    vocabulary = count_codes(parts) if dataset.vocabulary is None else dataset.vocabulary
    test: Any = dataset.test
    if is_split(test) and not dataset.features:
        to_integers(test[0], f"{name}, test", vocabulary=vocabulary)
    return vocabulary


def _split(
    dataset: Dataset, labels: Array, config: TrialConfig, task: Task, name: str, division: Division | None
) -> tuple[Array, Array]:
    """Return the indices of the training and of the validation part, which is empty where none is split off."""
    rows = dataset.groups, dataset.times
    try:
        if division is not None:
            return divide_rows(labels, division, config.seed_of_split, task, *rows, share=config.validation)
        if dataset.validation is None and config.validation:
            return split_rows(labels, config.validation, config.seed_of_split, task, *rows)
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    return np.arange(len(labels)), np.arange(0)


def _fit_inputs(
    x: Array, train: Array, features: Sequence[Feature], config: TrialConfig
) -> tuple[Scaling | None, TableEncoder | None]:
    """Fit to the training part what makes samples inputs: of a table the encoder, else the scaling."""
    if features:
        kind = "none" if config.integers else config.numeric_scaling or config.input_scaling
        return None, TableEncoder.fit(x, train, features, kind)
    return None if config.integers else Scaling.fit(config.input_scaling, x, train), None
