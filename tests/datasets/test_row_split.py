"""Splits of rows: each row on one side, as many as asked, alike on both sides; groups whole, times in order."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hpo.datasets import split_rows
from hpo.errors import ConfigError, DataError

SEEDS = st.integers(0, 2**32 - 1)
SHARES = st.floats(0.05, 0.6)


def is_partition(split, size):
    rest, taken = split
    assert len(rest)
    assert len(taken)
    np.testing.assert_array_equal(np.sort(np.concatenate([rest, taken])), np.arange(size))
    return all((np.diff(part) > 0).all() for part in split)


# ---- rows of their own


def test_classes_are_split_as_they_always_were():
    """These rows have been in the validation split since the first release: studies of before go on with theirs."""
    y = np.array([0, 1, 2] * 8 + [0] * 6)
    assert split_rows(y, 0.3, 7, "classification")[1].tolist() == [9, 10, 13, 14, 18, 20, 22, 24, 28]


@given(targets=st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=80), share=SHARES, seed=SEEDS)
def test_targets_give_their_share_of_each_tenth(targets, share, seed):
    y = np.array(targets, np.float32)[:, None]
    wanted = round(share * len(y))
    assume(1 <= wanted < len(y))
    _rest, taken = split = split_rows(y, share, seed, "regression")
    assert is_partition(split, len(y))
    assert len(taken) == wanted
    strata = min(10, wanted, len(y) - wanted)
    ranks = np.empty(len(y), int)
    ranks[np.argsort(y[:, 0], kind="stable")] = np.arange(len(y))
    for stratum in range(strata):
        members = np.flatnonzero(ranks * strata // len(y) == stratum)
        assert abs(np.isin(members, taken).sum() - wanted * len(members) / len(y)) <= 1


def test_several_targets_are_balanced_by_their_standardised_sum():
    x = np.random.default_rng(0).normal(size=(400, 2)).astype(np.float32)
    _, taken = split_rows(x * [1, 1000] + [5, -300], 0.25, 0, "regression")
    np.testing.assert_array_equal(taken, split_rows(x, 0.25, 0, "regression")[1])
    assert abs(x[taken].sum(1).mean() - x.sum(1).mean()) < 0.05  # a random quarter would be off by 0.12


@given(
    labels=st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=6, max_size=80), share=SHARES, seed=SEEDS
)
def test_labels_are_split_exactly(labels, share, seed):
    y = np.array(labels, np.float32)
    wanted = round(share * len(y))
    assume(1 <= wanted < len(y))
    _rest, taken = split = split_rows(y, share, seed, "multilabel")
    assert is_partition(split, len(y))
    assert len(taken) == wanted


@pytest.mark.parametrize("seed", range(5))
def test_each_label_gives_its_share(seed):
    rng = np.random.default_rng(seed)
    rates = np.array([0.5, 0.3, 0.1, 0.03, 0.004])
    y = (rng.random((1500, 5)) < rates).astype(np.float32)
    rest, taken = split_rows(y, 0.2, seed, "multilabel")
    off = np.abs(y[taken].sum(0) - 0.2 * y.sum(0))
    assert (off <= 2).all()
    assert (y[rest].sum(0) > 0).all()
    at_random = np.mean([np.abs(y[rng.permutation(1500)[:300]].sum(0) - 0.2 * y.sum(0)) for _ in range(50)], axis=0)
    assert off.sum() < at_random.sum() / 3


@pytest.mark.parametrize(
    ("y", "task"),
    [
        (np.arange(90) % 3, "classification"),
        (np.eye(3)[np.arange(90) % 3], "multilabel"),
        (np.arange(90.0)[:, None], "regression"),
    ],
)
@pytest.mark.parametrize("grouped", [False, True])
def test_the_seed_alone_decides(y, task, grouped):
    groups = np.arange(90) // 3 if grouped else None
    one, again, other = (split_rows(y, 0.3, seed, task, groups)[1].tolist() for seed in (1, 1, 2))
    assert one == again != other


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
@pytest.mark.parametrize("share", [1.5, 60, 0.001, 0.999])
def test_impossible_shares(share, task):
    y = {"classification": np.arange(60) % 3, "multilabel": np.eye(60), "regression": np.arange(60.0)[:, None]}[task]
    with pytest.raises(ConfigError, match=rf"^test = {share:g}: "):
        split_rows(y, share, 0, task, name="test")


# ---- groups


@given(sizes=st.lists(st.integers(1, 12), min_size=2, max_size=30), classes=st.integers(1, 4), share=SHARES, seed=SEEDS)
def test_groups_stay_whole(sizes, classes, share, seed):
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    y = rng.integers(0, classes, len(groups))
    assume(1 <= round(share * len(y)) < len(y))
    rest, taken = split = split_rows(y, share, seed, "classification", groups)
    assert is_partition(split, len(y))
    assert not set(groups[rest]) & set(groups[taken])
    assert abs(len(taken) - share * len(y)) <= max(sizes) + 1


def measure_distance(y, taken, share):
    """Return how far the counts of the classes, and of all rows, are from their shares."""
    counts, got = np.bincount(y), np.bincount(y[taken], minlength=y.max() + 1)
    return ((got - share * counts) ** 2 / counts).sum() + (len(taken) - share * len(y)) ** 2 / len(y)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("skewed", [False, True])
def test_groups_are_as_balanced_as_those_of_scikit_learn(seed, skewed):
    model_selection = pytest.importorskip("sklearn.model_selection")
    rng = np.random.default_rng(seed)
    sizes = rng.geometric(0.1, 60) if skewed else np.full(60, 10)
    groups = np.repeat(np.arange(60), sizes)
    favourite = rng.integers(0, 3, 60)[groups]  # classes go with groups, as patients have one diagnosis
    y = np.where(rng.random(len(groups)) < 0.7, favourite, rng.integers(0, 3, len(groups)))
    _, taken = split_rows(y, 0.2, seed, "classification", groups)
    folds = model_selection.StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(y, y, groups)
    theirs = np.mean([measure_distance(y, fold, 0.2) for _, fold in folds])
    assert measure_distance(y, taken, 0.2) <= theirs


def test_a_class_of_one_group_stays_in_training():
    y, groups = np.array([0] * 40 + [1] * 10), np.array([*np.arange(40) // 4, *[99] * 10])
    for seed in range(10):
        rest, _ = split_rows(y, 0.3, seed, "classification", groups)
        assert set(y[rest]) == {0, 1}


@pytest.mark.parametrize("groups", [["a"] * 30 + ["b"] * 30, [0.0] * 50 + [1.5] * 10, [True] * 3 + [False] * 57])
def test_two_groups_are_enough(groups):
    rest, taken = split_rows(np.arange(60) % 3, 0.2, 0, "classification", np.array(groups))
    assert len(set(np.array(groups)[taken])) == len(set(np.array(groups)[rest])) == 1
    assert len(taken) <= len(rest)


def test_one_group_cannot_be_split():
    with pytest.raises(DataError, match=r"^validation: all 60 samples are of one group"):
        split_rows(np.arange(60) % 3, 0.2, 0, "classification", np.full(60, "a"))


# ---- times


@given(times=st.lists(st.integers(0, 20), min_size=2, max_size=60), share=SHARES, seed=SEEDS)
def test_the_latest_rows_are_taken(times, share, seed):
    t = np.array(times)
    wanted = round(share * len(t))
    assume(len(set(times)) > 1 and 1 <= wanted < len(t))
    rest, taken = split = split_rows(np.zeros(len(t), int), share, seed, "classification", times=t)
    assert is_partition(split, len(t))
    assert t[rest].max() < t[taken].min()
    cuts = [(t >= cut).sum() for cut in set(times) - {min(times)}]
    assert abs(len(taken) - wanted) == min(abs(count - wanted) for count in cuts)


def test_dates_are_times():
    t = np.array(["2024-03-01", "2024-01-01", "2024-02-01", "2024-01-15"], "datetime64[D]")
    assert split_rows(np.arange(4.0)[:, None], 1, 0, "regression", times=t)[1].tolist() == [0]


def test_groups_with_times_are_those_that_begin_last():
    t = np.array([1, 2, 9, 3, 4, 5, 6, 7])
    groups = np.array(list("aaabbccd"))
    rest, taken = split_rows(np.zeros(8, int), 3, 0, "classification", groups, t)
    assert taken.tolist() == [5, 6, 7][: len(taken)]
    assert set(groups[taken]) == {"c", "d"}
    assert set(groups[rest]) == {"a", "b"}  # a goes on after c begins, and is old all the same


@pytest.mark.parametrize(
    ("times", "groups", "message"),
    [
        ([5, 5, 5, 5], None, "validation: all samples have one time, 5, "),
        ([1, 2, 1, 2], ["a", "a", "b", "b"], "validation: all groups begin at one time, 1, "),
        ([1.0, 2.0, np.nan, 3.0], None, "validation: sample 2 has no time"),
        (
            np.array(["2024-01-01", "NaT", "2024-01-02"] * 1, "datetime64[s]"),
            None,
            "validation: sample 1 has no time",
        ),
        ([1, 2, 3, 4], ["a"] * 4, "validation: all 4 samples are of one group"),
    ],
)
def test_impossible_times(times, groups, message):
    with pytest.raises(DataError, match=message):
        split_rows(
            np.zeros(4, int), 0.5, 0, "classification", None if groups is None else np.array(groups), np.array(times)
        )
