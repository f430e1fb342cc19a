"""A trial in a cohort is the trial alone: stacks against one module each, and against themselves."""

from dataclasses import replace
from itertools import product
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpo.config.choices import (
    ACTIVATIONS,
    INITIALISATIONS,
    OPTIMIZERS,
    RECONSTRUCTION_LOSSES,
    SCHEDULES,
    TASK_LOSSES,
)
from hpo.config.cohort_key import UNSTACKABLE
from hpo.config.trial_config import TrialConfig
from hpo.errors import ConfigError
from hpo.training import cohort_size, stack_run
from hpo.training.callbacks import Callback
from hpo.training.checkpoint import CheckpointSpec
from hpo.training.data import Data
from hpo.training.learner import ModuleLearner
from hpo.training.loop import train
from hpo.training.member import Member, TrainResult
from hpo.training.settings import TrainSettings
from hpo.training.stacked.layers import Dropout
from hpo.training.stacked.learner import StackedLearner
from hpo.training.stacked.losses import count_correct
from hpo.training.stacked.mlp import Network, StackedMLP
from hpo.training.stacked.noise import Noise
from hpo.training.stacked.optimizers import Clip
from tests.training.resumable import CPU, bits, config, data, stop_after

pytestmark = pytest.mark.usefixtures("one_thread")
STACKED = tuple(name for name in OPTIMIZERS if name not in UNSTACKABLE)
PROFILES = ("uniform", "decreasing", "increasing")


@pytest.fixture
def in_float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def doubled(on: Data) -> Data:
    return replace(on, x_train=on.x_train.double(), x_val=on.x_val.double())


def alone(configs, on: Data, **keywords) -> list[TrainResult]:
    """Each by itself, by autograd and torch's optimizers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stack_run, "StackedLearner", lambda members, *rest, **_: ModuleLearner(members[0], *rest))
        return [outcome for each in configs for outcome in train([each], on, TrainSettings(**keywords))]


def assert_close(found: TrainResult, expected: TrainResult, exact: float) -> None:
    assert (found.status, found.best_epoch) == (expected.status, expected.best_epoch)
    for row, other in zip(found.history, expected.history, strict=True):
        for name in row.keys() - {"seconds"}:
            assert row[name] == pytest.approx(other[name], rel=exact), (name, found.config)
    assert found.weights.keys() == expected.weights.keys()
    for name, weight in found.weights.items():
        other = expected.weights[name].double()
        assert (weight.double() - other).abs().max() <= exact * max(1.0, other.abs().max().item()), (name, found.config)


# The same answer.


def member(rate: float, **parameters) -> TrialConfig:
    if parameters["activation"] == "relu":
        # Where all units of a layer are dead, classes that are as frequent have equal outputs, but for rounding, and
        # which of them is the answer is nobody's to say.
        parameters |= {"width": 30, "width_profile": "uniform"}
    return config(widths=None, learning_rate=10**rate, epochs=2, **parameters)


members = st.builds(
    member,
    rate=st.floats(-3, -2),  # steps so small that they do not amplify rounding
    optimizer=st.sampled_from(STACKED),
    schedule=st.sampled_from(sorted(SCHEDULES)),
    depth=st.sampled_from([0, 1, 2, 3, 5]),
    width=st.sampled_from([3, 8, 13, 30]),
    width_profile=st.sampled_from(PROFILES),
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    init=st.sampled_from(sorted(INITIALISATIONS)),
    batch_norm=st.booleans(),
    weight_decay=st.sampled_from([0.0, 1e-3]),
    gradient_clip=st.sampled_from([0.0, 0.5]),
    momentum=st.sampled_from([0.0, 0.7]),
    loss=st.sampled_from(TASK_LOSSES["classification"]),
    label_smoothing=st.sampled_from([0.0, 0.1]),
    layer_learning_rate_decay=st.sampled_from([1.0, 0.5, 1.4]),
    head_learning_rate_ratio=st.sampled_from([None, 3.0]),
)


@pytest.mark.usefixtures("in_float64")
@settings(max_examples=40, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(members, min_size=1, max_size=8), st.sampled_from([7, 32]))
def test_any_cohort(drawn, batch_size):
    # Either divides the 140 samples or leaves 12: normalising two of them would turn rounding into differences.
    configs = [TrialConfig(**each.effective() | {"batch_size": batch_size}) for each in drawn]
    on = doubled(data(configs[0]))
    for found, expected in zip(train(configs, on), alone(configs, on), strict=True):
        assert_close(found, expected, 1e-9)


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("batch_norm", [False, True])
def test_every_choice(batch_norm):
    """Each optimizer under three schedules, and each schedule, activation, initialisation, loss and profile in turn."""
    schedules = sorted(SCHEDULES)
    configs = [
        config(
            widths=None,
            depth=1 + i % 3,
            width=5 + i % 7,
            width_profile=PROFILES[i % 3],
            optimizer=optimizer,
            schedule=schedule,
            activation=sorted(ACTIVATIONS)[i % len(ACTIVATIONS)],
            init=sorted(INITIALISATIONS)[i % 5],
            loss=TASK_LOSSES["classification"][i % 2],
            gradient_clip=(0, 0.3)[i % 2],
            batch_norm=batch_norm,
            learning_rate=0.01,
            epochs=2,
        )
        for i, (optimizer, schedule) in enumerate(
            (optimizer, schedules[(3 * place + k) % len(schedules)])
            for place, optimizer in enumerate(STACKED)
            for k in range(3)
        )
    ]
    on = doubled(data(configs[0]))
    for found, expected in zip(train(configs, on), alone(configs, on), strict=True):
        assert_close(found, expected, 1e-9)


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("loss", RECONSTRUCTION_LOSSES)
def test_autoencoders(loss):
    """Of several depths, so that some have their latent layer where others have a hidden one."""
    configs = [
        config(
            model="autoencoder",
            loss=loss,
            input_scaling="unit",
            widths=None,
            depth=i % 4,
            width=(4, 9, 6)[i % 3],
            width_profile=PROFILES[i % 3],
            latent_size=(2, 3, 1)[i % 3],
            activation=sorted(ACTIVATIONS)[i % len(ACTIVATIONS)],
            optimizer=optimizer,
            layer_learning_rate_decay=(1.0, 0.7)[i % 2],
            head_learning_rate=(None, 0.02, 0.01)[i % 3],
            learning_rate=0.01,
            epochs=2,
        )
        for i, optimizer in enumerate(STACKED * 3)
    ]
    on = doubled(data(configs[0]))
    found = train(configs, on, TrainSettings(monitor="val_loss", direction="minimize"))
    for each, expected in zip(found, alone(configs, on, monitor="val_loss", direction="minimize"), strict=True):
        assert each.best.keys() == {
            *("epoch", "train_loss", "val_loss", "val_reconstruction_error", "learning_rate", "seconds")
        }
        assert_close(each, expected, 1e-9)


def test_one_step_in_float32():
    widths = ("16-8", "9", "8-8-8")  # an activation has others under the next optimizer
    configs = [
        config(widths=widths[(i + j) % 3], optimizer=optimizer, activation=activation, epochs=1, batch_size=140)
        for (i, optimizer), (j, activation) in product(enumerate(STACKED), enumerate(ACTIVATIONS))
    ]
    on = data(configs[0])
    assert on.steps(140) == 1
    for found, expected in zip(train(configs, on), alone(configs, on), strict=True):
        assert_close(found, expected, 1e-5)


def test_a_cohort_of_one_has_the_same_bits_in_every_run():
    given = config(dropout=0.3, batch_norm=True)
    first, second = (bits(train([given], data(given))[0]) for _ in range(2))
    assert first == second


# Dropout.


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_dropout_drops_its_share_and_keeps_the_mean(share):
    dropout, factors = Dropout([share, 0.0], torch.empty(0)), torch.empty(2, 100, 1000)
    noise = Noise(2, CPU)
    noise.begin([0, 1])
    dropout.draw(noise, factors)
    dropped = (factors[0] == 0).double().mean().item()
    assert dropped == pytest.approx(share, abs=5 * (share * (1 - share) / 1e5) ** 0.5)
    assert factors[0].max().item() == pytest.approx(1 / (1 - share), rel=1e-4)
    assert torch.equal(factors[1], torch.ones(100, 1000))
    # No unit follows another: not in the number that they share, nor in the next one.
    kept = factors[0].flatten() != 0
    for lag in (1, 2, 3, 4, 1000):
        together = (kept[:-lag] & kept[lag:]).double().mean().item()
        assert together == pytest.approx((1 - share) ** 2, abs=5 * (0.25 / 1e5) ** 0.5)


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid", "gelu"])
def test_with_the_same_mask_gradients_agree(activation, monkeypatch):
    """An activation's gradient is of what the activation gave, not of what dropout left of it."""
    factors = (torch.arange(30).view(1, 5, 6) % 3 > 0).double() * 1.5
    monkeypatch.setattr(Dropout, "draw", lambda _self, _noise, into: into.copy_(factors))
    stack = StackedMLP([Network((5,), (activation,), (0.3,), ("0", "1"))], 3, 2, torch.empty(0))
    weight, output = (each.normal_().clone().requires_grad_() for each in stack.parameters)
    batch = torch.randn(6, 8).mul_(torch.tensor([1.0] * 4 + [0.0] * 4))
    batch[:, 3] = 1
    found, by_outputs = [torch.empty_like(each) for each in stack.parameters], torch.randn(1, 2, 6)
    stack.forward(batch, train=True)
    stack.backward(batch, by_outputs, found, add=False)
    h = getattr(torch.nn.functional, activation)(weight @ batch.t()) * factors
    (output @ torch.cat([h, torch.ones(1, 1, 6)], 1)).backward(by_outputs)
    for each, parameter in zip(found, (weight, output), strict=True):
        assert torch.allclose(each, parameter.grad, atol=1e-12)


def test_with_dropout_the_distributions_agree(monkeypatch):
    """Over 60 draws of the noise, the validation loss after an epoch is distributed as alone, in each member."""
    from scipy.stats import ks_2samp  # 0.9 s to import, which collecting need not wait for

    configs = [config(dropout=share, epochs=1, optimizer="sgd", learning_rate=0.3) for share in (0.2, 0.5)]
    on = data(configs[0])

    def losses(run) -> np.ndarray:
        found = []
        for noise in range(60):
            monkeypatch.setattr(stack_run, "epoch_seed", lambda seed, epoch, noise=noise: noise)
            found.append([outcome.history[0]["val_loss"] for outcome in run(configs, on)])
        return np.array(found)

    together, apart = losses(train), losses(alone)
    for member in range(2):
        assert np.std(together[:, member]) > 0
        assert ks_2samp(together[:, member], apart[:, member]).pvalue > 1e-3


# Members that leave.


class Prunes(Callback):
    """Stops members at epochs, by number, and keeps what it was told."""

    def __init__(self, **at):
        self.at, self.told = {int(number[1:]): epoch for number, epoch in at.items()}, []

    def on_epoch(self, member, metrics):
        self.told.append((member.number, int(metrics["epoch"])))
        if metrics["epoch"] == self.at.get(member.number):
            member.stop("pruned")

    def on_end(self, member, outcome):
        self.told.append((member.number, outcome.status))


@pytest.mark.usefixtures("in_float64")
def test_members_that_are_pruned_leave_the_others_as_they_are():
    configs = [config(widths=None, depth=1 + i, width=6 + i, optimizer="momentum", epochs=4) for i in range(4)]
    on, prunes = doubled(data(configs[0])), Prunes(_1=2, _3=1)
    found = train(configs, on, TrainSettings(callbacks=[prunes]))
    assert [outcome.status for outcome in found] == ["completed", "pruned", "completed", "pruned"]
    assert [len(outcome.history) for outcome in found] == [4, 2, 4, 1]
    assert prunes.told.index((3, "pruned")) < prunes.told.index((0, 2))  # told before the next epoch
    expected = alone(configs, on)
    for number in (0, 2):
        assert_close(found[number], expected[number], 1e-9)


def test_one_that_need_not_begin_is_not_trained():
    class Knows(Callback):
        def on_start(self, member):
            if member.number == 1:
                member.stop("interrupted")

    configs = [config(widths=widths) for widths in ("8", "9", "10")]
    found = train(configs, data(configs[0]), TrainSettings(callbacks=[Knows()]))
    assert [(outcome.status, len(outcome.history)) for outcome in found] == [
        ("completed", 3),
        ("interrupted", 0),
        ("completed", 3),
    ]


def test_the_stack_is_compacted():
    all_members = [Member(config(widths=widths), number) for number, widths in enumerate(["16-8", "16-8-8", "20"])]
    learner = StackedLearner(all_members, (8,), 3, CPU)
    learner.begin_epoch(0, [[0.1]] * 3)
    (stack,) = learner._stacks
    assert [tuple(tensor.shape[:2]) for tensor in stack.dense.parameters] == [(3, 20), (2, 8), (1, 8), (3, 3)]
    learner.drop(all_members[1])
    learner.drop(all_members[2])
    learner.begin_epoch(0, [[0.1]])
    (stack,) = learner._stacks
    assert [tuple(tensor.shape[:2]) for tensor in stack.dense.parameters] == [(1, 16), (1, 8), (1, 3)]


@pytest.mark.parametrize("optimizer", STACKED)
def test_a_member_that_diverges_changes_no_other(optimizer):
    def cohort(rate: float):
        rates = (0.01, rate, 0.02)
        configs = [config(optimizer=optimizer, learning_rate=each, activation="relu", epochs=2) for each in rates]
        return train(configs, data(configs[0]))

    calm, wild = cohort(0.015), cohort(1000.0)
    # Enough for NaN everywhere in it, where the optimizer does not bound a step.
    assert wild[1].status == "diverged" or optimizer not in ("sgd", "momentum", "nesterov", "asgd")
    for number in (0, 2):
        assert bits(calm[number]) == bits(wild[number])


def test_a_member_that_is_nan_gives_no_other_the_right_answers():
    """NaN is counted nowhere, and ties are counted twice: over both members that looks like neither."""
    outputs = torch.tensor([[[float("nan")] * 5] * 2, [[0.0] * 5] * 2])
    assert count_correct(outputs, torch.ones(5, dtype=torch.int64)).tolist() == [0, 0]


def test_a_norm_that_overflows_hurts_no_member_that_is_not_clipped():
    configs = [config(gradient_clip=0.0), config(gradient_clip=1.0)]
    parameters = [torch.zeros(2, 3, 4)]
    gradient = torch.full((2, 3, 4), 1e30)
    Clip(configs, parameters)([gradient])
    assert torch.equal(gradient[0], torch.full((3, 4), 1e30))


def test_a_batch_of_one_has_no_statistics():
    learner = StackedLearner([Member(config(batch_norm=True))], (8,), 3, CPU)
    learner.begin_epoch(0, [[0.1]])
    with pytest.raises(ConfigError, match="one sample has no statistics"):
        learner.step(torch.zeros(1, 8), torch.zeros(1, dtype=torch.int64))


def test_a_checkpoint_has_the_generators_of_its_weights(tmp_path):
    """Steps that wait are done for it, and draw the noise of dropout."""
    configs = [config(dropout=0.5, optimizer=optimizer) for optimizer in ("sgd", "adam")]
    on = data(configs[0])
    specs = [CheckpointSpec(tmp_path / f"{number}.pt") for number in range(2)]
    train(configs, on, TrainSettings(should_stop=stop_after(4)), checkpoints=specs)
    first, second = (torch.load(spec.path, weights_only=True)["generators"][0] for spec in specs)
    assert torch.equal(first, second)


# One run for several trials.


class Counting(StackedLearner):
    models: ClassVar[list[int]] = []

    def __init__(self, members, *rest, **keywords):
        self.models.append(len(members))
        super().__init__(members, *rest, **keywords)


def test_trials_that_differ_in_epochs_alone_are_one_run(monkeypatch):
    configs = [config(epochs=epochs) for epochs in (1, 4, 2)] + [config(epochs=2, widths="9")]
    on, prunes = data(configs[0]), Prunes()
    monkeypatch.setattr(stack_run, "StackedLearner", Counting)
    Counting.models.clear()
    found = train(configs[:3], on, TrainSettings(callbacks=[prunes]))
    assert Counting.models == [1]
    for outcome, each in zip(found, configs[:3], strict=True):
        assert bits(outcome) == bits(train([each], on)[0])
    assert prunes.told.index((0, "completed")) < prunes.told.index((1, 2))
    Counting.models.clear()
    train(configs, on)
    assert Counting.models == [2]


def test_a_schedule_that_depends_on_the_epochs_is_a_run_for_each(monkeypatch):
    configs = [config(epochs=epochs, schedule="cosine") for epochs in (1, 2)]
    monkeypatch.setattr(stack_run, "StackedLearner", Counting)
    Counting.models.clear()
    found = train(configs, data(configs[0]))
    assert Counting.models == [2]
    for outcome, each in zip(found, configs, strict=True):
        assert_close(outcome, train([each], data(each))[0], 1e-5)


def test_the_longest_may_be_pruned_before_the_others_end():
    configs = [config(epochs=epochs) for epochs in (4, 3)]
    found = train(configs, data(configs[0]), TrainSettings(callbacks=[Prunes(_0=1)]))
    assert [(outcome.status, len(outcome.history)) for outcome in found] == [("pruned", 1), ("completed", 3)]
    assert bits(found[1]) == bits(train([configs[1]], data(configs[1]))[0])


def test_lbfgs_answers_several_epochs_in_one_run_too():
    configs = [config(optimizer="lbfgs", learning_rate=0.5, epochs=epochs) for epochs in (1, 2)]
    found = train(configs, data(configs[0]))
    assert found[0].history[0] | {"seconds": 0} == found[1].history[0] | {"seconds": 0}
    assert [len(outcome.history) for outcome in found] == [1, 2]


def test_what_does_not_fit_is_trained_apart(monkeypatch):
    batches = [config(batch_size=size) for size in (32, 16, 32)] + [config(optimizer="lbfgs")]
    monkeypatch.setattr(stack_run, "StackedLearner", Counting)
    Counting.models.clear()
    found = train([replace_seedless(each, i) for i, each in enumerate(batches)], data(batches[0]))
    assert Counting.models == [2, 1]
    assert [outcome.status for outcome in found] == ["completed"] * 4


def replace_seedless(each: TrialConfig, number: int) -> TrialConfig:
    """Another learning rate, so that no two are one run."""
    return TrialConfig(**each.effective() | {"learning_rate": 0.001 * (number + 1)})


# Checkpoints and time.


@pytest.mark.parametrize("optimizer", STACKED)
@pytest.mark.parametrize("answers", [3, 7, 11])
def test_a_cohort_goes_on_from_its_checkpoints(optimizer, answers, tmp_path):
    configs = [config(optimizer=optimizer, widths=widths, batch_norm=True) for widths in ("16-8", "9", "12-8-8")]
    on = data(configs[0])
    specs = [CheckpointSpec(tmp_path / f"{number}.pt") for number in range(3)]
    stopped = train(configs, on, TrainSettings(should_stop=stop_after(answers)), checkpoints=specs)
    assert {outcome.status for outcome in stopped} == {"interrupted"}
    again = [replace(spec, resume=True) for spec in specs]
    whole = train(configs, on)
    for found, expected in zip(train(configs, on, checkpoints=again), whole, strict=True):
        assert bits(found) == bits(expected)
    (by_itself,) = train(configs[1:2], on, checkpoints=again[1:2])
    assert_close(by_itself, whole[1], 1e-3)


@pytest.mark.parametrize("alone_too", [False, True])
@pytest.mark.parametrize("answers", [3, 7])
def test_autoencoders_go_on_from_their_checkpoints(answers, alone_too, tmp_path):
    optimizer = "lbfgs" if alone_too else "adam"
    configs = [config(model="autoencoder", optimizer=optimizer, widths=widths) for widths in ("16-8", "9", "12-8-8")]
    on = data(configs[0])
    specs = [CheckpointSpec(tmp_path / f"{number}.pt") for number in range(3)]
    lowest = {"monitor": "val_loss", "direction": "minimize"}
    train(configs, on, TrainSettings(should_stop=stop_after(answers), **lowest), checkpoints=specs)
    again = [replace(spec, resume=True) for spec in specs if spec.path.exists()]
    found = train(configs[: len(again)], on, TrainSettings(**lowest), checkpoints=again)
    assert [bits(each) for each in found] == [
        bits(each) for each in train(configs[: len(again)], on, TrainSettings(**lowest))
    ]


def test_a_cohorts_time_is_divided_among_its_trials(monkeypatch):
    now = iter(range(0, 10**6, 6))
    monkeypatch.setattr(stack_run.time, "perf_counter", lambda: float(next(now)))
    found = train([config(learning_rate=rate) for rate in (0.1, 0.2, 0.3)], data(config()))
    assert [[row["seconds"] for row in outcome.history] for outcome in found] == [[2.0, 4.0, 6.0]] * 3


# Right answers, and how many at once.


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_the_first_of_equal_outputs_counts(seed, ties):
    rng = np.random.default_rng(seed)
    outputs = rng.integers(0, 3, (2, 4, 30)).astype(float) if ties else rng.normal(size=(2, 4, 30))
    y = rng.integers(0, 4, 30)
    expected = (outputs.argmax(1) == y).sum(1).tolist()
    assert count_correct(torch.from_numpy(outputs), torch.from_numpy(y)).tolist() == expected


@pytest.mark.parametrize(
    ("seconds", "most", "expected"),
    [
        (lambda costs: 1.0, 128, 128),  # a step of all takes no longer than a step of one
        (lambda costs: 1.0, 10, 10),
        (sum, 128, 1),
        (lambda costs: 1 + sum(costs) / 100, 128, 64),
        (lambda costs: 25 + sum(costs), 128, 16),  # within a twentieth of the best
        (lambda costs: 1.0 if len(costs) <= 8 else sum(costs), 128, 8),
    ],
)
def test_cohort_size(seconds, most, expected, monkeypatch):
    """Whatever the models cost: the later ones are deep, and take ten times as long."""
    monkeypatch.setattr(cohort_size, "TIME_LIMIT", float("inf"))
    costs = {1: 5, 10: 50}
    monkeypatch.setattr(
        cohort_size, "_seconds_per_step", lambda learner, *_: seconds([costs[m.config.depth] for m in learner.members])
    )
    depths = [1] * 64 + [10] * 64
    configs = [
        config(widths=None, depth=depth, width=3, learning_rate=1e-3 * (i + 1)) for i, depth in enumerate(depths)
    ]
    assert cohort_size.measure_cohort_size(configs, data(configs[0]), most) == expected


@pytest.mark.parametrize(
    ("seconds", "most", "trials", "expected"),
    [
        (lambda costs: 1.0, 8, 100, {1: 1, 2: 8 / 6, 4: 8 / 4, 8: 8 / 2}),  # a stack for each batch size
        (sum, 8, 100, {1: 1, 2: 1, 4: 1}),
        (lambda costs: 1.0, 3, 100, {1: 1, 2: 8 / 6, 3: 6 / 2}),
        (lambda costs: 1.0, 1, 100, {1: 1}),
        (lambda costs: 1.0, 8, 0, {1: 1}),  # which is worth no measurement
    ],
)
def test_speeds_of_mixed_cohorts(seconds, most, trials, expected, monkeypatch):
    monkeypatch.setattr(cohort_size, "LEAST", 0.0)
    monkeypatch.setattr(cohort_size, "TIME_LIMIT", float("inf"))
    monkeypatch.setattr(cohort_size, "_seconds_per_step", lambda learner, *_: seconds([1.0] * len(learner.members)))
    sizes = [10, 10, 10, 20, 20, 20, 20, 10]
    draws = [[config(learning_rate=1e-3 * (i + 1), batch_size=size)] for i, size in enumerate(sizes)]
    split = data(draws[0][0])
    monkeypatch.setattr(type(split), "steps", lambda *_: 10)
    found = cohort_size.measure_speeds(draws, split, most, trials)
    assert found == pytest.approx(expected, abs=0.01)


def test_a_trial_of_several_fits_is_a_stack_already(monkeypatch):
    monkeypatch.setattr(cohort_size, "LEAST", 0.0)
    monkeypatch.setattr(cohort_size, "TIME_LIMIT", float("inf"))
    seconds = {1: 1.0, 5: 2.0, 10: 3.0, 20: 5.0}  # of a step of so many models
    monkeypatch.setattr(cohort_size, "_seconds_per_step", lambda learner, *_: seconds[len(learner.members)])
    draws = [[config(learning_rate=1e-3 * (i + 1), seed=seed) for seed in range(5)] for i in range(8)]
    found = cohort_size.measure_speeds(draws, data(draws[0][0]), 4, 100)
    assert found == pytest.approx({1: 1, 2: 2 * 2 / 3, 4: 4 * 2 / 5})


def test_likeness():
    def like(**settings):
        return cohort_size.likeness(config(widths=None, depth=2, **settings), (6,), 3)

    assert like(width=30, optimizer="momentum") == like(width=49, optimizer="nesterov", learning_rate=0.5)
    others = ({"width": 51}, {"optimizer": "adam"}, {"batch_size": 7}, {"batch_norm": True})
    assert len({like(**{"width": 30, "optimizer": "momentum", **each}) for each in ({}, *others)}) == 5


MODEL_BYTES = 4 * (6 * 307 + 6 * 24 * (2 * 32 + 256) + 2 * 20 * 3)


@pytest.mark.parametrize(
    ("other", "splits"),
    [
        (lambda i: {"learning_rate": 1e-3 * (i + 1)}, 0),
        (lambda i: {"seed": i}, 1),
        (lambda i: {"seed": i, "split_seed": 0}, 0),  # in another order
    ],
)
def test_memory_bounds_a_cohort(other, splits, monkeypatch):
    monkeypatch.setattr(cohort_size, "LEAST", cohort_size.TIME_LIMIT)
    monkeypatch.setattr(cohort_size, "_seconds_per_step", lambda *_: 0.001)
    configs = [config(**other(i)) for i in range(64)]
    on = data(configs[0])
    split = sum(tensor.nbytes for tensor in (on.x_train, on.y_train, on.x_val, on.y_val))
    monkeypatch.setattr(cohort_size, "_free_memory", lambda _: 4 * 5 * (MODEL_BYTES + splits * split))
    assert cohort_size.measure_cohort_size(configs, on, 64) == 5


def test_one_where_nothing_can_be_stacked():
    configs = [config(optimizer="lbfgs")] * 4
    assert cohort_size.measure_cohort_size(configs, data(configs[0]), 4) == 1
