"""Exported models of really trained studies: used without the study, by torch and by onnxruntime."""

from __future__ import annotations

import json
import re
import resource
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from hpo.datasets import load, make_reference
from hpo.errors import RequestError, RunError
from hpo.execution.evaluate import plan_evaluations
from hpo.execution.restore import restore
from hpo.export.format import Preprocessing
from hpo.export.predict import predict
from hpo.export.sample_files import read_samples
from hpo.export.writer import write_model
from hpo.study import Study, StudyStorage
from hpo.study.files.study_files import weights_path
from tests.data import small_npz
from tests.execution.test_evaluate import trained
from tests.helpers import hpo, run_hpo, train_here
from tests.study.helpers import sqlite_url
from tests.workers import make_worker

FILES = ["README.md", "config.toml", "model.onnx", "preprocessing.json", "weights.safetensors"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained study, its home and its exported model, made once: each test has a copy."""
    folder = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HPO_HOME", str(folder / "home"))
        study = trained(folder)
        write_model(study, folder / "model")
    study.storage.engine.dispose()
    return folder


@pytest.fixture
def study(exported: Path, tmp_path: Path) -> Study:
    shutil.copytree(exported / "home", tmp_path / "home")
    shutil.copy(exported / "studies.db", tmp_path)
    return Study(StudyStorage(sqlite_url(tmp_path)), "small")


@pytest.fixture
def model(exported: Path, tmp_path: Path) -> Path:
    shutil.copytree(exported / "model", tmp_path / "model")
    return tmp_path / "model"


def test_the_folder_is_whole_and_the_weights_are_the_same_bytes(study: Study, model: Path) -> None:
    assert sorted(path.name for path in model.iterdir()) == FILES
    best = study.best()
    assert best is not None
    kept = weights_path(study, best.number)
    assert kept is not None
    assert (model / "weights.safetensors").read_bytes() == kept.read_bytes()
    assert not [path for path in model.parent.iterdir() if path.name.startswith(".model")]


def test_it_has_the_accuracy_that_was_recorded(study: Study, model: Path, tmp_path: Path) -> None:
    found = restore(study, device="cpu")
    dataset = load(study.definition.dataset)
    x, y = (np.asarray(part) for part in dataset.train)
    takes = json.loads((model / "preprocessing.json").read_text())
    scaled = torch.from_numpy((x[:, None] - np.float32(takes["shift"][0])) / np.float32(takes["scale"][0]))
    held = {row.numpy().tobytes() for row in found.data.x_val}
    mine = [i for i in range(len(x)) if scaled[i].float().numpy().tobytes() in held]
    assert len(mine) == len(found.data.y_val)
    np.save(tmp_path / "validation.npy", x[mine])
    for onnx in (False, True):
        rows, _ = predict(model, [tmp_path / "validation.npy"], onnx=onnx)
        right = np.mean([row["class"] == label for row, label in zip(rows, y[mine], strict=True)])
        assert right == pytest.approx(found.trial.values[0], abs=1e-9)


def test_files_of_named_arrays_predict_their_samples(model: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 255, (3, 6, 6)).astype(np.uint8)
    y = np.arange(3)
    np.save(tmp_path / "x.npy", x)
    expected = [row["probability"] for row in predict(model, [tmp_path / "x.npy"])[0]]
    np.savez(tmp_path / "pair.npz", x=x, y=y)
    np.savez(tmp_path / "parts.npz", x_train=x[:2], y_train=y[:2], x_test=x, y_test=y)
    torch.save({"images": torch.from_numpy(x), "labels": torch.from_numpy(y)}, tmp_path / "pair.pt")
    for name, taken in (("pair.npz", "x"), ("parts.npz", "x_test"), ("pair.pt", "images")):
        rows, notes = predict(model, [tmp_path / name])
        assert [row["probability"] for row in rows] == expected
        assert notes[0].startswith(f"{tmp_path / name}: predicts {taken}; the file also holds ")
    np.savez(tmp_path / "two.npz", x_train=x, x_val=x)
    with pytest.raises(
        RequestError, match=r"two\.npz: x_train, x_val may be the samples; save those to predict alone, as x"
    ):
        predict(model, [tmp_path / "two.npz"])


def test_the_cards_plain_torch_is_the_model(study: Study, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (model / "README.md").read_text()
    (code,) = re.findall(r"in plain torch:\n\n```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(model)
    names: dict[str, torch.nn.Module] = {}
    exec(code, names)
    found = restore(study, device="cpu")
    found.model.eval()
    assert torch.equal(names["model"](found.data.x_val), found.model(found.data.x_val))
    assert "It has not been tested" in text
    assert "torch 2." in text


def test_the_card_has_the_honest_score(study: Study, tmp_path: Path) -> None:
    for each in plan_evaluations(study, top=1, seeds=3):
        make_worker(each).run()
    write_model(study, tmp_path / "model")
    text = (tmp_path / "model" / "README.md").read_text()
    assert re.search(r"The same configuration from fresh seeds: test accuracy \d", text)
    assert "It has not been tested" not in text


@pytest.mark.parametrize("refit", [False, True])
def test_the_card_of_a_run_of_an_evaluation_has_its_test_score(refit: bool, study: Study, tmp_path: Path) -> None:
    (made,) = plan_evaluations(study, top=1, seeds=2, refit=refit)
    make_worker(made).run()
    write_model(made, tmp_path / "model")
    text = (tmp_path / "model" / "README.md").read_text()
    assert "It has not been tested" not in text
    own = text.partition("## Use")[0]
    assert ("This run on the test set: test accuracy" in own) == (not refit)
    assert ("This run: test accuracy" in own) == refit


def test_a_folder_in_use_is_left_alone(study: Study, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    write_model(study, tmp_path / "model")  # an empty one is used
    before = {path: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    with pytest.raises(RequestError, match="model: is not empty; choose another folder"):
        write_model(study, tmp_path / "model")
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match="is not a folder"):
        write_model(study, tmp_path / "file")
    assert {path: path.read_bytes() for path in (tmp_path / "model").iterdir()} == before


def test_the_folder_one_stands_in(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path / "model")
    write_model(study, Path())
    assert Path("README.md").exists()


def test_nothing_is_left_where_it_fails(study: Study, tmp_path: Path) -> None:
    best = study.best()
    assert best is not None
    path = weights_path(study, best.number)
    assert path is not None
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(RequestError, match="do not fit the model 'mlp'"):
        write_model(study, tmp_path / "model")
    path.unlink()
    with pytest.raises(RequestError, match=r"the weights of trial \d are not in .*hpo reproduce small"):
        write_model(study, tmp_path / "model")
    with pytest.raises(RequestError, match="has no trial 99"):
        write_model(study, tmp_path / "model", 99)
    assert not [path for path in tmp_path.iterdir() if "model" in path.name]


def test_without_the_extra_the_onnx_file_is_left_out(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpo.export.writer.has_onnx", lambda: False)
    assert write_model(study, tmp_path / "model") == [
        "model.onnx is left out: it needs the extra, pip install 'torch-hpo[onnx]'"
    ]
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [f for f in FILES if f != "model.onnx"]
    with pytest.raises(RequestError, match=r"model.onnx: is missing; .*torch-hpo\[onnx\]"):
        predict(tmp_path / "model", [], onnx=True)


MODULE = """
import hpo
from torch import nn

@hpo.model("wide")
def wide(config, shape, classes):
    return nn.Sequential(nn.Flatten(), Twice(), nn.Linear(shape[-1] * shape[-2], classes))

class Twice(nn.Module):
    def forward(self, x):
        return 2 * x
"""


@pytest.mark.integration
def test_a_registered_model_travels_with_its_module(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MODULE)
    data = small_npz(tmp_path / "small.npz")
    (tmp_path / "own.toml").write_text(
        f'dataset = "{data}"\nobjective = "val_accuracy"\ntrials = 2\nsampler = "random"\n'
        '[parameters]\nmodel = "wide"\nepochs = 1\nlearning_rate = { low = 0.01, high = 0.1 }\n'
    )
    train_here("./own.toml", "--import", "mine", cwd=tmp_path)
    done = hpo("export", "own", "--weights", "model", "--import", "mine", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "the module that registers the model" in (tmp_path / "model" / "README.md").read_text()
    np.save(tmp_path / "one.npy", np.load(data)["x_test"][0])
    told = [
        json.loads(hpo("predict", "model", "one.npy", "--format", "json", *more, cwd=tmp_path).stdout)[0]
        for more in (["--import", "mine"], ["--onnx"])
    ]
    assert told[0]["class"] == told[1]["class"]
    assert told[0]["probability"] == pytest.approx(told[1]["probability"], abs=1e-5)
    refused = run_hpo("predict", "model", "one.npy", cwd=tmp_path)
    assert refused.returncode == 2
    assert "wide" in refused.stderr


def test_what_onnx_cannot_say_is_left_out_with_a_line(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: object, path: Path, __: object) -> float:
        path.write_bytes(b"half")
        raise RunError("the model cannot be written as ONNX: why")

    monkeypatch.setattr("hpo.export.writer.write_onnx", refused)
    assert write_model(study, tmp_path / "model") == [
        "model.onnx is left out: the model cannot be written as ONNX: why"
    ]
    assert "onnx" not in "".join(path.name for path in (tmp_path / "model").iterdir())


@pytest.mark.integration
def test_with_onnx_neither_torch_nor_optuna_is_imported(model: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.zeros((2, 6, 6), np.uint8))
    code = (
        "import sys; from pathlib import Path; from hpo.export.predict import predict;"
        f"predict(Path({str(model)!r}), [Path({str(tmp_path / 'one.npy')!r})], onnx=True);"
        "print([m for m in ('torch', 'optuna', 'sqlalchemy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_pictures_become_what_the_model_takes(model: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(60, size=(6, 6), dtype=np.uint8)
    np.save(tmp_path / "a.npy", image)
    np.save(tmp_path / "b.npy", 255 - image)
    Image.fromarray(image).save(tmp_path / "grey.png")
    Image.fromarray(np.dstack([image] * 3)).save(tmp_path / "colour.png")
    Image.fromarray(np.dstack([image] * 3 + [np.full((6, 6), 255, np.uint8)])).save(tmp_path / "alpha.png")
    Image.fromarray(image).convert("P").save(tmp_path / "palette.png")
    files = [tmp_path / name for name in ("a.npy", "grey.png", "colour.png", "alpha.png", "palette.png")]
    rows, notes = predict(model, files)
    assert notes == []
    assert len({(row["class"], row["probability"]) for row in rows}) == 1
    assert [row["file"] for row in rows] == [str(path) for path in files]
    assert predict(model, [tmp_path / "b.npy"], invert=True)[0][0]["probability"] == rows[0]["probability"]
    Image.fromarray(image).resize((20, 10)).save(tmp_path / "large.png")
    assert predict(model, [tmp_path / "large.png"])[1] == [
        f"{tmp_path / 'large.png'}: resized from 20 x 10 to 6 x 6 pixels"
    ]


def sample_picture(mode: str) -> Image.Image:
    """A picture of random pixels, 9 x 12; of `turned`, whose camera was held upright."""
    rng = np.random.default_rng(1)
    if mode == "I;16":
        return Image.fromarray(rng.integers(65536, size=(9, 12)).astype(np.uint16))
    picture = Image.fromarray(rng.integers(256, size=(9, 12, 4), dtype=np.uint8))
    if mode == "turned":
        picture = picture.convert("L")
        picture.getexif()[0x0112] = 6
        return picture
    return picture.convert(mode)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "turned"])
def test_pictures_are_decoded_as_for_training(mode: str, channels: int, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(6):
            picture = sample_picture(mode)
            picture.save(tmp_path / "data" / name / f"{i}.png", exif=picture.getexif())
    if channels == 3:  # the others of the folder are brought to colours
        Image.new("RGB", (12, 9)).save(tmp_path / "data" / "a" / "colour.png")
    size = (6, 5)
    dataset = load(make_reference({"path": str(tmp_path / "data"), "resize": list(size)}))
    trained_on = np.asarray(dataset.train[0])  # type: ignore[index]
    shape = (3 if trained_on.ndim == 4 else 1, *size)
    inputs = Preprocessing(shape=shape, classes=2, values="uint8", shift=(0.0,) * shape[0], scale=(1.0,) * shape[0])
    found = read_samples(tmp_path / "data" / "a" / "0.png", inputs)
    sample = found.x[0].transpose(1, 2, 0) if shape[0] == 3 else found.x[0, 0]
    assert any(np.array_equal(sample, each) for each in trained_on)
    assert any("upper 8" in note for note in found.notes) == (mode == "I;16")


def test_a_picture_on_light_ground_is_pointed_out(model: Path, tmp_path: Path) -> None:
    takes = json.loads((model / "preprocessing.json").read_text())
    (model / "preprocessing.json").write_text(json.dumps({**takes, "shift": [30.0]}))
    Image.fromarray(np.full((6, 6), 250, np.uint8)).save(tmp_path / "light.png")
    assert "--invert" in predict(model, [tmp_path / "light.png"])[1][0]
    assert predict(model, [tmp_path / "light.png"], invert=True)[1] == []


def test_bad_files_are_one_line_each(model: Path, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    np.save(tmp_path / "odd.npy", np.zeros((3, 5)))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "odd.npy").read_bytes()[:60])
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00")
    for name in ("text.png", "objects.npy", "odd.npy", "cut.npy", "cut.png", "missing.png"):
        done = run_hpo("predict", str(model), name, cwd=tmp_path)
        assert done.returncode == 2, name
        assert done.stderr.startswith(f"hpo: {name}: "), done.stderr
        assert done.stderr.count("\n") == 1
        assert done.stdout == ""
    (model / "model.onnx").write_bytes(b"no model")
    (model / "weights.safetensors").write_bytes(b"none")
    np.save(tmp_path / "one.npy", np.zeros((6, 6)))
    assert "model.onnx: cannot be read" in run_hpo("predict", str(model), "one.npy", "--onnx", cwd=tmp_path).stderr
    assert "do not fit the model" in run_hpo("predict", str(model), "one.npy", cwd=tmp_path).stderr


DISGUISED = ("BMP", "GIF", "ICO", "PPM", "TIFF", "TGA", "WEBP")
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 6\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize("kind", DISGUISED)
def test_only_png_and_jpeg_are_opened_whatever_the_name_says(kind: str, model: Path, tmp_path: Path) -> None:
    Image.new("L", (6, 6)).save(tmp_path / "real.png", kind)
    with pytest.raises(RequestError, match=r"real\.png: is no PNG or JPEG image, whatever its name says"):
        predict(model, [tmp_path / "real.png"])


def test_a_postscript_file_under_the_name_of_a_picture_starts_no_program(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (tmp_path / "bin" / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    (tmp_path / "drawn.png").write_bytes(POSTSCRIPT)
    with pytest.raises(RequestError, match=r"drawn\.png: is no PNG or JPEG image"):
        predict(model, [tmp_path / "drawn.png"])
    assert not (tmp_path / "started").exists()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("side", [5_100, 12_000, 40_000])
def test_a_picture_of_too_many_pixels_is_not_unpacked(side: int, model: Path, tmp_path: Path) -> None:
    row = zlib.compress(bytes(1 + side // 8))
    parts = {b"IHDR": struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0), b"IDAT": row, b"IEND": b""}
    packed = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts.items())
    (tmp_path / "large.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
    with pytest.raises(RequestError, match=r"large\.png: .*pixels") as refused:
        predict(model, [tmp_path / "large.png"])
    assert "\n" not in str(refused.value)


def test_what_a_folder_declares_is_checked_before_memory_is_taken(model: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.zeros((6, 6), np.uint8))
    takes, config = ((model / name).read_text() for name in ("preprocessing.json", "config.toml"))
    declared = {
        "classes: must be at most 1000000": {"classes": 3_000_000_000},
        "takes (900000, ": {"classes": 900_000},
        "takes (8, 9000000)": {"shape": [1, 3000, 3000]},
        "more than 10,000,000 numbers": {"shape": [1, 9_000_000, 9_000_000]},
        "shape.1: must be at most": {"shape": [1, 10**15]},
        "classes = 1000": {"classes": 10**400},
        "occurs twice": None,
    }
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for words, changes in declared.items():
        changed = json.dumps({**json.loads(takes), **changes}) if changes else f'{{"classes": 1, {takes[1:]}'
        (model / "preprocessing.json").write_text(changed)
        with pytest.raises(RequestError) as refused:
            predict(model, [tmp_path / "one.npy"])
        assert words in str(refused.value)
        assert "\n" not in str(refused.value)
    (model / "preprocessing.json").write_text(takes)
    (model / "config.toml").write_text('[parameters]\nwidths = "65536-65536-65536-65536"\n')
    with pytest.raises(RequestError, match=r"do not fit the model 'mlp' \(it takes \(65536, 36\)"):
        predict(model, [tmp_path / "one.npy"])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB
    (model / "config.toml").write_text(config)
    assert predict(model, [tmp_path / "one.npy"])[0]


def test_mnist_pictures_from_the_command_line(tmp_path: Path) -> None:
    done = run_hpo("launch", "quickstart", "--trials", "1", "--set", "epochs=1", "--workers", "0", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert run_hpo("worker", "quickstart", cwd=tmp_path).returncode == 0
    assert run_hpo("export", "quickstart", "--weights", "model", cwd=tmp_path).returncode == 0
    test = load(make_reference("mnist", tmp_path)).test
    x, y = test() if callable(test) else test  # type: ignore[misc]
    for i in range(20):
        Image.fromarray(np.asarray(x[i])).save(tmp_path / f"{i}.png")
    done = run_hpo("predict", "model", *(f"{i}.png" for i in range(20)), "--format", "json", cwd=tmp_path)
    rows = json.loads(done.stdout)
    assert [row["file"] for row in rows] == [f"{i}.png" for i in range(20)]
    assert sum(row["class"] == int(label) for row, label in zip(rows, y[:20], strict=True)) >= 17
    assert load_file(tmp_path / "model" / "weights.safetensors")
