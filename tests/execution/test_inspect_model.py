"""Looking inside of models that were really trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hpo
from hpo.config import registry
from hpo.errors import RequestError
from hpo.execution.inspect_model import check_inspectable, inspect_model
from hpo.execution.restore import restore
from hpo.report.chapters.blocks import Pictures, Text
from hpo.report.chapters.model_inspection import model_inspection_chapter
from hpo.study import Study
from hpo.study.files.artifacts import find_artifact, list_artifacts
from hpo.study.files.study_files import weights_path
from hpo.study.input.study_file import parse_definition
from hpo.study.operations.evaluation_study import evaluation_studies
from hpo.training import data as training_data
from tests.data import small_npz
from tests.helpers import run_hpo
from tests.study.helpers import new_storage, sqlite_url
from tests.workers import make_worker

MLP = {"widths": "16-8", "epochs": 2, "batch_size": 32, "learning_rate": [0.01, 0.001]}
CNN = {
    "model": "cnn",
    "conv_layers": 1,
    "channels": 4,
    "dense_width": 8,
    "epochs": 1,
    "batch_size": 32,
    "batch_norm": True,
}


def trained(folder: Path, parameters: dict[str, Any], **keys: Any) -> Study:
    data = small_npz(folder / "small.npz")
    table = {"dataset": str(data), "trials": 2, "sampler": "random", "parameters": parameters, **keys}
    study = Study.create(new_storage(folder), *parse_definition(table, "small", folder))
    make_worker(study).run()
    return study


@pytest.mark.parametrize("parameters", [MLP, CNN])
def test_from_kept_weights_to_the_chapter(
    tmp_path: Path, parameters: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = trained(tmp_path, {"validation": 120, **parameters})

    def refuse(_self: object) -> None:
        raise AssertionError("the test set was read")

    monkeypatch.setattr(training_data.Data, "test", refuse)
    inspect_model(study, "cpu")
    best = study.best()
    assert best is not None
    path = find_artifact(study, "landscape.npy")
    assert path is not None
    losses = np.load(path)
    assert (losses.shape, losses.dtype) == ((25, 25), np.float32)
    held = np.load(find_artifact(study, "inside.npz"), allow_pickle=False)
    # All validation samples are looked at, so that the middle is what the trial was told with.
    assert held["accuracies"][12, 12] == pytest.approx(best.value)
    chapter = model_inspection_chapter(study)
    assert chapter is not None
    text = " ".join(block.text for block in chapter.blocks if isinstance(block, Text))
    assert f"The weights of trial {best.number}" in text
    assert "120 validation samples" in text
    assert sum(len(block.images) for block in chapter.blocks if isinstance(block, Pictures)) >= 4 + 8 + 3


def test_a_model_without_hidden_layers_shows_the_weights_of_its_classes(tmp_path: Path) -> None:
    study = trained(tmp_path, {"depth": 0, "epochs": 1, "learning_rate": [0.01, 0.001]})
    inspect_model(study, "cpu")
    chapter = model_inspection_chapter(study)
    assert chapter is not None
    (pictures,) = [block for block in chapter.blocks if isinstance(block, Pictures)]
    assert pictures.captions == ["class 0", "class 1", "class 2"]
    text = " ".join(block.text for block in chapter.blocks if isinstance(block, Text))
    assert "A class responds most to an input that looks like its weights." in text


def test_again_replaces_what_was_kept(tmp_path: Path) -> None:
    study = trained(tmp_path, MLP)
    inspect_model(study, "cpu")
    first = {name: found.id for name, found in list_artifacts(study).items()}
    before = dict(np.load(find_artifact(study, "inside.npz"), allow_pickle=False))
    inspect_model(study, "cpu")
    assert {name: found.id for name, found in list_artifacts(study).items()} == first
    after = np.load(find_artifact(study, "inside.npz"), allow_pickle=False)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_what_is_missing_is_one_line(tmp_path: Path) -> None:
    data = small_npz(tmp_path / "small.npz")
    table = {"dataset": str(data), "trials": 1, "sampler": "random", "parameters": MLP}
    study = Study.create(new_storage(tmp_path), *parse_definition(table, "small", tmp_path))
    with pytest.raises(RequestError, match="study 'small': no trial is complete yet"):
        inspect_model(study, "cpu")
    make_worker(study).run()
    path = weights_path(study, 0)
    assert path is not None
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    with pytest.raises(RequestError, match="do not fit the model 'mlp'") as damaged:
        inspect_model(study, "cpu")
    assert "\n" not in str(damaged.value)
    path.unlink()
    with pytest.raises(RequestError, match=r"the weights of trial 0 are not in .*set HPO_HOME") as caught:
        inspect_model(study, "cpu")
    assert "\n" not in str(caught.value)
    assert model_inspection_chapter(study) is None


def test_what_cannot_be_looked_into_is_refused_before_anything_is_evaluated(tmp_path: Path) -> None:
    study = trained(tmp_path, MLP, seeds=2)
    where = ("--storage", sqlite_url(tmp_path))
    done = run_hpo("evaluate", "small", "--inside", *where, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "no weights of fits are kept" in done.stderr
    assert evaluation_studies(study) == []


def test_weights_that_are_not_here_or_categories_are_found_beforehand(tmp_path: Path) -> None:
    study = trained(tmp_path, MLP)
    check_inspectable(study)
    path = weights_path(study, study.best().number)  # type: ignore[union-attr]
    assert path is not None
    path.unlink()
    with pytest.raises(RequestError, match="set HPO_HOME"):
        check_inspectable(study)
    rows = [f"{i},{'red' if i % 3 else 'blue'},{'ab'[i % 2]}" for i in range(60)]
    (tmp_path / "rows.csv").write_text("\n".join(["size,colour,kind", *rows]))
    table = {"dataset": {"path": str(tmp_path / "rows.csv"), "label": "kind"}, "trials": 1, "parameters": MLP}
    coded = Study.create(study.storage, *parse_definition(table, "coded", tmp_path))
    make_worker(coded).run()
    with pytest.raises(RequestError, match="have categories"):
        check_inspectable(coded)


def test_data_that_have_changed_since_the_training_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(registry.datasets, "_entries", dict(registry.datasets._entries))
    with np.load(small_npz(tmp_path / "small.npz")) as held:
        x, y = held["x_train"], held["y_train"]
    hpo.dataset("moving")(lambda: hpo.Dataset((x, y)))
    table = {"dataset": "moving", "trials": 1, "sampler": "random", "parameters": MLP}
    study = Study.create(new_storage(tmp_path), *parse_definition(table, "small", tmp_path))
    make_worker(study).run()
    restore(study, device="cpu")
    assert caplog.messages == []
    y = np.roll(y, 1)
    restore(study, device="cpu")
    (line,) = caplog.messages
    assert "was trained on other data than 'moving' gives now" in line
    assert "hpo reproduce small 0 --out DIR" in line
