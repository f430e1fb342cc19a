"""The loss of every step: that of a plain loop, whoever trains, and also after interruptions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from hpo.config.trial_config import TrialConfig
from hpo.errors import CheckpointError
from hpo.training import stack_run
from hpo.training.checkpoint import CheckpointSpec
from hpo.training.data import Data, epoch_seed
from hpo.training.learner import ModuleLearner
from hpo.training.loop import train
from hpo.training.member import TrainResult
from hpo.training.models import build_model
from hpo.training.settings import TrainSettings
from hpo.training.stacked import records
from tests.training.resumable import config, data, one, stop_after

pytestmark = pytest.mark.usefixtures("one_thread")
STEPS = 5  # of an epoch of 140 samples in batches of 32


@pytest.fixture
def by_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dense models are trained by autograd, too."""
    monkeypatch.setattr(stack_run, "StackedLearner", lambda members, *rest, **_: ModuleLearner(members[0], *rest))


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stack measures two steps at once, so that some of an epoch are measured and some are not."""
    monkeypatch.setattr(records, "CHUNK", 70)


def plain(given: TrialConfig, on: Data) -> list[list[float]]:
    """The losses of a loop as anybody writes it, by epoch."""
    module = build_model(given, on.shape, on.classes)
    optimizer = torch.optim.SGD(module.parameters(), given.learning_rate, given.momentum)
    found = []
    for epoch in range(1, given.epochs + 1):
        torch.manual_seed(epoch_seed(on.seed, epoch))
        found.append([])
        for x, y in on.batches(given.batch_size, epoch):
            loss = functional.cross_entropy(module(x), y, label_smoothing=given.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found[-1].append(loss.item())
    return found


def autoencoder(**overrides: Any) -> TrialConfig:
    return config(
        **{"model": "autoencoder", "widths": "8", "latent_size": 2, "loss": "mse", "input_scaling": "unit", **overrides}
    )


def losses_of(outcome: TrainResult) -> list[list[float]]:
    return [steps[0].tolist() for steps in outcome.steps]


CHOSEN = {"optimizer": "momentum", "learning_rate": 0.05, "label_smoothing": 0.1}


@pytest.mark.usefixtures("by_module")
def test_a_modules_are_those_of_a_plain_loop() -> None:
    given = config(**CHOSEN, dropout=0.3, batch_norm=True)
    on = data(given)
    expected = plain(given, on)
    assert [len(epoch) for epoch in expected] == [STEPS] * 3
    assert losses_of(one(given, on, record_steps=True)) == expected


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("batch_size", [7, 32, 100])
def test_a_stacks_are_those_of_modules(loss: str, batch_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = {"batch_size": batch_size, "loss": loss}
    configs = [
        config(**shared, **CHOSEN),
        config(**shared, optimizer="adam", widths="5", label_smoothing=0.2),
        config(**shared, optimizer="sgd", widths="40-9", learning_rate=0.1),
    ]
    on = data(configs[0])
    found = train(configs, on, TrainSettings(record_steps=True))
    monkeypatch.setattr(stack_run, "StackedLearner", lambda members, *rest, **_: ModuleLearner(members[0], *rest))
    for outcome, given in zip(found, configs, strict=True):
        expected = losses_of(one(given, on, record_steps=True))
        assert len(outcome.steps) == len(expected) == 3
        for mine, theirs in zip(losses_of(outcome), expected, strict=True):
            assert mine == pytest.approx(theirs, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("loss", ["mse", "binary_cross_entropy"])
def test_a_stacks_are_those_of_modules_that_reconstruct(loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    configs = [autoencoder(loss=loss), autoencoder(loss=loss, latent_size=3, optimizer="adam", learning_rate=0.01)]
    on = data(configs[0])
    found = train(configs, on, TrainSettings(record_steps=True))
    monkeypatch.setattr(stack_run, "StackedLearner", lambda members, *rest, **_: ModuleLearner(members[0], *rest))
    for outcome, given in zip(found, configs, strict=True):
        expected = losses_of(one(given, on, record_steps=True))
        assert [len(epoch) for epoch in expected] == [STEPS] * 3
        for mine, theirs in zip(losses_of(outcome), expected, strict=True):
            assert mine == pytest.approx(theirs, rel=1e-4, abs=1e-6)


GIVEN = [config(), autoencoder(), autoencoder(optimizer="lbfgs", learning_rate=0.01)]


@pytest.mark.parametrize("given", GIVEN, ids=["mlp", "autoencoder", "lbfgs"])
def test_they_are_what_the_epochs_row_is_the_mean_of(given: TrialConfig) -> None:
    outcome = one(given, data(given), record_steps=True)
    sizes = torch.tensor([32, 32, 32, 32, 12])
    for steps, row in zip(outcome.steps, outcome.history, strict=True):
        assert float((steps[0] * sizes).sum() / 140) == pytest.approx(row["train_loss"], rel=1e-5)


def test_the_time_of_an_epochs_training_is_divided_evenly_among_its_steps() -> None:
    outcome = one(config(), data(config()), record_steps=True)
    before = 0.0
    for steps, row in zip(outcome.steps, outcome.history, strict=True):
        ends = steps[1].tolist()
        share = ends[0] - before
        assert share > 0
        assert ends == pytest.approx([before + share * (i + 1) for i in range(STEPS)], rel=1e-3)
        assert ends[-1] <= row["seconds"]
        before = row["seconds"]


def test_they_are_kept_only_where_that_is_asked() -> None:
    assert one(config(), data(config())).steps == []


def test_of_trials_that_one_run_answers_each_keeps_its_own_epochs() -> None:
    configs = [config(epochs=epochs) for epochs in (2, 3, 1)]
    found = train(configs, data(configs[0]), TrainSettings(record_steps=True))
    assert [len(outcome.steps) for outcome in found] == [2, 3, 1]
    assert losses_of(found[0]) == losses_of(found[1])[:2]
    assert losses_of(found[2]) == losses_of(found[1])[:1]


@pytest.mark.parametrize("make", [config, autoencoder])
@pytest.mark.parametrize("optimizer", ["momentum", "adam", "lbfgs"])
def test_interrupted_at_any_moment_they_are_the_same(
    make: Callable[..., TrialConfig], optimizer: str, tmp_path: Path
) -> None:
    """Of lbfgs by a module, of the others by a stack."""
    given = make(optimizer=optimizer, learning_rate=0.01, dropout=0.3, epochs=2)
    on, path = data(given), tmp_path / "0.pt"
    whole = one(given, on, record_steps=True)
    for answers in range(1, 2 * (STEPS + 1)):
        path.unlink(missing_ok=True)
        stopped = one(given, on, CheckpointSpec(path), should_stop=stop_after(answers), record_steps=True)
        assert len(stopped.steps) == len(stopped.history)
        resumed = one(given, on, CheckpointSpec(path, resume=True), record_steps=True)
        assert losses_of(resumed) == losses_of(whole), answers
        ends = torch.cat([steps[1] for steps in resumed.steps])
        assert bool((ends.diff() >= 0).all())


def test_a_cohort_goes_on_in_the_midst_of_an_epoch(tmp_path) -> None:
    configs = [config(optimizer=optimizer, learning_rate=0.01) for optimizer in ("sgd", "momentum", "adam")]
    on = data(configs[0])
    whole = train(configs, on, TrainSettings(record_steps=True))
    train(
        configs,
        on,
        TrainSettings(should_stop=stop_after(STEPS + 4), record_steps=True),
        checkpoints=[CheckpointSpec(tmp_path / f"{i}.pt") for i in range(3)],
    )
    again = [CheckpointSpec(tmp_path / f"{i}.pt", resume=True) for i in range(3)]
    resumed = train(configs, on, TrainSettings(record_steps=True), checkpoints=again)
    assert [losses_of(outcome) for outcome in resumed] == [losses_of(outcome) for outcome in whole]


def test_a_checkpoint_without_steps_is_refused(tmp_path) -> None:
    on, path = data(config()), tmp_path / "0.pt"
    one(config(), on, CheckpointSpec(path), should_stop=stop_after(3))
    with pytest.raises(CheckpointError, match="its record_steps is False, and must be True"):
        one(config(), on, CheckpointSpec(path, resume=True), record_steps=True)
