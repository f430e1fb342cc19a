"""Tests of the bytes of sample scores: what they hold, how many they are, and what is said of damaged ones."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest

from hpo.datasets.sample_codec import pack_scores, pack_split, unpack_scores, unpack_split
from hpo.datasets.sample_scores import SampleScores, ValidationSplit, measure, score_kind
from hpo.errors import DataError

pytestmark = pytest.mark.unit
Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(0)
LABELS = {
    "classes": RNG.integers(0, 10, 500),
    "many classes": RNG.integers(0, 400, 500),
    "labels": (RNG.random((500, 3)) < 0.5).astype(np.uint8),
    "targets": RNG.normal(size=(500, 2)).astype(np.float32),
}


def make_split(task: str = "classes") -> ValidationSplit:
    return ValidationSplit.of(LABELS[task], np.sort(RNG.choice(3000, 500, replace=False)), 500)


def make_scores(metric: str, split: ValidationSplit, scores: Array, best: int = 1) -> SampleScores:
    kind = score_kind(metric, split.task)
    assert kind is not None
    return SampleScores(0, split.digest, np.arange(1, len(scores) + 1), best, scores.astype(np.float32), kind, metric)


def random_scores(metric: str, task: str) -> tuple[SampleScores, ValidationSplit]:
    split = make_split(task)
    columns = split.labels.shape[1:]
    numbers = {
        "correct": lambda: RNG.random((4, 500)) < 0.8,
        "loss": lambda: RNG.exponential(size=(4, 500)),
        "prediction": lambda: RNG.integers(0, split.labels.max() + 1, (4, *split.labels.shape)),
        "rank": lambda: RNG.integers(0, 500, (4, 500, *(columns or [10]))),
        "squared_error": lambda: RNG.exponential(size=(4, 500, *columns)),
        "absolute_error": lambda: RNG.exponential(size=(4, 500, *columns)),
    }
    kind = score_kind(metric, split.task)
    assert kind is not None
    return make_scores(metric, split, numbers[kind]()), split


@pytest.mark.parametrize("task", LABELS)
@pytest.mark.parametrize("own", [False, True])
def test_a_split_comes_back(task: str, own: bool) -> None:
    split = make_split(task)
    if own:
        split = ValidationSplit.of(split.labels, None, 900)
    back = unpack_split(pack_split(split), split.digest)
    assert (back.digest, back.count, back.task) == (split.digest, split.count, split.task)
    np.testing.assert_array_equal(back.labels, split.labels)
    assert (back.index is None) == own
    if not own:
        np.testing.assert_array_equal(back.index, split.index)


@pytest.mark.parametrize("own", [False, True])
def test_its_groups_come_back_and_are_no_part_of_its_digest(own: bool) -> None:
    split, groups = make_split(), RNG.integers(0, 40, 500)
    grouped = ValidationSplit.of(split.labels, None if own else split.index, 500, groups)
    assert own or grouped.digest == split.digest
    back = unpack_split(pack_split(grouped), grouped.digest)
    np.testing.assert_array_equal(back.groups, groups)
    np.testing.assert_array_equal(back.labels, split.labels)


@pytest.mark.parametrize(
    ("metric", "task"),
    [
        ("val_accuracy", "classes"),
        ("val_f1_macro", "classes"),
        ("val_mcc", "many classes"),
        ("val_roc_auc", "classes"),
        ("val_log_loss", "classes"),
        ("val_accuracy", "labels"),
        ("val_roc_auc", "labels"),
        ("val_r2", "targets"),
        ("val_mae", "targets"),
        ("val_spearman", "targets"),
    ],
)
def test_scores_come_back(metric: str, task: str) -> None:
    scores, split = random_scores(metric, task)
    back = unpack_scores(pack_scores(scores, split), 3, {split.digest: split})
    assert (back.fit, back.split, back.best, back.kind, back.metric) == (3, split.digest, 1, scores.kind, metric)
    np.testing.assert_array_equal(back.epochs, scores.epochs)
    real = scores.kind in ("loss", "squared_error", "absolute_error")
    np.testing.assert_allclose(back.scores, scores.scores, rtol=2**-14 if real else 0)
    expected, found = (measure(metric, each.scores, split) for each in (scores, back))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("metric", "accuracy"),
    [("val_accuracy", 0.5), ("val_accuracy", 0.9), ("val_accuracy", 0.98), ("val_f1_macro", 0.9), ("val_mcc", 0.98)],
)
def test_an_epoch_of_ten_thousand_samples_takes_less_than_two_kilobytes(metric: str, accuracy: float) -> None:
    labels = RNG.integers(0, 10, 10_000)
    split = ValidationSplit.of(labels, None, 10_000)
    wrong = RNG.random(10_000) >= accuracy
    predicted = np.where(wrong, (labels + RNG.integers(1, 10, 10_000)) % 10, labels)
    kept = ~wrong if metric == "val_accuracy" else predicted
    size = len(pack_scores(make_scores(metric, split, kept[None], best=0), split))
    assert size < 2000


def test_an_epoch_like_the_one_before_it_takes_little() -> None:
    split = ValidationSplit.of(RNG.integers(0, 10, 10_000), None, 10_000)
    first = RNG.random(10_000) < 0.9
    second = first ^ (RNG.random(10_000) < 0.01)
    alone, both = (
        len(pack_scores(make_scores("val_accuracy", split, np.array(rows), 0), split))
        for rows in ([first], [first, second])
    )
    assert both - alone < alone / 2


def change(content: bytes, old: bytes, new: bytes) -> bytes:
    whole = zlib.decompress(content)
    assert old in whole
    return zlib.compress(whole.replace(old, new, 1))


DAMAGE = {
    "no bytes": (lambda content: None, "they are no bytes"),
    "a cut": (lambda content: content[:-5], "they are cut off, or unpack to too much"),
    "no zlib": (lambda content: b"x" + content, "they cannot be unpacked"),
    "a bomb": (lambda content: zlib.compress(bytes(2**25)), "they are cut off, or unpack to too much"),
    "a header of another kind": (lambda content: zlib.compress(b"[1]\nabc"), "their header is damaged"),
    "a later format": (lambda content: change(content, b'"format": 1', b'"format": 2'), "another version of torch-hpo"),
    "another split": (lambda content: change(content, b'"split": "', b'"split": "x'), "the validation split that they"),
    "another metric": (lambda content: change(content, b"val_roc_auc", b"val_own"), "their metric has none"),
    "epochs not in order": (lambda content: change(content, b"[1, 2,", b"[2, 1,"), "their epochs are not in order"),
    "epochs that are none": (lambda content: change(content, b"[1, 2,", b"[1.5, "), "their epochs are not in order"),
    "a best one": (
        lambda content: change(content, b'"best": 1', b'"best": 9'),
        "their epochs are not in order",
    ),
    "too few numbers": (lambda content: zlib.compress(zlib.decompress(content)[:-1]), "as many numbers as samples"),
    "columns": (lambda content: change(content, b'"columns": 10', b'"columns": 9'), "as many numbers as samples"),
    "huge columns": (lambda content: change(content, b'"columns": 10', b'"columns": 9999999'), "as their metric needs"),
    "large ranks": (lambda content: zlib.compress(zlib.decompress(content)[:-1] + b"\xff"), "are out of range"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_scores_are_one_line(damage: str) -> None:
    scores, split = random_scores("val_roc_auc", "classes")
    harm, says = DAMAGE[damage]
    with pytest.raises(DataError, match=says):
        unpack_scores(harm(pack_scores(scores, split)), 0, {split.digest: split})


def test_a_damaged_split_is_one_line() -> None:
    split = make_split()
    content = pack_split(split)
    for harmed, says in (
        (change(content, b'"count": 500', b'"count": 501'), "its samples are not those of its digest"),
        (change(content, b'"type": "i4"', b'"type": "f4"'), "its samples are not those of its digest"),
        (change(content, b'"shape": [500]', b'"shape": [499]'), "it has not as many samples as it says"),
        (change(content, b'"shape": [500]', b'"shape": [0]'), "its header is damaged"),
        (change(content, b'"shape": [500]', b'"shape": [9, 9, 9]'), "its header is damaged"),
    ):
        with pytest.raises(DataError, match=says):
            unpack_split(harmed, split.digest)
    with pytest.raises(DataError, match="not those of its digest"):
        unpack_split(content, "0123456789abcdef")


def test_labels_that_are_none_are_one_line() -> None:
    for labels, count in (
        (np.array([0, -1, 1]), 3),
        (np.array([[0.5], [np.nan]], np.float32), 2),
        (np.array([0, 1, 2]), 10**400),
    ):
        split = ValidationSplit.of(labels, None, count)
        with pytest.raises(DataError, match=r"its (labels are out of range|samples are not those of its digest)"):
            unpack_split(pack_split(split), split.digest)


def test_numbers_of_classes_cost_nothing_however_large_they_are() -> None:
    labels = np.array([0, 2**31 - 1, 5, 5])  # a loop over all classes would take hours
    split = ValidationSplit.of(labels, None, 4)
    back = unpack_split(pack_split(split), split.digest)
    predicted = np.array([[0, 5, 5, 5], [0, 0, 5, 5]])
    counts = np.array([[1, 1, 1, 1], [2, 0, 1, 1]])
    small = ValidationSplit.of(np.array([0, 2, 1, 1]), None, 4)
    for metric in ("val_f1_macro", "val_precision_weighted", "val_recall_micro", "val_balanced_accuracy", "val_mcc"):
        expected = measure(metric, np.where(predicted == 5, 1, predicted), small, counts)
        np.testing.assert_allclose(measure(metric, predicted, back, counts), expected)
