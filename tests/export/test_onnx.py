"""Models as ONNX, against torch; and as plain torch, read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from hpo.config.choices import ACTIVATIONS
from hpo.config.trial_config import TrialConfig
from hpo.errors import RunError
from hpo.export.onnx import plain_torch, write_onnx
from hpo.training.models import build_model

SHAPE = (1, 12, 12)


def trained(config: TrialConfig) -> nn.Module:
    """Whose normalisations have seen data, so that their statistics matter."""
    model = build_model(config, SHAPE, 3)
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(3 + 2 * torch.randn(32, *SHAPE))
    return model.eval()


CONFIGS = [
    *(TrialConfig(widths="8-6", activation=name, dropout=0.2, batch_norm=True) for name in sorted(ACTIVATIONS)),
    TrialConfig(widths="8", activation="selu", dropout=0.2, layer_norm=True),
    TrialConfig(widths="8"),
    TrialConfig(model="cnn", block_channels=[4, 6], global_pooling=True, layer_norm=True, dense_width=0),
    TrialConfig(model="cnn", conv_layers=2, channels=4, kernel_size=3, batch_norm=True, dropout=0.1),
    TrialConfig(model="cnn", conv_layers=1, channels=4, kernel_size=4, activation="gelu"),
]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_the_lines_of_plain_torch_make_the_same_model(config: TrialConfig) -> None:
    model = trained(config)
    text = plain_torch(model)
    assert text is not None
    again = eval(text, {"nn": nn})
    again.load_state_dict(model.state_dict())
    x = torch.randn(7, *SHAPE)
    # Convolutions in another memory layout sum in another order.
    torch.testing.assert_close(again.eval()(x), model(x.clone()))


RESIDUAL = {"model": "cnn", "block_channels": "4-6", "kernel_size": 4, "residual": True, "activation": "gelu"}
VIT = {"model": "vit", "width": 8, "heads": 2, "activation": "mish"}


@pytest.mark.parametrize("config", [CONFIGS[0], CONFIGS[-2], TrialConfig(**RESIDUAL), TrialConfig(**VIT)], ids=str)
def test_onnxruntime_says_what_torch_says_for_any_number_of_samples(config: TrialConfig, tmp_path: Path) -> None:
    model, path = trained(config), tmp_path / "model.onnx"
    assert write_onnx(model, path, torch.randn(20, *SHAPE)) < 1e-4
    onnx.checker.check_model(onnx.load(path), full_check=True)
    assert list(tmp_path.iterdir()) == [path]  # the weights are inside
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for count in (1, 2, 33):
        x = torch.randn(count, *SHAPE)
        (said,) = session.run(["logits"], {"x": x.numpy()})
        np.testing.assert_allclose(said, model(x).detach().numpy(), atol=1e-4)


class Odd(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)[:, :3] * (2 if torch.onnx.is_in_onnx_export() else 1)


class Dynamic(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)[:, :3] if x.sum().item() > 0 else x.flatten(1)[:, 3:6]


def test_what_computes_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="something else as ONNX: outputs differ by up to"):
        write_onnx(Odd(), tmp_path / "model.onnx", torch.randn(4, *SHAPE))


def test_what_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot be written as ONNX") as caught:
        write_onnx(Dynamic(), tmp_path / "model.onnx", torch.randn(4, *SHAPE))
    assert "\n" not in str(caught.value)


def test_a_model_of_ones_own_has_no_plain_lines() -> None:
    assert plain_torch(Odd()) is None
    assert plain_torch(nn.Sequential(Odd())) is None
