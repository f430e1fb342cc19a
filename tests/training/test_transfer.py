"""Pretrained weights, frozen parts and the head's own learning rate against plain torch; models of libraries."""

from __future__ import annotations

import logging
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

import hpo
from hpo.config import registry
from hpo.config.cohort_key import why_unstackable
from hpo.config.trial_config import TrialConfig
from hpo.datasets import Dataset, load, make_reference
from hpo.errors import ConfigError, RegistryError
from hpo.training import transfer
from hpo.training.checkpoint import CheckpointSpec
from hpo.training.data import prepare_data
from hpo.training.learner import ModuleLearner
from hpo.training.loop import train
from hpo.training.member import Member
from hpo.training.models import build_model, parameter_count, restore_model
from hpo.training.optimizers import find_head, weight_layers
from hpo.training.settings import TrainSettings
from hpo.training.transfer import build_initial_model
from tests.training.resumable import CPU, bits, stop_after
from tests.training.test_stacked import alone, assert_close, in_float64

__all__ = ["in_float64"]
pytestmark = pytest.mark.usefixtures("one_thread", "vision")
SHAPE = (1, 8, 8)
RNG = np.random.default_rng(0)
Y = np.arange(120) % 3
X = RNG.normal(size=(3, *SHAPE))[Y] + RNG.normal(size=(120, *SHAPE))


def small(**parameters) -> TrialConfig:
    usual = {"model": "cnn", "conv_layers": 1, "channels": 4, "dense_width": 6, "batch_norm": True}
    return TrialConfig(**usual | {"validation": 24, "batch_size": 32, "epochs": 2} | parameters)


def data(config: TrialConfig):
    return prepare_data(Dataset((X[:, 0], Y), classes=3), config, CPU)


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.equal(one.cpu(), other.cpu())


@pytest.fixture
def said(caplog, monkeypatch):
    monkeypatch.setattr(transfer, "_say", transfer._say.__wrapped__)
    caplog.set_level(logging.WARNING, "hpo.training")
    return caplog


def write(path: Path, weights: dict[str, torch.Tensor]) -> Path:
    if path.suffix == ".safetensors":
        save_file({name: each.contiguous() for name, each in weights.items()}, path)
    elif path.stem == "wrapped":  # as data parallel training leaves it in a checkpoint
        torch.save({"epoch": 3, "state_dict": {f"module.{name}": each for name, each in weights.items()}}, path)
    else:
        torch.save(weights, path)
    return path


@pytest.mark.parametrize("file", ["own.safetensors", "own.pth", "wrapped.pt"])
def test_all_but_a_head_of_another_size_begins_as_in_the_file(file, tmp_path, said):
    stored = build_model(small(init_seed=1), SHAPE, 7).state_dict()
    config = small(pretrained=str(write(tmp_path / file, stored)))
    found, drawn = build_initial_model(config, SHAPE, 3).state_dict(), build_model(config, SHAPE, 3).state_dict()
    head = [name for name, each in drawn.items() if each.shape != stored[name].shape]
    assert len(head) == 2
    for name, weight in found.items():
        assert same(weight, (drawn if name in head else stored)[name]), name
    line = f"pretrained = {config.pretrained}: the head of 'cnn' begins anew; the file has {head[1]} of shape (7,)"
    assert line in said.text


def test_a_head_of_the_same_size_is_taken_too(tmp_path, said):
    stored = build_model(small(init_seed=1), SHAPE, 3).state_dict()
    config = small(pretrained=str(write(tmp_path / "own.pt", stored)))
    assert all(same(each, stored[name]) for name, each in build_initial_model(config, SHAPE, 3).state_dict().items())
    assert not said.text


def damaged(path: Path) -> None:
    path.write_bytes(b"no weights")


def text(path: Path) -> None:
    path.write_bytes(b"epoch,loss\n1,2\n")


def diverged(path: Path) -> None:
    weights = build_model(small(), SHAPE, 3).state_dict()
    for name in [name for name in weights if name.endswith("weight")][:2]:
        weights[name][0] = torch.nan
    write(path, weights)


def objects(path: Path) -> None:
    path.write_bytes(pickle.dumps({"code": Path.unlink}))


def deeper(path: Path) -> None:
    write(path, build_model(small(conv_layers=2), SHAPE, 3).state_dict())


def nothing(path: Path) -> None:
    torch.save([1, 2], path)


@pytest.mark.parametrize(
    ("make", "file", "line"),
    [
        (damaged, "a.safetensors", r"is no file of weights, or is damaged \(SafetensorError"),
        (damaged, "a.pth", "is no file of weights alone, or is damaged"),
        (objects, "a.pth", "is no file of weights alone, or is damaged"),
        (text, "a.pth", "is no file of weights, or is damaged|is no file of weights alone, or is damaged"),
        (
            diverged,
            "a.safetensors",
            "holds numbers that are not finite, in .+ and 1 more; give weights from before that",
        ),
        (Path.mkdir, "a.pth", "cannot be read"),
        (
            nothing,
            "a.pth",
            r"the file has no .+; 0 of the model's \d+ tensors fit; give the file of a model of the same",
        ),
        (
            deeper,
            "a.pth",
            r"does not fit the model 'cnn': .+ has shape .+ in the file, and shape .+ in the model; \d+ of the model's",
        ),
        (lambda _: None, "a.pth", "there is no such file"),
    ],
)
def test_what_does_not_fit_is_one_line(make, file, line, tmp_path):
    make(tmp_path / file)
    with pytest.raises(ConfigError, match=f"^pretrained = '.*{file}': .*{line}") as error:
        build_initial_model(small(pretrained=str(tmp_path / file)), SHAPE, 3)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("channels", [1, 6])
def test_a_first_convolution_of_three_channels_reads_others_as_if_they_were_copies_of_them(channels, tmp_path):
    stored = build_model(small(init_seed=1), (3, 8, 8), 3)
    path = write(tmp_path / "own.pth", stored.state_dict())
    found = build_initial_model(small(pretrained=str(path)), (channels, 8, 8), 3).eval()
    grey = torch.rand(5, 1, 8, 8)
    torch.testing.assert_close(
        found(grey.expand(5, channels, 8, 8)), stored.eval()(grey.expand(5, 3, 8, 8)), rtol=1e-4, atol=1e-5
    )


def test_a_frozen_backbone_stays_as_it_is_to_the_bit(tmp_path):
    path = write(tmp_path / "own.pth", build_model(small(init_seed=1), SHAPE, 3).state_dict())
    config = small(pretrained=str(path), freeze="backbone", optimizer="adamw", weight_decay=0.1, dropout=0.2)
    (outcome,) = train([config], data(config), TrainSettings())
    before = build_initial_model(config, SHAPE, 3)
    head = {name for name, each in before.named_parameters() if each.requires_grad}
    assert len(head) == 2
    for name, weight in outcome.weights.items():  # running statistics too
        assert same(weight, before.state_dict()[name]) == (name not in head), name
    assert parameter_count(before) == 3 * 6 + 3


@pytest.mark.parametrize("frozen", [False, True])
def test_two_learning_rates_are_torchs_parameter_groups(frozen):
    parameters = {
        "optimizer": "momentum",
        "weight_decay": 0.1,
        "learning_rate": 0.01,
        "freeze": "backbone" if frozen else None,
    }
    learner = ModuleLearner(Member(small(**parameters, head_learning_rate=0.05)), SHAPE, 3, CPU)
    reference = build_model(small(), SHAPE, 3)
    *body, head = weight_layers(reference)
    optimizer = torch.optim.SGD(
        [
            {"params": [] if frozen else [each for layer in body for each in layer], "lr": 0.01},
            {"params": head, "lr": 0.05},
        ],
        momentum=0.9,
        weight_decay=0.1,
    )
    reference.train()
    if frozen:  # as people freeze it: its normalisation in evaluation
        for part in reference.modules():
            part.train(not isinstance(part, nn.modules.batchnorm._BatchNorm))
    learner.begin_epoch(96, [[0.01] * 3])
    for i in range(3):
        x, y = torch.tensor(X[i::3], dtype=torch.float32), torch.tensor(Y[i::3])
        learner.step(x, y)
        optimizer.zero_grad()
        F.cross_entropy(reference(x), y).backward()
        optimizer.step()
    for name, weight in learner.module.state_dict().items():
        torch.testing.assert_close(weight, reference.state_dict()[name], rtol=1e-4, atol=1e-6)


def test_the_heads_rate_may_be_a_ratio_beside_that_of_layers():
    config = small(learning_rate=0.01, layer_learning_rate_decay=0.5, head_learning_rate_ratio=10.0, optimizer="sgd")
    learner = ModuleLearner(Member(config), SHAPE, 3, CPU)
    learner.begin_epoch(32, [[0.01]])
    learner.step(torch.tensor(X[:32], dtype=torch.float32), torch.tensor(Y[:32]))
    assert [group["lr"] for group in learner._optimizer.param_groups] == pytest.approx([0.0025, 0.005, 0.1])


@pytest.mark.usefixtures("in_float64")
def test_pretrained_networks_with_rates_of_their_heads_are_one_stack(tmp_path):
    given = {"validation": 24, "widths": "8-6", "epochs": 2, "batch_size": 32}
    path = write(tmp_path / "own.pth", build_model(TrialConfig(**given, init_seed=1), SHAPE, 4).state_dict())
    configs = [
        TrialConfig(**given, optimizer=optimizer, head_learning_rate_ratio=ratio, pretrained=str(path))
        for optimizer in ("adam", "sgd", "nadam", "rmsprop")
        for ratio in (None, 0.2, 5.0)
    ]
    found = data(configs[0])
    on = replace(found, x_train=found.x_train.double(), x_val=found.x_val.double())
    for each, expected in zip(train(configs, on), alone(configs, on), strict=True):
        assert_close(each, expected, 1e-9)


def test_what_is_frozen_trains_alone_and_says_so():
    assert why_unstackable(TrialConfig(freeze="backbone")) == "the frozen part of a model is not stacked"
    assert why_unstackable(TrialConfig(freeze="none")) is None


def test_a_frozen_trial_goes_on_from_its_checkpoint_to_the_bit(tmp_path):
    config = small(freeze="backbone", dropout=0.3, head_learning_rate=0.02, epochs=3)
    on, spec = data(config), CheckpointSpec(tmp_path / "trial.pt")
    (stopped,) = train([config], on, TrainSettings(should_stop=stop_after(4)), checkpoints=[spec])
    assert stopped.status == "interrupted"
    (again,) = train([config], on, checkpoints=[replace(spec, resume=True)])
    assert bits(again) == bits(train([config], on)[0])


def test_trials_without_them_have_none_of_the_new_values():
    new = {"pretrained", "freeze", "head_learning_rate", "head_learning_rate_ratio"}
    assert not new & TrialConfig().effective().keys()
    assert not new & TrialConfig(model="cnn", freeze="none", pretrained="none").effective().keys()
    assert "head_learning_rate" not in TrialConfig(optimizer="lbfgs", head_learning_rate=0.1).effective()


@pytest.mark.usefixtures("own_entries")
def test_a_model_of_ones_own_is_fine_tuned_alike(tmp_path):
    @hpo.model("two_parts")
    def two_parts(config, shape, classes):
        body = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.BatchNorm1d(5), nn.ReLU())
        return nn.Sequential(body, nn.Linear(5, classes))

    given = {"model": "two_parts", "validation": 24, "epochs": 1, "batch_size": 32}
    stored = build_model(TrialConfig(**given, init_seed=1), SHAPE, 9).state_dict()
    path = write(tmp_path / "own.safetensors", stored)
    config = TrialConfig(**given, pretrained=str(path), freeze="backbone", head_learning_rate=0.1)
    (outcome,) = train([config], data(config), TrainSettings())
    for name, weight in outcome.weights.items():
        assert name.startswith("1.") or same(weight, stored[name])


# Models of libraries.


@pytest.mark.parametrize("name", ["timm:", "timm:hf-hub:a/b", "timm:a/b", "timm:" + 200 * "x", "other:resnet18", ":x"])
def test_names_of_no_library_are_unknown(name):
    with pytest.raises(RegistryError, match=r"^unknown model .* a library's is timm:NAME or torchvision:NAME"):
        registry.models.get(name)


def test_a_name_without_its_library_or_with_a_misspelled_one_is_corrected():
    with pytest.raises(RegistryError, match=r"unknown model 'resnet18'; .*is timm:resnet18 or torchvision:resnet18\)$"):
        registry.models.get("resnet18")
    with pytest.raises(RegistryError, match="'torchvison:resnet18'; did you mean 'torchvision:resnet18'"):
        registry.models.get("torchvison:resnet18")
    with pytest.raises(RegistryError, match="unknown model 'fully-connected'; did you mean 'mlp'"):
        registry.models.get("fully-connected")


def test_a_missing_library_is_one_line_that_names_the_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(RegistryError, match=r"^model 'timm:resnet18': needs the package timm, .*'torch-hpo\[timm\]'$"):
        build_model(TrialConfig(model="timm:resnet18"), (3, 32, 32), 10)


@pytest.mark.parametrize(
    ("model", "channels"),
    [
        ("timm:test_resnet", 1),
        ("timm:test_resnet", 3),
        ("torchvision:squeezenet1_1", 1),
        ("torchvision:squeezenet1_1", 3),
    ],
)
def test_a_model_of_a_library_has_the_channels_and_outputs_of_the_data(model, channels, tmp_path):
    config = TrialConfig(model=model)
    module = build_model(config, (channels, 32, 32), 7)
    assert module.eval()(torch.zeros(2, channels, 32, 32)).shape == (2, 7)
    assert [tuple(each.shape) for each in weight_layers(module)[-1]][-1] == (7,)
    again = build_model(config, (channels, 32, 32), 7).state_dict()
    assert all(same(each, again[name]) for name, each in module.state_dict().items())
    write(tmp_path / "own.safetensors", again)
    assert restore_model(config, (channels, 32, 32), 7, tmp_path / "own.safetensors").training


@pytest.mark.parametrize(
    ("model", "shape", "line"),
    [
        ("timm:test_resnt", (3, 32, 32), "timm has no such model of images; did you mean 'timm:test_resnet"),
        ("timm:zz", (3, 32, 32), r"timm.list_models\(\) lists them"),
        ("torchvision:fcn_resnet50", (3, 32, 32), "torchvision has no such model of images"),
        ("timm:test_resnet", (9,), r"needs images, but a sample has shape \(9,\)"),
        ("timm:test_vit3", (3, 32, 32), "cannot take samples .* it is made for images of 160 x 160: resize them"),
    ],
)
def test_what_a_library_refuses_is_one_line(model, shape, line):
    with pytest.raises(ConfigError, match=f"^model .*'{model}': .*{line}") as error:
        build_model(TrialConfig(model=model), shape, 3)
    assert "\n" not in str(error.value)


def test_both_heads_of_a_distilled_model_are_its_head():
    module = build_model(TrialConfig(model="timm:levit_128s"), (3, 224, 224), 7)
    assert sorted(tuple(each.shape) for each in find_head(module) if each.ndim == 2) == [(7, 384), (7, 384)]


def test_models_of_libraries_train_alone_and_say_so():
    assert why_unstackable(TrialConfig(model="timm:resnet18")) == "it is a model of timm"


def digits(low: int, high: int, count: int) -> Dataset:
    """The first pictures of MNIST of some digits, half their size."""
    x, y = load(make_reference("mnist")).train
    rows = np.flatnonzero((y[:8000] >= low) & (y[:8000] <= high))[:count]
    return Dataset((x[rows][..., ::2, ::2], y[rows] - low), classes=high - low + 1)


def test_a_model_of_timm_is_fine_tuned_on_pictures_with_two_learning_rates(tmp_path, said):
    given = {"model": "timm:test_resnet", "validation": 200, "batch_size": 64, "learning_rate": 0.003}
    begun = TrialConfig(**given, epochs=3)
    (before,) = train([begun], prepare_data(digits(0, 6, 1800), begun, CPU), TrainSettings())
    path = write(tmp_path / "digits.safetensors", before.weights)
    tuned = TrialConfig(
        **given | {"learning_rate": 0.0005}, epochs=1, pretrained=str(path), head_learning_rate=0.02, dropout=0.1
    )
    scratch, on = TrialConfig(**given, epochs=1), prepare_data(digits(7, 9, 700), tuned, CPU)
    (after,), (anew,) = train([tuned], on, TrainSettings()), train([scratch], on, TrainSettings())
    assert after.best["val_accuracy"] > 0.8 > anew.best["val_accuracy"]
    assert "the head of 'timm:test_resnet' begins anew; the file has fc.bias of shape (7,)" in said.text
