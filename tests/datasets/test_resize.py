"""Sizes of images from every source, against Pillow's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data import Dataset as TorchDataset

import hpo.datasets
from hpo.config import registry
from hpo.config.trial_config import TrialConfig
from hpo.datasets import Dataset, load, make_reference
from hpo.datasets.description import describe_source
from hpo.datasets.source import DatasetSource
from hpo.errors import DataError, DefinitionError
from hpo.training.data import prepare_data

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (12, 9, 7, 3), dtype=np.uint8)
Y = np.arange(12) % 2
SIZE = (6, 10)


def by_pillow(x: np.ndarray) -> np.ndarray:
    pictures = [Image.fromarray(image).resize((SIZE[1], SIZE[0]), Image.Resampling.BILINEAR) for image in x]
    return np.stack([np.asarray(picture) for picture in pictures])


@pytest.fixture(autouse=True)
def _own_data_sets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(registry.datasets, "_entries", dict(registry.datasets._entries))
    monkeypatch.setenv("HPO_HOME", str(tmp_path / "home"))


def registered(function: object) -> Dataset:
    hpo.dataset("pictures")(function)
    return load(make_reference({"name": "pictures", "resize": list(SIZE)}))


def write_arrays(path: Path, x: np.ndarray = X) -> Path:
    np.savez(path, x_train=x, y_train=Y, x_test=x[:4], y_test=Y[:4])
    return path


def test_arrays_and_the_same_images_in_files_get_the_same_pixels(tmp_path: Path) -> None:
    reference = make_reference({"path": str(write_arrays(tmp_path / "a.npz")), "resize": list(SIZE)})
    assert reference.shape == (3, *SIZE)
    dataset = load(reference)
    assert np.array_equal(dataset.train[0], by_pillow(X))
    assert np.array_equal(dataset.test()[0], by_pillow(X[:4]))
    for number, image in enumerate(X):
        folder = tmp_path / "files" / str(Y[number])
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number:02}.png")
    files = load(make_reference({"path": str(tmp_path / "files"), "resize": list(SIZE), "test": 0}))
    pixels = {image.tobytes() for image in by_pillow(X)}
    assert {image.tobytes() for image in files.train[0]} == pixels


def test_grey_images_and_real_numbers_keep_their_layout_and_range(tmp_path: Path) -> None:
    grey = load(make_reference({"path": str(write_arrays(tmp_path / "g.npz", X[..., 0])), "resize": list(SIZE)}))
    assert np.array_equal(grey.train[0], by_pillow(X[..., 0]))
    flat = np.broadcast_to(RNG.normal(size=(12, 1, 1, 2)), (12, 9, 7, 2))
    real = load(make_reference({"path": str(write_arrays(tmp_path / "r.npz", flat)), "resize": list(SIZE)}))
    assert real.train[0].dtype == np.float32
    assert np.allclose(real.train[0], np.broadcast_to(flat[:, :1, :1], (12, *SIZE, 2)))


def test_a_built_in_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    small = Dataset(train=(X[..., 0], Y), test=lambda: (X[:4, ..., 0], Y[:4]), classes=2)
    monkeypatch.setattr(hpo.datasets, "mnist", lambda: small)
    reference = make_reference({"name": "mnist", "resize": list(SIZE)})
    assert reference.shape == (1, *SIZE)
    assert reference.spelled == {"path": "mnist", "resize": list(SIZE)}
    dataset = load(reference)
    assert np.array_equal(dataset.train[0], by_pillow(X[..., 0]))
    assert dataset.test()[0].shape == (4, *SIZE)
    assert make_reference("mnist").source is None


def test_tensors_have_their_channels_first() -> None:
    x = torch.from_numpy(X).permute(0, 3, 1, 2)
    dataset = registered(lambda: Dataset(train=(x, torch.from_numpy(Y)), validation=(x[:4], torch.from_numpy(Y[:4]))))
    data = prepare_data(dataset, TrialConfig(input_scaling="unit"), torch.device("cpu"))
    assert data.shape == (3, *SIZE)
    wanted = torch.from_numpy(by_pillow(X)).permute(0, 3, 1, 2) / 255
    assert torch.allclose(data.x_train, wanted)
    assert torch.allclose(data.x_val, wanted[:4])


class Pictures(TorchDataset):
    """Pictures of different sizes, or tensors of one."""

    def __init__(self, tensors: bool) -> None:
        self.tensors = tensors

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[object, int]:
        if self.tensors:
            return torch.from_numpy(X[index]).permute(2, 0, 1), int(Y[index])
        return Image.fromarray(X[index][index % 3 :]), int(Y[index])


@pytest.mark.parametrize("tensors", [False, True])
def test_a_data_set_of_torchs(tensors: bool) -> None:
    x, _ = registered(lambda: Pictures(tensors)).train
    every = [by_pillow(X[i : i + 1] if tensors else X[i : i + 1, i % 3 :])[0] for i in range(12)]
    wanted = np.stack(every)
    assert np.array_equal(x, wanted.transpose(0, 3, 1, 2) if tensors else wanted)


def test_batches_of_ones_own() -> None:
    x = torch.from_numpy(X).permute(0, 3, 1, 2)
    loader = DataLoader(TensorDataset(x, torch.from_numpy(Y)), batch_size=5)
    dataset = registered(lambda: Dataset(train=loader, validation=(X, Y), classes=2))
    batches = list(dataset.train)
    assert len(dataset.train) == len(batches) == 3
    assert np.array_equal(np.concatenate([x for x, _ in batches]), by_pillow(X))
    assert dataset.validation[0].shape == (12, *SIZE, 3)


def test_what_has_no_images_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", x=RNG.normal(size=(12, 5)), y=Y)
    with pytest.raises(DataError, match=r"train: resize = \[6, 10\]: is for images, but a sample has shape \(5,"):
        describe_source(str(tmp_path / "f.npz"), DatasetSource(resize=SIZE))
    with pytest.raises(DefinitionError, match=r"resize = \[6, 10\]: 'none' has no images"):
        make_reference({"name": "none", "resize": list(SIZE)})
    with pytest.raises(DefinitionError, match="dataset, label: is for files"):
        make_reference({"name": "mnist", "label": "digit"})
