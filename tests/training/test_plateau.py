"""Learning rates that fall where the objective stagnates: each trial's own, alone, in stacks, and resumed."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim.lr_scheduler import ReduceLROnPlateau

from hpo.config.trial_config import TrialConfig
from hpo.training.checkpoint import CheckpointSpec
from hpo.training.loop import train
from hpo.training.member import TrainResult
from hpo.training.schedules import falls_so_far, rate_at
from hpo.training.settings import TrainSettings
from tests.training.resumable import EVERYTHING, bits, config, data, one, stop_after
from tests.training.test_stacked import Prunes, alone, assert_close, doubled, in_float64

__all__ = ["in_float64"]
pytestmark = pytest.mark.usefixtures("one_thread")
LOSS = {"monitor": "val_loss", "direction": "minimize"}


def plateau(**parameters) -> TrialConfig:
    """Eight epochs at rates so high that the loss of validation stagnates now and then."""
    fixed = {"schedule": "reduce_on_plateau", "plateau_patience": 0, "gamma": 0.5, "epochs": 8, "batch_size": 16}
    return config(**{**fixed, "optimizer": "adam", "learning_rate": 0.3, **parameters})


def rates_of_torch(outcome: TrainResult, monitor: str, direction: str) -> list[float]:
    own = outcome.config
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=own.learning_rate)
    scheduler = ReduceLROnPlateau(
        optimizer, direction[:3], own.gamma, own.plateau_patience, own.min_delta or 0, "abs", eps=0
    )
    rates = []
    for row in outcome.history:
        scheduler.step(row[monitor])
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


@settings(deadline=None)  # torch's first scheduler takes longer
@given(
    floor=st.sampled_from([1e-3, 1e-2, 0.1, 0.3, 1.0]),
    rate=st.sampled_from([1e-3, 1e-2, 0.3]),
    losses=st.lists(st.floats(0, 2), min_size=8, max_size=8),
)
def test_the_final_rate_is_torchs_min_lr_on_either_side_of_the_rate(floor, rate, losses):
    """A rate that begins below it stays where it is."""
    config = plateau(learning_rate=rate, final_learning_rate=floor)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=rate)
    scheduler = ReduceLROnPlateau(optimizer, "min", 0.5, 0, 0, "abs", min_lr=floor, eps=0)
    rows: list[dict[str, float]] = []
    for epoch, loss in enumerate(losses, 1):
        scheduler.step(loss)
        rows.append({"val_loss": loss})
        falls = falls_so_far(config, rows, **LOSS)
        assert rate_at(config, epoch, 8, falls) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)


@pytest.mark.usefixtures("in_float64")
def test_each_member_of_a_stack_has_its_own():
    each_has = [
        {},
        {},
        {"plateau_patience": 1},
        {"min_delta": 0.05},
        {"optimizer": "momentum"},
        {"final_learning_rate": 0.1},
    ]
    configs = [plateau(**each, init_seed=i, warmup_epochs=0.5) for i, each in enumerate(each_has)]
    on = doubled(data(configs[0]))
    found = train(configs, on, TrainSettings(**LOSS))
    rates = [[row["learning_rate"] for row in outcome.history] for outcome in found]
    for outcome, expected, own in zip(found, alone(configs, on, **LOSS), rates, strict=True):
        assert_close(outcome, expected, 1e-8)
        floor = outcome.config.final_learning_rate or 0
        assert own == pytest.approx([max(rate, floor) for rate in rates_of_torch(outcome, *LOSS.values())], rel=1e-12)
    assert all(own[-1] < 0.3 for own in rates)
    assert rates[0] != rates[1]  # so that one member's fall is not the other's


@pytest.mark.parametrize("monitor", [LOSS, {"monitor": "epoch"}, {}])
def test_goes_on_from_its_checkpoint(monitor, tmp_path):
    """Watching the loss of validation, of training where there is none to watch, and the accuracy."""
    given = plateau(batch_size=64, **EVERYTHING)
    on, path = data(given), tmp_path / "0.pt"
    expected = one(given, on, **monitor)
    assert expected.history[-2]["learning_rate"] < 0.3
    for answers in (8, 16, 26):
        stopped = one(given, on, CheckpointSpec(path), should_stop=stop_after(answers), **monitor)
        assert stopped.status == "interrupted"
        assert bits(one(given, on, CheckpointSpec(path, resume=True), **monitor)) == bits(expected)


def test_goes_on_from_the_checkpoints_of_a_stack(tmp_path):
    configs = [plateau(init_seed=i, batch_size=64) for i in range(3)]
    on, specs = data(configs[0]), [CheckpointSpec(tmp_path / f"{number}.pt") for number in range(3)]
    train(configs, on, TrainSettings(**LOSS, should_stop=stop_after(13)), checkpoints=specs)
    again = train(configs, on, TrainSettings(**LOSS), checkpoints=[replace(spec, resume=True) for spec in specs])
    assert [bits(each) for each in again] == [bits(each) for each in train(configs, on, TrainSettings(**LOSS))]


def test_without_validation_the_loss_of_training_falls_it():
    given = plateau(validation=0)
    outcome = one(given, data(given))
    rates = [row["learning_rate"] for row in outcome.history]
    assert rates == pytest.approx(rates_of_torch(outcome, "train_loss", "minimize"))
    assert rates[-1] < 0.3


def test_one_of_two_equal_trials_may_be_pruned():
    """They are one run; the rate of the other goes on falling."""
    given = plateau()
    on = data(given)
    pruned, whole = train([given, given], on, TrainSettings(**LOSS, callbacks=[Prunes(_0=2)]))
    assert pruned.status == "pruned"
    assert bits(whole) == bits(one(given, on, **LOSS))
    assert whole.history[-1]["learning_rate"] < whole.history[2]["learning_rate"]


def test_patience_with_a_least_improvement():
    """The best epoch is the best one all the same."""
    given = config(epochs=30, learning_rate=0.001, patience=3, min_delta=0.05)
    outcome = one(given, data(given), **LOSS)
    losses = [row["val_loss"] for row in outcome.history]
    assert outcome.status == "early_stopped"
    assert losses == sorted(losses, reverse=True)  # which no patience without it would have ended
    assert outcome.best_epoch == len(losses)
    reference = losses[0]
    for loss in losses[1:-3]:
        reference = loss if loss < reference - 0.05 else reference
    assert all(loss >= reference - 0.05 for loss in losses[-3:])
