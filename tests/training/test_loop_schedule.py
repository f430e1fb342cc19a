"""Schedules in training loops of one's own: torch's scheduler of a trial, and the rates of a stack."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import hpo
from hpo.config import registry
from hpo.config.trial_config import TrialConfig
from hpo.errors import RunError
from hpo.training.checkpoint import CheckpointSpec
from hpo.training.loop import train
from hpo.training.schedules import rate_at
from hpo.training.settings import TrainSettings
from tests.training.resumable import data, stop_after

pytestmark = pytest.mark.usefixtures("one_thread", "own_schedules")
SCORES = [0.1, 0.3, 0.2, 0.2, 0.4, 0.1]  # of the epochs, as the loop below reports them
USES = [
    *("epochs", "learning_rate", "batch_size", "optimizer", "schedule", "gamma", "warmup_steps", "plateau_patience"),
    "width",
]
STEPS = 5
SEEN: list[float] = []
SETTINGS = TrainSettings(monitor="val_accuracy")


@pytest.fixture
def own_schedules(monkeypatch):
    monkeypatch.setattr(registry.models, "_entries", dict(registry.models._entries))
    hpo.training_loop("scheduled", uses=USES)(scheduled)
    hpo.training_loop("by_hand", uses=USES)(plain)
    hpo.training_loop("in_stacks", uses=USES, stack=True)(in_stacks)
    SEEN.clear()


def scheduled(trial: hpo.Trial) -> None:
    weights = [torch.zeros(1, requires_grad=True) for _ in range(2)]
    groups = [{"params": weights[:1]}, {"params": weights[1:], "lr": 10 * trial.config.learning_rate}]
    optimizer = torch.optim.SGD(groups, lr=trial.config.learning_rate)
    schedule = trial.schedule(optimizer, STEPS)
    for epoch in trial.epochs(optimizer=optimizer, schedule=schedule):
        for _ in range(STEPS):
            SEEN.append(optimizer.param_groups[0]["lr"])
            assert optimizer.param_groups[1]["lr"] == pytest.approx(10 * SEEN[-1], rel=1e-12)
            optimizer.step()
            schedule.step()
        trial.report(val_accuracy=SCORES[epoch - 1])


def build(config: TrialConfig) -> nn.Module:
    return nn.Sequential(nn.Linear(8, config.width), nn.ReLU(), nn.Linear(config.width, 3))


def plain(trial: hpo.Trial) -> None:
    torch.manual_seed(trial.config.seed_of_init)
    model, on = build(trial.config), trial.data
    optimizer = torch.optim.Adam(model.parameters(), lr=trial.config.learning_rate)
    schedule = trial.schedule(optimizer, STEPS)
    for epoch in trial.epochs(model=model, optimizer=optimizer, schedule=schedule):
        for x, y in on.batches(trial.config.batch_size, epoch):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            schedule.step()
        trial.report(val_accuracy=SCORES[epoch - 1], val_loss=F.cross_entropy(model(on.x_val), on.y_val).item())


def in_stacks(trial: hpo.Trial) -> None:
    stack, on = trial.stack(build), trial.data
    for epoch in stack.epochs(steps=STEPS):
        for x, y in on.batches(trial.config.batch_size, epoch):
            stack.step(x, y, F.cross_entropy)
        losses = [F.cross_entropy(each, on.y_val).item() for each in stack.predict(on.x_val)]
        # Of every second trial the score rises, so that equal configurations have rates of their own.
        scores = [epoch / 10 if place % 2 else SCORES[epoch - 1] for place in range(len(stack))]
        stack.report(val_accuracy=scores, val_loss=losses)


SCHEDULES = [
    {"schedule": "exponential", "gamma": 0.8, "warmup_steps": 3},
    {"schedule": "one_cycle"},
    {"schedule": "reduce_on_plateau", "plateau_patience": 0, "gamma": 0.5},
]


@pytest.mark.parametrize("given", SCHEDULES)
@pytest.mark.parametrize("answers", [None, 4])
def test_a_scheduler_of_torch(given, answers, tmp_path):
    config = TrialConfig(model="scheduled", epochs=6, learning_rate=0.2, **given)
    on, spec = data(TrialConfig(validation=20)), CheckpointSpec(tmp_path / "0.pt")
    if answers is not None:
        train([config], on, replace(SETTINGS, should_stop=stop_after(answers)), checkpoints=[spec])
        assert 0 < len(SEEN) < 30
        spec = replace(spec, resume=True)
    train([config], on, SETTINGS, checkpoints=[spec])
    falls = [0, 0, 0, 1, 2, 2] if config.schedule == "reduce_on_plateau" else [0] * 6
    assert [rate_at(config, step, 30, falls[step // STEPS]) for step in range(30)] == SEEN


def test_a_stack_follows_the_schedule_of_each_trial():
    """As torch's Adam does under torch's scheduler; of two equal trials on a plateau, the score of one rises."""
    given = [*SCHEDULES, SCHEDULES[2], {"schedule": "constant"}]
    shared = {"epochs": 6, "width": 8, "batch_size": 32, "validation": 20}
    rates = [0.02, 0.05, 0.1, 0.1, 0.01]
    configs = [
        TrialConfig(model="in_stacks", learning_rate=rate, **shared, **each)
        for rate, each in zip(rates, given, strict=True)
    ]
    on = data(configs[0])
    found = train(configs, on, SETTINGS)
    assert found[3].config == found[2].config
    for place, outcome in enumerate(found):
        other = {"model": "by_hand", **({"schedule": "constant"} if place == 3 else {})}
        (expected,) = train([TrialConfig(**{**configs[place].effective(), **other})], on, SETTINGS)
        losses, wanted = ([row["val_loss"] for row in each.history] for each in (outcome, expected))
        assert losses == pytest.approx(wanted, rel=1e-4), configs[place]


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_rates_that_a_loop_gives_are_each_trials_own(optimizer):
    """Of trials of equal configurations too."""

    def loop(trial: hpo.Trial) -> None:
        stack, on = trial.stack(build), trial.data
        for _ in stack.epochs():
            stack.step(on.x_train, on.y_train, F.cross_entropy, rates=[0.1, 0.0])
            losses = [F.cross_entropy(each, on.y_val).item() for each in stack.predict(on.x_val)]
            stack.report(val_accuracy=0.5, val_loss=losses)

    hpo.training_loop("given", uses=USES, stack=True)(loop)
    config = TrialConfig(model="given", epochs=3, width=8, validation=20, optimizer=optimizer)
    moving, still = train([config, config], data(config), SETTINGS)
    assert len({row["val_loss"] for row in moving.history}) == 3
    assert len({row["val_loss"] for row in still.history}) == 1


@pytest.mark.parametrize(("call", "words"), [("schedule", "steps=0"), ("stack", "stack.epochs(steps=0)")])
def test_no_steps_are_one_line(call, words):
    def loop(trial: hpo.Trial) -> None:
        if call == "schedule":
            trial.schedule(torch.optim.SGD([torch.zeros(1)], 0.1), steps=0)
        else:
            next(trial.stack(build).epochs(steps=0))

    hpo.training_loop("wrong", uses=["epochs"], stack=True)(loop)
    with pytest.raises(RunError) as error:
        train([TrialConfig(model="wrong")], data(TrialConfig(validation=20)), SETTINGS)
    assert words in str(error.value)
    assert "must be at least 1" in str(error.value)


@pytest.mark.parametrize("model", ["by_hand", "in_stacks"])
def test_more_steps_than_an_epoch_has_are_refused_in_the_first_one(model, monkeypatch):
    """Beyond its end a schedule has rates below zero, or rising ones."""
    monkeypatch.setattr("tests.training.test_loop_schedule.STEPS", 3)  # there are 5 batches, the last of them smaller
    config = TrialConfig(model=model, epochs=6, width=8, batch_size=32, validation=20, schedule="linear")
    words = r"(in 1 epoch|epoch 1 has more steps); steps are those of the optimizer in an epoch, that of a smaller"
    with pytest.raises(RunError, match=rf"steps=3\): .*{words}"):
        train([config], data(config), SETTINGS)


def test_more_steps_than_all_epochs_have_are_refused_in_a_loop_without_epochs():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)

    def loop(trial: hpo.Trial) -> float:
        schedule = trial.schedule(optimizer, 2)
        for _ in range(7):
            optimizer.step()
            schedule.step()
        return 0.5

    hpo.training_loop("steps", uses=USES)(loop)
    config = TrialConfig(model="steps", epochs=3, learning_rate=0.1, schedule="linear")
    with pytest.raises(RunError, match=r"trial.schedule\(…, steps=2\): was stepped 7 times in 3 epochs"):
        train([config], data(config), SETTINGS)
