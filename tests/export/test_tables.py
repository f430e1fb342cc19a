"""Exported models of tables, of every task: new rows from files, by torch and by onnxruntime alone."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import polars as pl
import pytest
import torch
from scipy.special import expit, ndtri
from torch import nn

from hpo.config.trial_config import TrialConfig
from hpo.datasets import Dataset
from hpo.datasets.source import DatasetSource
from hpo.datasets.table import read_frame
from hpo.errors import RequestError
from hpo.export.answers import answer
from hpo.export.format import PREPROCESSING, Preprocessing, read_preprocessing
from hpo.export.graph import TableEncoding, TargetUnits, normal_deviate
from hpo.export.predict import predict
from hpo.export.table_card import describe_columns
from hpo.export.writer import preprocessing_of
from hpo.training.data import prepare_data
from tests.export.exported import LABELS, export, prepare, write_rows
from tests.helpers import run_hpo, train_here

# With what was missing in training and what was not, with a value and a number that were never seen.
NEW = {
    "colour": ["red", None, "violet", "blue"],
    "size": [1.5, None, 1e6, 0.25],
    "rooms": [3, None, 90, None],
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, nn.Module]]:
    """For each task the folder of an exported model, and the model."""
    folder = tmp_path_factory.mktemp("tables")
    path = write_rows(folder / "rows.csv")
    made = {}
    for task, scaling in zip(LABELS, ("quantile", "standard", "robust"), strict=True):
        data, config = prepare(path, task, widths="8", numeric_scaling=scaling)
        made[task] = folder / task, export(folder / task, data, config)
    return made


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    pl.DataFrame(NEW).write_csv(tmp_path / "new.csv")
    return tmp_path / "new.csv"


@pytest.mark.parametrize("task", LABELS)
def test_new_rows_get_the_same_answer_by_torch_and_by_onnx(task: str, folders: dict, rows: Path) -> None:
    folder, model = folders[task]
    by_torch, by_onnx = (predict(folder, [rows], onnx=onnx)[0] for onnx in (False, True))
    assert [(row["file"], row["row"]) for row in by_torch] == [(str(rows), number) for number in (1, 2, 3, 4)]
    for one, other in zip(by_torch, by_onnx, strict=True):
        assert one.keys() == other.keys()
        texts = {key for key, value in one.items() if isinstance(value, str)}
        assert {key: one[key] for key in texts} == {key: other[key] for key in texts}
        assert all(one[key] == pytest.approx(other[key], rel=1e-4, abs=2e-6) for key in one.keys() - texts)
    inputs = read_preprocessing(folder)
    assert inputs.table is not None
    x = inputs.apply(inputs.table.read(pl.read_csv(rows)))
    assert np.isfinite(x).all()
    with torch.no_grad():
        outputs = model(torch.from_numpy(x)).numpy()
    if task == "classification":
        names = np.array(["flat", "house", "hut"])
        assert [row["class"] for row in by_torch] == names[outputs.argmax(1)].tolist()
    elif task == "multilabel":
        expected = expit(outputs.astype(float))
        np.testing.assert_allclose([[row["warm"], row["wet"]] for row in by_torch], expected, atol=1e-6)
        chosen = ["|".join(n for n, p in zip(("warm", "wet"), row, strict=True) if p >= 0.5) for row in expected]
        assert [row["labels"] for row in by_torch] == chosen
    else:
        expected = outputs * np.array(inputs.target_scale) + np.array(inputs.target_shift)
        np.testing.assert_allclose([[row["price"], row["rent"]] for row in by_torch], expected, rtol=1e-5)
        assert expected[0, 0] > 10_000  # a price, and no number of deviations


@pytest.mark.parametrize("suffix", ["tsv", "parquet", "jsonl", "feather"])
def test_rows_come_in_any_file_of_a_table(suffix: str, folders: dict, rows: Path, tmp_path: Path) -> None:
    path, frame = tmp_path / f"same.{suffix}", pl.DataFrame(NEW)
    writers = {
        "tsv": lambda: frame.write_csv(path, separator="\t"), "parquet": lambda: frame.write_parquet(path),
        "jsonl": lambda: frame.write_ndjson(path), "feather": lambda: frame.write_ipc(path),
    }  # fmt: skip
    writers[suffix]()
    folder = folders["classification"][0]
    told = [{key: value for key, value in row.items() if key != "file"} for row in predict(folder, [rows, path])[0]]
    assert told[:4] == told[4:]


def test_a_raw_matrix_is_taken_as_it_is(folders: dict, rows: Path, tmp_path: Path) -> None:
    folder = folders["classification"][0]
    inputs = read_preprocessing(folder)
    assert inputs.table is not None
    raw = inputs.table.read(pl.read_csv(rows))
    np.save(tmp_path / "raw.npy", raw)
    np.save(tmp_path / "one.npy", raw[2])
    by_row, by_matrix = (predict(folder, [path])[0] for path in (rows, tmp_path / "raw.npy"))
    assert [row["probability"] for row in by_row] == [row["probability"] for row in by_matrix]
    assert by_matrix[2]["file"] == f"{tmp_path / 'raw.npy'}[2]"
    assert predict(folder, [tmp_path / "one.npy"])[0][0]["probability"] == by_row[2]["probability"]
    np.save(tmp_path / "codes.npy", raw + 9)
    with pytest.raises(
        RequestError, match=r"codes\.npy: feature 'colour' of sample \d is \d+\.0; a category is a code"
    ):
        predict(folder, [tmp_path / "codes.npy"])


def test_the_command_writes_every_style(folders: dict, rows: Path) -> None:
    folder = str(folders["regression"][0])
    told = json.loads(run_hpo("predict", folder, str(rows), "--format", "json").stdout)
    table = list(csv.DictReader(io.StringIO(run_hpo("predict", folder, str(rows), "--format", "csv").stdout)))
    assert [float(row["price"]) for row in table] == [row["price"] for row in told]
    assert list(told[0]) == ["file", "row", "price", "rent"]
    assert "price" in run_hpo("predict", folder, str(rows)).stdout.splitlines()[0]


def test_values_that_are_missing_or_were_never_seen_are_counted_by_column(folders: dict, rows: Path) -> None:
    notes = predict(folders["classification"][0], [rows])[1]
    assert notes == [
        f"{rows}, column 'rooms': of 4 values, 2 missing",
        f"{rows}, column 'colour': of 4 values, 1 missing and 1 not among the values that training had at least twice",
        f"{rows}, column 'size': of 4 values, 1 missing",
    ]
    told = run_hpo("predict", str(folders["classification"][0]), str(rows))
    assert told.stderr.splitlines() == [f"note: {note}" for note in notes]


def test_the_card_writes_columns_as_people_do(tmp_path: Path) -> None:
    """Numbers without exponents, dates as dates, and the categories by name."""
    days = [f"20{i % 20:02}-0{1 + i % 6}-11" for i in range(120)]
    town = [("Aldham", "Brook", "Cole")[i % 3] for i in range(120)]
    frame = pl.DataFrame({"built": [1900 + i // 2 for i in range(120)], "sold": days, "town": town})
    frame = frame.with_columns(price=pl.Series([float(i) * 1.5 for i in range(120)]))
    dataset, _ = read_frame(frame, DatasetSource(label=("price",)), "rows")
    data = prepare_data(dataset, TrialConfig(task="regression", widths="8"), torch.device("cpu"))
    told = {name: (holds, missing) for _, name, holds, missing in describe_columns(preprocessing_of(data))}
    assert re.fullmatch(r"19\d\d(\.5)?, the median", told["built"][1])
    assert told["sold"][0] == "date, in days since 2000-01-01"
    assert re.fullmatch(r"20\d\d-\d\d-\d\d, the median", told["sold"][1])
    assert told["sold.month_cos"][0] == "cosine of the month of sold, from -1 to 1"
    assert re.fullmatch(r"-?[01](\.\d{1,4})?, the median", told["sold.month_cos"][1])
    assert re.fullmatch(r"category, by code: 0 any other value, 1 \w+, 2 \w+, 3 \w+", told["town"][0])
    assert told["town"][1] == "as any value that is not listed"


BAD = {
    "no column": ({"colour": ["red"], "rooms": [3]}, r"'size'"),
    "text": ({**NEW, "size": ["1", "2", "large", "3"]}, r"column 'size', row 3: .*large"),
    "infinite": ({**NEW, "size": [1.0, float("inf"), 2.0, 3.0]}, r"column 'size', row 2: .*infinite"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_of_other_rows_is_one_line(case: str, folders: dict, tmp_path: Path) -> None:
    columns, says = BAD[case]
    pl.DataFrame(columns).write_csv(tmp_path / "bad.csv")
    with pytest.raises(RequestError, match=rf"bad\.csv.*{says}") as refused:
        predict(folders["classification"][0], [tmp_path / "bad.csv"])
    assert "\n" not in str(refused.value)


def test_files_of_another_kind_are_one_line(folders: dict, rows: Path, tmp_path: Path) -> None:
    folder = folders["classification"][0]
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(RequestError, match=r"a\.png: the model takes rows of a table; give one of \.csv"):
        predict(folder, [tmp_path / "a.png"])
    with pytest.raises(RequestError, match=r"new\.csv: holds rows of a table; --invert is for bytes"):
        predict(folder, [rows], invert=True)
    shutil.copytree(folder, tmp_path / "matrix")
    stored = json.loads((folder / PREPROCESSING).read_text())
    (tmp_path / "matrix" / PREPROCESSING).write_text(json.dumps({**stored, "table": None}))
    with pytest.raises(RequestError, match=r"new\.csv: the model takes samples of shape \(3,\), and no rows of files"):
        predict(tmp_path / "matrix", [rows])


@pytest.mark.integration
def test_rows_need_no_torch_with_onnx(folders: dict, rows: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from hpo.export.predict import predict;"
        f"predict(Path({str(folders['regression'][0])!r}), [Path({str(rows)!r})], onnx=True);"
        "print([m for m in ('torch', 'optuna', 'sqlalchemy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---- the graph


@pytest.mark.parametrize("scaling", ["standard", "robust", "quantile"])
def test_the_encoding_of_the_graph_is_that_of_training(scaling: str, tmp_path: Path) -> None:
    data, _ = prepare(write_rows(tmp_path / "rows.csv"), "regression", numeric_scaling=scaling)
    assert data.encoder is not None
    raw = np.asarray(data.dataset.train[0]).copy()  # type: ignore[index]
    raw[::3, 0], raw[1::4, 2], raw[2::5, 1] = np.nan, np.nan, 0
    raw[:9, 2], raw[9, 2] = raw[:9, 2] * 1.01, 1e9
    encoded = TableEncoding(data.encoder)(torch.from_numpy(raw)).numpy()
    np.testing.assert_allclose(encoded, data.encoder.apply(raw), atol=1e-6)
    unknown = raw[:1].copy()
    unknown[0, 1] = 77
    code = TableEncoding(data.encoder)(torch.from_numpy(unknown))[0, -1]
    assert code == 0  # a code of no category is any other value


def test_ranks_have_the_deviates_of_scipy() -> None:
    rank = np.concatenate([np.linspace(1e-7, 1 - 1e-7, 1001), 10.0 ** -np.arange(1, 7), 1 - 10.0 ** -np.arange(1, 7)])
    np.testing.assert_allclose(normal_deviate(torch.from_numpy(rank)).numpy(), ndtri(rank), rtol=1e-9, atol=1e-9)


def test_means_and_deviations_of_targets_are_in_their_units() -> None:
    inputs = Preprocessing(
        task="regression", shape=(2,), classes=2, values="float", shift=(0, 0), scale=(1, 1),
        output_names=("row", "rent"), target_shift=(100, 5), target_scale=(10, 2),
    )  # fmt: skip
    outputs = np.array([[1, 0, 0, np.log(4)], [0, -1, 200, np.nan]], np.float32)
    targets = inputs.to_targets(outputs)
    np.testing.assert_allclose(targets[0], [110, 5, 10, 4], rtol=1e-6)
    np.testing.assert_allclose(TargetUnits(inputs)(torch.from_numpy(outputs)).numpy()[0], targets[0], rtol=1e-6)
    first, second = answer(targets, inputs)
    assert first == {"target row": 110.0, "rent": 5.0, "target row_std": 10.0, "rent_std": pytest.approx(4)}
    assert (second["rent"], second["target row_std"], second["rent_std"]) == (3.0, None, None)


def test_a_label_is_predicted_from_its_threshold() -> None:
    inputs = Preprocessing(
        task="multilabel", shape=(1,), classes=2, values="float", shift=(0,), scale=(1,), thresholds=(0.2, 0.9)
    )
    (row,) = answer(np.array([[0.0, 0.0]]), inputs)
    assert row == {"labels": "0", "label 0": 0.5, "label 1": 0.5}


def test_what_is_stored_is_checked(tmp_path: Path, folders: dict) -> None:
    stored = json.loads((folders["regression"][0] / PREPROCESSING).read_text())
    changes = {
        "shift and scale must have 0 numbers": {"shift": [1], "scale": [1]},
        "target_shift and target_scale must have one": {"target_shift": []},
        "one for each of the 2 outputs": {"output_names": ["a"]},
        "but the encoder gives": {"shape": [9]},
        "must be the columns of the encoder": {"table": {**stored["table"], "features": []}},
        "thresholds": {"thresholds": [2, 0]},
    }
    for says, change in changes.items():
        (tmp_path / PREPROCESSING).write_text(json.dumps({**stored, **change}))
        with pytest.raises(RequestError, match=says):
            read_preprocessing(tmp_path)


def test_a_graph_takes_any_number_of_rows(folders: dict) -> None:
    folder = folders["classification"][0]
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    x = np.full((5, 3), np.nan, np.float32)
    assert session.run(["logits"], {"x": x[:1]})[0].shape == (1, 3)
    assert session.run(["logits"], {"x": x})[0].shape == (5, 3)


def test_the_preprocessing_of_a_table_is_its_encoder(tmp_path: Path) -> None:
    data, _ = prepare(write_rows(tmp_path / "rows.csv"), "multilabel")
    inputs = Preprocessing.model_validate_json(preprocessing_of(data).model_dump_json())
    assert inputs.input_shape == data.shape
    assert inputs.input_shape.categories == data.shape.categories
    raw = np.asarray(data.dataset.train[0])  # type: ignore[index]
    np.testing.assert_array_equal(inputs.apply(raw), data.x_train.numpy())


def test_a_regression_of_batches_that_stream_has_targets_as_they_are(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    batches = [(part, part[:, :2]) for part in np.split(x, 4)]
    dataset = Dataset(batches, validation=batches[0], classes=2, task="regression")
    config = TrialConfig(task="regression", widths="8", loss="mse")
    data = prepare_data(dataset, config, torch.device("cpu"))
    model = export(tmp_path / "model", data, config)
    inputs = read_preprocessing(tmp_path / "model")
    assert (inputs.target_shift, inputs.target_scale) == ((0.0, 0.0), (1.0, 1.0))
    np.save(tmp_path / "rows.npy", x)
    rows, _ = predict(tmp_path / "model", [tmp_path / "rows.npy"])
    np.testing.assert_allclose(list(rows[0].values())[-2:], model(torch.from_numpy(x))[0].detach(), rtol=1e-5)


# ---- a study

MODULE = """
from pathlib import Path

import hpo
from tests.export.exported import read_dataset

@hpo.dataset("homes")
def homes():
    return read_dataset(Path("rows.csv"), "classification")
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study of a table, trained and exported to `model`."""
    folder = tmp_path_factory.mktemp("study")
    write_rows(folder / "rows.csv")
    (folder / "homes.py").write_text(MODULE)
    (folder / "own.toml").write_text(
        'dataset = "homes"\nobjective = "val_accuracy"\ntrials = 2\nsampler = "random"\n'
        '[parameters]\nvalidation = 0.2\nnumeric_scaling = "robust"\nepochs = 2\nwidth = 8\n'
        "learning_rate = { low = 0.01, high = 0.1 }\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HPO_HOME", str(folder / "home"))
        train_here("./own.toml", "--import", "homes", cwd=folder)
        done = run_hpo("export", "own", "--weights", "model", "--import", "homes", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "model.onnx: on 256 samples" in done.stderr + done.stdout
    return folder


def test_the_lines_of_the_card_are_true(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (study / "model" / "README.md").read_text()
    assert "for the 3 classes" in text
    assert "Output i is the logit of class i. By number: 0 flat, 1 house, 2 hut." in text
    assert "hpo predict . rows.csv" in text
    listed = re.search(r"\| colour \| category, by code: 0 any other value, 1 (\w+), 2 (\w+), 3 (\w+) \| (.*) \|", text)
    assert listed is not None
    assert {*listed.groups()} == {"red", "blue", "grey", "a code of its own"}
    assert "It takes the raw matrix and encodes it." in text
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    shutil.copy(study / "rows.csv", study / "model")
    monkeypatch.chdir(study / "model")
    names: dict[str, Any] = {}
    exec(blocks[0] + blocks[1], names)
    outputs = names["model"](names["x"]).detach().numpy()
    exec(blocks[2], names | {"x": names["raw"]})
    told = predict(Path(), [Path("rows.csv")])[0]
    assert [row["class"] for row in told] == np.array(["flat", "house", "hut"])[outputs.argmax(1)].tolist()


def test_a_trial_of_a_table_is_reproduced(study: Path) -> None:
    done = run_hpo("reproduce", "own", "0", "--import", "homes", cwd=study, HPO_HOME=str(study / "home"))
    assert done.returncode == 0, done.stderr
    assert "reproduced: 2 epochs of trial 0" in done.stderr or "identical: every metric of 2 epochs" in done.stderr
