"""Outer folds: every sample is tested on once, by studies that have not seen it, and the test set stays closed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from hpo.datasets import Dataset, OuterFold, list_outer_folds, load, make_reference
from hpo.datasets.outer_fold import take_outer_fold
from hpo.errors import DataError
from tests.data import small_npz

SAMPLES = 60


def made(**keys: Any) -> Dataset:
    """A data set whose sample i is filled with i, so that samples are known again."""
    x = np.arange(SAMPLES, dtype=np.float32)[:, None].repeat(3, 1)

    def test() -> Any:
        raise AssertionError("the test set was read")

    return Dataset(**{"train": (x, np.arange(SAMPLES) % 3), "test": test, "classes": 3, **keys})


def numbers(part: Any) -> set[int]:
    return set(part[0][:, 0].astype(int).tolist())


def split(dataset: Dataset, fold: OuterFold) -> tuple[Dataset, set[int], set[int]]:
    taken = take_outer_fold(dataset, fold, "mine")
    assert callable(taken.test)
    return taken, numbers(taken.train), numbers(taken.test())


def test_every_sample_is_in_one_fold_and_never_in_the_training_part_of_it() -> None:
    dataset = made(weights=np.arange(SAMPLES), rows={"train": np.arange(1, SAMPLES + 1), "test": np.array([99])})
    folds = list_outer_folds(dataset, 4, 0, None, "mine")
    seen: list[int] = []
    for fold in folds:
        taken, training, testing = split(dataset, fold)
        assert training | testing == set(range(SAMPLES))
        assert not training & testing
        assert (len(training), len(testing)) == (fold.training, fold.testing) == (45, 15)
        assert np.bincount(taken.train[1]).tolist() == [15, 15, 15]  # type: ignore[index]
        assert taken.weights is not None
        assert taken.weights.tolist() == sorted(training)
        assert taken.rows["train"].tolist() == [number + 1 for number in sorted(training)]
        assert taken.rows["test"].tolist() == [number + 1 for number in sorted(testing)]
        seen += testing
    assert sorted(seen) == list(range(SAMPLES))
    assert split(dataset, folds[0])[1] != split(dataset, list_outer_folds(dataset, 4, 1, None, "mine")[0])[1]


def test_validation_samples_of_its_own_stay() -> None:
    validation = (np.full((5, 3), -1, np.float32), np.zeros(5, np.int64))
    dataset = made(validation=validation)
    (first, *_) = list_outer_folds(dataset, 3, 0, None, "mine")
    assert take_outer_fold(dataset, first, "mine").validation is validation


def test_groups_stay_whole_and_times_go_forward() -> None:
    groups, times = np.arange(SAMPLES) // 5, np.arange(SAMPLES)[::-1]
    for fold in list_outer_folds(grouped := made(groups=groups), 4, 0, None, "mine"):
        taken, training, testing = split(grouped, fold)
        assert fold.by == "group"
        assert not {groups[i] for i in training} & {groups[i] for i in testing}
        assert taken.groups is not None
        assert taken.groups.tolist() == [groups[i] for i in sorted(training)]
    sizes = []
    for fold in list_outer_folds(timed := made(times=times), 4, 0, None, "mine"):
        _, training, testing = split(timed, fold)
        assert fold.by == "time"
        assert max(times[i] for i in training) < min(times[i] for i in testing)
        sizes.append(len(training))
    assert sizes == sorted(sizes)
    by_group = list_outer_folds(made(groups=groups, times=times), 4, 0, "group", "mine")
    assert {fold.by for fold in by_group} == {"group"}


def test_what_cannot_be_divided_is_refused_in_a_line() -> None:
    batches = [(np.zeros((2, 3)), np.zeros(2, np.int64))]
    with pytest.raises(DataError, match=r"^mine: its training data are batches"):
        list_outer_folds(made(train=batches), 3, 0, None, "mine")
    with pytest.raises(DataError, match=r"^mine: outer folds = 30: class 0 has only 20 samples.*take fewer folds$"):
        list_outer_folds(made(), 30, 0, None, "mine")
    with pytest.raises(DataError, match=r"^mine: outer folds = 3: there are only 2 groups; take fewer folds$"):
        list_outer_folds(made(groups=np.arange(SAMPLES) % 2), 3, 0, None, "mine")
    (first, *_) = list_outer_folds(made(), 3, 0, None, "mine")
    other = Dataset(train=(np.zeros((30, 3)), np.arange(30) % 3), classes=3)
    with pytest.raises(DataError, match="outer fold 1 of 3 has 20 training samples and 10 to test on, not 40 and 20"):
        take_outer_fold(other, first, "mine")


@pytest.mark.parametrize(
    "values", [{"index": 3}, {"count": 1}, {"count": 10**9}, {"seed": -1}, {"by": "name"}, {"training": 0}, {"more": 1}]
)
def test_a_stored_fold_is_checked(values: dict[str, Any]) -> None:
    good = {"count": 3, "index": 0, "seed": 0, "training": 40, "testing": 20}
    assert OuterFold.model_validate(good).name == "outer fold 1 of 3"
    with pytest.raises(ValidationError):
        OuterFold.model_validate({**good, **values})


def test_a_reference_without_a_fold_loads_the_rest_of_the_file(tmp_path: Path) -> None:
    reference = make_reference(str(small_npz(tmp_path / "small.npz")))
    (first, *_) = list_outer_folds(load(reference), 5, 0, None, "small")
    without = reference.without(first)
    assert without != reference
    assert without.samples == first.training == 480
    assert without.label.endswith("small.npz without outer fold 1 of 5")
    assert type(without).model_validate_json(without.model_dump_json()) == without
    loaded, whole = load(without), load(reference)
    assert callable(loaded.test)
    x, y = loaded.test()
    assert len(loaded.train[0]) == 480  # type: ignore[index]
    rows = {sample.tobytes() for sample in whole.train[0]}  # type: ignore[index]
    assert all(sample.tobytes() in rows for sample in x)
    assert len(y) == 120


def test_no_test_samples_are_held_out_where_none_are_asked_for() -> None:
    whole = make_reference({"path": "sklearn:wine", "test": 0})
    assert whole.samples == 178
    assert load(whole).test is None
    assert any("none is held out" in note for note in whole.notes)
    assert make_reference("sklearn:wine").samples == 142
