"""Studies of models of timm and of pretrained weights: launched, read, trained, and where something is missing."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import pytest
from safetensors.torch import save_file

from hpo.config.trial_config import TrialConfig
from hpo.errors import ConfigError, DataError, RegistryError
from hpo.execution.launch import plan_launch
from hpo.execution.worker import Worker
from hpo.execution.worker_options import WorkerOptions
from hpo.study.input.config_file import read_config, read_parameters
from hpo.training.models import build_model
from hpo.training.standalone import write_config
from tests.data import small_npz
from tests.helpers import run_hpo
from tests.study.helpers import sqlite_url

pytestmark = pytest.mark.usefixtures("vision")
SPACE = """
dataset = "small.npz"
trials = 2
sampler = "grid"
[parameters]
model = ["timm:test_resnet", "cnn"]
pretrained = { choices = ["weights/own.safetensors", "none"], when = { model = "timm:test_resnet" } }
head_learning_rate = { value = 0.01, when = { model = "timm:test_resnet" } }
conv_layers = 1
channels = 2
epochs = 1
batch_size = 200
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    small_npz(tmp_path / "small.npz")
    (tmp_path / "weights").mkdir()
    weights = build_model(TrialConfig(model="timm:test_resnet"), (1, 6, 6), 5).state_dict()
    save_file(weights, tmp_path / "weights" / "own.safetensors")
    (tmp_path / "own.toml").write_text(SPACE.replace("trials = 2\n", ""))
    return tmp_path


def test_a_study_of_a_model_of_timm_needs_nothing_but_its_name(folder: Path) -> None:
    url = sqlite_url(folder)
    plan = plan_launch(str(folder / "own.toml"))
    path = folder / "weights" / "own.safetensors"
    assert plan.definition.weights == {str(path): hashlib.sha256(path.read_bytes()).hexdigest()}
    study = plan.create(url)
    assert not study.definition.modules
    Worker(study, WorkerOptions(checkpoint_every=0)).run()
    rows = [(dict(trial.params), trial.state.name) for trial in study.trials()]
    assert {state for _, state in rows} == {"COMPLETE"}
    assert sorted(str(values.get("pretrained", "")) for values, _ in rows) == ["", str(path), "None"]
    config = next(each for each in map(study.config_of, study.trials()) if each.pretrained == str(path))
    assert config.head_learning_rate == 0.01
    write_config(folder / "config.toml", config, study.definition.dataset, "val_accuracy", "maximize")
    assert read_parameters(folder / "config.toml").pretrained == str(path)
    for command in ("show", "trials", "report"):
        done = run_hpo(command, "own", "--storage", url, cwd=folder, HPO_HOME=str(folder))
        assert done.returncode == 0, done.stderr
    path.write_bytes(b"others")
    with pytest.raises(DataError, match=r"own\.safetensors: is not the file that the study was made with"):
        Worker(study)
    path.unlink()
    with pytest.raises(DataError, match=r"own\.safetensors: the study's pretrained weights are not here"):
        Worker(study)


def test_a_worker_without_timm_says_which_extra_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = plan_launch(str(folder / "own.toml")).create(sqlite_url(folder))
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "timm" else found(name, *rest))
    with pytest.raises(RegistryError, match=r"^model 'timm:test_resnet': needs the package timm.*'torch-hpo\[timm\]'"):
        Worker(study)
    with pytest.raises(RegistryError, match=r"own.toml: \[parameters\].* needs the package timm"):
        plan_launch(str(folder / "own.toml"))


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("timm:test_resnet", "timm:test_resnt", "model = 'timm:test_resnt': timm has no such model of images; did you"),
        ("own.safetensors", "no.safetensors", r"\[parameters\] pretrained = .*no.safetensors.*: there is no such file"),
        ("own.safetensors", "own.txt", r"\[parameters\] pretrained.*name must end in .safetensors, .pth"),
    ],
)
def test_what_is_wrong_is_found_at_the_launch(folder: Path, old: str, new: str, line: str) -> None:
    (folder / "own.toml").write_text((folder / "own.toml").read_text().replace(old, new))
    with pytest.raises(Exception, match=line) as error:
        plan_launch(str(folder / "own.toml"))
    assert "\n" not in str(error.value)


def test_options_name_files_from_the_working_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder / "weights")
    given = {"model": "timm:test_resnet", "pretrained": "own.safetensors"}
    plan = plan_launch(str(folder / "own.toml"), parameters=given)
    assert list(plan.definition.weights) == [str(folder / "weights" / "own.safetensors")]
    config = read_config(None, given, dataset=str(folder / "small.npz")).config
    assert config.pretrained == str(folder / "weights" / "own.safetensors")
    with pytest.raises(ConfigError, match="needs images"):
        read_config(None, {"model": "timm:test_resnet"}, dataset={"path": str(tabular(folder)), "label": "label"})


def tabular(folder: Path) -> Path:
    rows = "\n".join(f"{i},{i % 7},{i % 2}" for i in range(60))
    (folder / "table.csv").write_text(f"a,b,label\n{rows}\n")
    return folder / "table.csv"
