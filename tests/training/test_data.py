"""Splits, scaling and the order of the data."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from hpo import datasets
from hpo.config import registry
from hpo.config.resampling import Division, Resampling
from hpo.config.trial_config import TrialConfig
from hpo.datasets import Dataset, DatasetReference, Feature, divide_rows, split_rows
from hpo.datasets.table_encoder import TableEncoder
from hpo.errors import ConfigError, DataError
from hpo.training.data import epoch_seed, prepare_data
from hpo.training.data_cache import DataCache
from hpo.training.loop import train
from hpo.training.settings import TrainSettings

CPU = torch.device("cpu")
RNG = np.random.default_rng(0)
LABELS = np.arange(60) % 3


def split(y, share, seed):
    return split_rows(y, share, seed, "classification")


def prepared(x, y=None, test=None, **parameters):
    labels = np.arange(len(x)) % 3 if y is None else y
    config = TrialConfig(**{"validation": 12, **parameters})
    return prepare_data(Dataset((x, labels), test, classes=3), config, CPU)


# ---- the split


@given(
    counts=st.lists(st.integers(0, 40), min_size=2, max_size=6),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**32 - 1),
    as_count=st.booleans(),
)
def test_split_is_stratified_disjoint_and_exact(counts, share, seed, as_count):
    y = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    wanted = round(share * len(y))
    assume(1 <= wanted <= sum(max(count - 1, 0) for count in counts))
    train, validation = split(y, wanted if as_count else share, seed)
    assert len(validation) == wanted
    assert sorted([*train, *validation]) == list(range(len(y)))
    taken = np.bincount(y[validation], minlength=len(counts))
    for label, count in enumerate(counts):
        assert count == 0 or taken[label] < count
    if all(wanted * count / len(y) <= count - 1 for count in counts if count):
        assert all(abs(taken[label] - wanted * count / len(y)) < 1 for label, count in enumerate(counts))


def test_split_follows_from_the_seed_alone():
    one, again, other = (split(LABELS, 0.3, seed)[1].tolist() for seed in (1, 1, 2))
    assert one == again != other


def test_a_single_sample_of_a_class_stays_in_training():
    y = np.array([0] * 10 + [1])
    assert split(y, 9, 0)[0].tolist()[-1] == 10


@pytest.mark.parametrize("validation", [1.5, 58, 0.001, 0.99])
def test_impossible_split(validation):
    with pytest.raises(ConfigError, match="validation = "):
        split(LABELS, validation, 0)


def test_mnist_default_split():
    data = DataCache(datasets.make_reference("mnist"), CPU).get(TrialConfig())
    assert (len(data.y_train), len(data.y_val), data.shape, data.classes) == (50_000, 10_000, (1, 28, 28), 10)
    assert data.x_train.mean().item() == pytest.approx(0, abs=1e-4)
    assert data.x_train.std().item() == pytest.approx(1, abs=1e-4)


# ---- layouts and scaling


def test_layouts():
    grey, colour, flat = RNG.random((60, 4, 5)), RNG.random((60, 4, 5, 3)), RNG.random((60, 7))
    assert prepared(grey).shape == (1, 4, 5)
    assert prepared(colour).shape == (3, 4, 5)
    assert prepared(flat).shape == (7,)
    assert prepared(torch.from_numpy(grey)).shape == (1, 4, 5)
    first = prepared(torch.from_numpy(colour).permute(0, 3, 1, 2))
    assert torch.equal(first.x_train, prepared(colour).x_train)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3), (7,)])
def test_standard_scaling(shape):
    x = RNG.normal(5, 3, (60, *shape)).astype(np.float32)
    data = prepared(x)
    others = [axis for axis in range(data.x_train.ndim) if axis != 1]
    torch.testing.assert_close(data.x_train.mean(others), torch.zeros(data.shape[0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(data.x_train.std(others, correction=0), torch.ones(data.shape[0]), atol=1e-5, rtol=0)


def test_scaling_comes_from_the_training_split_alone():
    x = np.zeros((60, 2))
    train, validation = split(LABELS, 12, 0)
    x[train], x[validation] = RNG.normal(size=(48, 2)), 1000.0
    data = prepared(x, LABELS, test=lambda: (x[validation], LABELS[validation]))
    expected = (1000 - x[train].mean(0)) / x[train].std(0)
    np.testing.assert_allclose(data.x_val[0].numpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(data.test()[0][0].numpy(), expected, rtol=1e-5)


def test_constant_feature_is_not_divided_by_zero():
    assert torch.equal(prepared(np.ones((60, 2))).x_train, torch.zeros(48, 2))


@pytest.mark.parametrize("kind", ["bool", "int64", "uint16", "float16", "float64"])
def test_every_kind_of_number(kind):
    x = (np.arange(120).reshape(60, 2) % 2).astype(kind)
    data = prepared(x)
    assert data.x_train.dtype == torch.float32
    assert data.x_train.unique().tolist() == [0.0]  # each of the two features is constant


@pytest.mark.parametrize(("kind", "low", "high"), [("unit", 0, 1), ("symmetric", -1, 1)])
def test_ranges(kind, low, high):
    floats = prepared(RNG.normal(size=(60, 3)), input_scaling=kind).x_train
    torch.testing.assert_close(floats.amin(0), torch.full((3,), float(low)))
    torch.testing.assert_close(floats.amax(0), torch.full((3,), float(high)))
    grey = np.full((60, 2, 2), 51, np.uint8)
    assert prepared(grey, input_scaling=kind).x_train.unique().item() == pytest.approx(low + (high - low) * 51 / 255)


# ---- the order


def test_every_epoch_sees_each_sample_once_in_its_own_order():
    data = prepared(np.arange(60.0)[:, None])
    epochs = [[x for x, _ in data.batches(10, epoch)] for epoch in (1, 2, 1)]
    assert len(epochs[0]) == data.steps(10) == 5
    first, second, again = (torch.cat(batches).flatten() for batches in epochs)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert torch.equal(first.sort().values, second.sort().values)


def test_labels_stay_with_their_samples():
    x = LABELS.astype(float)[:, None]
    data = prepared(x, LABELS, input_scaling="unit")
    for batch, y in data.batches(7, 3):
        assert torch.equal(batch.flatten() * 2, y.float())


@pytest.mark.parametrize(("batch_size", "sizes"), [(47, [47]), (46, [46, 2]), (100, [48]), (1, [1] * 48)])
def test_a_last_batch_of_one_sample_is_left_out(batch_size, sizes):
    data = prepared(np.zeros((60, 1)))
    assert [len(y) for _, y in data.batches(batch_size, 1)] == sizes
    assert data.steps(batch_size) == len(sizes)


def test_epoch_seeds_differ():
    assert len({epoch_seed(seed, epoch) for seed in range(20) for epoch in range(20)}) == 400


# ---- validation and test given, batches


def test_given_validation():
    x = RNG.normal(size=(60, 2))
    data = prepare_data(Dataset((x, LABELS), validation=(x[:6], LABELS[:6]), classes=3), TrialConfig(), CPU)
    assert (len(data.y_train), len(data.y_val)) == (60, 6)
    torch.testing.assert_close(data.x_val, data.x_train[:6])


def test_test_set_is_read_on_call_only():
    calls = []

    def test():
        calls.append(1)
        return np.zeros((6, 2)), np.array([0, 1, 2] * 2)

    data = prepared(np.zeros((60, 2)), test=test)
    assert not calls
    assert data.test()[0].shape == (6, 2)
    assert calls == [1]


@pytest.mark.parametrize(
    ("test", "words"),
    [
        (None, "has no test set"),
        ((np.zeros((6, 3)), np.zeros(6, int)), "not \\(2,\\) as train"),
        ((np.zeros((6, 2)), np.arange(6)), "labels from 0 to 5"),
    ],
)
def test_faulty_test_set(test, words):
    with pytest.raises(DataError, match=words):
        prepared(np.zeros((60, 2)), test=test).test()


def streaming(x, **changes):
    batches = [(x[i : i + 20], LABELS[i : i + 20]) for i in (0, 20, 40)]
    return Dataset(batches, validation=batches[:2], **{"classes": 3, **changes})


def test_batches_come_as_they_are():
    x = RNG.normal(5, 1, size=(60, 2)).astype(np.float32)
    data = prepare_data(streaming(x, test=(x[:4], LABELS[:4])), TrialConfig(), CPU)
    got = list(data.batches(128, 1))
    assert data.steps(128) == len(got) == 3
    assert torch.equal(torch.cat([batch for batch, _ in got]), torch.from_numpy(x))
    assert torch.equal(data.x_val, torch.from_numpy(x[:40]))
    assert torch.equal(data.test()[0], torch.from_numpy(x[:4]))


@pytest.mark.parametrize(("kind", "value"), [("standard", 0.2), ("unit", 0.2), ("symmetric", -0.6)])
def test_bytes_of_batches_are_scaled(kind, value):
    data = prepare_data(streaming(np.full((60, 2, 2), 51, np.uint8)), TrialConfig(input_scaling=kind), CPU)
    batch, _ = next(data.batches(1, 1))
    torch.testing.assert_close(batch, torch.full((20, 1, 2, 2), value))


def test_batches_of_read_only_arrays(recwarn):
    x = np.arange(60.0)[::-1].reshape(60, 1)
    x.setflags(write=False)
    data = prepare_data(streaming(x), TrialConfig(), CPU)
    assert next(data.batches(1, 1))[0][0].item() == 59
    assert not recwarn.list


def test_wrong_labels_in_a_batch():
    data = prepare_data(streaming(np.zeros((60, 2)), classes=3), TrialConfig(), CPU)
    data.classes = 2
    with pytest.raises(DataError, match="labels from 0 to 2"):
        list(data.batches(1, 1))


# ---- the cache


def test_cache_keeps_the_last_split_and_reads_once():
    reads = []

    def own():
        reads.append(1)
        return Dataset((RNG.normal(size=(60, 2)), LABELS))

    before = dict(registry.datasets._entries)
    try:
        registry.dataset("own")(own)
        cache = DataCache(DatasetReference(name="own", module=__name__), CPU)
        first = cache.get(TrialConfig(seed=1))
        assert cache.get(TrialConfig(seed=1, learning_rate=0.5)) is first
        assert cache.get(TrialConfig(seed=2)) is not first
        assert cache.get(TrialConfig(seed=2, validation=0.5)).y_val.shape == (30,)
        assert reads == [1]
    finally:
        registry.datasets._entries.clear()
        registry.datasets._entries.update(before)


# ---- fits


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_the_data_of_a_fold_are_those_prepared_by_hand(task):
    x = RNG.normal(3, 2, size=(60, 5)).astype(np.float32)
    y = LABELS if task == "classification" else x[:, :1] * 2
    weights = np.linspace(1, 2, 60).astype(np.float32)
    dataset = Dataset((x, y), task=task, classes=3 if task == "classification" else 1, weights=weights)
    config = TrialConfig(seed=4, task=task)
    for fit in Resampling(folds=3, repeats=2).fits:
        data = prepare_data(dataset, fit.config(config), CPU, division=fit.division)
        train, held = divide_rows(y, fit.division, 4, task)
        scale = x[train].std(0, dtype=np.float64)
        expected = (x - x[train].mean(0, dtype=np.float64)) / scale
        np.testing.assert_allclose(data.x_train, expected[train], atol=1e-5)
        np.testing.assert_allclose(data.x_val, expected[held], atol=1e-5)
        np.testing.assert_array_equal(data.val_index, held)
        np.testing.assert_allclose(data.weights, weights[train] / weights[train].mean(), atol=1e-5)
        assert data.division == fit.division
        assert data.seed == fit.config(config).seed
        if task == "classification":
            np.testing.assert_array_equal(data.y_val, y[held])
        else:
            np.testing.assert_allclose(data.to_targets(data.y_val), y[held], atol=1e-4)


def test_folds_divide_the_training_samples_alone():
    x, own = RNG.normal(size=(60, 2)).astype(np.float32), RNG.normal(size=(6, 2)).astype(np.float32)
    dataset = Dataset((x, LABELS), classes=3, validation=(own, LABELS[:6]), test=(own, LABELS[:6]))
    data = prepare_data(dataset, TrialConfig(validation=0), CPU, division=Division("fold", 5, 0))
    assert (len(data.y_train), len(data.y_val), data.dataset.validation) == (48, 12, None)
    assert len(data.test()[1]) == 6


def test_batches_cannot_be_divided():
    part = (np.zeros((4, 2), np.float32), np.arange(4) % 2)
    dataset = Dataset([part], classes=2, validation=part)
    with pytest.raises(DataError, match="data set: its training data are batches, which cannot be divided"):
        prepare_data(dataset, TrialConfig(), CPU, division=Division("fold", 2, 0))


def test_the_cache_shares_a_division_between_seeds_and_trials_and_forgets_it_after_them():
    cache = DataCache(datasets.make_reference("sklearn:wine"), CPU)
    config = TrialConfig(seed=1)
    fits = Resampling(folds=3, seeds=2).fits
    held = [cache.get(fit.config(config), fit.division) for fit in fits]
    assert len({id(data.x_train) for data in held}) == 3
    assert [data.x_train is other.x_train for data, other in zip(held[:3], held[3:], strict=True)] == [True] * 3
    assert [data.seed for data in held] == [fit.config(config).seed for fit in fits]
    other_validation = TrialConfig(seed=1, validation=0.3, learning_rate=0.5)
    assert all(cache.get(other_validation, fits[i].division) is held[i] for i in range(3))
    assert cache.get(config) is not held[0]
    assert len({data.digest for data in held}) == 3
    del held
    cache.get(config)
    assert len(cache._in_use) == 1


def test_the_digest_tells_folds_of_equal_labels_apart():
    x, y = np.tile(np.arange(8, dtype=np.uint8)[:, None], (1, 4)), np.zeros(8, np.int64)
    folds = [
        prepare_data(
            Dataset((x, y), classes=2), TrialConfig(input_scaling="unit"), CPU, division=Division("fold", 2, i)
        )
        for i in range(2)
    ]
    assert folds[0].digest != folds[1].digest


# ---- tables

TABLE = (
    Feature(name="rooms", column="rooms", missing=True),
    Feature(name="colour", column="colour", kind="category", missing=True, categories=("red", "blue")),
    Feature(name="price", column="price"),
)


def table(rows=60):
    rng = np.random.default_rng(1)
    x = np.stack([rng.normal(5, 3, rows), rng.integers(0, 3, rows), rng.lognormal(0, 1, rows)], 1).astype(np.float32)
    x[::5, 0], x[1::7, 1] = np.nan, np.nan
    return x


def prepared_table(x, test=None, **parameters):
    dataset = Dataset((x, LABELS), test, classes=3, features=TABLE)
    return prepare_data(dataset, TrialConfig(**{"validation": 12, **parameters}), CPU)


def test_a_table_is_encoded_by_its_training_part():
    x, (train, validation) = table(), split(LABELS, 12, 0)
    data = prepared_table(x, test=(x[:5], LABELS[:5]))
    assert data.scaling is None
    assert (data.shape, data.shape.categories) == ((4,), (4,))
    expected = TableEncoder.fit(x, train, TABLE, "standard")
    assert data.encoder == expected
    np.testing.assert_array_equal(data.x_train.numpy(), expected.apply(x, train))
    np.testing.assert_array_equal(data.x_val.numpy(), expected.apply(x, validation))
    np.testing.assert_array_equal(data.test()[0].numpy(), expected.apply(x[:5]))
    assert torch.equal(prepared_table(torch.from_numpy(x)).x_train, data.x_train)


def test_the_scaling_of_a_table_is_numeric_scaling_where_it_is_given():
    x, (train, _) = table(), split(LABELS, 12, 0)
    for numeric, kind in ((None, "unit"), ("quantile", "quantile")):
        data = prepared_table(x, input_scaling="unit", numeric_scaling=numeric)
        assert data.encoder == TableEncoder.fit(x, train, TABLE, kind)


def test_the_digest_of_a_table_covers_its_encoder():
    one, same, other = (prepared_table(table(), numeric_scaling=kind).digest for kind in ("robust", "robust", None))
    assert one == same != other


def test_a_model_gets_the_shape_with_its_categories(monkeypatch):
    monkeypatch.setattr(registry.models, "_entries", dict(registry.models._entries))
    data = prepared_table(table())
    seen = []

    @registry.model("sees_shape")
    def build(config, shape, classes):
        seen.append(shape.categories)
        return torch.nn.Linear(shape[0], classes)

    (result,) = train([TrialConfig(model="sees_shape", epochs=1)], data, TrainSettings())
    assert result.history
    assert set(seen) == {(4,)}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda x: x[:, :2], r"samples of shape \(2,\), but there are 3 features"),
        (lambda x: np.where(x > 4, np.inf, x), "feature 'rooms' of sample 1 is inf; replace it"),
        (lambda x: x + np.float32([0, 2, 0]), "feature 'colour' of sample 0 is 4.0; a category is a code from 0 to 2"),
        (lambda x: x + np.float32([0, 0.5, 0]), "feature 'colour' of sample 0 is 2.5"),
    ],
)
def test_a_matrix_that_does_not_fit_its_features_is_one_line(change, says):
    x = change(table())
    with pytest.raises(DataError, match=f"^mine, test: {says}"):
        prepare_data(
            Dataset((table(), LABELS), (x, LABELS), classes=3, features=TABLE), TrialConfig(validation=12), CPU, "mine"
        ).test()


def test_batches_of_a_table_are_refused():
    batches = Dataset([(table(), LABELS)], validation=(table(), LABELS), classes=3, features=TABLE)
    with pytest.raises(DataError, match="mine: its training data are batches, which have no `features`"):
        prepare_data(batches, TrialConfig(), CPU, "mine")
