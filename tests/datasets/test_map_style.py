"""Map-style data sets of torch's, in each form in which a function may return them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, IterableDataset, Subset, TensorDataset, random_split
from torch.utils.data import Dataset as TorchDataset

import hpo
from hpo.config import registry
from hpo.config.choices import Task
from hpo.config.trial_config import TrialConfig
from hpo.datasets import Dataset, DatasetReference, load, map_style
from hpo.errors import DataError
from hpo.training.data import Data
from hpo.training.data_cache import DataCache
from tests.study.helpers import make_study
from tests.workers import make_worker

CPU = torch.device("cpu")
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
LABELS = np.arange(60) % 3


class Items(TorchDataset):
    """Samples that a function makes of their numbers, as torchvision's data sets do with a transform."""

    def __init__(self, make: Callable[[int], Any], size: int = 60) -> None:
        self.make, self.size = make, size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Any:
        return self.make(index)


def tensor(index: int) -> torch.Tensor:
    return torch.from_numpy(PIXELS[index]).permute(2, 0, 1)


PICTURES = Items(lambda i: (Image.fromarray(PIXELS[i]), int(LABELS[i])))
TENSORS = Items(lambda i: (tensor(i).float() / 255, torch.tensor(LABELS[i])))


@pytest.fixture(autouse=True)
def _entries(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (registry.models, registry.datasets):
        monkeypatch.setattr(kind, "_entries", dict(kind._entries))


def cached(function: Callable[[], Any], task: Task = "classification") -> DataCache:
    hpo.dataset("mine", task=task)(function)
    return DataCache(DatasetReference(name="mine", module=__name__, task=task), CPU)


def prepared(function: Callable[[], Any], **parameters: Any) -> Data:
    return cached(function).get(TrialConfig(**{"validation": 12, **parameters}))


def refused(function: Callable[[], Any]) -> str:
    with pytest.raises(DataError) as raised:
        prepared(function)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    "data",
    [
        PICTURES,
        Items(lambda i: (PIXELS[i], LABELS[i])),
        Items(lambda i: (tensor(i), torch.tensor([LABELS[i]]))),
        Items(lambda i: [tensor(i), np.int32(LABELS[i])]),
        Items(lambda i: {"image": Image.fromarray(PIXELS[i]), "label": int(LABELS[i]), "id": f"number {i}"}),
        Items(lambda i: {"pixel_values": tensor(i), "labels": int(LABELS[i])}),
        Subset(PICTURES, range(60)),
        ConcatDataset([Subset(PICTURES, range(25)), Subset(PICTURES, range(25, 60))]),
        TensorDataset(torch.from_numpy(PIXELS).permute(0, 3, 1, 2), torch.from_numpy(LABELS)),
        {"train": PICTURES},
    ],
    ids=lambda data: type(data).__name__,
)
def test_each_form_is_what_its_arrays_are(data: Any) -> None:
    arrays, mine = prepared(lambda: hpo.Dataset(train=(PIXELS, LABELS))), prepared(lambda: data)
    for name in ("x_train", "y_train", "x_val", "y_val"):
        torch.testing.assert_close(getattr(mine, name), getattr(arrays, name), rtol=0, atol=0)
    assert (mine.shape, mine.classes, mine.raw_bytes) == ((3, 8, 8), 3, True)


def test_pictures_with_a_palette_are_colours_and_grey_ones_have_one_channel() -> None:
    assert prepared(lambda: Items(lambda i: (Image.fromarray(PIXELS[i]).convert("P"), i % 3))).shape == (3, 8, 8)
    assert prepared(lambda: Items(lambda i: (Image.fromarray(PIXELS[i]).convert("L"), i % 3))).shape == (1, 8, 8)


@pytest.mark.parametrize(
    "parts",
    [
        lambda train, validation, test: (train, validation, test),
        lambda train, validation, test: {"train": train, "val": validation, "test": test},
        lambda train, validation, test: hpo.Dataset(train=train, validation=validation, test=test),
        lambda train, validation, test: hpo.Dataset(train=train, validation=validation, test=lambda: test),
    ],
)
def test_parts(parts: Callable[..., Any]) -> None:
    reads: list[int] = []

    def watched(index: int) -> Any:
        reads.append(index)
        return PICTURES[index]

    data = prepared(lambda: parts(Subset(PICTURES, range(30)), Subset(PICTURES, range(30, 45)), Items(watched, 15)))
    assert (len(data.y_train), len(data.y_val), reads) == (30, 15, [])  # nobody has looked at the test data
    x, y = data.test()
    assert (x.shape, y.tolist()) == ((15, 3, 8, 8), LABELS[:15].tolist())


def test_a_random_split_is_the_same_in_each_worker() -> None:
    def halves() -> Any:
        return dict(zip(("train", "validation"), random_split(PICTURES, [40, 20]), strict=True))

    torch.manual_seed(1)
    first = prepared(halves)
    torch.manual_seed(2)
    assert torch.equal(prepared(halves).x_val, first.x_val)


def broken(index: int) -> Any:
    if index == 17:
        return {}["lost"]
    return PICTURES[index]


class Endless(IterableDataset):
    def __iter__(self) -> Any:
        return iter([])


class Unmeasured(TorchDataset):
    def __getitem__(self, index: int) -> Any:
        return PICTURES[index]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Items(broken), r"data set 'mine', train, sample 17: KeyError: 'lost' (test_map_style.py, line"),
        (Items(lambda i: (tensor(i), "cat")), "train: every label is 'cat'; at least 2 classes are needed"),
        (
            Items(lambda i: (tensor(i), b"cat")),
            "sample 0: its label is b'cat'; it must be a class (a number or a text)",
        ),
        (Items(lambda i: (tensor(i), None)), "sample 0: its label is None; it must be a class (a number or a text)"),
        (Items(lambda i: (tensor(i), [[1], [1, 2]])), "sample 0: its label is [[1], [1, 2]]; it must be a class"),
        (Items(lambda i: (tensor(i), 0.5)), "train: its target is 0.5 in every sample; there is nothing to learn"),
        (Items(lambda i: (tensor(i), torch.zeros(4))), "column 1 of its labels is 0 in every sample"),
        (Items(lambda i: (tensor(i), torch.zeros(4, 4))), "sample 0: a label of shape (4, 4); it must be a class"),
        (Items(lambda i: (tensor(i), "cat" if i else 0)), "sample 1: a label that is a text, where others have a numb"),
        (Items(lambda i: (tensor(i), [0.5] * (i + 2))), "sample 1: a label of shape (3,), where others have (2,)"),
        (Items(lambda i: (tensor(i), i / 3 if i != 7 else float("nan"))), "the target of sample 7 is nan; remove or"),
        (Items(lambda i: (tensor(i)[:, i % 59 :], 0)), "shape (3, 7, 8), where others have (3, 8, 8)"),
        (Items(lambda i: (tensor(i) if i else tensor(i).float(), i % 3)), "type uint8, where others have float32"),
        (Items(tensor), "sample 0: is Tensor; it must be a tuple (x, y), a sample and its label"),
        (Items(lambda i: (tensor(i), 0, i)), "sample 0: is tuple of 3; it must be a tuple (x, y)"),
        (
            Items(lambda i: {"image": 0, "x": 1, "label": 0}),
            "a dict of image, x, label, where sample and label",
        ),
        (Items(lambda i: ("text", i % 3)), "sample 0: str 'text' is no array of numbers"),
        (Items(lambda i: (torch.zeros(2, 2, 2, 2), i % 3)), "samples of shape (60, 2, 2, 2, 2)"),
        (Items(lambda i: None, size=0), "train: no samples; give at least one"),
        (Unmeasured(), "train: Unmeasured does not tell its length (TypeError"),
        (Endless(), "an IterableDataset has no samples by number; return a map-style one, or its batches with"),
        ((PICTURES, PICTURES), "returns 2 data sets; return a dict that says which is which"),
        ({"train": PICTURES, "tets": PICTURES}, "unknown part 'tets'; did you mean 'test'?"),
        ({"val": PICTURES, "validation": PICTURES}, "gives its validation data twice"),
        ({"test": PICTURES}, "has no training data; give it a part 'train'"),
        (DataLoader(PICTURES), "returns a DataLoader; return the data set that it reads (its .dataset)"),
        ({"train": DataLoader(PICTURES)}, "returns a DataLoader; return the data set that it reads (its .dataset)"),
        ([PICTURES], "its function returns list; it must return hpo.Dataset, or a torch.utils.data.Dataset"),
    ],
)
def test_what_cannot_be_a_data_set_is_one_line(data: Any, message: str) -> None:
    assert message in refused(lambda: data)


def test_the_line_of_the_users_own_code_is_named() -> None:
    assert "(test_map_style.py, line " in refused(lambda: Items(broken))


def loaded(data: Any, task: Task = "classification") -> hpo.Dataset:
    return cached(lambda: data, task).load()


@pytest.mark.parametrize(
    ("label", "task", "classes", "names"),
    [
        (lambda i: ["cat", "a dog"][i % 2], "classification", 2, ("a dog", "cat")),
        (lambda i: i % 3 + 1, "classification", 3, ("1", "2", "3")),
        (lambda i: torch.tensor([i % 3 - 1]), "classification", 3, ("-1", "0", "1")),
        (lambda i: bool(i % 2), "classification", 2, ()),
        (lambda i: i / 7, "regression", 1, ()),
        (lambda i: torch.tensor(i / 7).bfloat16(), "regression", 1, ()),
        (lambda i: [i / 7, -i], "regression", 2, ()),
        (lambda i: torch.tensor([i % 2, i % 3 == 0, 1.0]), "multilabel", 3, ()),
    ],
)
def test_labels_of_each_kind(label: Callable[[int], Any], task: Task, classes: int, names: tuple[str, ...]) -> None:
    items = Items(lambda i: (tensor(i), label(i)))
    data = loaded({"train": items, "validation": Subset(items, range(7)), "test": Subset(items, range(6))}, task)
    assert (data.task, data.classes, tuple(data.output_names)) == (task, classes, names)
    y = data.train[1]
    assert y.shape == ((60,) if task == "classification" else (60, classes))
    for part, size in ((data.validation, 7), (data.test(), 6)):
        np.testing.assert_array_equal(part[1], y[:size])
    if names:
        assert [names[value] for value in y[:4]] == [
            str(np.ravel(label(i))[0].item() if not isinstance(label(i), str) else label(i)) for i in range(4)
        ]


def test_labels_of_another_task_than_the_studys() -> None:
    with pytest.raises(DataError, match="its labels are for regression, but the study is for classification; register"):
        loaded({"train": Items(lambda i: (tensor(i), i / 7))})


def test_whole_numbers_are_what_the_data_set_is_registered_for() -> None:
    x, ages = np.random.default_rng(0).random((90, 3), np.float32), np.random.default_rng(1).integers(18, 80, 90)
    hpo.dataset("whole", task="regression")(lambda: Dataset((x, ages)))
    dataset = load(DatasetReference(name="whole", module=__name__, task="regression"))
    assert dataset.task == "regression"
    assert isinstance(dataset.train, tuple)
    np.testing.assert_array_equal(dataset.train[1][:, 0], ages)
    hpo.dataset("whole_classes")(lambda: Dataset((x, ages // 3)))
    assert load(DatasetReference(name="whole_classes", module=__name__)).task == "classification"
    hpo.dataset("whole_ages")(lambda: Dataset((x, ages)))
    with pytest.raises(DataError, match=r"the 90 samples have 47 different labels, .* predict numbers with task = 're"):
        load(DatasetReference(name="whole_ages", module=__name__))


def test_a_label_that_training_does_not_have() -> None:
    items = Items(lambda i: (tensor(i), i % 3 + 1))
    data = loaded({"train": items, "test": Items(lambda i: (tensor(i), i % 4 + 1))})
    with pytest.raises(DataError, match="test: the label of sample 3 is '4', which no training sample has; theirs are"):
        data.test()


def test_batches_of_validation_and_test_have_the_numbers_of_the_training_labels() -> None:
    def batches() -> Any:
        return [(PIXELS[i : i + 20], LABELS[i : i + 20] + 5) for i in range(0, 60, 20)]

    data = loaded(hpo.Dataset(train=(PIXELS, LABELS + 5), validation=batches(), test=batches))
    assert data.output_names == ("5", "6", "7")
    for part in (data.validation, data.test()):
        assert np.concatenate([y for _, y in part]).tolist() == LABELS.tolist()


def test_samples_that_change_are_told(caplog: pytest.LogCaptureFixture) -> None:
    prepared(lambda: Items(lambda i: (torch.rand(4), i % 3)))
    assert "sample 0 is another one each time that it is read" in caplog.text
    assert "augment" in caplog.text


# ---- larger than memory


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which twenty pictures take half."""
    monkeypatch.setattr(map_style, "free_memory", lambda: 2 * 20 * 5 * 8 * 8 * 3)


def streamed() -> hpo.Dataset:
    return hpo.Dataset(train=PICTURES, validation=Subset(PICTURES, range(15)), classes=3)


@pytest.mark.usefixtures("little_memory")
def test_what_does_not_fit_is_read_batch_by_batch_in_the_order_of_the_seed(caplog: pytest.LogCaptureFixture) -> None:
    data = prepared(streamed, seed=3)
    assert "60 samples take about 5.76e-05 GB, more than half of the 3.84e-05 GB that are free" in caplog.text
    assert data.streams
    assert data.steps(16) == 4
    epochs = [[(x.clone(), y) for x, y in data.batches(16, epoch)] for epoch in (1, 1, 2)]
    assert [len(y) for _, y in epochs[0]] == [16, 16, 16, 12]
    order = torch.from_numpy(np.random.default_rng([3, 1, 1]).permutation(60))
    x = torch.cat([x for x, _ in epochs[0]])
    torch.testing.assert_close(x, torch.from_numpy(PIXELS).permute(0, 3, 1, 2)[order].float() / 255)
    assert torch.cat([y for _, y in epochs[0]]).tolist() == LABELS[order].tolist()
    assert torch.equal(x, torch.cat([x for x, _ in epochs[1]]))
    assert not torch.equal(x, torch.cat([x for x, _ in epochs[2]]))


@pytest.mark.usefixtures("little_memory")
def test_what_must_fit_and_does_not_is_one_line() -> None:
    assert "to have them read batch by batch, give hpo.Dataset `classes` and `validation`" in refused(lambda: PICTURES)
    parts = hpo.Dataset(train=PICTURES, validation=PICTURES, classes=3)
    assert "validation: 60 samples take" in refused(lambda: parts)


@pytest.mark.usefixtures("little_memory")
def test_a_trial_on_streamed_samples_is_resumed_to_the_same_values(tmp_path: Any) -> None:
    hpo.dataset("mine")(streamed)

    def values(name: str, stop_after: int | None) -> list[float]:
        parameters = {"widths": "8", "epochs": 3, "batch_size": 8, "dropout": 0.5, "learning_rate": 0.01}
        study = make_study(tmp_path, name, dataset="mine", parameters=parameters, trials=1)
        checks: list[int] = []

        def should_stop() -> bool:
            checks.append(1)
            return stop_after is not None and len(checks) >= stop_after

        make_worker(study, should_stop).run()
        assert (study.trials()[0].state.name == "WAITING") == (stop_after is not None)
        make_worker(study).run()
        (trial,) = study.trials()
        assert trial.state.name == "COMPLETE"
        return [row["val_loss"] for row in study.storage.read_epochs(study.id)[trial._trial_id]]

    assert values("whole", None) == values("halted", 15)
