"""A cohort is a set of stacks in lockstep, each of which trains as by itself."""

from dataclasses import replace

import pytest

from hpo.config.trial_config import TrialConfig
from hpo.training.callbacks import Callback
from hpo.training.checkpoint import CheckpointSpec
from hpo.training.loop import train
from hpo.training.settings import TrainSettings
from tests.training.resumable import EVERYTHING, bits, config, data, stop_after

pytestmark = pytest.mark.usefixtures("one_thread")


class Rounds(Callback):
    """What a cohort tells, in its order; it stops the members of `ends` after their first round."""

    def __init__(self, ends=()):
        self.told, self.ends = [], ends

    def on_epoch(self, member, metrics):
        self.told.append((member.number, int(metrics["epoch"])))

    def on_round(self, members):
        self.told.append([member.number for member in members])
        for member in members:
            if member.number in self.ends:
                member.stop("pruned")

    def on_end(self, member, outcome):
        self.told.append((member.number, outcome.status))


def mixed_cohort() -> list[TrialConfig]:
    return [config(epochs=2), config(epochs=2, batch_size=16), config(optimizer="lbfgs", learning_rate=0.1)]


def test_stacks_train_in_lockstep_and_are_judged_once_a_round():
    rounds = Rounds(ends=(1,))
    train(mixed_cohort(), data(config()), TrainSettings(callbacks=[rounds]))
    first = [(0, 1), (1, 1), (2, 1), [0, 1, 2], (1, "pruned")]
    assert rounds.told == [*first, (0, 2), (0, "completed"), (2, 2), [2], (2, 3), (2, "completed")]


def test_members_of_a_mixed_cohort_train_as_alone():
    together = train(mixed_cohort(), data(config()))
    for found, each in zip(together, mixed_cohort(), strict=True):
        assert bits(found) == bits(train([each], data(each))[0])


@pytest.mark.parametrize("answers", [2, 7, 12, 20, 33])
def test_a_mixed_cohort_goes_on_from_where_each_stack_was(answers, tmp_path):
    configs = [config(**EVERYTHING), config(**EVERYTHING, batch_size=16), config(optimizer="lbfgs", learning_rate=0.1)]
    on, specs = data(configs[0]), [CheckpointSpec(tmp_path / f"{number}.pt") for number in range(3)]
    stopped = train(configs, on, TrainSettings(should_stop=stop_after(answers)), checkpoints=specs)
    assert {each.status for each in stopped} == {"interrupted"}
    again = [replace(spec, resume=True) for spec in specs]
    train(configs, on, TrainSettings(should_stop=stop_after(4)), checkpoints=again)
    found = train(configs, on, checkpoints=again)
    assert [bits(each) for each in found] == [bits(each) for each in train(configs, on)]


def test_each_configuration_gets_its_own_data():
    configs = [config(epochs=1, seed=seed, split_seed=seed) for seed in (1, 2, 3)]
    apart = [bits(train([each], data(each))[0]) for each in configs]
    assert [bits(each) for each in train(configs, data)] == apart
    assert [bits(each) for each in train(configs, [data(each) for each in configs])] == apart
