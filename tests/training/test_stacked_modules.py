"""A trial in a stack of modules is the trial alone: models of tables, and modules of any kind.

Models of tables go through `StackedSequential`, and with the fixture `general` through `StackedModules`.
"""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from hpo.config.choices import ACTIVATIONS, INITIALISATIONS, SCHEDULES
from hpo.config.trial_config import TrialConfig
from hpo.datasets import Dataset, SampleShape
from hpo.training.checkpoint import CheckpointSpec
from hpo.training.data import Data, prepare_data
from hpo.training.loop import train
from hpo.training.member import Member
from hpo.training.settings import TrainSettings
from hpo.training.stacked import noise as member_noise
from hpo.training.stacked import stack as stacked
from hpo.training.stacked.layers import Dropout
from hpo.training.stacked.learner import StackedLearner
from hpo.training.stacked.mlp import StackedMLP
from hpo.training.stacked.modules import StackedModules
from hpo.training.stacked.noise import Noise
from hpo.training.stacked.sequential import StackedSequential, is_sequential
from hpo.training.stacked.structure import number_structures, structure_of
from tests.training.resumable import CPU, RNG, bits, config, stop_after
from tests.training.test_stacked import STACKED, Prunes, alone, assert_close, doubled, in_float64

__all__ = ["in_float64"]
pytestmark = pytest.mark.usefixtures("one_thread")
CATEGORIES = (4, 3)
Y = np.arange(160) % 3
CODES = np.stack([(Y + RNG.integers(0, 2, 160)) % 4, RNG.integers(0, 3, 160)], 1)
X = np.concatenate([RNG.normal(size=(3, 4))[Y] + RNG.normal(size=(160, 4)), CODES], 1)


class TableData(Data):
    """Data whose last two features are codes, which their scaling has left alone."""

    @property
    def shape(self) -> SampleShape:
        return SampleShape(self.x_val.shape[1:], CATEGORIES)


def data(given: TrialConfig) -> Data:
    found = prepare_data(Dataset((X, Y), classes=3), given, CPU)
    assert found.scaling is not None
    shift, scale = (
        torch.from_numpy(np.asarray(each, np.float32)) for each in (found.scaling.shift, found.scaling.scale)
    )
    for x in (found.x_train, found.x_val):
        x[:, 4:] = (x[:, 4:] * scale[4:] + shift[4:]).round()
    return TableData(**vars(found))


def tabular(**parameters) -> TrialConfig:
    return config(**{"widths": None, "width": 8, "learning_rate": 0.01, "epochs": 2} | parameters)


KINDS = [
    {"model": "mlp"},
    {"model": "mlp", "numeric_embedding": "periodic", "numeric_embedding_size": 3, "periodic_frequencies": 2},
    {"model": "mlp", "numeric_embedding": "piecewise_linear", "numeric_embedding_size": 3, "numeric_bins": 4},
    {"model": "resnet_tabular"},
    {"model": "resnet_tabular", "numeric_embedding": "piecewise_linear", "numeric_embedding_size": 2},
]


# These go by the signs of gradients, and Adagrad divides small ones by themselves. Before a normalisation gradients of
# shifts are 0 but for rounding, of which nobody can say the sign.
SIGNS = {"rprop", "lion"}


def settle(optimizer: str, kind: dict[str, object], **parameters) -> dict[str, object]:
    """Return parameters under which rounding decides nothing."""
    settled = {**kind, **parameters, "optimizer": optimizer}
    if optimizer in SIGNS:
        settled |= {"model": "mlp", "batch_norm": False}
    return settled | ({"epsilon": 1e-4} if optimizer == "adagrad" else {})


@pytest.fixture
def general(request, monkeypatch):
    """Compute models of tables by vmap, as modules of any kind are, or by hand."""
    if request.param:
        monkeypatch.setattr(stacked, "is_sequential", lambda _: False)


BOTH = pytest.mark.parametrize("general", [False, True], indirect=True)


@BOTH
@pytest.mark.usefixtures("in_float64", "general")
def test_every_choice():
    """All optimizers, and models with all kinds of embeddings; all other choices beside them in turn."""
    configs = [
        tabular(
            **settle(optimizer, KINDS[i % len(KINDS)], batch_norm=i % 4 == 0),
            schedule=list(SCHEDULES)[i % 5],
            activation=sorted(ACTIVATIONS)[i % len(ACTIVATIONS)],
            init=sorted(INITIALISATIONS)[i % 5],
            loss=("cross_entropy", "mse")[i // 2 % 2],
            label_smoothing=(0, 0.1, 0)[i % 3],
            depth=1 + i % 2,
            gradient_clip=(0, 0.3)[i // 3 % 2],
            weight_decay=(0, 1e-3)[i % 2],
            momentum=(0.0, 0.7)[i // 2 % 2],
            layer_learning_rate_decay=(1.0, 0.7, 1.0)[i % 3],
            embedding_factor=(None, 1.0)[i // 4 % 2],
            epochs=1,
        )
        for i, optimizer in enumerate(STACKED * 2)
    ]
    on = doubled(data(configs[0]))
    for found, expected in zip(train(configs, on), alone(configs, on), strict=True):
        assert_close(found, expected, 1e-9)


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("optimizer", STACKED)
def test_members_of_one_stack(optimizer):
    """Configurations that differ in their settings alone, some in each layer's learning rate, and some clipped."""
    configs = [
        tabular(
            **settle(optimizer, KINDS[1 if STACKED.index(optimizer) % 2 else 4], batch_norm=True),
            learning_rate=0.004 * (1 + i),
            gradient_clip=(0, 0.2)[i % 2],
            weight_decay=(1e-3, 0)[i % 2],
            layer_learning_rate_decay=(1.0, 0.6)[i // 2 % 2],
            momentum=(0.5, 0.9)[i // 2 % 2],
            batch_size=7,
            epochs=1,
        )
        for i in range(3)
    ]
    on = doubled(data(configs[0]))
    for found, expected in zip(train(configs, on), alone(configs, on), strict=True):
        assert_close(found, expected, 1e-9)


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_numbers_alone(optimizer):
    """A first linear layer reads the batch that all members share; plain descent adds to the weights themselves."""
    kinds = [
        {"model": "resnet_tabular", "depth": 0},
        {"model": "resnet_tabular", "depth": 2, "activation": "gelu"},
        {"model": "mlp", "numeric_embedding": "periodic", "numeric_embedding_size": 2, "periodic_frequencies": 3},
        {"model": "mlp", "numeric_embedding": "piecewise_linear", "numeric_embedding_size": 2, "numeric_bins": 3},
    ]
    configs = [tabular(**kind, optimizer=optimizer, learning_rate=rate) for kind in kinds for rate in (0.01, 0.02)]
    on = doubled(prepare_data(Dataset((X[:, :4], Y), classes=3), configs[0], CPU))
    for found, expected in zip(train(configs, on), alone(configs, on), strict=True):
        assert_close(found, expected, 1e-9)


def test_one_step_in_float32():
    configs = [
        tabular(**kind, optimizer=optimizer, activation=activation, epochs=1, batch_size=140)
        for kind, optimizer, activation in zip(KINDS * 2, STACKED * 2, [*ACTIVATIONS] * 2, strict=False)
    ]
    on = data(configs[0])
    for found, expected in zip(train(configs, on), alone(configs, on), strict=True):
        assert_close(found, expected, 1e-5)


def test_which_stacks_there_are():
    """Numbers alone stay on the fast path; what differs in structure is another stack of the same cohort."""
    numbers = [tabular(), tabular(learning_rate=0.1), tabular(numeric_embedding="periodic")]
    learner = StackedLearner([Member(each, i) for i, each in enumerate(numbers)], (6,), 3, CPU)
    kinds = {type(stack.dense): len(stack.models) for stack in learner._stacks}
    assert kinds == {StackedMLP: 2, StackedSequential: 1}
    apart = [{"width": 9}, {"depth": 1}, {"activation": "gelu"}, {"dropout": 0.1}, {"embedding_factor": 1.0}]
    together = [{}, {"learning_rate": 0.1}, {"weight_decay": 0.1}, {"init": "xavier"}, {"seed": 0}]
    members = [Member(tabular(**each), i) for i, each in enumerate([*apart, *together])]
    learner = StackedLearner(members, SampleShape((6,), CATEGORIES), 3, CPU)
    assert sorted(len(stack.models) for stack in learner._stacks) == [1] * 5 + [5]


# Dropout.


@BOTH
@pytest.mark.usefixtures("in_float64", "general")
@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
@pytest.mark.parametrize("kind", [*KINDS[::3], {"model": "mlp", "batch_norm": True}])
def test_with_the_same_masks_dropout_agrees(kind, activation, monkeypatch):
    """Each unit is dropped or kept by its place in its layer and in the batch, for every member alike."""

    def factors(rows: int, columns: int, share: float) -> torch.Tensor:
        places = torch.arange(rows * columns).view(rows, columns)
        return ((places * 7919) % 1000 >= 1000 * share).double() / (1 - share)

    def together(like: torch.Tensor, shares: torch.Tensor, _: Noise) -> torch.Tensor:
        return torch.stack([factors(*like.shape[1:], share) for share in shares.tolist()])

    def draw(self: Dropout, _: torch.Tensor, into: torch.Tensor) -> None:
        dropped = (1 - 1 / self.scale).flatten().tolist()
        into.copy_(torch.stack([factors(*into.mT.shape[1:], round(share, 2)).mT for share in dropped]))

    def one(self: nn.Dropout, x: torch.Tensor) -> torch.Tensor:
        return x * factors(*x.shape, self.p) if self.training else x

    monkeypatch.setattr(member_noise, "draw_factors", together)
    monkeypatch.setattr(Dropout, "draw", draw)
    shares = [(0.1, 0.0), (0.5, 0.3), (0.25, 0.2)]
    configs = [
        tabular(**kind, dropout=hidden, residual_dropout=rest, activation=activation, epochs=1)
        for hidden, rest in shares
    ]
    on = doubled(data(configs[0]))
    found = train(configs, on)
    monkeypatch.setattr(nn.Dropout, "forward", one)
    for each, expected in zip(found, alone(configs, on), strict=True):
        assert_close(each, expected, 1e-9)


@pytest.mark.parametrize("precision", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_dropout_drops_its_share_and_keeps_the_mean(share, precision):
    like = torch.empty(2, 1000, 100, dtype=precision).transpose(1, 2)
    noise = Noise(2, CPU)
    noise.begin([0, 1])
    factors = member_noise.draw_factors(like, torch.tensor([share, 0.0]), noise)
    assert factors.stride() == like.stride()
    assert (factors[0] == 0).double().mean().item() == pytest.approx(share, abs=5 * (share * (1 - share) / 1e5) ** 0.5)
    assert factors[0].max().item() == pytest.approx(1 / (1 - share), rel=1e-4 if precision != torch.bfloat16 else 4e-3)
    assert torch.equal(factors[1], torch.ones(100, 1000, dtype=precision))


@BOTH
@pytest.mark.usefixtures("general")
def test_the_noise_of_a_member_does_not_depend_on_what_others_drop():
    """Of two dropouts, one is 0 for some members, and both are for another."""
    shares = [(0.2, 0.0), (0.2, 0.1), (0.0, 0.0), (0.0, 0.1), (0.3, 0.0)]
    configs = [
        tabular(**KINDS[3], depth=2, dropout=hidden, residual_dropout=rest, learning_rate=0.01 + i * 1e-6, epochs=1)
        for i, (hidden, rest) in enumerate(shares)
    ]
    on = data(configs[0])
    for config_, found in zip(configs, train(configs, on), strict=True):
        (expected,) = train([config_], on)
        assert found.history[0]["train_loss"] == pytest.approx(expected.history[0]["train_loss"], rel=1e-4)


def test_members_that_drop_nothing_join_those_that_do():
    modules = [nn.Sequential(nn.Dropout(first), nn.Dropout(second)) for first, second in ((0, 0), (0.1, 0), (0.2, 0))]
    assert number_structures(modules) == [0, 0, 0]
    assert number_structures([*modules, nn.Sequential(nn.Dropout(0.1), nn.Dropout(0.1))]) == [0, 0, 0, 1]


def test_members_draw_noise_of_their_own():
    configs = [tabular(**KINDS[3], residual_dropout=0.5, learning_rate=0.01 + i * 1e-9) for i in range(2)]
    first, second = train(configs, data(configs[0]))
    assert abs(first.history[0]["train_loss"] - second.history[0]["train_loss"]) > 1e-3


@pytest.mark.parametrize("place", [0, 1])
def test_a_member_that_has_dropped_nothing_goes_on_beside_those_that_have(place):
    """Its checkpoint is of a stack that drew no noise, and is loaded before that of the other or after it."""
    alone, drawn, resumed = Noise(1, CPU), Noise(1, CPU), Noise(2, CPU)
    for noise in (alone, drawn):
        noise.begin([1])
    drawn.draw(100)
    drawn.next_seeds()
    states = [drawn.state(0), drawn.state(0)]
    states[place] = alone.state(0)
    resumed.begin([1, 1])
    for member, state in enumerate(states):
        resumed.load(member, state)
    for words in (1000, 4000):
        assert torch.equal(resumed.draw(words)[1 - place], drawn.draw(words)[0])
    assert resumed.next_seeds()[1 - place] == drawn.next_seeds()[0]


# Members that leave, diverge or go on.


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("kind", KINDS[::3])
def test_members_that_are_pruned_leave_the_others_as_they_are(kind):
    configs = [tabular(**kind, learning_rate=0.01 * (i + 1), optimizer="momentum", epochs=4) for i in range(4)]
    on = doubled(data(configs[0]))
    found = train(configs, on, TrainSettings(callbacks=[Prunes(_1=2, _3=1)]))
    assert [len(outcome.history) for outcome in found] == [4, 2, 4, 1]
    expected = alone(configs, on)
    for number in (0, 2):
        assert_close(found[number], expected[number], 1e-9)


@pytest.mark.parametrize("kind", KINDS[::3])
def test_a_member_that_diverges_changes_no_other(kind):
    def cohort(rate: float):
        configs = [tabular(**kind, learning_rate=each, optimizer="sgd") for each in (0.01, rate, 0.02)]
        return train(configs, data(configs[0]))

    calm, wild = cohort(0.015), cohort(1000.0)
    for number in (0, 2):
        assert bits(calm[number]) == bits(wild[number])


@pytest.mark.parametrize("answers", [3, 7])
@pytest.mark.parametrize(
    ("kind", "optimizers", "dropout"),  # several stacks draw their noise in turns, which an interruption changes
    [
        (KINDS[1], ("adamw", "adamw"), 0.3),
        (KINDS[3], ("nadam", "nadam"), 0.3),
        (KINDS[3], ("adam", "rmsprop", "sgd"), 0.0),
    ],
)
def test_a_cohort_goes_on_from_its_checkpoints(kind, optimizers, dropout, answers, tmp_path):
    configs = [
        tabular(**kind, optimizer=optimizer, batch_norm=True, dropout=dropout, learning_rate=0.01 * (i + 1))
        for i, optimizer in enumerate(optimizers)
    ]
    on = data(configs[0])
    specs = [CheckpointSpec(tmp_path / f"{number}.pt") for number in range(len(configs))]
    stopped = train(configs, on, TrainSettings(should_stop=stop_after(answers)), checkpoints=specs)
    assert {outcome.status for outcome in stopped} == {"interrupted"}
    again = train(configs, on, checkpoints=[replace(spec, resume=True) for spec in specs])
    assert [bits(each) for each in again] == [bits(each) for each in train(configs, on)]


# Modules of any kind.


class Odd(nn.Module):
    """Convolution, tied weights, a frozen parameter, an unused one, a buffer that counts, and a constant."""

    def __init__(self, dropout: float = 0.0, scale: float = 1.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.dense = nn.Linear(48, 48)
        self.again = nn.Linear(48, 48)
        self.again.weight = self.dense.weight
        self.last = nn.Linear(48, 2, bias=False)
        self.frozen = nn.Parameter(torch.randn(48), requires_grad=False)
        self.unused = nn.Parameter(torch.ones(3))
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("constant", torch.arange(48.0) / 48, persistent=False)
        self.drop = nn.Dropout(dropout)
        self.scale = scale

    def forward(self, x):
        if self.training:
            self.seen += 1
        hidden = torch.relu(self.norm(self.conv(x))).flatten(1)
        hidden = self.drop(self.again(torch.tanh(self.dense(hidden) + self.frozen)) * self.constant)
        return self.last(hidden) * self.scale


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("by_layer", [False, True])
def test_any_module(by_layer):
    torch.manual_seed(0)
    modules = [Odd() for _ in range(3)]
    stack = StackedModules(modules, (1, 4, 4), CPU, by_layer=by_layer)
    for index, module in enumerate(modules):
        own = {**stack.views(index, stack.parameters), **stack.statistics(index)}
        assert own.keys() >= module.state_dict().keys()
        for name, value in module.state_dict().items():
            own[name].copy_(value)
    batch = torch.zeros(5, 24)
    batch[:, :16] = torch.randn(5, 16)
    by_outputs = torch.randn(3, 2, 5)
    outputs = stack.forward(batch, train=True)
    gradients = [torch.empty_like(each) for each in stack.parameters]
    stack.backward(batch, by_outputs, gradients, add=False)
    evaluated = stack.forward(batch, train=False)
    for index, module in enumerate(modules):
        expected = module(batch[:, :16].view(5, 1, 4, 4))
        assert torch.allclose(outputs[index], expected.mT, atol=1e-12)
        expected.backward(by_outputs[index].mT)
        found = stack.views(index, gradients)
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                wanted = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                assert torch.allclose(found[name], wanted, atol=1e-12), name
        for name, buffer in module.named_buffers():
            if name != "constant":
                assert torch.allclose(stack.statistics(index)[name].to(buffer), buffer), name
        assert torch.allclose(evaluated[index], module.eval()(batch[:, :16].view(5, 1, 4, 4)).mT, atol=1e-12)


def test_what_is_sequential():
    norm, linear = nn.BatchNorm1d(4), nn.Linear(4, 4)
    assert is_sequential(nn.Sequential(nn.Flatten(), nn.Linear(3, 4), norm, nn.Sequential(nn.SiLU()), linear))
    rest = [nn.LeakyReLU(0.2)], [nn.BatchNorm1d(4, momentum=0.2)], [nn.Softmax(1)], [nn.Linear(4, 4), nn.ReLU()]
    others = [nn.Sequential(nn.Linear(3, 4), *layers, linear) for layers in rest[:3]]
    others += [nn.Sequential(*rest[3]), nn.Sequential(nn.ReLU(), linear), nn.Sequential(linear, nn.ReLU(), linear)]
    others += [nn.Sequential(nn.Linear(3, 4), linear)]
    others[-1].register_buffer("index", torch.arange(3))
    assert not any(is_sequential(each) for each in [*others, Odd()])


def test_what_a_stack_can_hold():
    first = structure_of(Odd())
    assert structure_of(Odd(dropout=0.5)) == first
    assert structure_of(Odd(scale=2.0)) != first
    assert structure_of(nn.Sequential(nn.Linear(3, 4))) != structure_of(nn.Sequential(nn.Linear(3, 5)))
    assert structure_of(nn.Sequential(nn.ReLU())) != structure_of(nn.Sequential(nn.Tanh()))
    frozen = Odd()
    frozen.last.requires_grad_(False)
    assert structure_of(frozen) != first
    for make in (
        lambda i: np.prod((2, 3 + i)),
        lambda i: np.float32(i),
        lambda i: np.arange(3) + i,
        lambda i: partial(nn.LayerNorm, eps=1e-5 * (i + 1)),
    ):
        holders = Odd(), Odd(), Odd()
        for value, holder in zip((0, 0, 1), holders, strict=True):
            holder.held = make(value)
        same, other, different = map(structure_of, holders)
        assert same == other != different
