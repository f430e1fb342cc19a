"""Which of torch's modules stack: the table of docs/cohorts.md, line by line, as the check finds it."""

import itertools
import random
import re
import threading
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hpo.training.stacked.check import load_modules, why_modules_alone
from hpo.training.stacked.modules import SerialModules, StackedModules
from hpo.training.stacked.sequential import StackedSequential
from hpo.training.stacked.structure import structure_of

pytestmark = pytest.mark.usefixtures("one_thread")
VECTOR, SEQUENCE, IMAGE = (8,), (6, 8), (2, 8, 8)


class Flat(nn.Module):
    """Module whose outputs, or the first of them, are flat."""

    def __init__(self, inner: nn.Module, prepare=lambda x: x) -> None:
        super().__init__()
        self.inner, self.last = inner, nn.LazyLinear(2)
        self.prepare = prepare

    def forward(self, x: Tensor) -> Tensor:
        x = self.prepare(x)
        outputs = self.inner(*x) if isinstance(x, tuple) else self.inner(x)
        while isinstance(outputs, tuple):
            outputs = outputs[0]
        return self.last(outputs.flatten(1))


def pair(x: Tensor) -> tuple[Tensor, Tensor]:
    return x, x


def thrice(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return x, x, x


def codes(x: Tensor) -> Tensor:
    return x.abs().mul(3).long() % 5


def volume(x: Tensor) -> Tensor:
    return x.unsqueeze(1)


def after(layer: nn.Module, *others: nn.Module) -> nn.Module:
    return nn.Sequential(layer, *others)


def encoder(layers: int = 2, **settings) -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, **settings)
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


TIMES = {"batch_first": True}
DEEP = {"num_layers": 2, "bidirectional": True, "dropout": 0.3}
# The docs' names of modules, each with instances: what is in front of the samples, their shape, and the modules.
STACKED = {
    "Linear": [(VECTOR, lambda: nn.Linear(8, 3))],
    "Bilinear": [(VECTOR, lambda: nn.Bilinear(8, 8, 3), pair)],
    "Conv1d": [(SEQUENCE, lambda: nn.Conv1d(6, 3, 3))],
    "Conv2d": [(IMAGE, lambda: nn.Conv2d(2, 3, 3, padding=1, stride=2))],
    "Conv3d": [(IMAGE, lambda: nn.Conv3d(1, 2, 2), volume)],
    "ConvTranspose2d": [(IMAGE, lambda: nn.ConvTranspose2d(2, 3, 2))],
    "BatchNorm1d": [
        (VECTOR, lambda: after(nn.Linear(8, 4), nn.BatchNorm1d(4))),
        (SEQUENCE, lambda: nn.BatchNorm1d(6, affine=False)),
        (SEQUENCE, lambda: nn.BatchNorm1d(6, track_running_stats=False)),
    ],
    "BatchNorm2d": [(IMAGE, lambda: nn.BatchNorm2d(2, momentum=0.3))],
    "BatchNorm3d": [(IMAGE, lambda: nn.BatchNorm3d(1), volume)],
    "LayerNorm": [(SEQUENCE, lambda: nn.LayerNorm(8))],
    "RMSNorm": [(SEQUENCE, lambda: nn.RMSNorm(8))],
    "GroupNorm": [(IMAGE, lambda: nn.GroupNorm(2, 2))],
    "InstanceNorm2d": [(IMAGE, lambda: nn.InstanceNorm2d(2, affine=True, track_running_stats=True))],
    "LocalResponseNorm": [(IMAGE, lambda: after(nn.Conv2d(2, 3, 1), nn.LocalResponseNorm(2)))],
    "MaxPool2d": [(IMAGE, lambda: after(nn.Conv2d(2, 3, 1), nn.MaxPool2d(2)))],
    "AvgPool2d": [(IMAGE, lambda: after(nn.Conv2d(2, 3, 1), nn.AvgPool2d(2)))],
    "AdaptiveAvgPool2d": [(IMAGE, lambda: after(nn.Conv2d(2, 3, 1), nn.AdaptiveAvgPool2d(2)))],
    "AdaptiveMaxPool2d": [(IMAGE, lambda: after(nn.Conv2d(2, 3, 1), nn.AdaptiveMaxPool2d(2)))],
    "Upsample": [(IMAGE, lambda: after(nn.Conv2d(2, 3, 1), nn.Upsample(scale_factor=2)))],
    "PixelShuffle": [(IMAGE, lambda: after(nn.Conv2d(2, 4, 1), nn.PixelShuffle(2)))],
    "Dropout": [
        (VECTOR, lambda: nn.Dropout(0.3)),
        (VECTOR, lambda: after(nn.Linear(8, 4), nn.Dropout(0.3, inplace=True))),
    ],
    "Dropout1d": [(SEQUENCE, lambda: after(nn.Conv1d(6, 4, 1), nn.Dropout1d(0.4)))],
    "Dropout2d": [(IMAGE, lambda: after(nn.Conv2d(2, 4, 1), nn.Dropout2d(0.4)))],
    "Dropout3d": [(IMAGE, lambda: after(nn.Conv3d(1, 4, 1), nn.Dropout3d(0.4)), volume)],
    "AlphaDropout": [(VECTOR, lambda: after(nn.Linear(8, 4), nn.AlphaDropout(0.3)))],
    "FeatureAlphaDropout": [(IMAGE, lambda: after(nn.Conv2d(2, 4, 1), nn.FeatureAlphaDropout(0.3)))],
    "Embedding": [
        (VECTOR, lambda: nn.Embedding(5, 3), codes),
        (VECTOR, lambda: nn.Embedding(5, 3, padding_idx=1), codes),
    ],
    "EmbeddingBag": [
        *((VECTOR, lambda mode=mode: nn.EmbeddingBag(5, 3, mode=mode), codes) for mode in ("sum", "mean", "max")),
        *(
            (VECTOR, lambda mode=mode: nn.EmbeddingBag(5, 3, mode=mode, padding_idx=2), codes)
            for mode in ("sum", "mean", "max")
        ),
    ],
    "MultiheadAttention": [
        (SEQUENCE, lambda: nn.MultiheadAttention(8, 2, batch_first=True), thrice),
        (SEQUENCE, lambda: nn.MultiheadAttention(8, 2, dropout=0.2, batch_first=True), thrice),
    ],
    "TransformerEncoderLayer": [
        (SEQUENCE, lambda: encoder(1, dropout=0.0)),
        (SEQUENCE, lambda: encoder(1, dropout=0.2, norm_first=True, activation="gelu")),
    ],
    "TransformerEncoder": [(SEQUENCE, lambda: encoder(2))],
    "Transformer": [(SEQUENCE, lambda: nn.Transformer(8, 2, 1, 1, 16, batch_first=True), pair)],
    "RNN": [
        (SEQUENCE, lambda: nn.RNN(8, 4, nonlinearity="relu", **TIMES)),
        (SEQUENCE, lambda: nn.RNN(8, 4, **DEEP)),
    ],
    "GRU": [(SEQUENCE, lambda: nn.GRU(8, 4, bias=False, **TIMES)), (SEQUENCE, lambda: nn.GRU(8, 4, **DEEP, **TIMES))],
    "LSTM": [(SEQUENCE, lambda: nn.LSTM(8, 4)), (SEQUENCE, lambda: nn.LSTM(8, 4, **DEEP, **TIMES))],
    "RNNCell": [(VECTOR, lambda: nn.RNNCell(8, 4))],
    "GRUCell": [(VECTOR, lambda: nn.GRUCell(8, 4))],
    "LSTMCell": [(VECTOR, lambda: nn.LSTMCell(8, 4))],
    "PReLU": [(VECTOR, lambda: after(nn.Linear(8, 4), nn.PReLU()))],
    "parametrizations.weight_norm": [(VECTOR, lambda: nn.utils.parametrizations.weight_norm(nn.Linear(8, 3)))],
}


class Counts(nn.Linear):
    """Module that counts its calls in Python."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x) * self.calls


class Branches(nn.Linear):
    """Module whose way depends on its numbers."""

    def forward(self, x: Tensor) -> Tensor:
        outputs = super().forward(x)
        return outputs if outputs.sum() > 0 else -outputs


class Reads(nn.Linear):
    """Module that reads a number."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / x.abs().max().item()


class Noisy(nn.Linear):
    """Module with noise of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + torch.randn_like(x))


class Random(nn.Linear):
    """Module that draws from Python's generator."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * random.random()


class Remembers(nn.Linear):
    """Module that keeps what it has computed."""

    def forward(self, x: Tensor) -> Tensor:
        self.last = super().forward(x)
        return self.last


CALLS = [0.0]


class Global(nn.Linear):
    """Module whose state is elsewhere."""

    def forward(self, x: Tensor) -> Tensor:
        CALLS[0] += 1
        return super().forward(x) * CALLS[0]


class Counter(nn.Linear):
    """Module with a count that its state dict does not hold."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.register_buffer("steps", torch.rand(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.steps += 1
        return super().forward(x) / (1 + self.steps)


class Late(nn.Linear):
    """Module that computes something else after many calls."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        type(self).calls += 1
        return super().forward(x) * (1 if self.calls < 10000 else 2)


def make_decay():
    step = itertools.count()
    return lambda: 1 if next(step) < 10000 else 2


decay = make_decay()


class Decays(nn.Linear):
    """Module with a count in a closure."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * decay()


class State:
    """Object that is no module."""

    def __init__(self) -> None:
        self.calls = {"train": 0}


STATE = State()


class Kept(nn.Linear):
    """Module with a count in an object."""

    def forward(self, x: Tensor) -> Tensor:
        STATE.calls["train"] += 1
        return super().forward(x) * (1 if STATE.calls["train"] < 10000 else 2)


class Starts(nn.GRU):
    """Module that makes a tensor of its own."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(x, torch.zeros(1, len(x), 4))


class OneHot(nn.Linear):
    """Module with features that are float32, whatever it is given."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.one_hot(codes(x)[:, 0], 8).float())


class Single(nn.Linear):
    """Module that computes in float32, whatever it is given."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.float(), self.weight, self.bias)


def hooked() -> nn.Module:
    layer = nn.Linear(8, 3)
    layer.register_forward_hook(lambda *_: None)
    return layer


def masked(register: str) -> nn.Module:
    layer = nn.Linear(8, 3)
    getattr(layer.weight, register)(lambda *_: None)
    return layer


class Filter(nn.Linear):
    """Module with a complex parameter."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.filter = nn.Parameter(torch.randn(5, dtype=torch.cfloat))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.fft.irfft(torch.fft.rfft(x) * self.filter.to(torch.fft.rfft(x).dtype)))


class Mixed(nn.Linear):
    """Module with parameters of two types."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.scale = nn.Parameter(torch.ones(sizes[1], dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return (super().forward(x) * self.scale).to(x.dtype)


class Shares(nn.Module):
    """Module that does something else with the share of its dropout."""

    def __init__(self, use: Callable[[float, Tensor], Tensor]) -> None:
        super().__init__()
        self.enter, self.drop, self.use = nn.Linear(8, 4), nn.Dropout(0.3), use

    def forward(self, x: Tensor) -> Tensor:
        return self.use(self.drop.p, self.enter(x))


class Twice(nn.Linear):
    """Module that is computed once more for its gradients."""

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(super().forward, x, use_reentrant=False)


class Signs(torch.autograd.Function):
    """Sign, whose gradient is let through."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.sign()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient


class Outside(nn.Linear):
    """Module that computes with NumPy."""

    def forward(self, x: Tensor) -> Tensor:
        outputs = super().forward(x)
        return outputs + float(outputs.detach().numpy().sum())


class Positive(nn.Linear):
    """Module that computes with the positive ones of its outputs."""

    def forward(self, x: Tensor) -> Tensor:
        outputs = super().forward(x)
        return outputs - outputs[outputs > 0].mean()


class Apply(nn.Module):
    """Module of a function."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Tempered(nn.Linear):
    """Module with a parameter without dimensions."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.temperature = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.temperature


class Single1d(nn.Linear):
    """Module with one number of a sample as its output."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).sum(-1)


class Settled(nn.Module):
    """Module whose normalisation is never in training."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.norm = nn.Linear(8, 3), nn.BatchNorm1d(3)

    def train(self, mode: bool = True) -> "Settled":
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.enter(x))


class Scales(nn.Linear):
    """Module that puts another tensor into the place of a buffer which its gradient needs."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.register_buffer("scale", torch.ones(sizes[1]))

    def forward(self, x: Tensor) -> Tensor:
        outputs = super().forward(x)
        scaled = outputs * self.scale
        if self.training:
            self.scale = 0.9 * self.scale + 0.1 * outputs.detach().std(0)
        return scaled


class Clamped(nn.Linear):
    """Module that changes its weights in place as it computes."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.weight.clamp_(min=0)
        return super().forward(x)


class Unit(nn.Linear):
    """Module that gives its weights other numbers as it computes."""

    def forward(self, x: Tensor) -> Tensor:
        self.weight.data = F.normalize(self.weight.data)
        return super().forward(x)


def halve(share: float, x: Tensor) -> Tensor:
    return F.dropout(x, share / 2)


def decide(share: float, x: Tensor) -> Tensor:
    return F.dropout(x, share) if share > 0.5 else x


def scale(share: float, x: Tensor) -> Tensor:
    return x * (1 - share)


RANDOM, NUMBERS = "random numbers of its own", "looks at the numbers of a batch"
ALONE = {
    "BatchNorm1d with momentum=None": (SEQUENCE, lambda: nn.BatchNorm1d(6, momentum=None), "momentum=None"),
    "LSTM with proj_size": (SEQUENCE, lambda: nn.LSTM(8, 4, proj_size=2), "proj_size"),
    "RReLU": (VECTOR, lambda: after(nn.Linear(8, 4), nn.RReLU()), RANDOM),
    "parametrizations.spectral_norm": (
        VECTOR,
        lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(8, 3)),
        r"tensors of its own \(out=\), for which torch.func.vmap has no rule",
    ),
    "Python state": (VECTOR, lambda: Counts(8, 3), "a stack|attributes"),
    "a global": (VECTOR, lambda: Global(8, 3), "changes CALLS of test_stackable_modules.py as it computes"),
    "a class attribute": (VECTOR, lambda: Late(8, 3), "changes Late.calls of test_stackable_modules.py"),
    "a closure": (VECTOR, lambda: Decays(8, 3), "changes step of decay of test_stackable_modules.py"),
    "an object": (VECTOR, lambda: Kept(8, 3), "changes STATE of test_stackable_modules.py"),
    "a buffer that is not saved": (VECTOR, lambda: Counter(8, 3), r"changes its buffer \S*steps, which no state dict"),
    "if": (VECTOR, lambda: Branches(8, 3), NUMBERS),
    ".item()": (VECTOR, lambda: Reads(8, 3), NUMBERS),
    "noise": (VECTOR, lambda: Noisy(8, 3), RANDOM),
    "Python's random": (VECTOR, lambda: Random(8, 3), RANDOM),
    "kept outputs": (VECTOR, lambda: Remembers(8, 3), "attributes|stack"),
    "hooks": (VECTOR, hooked, "has hooks"),
    "checkpoint": (VECTOR, lambda: Twice(8, 3), "as torch.utils.checkpoint does"),
    "autograd.Function": (
        VECTOR,
        lambda: after(nn.Linear(8, 4), Apply(Signs.apply)),
        "has no rule for torch.func.vmap",
    ),
    "NumPy": (VECTOR, lambda: Outside(8, 3), r"out of torch \(.numpy\(\) and the like\)"),
    "mask": (VECTOR, lambda: Positive(8, 3), "depends on the numbers of a batch"),
    "hooks of a parameter": (VECTOR, lambda: masked("register_hook"), r"parameter \S*weight has hooks"),
    "hooks of a gradient": (VECTOR, lambda: masked("register_post_accumulate_grad_hook"), "weight has hooks"),
    "complex parameter": (VECTOR, lambda: Filter(8, 3), r"parameter \S*filter is complex"),
    "parameters of two types": (VECTOR, lambda: Mixed(8, 3), "several types: float32 .* and float64"),
    "half of a share": (VECTOR, lambda: Shares(halve), "the share of a dropout"),
    "a share that decides": (VECTOR, lambda: Shares(decide), "the share of a dropout"),
    "what is kept of a share": (VECTOR, lambda: Shares(scale), "the share of a dropout"),
    "weights changed in place": (VECTOR, lambda: Clamped(8, 3), "a stack leaves another"),
    "other weights": (VECTOR, lambda: Unit(8, 3), "`data` under vmap"),
    "nothing to train": (VECTOR, lambda: nn.Identity(), "nothing to train"),
}


def check(shape, make, prepare=lambda x: x, *, last: bool = True) -> str | None:
    torch.manual_seed(0)
    modules = [Flat(make(), prepare) if last else make() for _ in range(2)]
    x = torch.randn(5, *shape)
    for module in modules:
        module(x)  # lazy layers take their size
    return why_modules_alone(modules, x, shape)


@pytest.mark.parametrize("name", STACKED)
def test_modules_that_stack(name):
    for shape, *made in STACKED[name]:
        assert check(shape, *made) is None


@pytest.mark.parametrize("kind", [nn.Dropout, nn.AlphaDropout])
def test_a_dropout_of_everything_gives_zeros(kind):
    """By hand, as a sequence, and as modules of any kind; see `find_difference`."""
    modules = [nn.Sequential(nn.Linear(8, 4), kind(share), nn.Linear(4, 3)) for share in (1.0, 0.5)]
    assert why_modules_alone(modules, torch.randn(5, 8), VECTOR) is None
    general = StackedModules(modules, VECTOR, torch.device("cpu"), by_layer=False)
    for stack in (general, StackedSequential(modules, torch.empty(0))):
        load_modules(stack, modules)
        stack.noise.begin([0, 1])
        outputs = stack.forward(torch.cat([torch.randn(5, 8), torch.ones(5, 1)], 1), train=True)
        assert torch.allclose(outputs[0], modules[0][2].bias.detach().unsqueeze(1).expand(3, 5))


def test_a_buffer_that_is_not_saved_stays_with_its_module():
    """Modules that are computed one by one are stacked anew when others have left."""
    modules = [Counter(8, 3) for _ in range(2)]
    before = [module.steps.item() for module in modules]
    stack = SerialModules(modules, VECTOR, torch.device("cpu"), by_layer=False)
    stack.noise.begin([0, 1])
    stack.forward(torch.randn(5, 8), train=True)
    assert [module.steps.item() for module in modules] == pytest.approx([each + 1 for each in before])


class Gated(nn.Linear):
    """Model that may leave a part out."""

    def __init__(self, *sizes: int, opened: bool) -> None:
        super().__init__(*sizes)
        self.extra, self.opened = nn.Linear(*sizes), opened

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + (self.extra(x) if self.opened else 0)


def test_what_one_member_leaves_out_is_left_as_it_is_in_that_member_alone():
    modules = [Gated(8, 3, opened=opened) for opened in (True, False)]
    before = [deepcopy(module.state_dict()) for module in modules]
    stack = SerialModules(modules, VECTOR, torch.device("cpu"), by_layer=False)
    load_modules(stack, modules)
    stack.noise.begin([0, 1])
    x = torch.randn(5, 8)
    stack.forward(x, train=True)
    (gradient,) = (torch.empty_like(each) for each in stack.parameters)
    stack.backward(x, torch.ones(2, 3, 5), [gradient], add=False)
    for member, module in enumerate(modules):
        module.load_state_dict(before[member])
        found = stack.views(member, [gradient])
        given = torch.autograd.grad(module(x).sum(), list(module.parameters()), allow_unused=True)
        for (name, _), expected in zip(module.named_parameters(), given, strict=True):
            assert torch.allclose(found[name], torch.zeros(()) if expected is None else expected)
    with stack.keep_idle([]):
        stack.parameters[0].mul_(0.5)
    for member, module in enumerate(modules):
        for name, weight in stack.views(member, stack.parameters).items():
            idle = name.startswith("extra") and not module.opened
            assert torch.equal(weight, before[member][name] * (1 if idle else 0.5))


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize(
    "make",
    [
        lambda: after(nn.Linear(8, 8), Settled(), nn.Tanh(), Clamped(3, 3)),
        lambda: Flat(nn.Embedding(5, 3, max_norm=0.5), codes),
        lambda: Flat(nn.Embedding(5, 3, sparse=True), codes),
        lambda: Flat(nn.utils.weight_norm(nn.Linear(8, 3))),
        lambda: after(nn.Linear(8, 4), Unit(4, 3), Scales(3, 3)),
    ],
    ids=["in place", "max_norm", "sparse", "weight_norm", "data"],
)
def test_modules_that_are_computed_one_by_one_are_the_modules_alone(make):
    x = torch.randn(2, 5, 8)
    modules, others = ([make() for _ in range(2)] for _ in range(2))
    for module, other in zip(modules, others, strict=True):
        module(x[0])  # lazy layers take their size
        other(x[0])
        other.load_state_dict(module.state_dict())
    stack = SerialModules(modules, VECTOR, torch.device("cpu"), by_layer=False)
    load_modules(stack, modules)
    stack.noise.begin([0, 1])
    gradients = [torch.empty_like(each) for each in stack.parameters]
    for _ in range(2):
        outputs = stack.forward(x, train=True)
        stack.backward(x, torch.ones_like(outputs), gradients, add=False)
        with torch.no_grad():
            for numbers, gradient in zip(stack.parameters, gradients, strict=True):
                numbers.sub_(0.1 * gradient)
        for index, other in enumerate(others):
            torch.optim.SGD(other.parameters(), 0.1).zero_grad()
            alone = other.train()(x[index])
            assert torch.allclose(outputs.mT[index], alone, atol=1e-6)
            alone.sum().backward()
            torch.optim.SGD(other.parameters(), 0.1).step()
            found = {**stack.views(index, stack.parameters), **stack.statistics(index)}
            for name, wanted in other.state_dict().items():
                assert torch.allclose(found[name], wanted, atol=1e-6), name


def test_modules_that_make_tensors_stack():
    assert check(SEQUENCE, lambda: Starts(8, 4, batch_first=True)) is None
    assert check(VECTOR, lambda: OneHot(8, 3)) is None
    assert check(VECTOR, lambda: Single(8, 3)) is None
    assert check(VECTOR, lambda: after(nn.Linear(8, 4), Scales(4, 3))) is None
    assert torch.get_default_dtype() == torch.float32


def test_modules_of_any_shape_stack():
    assert check(VECTOR, lambda: Tempered(8, 3)) is None
    assert check(VECTOR, Settled, last=False) is None
    assert check(VECTOR, lambda: Single1d(8, 3), last=False) is None
    assert check(VECTOR, lambda: nn.Linear(8, 3), last=False) is None
    assert check((), lambda: Apply(torch.sin), lambda x: x.unsqueeze(-1)) is None
    by_row = after(nn.Linear(8, 4), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3))
    assert check(SEQUENCE, lambda: by_row, last=False) is None


@dataclass
class Settings:
    """Configuration of a model, as nanoGPT and others hold one."""

    width: int
    act: Any = torch.tanh
    seen: list[int] = field(default_factory=list)


class Configured(nn.Linear):
    """Module that holds an object with its settings."""

    def __init__(self, settings: Any, *, counts: bool = False) -> None:
        super().__init__(8, settings.width)
        self.settings, self.counts = settings, counts

    def forward(self, x: Tensor) -> Tensor:
        if self.counts:
            self.settings.seen.append(len(x))
        return self.settings.act(super().forward(x))


@pytest.mark.parametrize("made", [Settings, lambda width: SimpleNamespace(width=width, act=torch.tanh)])
def test_objects_are_compared_by_what_they_hold(made):
    assert check(VECTOR, lambda: Configured(made(3)), last=False) is None
    first, second = Configured(made(3)), Configured(made(3))
    second.settings.act = torch.sigmoid
    assert structure_of(first) != structure_of(second)
    second.settings.act, second.settings.lock = torch.tanh, threading.Lock()
    assert structure_of(first) != structure_of(second)
    first.settings.lock = threading.Lock()
    assert structure_of(first) != structure_of(second)  # of a lock nothing but itself is known
    second.settings.lock = first.settings.lock
    assert structure_of(first) == structure_of(second)
    first.settings.whole, second.settings.whole = first.settings, second.settings
    assert structure_of(first) != structure_of(second)  # nor of what holds itself
    counts = check(VECTOR, lambda: Configured(Settings(3), counts=True), last=False)
    assert counts == "it changes its own attributes while it computes"


def test_a_single_module_is_compared_with_a_copy():
    module = nn.Sequential(nn.Linear(8, 3))
    assert why_modules_alone([module], torch.randn(5, 8), VECTOR) is None
    bag, codes = nn.EmbeddingBag(5, 3), torch.zeros(5, 8, dtype=torch.int64)
    assert why_modules_alone([bag], codes, VECTOR) is None  # whole numbers stay what they are
    found = why_modules_alone([bag], codes.double(), VECTOR)
    assert found == "its samples are real numbers, and it takes whole ones; register it with integers=True"
    assert "has hooks" in (why_modules_alone([hooked()], torch.randn(5, 8), VECTOR) or "")


@pytest.mark.parametrize("name", ALONE)
def test_modules_that_train_alone(name):
    shape, make, why = ALONE[name]
    assert re.search(why, check(shape, make, last=name != "nothing to train") or "")


def test_the_table_of_the_docs_is_this_one():
    page = (Path(__file__).parents[2] / "docs" / "cohorts.md").read_text(encoding="utf-8")
    part = page.partition("### What stacks")[2].partition("\n#")[0]
    rows = [line.split("|")[1:3] for line in part.splitlines() if line.startswith("| `nn.")]
    stacked = {name for names, _ in rows for name in re.findall(r"`nn\.([\w.]+)`", names)}
    assert {name.removeprefix("utils.") for name in stacked} == set(STACKED)
