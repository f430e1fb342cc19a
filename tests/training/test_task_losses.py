"""Losses, weights and scores of every task: alone and stacked, against the NumPy oracle and autograd, in float64."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score
from sklearn.utils.class_weight import compute_sample_weight

from hpo.config import registry
from hpo.config.choices import TASK_LOSSES
from hpo.config.trial_config import TrialConfig
from hpo.datasets import Dataset
from hpo.errors import ConfigError, DataError
from hpo.training import stack_run
from hpo.training.checkpoint import CheckpointSpec
from hpo.training.data import Data, prepare_data
from hpo.training.learner import ModuleLearner
from hpo.training.loop import train
from hpo.training.losses import loss_function
from hpo.training.member import Member
from hpo.training.predictions import evaluate_weights
from hpo.training.settings import TrainSettings
from hpo.training.stacked import records
from hpo.training.stacked.learner import StackedLearner
from hpo.training.stacked.losses import make_stack_loss
from hpo.training.weights import make_weights, read_weights
from tests.training import oracle
from tests.training.resumable import bits, stop_after

CPU = torch.device("cpu")
RNG = np.random.default_rng(5)
BATCHES, N, FEATURES, COLUMNS = 4, 16, 6, 3
X = RNG.normal(size=(BATCHES, N, FEATURES))
LABELS = {
    "classification": RNG.integers(0, COLUMNS, (BATCHES, N)),
    "multilabel": RNG.integers(0, 2, (BATCHES, N, COLUMNS)).astype(np.float64),
    "regression": RNG.normal(size=(BATCHES, N, COLUMNS)),
}
WEIGHTS = {"samples": RNG.uniform(0, 2, (BATCHES, N)), "labels": RNG.uniform(0, 2, (BATCHES, N, COLUMNS))}
CASES = [
    (task, loss, weights)
    for task, losses in TASK_LOSSES.items()
    for loss in losses
    for weights in ("none", "samples", *(["labels"] if task == "multilabel" else []))
]
every_case = pytest.mark.parametrize(("task", "loss", "weights"), CASES)
LEARNERS = {"module": ModuleLearner, "stacked": lambda member, *rest: StackedLearner([member], *rest)}
both = pytest.mark.parametrize("kind", LEARNERS)


@pytest.fixture
def in_float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def reference(config: TrialConfig, outputs, y, w):
    """The oracle's loss and its gradient by the outputs."""
    if config.task == "classification":
        if config.loss == "mse":
            return oracle.mse(outputs, y, w)
        return oracle.cross_entropy(outputs, y, config.label_smoothing, w)
    if config.loss == "huber":
        return oracle.huber(outputs, y, w, config.huber_delta)
    losses = {
        "binary_cross_entropy": oracle.binary_cross_entropy,
        "mse": oracle.squared_error,
        "mae": oracle.absolute_error,
        "gaussian_nll": oracle.gaussian_nll,
    }
    return losses[config.loss](outputs, y, w)


def given(task: str, loss: str, **more) -> TrialConfig:
    settings = {"huber_delta": 0.6} if loss == "huber" else {}
    settings |= {"label_smoothing": 0.2} if loss == "cross_entropy" else {}
    return TrialConfig(**{"task": task, "loss": loss, "widths": "5-4", "activation": "tanh", **settings, **more})


def batch(task: str, weights: str, i: int):
    return X[i], LABELS[task][i], None if weights == "none" else WEIGHTS[weights][i]


def tensors(*arrays):
    return [None if array is None else torch.from_numpy(array) for array in arrays]


def score(task: str, outputs, y) -> dict[str, float]:
    if task == "classification":
        return {"accuracy": float((outputs.argmax(1) == y).mean())}
    if task == "multilabel":
        return {"accuracy": float(((outputs > 0) == (y == 1)).mean())}
    return {"r2": float(r2_score(y, outputs[:, :COLUMNS]))}


@pytest.mark.usefixtures("in_float64")
@both
@every_case
def test_an_epoch_is_the_oracles(task, loss, weights, kind, monkeypatch):
    """Weights after every step, and the means over the steps: the trained loss, and the unweighted score."""
    monkeypatch.setattr(records, "CHUNK", 40)  # two steps are measured at once, and the rest at the end
    config = given(task, loss, optimizer="sgd")
    learner = LEARNERS[kind](Member(config), (FEATURES,), COLUMNS, CPU)
    model = oracle.Mlp([value.numpy() for value in learner.weights(learner.members[0]).values()], "tanh")
    learner.begin_epoch(0, [[0.05] * BATCHES])
    losses, outputs = [], []
    for i in range(BATCHES):
        x, y, w = batch(task, weights, i)
        outputs.append(model.forward(x)[0])
        value, by_outputs = reference(config, outputs[-1], y, w)
        losses.append(value)
        grads = model.gradients(x, by_outputs)
        model.parameters = [p - 0.05 * g for p, g in zip(model.parameters, grads, strict=True)]
        learner.step(*tensors(x, y, w))
        for found, expected in zip(learner.weights(learner.members[0]).values(), model.parameters, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11)
    (scores,) = learner.end_epoch()
    assert scores.pop("loss") == pytest.approx(np.mean(losses), rel=1e-9)
    whole = np.concatenate(outputs), np.concatenate(LABELS[task])
    assert scores == pytest.approx(score(task, *whole), rel=1e-9)


@pytest.mark.usefixtures("in_float64")
@both
@every_case
def test_an_evaluation_is_neither_weighted_nor_smoothed(task, loss, weights, kind):
    config = given(task, loss)
    learner = LEARNERS[kind](Member(config), (FEATURES,), COLUMNS, CPU)
    model = oracle.Mlp([value.numpy() for value in learner.weights(learner.members[0]).values()], "tanh")
    x, y, _ = batch(task, weights, 0)
    found, outputs = learner.evaluate(*tensors(x, y))[0], model.forward(x)[0]
    np.testing.assert_allclose(found.outputs, outputs, atol=1e-12)
    plain = config.model_copy(update={"label_smoothing": 0.0})
    assert found.scores == pytest.approx(
        {"loss": reference(plain, outputs, y, None)[0], **score(task, outputs, y)}, rel=1e-9
    )


@pytest.mark.usefixtures("in_float64")
@every_case
def test_gradients_of_a_stack_are_autograds(task, loss, weights):
    """Members differ in what a stack's may; outputs are small and large, so that all branches are taken."""
    deltas = (0.3, 1.0, 2.5)
    configs = [given(task, loss, **({"huber_delta": delta} if loss == "huber" else {})) for delta in deltas]
    configs = [each.model_copy(update={"label_smoothing": 0.1 * i}) for i, each in enumerate(configs)]
    columns = COLUMNS * (2 if loss == "gaussian_nll" else 1)
    outputs = torch.randn(3, columns, N, generator=torch.Generator().manual_seed(1)) * 12
    _, y, w = tensors(*batch(task, weights, 1))
    stack = make_stack_loss(configs, columns, outputs.new_empty(0))
    found = stack.gradient(outputs, stack.target(y), 1 / N)
    found = found if w is None else found * w.t()
    losses = stack.samples(outputs, y, w)
    for place, config in enumerate(configs):
        one = outputs[place].t().clone().requires_grad_()
        value = loss_function(config)(one, y, w)
        value.backward()
        assert losses[place].mean().item() == pytest.approx(value.item(), rel=1e-12)
        np.testing.assert_allclose(found[place].t(), one.grad, rtol=1e-9, atol=1e-14)
        arrays = one.detach().numpy(), y.numpy(), None if w is None else w.numpy()
        smallest = 1e-300  # of a probability whose logarithm the oracle takes
        if loss not in ("binary_cross_entropy", "cross_entropy") or np.exp(-abs(arrays[0])).min() > smallest:
            np.testing.assert_allclose(one.grad, reference(config, *arrays)[1], rtol=1e-9, atol=1e-12)
    through = outputs.clone().requires_grad_()
    stack.samples(through, y, w).mean(1).sum().backward()
    np.testing.assert_allclose(through.grad, found, rtol=1e-9, atol=1e-14)


def test_a_small_variance_is_bounded_as_torch_bounds_it():
    outputs = torch.tensor([[0.5, -40.0], [1e-5, -20.0], [0.1, 3.0]], dtype=torch.float64, requires_grad=True)
    y = torch.zeros(3, 1, dtype=torch.float64)
    config = TrialConfig(task="regression", loss="gaussian_nll")
    value = loss_function(config)(outputs, y)
    (grad,) = torch.autograd.grad(value, outputs)
    expected = torch.nn.GaussianNLLLoss()(outputs[:, :1], y, outputs[:, 1:].exp())
    assert value.item() == pytest.approx(expected.item(), rel=1e-14)
    torch.testing.assert_close(grad, torch.autograd.grad(expected, outputs)[0], rtol=1e-12, atol=0)


@pytest.mark.parametrize(("outputs", "expected"), [([[2.0], [2.0]], 1.0), ([[2.0], [2.5]], 0.0)])
@both
def test_a_constant_target_has_the_r2_of_scikit_learn(outputs, expected, kind):
    y = torch.full((2, 1), 2.0)
    assert r2_score(y.numpy(), np.array(outputs)) == expected
    config = TrialConfig(task="regression", depth=0)
    learner = LEARNERS[kind](Member(config), (1,), 1, CPU)
    weight = (outputs[1][0] - outputs[0][0]) * torch.ones(1, 1)
    names = learner.weights(learner.members[0])
    learner.load(learner.members[0], dict(zip(names, (weight, torch.ones(1) * 2), strict=True)))
    assert learner.evaluate(torch.tensor([[0.0], [1.0]]), y)[0].scores["r2"] == expected


# Data with weights.


def regression(config: TrialConfig, weights=None, samples: int = 160) -> Data:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(samples, 8))
    y = x[:, :2] * (3.0, 500.0) + rng.normal(size=(samples, 2)) + (0.0, 1e4)
    return prepare_data(Dataset((x, y), weights=weights, validation=(x[:40] + 0.1, y[:40])), config, CPU)


def small(**parameters) -> TrialConfig:
    base = {"validation": 20, "widths": "16-8", "epochs": 3, "batch_size": 32, "task": "regression"}
    return TrialConfig(**base | parameters)


def alone(configs, on: Data, settings: TrainSettings):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stack_run, "StackedLearner", lambda members, *rest, **_: ModuleLearner(members[0], *rest))
        return [train([config], on, settings)[0] for config in configs]


@pytest.mark.usefixtures("in_float64")
def test_a_cohort_of_all_losses_is_each_trial_alone():
    configs = [
        small(loss=loss, optimizer=optimizer, learning_rate=0.01, **({"huber_delta": 0.5} if loss == "huber" else {}))
        for loss, optimizer in product(TASK_LOSSES["regression"], ("sgd", "adam"))
    ]
    on = regression(configs[0], RNG.uniform(0, 3, 160))
    on = replace(
        on, **{name: getattr(on, name).double() for name in ("x_train", "y_train", "x_val", "y_val", "weights")}
    )
    settings = TrainSettings(monitor="val_r2", record_steps=True)
    for found, expected in zip(train(configs, on, settings), alone(configs, on, settings), strict=True):
        for row, other in zip(found.history, expected.history, strict=True):
            assert {**row, "seconds": 0} == pytest.approx({**other, "seconds": 0}, rel=1e-9)
        for name, weight in found.weights.items():
            torch.testing.assert_close(weight, expected.weights[name], rtol=1e-9, atol=1e-11)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("weights", [None, RNG.uniform(0, 3, 160)])
@pytest.mark.parametrize("kind", ["stacked", "module"])
@pytest.mark.parametrize("record_steps", [False, True])
def test_a_resumed_regression_has_the_same_bits(weights, kind, record_steps, tmp_path, monkeypatch):
    monkeypatch.setattr(records, "CHUNK", 70)
    if kind == "module":
        monkeypatch.setattr(stack_run, "StackedLearner", lambda members, *rest, **_: ModuleLearner(members[0], *rest))
    configs = [small(loss="huber"), small(loss="gaussian_nll", seed=0)]
    configs = configs if kind == "stacked" else configs[1:]
    on = regression(configs[0], weights)
    base = TrainSettings(monitor="val_r2", record_steps=record_steps)
    whole = train(configs, on, base)
    for answers in (4, 8):
        specs = [CheckpointSpec(tmp_path / f"{answers}-{i}.pt", owner=str(i)) for i in range(len(configs))]
        first = train(configs, on, replace(base, should_stop=stop_after(answers)), specs)
        assert {outcome.status for outcome in first} == {"interrupted"}
        again = train(configs, on, base, [replace(spec, resume=True) for spec in specs])
        assert [bits(each) for each in again] == [bits(each) for each in whole]


# What weighs how much.


def test_weights_are_those_of_scikit_learn():
    y = RNG.integers(0, 4, 200) % 3
    own = RNG.uniform(0, 2, 200)
    balanced = compute_sample_weight("balanced", y)
    np.testing.assert_allclose(make_weights(y, "classification", "balanced"), balanced, rtol=1e-6)
    both = balanced * own
    np.testing.assert_allclose(make_weights(y, "classification", "balanced", own), both / both.mean(), rtol=1e-6)
    labels = RNG.integers(0, 2, (200, 3)).astype(np.float32)
    columns = np.stack([compute_sample_weight("balanced", column) for column in labels.T], 1)
    np.testing.assert_allclose(make_weights(labels, "multilabel", "balanced"), columns, rtol=1e-6)
    np.testing.assert_allclose(make_weights(labels, "regression", "balanced", own), own / own.mean(), rtol=1e-6)
    assert make_weights(labels, "regression", "balanced") is None
    assert make_weights(y, "classification", None) is None


def test_data_of_rare_classes_are_weighed():
    x, y = RNG.normal(size=(60, 4)), np.repeat([0, 1, 2], [40, 15, 5])
    given = TrialConfig(class_weight="balanced", validation=0.2, batch_size=16)
    on = prepare_data(Dataset((x, y)), given, CPU)
    assert on.weights.mean().item() == pytest.approx(1)
    totals = [on.weights[on.y_train == k].sum().item() for k in range(3)]
    assert totals == pytest.approx([totals[0]] * 3)
    for _, labels, w in on.batches(16, 1):
        assert [len(set(w[labels == k].tolist())) <= 1 for k in range(3)] == [True] * 3
    plain = prepare_data(Dataset((x, y)), given.model_copy(update={"class_weight": None}), CPU)
    assert plain.weights is None
    assert plain.digest != on.digest


def test_validation_samples_that_are_trained_on_weigh_as_much_as_others():
    x, y = RNG.normal(size=(30, 4)), np.arange(30) % 3
    on = prepare_data(Dataset((x, y), validation=(x, y), weights=np.arange(30)), TrialConfig(validation=0), CPU)
    assert on.weights.shape == (60,)
    assert on.weights[30:].tolist() == pytest.approx([1.0] * 30)


@pytest.mark.parametrize(
    ("weights", "line"),
    [
        (np.ones(9), "set: weights of type float64 and shape (9,); they must be one number per training sample, (10,)"),
        (np.array([1.0] * 9 + [np.nan]), "set: the weight of sample 9 is nan; weights are numbers from 0 on"),
        (np.array([-1.0] + [1.0] * 9), "set: the weight of sample 0 is -1; weights are numbers from 0 on"),
        (np.zeros(10), "set: all weights are 0; some samples must count"),
    ],
)
def test_wrong_weights_are_one_line(weights, line):
    with pytest.raises(DataError) as error:
        read_weights(weights, 10, "set")
    assert str(error.value) == line


def test_batches_have_no_classes_to_balance():
    batches = [(np.zeros((4, 2), np.float32), np.array([0, 1, 0, 1]))]
    stream = Dataset(batches, classes=2, validation=batches[0])
    with pytest.raises(ConfigError, match=r"^class_weight = 'balanced': set gives batches, whose classes are not "):
        prepare_data(stream, TrialConfig(class_weight="balanced"), CPU, "set")
    with pytest.raises(DataError, match=r"^set: its training data are batches, which cannot be weighed; give arrays"):
        prepare_data(replace(stream, weights=np.ones(4)), TrialConfig(), CPU, "set")


def test_metrics_are_in_the_targets_own_units():
    on = regression(small(), samples=400)
    wanted = [registry.metrics.get(name) for name in ("val_mae", "val_rmse", "val_spearman")]
    (outcome,) = train([small(epochs=2)], on, TrainSettings(metrics=wanted))
    assert outcome.best_epoch == max(outcome.history, key=lambda row: row["val_r2"])["epoch"]
    evaluation = evaluate_weights(outcome, on, on.x_val, on.y_val)
    predicted, y = (on.to_targets(each).double().numpy() for each in (evaluation.outputs, on.y_val))
    assert np.abs(y).max() > 5000
    assert outcome.best["val_mae"] == pytest.approx(np.abs(predicted - y).mean(), rel=1e-5)
    assert outcome.best["val_rmse"] == pytest.approx(np.sqrt(((predicted - y) ** 2).mean(0)).mean(), rel=1e-5)
    assert outcome.best["val_r2"] == pytest.approx(r2_score(y, predicted), rel=1e-4)
