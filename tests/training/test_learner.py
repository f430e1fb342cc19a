"""The learners against the NumPy oracle, in float64."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from torch import nn

from hpo.config.choices import ACTIVATIONS, OPTIMIZERS
from hpo.config.cohort_key import UNSTACKABLE
from hpo.config.trial_config import TrialConfig
from hpo.errors import ConfigError
from hpo.training.learner import Learner, ModuleLearner
from hpo.training.losses import loss_function
from hpo.training.member import Member
from hpo.training.optimizers import weight_layers
from hpo.training.stacked.learner import StackedLearner
from tests.training import oracle

CPU = torch.device("cpu")
WIDTHS = (6, 5, 4, 3)
RNG = np.random.default_rng(3)
X, Y = RNG.normal(size=(4, 16, 6)), RNG.integers(0, 3, (4, 16))  # four batches
RATES = (0.05, 0.03, 0.02, 0.04)

STEPS = {
    "sgd": {},
    "sgd with decay": {"weight_decay": 0.1},
    "momentum": {"weight_decay": 0.1},
    "nesterov": {"momentum": 0.7, "weight_decay": 0.1},
    "nesterov without momentum": {"momentum": 0.0},
    "rmsprop": {"weight_decay": 0.1, "epsilon": 1e-3},
    "rmsprop with momentum": {"momentum": 0.8},
    "adam": {"beta1": 0.8, "beta2": 0.95, "weight_decay": 0.1},
    "adamw": {"beta1": 0.8, "beta2": 0.95, "weight_decay": 0.1},
    "nadam": {"beta1": 0.8, "beta2": 0.95, "weight_decay": 0.1, "epsilon": 1e-4},
    "adagrad": {"weight_decay": 0.1, "epsilon": 1e-3},
    "adadelta": {"rho": 0.8, "weight_decay": 0.1, "epsilon": 1e-3},
    "adamax": {"beta1": 0.8, "beta2": 0.95, "weight_decay": 0.1, "epsilon": 1e-3},
    "radam": {"beta1": 0.8, "beta2": 0.95, "weight_decay": 0.1, "epsilon": 1e-3},
    "asgd": {"asgd_decay": 0.1, "asgd_power": 0.6, "asgd_start": 2, "weight_decay": 0.1},
    "rprop": {},
    "lion": {"beta1": 0.8, "beta2": 0.95, "weight_decay": 0.1},
    "schedule_free_adamw": {"beta1": 0.8, "beta2": 0.95, "weight_decay": 0.1},
}


@pytest.fixture(autouse=True)
def in_float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


LEARNERS = {"module": ModuleLearner, "stacked": lambda member, *rest: StackedLearner([member], *rest)}
both = pytest.mark.parametrize("kind", LEARNERS)


def weights_of(learner: Learner) -> list[np.ndarray]:
    return [value.numpy() for value in learner.weights(learner.members[0]).values()]


def weights_in_training(learner: Learner) -> list[np.ndarray]:
    state = learner.state(learner.members[0])
    return [value.numpy() for value in state["module" if "module" in state else "weights"].values()]


def paired(config: TrialConfig, kind: str = "module") -> tuple[Learner, oracle.Mlp]:
    """A learner and the oracle, of equal weights."""
    learner = LEARNERS[kind](Member(config), WIDTHS[:1], WIDTHS[-1], CPU)
    return learner, oracle.Mlp(weights_of(learner), config.activation)


def oracle_loss(config: TrialConfig, outputs, y):
    return oracle.mse(outputs, y) if config.loss == "mse" else oracle.cross_entropy(outputs, y, config.label_smoothing)


@both
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_forward(activation, kind):
    learner, reference = paired(TrialConfig(widths="5-4", activation=activation), kind)
    outputs = learner.evaluate(torch.from_numpy(X[0]), torch.from_numpy(Y[0]))[0].outputs
    np.testing.assert_allclose(outputs.numpy(), reference.forward(X[0])[0], atol=1e-12)


@pytest.mark.parametrize("loss", [{"loss": "mse"}, {}, {"label_smoothing": 0.3}])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients(activation, loss):
    config = TrialConfig(widths="5-4", activation=activation, **loss)
    learner, reference = paired(config)
    outputs = learner.module(torch.from_numpy(X[0]))
    value = loss_function(config)(outputs, torch.from_numpy(Y[0]))
    value.backward()
    expected, by_outputs = oracle_loss(config, reference.forward(X[0])[0], Y[0])
    assert value.item() == pytest.approx(expected, rel=1e-12)
    for parameter, grad in zip(learner.module.parameters(), reference.gradients(X[0], by_outputs), strict=True):
        np.testing.assert_allclose(parameter.grad.numpy(), grad, atol=1e-12)


def test_every_optimizer_has_a_reference():
    assert {name.split()[0] for name in STEPS} == set(OPTIMIZERS) - {"lbfgs"}


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, kind) for kind in LEARNERS for name in STEPS if kind == "module" or name.split()[0] not in UNSTACKABLE],
)
def test_steps(name, kind):
    optimizer, extra = name.split()[0], STEPS[name]
    config = TrialConfig(widths="5-4", activation="tanh", optimizer=optimizer, **extra)
    learner, reference = paired(config, kind)
    taken = [each.name for each in fields(oracle.Optimizer) if hasattr(config, each.name)]
    settings = {name: getattr(config, name) for name in taken} | {"decay": config.weight_decay}
    rules = [oracle.Optimizer(optimizer, 0.0, **settings) for _ in reference.parameters]
    exact = 1e-6 if optimizer == "nadam" else 1e-9  # torch keeps NAdam's product of momenta in single precision
    for _ in range(2):
        learner.begin_epoch(X[0].size, [RATES])
        for x, y, rate in zip(X, Y, RATES, strict=True):
            learner.step(torch.from_numpy(x), torch.from_numpy(y))
            grads = reference.gradients(x, oracle_loss(config, reference.forward(x)[0], y)[1])
            for i, (rule, grad) in enumerate(zip(rules, grads, strict=True)):
                rule.rate = rate
                reference.parameters[i] = rule.step(reference.parameters[i], grad)
            for found, expected in zip(weights_in_training(learner), reference.parameters, strict=True):
                np.testing.assert_allclose(found, expected, rtol=exact, atol=exact)
        learner.end_epoch()
    for found, rule, expected in zip(weights_of(learner), rules, reference.parameters, strict=True):
        assert (rule.average is None) != OPTIMIZERS[optimizer].averages
        np.testing.assert_allclose(found, expected if rule.average is None else rule.average, rtol=exact, atol=exact)


@both
def test_gradient_clip(kind):
    config = TrialConfig(widths="5-4", optimizer="sgd", gradient_clip=0.01)
    learner, reference = paired(config, kind)
    learner.begin_epoch(16, [[1.0]])
    learner.step(torch.from_numpy(X[0]), torch.from_numpy(Y[0]))
    moved = [before - after for before, after in zip(reference.parameters, weights_of(learner), strict=True)]
    assert np.sqrt(sum((part**2).sum() for part in moved)) == pytest.approx(0.01, rel=1e-3)


def test_lbfgs_learns():
    config = TrialConfig(widths="5", optimizer="lbfgs", learning_rate=0.5)
    learner, _ = paired(config)
    x, y = torch.from_numpy(X[0]), torch.from_numpy(Y[0])
    before = learner.evaluate(x, y)[0].scores["loss"]
    learner.begin_epoch(64, [[0.5] * 4])
    for _ in range(4):
        learner.step(x, y)
    assert learner.evaluate(x, y)[0].scores["loss"] < before / 2
    assert len(learner._record.read()[1]) == 64


def test_lbfgs_learns_convolutions():
    """Torch's takes gradients apart with `view`, which refuses those of weights whose channels lie last."""
    config = TrialConfig(model="cnn", conv_layers=2, channels=2, optimizer="lbfgs", learning_rate=0.5)
    learner = ModuleLearner(Member(config), (2, 8, 8), 3, torch.device("cpu"))
    x, y = torch.randn(12, 2, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3
    before = learner.evaluate(x, y)[0].scores["loss"]
    learner.begin_epoch(12, [[0.5] * 3])
    for _ in range(3):
        learner.step(x, y)
    assert learner.evaluate(x, y)[0].scores["loss"] < before


@both
def test_epoch_measures_are_the_means_over_the_steps(kind):
    config = TrialConfig(widths="5-4", optimizer="sgd")
    learner, reference = paired(config, kind)
    learner.begin_epoch(0, [[0.1] * len(X)])  # the number of samples is not known beforehand
    losses, right = [], 0
    for x, y in zip(X, Y, strict=True):
        outputs = reference.forward(x)[0]
        loss, by_outputs = oracle_loss(config, outputs, y)
        losses.append(loss)
        right += int((outputs.argmax(1) == y).sum())
        learner.step(torch.from_numpy(x), torch.from_numpy(y))
        grads = reference.gradients(x, by_outputs)
        reference.parameters = [w - 0.1 * g for w, g in zip(reference.parameters, grads, strict=True)]
    (scores,) = learner.end_epoch()
    assert scores["loss"] == pytest.approx(np.mean(losses), rel=1e-9)
    assert scores["accuracy"] == right / 64


@both
def test_validation_loss_is_not_smoothed(kind):
    learner, reference = paired(TrialConfig(widths="5-4", label_smoothing=0.5), kind)
    loss = learner.evaluate(torch.from_numpy(X[0]), torch.from_numpy(Y[0]))[0].scores["loss"]
    assert loss == pytest.approx(oracle.cross_entropy(reference.forward(X[0])[0], Y[0])[0], rel=1e-9)


def test_evaluation_leaves_out_dropout():
    module = nn.Sequential(nn.Linear(6, 50), nn.Dropout(0.5), nn.Linear(50, 3))
    learner = ModuleLearner(Member(TrialConfig()), (6,), 3, CPU, module.double())
    x, y = torch.from_numpy(X[0]), torch.from_numpy(Y[0])
    assert torch.equal(learner.evaluate(x, y)[0].outputs, learner.evaluate(x, y)[0].outputs)


DECAY = {"optimizer": "sgd", "layer_learning_rate_decay": 0.5, "init": "orthogonal"}


@pytest.mark.parametrize(
    ("config", "shape", "layers"),
    [
        (TrialConfig(depth=2, width=5, batch_norm=True, **DECAY), (6,), 3),
        (TrialConfig(model="autoencoder", depth=1, width=5, latent_size=2, **DECAY), (6,), 4),
        (TrialConfig(model="cnn", conv_layers=2, channels=2, dense_width=4, **DECAY), (1, 8, 8), 4),
    ],
)
def test_a_layers_step_is_as_much_shorter_as_it_is_farther_from_the_output(config, shape, layers):
    x, y = torch.rand(16, *shape), torch.randint(0, 3, (16,))

    def steps(one: TrialConfig) -> list[torch.Tensor]:
        torch.manual_seed(0)
        learner = ModuleLearner(Member(one), shape, 3, CPU)
        learned = [layer[0] for layer in weight_layers(learner.module)]
        before = [parameter.detach().clone() for parameter in learned]
        learner.begin_epoch(16, [[0.1]])
        learner.step(x, y)
        return [after.detach() - own for after, own in zip(learned, before, strict=True)]

    alone, decayed = steps(config.model_copy(update={"layer_learning_rate_decay": 1.0})), steps(config)
    assert len(alone) == layers
    for i, (full, part) in enumerate(zip(alone, decayed, strict=True)):
        assert full.abs().max() > 0
        torch.testing.assert_close(part, full * 0.5 ** (layers - 1 - i))


def test_weights_that_layers_share_belong_to_the_first():
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    layers = weight_layers(nn.Sequential(first, nn.ReLU(), second))
    found = [parameter for layer in layers for parameter in layer]
    assert [id(each) for each in found] == [id(each) for each in (first.weight, first.bias, second.bias)]


def test_a_batch_of_one_sample_under_batch_normalisation_is_one_line():
    module = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    learner = ModuleLearner(Member(TrialConfig(optimizer="sgd")), (6,), 3, CPU, module)
    learner.begin_epoch(3, [[0.1, 0.1]])
    x, y = torch.from_numpy(X[0]), torch.from_numpy(Y[0])
    learner.step(x[:2], y[:2])
    with pytest.raises(ConfigError, match=r"^model 'mlp': its batch normalisation has no statistics in a batch of one"):
        learner.step(x[:1], y[:1])
