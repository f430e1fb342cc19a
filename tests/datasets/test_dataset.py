"""Data sets' files: found, verified, read, and refused with one line."""

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hpo.config import registry
from hpo.datasets import Dataset, DatasetReference, describe, idx, load, make_reference
from hpo.errors import DataError, RegistryError
from hpo.utils import digest
from tests.helpers import ROOT

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
needs_debian = pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
RNG = np.random.default_rng(0)


def good(**changes):
    arrays = {
        "x_train": RNG.integers(0, 256, (40, 5, 5)).astype(np.uint8),
        "y_train": np.arange(40) % 4,
        "x_test": RNG.integers(0, 256, (8, 5, 5)).astype(np.uint8),
        "y_test": np.arange(8) % 4,
    }
    return {key: value for key, value in (arrays | changes).items() if value is not None}


@pytest.fixture
def npz(tmp_path):
    def write(**changes):
        path = tmp_path / "own.npz"
        np.savez(path, **good(**changes))
        return path

    return write


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch, tmp_path):
    monkeypatch.delenv("HPO_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def own_dataset():
    before = dict(registry.datasets._entries)

    def register(dataset):
        registry.dataset("own")(lambda: dataset)
        return load(DatasetReference(name="own", module=__name__))

    yield register
    registry.datasets._entries.clear()
    registry.datasets._entries.update(before)


def refused(call, *words):
    with pytest.raises(DataError) as caught:
        call()
    line = str(caught.value)
    assert "\n" not in line
    for word in words:
        assert str(word) in line, line


# ---- MNIST


def test_mnist():
    found = make_reference("mnist")
    dataset = load(found)
    x, y = dataset.train
    assert (x.shape, x.dtype, y.shape, dataset.classes) == ((60000, 28, 28), np.uint8, (60000,), 10)
    assert np.bincount(y)[:2].tolist() == [5923, 6742]  # as the data set's authors count them
    assert dataset.test()[0].shape == (10000, 28, 28)
    assert len(found.sha256) == 4
    assert DatasetReference.model_validate_json(found.model_dump_json()) == found


def test_mnist_readme_names_each_checksum():
    text = (ROOT / "hpo/datasets/mnist/README.md").read_text()
    assert all(value in text for value in idx.MNIST.sha256.values())
    assert "CC BY-SA 3.0" in text


@pytest.fixture
def mnist_copy(tmp_path, monkeypatch):
    folder = tmp_path / "mnist"
    shutil.copytree(idx.MNIST.folders()[0], folder)
    moved = replace(idx.MNIST, folders=lambda: [folder])
    monkeypatch.setattr(idx, "MNIST", moved)
    monkeypatch.setitem(idx.IDX, "mnist", moved)
    return folder


def test_missing_file(mnist_copy):
    (mnist_copy / idx.TEST_LABELS).unlink()
    refused(lambda: make_reference("mnist"), mnist_copy / idx.TEST_LABELS, "not found", "install torch-hpo again")


def test_truncated_file(mnist_copy):
    file = mnist_copy / idx.TRAIN_IMAGES
    file.write_bytes(file.read_bytes()[:100_000])
    refused(lambda: load(DatasetReference(name="mnist")), file, "damaged")


def test_altered_file(mnist_copy):
    file = mnist_copy / idx.TEST_LABELS
    content = bytearray(gzip.decompress(file.read_bytes()))
    content[100] ^= 1
    file.write_bytes(gzip.compress(content))
    refused(lambda: make_reference("mnist"), file, "another SHA-256")
    refused(load(DatasetReference(name="mnist")).test, file)
    assert [str(file) in row.problem for row in describe() if row.name == "mnist"] == [True]


def test_not_gzip(mnist_copy):
    file = mnist_copy / idx.TRAIN_LABELS
    file.write_bytes(b"hello")
    refused(lambda: make_reference("mnist"), file, "damaged")


@pytest.fixture
def unpacked(mnist_copy, monkeypatch):
    """The names of the files that are unpacked, each as often as it is; the files are as old as a settled one."""
    names = []

    def unpack(file):
        names.append(Path(file.name).name)
        return unpack_file(file)

    unpack_file = idx._unpack
    monkeypatch.setattr(idx, "_unpack", unpack)
    monkeypatch.setattr(digest, "SETTLED_NS", -(10**12))
    return names


def test_a_process_verifies_a_file_once(unpacked):
    first, second = make_reference("mnist"), make_reference("mnist")
    assert first == second
    assert sorted(unpacked) == sorted(idx.MNIST.sha256)


def test_a_verified_file_that_changes_is_verified_again(mnist_copy, unpacked):
    """Same size and same time of change of the content: the inode's time alone tells."""
    make_reference("mnist")
    file = mnist_copy / idx.TEST_LABELS
    before = file.stat()
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    refused(lambda: make_reference("mnist"), file, "replace it")
    refused(load(DatasetReference(name="mnist")).test, file)


def test_a_file_that_unpacks_to_any_size_is_unpacked_to_a_limit(mnist_copy, monkeypatch):
    monkeypatch.setattr(idx, "UNPACKED_LIMIT", 1_000_000)
    (mnist_copy / idx.TEST_LABELS).write_bytes(gzip.compress(bytes(50_000_000)))
    tracemalloc.start()
    try:
        refused(
            lambda: idx._read(idx.MNIST, mnist_copy, idx.TEST_LABELS), mnist_copy / idx.TEST_LABELS, "another SHA-256"
        )
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_a_file_that_was_replaced_is_verified_again(mnist_copy, unpacked):
    make_reference("mnist")
    shutil.copy(mnist_copy / idx.TEST_LABELS, mnist_copy / idx.TRAIN_LABELS)
    refused(lambda: make_reference("mnist"), mnist_copy / idx.TRAIN_LABELS, "another SHA-256")


def test_a_file_that_has_just_changed_is_verified_each_time(mnist_copy, unpacked, monkeypatch):
    monkeypatch.setattr(digest, "SETTLED_NS", 10**12)
    make_reference("mnist")
    make_reference("mnist")
    assert sorted(unpacked) == sorted([*idx.MNIST.sha256] * 2)


# ---- Fashion-MNIST


@needs_debian
def test_fashion_mnist_from_debian():
    x, y = load(make_reference("fashion_mnist")).train
    assert x.shape == (60000, 28, 28)
    assert np.bincount(y).tolist() == [6000] * 10


@needs_debian
@pytest.mark.parametrize("folder", ["", "fashion_mnist", "fashion-mnist"])
def test_fashion_mnist_from_hpo_data(folder, tmp_path, monkeypatch):
    shutil.copytree(DEBIAN, tmp_path / "data" / folder, dirs_exist_ok=True)
    monkeypatch.setenv("HPO_DATA", str(tmp_path / "data"))
    assert idx.find_idx(idx.FASHION_MNIST) == tmp_path / "data" / folder


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No folder holds the files, and the mirrors refuse the connection."""
    nowhere = replace(idx.FASHION_MNIST, folders=lambda: [tmp_path / "none"], mirrors=("http://127.0.0.1:9/",))
    monkeypatch.setattr(idx, "FASHION_MNIST", nowhere)
    monkeypatch.setitem(idx.IDX, "fashion_mnist", nowhere)
    return nowhere


def test_fashion_mnist_nowhere(offline):
    refused(lambda: make_reference("fashion_mnist"), "cannot be downloaded", "HPO_DATA", "dataset-fashion-mnist")
    row = next(row for row in describe() if row.name == "fashion_mnist")
    assert "not found on this machine" in row.problem
    assert row.path == ""


@needs_debian
@pytest.mark.parametrize("good_mirror", [True, False])
def test_download(offline, good_mirror, monkeypatch, tmp_path):
    mirror = tmp_path / "mirror"
    shutil.copytree(DEBIAN, mirror)
    if not good_mirror:
        (mirror / idx.TRAIN_IMAGES).write_bytes(gzip.compress(b"something else"))

    def retrieve(url, known_hash, fname, path):
        Path(path).mkdir(parents=True, exist_ok=True)
        shutil.copy(mirror / url.rpartition("/")[2], Path(path) / fname)

    monkeypatch.setattr("pooch.retrieve", retrieve)
    if good_mirror:
        folder = idx._download(offline)
        assert sorted(file.name for file in folder.iterdir()) == sorted(offline.sha256)
    else:
        refused(lambda: idx._download(offline), idx.TRAIN_IMAGES)
        assert not list((tmp_path / "cache/torch-hpo/fashion_mnist").iterdir())


# ---- .npz


@pytest.mark.parametrize("shape", [(5, 5), (5, 5, 3), (7,)])
def test_npz(npz, shape):
    path = npz(x_train=RNG.random((40, *shape)), x_test=RNG.random((8, *shape)), y_train=(np.arange(40) % 4)[:, None])
    found = make_reference(str(path))
    assert found.sha256 == {"own.npz": hashlib.sha256(path.read_bytes()).hexdigest()}
    dataset = load(found)
    assert dataset.classes == 4
    assert dataset.train[0].shape == (40, *shape)
    assert dataset.test()[1].tolist() == [0, 1, 2, 3] * 2


def test_relative_path(npz, tmp_path, monkeypatch):
    path = npz()
    assert make_reference("own.npz", base=tmp_path).name == str(path)
    monkeypatch.chdir(tmp_path)
    assert make_reference("own.npz").name == str(path)


def test_npz_elsewhere_is_found_in_hpo_data(npz, tmp_path, monkeypatch):
    found = make_reference(str(npz()))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "own.npz").rename(tmp_path / "elsewhere/own.npz")
    refused(lambda: load(found), "own.npz: not found", "HPO_DATA")
    monkeypatch.setenv("HPO_DATA", str(tmp_path / "elsewhere"))
    assert load(found).classes == 4


def test_another_npz_is_refused(npz):
    found = make_reference(str(npz()))
    test = load(found).test
    path = npz(x_train=np.zeros((40, 5, 5), np.uint8))
    refused(lambda: load(found), path, "SHA-256", "launch a new study")
    refused(test, path, "SHA-256")


FAULTS = {
    "keys": ({"y_train": None}, "holds one array of its train data, x_train, and no labels; give a .npz with X and y"),
    "no training data": ({"x_train": None, "y_train": None}, "has no training data, but test data"),
    "count": ({"y_train": np.arange(39) % 4}, "40 samples but 39 labels"),
    "test count": ({"x_test": np.zeros((9, 5, 5), np.uint8)}, "test: 9 samples but 8 labels"),
    "labels of several columns": ({"y_train": RNG.random((40, 4))}, "test: 1 targets per sample, not 4 as train"),
    "one-hot labels": ({"y_train": np.eye(4)[np.arange(40) % 4]}, "test: labels are not one column per class"),
    "unseen label": ({"y_train": np.arange(40) % 4 - 1}, "test: the label of sample 3 is '3', which no training"),
    "real number for a class": ({"y_test": np.arange(8) / 2}, "labels of type float64; classes must be whole"),
    "target not finite": ({"y_train": np.full(40, np.inf) * (np.arange(40) % 2 * 2 - 1)}, "sample 0 is -inf"),
    "test labels out of range": ({"y_test": np.arange(8)}, "labels from 0 to 7; they must be from 0 to 3"),
    "labels of billions": ({"y_test": np.arange(8) * 10**9}, "labels from 0 to 7000000000; they must be from 0 to 3"),
    "a single sample": ({"x_train": np.float32(1)}, "x_train is a single value; it must be an array with a row"),
    "a single label": ({"y_test": np.int64(1)}, "test: y_test is a single value"),
    "one class": ({"y_train": np.zeros(40, int), "y_test": np.zeros(8, int)}, "at least 2 classes"),
    "dimensions": ({"x_train": np.zeros((40, 2, 5, 5, 3))}, "samples of shape (40, 2, 5, 5, 3)"),
    "channels first": ({"x_train": np.zeros((40, 3, 32, 32))}, "channels last"),
    "test shape": ({"x_test": np.zeros((8, 6, 5), np.uint8)}, "not (5, 5) as in train"),
    "not finite": (
        {"x_train": np.full((40, 5, 5), np.nan)},
        "at (0, 0) of sample 0 is nan (counted from 0), and 1000 values of 40 samples",
    ),
    "texts": ({"x_train": np.full((40, 5), "a")}, "must be numbers"),
    "empty": ({"x_train": np.zeros((0, 5, 5)), "y_train": np.zeros(0, int)}, "no samples"),
    "objects": ({"x_train": np.array([None] * 40)}, "x_train cannot be read"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_npz(npz, fault):
    changes, words = FAULTS[fault]
    path = npz(**changes)
    refused(lambda: make_reference(str(path)), path, words)


@pytest.mark.parametrize("keep", [0, 10, 300, 1500])
def test_truncated_npz(npz, keep):
    path = npz()
    path.write_bytes(path.read_bytes()[:keep])
    refused(lambda: make_reference(str(path)), path, "not a complete .npz")


def test_altered_npz(npz):
    path = npz()
    content = bytearray(path.read_bytes())
    content[400] ^= 255
    path.write_bytes(content)
    refused(lambda: make_reference(str(path)), path, "cannot be read")


def test_npy_under_the_name_of_npz(tmp_path):
    with (tmp_path / "own.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    refused(lambda: make_reference(str(tmp_path / "own.npz")), "a single array")


@pytest.mark.parametrize(("name", "problem"), [("none.npz", "not found"), ("folder.npz", "holds no arrays")])
def test_no_such_npz(tmp_path, name, problem):
    (tmp_path / "folder.npz").mkdir()
    refused(lambda: make_reference(name, tmp_path), tmp_path / name, problem)


# ---- registered


def test_unknown_name():
    with pytest.raises(RegistryError, match="did you mean 'mnist'"):
        make_reference("mnits")


def test_registered_elsewhere():
    with pytest.raises(RegistryError, match="add --import plants_module"):
        load(DatasetReference(name="plants", module="plants_module"))


def test_own_dataset(own_dataset):
    arrays = good()
    dataset = own_dataset(Dataset((arrays["x_train"], arrays["y_train"])))
    assert dataset.classes == 4
    assert make_reference("own") == DatasetReference(name="own", module=__name__)
    assert [row.module for row in describe() if row.name == "own"] == [__name__]


def test_own_dataset_faults(own_dataset):
    x, y = good()["x_train"], good()["y_train"]
    refused(lambda: own_dataset((x, y)), "returns tuple; it must return hpo.Dataset")
    refused(lambda: own_dataset(Dataset((x, y[:3]))), "data set 'own', train", "3 labels")
    refused(lambda: own_dataset(Dataset((x, y), classes=3)), "from 0 to 2")
    refused(lambda: own_dataset(Dataset([(x, y)])), "`classes` and `validation`")
    refused(lambda: own_dataset(Dataset(iter([(x, y)]), validation=(x, y), classes=4)), "__len__")


@pytest.mark.integration
def test_describe_needs_no_torch():
    code = "import sys; from hpo.datasets import describe; print(describe()[0].problem, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


def test_a_training_file_named_as_the_test_file_is_known_too(tmp_path: Path) -> None:
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
        rows = [f"{row % 7},{'ab'[row % 2]}" for row in range(40)]
        (tmp_path / part / "data.csv").write_text("\n".join(["x,y", *rows]))
    given = {"path": str(tmp_path / "train" / "data.csv"), "label": "y", "test": str(tmp_path / "test" / "data.csv")}
    reference = make_reference(given)
    assert len(reference.sha256) == 2
    load(reference)
    (tmp_path / "train" / "data.csv").write_text("\n".join(["x,y", *(f"{row % 7},b" for row in range(40)), "7,a"]))
    with pytest.raises(DataError, match="is not the file that the study was made with"):
        load(reference)


@pytest.mark.parametrize(
    ("parts", "line"),
    [
        ({"groups": np.arange(3)}, "data set 'own': 40 training samples but 3 groups; give one for each"),
        ({"times": np.arange(3)}, "data set 'own': 40 training samples but 3 times; give one for each"),
        ({"weights": np.ones(41)}, "data set 'own': 40 training samples but 41 weights; give one for each"),
        ({"classes": "3"}, "data set 'own': classes = '3'; it must be a whole number"),
        ({"classes": 0}, "data set 'own': classes = 0; it must be a whole number"),
        ({"train": (torch.eye(40).to_sparse(), torch.arange(40) % 3)}, "train: samples are a sparse tensor; give x.to"),
    ],
)
def test_what_a_function_gives_beside_its_samples_is_checked(own_dataset, parts, line):
    train = np.zeros((40, 4), np.float32), np.arange(40) % 3
    refused(lambda: own_dataset(Dataset(**{"train": train, **parts})), line)


def test_an_error_of_a_function_of_test_data_is_one_line(own_dataset):
    train = np.zeros((40, 4), np.float32), np.arange(40) % 3
    dataset = own_dataset(Dataset(train, test=lambda: [][1]))
    refused(dataset.test, "data set 'own', test: IndexError: list index out of range (test_dataset.py, line ")
