"""CIFAR's own files, with images of our own making."""

from __future__ import annotations

import os
import pickle
import pickletools
from pathlib import Path

import numpy as np
import pytest

from hpo.datasets import load, make_reference
from hpo.datasets.cifar_pickle import unpickle_batch
from hpo.datasets.description import describe_source
from hpo.errors import DataError
from tests.cifar_files import NAMES, dump_python2, make_images, write_cifar10, write_cifar10_binary, write_cifar100


def images(seed: int, count: int = 20) -> np.ndarray:
    return make_images(count, seed)[0].reshape(count, 3, 32, 32).transpose(0, 2, 3, 1)


@pytest.mark.parametrize("binary", [False, True])
def test_cifar_10(tmp_path: Path, binary: bool) -> None:
    folder = (write_cifar10_binary if binary else write_cifar10)(tmp_path / "cifar")
    reference = make_reference(str(folder))
    assert (reference.shape, reference.samples, reference.task) == ((3, 32, 32), 100, "classification")
    assert list(reference.output_names) == NAMES
    assert len(reference.sha256) == 7
    dataset = load(reference)
    x, y = dataset.train
    assert x.dtype == np.uint8
    assert np.array_equal(x, np.concatenate([images(seed) for seed in range(1, 6)]))
    assert np.array_equal(y, np.arange(100) % 10)
    assert np.array_equal(dataset.test()[0], images(6))
    assert dataset.classes == 10


def test_ten_batches_are_in_the_order_of_their_numbers_and_few_are_said(tmp_path: Path) -> None:
    x, _ = load(make_reference(str(write_cifar10(tmp_path / "many", count=10, batches=11)))).train
    assert np.array_equal(x, np.concatenate([images(seed, 10) for seed in range(1, 12)]))
    assert "2 of 5 training batches" in make_reference(str(write_cifar10(tmp_path / "few", batches=2))).notes


@pytest.mark.parametrize("binary", [False, True])
def test_cifar_100_has_classes_and_groups(tmp_path: Path, binary: bool) -> None:
    folder = write_cifar100(tmp_path / "cifar", binary=binary)
    fine = load(make_reference(str(folder)))
    assert (fine.classes, fine.output_names[3]) == (10, "fine3")
    assert np.array_equal(fine.train[0], images(0, 40))
    coarse = load(make_reference({"path": str(folder), "label": "coarse_labels"}))
    assert (coarse.classes, list(coarse.output_names)) == (5, [f"group{i}" for i in range(5)])
    assert np.array_equal(coarse.train[1], np.arange(40) % 5)


def test_the_folder_that_holds_an_archives_folder_will_do_and_images_can_be_resized(tmp_path: Path) -> None:
    write_cifar10(tmp_path / "cifar-10-batches-py", count=10)
    assert make_reference({"path": str(tmp_path), "resize": [16, 16]}).shape == (3, 16, 16)
    text = describe_source(str(tmp_path), None).summary
    assert text.startswith("50 train, 10 test samples: colour images of 32x32 (height, width), uint8 from 0 to 255")


def test_what_python_3_and_numpy_2_write_is_read_too() -> None:
    x, y = make_images(4, 0)
    for protocol in (2, 3, 4):
        batch = unpickle_batch(pickle.dumps({"data": x, "labels": y.tolist()}, protocol))
        assert np.array_equal(batch["data"], x)
        assert batch["labels"] == [0, 1, 2, 3]


class Shell:
    """Object whose pickle runs a command."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.path}",)


def test_a_pickle_runs_nothing(tmp_path: Path) -> None:
    folder = write_cifar10(tmp_path / "cifar")
    hostile = pickle.dumps({"data": Shell(tmp_path / "touched"), "labels": [0]}, 2)
    (folder / "data_batch_2").write_bytes(hostile)
    with pytest.raises(
        DataError, match=r"data_batch_2: is no batch of CIFAR \(it asks for (posix|nt).system, which no"
    ):
        make_reference(str(folder))
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x02}q",
        b"\x80\x02K\x01.",
        b"\x80\x02}r\xff\xff\xff\xff.",  # a memo of four thousand million places
        b"\x80\x02Pa\n.",  # an object outside of the file
        b"\x80\x02cbuiltins\neval\nU\x011\x85R.",
        b"\x80\x02]\x94" + b"h\x00a" * 3 + b"b.",
        dump_python2({"data": np.zeros((1, 3072)), "labels": [0]}),
        dump_python2({"data": np.array([object], object), "labels": [0]}),
        dump_python2({"data": np.zeros((1, 3072), np.uint8, "F").T, "labels": [0]}),
        dump_python2({"data": np.zeros((1, 3072), np.uint8)})[:-20] + b".",
    ],
)
def test_what_is_no_batch_is_said_in_one_line(tmp_path: Path, content: bytes) -> None:
    folder = write_cifar10(tmp_path / "cifar")
    (folder / "test_batch").write_bytes(content)
    with pytest.raises(DataError, match="test_batch: ") as caught:
        make_reference(str(folder))
    assert "\n" not in str(caught.value)


def test_a_pickle_that_says_more_than_it_has_is_refused() -> None:
    good = dump_python2({"data": np.zeros((2, 3), np.uint8), "labels": [0]})
    assert any(code.name == "GLOBAL" for code, *_ in pickletools.genops(good))
    with pytest.raises(ValueError, match="holds an array that is none of bytes"):
        unpickle_batch(good.replace(b"K\x02K\x03", b"K\x02K\x7f"))


def test_faults_name_the_file_and_what_to_do(tmp_path: Path) -> None:
    folder = write_cifar10(tmp_path / "a")
    (folder / "data_batch_3").unlink()
    with pytest.raises(DataError, match="data_batch_3: not found; unpack the archive again"):
        make_reference(str(folder))
    binary = write_cifar10_binary(tmp_path / "b")
    with pytest.raises(DataError, match="group: images of CIFAR have no columns"):
        make_reference({"path": str(binary), "group": "patient"})
    with pytest.raises(DataError, match="unknown label 'fine'"):
        make_reference({"path": str(binary), "label": "fine"})
    (binary / "test_batch.bin").write_bytes(b"\x00" * 3072)
    with pytest.raises(DataError, match="has 3,072 bytes, no multiple of 3,073; unpack"):
        make_reference(str(binary))
    (binary / "test_batch.bin").write_bytes(b"\x0b" * 3073)
    with pytest.raises(DataError, match="labels from 11 to 11; they must be from 0 to 9"):
        make_reference(str(binary))
