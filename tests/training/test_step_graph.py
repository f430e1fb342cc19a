"""Steps that are recorded and replayed are the steps themselves; without a GPU a tape of operations is in its place."""

import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from hpo.config import cohort_key
from hpo.config.choices import TASK_LOSSES
from hpo.config.cohort_key import is_measured, stack_key, why_unstackable
from hpo.config.trial_config import TrialConfig
from hpo.datasets import Dataset
from hpo.training import loop
from hpo.training.data import prepare_data
from hpo.training.joint_batches import joint_batches
from hpo.training.learner import ModuleLearner
from hpo.training.member import Member
from hpo.training.stacked import learner as stacked_learner
from hpo.training.stacked import losses
from hpo.training.stacked import stack as stacks
from hpo.training.stacked.batches import Feed
from hpo.training.stacked.learner import StackedLearner
from hpo.training.stacked.mlp import StackedMLP
from hpo.training.stacked.modules import StackedModules
from hpo.training.stacked.sequential import StackedSequential
from hpo.training.stacked.step_graph import WARM_UP
from tests.training.resumable import CPU, RNG, config
from tests.training.step_tape import TapeRecorder, waits
from tests.training.test_stacked import STACKED, alone, assert_close, doubled, in_float64

__all__ = ["in_float64"]
pytestmark = pytest.mark.usefixtures("one_thread")
STEPS = 8
X = torch.from_numpy(RNG.normal(size=(STEPS, 6, 8))).float()
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="hardware: no CUDA device")


def labels(task: str, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    if task == "classification":
        return torch.randint(3, shape, generator=generator)
    drawn = torch.randn(*shape, 3, generator=generator)
    return (drawn > 0).float() if task == "multilabel" else drawn


def train(
    configs,
    recorder,
    monkeypatch,
    *,
    x=X,
    task="classification",
    weights=False,
    feeds=None,
    rounds=2,
    shape=(8,),
    **settings,
) -> tuple[list[object], StackedLearner]:
    """Train for some epochs; return weights, scores and losses."""
    monkeypatch.setattr(stacks, "find_recorder", lambda _: recorder)
    count, members = len(configs), [Member(each, number) for number, each in enumerate(configs)]
    learner = StackedLearner(members, shape, 3, CPU, feeds=feeds, record_steps=True, **settings)
    y = labels(task, *x.shape[: x.ndim - len(shape)])
    w = None
    if weights:  # of samples, or of each label
        columns = y.shape[1:] if task == "multilabel" else y.shape[1 : x.ndim - len(shape)]
        w = torch.linspace(0.5, 1.5, math.prod(columns)).view(columns)
    samples = x.ndim - len(shape) - 2  # the dimension of them in a batch
    found: list[object] = []
    for epoch in range(rounds):
        rates = [[0.01 * (1 + number) / (1 + step + epoch) for step in range(len(x) + 1)] for number in range(count)]
        learner.begin_epoch(0, rates, [7 + epoch + number for number in range(count)])
        for number in range(len(x)):
            learner.step(x[number], y[number], w)
        last = (each if each is None else each.narrow(samples, 0, 4) for each in (x[0], y[0], w))
        learner.step(*last)
        found += [learner.end_epoch(), [each.tolist() for each in learner.step_losses()]]
    found += [{name: each.tolist() for name, each in learner.weights(member).items()} for member in members]
    return found, learner


def assert_replays_as_it_computes(configs, monkeypatch, **how) -> TapeRecorder:
    recorder = TapeRecorder()
    expected, _ = train(configs, None, monkeypatch, **how)
    found, learner = train(configs, recorder, monkeypatch, **how)
    assert found == expected
    assert len(recorder.tapes) == len(learner._stacks)
    # All but those that come before, and the last one of another size; see `WARM_UP`.
    assert recorder.replays == len(recorder.tapes) * (2 * STEPS - WARM_UP)
    return recorder


def test_the_last_batch_of_an_epoch_is_never_recorded(monkeypatch):
    recorder = TapeRecorder()
    _, learner = train([config(seed=1), config(seed=2)], recorder, monkeypatch, rounds=6)
    assert len(recorder.tapes) == len(learner._stacks)


@pytest.mark.parametrize("optimizer", STACKED)
def test_every_optimizer(optimizer, monkeypatch):
    """Mixed depths, widths, settings and schedules, with dropout, clipping and decay."""
    shared = {"optimizer": optimizer, "gradient_clip": 1.0, "weight_decay": 0.01, "layer_learning_rate_decay": 0.9}
    configs = [
        config(widths="6-5", dropout=0.3, activation="tanh", **shared),
        config(widths="7", dropout=0.2, activation="gelu", **shared),
        config(widths="6-5", **shared),
    ]
    assert_replays_as_it_computes(configs, monkeypatch)


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize(("task", "loss"), [(task, loss) for task, each in TASK_LOSSES.items() for loss in each])
def test_every_loss(task, loss, weights, monkeypatch):
    configs = [config(task=task, loss=loss, optimizer="sgd", widths=widths) for widths in ("6-5", "7")]
    assert_replays_as_it_computes(configs, monkeypatch, task=task, weights=weights)


def test_models_that_reconstruct(monkeypatch):
    configs = [config(model="autoencoder", widths="6-3-6", learning_rate=rate) for rate in (0.01, 0.02)]
    assert_replays_as_it_computes(configs, monkeypatch)


def test_batch_normalisation_counts_its_batches(monkeypatch):
    configs = [config(batch_norm=True, widths=widths) for widths in ("6-5", "7")]
    recorder = TapeRecorder()
    expected, _ = train(configs, None, monkeypatch)
    found, _ = train(configs, recorder, monkeypatch)
    assert recorder.replays
    assert found == expected
    assert {each for name, each in found[-1].items() if name.endswith("num_batches_tracked")} == {2 * (STEPS + 1)}


def test_batches_of_their_own(monkeypatch):
    x = torch.stack([X, X.flip(0)], 1)
    feeds = [Feed(0, 4), Feed(1, 4)]
    assert_replays_as_it_computes([config(seed=1), config(seed=2)], monkeypatch, x=x, feeds=feeds)


@pytest.mark.parametrize("general", [False, True])
def test_stacks_of_modules(general, monkeypatch):
    """With dropout, batch normalisation and residual blocks, through autograd where they are general."""
    if general:
        monkeypatch.setattr(stacks, "is_sequential", lambda _: False)
    shared = {"model": "resnet_tabular", "optimizer": "adamw"}
    configs = [config(dropout=share, seed=seed, **shared) for seed, share in enumerate((0.1, 0.4))]
    recorder = assert_replays_as_it_computes(configs, monkeypatch)
    _, learner = train(configs, None, monkeypatch, rounds=1)
    kind = StackedModules if general else StackedSequential
    assert isinstance(learner._stacks[0].dense, kind)
    assert recorder.tapes


# Convolutions, which are stacked on a GPU.


def convolutional(**settings) -> TrialConfig:
    small = {"model": "cnn", "channels": 3, "conv_layers": 2, "dense_width": 5, "batch_size": 16, "epochs": 2}
    return config(**{**small, "widths": None, **settings})


def test_convolutions_are_stacked_on_a_gpu_alone():
    given = convolutional()
    assert stack_key(given) is None
    assert why_unstackable(given) == "stacked convolutions are no faster"
    assert stack_key(given, "cuda") == stack_key(convolutional(learning_rate=0.5, channels=2), "cuda")
    assert stack_key(given, "cuda") != stack_key(convolutional(seed=1, task="multilabel"), "cuda")
    assert is_measured(given)
    assert not is_measured(config())
    assert stack_key(config()) == stack_key(config(), "cuda")


def test_stacked_convolutions_train_as_alone(monkeypatch, in_float64):
    """Batch normalisation, dropout shares of 0, and two structures, as a GPU would have them: two stacks."""
    settings = [{"channels": 3}, {"channels": 3, "learning_rate": 0.02}, {"channels": 2, "seed": 3}]
    configs = [convolutional(**{**each, "optimizer": "momentum"}) for each in settings]
    pictures = Dataset((RNG.normal(size=(112, 8, 8)), np.arange(112) % 3), classes=3)
    on = doubled(prepare_data(pictures, configs[0], CPU))
    expected = alone(configs, on)
    monkeypatch.setattr(cohort_key, "CONVOLUTIONAL", frozenset())
    made = []
    monkeypatch.setattr(
        stacked_learner, "Stack", lambda *given, **more: made.append(stacks.Stack(*given, **more)) or made[-1]
    )
    found = loop.train(configs, on)
    assert sorted(len(stack.models) for stack in made) == [1, 2]
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, 1e-9)


def test_steps_of_convolutions(monkeypatch):
    configs = [convolutional(seed=seed, dropout=0.2) for seed in (1, 2)]
    x = torch.from_numpy(RNG.normal(size=(STEPS, 6, 1, 8, 8))).float()
    assert_replays_as_it_computes(configs, monkeypatch, x=x, shape=(1, 8, 8))


def test_both_layouts_of_pictures_give_the_same(in_float64):
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        members = [Member(convolutional(seed=seed), seed) for seed in (1, 2)]
        learner = StackedLearner(members, (2, 8, 8), 3, CPU)
        learner.set_layout(layout)
        learner.begin_epoch(0, [[0.01] * 3] * 2)
        for _ in range(3):
            learner.step(torch.linspace(-1, 1, 6 * 2 * 64).view(6, 2, 8, 8), torch.arange(6) % 3)
        found.append([each for member in members for each in learner.weights(member).values()])
    assert all(torch.allclose(one, two, rtol=0, atol=1e-12) for one, two in zip(*found, strict=True))


def test_two_recordings_are_equal(monkeypatch):
    """A graph of a later step is the same graph: nothing that the host counts is in it."""
    for optimizer in STACKED:
        recorder = TapeRecorder()
        configs = [config(optimizer=optimizer, dropout=0.3, batch_norm=True, seed=seed) for seed in (1, 2)]
        _, learner = train(configs, recorder, monkeypatch, rounds=1)
        learner.state(learner.members[0])  # which drops the graph
        learner.begin_epoch(0, [[0.5] * STEPS] * 2, [11, 12])
        for x in X:
            learner.step(x, labels("classification", 6))
        first, second = recorder.tapes
        assert first.lines == second.lines


def test_one_that_goes_on_and_one_that_has_loaded_do_the_same(monkeypatch):
    """A checkpoint drops the graph on both sides, and the bits are the same."""
    configs = [config(dropout=0.3, optimizer="nadam", seed=seed) for seed in (1, 2)]
    recorder = TapeRecorder()
    _, going = train(configs, recorder, monkeypatch, rounds=1)
    _, other = train(configs, recorder, monkeypatch, rounds=1)
    before = len(recorder.tapes)
    for learner in (going, other):
        learner.begin_epoch(0, [[0.01] * 3 * STEPS] * 2, [11, 12])
        for x in X if learner is going else ():
            learner.step(x, labels("classification", 6))
    states = [going.state(member) for member in going.members]
    for member, state in zip(other.members, states, strict=True):
        other.load_state(member, state)
    other._stacks[0]._step = going._stacks[0]._step
    for x in X:
        for learner in (going, other):
            learner.step(x, labels("classification", 6))
    assert len(recorder.tapes) == before + 2
    for one, two in zip(going.members, other.members, strict=True):
        theirs = other.weights(two)
        assert all(torch.equal(each, theirs[name]) for name, each in going.weights(one).items())


def test_memory_of_a_graph_outlives_other_sizes(monkeypatch):
    """Evaluations of many sizes push the step's buffers out of the stack; the graph keeps them."""
    recorder = TapeRecorder()
    _, learner = train([config(), config(seed=1)], recorder, monkeypatch, rounds=1)
    dense = learner._stacks[0].dense
    assert isinstance(dense, StackedMLP)
    kept = dense.memory(6)
    for size in range(10, 20):
        learner.evaluate(torch.zeros(size, 8), torch.zeros(size, dtype=torch.int64))
    assert dense.memory(6) is not kept
    assert learner._stacks[0]._graph._recording._kept is kept


def test_a_step_that_cannot_be_recorded_is_computed(monkeypatch, caplog):
    class Broken(TapeRecorder):
        def record(self, run):
            super().record(run)
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")

    configs = [config(dropout=0.3, optimizer="adam", seed=seed) for seed in (1, 2)]
    expected, _ = train(configs, None, monkeypatch)
    with caplog.at_level("INFO", "hpo.training"):
        found, _ = train(configs, Broken(), monkeypatch)
    assert found == expected
    assert [record.message for record in caplog.records] == [
        "training steps are launched one operation at a time, for no CUDA graph: "
        "CUDA error: operation not permitted when stream is capturing"
    ]


def test_members_that_leave_take_the_graph_along(monkeypatch):
    recorder = TapeRecorder()
    _, learner = train([config(seed=seed) for seed in range(3)], recorder, monkeypatch, rounds=1)
    old = learner._stacks[0]
    learner.drop(learner.members[1])
    learner.begin_epoch(0, [[0.01] * STEPS] * 2)
    for x in X:
        learner.step(x, labels("classification", 6))
    assert old is not learner._stacks[0]
    assert len(recorder.tapes) == 2


def test_without_leave_nothing_is_recorded(monkeypatch):
    recorder = TapeRecorder()
    train([config()], recorder, monkeypatch, graph=False)
    assert not recorder.tapes


# Waiting for the device.


WAITED = {
    "dense": [config(dropout=0.3, batch_norm=True, optimizer=name, gradient_clip=1.0) for name in STACKED],
    "mse": [config(loss="mse", label_smoothing=0.0)],
    "reconstruction": [config(model="autoencoder", widths="6-3-6")],
    "sequential": [config(model="resnet_tabular", optimizer=name, dropout=0.1) for name in STACKED],
    "modules": [config(model="resnet_tabular", optimizer=name, dropout=0.1) for name in STACKED],
}


def epoch_without_waiting(learner, x, y, **more) -> None:
    for guard in (nullcontext(), waits()):  # the first epoch makes the buffers
        learner.begin_epoch(len(x) * 6, [[0.01] * len(x)] * len(learner.members))
        with guard:
            for number in range(len(x)):
                learner.step(x[number], y[number], **more)
        learner.end_epoch()


@pytest.mark.parametrize("kind", WAITED)
def test_no_step_of_a_stack_waits(kind, monkeypatch):
    """The scores of samples that fill the record's memory are computed within a step, too."""
    monkeypatch.setattr("hpo.training.stacked.records.CHUNK", 12)
    monkeypatch.setattr(losses, "find_correct", lambda outputs, y: outputs.argmax(1) == y)  # as on a GPU
    if kind == "modules":
        monkeypatch.setattr(stacks, "is_sequential", lambda _: False)
    members = [Member(each, number) for number, each in enumerate(WAITED[kind])]
    learner = StackedLearner(members, (8,), 3, CPU)
    epoch_without_waiting(learner, X, labels("classification", STEPS, 6))


WAITING = {"nadam", "adagrad", "adamax", "radam", "asgd", "rprop"}  # torch's keep a count, or look at signs, on a CPU


@pytest.mark.parametrize("optimizer", [name for name in STACKED if name not in WAITING])
def test_no_step_of_a_model_alone_waits(optimizer):
    """Without float16, whose scaling looks at each step's gradients, L-BFGS, and those of `WAITING`."""
    learner = ModuleLearner(Member(config(optimizer=optimizer, gradient_clip=1.0, widths="6")), (8,), 3, CPU)
    epoch_without_waiting(learner, X, labels("classification", STEPS, 6))


def test_batches_do_not_wait():
    for own in (False, True):
        given = config(class_weight="balanced")
        y = np.arange(120) % 3
        parts = [prepare_data(Dataset((RNG.normal(size=(120, 8)), y), classes=3), given, CPU) for _ in range(1 + own)]
        batches = joint_batches(parts, 16, 1) if own else parts[0].batches(16, 1)
        next(batches)
        with waits():
            assert len(list(batches)) == parts[0].steps(16) - 1


@pytest.mark.parametrize("waiting", [
    lambda x: x.sum().item(), lambda x: x[x > 0], lambda x: x.new_tensor([1.0]), lambda x: bool(x.any()),
    lambda x: x.nonzero(), lambda x: torch.tensor([1, 2]), lambda x: x.tolist(),
])  # fmt: skip
def test_what_waits_is_seen(waiting):
    """The guard of these tests can fail."""
    with waits(), pytest.raises(AssertionError, match="waits for the device"):
        waiting(torch.ones(3))


# With a GPU.


@CUDA
@pytest.mark.parametrize("optimizer", STACKED)
def test_a_cuda_graph_trains_as_its_operations_do(optimizer):
    device, found = torch.device("cuda"), []
    for graph in (False, True):
        members = [Member(config(optimizer=optimizer, dropout=0.3, seed=seed), seed) for seed in (1, 2)]
        learner = StackedLearner(members, (8,), 3, device, graph=graph)
        for epoch in range(2):
            learner.begin_epoch(0, [[0.01] * STEPS] * 2, [epoch, epoch + 1])
            for x in X.to(device):
                learner.step(x, labels("classification", 6).to(device))
            learner.end_epoch()
        if graph:
            assert learner._stacks[0]._graph._recording is not None
        found.append([learner.weights(member) for member in members])
    for one, two in zip(*found, strict=True):
        for name, each in one.items():
            assert torch.allclose(each, two[name], rtol=1e-5, atol=1e-6), name


@CUDA
def test_no_step_waits_for_a_cuda_device():
    device = torch.device("cuda")
    learner = StackedLearner([Member(config(dropout=0.3), 0), Member(config(seed=1), 1)], (8,), 3, device)
    x, y = X.to(device), labels("classification", STEPS, 6).to(device)
    learner.begin_epoch(0, [[0.01] * 2 * STEPS] * 2)
    for number in range(STEPS):  # records the graph
        learner.step(x[number], y[number])
    torch.cuda.set_sync_debug_mode("error")
    try:
        for number in range(STEPS):
            learner.step(x[number], y[number])
    finally:
        torch.cuda.set_sync_debug_mode("default")
