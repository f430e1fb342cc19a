"""The atomic job and the files it writes."""

import csv
import tomllib

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hpo.config import registry
from hpo.config.trial_config import TrialConfig
from hpo.datasets import make_reference
from hpo.errors import DataError, DivergedError, RequestError
from hpo.training import standalone
from hpo.training.models import build_model
from hpo.training.settings import TrainSettings

RNG = np.random.default_rng(0)
CENTRES = RNG.normal(size=(3, 6, 6)) * 0.7


def part(n):
    y = np.arange(n) % 3
    return (CENTRES[y] + RNG.normal(size=(n, 6, 6))).astype(np.float32), y


@pytest.fixture
def own(tmp_path):
    (x_train, y_train), (x_test, y_test) = part(240), part(60)
    np.savez(tmp_path / "own.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return make_reference("own.npz", tmp_path)


@pytest.fixture
def accuracy_of_class_zero():
    registry.metric("class_zero")(lambda outputs, targets: (outputs.argmax(1)[targets == 0] == 0).float().mean())
    yield registry.metrics.get("class_zero")
    del registry.metrics._entries["class_zero"]


CONFIG = TrialConfig(widths="12", epochs=3, batch_size=16, learning_rate=0.01, schedule="cosine", dropout=0.1)


def run(own, out, config=CONFIG, **keywords):
    return standalone.train_config(config, own, out, threads=1, progress=False, **keywords)


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_files(own, tmp_path):
    done = run(own, tmp_path / "out")
    names = {path.name for path in done.out.iterdir()}
    assert {"config.toml", "metrics.csv", "weights.safetensors"} <= names
    assert len(names) == 4
    weights = load_file(done.out / "weights.safetensors")
    model = build_model(CONFIG, (1, 6, 6), 3)
    model.load_state_dict(weights)
    assert all(torch.equal(weights[key], done.outcome.weights[key]) for key in weights)
    assert done.test is None


def test_metrics_csv(own, tmp_path, accuracy_of_class_zero):
    done = run(own, tmp_path / "out", settings=TrainSettings(metrics=[accuracy_of_class_zero]))
    table = rows(done.out / "metrics.csv")
    fixed = ["epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds"]
    assert list(table[0]) == [*fixed, "class_zero"]
    assert [row["epoch"] for row in table] == ["1", "2", "3"]
    assert float(table[-1]["learning_rate"]) == CONFIG.final_rate
    assert [{key: float(value) for key, value in row.items()} for row in table] == done.outcome.history


def test_columns_without_registered_metrics(own, tmp_path):
    done = run(own, tmp_path / "out", settings=TrainSettings(metrics=[registry.metrics.get("val_accuracy")]))
    header = (done.out / "metrics.csv").read_text().splitlines()[0]
    assert header == "epoch,train_loss,train_accuracy,val_loss,val_accuracy,learning_rate,seconds"


def test_config_toml_gives_the_same_run(own, tmp_path):
    first = run(own, tmp_path / "a", extra_header="trial 3\nof a study")
    text = (first.out / "config.toml").read_text()
    document = tomllib.loads(text)
    assert text.startswith("# trial 3\n# of a study\n")
    assert document["dataset"] == own.name
    assert document["objective"] == "val_accuracy"
    assert "momentum" not in document["parameters"]
    again = run(own, tmp_path / "b", TrialConfig(**document["parameters"]))
    assert again.outcome.config.effective() == CONFIG.effective()
    assert (again.out / "weights.safetensors").read_bytes() == (first.out / "weights.safetensors").read_bytes()


def test_objective_with_its_other_direction(own, tmp_path):
    done = run(own, tmp_path / "out", settings=TrainSettings(monitor="val_loss", direction="maximize"))
    document = tomllib.loads((done.out / "config.toml").read_text())
    assert document["objective"] == {"metric": "val_loss", "direction": "maximize"}


def test_tensorboard(own, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    done = run(own, tmp_path / "out")
    events = EventAccumulator(str(done.out))
    events.Reload()
    assert set(events.Tags()["scalars"]) == set(done.outcome.history[0]) - {"epoch"}
    scalars = events.Scalars("val_accuracy")
    assert [scalar.step for scalar in scalars] == [1, 2, 3]
    assert [scalar.value for scalar in scalars] == pytest.approx([row["val_accuracy"] for row in done.outcome.history])


def test_test_set_is_read_once_and_only_when_asked(own, tmp_path, monkeypatch):
    from hpo.training.data import Data

    reads, read = [], Data.test
    monkeypatch.setattr(Data, "test", lambda self: reads.append(1) or read(self))
    run(own, tmp_path / "a")
    assert not reads
    done = run(own, tmp_path / "b", test=True)
    assert reads == [1]
    assert done.test is not None
    assert 0.5 < done.test["accuracy"] <= 1
    assert done.test["loss"] > 0


def test_progress_goes_to_standard_error(own, tmp_path, capsys):
    standalone.train_config(CONFIG, own, tmp_path / "out", threads=1)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert [line.split("  ")[0] for line in captured.err.splitlines()] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]


def test_a_folder_in_use_is_refused(own, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    run(own, out)
    with pytest.raises(RequestError, match="holds a run already"):
        run(own, out)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").touch()
    with pytest.raises(RequestError, match="is not empty"):
        run(own, tmp_path / "other")
    with pytest.raises(RequestError, match="cannot be used"):
        run(own, tmp_path / "other/file")


def test_divergence_is_an_error(own, tmp_path):
    config = TrialConfig(depth=8, activation="elu", optimizer="sgd", learning_rate=1000)
    with pytest.raises(DivergedError, match="smaller learning_rate"):
        run(own, tmp_path / "out", config)
    assert rows(tmp_path / "out/metrics.csv")[0]["val_loss"] in ("nan", "inf")


def test_interruption_keeps_what_there_is(own, tmp_path):
    answers = iter([False] * 30 + [True] * 9)  # 13 steps an epoch
    done = run(own, tmp_path / "out", settings=TrainSettings(should_stop=lambda: next(answers)), test=True)
    assert done.outcome.status == "interrupted"
    assert len(rows(done.out / "metrics.csv")) == 2
    assert (done.out / "weights.safetensors").exists()
    assert done.test is None


def test_data_are_checked_before_anything_is_written(own, tmp_path):
    (tmp_path / "own.npz").unlink()
    with pytest.raises(DataError):
        run(own, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
