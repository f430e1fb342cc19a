"""How samples become inputs, without torch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hpo.config.trial_config import TrialConfig
from hpo.datasets import Dataset
from hpo.errors import RequestError
from hpo.export.format import PREPROCESSING, Preprocessing, read_preprocessing
from hpo.export.writer import preprocessing_of
from hpo.training.data import Data, prepare_data

RNG = np.random.default_rng(0)


def prepared(x: np.ndarray, **parameters: object) -> Data:
    dataset = Dataset((x, np.arange(len(x)) % 3), classes=3)
    return prepare_data(dataset, TrialConfig(**parameters), torch.device("cpu"))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["standard", "unit", "symmetric"])
@pytest.mark.parametrize(
    "x",
    [
        RNG.integers(256, size=(90, 6, 5), dtype=np.uint8),
        RNG.integers(256, size=(90, 6, 5, 3), dtype=np.uint8),
        RNG.normal(3, 2, size=(90, 7)),
        RNG.normal(3, 2, size=(90, 6, 5)).astype(np.float32),
    ],
    ids=["grey", "colour", "features", "floats"],
)
def test_a_sample_becomes_the_same_bits_as_in_training(x: np.ndarray, kind: str) -> None:
    data = prepared(x, input_scaling=kind, validation=9)
    takes = Preprocessing.model_validate_json(preprocessing_of(data).model_dump_json())
    assert takes.shape == data.shape
    assert takes.values == ("uint8" if x.dtype == np.uint8 else "float")
    mine = takes.apply(takes.samples(x))
    assert mine.dtype == np.float32
    assert np.array_equal(mine, data.scaling.apply(takes.samples(x)).numpy())  # type: ignore[union-attr]
    held = {row.tobytes() for row in torch.cat([data.x_train, data.x_val]).numpy()}
    assert {row.tobytes() for row in mine} == held


def test_batches_of_bytes_are_brought_to_one() -> None:
    x, y = RNG.integers(256, size=(6, 4), dtype=np.uint8), np.arange(6) % 2
    dataset = Dataset([(x, y)], validation=(x, y), classes=2)  # type: ignore[arg-type]
    for kind in ("unit", "symmetric"):
        data = prepare_data(dataset, TrialConfig(input_scaling=kind), torch.device("cpu"))
        takes = preprocessing_of(data)
        assert takes.values == "uint8"
        assert np.allclose(takes.apply(x), data.x_val.numpy(), atol=1e-6)


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1), (1, 6, 5), (4, 6, 5), (4, 6, 5, 1), (4, 1, 6, 5)])
def test_images_come_in_every_usual_layout(shape: tuple[int, ...]) -> None:
    takes = Preprocessing(shape=(1, 6, 5), classes=2, values="uint8", shift=(0,), scale=(1,))
    array = RNG.integers(256, size=shape, dtype=np.uint8)
    assert np.array_equal(takes.samples(array).reshape(-1), array.reshape(-1))


def test_channels_come_first() -> None:
    takes = Preprocessing(shape=(3, 6, 5), classes=2, values="uint8", shift=(0,) * 3, scale=(1,) * 3)
    image = RNG.integers(256, size=(6, 5, 3), dtype=np.uint8)
    assert np.array_equal(takes.samples(image), image.transpose(2, 0, 1)[None])


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((3, 5)), r"has shape \(3, 5\); a sample has \(6, 5\)"),
        (np.full((6, 5), np.nan), "not finite"),
        (np.full((6, 5), 1e300), "too large for float32"),
        (np.full((6, 5), "x"), "not numbers"),
        (np.array(1.0), r"has shape \(\)"),
    ],
)
def test_other_arrays_are_refused(array: np.ndarray, says: str) -> None:
    takes = Preprocessing(shape=(1, 6, 5), classes=2, values="float", shift=(0,), scale=(1,))
    with pytest.raises(ValueError, match=says):
        takes.samples(array)


def test_the_first_format_is_read(tmp_path: Path) -> None:
    (tmp_path / PREPROCESSING).write_text(json.dumps({"format": 1, "reconstructs": False, **RIGHT}))
    takes = read_preprocessing(tmp_path)
    assert (takes.task, takes.names, takes.sample_shape) == ("classification", ("0", "1", "2"), (1, 6, 5))


RIGHT = {"shape": [1, 6, 5], "classes": 3, "values": "uint8", "shift": [0], "scale": [1]}
WRONG = [
    (json.dumps({**RIGHT, "scale": [0]}), r"scale\.0: .*greater than 0"),
    (json.dumps({**RIGHT, "shift": [0, 0]}), "must have 1 numbers each"),
    (json.dumps({**RIGHT, "classes": 0}), "classes"),
    (json.dumps({**RIGHT, "shape": []}), "shape"),
]


@pytest.mark.parametrize(
    ("text", "says"),
    [(None, "is no exported model"), ("{", "JSON"), ('{"format": 3}', "format"), ("\xff", "JSON"), *WRONG],
)
def test_a_folder_that_is_none_is_one_line(tmp_path: Path, text: str | None, says: str) -> None:
    if text is not None:
        (tmp_path / PREPROCESSING).write_text(text)
    with pytest.raises(RequestError, match=says) as caught:
        read_preprocessing(tmp_path)
    assert str(tmp_path) in str(caught.value)
