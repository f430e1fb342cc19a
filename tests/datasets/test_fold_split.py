"""Folds: each sample validates once, folds are alike, groups are whole and times in order, as scikit-learn's are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold, TimeSeriesSplit

from hpo.config.resampling import Division
from hpo.datasets import divide_rows, split_rows
from hpo.errors import ConfigError, DataError

SEEDS = st.integers(0, 2**32 - 1)
COUNTS = st.integers(2, 6)


def folds_of(labels, count, seed=0, task="classification", repeat=0, by=None, **rows):
    return [divide_rows(labels, Division("fold", count, i, repeat, by), seed, task, **rows) for i in range(count)]


def validated_once(folds, size):
    for train, held in folds:
        assert len(train)
        assert len(held)
        assert all((np.diff(part) > 0).all() for part in (train, held))
        np.testing.assert_array_equal(np.sort(np.concatenate([train, held])), np.arange(size))
    np.testing.assert_array_equal(np.sort(np.concatenate([held for _, held in folds])), np.arange(size))
    return True


def spread(counts):
    return max(counts) - min(counts)


# ---- rows of their own


@given(counts=st.lists(st.integers(6, 40), min_size=1, max_size=6), folds=COUNTS, seed=SEEDS, repeat=st.integers(0, 3))
def test_classes_are_in_each_fold_within_one_and_so_are_rows(counts, folds, seed, repeat):
    y = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    found = folds_of(y, folds, seed, repeat=repeat)
    assert validated_once(found, len(y))
    assert spread([len(held) for _, held in found]) <= 1
    for label in range(len(counts)):
        assert spread([(y[held] == label).sum() for _, held in found]) <= 1


@given(size=st.integers(8, 120), folds=COUNTS, seed=SEEDS)
def test_targets_are_in_each_fold_alike_over_their_range(size, folds, seed):
    y = np.random.default_rng(seed).normal(size=(size, 1)).astype(np.float32)
    found = folds_of(y, folds, seed, "regression")
    assert validated_once(found, size)
    assert spread([len(held) for _, held in found]) <= 1
    strata = min(10, size // folds)
    ranks = np.argsort(np.argsort(y[:, 0], kind="stable"), kind="stable")
    for stratum in range(strata):
        assert spread([(ranks[held] * strata // size == stratum).sum() for _, held in found]) <= 1


@given(seed=SEEDS, folds=COUNTS)
def test_the_rarest_label_is_in_each_fold_within_one(seed, folds):
    rng = np.random.default_rng(seed)
    y = (rng.random((80, 4)) < [0.5, 0.3, 0.2, 0.1]).astype(np.float32)
    assume(y.any(0).all())
    found = folds_of(y, folds, seed, "multilabel")
    assert validated_once(found, len(y))
    shares = np.array([y[held].sum(0) for _, held in found])
    assert spread(shares[:, y.sum(0).argmin()]) <= 1
    assert spread([len(held) for _, held in found]) <= 4


def test_folds_follow_from_the_seed_and_the_repeat_and_no_two_repeats_are_alike():
    y = np.arange(60) % 3
    first, again = folds_of(y, 5, 7), folds_of(y, 5, 7)
    others = folds_of(y, 5, 8), folds_of(y, 5, 7, repeat=1)
    assert [held.tolist() for _, held in first] == [held.tolist() for _, held in again]
    assert all(any((a[1] != b[1]).any() for a, b in zip(first, other, strict=True)) for other in others)
    assert first[0][1].tolist() == [0, 3, 5, 11, 13, 15, 25, 34, 38, 55, 56, 57]  # stored studies go on with theirs


# ---- groups and times


@given(seed=SEEDS, folds=COUNTS, groups=st.integers(6, 40))
def test_groups_are_whole_and_classes_balanced_as_well_as_scikit_learn_does(seed, folds, groups):
    rng = np.random.default_rng(seed)
    y, group = rng.integers(0, 3, 300), rng.integers(0, groups, 300)
    assume(len(np.unique(group)) >= folds)
    found = folds_of(y, folds, seed, groups=group)
    assert validated_once(found, len(y))
    for train, held in found:
        assert not set(group[train]) & set(group[held])
    theirs = StratifiedGroupKFold(folds, shuffle=True, random_state=seed % 1000).split(y, y, group)
    reached = spread([len(held) for _, held in theirs])
    assert spread([len(held) for _, held in found]) <= max(
        1.5 * reached, 0.2 * len(y) / folds, np.bincount(group).max()
    )


def test_few_groups_give_each_fold_one():
    y, group = np.arange(30) % 2, np.repeat([0, 1, 2], [24, 4, 2])
    found = folds_of(y, 3, groups=group)
    assert sorted(len(held) for _, held in found) == [2, 4, 24]


@given(size=st.integers(12, 90), folds=COUNTS, seed=SEEDS)
def test_folds_by_time_are_those_of_scikit_learn(size, folds, seed):
    times = np.random.default_rng(seed).permutation(size)
    found = folds_of(np.arange(size) % 2, folds, times=times)
    theirs = TimeSeriesSplit(folds).split(np.arange(size))
    for (train, held), (their_train, their_held) in zip(found, theirs, strict=True):
        np.testing.assert_array_equal(np.sort(times[train]), their_train)
        np.testing.assert_array_equal(np.sort(times[held]), their_held)


@given(seed=SEEDS, folds=st.integers(2, 4), by_group=st.booleans())
def test_equal_times_and_groups_with_times_stay_whole_and_in_order(seed, folds, by_group):
    rng = np.random.default_rng(seed)
    times = rng.integers(0, 12, 100)
    group = rng.integers(0, 20, 100) if by_group else None
    keys = times if group is None else np.array([times[group == g].min() for g in group])
    assume(len(np.unique(keys)) > folds)
    seen = []
    for train, held in folds_of(np.arange(100) % 2, folds, groups=group, times=times):
        assert len(held)
        assert keys[train].max() < keys[held].min()
        seen += held.tolist()
    assert len(seen) == len(set(seen))


def test_what_folds_go_by_can_be_said():
    y, group, times = np.arange(40) % 2, np.arange(40) // 4, np.arange(40)
    by_group = folds_of(y, 4, by="group", groups=group, times=times)
    assert validated_once(by_group, 40)
    by_time = folds_of(y, 4, by="time", groups=group, times=times)
    assert by_time[-1][1].tolist() == list(range(32, 40))


# ---- random splits


def test_the_first_random_split_is_the_validation_split_and_the_others_differ():
    y = np.arange(90) % 3
    splits = [divide_rows(y, Division("holdout", 10, i), 5, "classification", share=0.2) for i in range(10)]
    np.testing.assert_array_equal(splits[0][1], split_rows(y, 0.2, 5, "classification")[1])
    assert len({tuple(held) for _, held in splits}) == 10
    assert all(np.bincount(y[held]).tolist() == [6, 6, 6] for _, held in splits)


# ---- what cannot be divided


@pytest.mark.parametrize(
    ("division", "rows", "error", "line"),
    [
        (("fold", 31, 0), {}, ConfigError, "folds = 31: there are only 30 samples; take fewer folds"),
        (
            ("fold", 4, 0),
            {},
            ConfigError,
            "folds = 4: class 1 has only 3 samples, and each fold validates at least",
        ),
        (("fold", 3, 0, 0, "group"), {}, DataError, "folds = 3 by group: the samples have no groups; give `groups`"),
        (("fold", 3, 0, 0, "time"), {}, DataError, "folds = 3 by time: the samples have no times; give `times`"),
        (("fold", 4, 0), {"groups": [0, 1, 2] * 10}, DataError, "folds = 4: there are only 3 groups; take fewer"),
        (("fold", 2, 0), {"groups": [0] * 30}, DataError, "folds = 2: all 30 samples are of one group"),
        (
            ("fold", 3, 0),
            {"times": [0, 1, 2] * 10},
            DataError,
            "folds = 3: there are only 3 different times, and",
        ),
        (
            ("fold", 3, 0),
            {"times": range(30), "groups": [0, 1, 2] * 10},
            DataError,
            "folds = 3: there are only 3 times at which groups begin, and 4 are needed; take fewer folds",
        ),
        (("fold", 2, 0), {"groups": [0, 1, 2] * 9 + [3] * 3}, DataError, "folds = 2: all samples of a class are of"),
        (("holdout", 3, 1), {"times": range(30)}, ConfigError, "holdout = 3: the samples have times, of which a split"),
        (("fold", 2, 1), {"times": [np.nan, *range(29)]}, DataError, "folds = 2: sample 0 has no time"),
    ],
)
def test_what_cannot_be_divided_is_one_line(division, rows, error, line):
    y = np.array([0] * 27 + [1] * 3)
    given_rows = {name: np.array(values) for name, values in rows.items()}
    with pytest.raises(error) as caught:
        divide_rows(y, Division(*division), 0, "classification", **given_rows)
    assert str(caught.value).startswith(line)
