"""Accumulated gradients: a step along those of several batches is the step of one batch of all of them."""

import pytest
import torch

from hpo.config.cohort_key import stack_key
from hpo.config.trial_config import TrialConfig
from hpo.training import stack_run
from hpo.training.batch_group import BatchGroup
from hpo.training.checkpoint import CheckpointSpec
from hpo.training.learner import ModuleLearner
from hpo.training.loop import train
from hpo.training.settings import TrainSettings
from hpo.training.stacked import check
from hpo.training.stacked.check import Timing
from tests.training.resumable import EVERYTHING, bits, config, data, one, stop_after
from tests.training.test_own_model_stacks import own, own_models
from tests.training.test_stacked import alone, assert_close, doubled, in_float64
from tests.training.test_stacked_modules import data as six_numbers

__all__ = ["in_float64", "own_models"]
pytestmark = pytest.mark.usefixtures("one_thread")
# 140 samples: four whole groups and 12 samples, which are two batches of 8 and 4.
PARTS, WHOLE = {"batch_size": 8, "gradient_accumulation": 4}, {"batch_size": 32}
SETTINGS = [
    {"optimizer": "sgd", "learning_rate": 0.1},
    {"optimizer": "nesterov", "gradient_clip": 0.2, "schedule": "cosine", "warmup_steps": 3},
    {"optimizer": "adam", "weight_decay": 0.01, "class_weight": "balanced", "schedule": "one_cycle"},
    {"optimizer": "nadam", "loss": "mse", "schedule": "step", "step_epochs": 1, "gamma": 0.5},
    {"optimizer": "rmsprop", "schedule": "linear", "warmup_epochs": 0.4, "layer_learning_rate_decay": 0.7},
]


def both(**given) -> tuple[TrialConfig, TrialConfig]:
    return config(**given, **PARTS), config(**given, **WHOLE)


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("given", SETTINGS)
def test_alone(given):
    parts, whole = both(**given)
    on = doubled(data(parts))
    (found,), (expected,) = alone([parts], on), alone([whole], doubled(data(whole)))
    assert_close(found, expected, 1e-9)
    assert [row["learning_rate"] for row in found.history] == [row["learning_rate"] for row in expected.history]


@pytest.mark.usefixtures("in_float64")
def test_stacked():
    parts, whole = zip(
        *(both(**{**given, "class_weight": "none"}, widths=f"{6 + i}") for i, given in enumerate(SETTINGS)), strict=True
    )
    for found, expected in zip(
        train(parts, doubled(data(parts[0]))), train(whole, doubled(data(whole[0]))), strict=True
    ):
        assert_close(found, expected, 1e-9)


@pytest.mark.usefixtures("in_float64")
def test_stacked_with_batches_of_their_own():
    """Last batches of unequal sizes too: of 140, 141 and 143 samples."""
    configs = [config(**PARTS, order_seed=i, validation=20 - i * (i + 1) // 2, optimizer="adam") for i in range(3)]
    on = [doubled(data(each)) for each in configs]
    expected = [outcome for each, own_data in zip(configs, on, strict=True) for outcome in alone([each], own_data)]
    for found, each in zip(train(configs, on), expected, strict=True):
        assert_close(found, each, 1e-9)


@pytest.mark.usefixtures("in_float64", "own_models")
@pytest.mark.parametrize("model", ["own", "own_noisy"])
def test_stacked_models_of_ones_own(model, monkeypatch):
    monkeypatch.setattr(check, "measure_gain", lambda *_: Timing(2.0, 1.0))
    configs = [own(model, gradient_accumulation=3, learning_rate=0.01 * (i + 1), optimizer="adam") for i in range(3)]
    on = doubled(six_numbers(configs[0]))
    for found, expected in zip(train(configs, on), alone(configs, on), strict=True):
        assert_close(found, expected, 1e-9)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("learner", ["stacked", "alone"])
def test_goes_on_from_its_checkpoint(optimizer, learner, tmp_path, monkeypatch):
    """It is asked to stop before each step of the optimizer alone."""
    given = config(**PARTS, optimizer=optimizer, **EVERYTHING)
    on, path = data(given), tmp_path / "0.pt"
    run = (
        (lambda spec=None, **keywords: one(given, on, spec, **keywords))
        if learner == "stacked"
        else (lambda spec=None, **keywords: alone_with(given, on, spec, **keywords))
    )
    expected, asked = bits(run()), []
    run(should_stop=lambda: asked.append(0) or False)
    assert len(asked) == 3 * 5
    for answers in (1, 8, 12):
        stopped = run(CheckpointSpec(path), should_stop=stop_after(answers))
        assert stopped.status == "interrupted"
        assert bits(run(CheckpointSpec(path, resume=True))) == expected


def alone_with(given, on, spec, **keywords):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stack_run, "StackedLearner", lambda members, *rest, **_: ModuleLearner(members[0], *rest))
        (outcome,) = train([given], on, TrainSettings(**keywords), checkpoints=[spec])
    return outcome


def test_trials_of_other_groups_are_other_stacks():
    keys = [stack_key(config(gradient_accumulation=batches)) for batches in (None, 1, 4)]
    assert keys[0] == keys[1] != keys[2]
    assert keys[0] == ("mlp", "classification", 32)


def test_a_mean_over_members_with_samples_of_their_own():
    group = BatchGroup(TrialConfig(batch_size=4, gradient_accumulation=3))
    assert not group.begun
    group.add(4)
    group.add(torch.tensor([4, 2]))
    assert (group.begun, group.whole, group.share(4)) == (True, False, 1 / 3)
    assert torch.equal(group.correction, torch.tensor([12 / 8, 12 / 6]))
    group.clear()
    assert not group.begun
