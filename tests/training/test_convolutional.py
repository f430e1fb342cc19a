"""Convolutional networks of many blocks, residual ones, with layer normalisation and global pooling."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hpo.config import cohort_key
from hpo.config.image_size import count_image_units, list_channels
from hpo.config.trial_config import TrialConfig
from hpo.datasets import Dataset
from hpo.errors import ConfigError
from hpo.training.checkpoint import CheckpointSpec
from hpo.training.convolutional import ResidualConvolutions
from hpo.training.data import prepare_data
from hpo.training.loop import train
from hpo.training.models import build_model
from hpo.training.settings import TrainSettings
from tests.training.resumable import CPU, stop_after
from tests.training.test_stacked import assert_close


def build(shape=(3, 32, 32), **parameters) -> nn.Module:
    return build_model(TrialConfig(model="cnn", **parameters), shape, 5)


def heights(model: nn.Module, shape: tuple[int, ...]) -> list[int]:
    """The height of the image behind each block: its pooling, or the activation where it has none."""
    x, found, kept = torch.zeros(1, *shape), list[int](), 0
    for layer in model:
        x = layer(x)
        if isinstance(layer, nn.Flatten):
            break
        if isinstance(layer, nn.Conv2d | ResidualConvolutions):
            found += [kept] if kept else []
        kept = x.shape[2]
    return [*found, kept]


@pytest.mark.parametrize(
    ("shape", "parameters", "sizes"),
    [
        ((1, 28, 28), {"conv_layers": 6, "channels": 2}, [14, 7, 3, 1, 1, 1]),
        ((3, 64, 64), {"conv_layers": 6, "channels": 2}, [32, 16, 8, 4, 2, 1]),
        ((3, 32, 48), {"block_channels": "4-4-8-8-6", "residual": True}, [16, 8, 4, 2, 1]),
        ((3, 8, 8), {"block_channels": [4, 4, 8, 8], "activation": "gelu"}, [4, 2, 1, 1]),
    ],
)
def test_blocks_halve_while_they_can(shape, parameters, sizes):
    model = build(shape, **parameters)
    assert heights(model, shape) == sizes
    assert model(torch.zeros(2, *shape)).shape == (2, 5)


def test_channels_of_each_block_are_those_that_are_doubled():
    listed, doubled = build(block_channels=[4, 8, 16]), build(conv_layers=3, channels=4)
    assert all(torch.equal(a, b) for a, b in zip(listed.parameters(), doubled.parameters(), strict=True))
    assert list_channels(TrialConfig(model="cnn", block_channels=[4, 8, 16])) == (4, 8, 16)


def test_names_and_shapes_of_weights_are_those_of_earlier_versions():
    model = build((1, 28, 28), batch_norm=True, dropout=0.1)
    assert [(name, tuple(each.shape)) for name, each in model.named_parameters()] == [
        *(("0.weight", (32, 1, 3, 3)), ("0.bias", (32,)), ("1.weight", (32,)), ("1.bias", (32,))),
        *(("4.weight", (64, 32, 3, 3)), ("4.bias", (64,)), ("5.weight", (64,)), ("5.bias", (64,))),
        *(("9.weight", (64, 3136)), ("9.bias", (64,)), ("10.weight", (64,)), ("10.bias", (64,))),
        *(("13.weight", (5, 64)), ("13.bias", (5,))),
    ]


@pytest.mark.parametrize("norm", ["batch_norm", "layer_norm", None])
@pytest.mark.parametrize(("inputs", "kernel"), [(4, 3), (3, 4)])
def test_a_residual_block_is_the_papers(norm, inputs, kernel):
    """He et al. 2016: F(x) + x, where F is convolution, normalisation, activation, convolution, normalisation."""
    config = TrialConfig(model="cnn", kernel_size=kernel, **({norm: True} if norm else {}))
    block, x = ResidualConvolutions(config, inputs, 4).double(), torch.randn(5, inputs, 6, 7, dtype=torch.float64)

    def normalise(z: torch.Tensor) -> torch.Tensor:
        if norm is None:
            return z
        dims = (0, 2, 3) if norm == "batch_norm" else (1, 2, 3)
        mean, variance = z.mean(dims, keepdim=True), z.var(dims, unbiased=False, keepdim=True)
        return (z - mean) / (variance + 1e-5).sqrt()

    convolutions = [part for part in block.modules() if isinstance(part, nn.Conv2d)]
    assert all((part.bias is None) == (norm == "batch_norm") for part in convolutions)
    before = (kernel - 1) // 2
    pad = (before, kernel // 2, before, kernel // 2)
    first, second, *others = convolutions
    h = F.relu(normalise(F.conv2d(F.pad(x, pad), first.weight, first.bias)))
    h = normalise(F.conv2d(F.pad(h, pad), second.weight, second.bias))
    shortcut = normalise(F.conv2d(x, others[0].weight, others[0].bias)) if others else x
    assert len(others) == (inputs != 4)
    torch.testing.assert_close(block(x), h + shortcut)


def test_layer_normalisation_is_over_all_units_of_a_layer():
    model, x = build((3, 8, 8), layer_norm=True, conv_layers=1, channels=4), torch.randn(6, 3, 8, 8)
    convolution, norm = model[0], model[1]
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0, -1.0, 0.5]))
    found = norm(convolution(x))
    torch.testing.assert_close(found, F.layer_norm(convolution(x), (4, 8, 8)) * norm.weight.view(-1, 1, 1))
    assert [type(part) for part in model if "Norm" in type(part).__name__] == [nn.GroupNorm, nn.LayerNorm]


def test_global_pooling_gives_the_mean_of_each_channel():
    model, x = build(global_pooling=True, conv_layers=2, channels=4, dense_width=0), torch.randn(6, 3, 32, 32)
    *blocks, _, _, last = model
    features = nn.Sequential(*blocks)(x)
    assert features.shape == (6, 8, 8, 8)
    torch.testing.assert_close(model(x), last(features.mean((2, 3))))
    assert (last.in_features, last.out_features) == (8, 5)


@pytest.mark.parametrize(
    ("parameters", "shape", "words"),
    [
        ({"conv_layers": 5}, (1, 4, 28), "conv_layers = 5: the first 3 blocks halve an image, and a 4 x 28 image cann"),
        ({"block_channels": "8-8"}, (1, 3, 3), "block_channels = 8-8: a 3 x 3 image cannot be halved that often"),
    ],
)
def test_images_that_are_too_small_are_refused(parameters, shape, words):
    with pytest.raises(ConfigError, match=words):
        build(shape, **parameters)


@pytest.mark.parametrize("residual", [False, True])
def test_units_are_about_those_that_are_computed(residual):
    config = TrialConfig(model="cnn", block_channels="4-6-8-8", residual=residual, activation="gelu")
    model, shape, numbers = build_model(config, (3, 16, 16), 5), (3, 16, 16), list[int]()
    for part in model.modules():
        if isinstance(part, nn.Conv2d | nn.MaxPool2d):
            part.register_forward_hook(lambda _part, _inputs, outputs: numbers.append(outputs.numel()))
    model(torch.zeros(1, *shape))
    assert sum(numbers) == pytest.approx(count_image_units(config, shape) - config.dense_width, rel=0.1)


def test_a_trial_that_a_gpu_has_begun_in_a_stack_goes_on_on_a_cpu(monkeypatch, tmp_path):
    configs = [
        TrialConfig(
            model="cnn",
            conv_layers=1,
            channels=2,
            dense_width=4,
            epochs=2,
            batch_size=16,
            validation=20,
            learning_rate=rate,
        )
        for rate in (0.01, 0.02)
    ]
    rng = np.random.default_rng(0)
    on = prepare_data(Dataset((rng.normal(size=(60, 6, 6, 1)), np.arange(60) % 3), classes=3), configs[0], CPU)
    specs = [CheckpointSpec(tmp_path / f"{number}.pt") for number in range(2)]
    with monkeypatch.context() as gpu:
        gpu.setattr(cohort_key, "CONVOLUTIONAL", frozenset())
        whole = train(configs, on)
        stopped = train(configs, on, TrainSettings(should_stop=stop_after(2)), specs)
    assert {each.status for each in stopped} == {"interrupted"}
    found = train(configs, on, checkpoints=[replace(spec, resume=True) for spec in specs])
    for each, expected in zip(found, whole, strict=True):
        assert_close(each, expected, 1e-4)
