"""Members with batches of their own are one stack, and each of them is the trial alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hpo.config import registry
from hpo.config.trial_config import TrialConfig
from hpo.datasets import Dataset, DatasetReference
from hpo.training import joint_batches as joint
from hpo.training.callbacks import Callback
from hpo.training.checkpoint import CheckpointSpec
from hpo.training.data import Data, prepare_data
from hpo.training.data_cache import DataCache
from hpo.training.loop import train
from hpo.training.settings import TrainSettings
from hpo.training.stacked import learner as stacked_learner
from hpo.training.stacked import records
from hpo.training.stacked.learner import StackedLearner
from tests.training import oracle
from tests.training.resumable import CPU, RNG, X, Y, bits, config, stop_after
from tests.training.resumable import data as rows
from tests.training.test_stacked import Prunes, alone, assert_close, doubled, in_float64
from tests.training.test_stacked_modules import KINDS, general, tabular
from tests.training.test_stacked_modules import data as table

__all__ = ["general", "in_float64"]
pytestmark = pytest.mark.usefixtures("one_thread")
OTHERS = [{}, {"seed": 1}, {"seed": 2, "split_seed": 0}, {"validation": 22}, {"input_scaling": "unit", "seed": 3}]
LABELS = {
    "classification": Y,
    "multilabel": np.stack([Y > 0, Y % 2, RNG.integers(0, 2, 160)], 1),
    "regression": X[:, :2] * (3.0, 500.0) + RNG.normal(size=(160, 2)),
}


def task_data(given: TrialConfig) -> Data:
    return prepare_data(Dataset((X, LABELS[given.task]), weights=np.linspace(0, 3, 160), task=given.task), given, CPU)


def precise(on: Data) -> Data:
    names = ("x_train", "y_train", "x_val", "y_val", "weights")
    floats = {name: each for name in names if (each := getattr(on, name)) is not None and each.is_floating_point()}
    return replace(on, **{name: each.double() for name, each in floats.items()})


def count_stacks(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Return, by learner that is made from now on, the sizes of its stacks."""
    made: list[list[int]] = []
    build = StackedLearner._build_stacks

    def record(self: StackedLearner, models) -> None:
        build(self, models)
        made.append([len(stack.models) for stack in self._stacks])

    monkeypatch.setattr(StackedLearner, "_build_stacks", record)
    return made


def assert_as_alone(configs, data, monkeypatch, sizes: list[int], **settings) -> None:
    made = count_stacks(monkeypatch)
    found = train(configs, data, TrainSettings(**settings))
    assert [sorted(each) for each in made] == [sorted(sizes)]
    for outcome, each, on in zip(found, configs, data, strict=True):
        (expected,) = alone([each], on, **settings)
        assert_close(outcome, expected, 1e-9)
        for steps, others in zip(outcome.steps, expected.steps, strict=True):
            torch.testing.assert_close(steps[0], others[0])


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize(
    "model", [{"depth": 0}, {}, {"activation": "sigmoid", "optimizer": "sgd"}, {"model": "autoencoder"}]
)
def test_dense_models(model, monkeypatch):
    model = {"widths": None} | model if "depth" in model else model
    configs = [config(**model, **each) for each in OTHERS]
    scored = {"monitor": "val_loss", "direction": "minimize"} if "model" in model else {}
    assert_as_alone(configs, [doubled(rows(each)) for each in configs], monkeypatch, [5], record_steps=True, **scored)


@pytest.mark.usefixtures("in_float64")
def test_batch_normalisation_is_a_stack_for_each_size_of_the_last_batch(monkeypatch):
    configs = [config(batch_norm=True, **each) for each in OTHERS]
    assert_as_alone(configs, [doubled(rows(each)) for each in configs], monkeypatch, [4, 1])


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize(
    ("task", "weights"),
    [("classification", False), ("classification", True), ("multilabel", True), ("regression", True)],
)
def test_all_tasks_with_weights_and_metrics(task, weights, monkeypatch):
    monkeypatch.setattr(records, "CHUNK", 70)  # two steps are measured at once
    monkeypatch.setattr(joint, "BLOCK_BYTES", 6000)  # and gathered
    others = [{"seed": 0}, {"seed": 1}, {"seed": 1, "validation": 25}]
    configs = [config(task=task, learning_rate=0.01, **each) for each in others]
    data = [precise(task_data(each)) for each in configs]
    data = data if weights else [replace(each, weights=None) for each in data]
    metric = {"classification": "val_f1_macro", "multilabel": "val_log_loss", "regression": "val_rmse"}[task]
    monitor = {"monitor": "val_loss", "direction": "minimize", "metrics": [registry.metrics.get(metric)]}
    assert_as_alone(configs, data, monkeypatch, [3], record_steps=True, **monitor)


@pytest.mark.usefixtures("in_float64", "general")
@pytest.mark.parametrize(
    ("general", "kind"), [(False, 1), (False, 2), (False, 4), (True, 1), (True, 4)], indirect=["general"]
)  # each kind of embedding, with and without blocks
def test_modules(kind, monkeypatch):
    others = [{}, {"seed": 1}, {"validation": 21}, {"validation": 21, "seed": 4}]
    configs = [tabular(**KINDS[kind], **each) for each in others]
    data = [doubled(table(each)) for each in configs]
    assert_as_alone(configs, data, monkeypatch, [2, 2])


@pytest.mark.usefixtures("in_float64")
def test_folds_of_one_configuration_are_as_many_models(monkeypatch):
    """Equal configurations on data of their own; those on the same data are one run."""
    whole = np.arange(160)
    folds = []
    for places in np.array_split(whole, 7):
        rest = np.setdiff1d(whole, places)
        dataset = Dataset((X[rest], Y[rest]), classes=3, validation=(X[places], Y[places]))
        folds.append(doubled(prepare_data(dataset, config(), CPU)))
    assert {len(fold.y_val) for fold in folds} == {22, 23}
    made = count_stacks(monkeypatch)
    found = train([config()] * 8, [*folds, folds[0]])
    assert made == [[7]]
    for outcome, fold in zip(found, folds, strict=False):
        assert_close(outcome, alone([config()], fold)[0], 1e-9)
    assert bits(found[7]) == bits(found[0])


@pytest.mark.usefixtures("in_float64")
def test_a_step_is_the_oracles():
    """Two members with different batches, the second a sample shorter: weights after a step of plain descent."""
    trials = [config(optimizer="sgd", activation="tanh", widths="5-4", seed=seed) for seed in (0, 1)]
    learner = StackedLearner(
        members := [stacked_learner.Member(each, number) for number, each in enumerate(trials)],
        (8,), 3, CPU, feeds=[stacked_learner.Feed(0, 6), stacked_learner.Feed(1, 5)],
    )  # fmt: skip
    models = [oracle.Mlp([value.numpy() for value in learner.weights(each).values()], "tanh") for each in members]
    x, y = torch.from_numpy(X[:12]).view(2, 6, 8), torch.from_numpy(Y[:12]).view(2, 6)
    learner.begin_epoch(0, [[0.5]] * 2)
    learner.step(x, y, None, [6, 5])
    scores = learner.end_epoch()
    for member, model, own, labels, n, score in zip(members, models, x.numpy(), y.numpy(), (6, 5), scores, strict=True):
        value, by_outputs = oracle.cross_entropy(model.forward(own[:n])[0], labels[:n])
        gradients = model.gradients(own[:n], by_outputs)
        assert score["loss"] == pytest.approx(value, rel=1e-9)
        for found, before, gradient in zip(learner.weights(member).values(), model.parameters, gradients, strict=True):
            np.testing.assert_allclose(found, before - 0.5 * gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("in_float64")
def test_many_with_the_same_batches_share_their_product(monkeypatch):
    monkeypatch.setattr(stacked_learner, "SHARING", 3)
    rates = [{"learning_rate": rate} for rate in (0.01, 0.02, 0.03)]
    configs = [config(**each, seed=1) for each in rates] + [config(seed=seed) for seed in (2, 3)]
    first, *others = (doubled(rows(each)) for each in configs[2:])
    assert_as_alone(configs, [first, first, first, *others], monkeypatch, [3, 2])


@pytest.mark.usefixtures("in_float64")
def test_members_that_leave_take_their_batches_along():
    configs = [config(epochs=4, **each) for each in OTHERS]
    data = [doubled(rows(each)) for each in configs]
    found = train(configs, data, TrainSettings(callbacks=[Prunes(_1=1, _0=2, _2=2, _4=3)]))
    assert [len(outcome.history) for outcome in found] == [2, 1, 2, 4, 3]
    assert_close(found[3], alone(configs[3:4], data[3])[0], 1e-9)


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("leave", [{"_0": 1}, {"_2": 1}, {"_0": 1, "_1": 2}, {"_1": 1, "_3": 2}, {"_0": 1, "_4": 2}])
def test_members_that_share_their_batches_keep_them_when_others_leave(leave):
    seeds = (0, 1, 0, 2, 1)
    parts = {seed: doubled(rows(config(seed=seed))) for seed in set(seeds)}
    configs = [config(epochs=4, seed=seed, learning_rate=0.01 * (i + 1)) for i, seed in enumerate(seeds)]
    found = train(configs, [parts[seed] for seed in seeds], TrainSettings(callbacks=[Prunes(**leave)]))
    for number, (each, seed) in enumerate(zip(found, seeds, strict=True)):
        if f"_{number}" not in leave:
            assert_close(each, alone(configs[number : number + 1], parts[seed])[0], 1e-9)


@pytest.mark.parametrize(
    ("more", "answers"),
    [
        ({"dropout": 0.3}, 3),
        ({"dropout": 0.3}, 11),
        ({"batch_norm": True}, 7),
        ({"batch_norm": True}, 14),
        ({"model": "autoencoder"}, 3),
        ({"model": "autoencoder"}, 14),
    ],
)
def test_a_stack_goes_on_from_its_checkpoints(more, answers, tmp_path):
    configs = [config(**more, **each) for each in OTHERS]
    data = [rows(each) for each in configs]
    base = TrainSettings(monitor="val_loss", direction="minimize", record_steps=True)
    specs = [CheckpointSpec(tmp_path / f"{number}.pt") for number in range(5)]
    stopped = train(configs, data, replace(base, should_stop=stop_after(answers)), specs)
    again = [replace(spec, resume=True) if each.status == "interrupted" else None
             for spec, each in zip(specs, stopped, strict=True)]  # fmt: skip
    assert again.count(None) == 0
    whole = train(configs, data, base)
    assert [bits(each) for each in train(configs, data, base, again)] == [bits(each) for each in whole]


class Pauses(Callback):
    """Pauses all members after their second epoch."""

    def on_round(self, members) -> None:
        for member in members:
            if len(member.history) == 2:
                member.stop("paused")


@pytest.mark.parametrize("model", [{}, {"model": "autoencoder"}])
def test_a_stack_goes_on_from_the_end_of_an_epoch_with_last_batches_of_unequal_sizes(model, tmp_path):
    configs = [config(**model, **each) for each in OTHERS]
    data = [rows(each) for each in configs]
    base = TrainSettings(monitor="val_loss", direction="minimize", record_steps=True)
    specs = [CheckpointSpec(tmp_path / f"{number}.pt") for number in range(5)]
    paused = train(configs, data, replace(base, callbacks=[Pauses()]), specs)
    assert {(each.status, len(each.history)) for each in paused} == {("paused", 2)}
    told = Prunes()
    again = [replace(spec, resume=True) for spec in specs]
    found = train(configs, data, replace(base, callbacks=[told]), again)
    assert {epoch for _, epoch in told.told} == {3, "completed"}  # none has begun anew
    assert [bits(each) for each in found] == [bits(each) for each in train(configs, data, base)]


class Leaves(Callback):
    """Knows at the start that a member need not go on."""

    def __init__(self, number: int) -> None:
        self.number = number

    def on_start(self, member) -> None:
        if member.number == self.number:
            member.stop("interrupted")


@pytest.mark.parametrize("leaves", [0, 2, 4])
def test_a_member_that_does_not_go_on_leaves_the_others_their_batches(leaves, tmp_path):
    configs = [config(**each) for each in OTHERS]
    data = [rows(each) for each in configs]
    specs = [CheckpointSpec(tmp_path / f"{number}.pt") for number in range(5)]
    train(configs, data, TrainSettings(should_stop=stop_after(3)), specs)
    again = [replace(spec, resume=True) for spec in specs]
    found = train(configs, data, TrainSettings(callbacks=[Leaves(leaves)]), again)
    for number, (each, whole) in enumerate(zip(found, train(configs, data), strict=True)):
        if number != leaves:
            assert_close(each, whole, 1e-4)


def test_noise_does_not_depend_on_who_else_is_in_the_stack():
    configs = [config(dropout=0.4, seed=seed) for seed in range(3)]
    data = [rows(each) for each in configs]
    together = train(configs, data)
    for outcome, each, on in zip(together, configs, data, strict=True):
        assert_close(outcome, train([each], on)[0], 1e-4)


# Data.


def test_splits_in_use_are_kept_and_shared(monkeypatch):
    cache = DataCache(DatasetReference(name="mine", module=__name__), CPU)
    monkeypatch.setattr(cache, "_dataset", Dataset((X, Y), classes=3))
    configs = [config(seed=1), config(seed=2), config(seed=2, split_seed=1), config(seed=1, learning_rate=0.5)]
    first, second, third, fourth = (cache.get(each) for each in configs)
    assert fourth is first
    assert third.x_train is first.x_train
    assert third.seed == 2
    assert second.x_train is not first.x_train
    assert cache.get(configs[0]) is first
    del first, third, fourth
    assert cache.get(configs[1]) is second
    assert len(cache._in_use) == 2


def test_batches_of_several_are_those_of_each(monkeypatch):
    monkeypatch.setattr(joint, "BLOCK_BYTES", 3 * 32 * 8 * 4 * 2)
    parts = [rows(config(**each)) for each in OTHERS[:4]]
    apart = [list(part.batches(32, 2)) for part in parts]
    together = list(joint.joint_batches(parts, 32, 2))
    assert [batch[3] for batch in together] == [None, None, None, None, [12, 12, 12, 10]]
    for step, (x, y, _, sizes) in enumerate(together):
        for place, each in enumerate(apart):
            own_x, own_y = each[step]
            assert (sizes or [32] * 4)[place] == len(own_y)
            assert torch.equal(x[place, : len(own_y)], own_x)
            assert torch.equal(y[place, : len(own_y)], own_y)
