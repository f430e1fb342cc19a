"""Memory that a learner gives for its batches: samples are gathered into it, and what they train is the same."""

from __future__ import annotations

import pytest
import torch

from hpo.config.trial_config import TrialConfig
from hpo.training.member import Member
from hpo.training.stacked.learner import StackedLearner
from tests.training.resumable import CPU, config, data

pytestmark = pytest.mark.usefixtures("one_thread")


def train_epoch(configs: list[TrialConfig], *, room: bool) -> list[dict[str, torch.Tensor]]:
    on = data(configs[0])
    members = [Member(each, number) for number, each in enumerate(configs)]
    learner = StackedLearner(members, on.shape, on.classes, CPU)
    torch.manual_seed(0)
    steps = on.steps(configs[0].batch_size)
    learner.begin_epoch(0, [[0.1] * steps] * len(configs))
    for batch in on.batches(configs[0].batch_size, 1, learner.room if room else None):
        learner.step(*batch)
    learner.end_epoch()
    return [learner.weights(member) for member in members]


@pytest.mark.parametrize(
    "others",
    [[], [{"optimizer": "adam", "widths": "100-4"}]],
    ids=["one stack", "two stacks, whose steps are postponed"],
)
def test_batches_in_the_learners_memory_train_the_same_bits(others: list[dict[str, object]]) -> None:
    configs = [config(optimizer="sgd", dropout=0.2), *(config(**each) for each in others)]
    copied, gathered = (train_epoch(configs, room=room) for room in (False, True))
    for one, other in zip(copied, gathered, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_samples_lie_where_the_stack_reads_them() -> None:
    given = config()
    on = data(given)
    learner = StackedLearner([Member(given, 0)], on.shape, on.classes, CPU)
    room = learner.room(given.batch_size)
    x, *_ = next(on.batches(given.batch_size, 1, learner.room))
    assert x.shape == (given.batch_size, *on.shape)
    assert x.data_ptr() == room.data_ptr()
    assert torch.equal(x, next(on.batches(given.batch_size, 1))[0])
