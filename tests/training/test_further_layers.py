"""Layer normalisation, PReLU and alpha dropout: alone they are torch's, and a stack of them computes the same."""

from itertools import product

import pytest
import torch
from torch import nn

from hpo.config.trial_config import TrialConfig
from hpo.datasets import SampleShape
from hpo.training.learner import ModuleLearner
from hpo.training.loop import train
from hpo.training.member import Member
from hpo.training.models import build_model
from hpo.training.settings import TrainSettings
from hpo.training.stacked.alpha_dropout import AlphaDropoutPart
from hpo.training.stacked.learner import StackedLearner
from hpo.training.stacked.noise import Noise
from hpo.training.stacked.parts import Rows
from hpo.training.stacked.sequential import StackedSequential, is_sequential
from tests.training.resumable import CPU, config
from tests.training.test_stacked import alone, assert_close, data, doubled, in_float64  # noqa: F401  a fixture

pytestmark = pytest.mark.usefixtures("one_thread")
KINDS = [
    {"layer_norm": True},
    {"activation": "prelu"},
    {"activation": "prelu", "layer_norm": True},
    {"activation": "prelu", "batch_norm": True},
    {"model": "resnet_tabular", "layer_norm": True, "activation": "mish", "depth": 2, "width": 6, "widths": None},
]


def types_of(**parameters) -> list[type]:
    model = build_model(TrialConfig(widths="6", **parameters), (4,), 3)
    return [type(part) for part in model.modules() if not any(part.children())]


def test_layers_in_order():
    assert types_of(layer_norm=True, dropout=0.5, activation="selu") == [
        *(nn.Linear, nn.LayerNorm, nn.SELU, nn.AlphaDropout, nn.Linear)
    ]
    encoder = [nn.Flatten, nn.Linear, nn.LayerNorm, nn.PReLU, nn.Linear]
    assert types_of(model="autoencoder", layer_norm=True, activation="prelu", batch_norm=True) == [
        *encoder, nn.Linear, nn.LayerNorm, nn.PReLU, nn.Linear
    ]  # fmt: skip


def test_a_residual_network_of_layer_norms_takes_one_sample_and_has_its_biases():
    given = TrialConfig(model="resnet_tabular", layer_norm=True, batch_size=1, width=6, depth=1)
    model = build_model(given, (4,), 3)
    assert [type(part) for part in model.modules() if "Norm" in type(part).__name__] == [nn.LayerNorm] * 2
    assert all(part.bias is not None for part in model.modules() if isinstance(part, nn.Linear))
    learner = StackedLearner([Member(given)], (4,), 3, CPU)
    assert not learner._stacks[0].normalised


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_cohorts_train_as_each_does_alone(optimizer):
    """Plain descent adds to the weights themselves; members differ in all that one stack may hold, and in width."""
    configs = [
        config(
            **kind,
            optimizer=optimizer,
            learning_rate=0.01 * (1 + i),
            layer_learning_rate_decay=(1.0, 0.6)[i],
            gradient_clip=(0.3, 0)[i],
            epochs=2,
        )
        for kind, i in product(KINDS, range(2))
    ] + [config(widths="9", layer_norm=True, activation="softplus", optimizer=optimizer, epochs=2)]
    on = doubled(data(configs[0]))
    for found, expected in zip(train(configs, on), alone(configs, on), strict=True):
        assert_close(found, expected, 1e-9)


@pytest.mark.usefixtures("in_float64")
def test_autoencoders():
    kinds = [{"layer_norm": True}, {"activation": "prelu"}, {"layer_norm": True, "activation": "prelu"}]
    configs = [config(model="autoencoder", latent_size=2, epochs=2, **kind) for kind in kinds]
    on, settings = doubled(data(configs[0])), {"monitor": "val_loss", "direction": "minimize"}
    found = train(configs, on, TrainSettings(**settings))
    for each, expected in zip(found, alone(configs, on, **settings), strict=True):
        assert_close(each, expected, 1e-9)


@pytest.mark.parametrize(
    ("parameters", "shape"),
    [
        ({"layer_norm": True}, (6,)),
        ({"activation": "prelu"}, (6,)),
        ({"activation": "selu", "dropout": 0.1}, (6,)),
        ({"model": "autoencoder", "layer_norm": True}, (6,)),
        ({"layer_norm": True, "activation": "prelu"}, SampleShape((6,), (4, 9))),
        ({"model": "resnet_tabular", "layer_norm": True, "activation": "selu", "dropout": 0.1}, (6,)),
    ],
)
def test_their_passes_are_by_hand(parameters, shape):
    learner = StackedLearner([Member(config(**parameters), i) for i in range(2)], shape, 3, CPU)
    assert [type(stack.dense) for stack in learner._stacks] == [StackedSequential]


@pytest.mark.usefixtures("in_float64")
def test_layers_of_ones_own_settings():
    """A layer norm with an epsilon of its own, and a PReLU with a slope for each unit."""
    layers = nn.Linear(4, 5), nn.LayerNorm(5, eps=0.1), nn.PReLU(5), nn.Linear(5, 2)
    module = nn.Sequential(*layers)
    assert is_sequential(module)
    for other in (nn.LayerNorm(5, bias=False), nn.LayerNorm(5, elementwise_affine=False)):
        assert not is_sequential(nn.Sequential(layers[0], other, layers[-1]))
    with torch.no_grad():
        for each in module.parameters():
            each.normal_()
    stack, x = StackedSequential([module], torch.empty(0)), torch.randn(7, 4)
    for name, view in stack.views(0, stack.parameters).items():
        view.copy_(module.get_parameter(name).detach())
    padded = torch.cat([x, torch.ones(7, 1), torch.zeros(7, 3)], 1)
    outputs, expected = stack.forward(padded, train=True), module(x)
    assert torch.allclose(outputs[0].t(), expected, atol=1e-12)
    by_outputs, found = torch.randn(1, 2, 7), [torch.empty_like(each) for each in stack.parameters]
    stack.backward(padded, by_outputs, found, add=False)
    expected.backward(by_outputs[0].t())
    for name, view in stack.views(0, found).items():
        assert torch.allclose(view, module.get_parameter(name).grad, atol=1e-12), name


@pytest.mark.usefixtures("in_float64")
def test_alpha_dropout_is_the_papers():
    """Klambauer et al. 2017: dropped to alpha', then a (…) + b, which keep mean 0 and variance 1."""
    alpha, shares = -1.6732632423543772 * 1.0507009873554805, (0.1, 0.5)
    noise = Noise(2, CPU)
    noise.begin([0, 1])
    x = torch.randn(2, 50, 2000)
    part = AlphaDropoutPart(shares, noise, torch.empty(0))
    computed = part.make_pass(Rows(x, torch.ones_like(x)), 2000)
    computed.forward(x, train=True)
    h = computed.rows.h
    computed.backward(x, [], add=False)
    for member, share in enumerate(shares):
        dropped = computed.rows.d[member] == 0
        q = 1 - round(share * 65536) / 65536
        a = (q + alpha**2 * q * (1 - q)) ** -0.5
        b = -a * (1 - q) * alpha
        expected = a * torch.where(dropped, alpha, x[member]) + b
        assert torch.allclose(h[member], expected, atol=1e-12)
        assert torch.allclose(computed.rows.d[member], torch.where(dropped, 0.0, a), atol=1e-12)
        assert dropped.double().mean().item() == pytest.approx(share, abs=0.01)
        assert (h[member].mean().item(), h[member].std().item()) == pytest.approx((0, 1), abs=0.02)
    computed.forward(x, train=False)
    assert torch.equal(computed.rows.h, x)


def test_with_alpha_dropout_the_distributions_agree():
    """After an epoch the training losses of stacked members are distributed as those alone."""
    from scipy.stats import ks_2samp  # 0.9 s to import, which collecting need not wait for

    shared = {"activation": "selu", "dropout": 0.3, "epochs": 1, "optimizer": "sgd", "learning_rate": 0.1}
    given = [config(**shared, order_seed=seed) for seed in range(40)]
    on = data(given[0])
    x, y = on.x_train[:32], on.y_train[:32]
    stack = StackedLearner([Member(each, i) for i, each in enumerate(given)], (8,), 3, CPU)
    single = ModuleLearner(Member(given[0]), (8,), 3, CPU)
    start = single.weights(single.members[0])
    for member in stack.members:
        stack.load(member, start)
    stack.begin_epoch(32, [[0.1]] * 40, range(40))
    stack.step(x, y)
    together = [scores["loss"] for scores in stack.end_epoch()]
    apart = []
    torch.manual_seed(0)
    for _ in given:
        single.load(single.members[0], start)
        single.begin_epoch(32, [[0.1]])
        single.step(x, y)
        apart.append(single.end_epoch()[0]["loss"])
    assert len(set(together)) == 40
    assert ks_2samp(together, apart).pvalue > 1e-3
