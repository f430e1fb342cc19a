"""Folders that Hugging Face's `save_to_disk` has written."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hpo.datasets import DatasetSource
from hpo.datasets.dataset import Dataset
from hpo.datasets.hf_folder import can_read, digest, read_source
from hpo.datasets.readers import find_reader
from hpo.errors import DataError

hf = pytest.importorskip("datasets")
hf.disable_progress_bars()
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 255, (30, 6, 5), dtype=np.uint8)
Y = np.arange(30) % 3
NAMES = ["cat", "a dog", "mouse"]
CLASSES = hf.ClassLabel(names=NAMES)


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_HOME", str(tmp_path / "home"))


def read(path: Path, **options: Any) -> Dataset:
    return read_source(path, DatasetSource(**options))


def refused(path: Path, **options: Any) -> str:
    with pytest.raises(DataError) as raised:
        read(path, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def pictures(rows: slice) -> Any:
    columns = {"picture": [Image.fromarray(each) for each in PIXELS[rows]], "kind": Y[rows].tolist()}
    return hf.Dataset.from_dict(columns, features=hf.Features({"picture": hf.Image(), "kind": CLASSES}))


def save(path: Path, **columns: Any) -> Path:
    hf.Dataset.from_dict(columns).save_to_disk(str(path))
    return path


def test_images_in_parts(tmp_path: Path) -> None:
    parts = {"train": pictures(slice(20)), "validation": pictures(slice(20, 25)), "test": pictures(slice(25, 30))}
    hf.DatasetDict(parts).save_to_disk(str(tmp_path / "pets"))
    assert can_read(tmp_path / "pets")
    dataset = read(tmp_path / "pets")
    assert (dataset.task, dataset.classes, dataset.output_names) == ("classification", 3, tuple(NAMES))
    slices = (slice(20), slice(20, 25), slice(25, 30))
    for (x, y), rows in zip((dataset.train, dataset.validation, dataset.test()), slices, strict=True):
        np.testing.assert_array_equal(x, PIXELS[rows])
        assert y.tolist() == Y[rows].tolist()
    assert read(tmp_path / "pets", resize=(3, 2)).train[0].shape == (20, 3, 2)
    assert len(digest(tmp_path / "pets")["pets"]) == 64


def test_images_of_one_part(tmp_path: Path) -> None:
    pictures(slice(30)).save_to_disk(str(tmp_path / "pets"))
    dataset = read(tmp_path / "pets")
    for part, (x, y) in (("train", dataset.train), ("test", dataset.test())):
        np.testing.assert_array_equal(x, PIXELS[dataset.rows[part] - 1])
        assert y.tolist() == Y[dataset.rows[part] - 1].tolist()
    assert len(dataset.rows["test"]) == 6


def test_dates_order_images(tmp_path: Path) -> None:
    taken = [datetime(2020, 1, 31 - i, tzinfo=UTC) for i in range(30)]
    pictures(slice(30)).add_column("taken", taken).save_to_disk(str(tmp_path / "pets"))
    dataset = read(tmp_path / "pets", label=("kind",), time="taken")
    assert dataset.rows["test"].tolist() == [1, 2, 3, 4, 5, 6]
    assert np.diff(dataset.times).tolist() == [-1.0] * 23


def test_parts_that_lack_columns_and_rows_that_lack_classes(tmp_path: Path) -> None:
    train = pictures(slice(30))
    for name, other in (("bare", "kind"), ("blind", "picture")):
        parts = {"train": train, "test": train.remove_columns(other)}
        hf.DatasetDict(parts).save_to_disk(str(tmp_path / name))
    dataset = read(tmp_path / "bare")
    assert dataset.notes[0] == "test part left out: none of its rows has a label"
    assert len(dataset.rows["test"]) == 6
    assert refused(tmp_path / "blind") == f"{tmp_path / 'blind'}, test: has no column 'picture'; its columns are: kind"
    train.map(lambda row, i: {**row, "kind": -1 if i == 4 else row["kind"]}, with_indices=True).save_to_disk(
        str(tmp_path / "some")
    )
    assert "column 'kind' has no class (-1) in row 5; leave such rows out" in refused(tmp_path / "some")


def test_texts_in_parts(tmp_path: Path) -> None:
    def rows(count: int) -> Any:
        texts = [f"the {('good', 'poor')[i % 2]} film" for i in range(count)]
        columns = {"review": texts, "mood": [i % 2 for i in range(count - 1)] + [None], "more": list(range(count))}
        features = {
            "review": hf.Value("string"),
            "mood": hf.ClassLabel(names=["up", "down"]),
            "more": hf.Value("int64"),
        }
        return hf.Dataset.from_dict(columns, features=hf.Features(features))

    hf.DatasetDict({"train": rows(21), "validation": rows(7), "test": rows(9)}).save_to_disk(str(tmp_path / "own"))
    for text in (("review",), ()):
        dataset = read(tmp_path / "own", label=("mood",), text=text)
        assert (dataset.texts is not None, dataset.schema is None) == (bool(text), bool(text))
        parts = [dataset.train, dataset.validation, dataset.test()]
        assert [len(x) for x, _ in parts] == [20, 6, 8]  # rows without a label are left out
        for _, y in parts:
            assert y.tolist() == [1 - i % 2 for i in range(len(y))]  # in the alphabet's order
        assert dataset.rows["validation"].tolist() == [1, 2, 3, 4, 5, 6]
    assert read(tmp_path / "own", label=("mood",), text=("review",)).texts.words == ("film", "the", "good", "poor")


@pytest.mark.parametrize("images", [True, False])
def test_a_part_whose_labels_are_hidden_is_left_out(tmp_path: Path, images: bool) -> None:
    whole = pictures(slice(30))
    if not images:
        whole = whole.remove_columns("picture").add_column("a", RNG.random(30).tolist())
    hidden = whole.select(range(6)).map(lambda _: {"kind": -1})
    hf.DatasetDict({"train": whole, "test": hidden}).save_to_disk(str(tmp_path / "own"))
    dataset = read(tmp_path / "own", label=("kind",))
    assert "test part left out: none of its rows has a label" in dataset.notes
    assert len(dataset.rows["test"]) == 6  # held out of the training part
    assert read(tmp_path / "own", label=("kind",), test=0).test is None


@pytest.mark.parametrize(
    ("label", "task", "classes", "names"),
    [
        (Y.tolist(), "classification", 3, ()),
        (np.array(NAMES)[Y].tolist(), "classification", 3, ("a dog", "cat", "mouse")),
        ((Y / 7).tolist(), "regression", 1, ()),
        ([[i / 3, i / 7] for i in range(30)], "regression", 2, ()),
        ([[i % 2, 1, int(i % 3 > 0)] for i in range(30)], "multilabel", 3, ()),
    ],
)
def test_arrays_with_labels_of_each_kind(
    tmp_path: Path, label: Any, task: str, classes: int, names: tuple[str, ...]
) -> None:
    dataset = read(save(tmp_path / "own", features=PIXELS[:, 0].tolist(), label=label), label=("label",))
    assert (dataset.task, dataset.classes, tuple(dataset.output_names)) == (task, classes, names)
    np.testing.assert_array_equal(dataset.train[0], PIXELS[:, 0][dataset.rows["train"] - 1])


def test_groups_and_weights_and_columns_that_are_left_out(tmp_path: Path) -> None:
    who, weight = [i // 3 for i in range(30)], [i + 0.5 for i in range(30)]
    path = save(tmp_path / "own", x=PIXELS[:, 0].tolist(), y=Y.tolist(), who=who, w=weight, note=["n"] * 30)
    dataset = read(path, label=("y",), group="who", weight="w")
    rows = dataset.rows["train"]
    assert dataset.groups.tolist() == [(row - 1) // 3 for row in rows]
    assert dataset.weights.tolist() == [row - 0.5 for row in rows]
    assert "columns left out: note" in dataset.notes


def test_what_cannot_be_used(tmp_path: Path) -> None:
    path = save(tmp_path / "own", x=PIXELS[:, 0].tolist(), y=Y.tolist(), z=[*Y.tolist()[:-1], None])
    assert "has no column 'yy'; did you mean 'y'?" in refused(path, label=("yy",))
    assert "has no column 'q'; its columns are: x, y, z" in refused(path, drop=("q",))
    assert "column 'z' is empty in row 30" in refused(path, label=("z",), drop=("y",))
    assert "test = 'more'; save the part in the folder" in refused(path, test="more")
    path = save(tmp_path / "two", a=PIXELS[:, 0].tolist(), b=PIXELS[:, 0].tolist(), c=Y.tolist())
    assert "say which of a, b, c it is: label = …" in refused(path)
    assert "columns a, b may be the samples; leave out the others" in refused(path, label=("c",))
    path = save(tmp_path / "ragged", x=[[1] * (1 + i % 2) for i in range(30)], y=Y.tolist())
    assert "holds arrays of different lengths" in refused(path)
    hf.DatasetDict({"all": hf.Dataset.from_dict({"x": [1]})}).save_to_disk(str(tmp_path / "all"))
    assert "has no split 'train', but 'all'; rename one" in refused(tmp_path / "all")
    (tmp_path / "own/state.json").write_text("{")
    assert "is no complete data set of save_to_disk" in refused(tmp_path / "own")
    assert not can_read(tmp_path)


def test_each_column_of_images_has_its_own(tmp_path: Path) -> None:
    made = {name: [Image.fromarray(np.full((8, 8), value, np.uint8))] * 40 for name, value in (("a", 10), ("b", 200))}
    kinds = hf.Features({"a": hf.Image(), "b": hf.Image(), "label": hf.Value("int64")})
    hf.Dataset.from_dict({**made, "label": [0, 1] * 20}, features=kinds).save_to_disk(str(tmp_path / "two"))
    for drop, value in (("b", 10), ("a", 200)):
        read = read_source(tmp_path / "two", DatasetSource(label=("label",), drop=(drop,)))
        assert read.train[0].max() == value  # type: ignore[index]


def test_a_folder_that_cannot_be_looked_into_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "own", x=[[0.0], [1.0]] * 9, label=[0, 1] * 9)

    def is_file(self: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", is_file)
    with pytest.raises(DataError, match=rf"^{path}: cannot be read \(Permission denied\); check its permissions$"):
        find_reader(path)
