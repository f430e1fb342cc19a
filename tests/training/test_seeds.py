"""Seeds apart: the split, the order of the data with its noise, and the initial weights each follow from their own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hpo.config.cohort_key import batch_key
from hpo.config.trial_config import TrialConfig
from hpo.datasets import Dataset, DatasetReference
from hpo.errors import ConfigError
from hpo.training.data_cache import DataCache
from hpo.training.loop import train
from hpo.training.models import build_model
from hpo.training.stacked.gain import change_seed
from hpo.training.stacked.learner import StackedLearner
from hpo.training.stacked.noise import noise_key, noise_seed
from tests.training.resumable import CPU, X, Y, bits, config, data

pytestmark = pytest.mark.usefixtures("one_thread")
SPLIT, ORDER, INIT = {"split_seed": 7}, {"order_seed": 7}, {"init_seed": 7}
HELD = {"split_seed": 1, "order_seed": 1, "init_seed": 1}


def weights(given: TrialConfig) -> list[torch.Tensor]:
    return [each.detach() for each in build_model(given, (8,), 3).parameters()]


def traits(given: TrialConfig) -> tuple[bytes, bytes, bytes, int]:
    """Return the samples of the split, their order, the initial weights, and the seed of the noise."""
    on = data(given)
    order, noise = on.order(1), noise_seed(noise_key(given), 5)
    first = b"".join(each.numpy().tobytes() for each in weights(given))
    return on.x_val.numpy().tobytes(), order.numpy().tobytes(), first, noise


@pytest.mark.parametrize(("other", "changed"), [(SPLIT, {0}), (ORDER, {1}), (INIT, {2})])
def test_each_seed_changes_what_it_is_the_seed_of_and_nothing_else(other, changed):
    held, moved = traits(config(**HELD)), traits(config(**{**HELD, **other}))
    assert {place for place in range(3) if held[place] != moved[place]} == changed
    assert held[3] == moved[3] == traits(config(**HELD, seed=99))[3]  # with the epoch's seed, which order_seed decides


def test_by_default_the_seed_decides_all_of_them():
    plain = config(seed=1)
    assert (plain.seed_of_split, plain.seed_of_order, plain.seed_of_init) == (1, 1, 1)
    assert traits(plain)[:3] == traits(config(**HELD))[:3]
    assert all(a != b for a, b in zip(traits(plain)[:3], traits(config(seed=2))[:3], strict=True))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_with_all_seeds_given_the_seed_itself_says_nothing(dropout):
    configs = [config(dropout=dropout, seed=seed, **HELD) for seed in (1, 2)]
    first, second = (bits(train([each], data(each))[0]) for each in configs)
    assert first == second


def test_other_weights_on_the_same_batches_are_one_stream_and_train_as_alone(monkeypatch):
    streams = []
    build = StackedLearner.__init__

    def record(self, members, *rest, feeds=None, **keywords):
        streams.append(1 if feeds is None else len({feed.stream for feed in feeds}))
        build(self, members, *rest, feeds=feeds, **keywords)

    monkeypatch.setattr(StackedLearner, "__init__", record)
    cache = DataCache(DatasetReference(name="x"), CPU)
    cache._dataset = Dataset((X, Y), classes=3)
    configs = [config(dropout=0.2, **{**HELD, "init_seed": seed}) for seed in (1, 2, 3)]
    assert len({batch_key(each) for each in configs}) == 1
    found = train(configs, [cache.get(each) for each in configs])
    assert streams == [1]
    assert len({repr(each.history[-1]["val_loss"]) for each in found}) == 3
    for outcome, each in zip(found, configs, strict=True):
        (expected,) = train([each], data(each))
        assert outcome.history[-1]["val_loss"] == pytest.approx(expected.history[-1]["val_loss"], rel=1e-4)


def test_other_orders_are_streams_of_their_own():
    keys = {batch_key(config(**{**HELD, "order_seed": seed})) for seed in (1, 2)}
    assert len(keys) == 2
    one, other = (data(config(**{**HELD, "order_seed": seed})) for seed in (1, 2))
    assert not np.array_equal(one.order(1), other.order(1))
    assert torch.equal(one.x_train, other.x_train)


def test_a_probe_has_other_weights_whatever_the_seeds_are():
    given = config(**HELD)
    probe = change_seed(given, 1)
    assert not torch.equal(weights(given)[0], weights(probe)[0])


def test_names_are_refused_below_zero():
    with pytest.raises(ConfigError, match="init_seed"):
        config(init_seed=-1)
