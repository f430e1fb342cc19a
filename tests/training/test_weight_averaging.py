"""Averages of weights: torch's own in a plain loop, the same in a stack, and after interruptions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import schedulefree
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

import hpo
from hpo.config import registry
from hpo.config.choices import OPTIMIZERS
from hpo.config.cohort_key import run_key, why_unstackable
from hpo.config.trial_config import TrialConfig
from hpo.datasets import Dataset
from hpo.errors import ConfigError, RunError
from hpo.training.averaging import measure_batch_norm
from hpo.training.checkpoint import CheckpointSpec
from hpo.training.data import Data, epoch_seed, prepare_data
from hpo.training.loop import train
from hpo.training.models import build_model
from hpo.training.settings import TrainSettings
from hpo.training.stacked.check import why_alone
from tests.training.resumable import CPU, RNG, Y, bits, config, data, one, stop_after
from tests.training.test_stacked import alone, assert_close, doubled, in_float64

__all__ = ["in_float64"]
pytestmark = pytest.mark.usefixtures("one_thread")
EMA = {"weight_averaging": "ema", "ema_decay": 0.9}
SWA = {"weight_averaging": "swa", "swa_start": 0.4}  # of 3 epochs: the second and the third
LAST = {"monitor": "epoch", "direction": "maximize"}  # so that the weights are those of the last epoch


def plain(given: TrialConfig, on: Data) -> nn.Module:
    """The model to evaluate after a loop as torch's documentation writes it."""
    module = build_model(given, on.shape, on.classes)
    ema = given.weight_averaging == "ema"
    average = (
        AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(given.ema_decay)) if ema else AveragedModel(module)
    )
    optimizer = torch.optim.SGD(module.parameters(), given.learning_rate)
    for epoch in range(1, given.epochs + 1):
        torch.manual_seed(epoch_seed(on.seed, epoch))
        for x, y in on.batches(given.batch_size, epoch):
            optimizer.zero_grad()
            functional.cross_entropy(module(x), y).backward()
            optimizer.step()
            if ema:
                average.update_parameters(module)
        if not ema and epoch > given.swa_start * given.epochs:
            average.update_parameters(module)
        torch.manual_seed(epoch_seed(on.seed, epoch))
        update_bn(on.batches(given.batch_size, epoch), average)
    return average.module


@pytest.mark.parametrize("average", [EMA, SWA])
def test_a_model_alone_has_torchs_average_with_statistics_of_its_own(average: dict[str, object]) -> None:
    given = config(optimizer="sgd", learning_rate=0.1, dropout=0.3, batch_norm=True, **average)
    on = data(given)
    found, expected = one(given, on, **LAST), plain(given, on)
    assert found.best_epoch == given.epochs
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(found.weights[name], value, rtol=1e-6, atol=1e-7)
    expected.eval()
    accuracy = (expected(on.x_val).argmax(1) == on.y_val).float().mean().item()
    assert found.history[-1]["val_accuracy"] == pytest.approx(accuracy)


def test_schedule_free_evaluates_its_average_as_its_authors_say() -> None:
    given = config(optimizer="schedule_free_adamw", batch_norm=True, weight_decay=0.01)
    on = data(given)
    found = one(given, on, **LAST)
    module = build_model(given, on.shape, on.classes)
    optimizer = schedulefree.AdamWScheduleFree(module.parameters(), lr=0.0025, weight_decay=0.01)
    for epoch in range(1, given.epochs + 1):
        module.train()
        optimizer.train()
        for x, y in on.batches(given.batch_size, epoch):
            optimizer.zero_grad()
            functional.cross_entropy(module(x), y).backward()
            optimizer.step()
    optimizer.eval()
    update_bn(on.batches(given.batch_size, given.epochs), module)
    for name, value in module.state_dict().items():
        torch.testing.assert_close(found.weights[name], value, rtol=1e-5, atol=1e-6)


def test_frozen_layers_keep_the_statistics_that_they_came_with() -> None:
    module = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3), nn.BatchNorm1d(3))
    module[0].requires_grad_(False).running_mean.fill_(0.5)
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    measure_batch_norm(module, [module[0]], module, lambda: [x[:2], x[2:]])
    assert module[0].running_mean.eq(0.5).all()
    assert (module[0].num_batches_tracked.item(), module[2].num_batches_tracked.item()) == (0, 2)
    assert module[2].momentum == 0.1
    shifted = module[1]((x - 0.5) / (1 + 1e-5) ** 0.5)
    torch.testing.assert_close(module[2].running_mean, (shifted[:2].mean(0) + shifted[2:].mean(0)) / 2)


MIXED = [
    config(optimizer="sgd", learning_rate=0.1, **EMA),
    config(optimizer="adam", learning_rate=0.01, widths="9", weight_averaging="ema", ema_decay=0.5),
    config(optimizer="adam", learning_rate=0.02, widths="12-8-8", dropout=0.2, **EMA),
    config(optimizer="sgd", learning_rate=0.1, **SWA),
    config(optimizer="sgd", learning_rate=0.1, weight_averaging="swa", swa_start=0.0, epochs=2),
    config(optimizer="nesterov", learning_rate=0.05, widths="9", epochs=4, **SWA),
    config(optimizer="sgd", learning_rate=0.1),
    config(optimizer="asgd", learning_rate=0.1, asgd_start=3),
    config(optimizer="schedule_free_adamw", warmup=0.3, learning_rate=0.01),
    config(optimizer="schedule_free_adamw", beta1=0.6, widths="9", learning_rate=0.02),
]


@pytest.mark.usefixtures("in_float64")
def test_in_a_cohort_averages_are_those_of_models_alone() -> None:
    given = [each.model_copy(update={"dropout": 0.0}) for each in MIXED]
    on = doubled(data(given[0]))
    for found, expected in zip(train(given, on), alone(given, on), strict=True):
        assert_close(found, expected, 1e-9)


def test_averages_change_what_is_evaluated_and_not_what_is_trained() -> None:
    on = data(MIXED[6])
    averaged, without = one(MIXED[0], on), one(MIXED[6], on)
    for mine, theirs in zip(averaged.history, without.history, strict=True):
        assert mine["train_loss"] == theirs["train_loss"]
    assert averaged.history[-1]["val_loss"] != without.history[-1]["val_loss"]


def own(config: TrialConfig, shape: tuple[int, ...], classes: int) -> nn.Module:
    return nn.Sequential(nn.Linear(shape[0], 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, classes))


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.models, "_entries", dict(registry.models._entries))
    hpo.model("normalised")(own)


ALONE = [
    {"batch_norm": True, **EMA},
    {"batch_norm": True, **SWA},
    {"optimizer": "asgd", "asgd_start": 2, "batch_norm": True},
    {"optimizer": "schedule_free_adamw", "batch_norm": True, "dropout": 0.3},
    {"optimizer": "lbfgs", **EMA},
    {"optimizer": "lion", "model": "cnn", "conv_layers": 1, "channels": 2, **SWA},
]


@pytest.mark.parametrize("given", ALONE, ids=str)
def test_a_model_alone_goes_on_with_the_same_bits(given: dict[str, object], tmp_path: Path) -> None:
    each = config(**given)
    on = data(each) if each.model == "mlp" else pictures(each)
    whole = bits(one(each, on))
    for answers in (3, 6, 8, 13):
        path = tmp_path / f"{answers}.pt"
        assert one(each, on, CheckpointSpec(path), should_stop=stop_after(answers)).status == "interrupted"
        assert bits(one(each, on, CheckpointSpec(path, resume=True))) == whole


def pictures(given: TrialConfig) -> Data:
    return prepare_data(Dataset((RNG.normal(size=(160, 4, 4)), Y), classes=3), given, CPU)


@pytest.mark.parametrize("answers", [3, 6, 8, 13])
def test_a_cohort_goes_on_with_the_same_bits(answers: int, tmp_path: Path) -> None:
    on = data(MIXED[0])
    whole = [bits(each) for each in train(MIXED, on)]
    specs = [CheckpointSpec(tmp_path / f"{number}.pt") for number in range(len(MIXED))]
    train(MIXED, on, TrainSettings(should_stop=stop_after(answers)), checkpoints=specs)
    again = [CheckpointSpec(spec.path, resume=spec.path.exists()) for spec in specs]
    assert [bits(each) for each in train(MIXED, on, checkpoints=again)] == whole


def test_batch_normalisation_is_measured_one_model_at_a_time(models: None) -> None:
    why = "batch normalisation of averaged weights is measured one model at a time"
    for given in ({"batch_norm": True, **EMA}, {"batch_norm": True, "optimizer": "asgd"}):
        assert why_unstackable(config(**given)) == why
    assert why_unstackable(config(**EMA)) is None
    own = config(model="normalised", widths=None, **EMA)
    assert why_alone(own, data(own)) == why


def test_a_mean_of_the_last_epochs_depends_on_how_many_there_are() -> None:
    assert run_key(config(epochs=2, **SWA)) != run_key(config(epochs=3, **SWA))
    assert run_key(config(epochs=2, **EMA)) == run_key(config(epochs=3, **EMA))


def test_parameters_matter_where_they_are_used() -> None:
    assert {"ema_decay", "swa_start"}.isdisjoint(config().effective())
    assert "ema_decay" in config(**EMA).effective()
    assert "swa_start" not in config(**EMA).effective()
    for optimizer, choice in OPTIMIZERS.items():
        own = config(optimizer=optimizer, **EMA)
        assert ("weight_averaging" in own.effective()) != choice.averages
        assert ("ema_decay" in own.effective()) != choice.averages


@pytest.mark.parametrize(
    ("optimizer", "defaults"),
    [
        ("adadelta", {"learning_rate": 1.0, "rho": 0.9, "epsilon": 1e-6}),
        ("adagrad", {"learning_rate": 0.01, "epsilon": 1e-10}),
        ("lion", {"learning_rate": 1e-4, "beta2": 0.99}),
        ("schedule_free_adamw", {"learning_rate": 0.0025, "beta1": 0.9}),
    ],
)
def test_defaults_are_the_optimizers(optimizer: str, defaults: dict[str, float]) -> None:
    assert config(optimizer=optimizer).effective().items() >= defaults.items()
    assert config(optimizer=optimizer, learning_rate=0.5).learning_rate == 0.5


@pytest.mark.parametrize("optimizer", ["adagrad", "adadelta", "adamax", "radam", "asgd", "rprop"])
def test_defaults_are_torchs(optimizer: str) -> None:
    choice, given = OPTIMIZERS[optimizer], config(optimizer=optimizer)
    torchs = registry.resolve(choice.target)([torch.zeros(1, requires_grad=True)]).defaults
    for name, source in choice.arguments.items():
        values = getattr(given, source) if isinstance(source, str) else tuple(getattr(given, each) for each in source)
        assert values == torchs[name], name


def test_what_schedule_free_cannot_have_is_refused() -> None:
    with pytest.raises(ConfigError, match="beta1 = 0: schedule_free_adamw needs a number above 0"):
        config(optimizer="schedule_free_adamw", beta1=0)


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "schedulefree", None)
    given = config(optimizer="schedule_free_adamw", batch_norm=True)
    with pytest.raises(ConfigError, match=r"schedulefree is missing; install it with: pip install 'torch-hpo\[sch"):
        one(given, data(given))


# Loops of the user's own.


def stacking(build: Callable[[TrialConfig], nn.Module]) -> Callable[[hpo.Trial], None]:
    def loop(trial: hpo.Trial) -> None:
        stack, on = trial.stack(build), trial.data
        for epoch in stack.epochs():
            for x, y in on.batches(trial.config.batch_size, epoch):
                losses = stack.step(x, y, functional.cross_entropy)
            outputs: Tensor = stack.predict(on.x_val)
            stack.report(train_loss=losses, val_accuracy=(outputs.argmax(2) == on.y_val).float().mean(1))

    return loop


USES = ["epochs", "optimizer", "learning_rate", "batch_size", "weight_averaging", "ema_decay", "swa_start"]


@pytest.mark.parametrize("average", [EMA, SWA, {"optimizer": "schedule_free_adamw"}])
def test_a_stack_of_a_loop_averages_too(
    average: dict[str, object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(registry.models, "_entries", dict(registry.models._entries))
    build = lambda config: nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))  # noqa: E731
    hpo.model("small")(lambda config, shape, classes: build(config))
    hpo.training_loop("averaging", uses=USES, stack=True)(stacking(build))
    shared = {"optimizer": "sgd", "learning_rate": 0.1, **average}
    given = [config(model="averaging", **shared), config(model="averaging", **shared, epochs=2)]
    on = data(given[0])
    found = train(given, on, TrainSettings(**LAST))
    for each, outcome in zip(given, found, strict=True):
        expected = one(config(model="small", epochs=each.epochs, **shared), on, **LAST)
        assert outcome.history[-1]["val_accuracy"] == pytest.approx(expected.history[-1]["val_accuracy"])
        for name, value in expected.weights.items():
            torch.testing.assert_close(outcome.weights[name], value, rtol=1e-5, atol=1e-6)
    specs = [CheckpointSpec(tmp_path / f"{number}.pt") for number in range(2)]
    train(given, on, TrainSettings(**LAST, should_stop=stop_after(2)), checkpoints=specs)
    again = [CheckpointSpec(spec.path, resume=spec.path.exists()) for spec in specs]
    for resumed, outcome in zip(train(given, on, TrainSettings(**LAST), checkpoints=again), found, strict=True):
        assert bits(resumed) == bits(outcome)


def test_a_stack_of_a_loop_cannot_measure_batch_normalisation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.models, "_entries", dict(registry.models._entries))
    hpo.training_loop("averaging", uses=USES, stack=True)(stacking(lambda config: own(config, (8,), 3)))
    given = config(model="averaging", **EMA)
    with pytest.raises(RunError, match="cannot average the weights of models with batch normalisation"):
        train([given, given], data(given))


@pytest.mark.parametrize("epochs", [7, 100, 1000])
def test_the_first_averaged_epoch_follows_from_the_decimal_fraction(epochs):
    for hundredths in range(100):
        first = config(**SWA | {"swa_start": hundredths / 100}, epochs=epochs).first_averaged_epoch
        assert first == hundredths * epochs // 100 + 1
