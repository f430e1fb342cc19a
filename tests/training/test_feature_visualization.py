"""What units respond to, where the answer is known, and against random inputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hpo.config.trial_config import TrialConfig
from hpo.training.inspection.feature_visualization import (
    LAYERS,
    UNITS,
    Responses,
    maximize_activation,
    measure_responses,
)
from hpo.training.models import build_model

SHAPE, CLASSES = (1, 8, 8), 3


def samples(count: int = 30, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(1))


def cosines(inputs: np.ndarray, weights: torch.Tensor) -> torch.Tensor:
    return F.cosine_similarity(torch.from_numpy(inputs).flatten(1), weights.detach().flatten(1))


def test_a_linear_unit_is_excited_most_by_its_own_weights() -> None:
    model = build_model(TrialConfig(widths="16"), SHAPE, CLASSES)
    x = samples()
    found = measure_responses(model, x)
    layer, linear = found.layers[0], model[1]
    assert found.norm == pytest.approx(x.flatten(1).norm(dim=1).mean().item())
    torch.testing.assert_close(cosines(layer.inputs, linear.weight[layer.units]), torch.ones(16))
    most = found.norm * linear.weight.norm(dim=1) + linear.bias  # Cauchy and Schwarz
    torch.testing.assert_close(torch.from_numpy(layer.responses), most[layer.units].detach())


def test_a_normalisation_that_turns_the_sign_turns_the_input() -> None:
    model = build_model(TrialConfig(widths="6", batch_norm=True), SHAPE, CLASSES)
    with torch.no_grad():
        model[2].weight.copy_(torch.tensor([1.0, -1.0] * 3))
    layer = measure_responses(model, samples()).layers[0]
    expected = model[2].weight[layer.units].detach()
    torch.testing.assert_close(cosines(layer.inputs, model[1].weight[layer.units]), expected)


def test_a_channel_sees_its_own_window() -> None:
    model = build_model(TrialConfig(model="cnn", conv_layers=1, channels=4, dense_width=8), SHAPE, CLASSES)
    found = measure_responses(model, samples())
    layer = found.layers[0]
    window = layer.inputs[:, :, 3:6, 3:6]
    assert np.count_nonzero(layer.inputs) == np.count_nonzero(window)
    torch.testing.assert_close(cosines(window, model[0].weight[layer.units]), torch.ones(4))
    assert found.filters is not None
    assert np.array_equal(found.filters.weights, model[0].weight.detach().numpy()[layer.units])


@pytest.mark.parametrize(
    "parameters",
    [
        {"widths": "16-12", "activation": "relu", "batch_norm": True},
        {"widths": "16-12", "activation": "tanh"},
        {"model": "cnn", "channels": 4, "dense_width": 8},
    ],
)
def test_an_input_that_was_found_beats_random_ones_of_its_norm(parameters: dict[str, object]) -> None:
    model = build_model(TrialConfig(**parameters), SHAPE, CLASSES)
    found = measure_responses(model, samples())
    noise = samples(500)
    noise *= (found.norm / noise.flatten(1).norm(dim=1)).view(-1, 1, 1, 1)
    outputs = found.layers[-1]
    inputs = torch.from_numpy(outputs.inputs)
    with torch.no_grad():
        given = model(inputs).diagonal()
        assert (given > model(noise).amax(0)).all()
    torch.testing.assert_close(torch.from_numpy(outputs.responses), given)
    for layer in found.layers:
        assert (torch.from_numpy(layer.inputs).flatten(1).norm(dim=1) <= found.norm * (1 + 1e-5)).all()
        assert (layer.responses > layer.to_samples * 0.999).all()


def test_the_search_climbs_where_the_gradient_turns() -> None:
    """A concave response with its highest point inside of the ball."""
    peak = torch.tensor([[0.3, -0.2], [0.5, 0.1]])

    def respond(x: torch.Tensor) -> torch.Tensor:
        return -(x[:, None] - peak).square().sum(-1)

    start = torch.tensor([[2.0, 0.0], [0.0, -2.0]])
    found, values = maximize_activation(respond, start, torch.arange(2), norm=1.0, steps=2000)
    torch.testing.assert_close(found, peak, atol=0.05, rtol=0)
    assert (values > -0.003).all()


def test_twice_the_same_and_the_model_as_it_was() -> None:
    model = build_model(TrialConfig(widths="16-12", dropout=0.5, batch_norm=True), SHAPE, CLASSES)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    one, other = measure_responses(model, samples()), measure_responses(model, samples())
    for mine, yours in zip(one.layers, other.layers, strict=True):
        assert np.array_equal(mine.inputs, yours.inputs)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_few_of_many_units_and_layers_are_shown_and_it_is_said() -> None:
    model = build_model(TrialConfig(depth=8, width=UNITS + 6), SHAPE, CLASSES)
    with torch.no_grad():
        model[3].weight[:, 7] = 5.0  # what the second layer takes from unit 7 of the first
    found = measure_responses(model, samples())
    assert [layer.number for layer in found.layers] == [1, 2, 4, 5, 7, 8, 9]
    assert len(found.layers) == LAYERS + 1
    assert (len(found.layers[0].units), found.layers[0].of) == (UNITS, UNITS + 6)
    assert found.layers[0].units[0] == 7
    assert found.notes == ("6 of 8 hidden layers are shown.",)


def test_units_that_no_sample_excites_are_counted() -> None:
    model = build_model(TrialConfig(widths="8"), SHAPE, CLASSES)
    with torch.no_grad():
        model[1].bias[:3] = -1000
    assert measure_responses(model, samples()).layers[0].silent == 3


class Detached(nn.Module):
    """A model that leads no gradient back to its inputs, and overwrites what its layer gives."""

    def __init__(self, lead: bool) -> None:
        super().__init__()
        self.lead, self.hidden, self.last = lead, nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x if self.lead else x.detach()
        return self.last(self.hidden(x).relu_())


def test_what_cannot_be_done_is_said() -> None:
    found = measure_responses(Detached(lead=False), samples(10, (4,)))
    assert found.layers == ()
    assert [note.split(":")[0] for note in found.notes] == [
        "Of hidden no inputs can be found", "Of outputs no inputs can be found",
    ]  # fmt: skip
    bare = measure_responses(nn.Flatten(), samples(10, (4,)))
    assert bare.notes == ("The model has no linear layer and no convolution that could be looked into.",)
    assert bare.filters is None


def test_a_users_model_that_works_in_place() -> None:
    model = Detached(lead=True)
    found: Responses = measure_responses(model, samples(10, (4,)))
    torch.testing.assert_close(
        cosines(found.layers[0].inputs, model.hidden.weight[found.layers[0].units]), torch.ones(6)
    )
    assert found.filters is not None
    assert found.filters.weights.shape == (6, 4)
