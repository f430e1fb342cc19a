"""The built-in models and the building of any."""

from itertools import pairwise

import pytest
import torch
from torch import nn

import hpo.config.registry as registry
from hpo.config.choices import ACTIVATIONS, INITIALISATIONS
from hpo.config.trial_config import TrialConfig
from hpo.errors import ConfigError
from hpo.training.convolutional import cnn
from hpo.training.models import build_model, mlp, parameter_count

GREY = (1, 28, 28)


@pytest.fixture
def temporary_models():
    before = dict(registry.models._entries)
    yield
    registry.models._entries.clear()
    registry.models._entries.update(before)


def linear_sizes(model):
    return [(m.in_features, m.out_features) for m in model.modules() if isinstance(m, nn.Linear)]


@pytest.mark.parametrize(
    ("parameters", "widths"),
    [
        ({"widths": "512-256"}, [784, 512, 256, 10]),
        ({"depth": 0}, [784, 10]),
        ({"depth": 3, "width": 90, "width_profile": "decreasing"}, [784, 90, 60, 30, 10]),
        ({"depth": 3, "width": 90, "width_profile": "increasing"}, [784, 30, 60, 90, 10]),
    ],
)
def test_mlp_sizes(parameters, widths):
    model = build_model(TrialConfig(**parameters), GREY, 10)
    assert linear_sizes(model) == list(pairwise(widths))
    assert parameter_count(model) == sum(a * b + b for a, b in pairwise(widths))


def test_mlp_layers_in_order():
    model = mlp(TrialConfig(depth=1, width=4, batch_norm=True, dropout=0.5, activation="elu"), (3,), 2)
    assert [type(layer) for layer in model] == [nn.Linear, nn.BatchNorm1d, nn.ELU, nn.Dropout, nn.Linear]


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5])
def test_cnn_keeps_the_size_and_doubles_channels(kernel):
    config = TrialConfig(model="cnn", conv_layers=3, channels=4, kernel_size=kernel)
    model = build_model(config, (3, 20, 28), 7)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.out_channels) for m in convolutions] == [(3, 4), (4, 8), (8, 16)]
    assert linear_sizes(model) == [(16 * 2 * 3, 64), (64, 7)]


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_cnn_pools_after_the_activation(activation, batch_norm):
    """Where the activation is computed on pooled values, outputs and gradients are those of the order as written."""
    config = TrialConfig(model="cnn", conv_layers=1, channels=3, activation=activation, batch_norm=batch_norm)
    model = build_model(config, (1, 6, 6), 4)
    convolution, linears = model[0], [m for m in model if isinstance(m, nn.Linear)]
    act = registry.resolve(ACTIVATIONS[activation])()
    x = torch.randn(5, 1, 6, 6)
    hidden = nn.BatchNorm2d(3)(convolution(x)) if batch_norm else convolution(x)
    features = nn.functional.max_pool2d(act(hidden), 2).flatten(1)
    dense = linears[0](features)
    expected = linears[1](act(nn.BatchNorm1d(64)(dense) if batch_norm else dense))
    grads = torch.autograd.grad(expected.square().sum(), convolution.weight, retain_graph=True)[0]
    outputs = model(x)
    torch.testing.assert_close(outputs, expected)
    torch.testing.assert_close(torch.autograd.grad(outputs.square().sum(), convolution.weight)[0], grads)


def test_same_seed_same_weights_whatever_was_drawn_before():
    first = build_model(TrialConfig(seed=5), GREY, 10).state_dict()
    torch.rand(7)
    again, other = (
        build_model(TrialConfig(seed=5), GREY, 10).state_dict(),
        build_model(TrialConfig(seed=6), GREY, 10).state_dict(),
    )
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("model", ["mlp", "cnn"])
@pytest.mark.parametrize("init", [name for name in INITIALISATIONS if name != "default"])
def test_initialisation(init, model):
    weights = dict(build_model(TrialConfig(model=model, init=init), GREY, 10).named_parameters())
    assert all((value == 0).all() for name, value in weights.items() if name.endswith("bias"))
    last = list(weights.values())[-2].detach()
    outputs, inputs = last.shape
    if init == "orthogonal":
        torch.testing.assert_close(last @ last.T, torch.eye(outputs), atol=1e-5, rtol=1e-5)
    deviation = {
        "xavier": (2 / (inputs + outputs)) ** 0.5,
        "kaiming": (2 / inputs) ** 0.5,
        "normal": 0.05,
        "orthogonal": inputs**-0.5,
    }
    assert last.std().item() == pytest.approx(deviation[init], rel=0.1)


@pytest.mark.parametrize(
    ("parameters", "shape", "words"),
    [
        ({"model": "cnn"}, (20,), "needs images"),
        ({"model": "cnn", "conv_layers": 3}, (1, 7, 28), "cannot be halved that often"),
    ],
)
def test_shapes_a_cnn_refuses(parameters, shape, words):
    with pytest.raises(ConfigError, match=words) as caught:
        build_model(TrialConfig(**parameters), shape, 10)
    assert "\n" not in str(caught.value)


class Returns(nn.Linear):
    """A linear layer whose outputs are made something else."""

    def __init__(self, make):
        super().__init__(3, 4)
        self.make = make

    def forward(self, x):
        return self.make(super().forward(x))


class Counts(nn.Linear):
    """A linear layer with state that is no tensor."""

    def __init__(self):
        super().__init__(3, 4)

    def get_extra_state(self):
        return {"count": 1}

    def set_extra_state(self, state):
        assert state == {"count": 1}


class Graph(nn.Linear):
    """A linear layer with a sparse buffer."""

    def __init__(self):
        super().__init__(3, 4)
        self.register_buffer("edges", torch.eye(3).to_sparse())


@pytest.mark.usefixtures("temporary_models")
@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda config, shape, classes: nn.Linear(3, 5), r"gives outputs of shape \(2, 5\).*must be \(2, 4\)"),
        (lambda config, shape, classes: nn.Linear(9, 4), "cannot take samples"),
        (lambda config, shape, classes: None, "returns no nn.Module"),
        (lambda config, shape, classes: Returns(lambda y: (y, y.mean())), r"of type tuple; .* shape \(2, 4\)"),
        (lambda config, shape, classes: Returns(lambda y: {"logits": y}), "a value of type dict; it must"),
        (lambda config, shape, classes: Returns(lambda y: None), "a value of type NoneType; it must"),
        (lambda config, shape, classes: Counts(), "its state has _extra_state, which is no tensor but dict"),
        (lambda config, shape, classes: Graph(), "edges is sparse; a file of weights holds dense tensors alone"),
    ],
)
def test_a_registered_model_that_does_not_fit(function, words):
    registry.model("own")(function)
    with pytest.raises(ConfigError, match=words):
        build_model(TrialConfig(model="own"), (3,), 4)


@pytest.mark.usefixtures("temporary_models")
def test_lazy_layers_and_init_of_a_registered_model():
    @registry.model("own", uses=["init"])
    def own(config, shape, classes):
        return nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(classes))

    model = build_model(TrialConfig(model="own", init="orthogonal"), (3,), 4)
    assert linear_sizes(model) == [(3, 8), (8, 4)]
    assert (model[0].bias == 0).all()


def test_cnn_is_a_plain_function_too():
    assert cnn(TrialConfig(model="cnn"), GREY, 10)(torch.zeros(2, *GREY)).shape == (2, 10)
