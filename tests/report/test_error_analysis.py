"""The error analysis, against counts by hand and scipy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpo.config.trial_config import TrialConfig
from hpo.datasets import DatasetReference
from hpo.errors import DataError
from hpo.report.chapters.blocks import Chapter, Pictures, Table, Text
from hpo.report.chapters.class_errors import (
    _reliability_blocks,
    calibration_bins,
    confusion_matrix,
    expected_calibration_error,
)
from hpo.report.chapters.error_analysis import error_analysis_chapter
from hpo.report.data.evaluations import CandidateRuns, EvaluationResults, EvaluationRun
from hpo.report.data.predictions import Predictions
from hpo.report.figures.plotly_spec import Figure
from hpo.study import Objective

MNIST = DatasetReference(name="mnist")


def drawn_predictions(classes: int, count: int = 500, seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(classes, 0.3), size=count).astype(np.float32)
    labels = np.where(rng.random(count) < 0.7, probabilities.argmax(1), rng.integers(classes, size=count))
    wrong = np.flatnonzero(probabilities.argmax(1) != labels)
    worst = wrong[np.argsort(-probabilities[wrong].max(1))][:30]
    return Predictions(labels, probabilities, worst, rng.integers(256, size=(len(worst), 8, 8), dtype=np.uint8))


def saved(told: Predictions, path: Path, splits: tuple[str, ...] = ("validation", "test")) -> Path:
    parts = {
        "labels": told.labels,
        "probabilities": told.probabilities.astype(np.float16),
        "mistakes": told.mistakes,
        "pictures": told.pictures,
    }
    np.savez(path, **{f"{split}_{key}": value for split in splits for key, value in parts.items()})  # type: ignore[arg-type]
    return path


def evaluation(files: list[Path | None], scores: list[float]) -> EvaluationResults:
    runs = tuple(
        EvaluationRun("e", i, i + 1, "COMPLETE", {"val_accuracy": score}, {}, file=file)
        for i, (file, score) in enumerate(zip(files, scores, strict=True))
    )
    candidate = CandidateRuns("trial 3", 3, False, TrialConfig(), {}, 0.9, runs)
    return EvaluationResults(
        ("e",),
        "mnist",
        True,
        False,
        Objective(metric="val_accuracy", direction="maximize"),
        (candidate,),
        0,
        data=MNIST,
    )


def chapter(told: Predictions, folder: Path, splits: tuple[str, ...] = ("validation", "test")) -> Chapter:
    found = error_analysis_chapter([evaluation([saved(told, folder / "p.npz", splits)], [0.9])])
    assert found is not None
    return found


def test_the_confusion_matrix_counts_every_sample() -> None:
    told = drawn_predictions(4)
    table, said = confusion_matrix(told), told.probabilities.argmax(1)
    for row in range(4):
        for column in range(4):
            assert table[row, column] == sum(a == row and b == column for a, b in zip(told.labels, said, strict=True))


def test_precision_recall_and_f1_by_class(tmp_path: Path) -> None:
    told = drawn_predictions(4)
    table = next(b for b in chapter(told, tmp_path).blocks if isinstance(b, Table))
    said = told.probabilities.astype(np.float16).argmax(1)
    for name, precision, recall, f1, support in table.rows:
        mine, found = said == int(name), told.labels == int(name)
        hits = (mine & found).sum()
        p, r = hits / mine.sum(), hits / found.sum()
        assert (precision, recall) == (f"{100 * p:.1f} %", f"{100 * r:.1f} %")
        assert f1 == f"{100 * 2 * p * r / (p + r):.1f} %"
        assert int(support) == found.sum()
    assert [float(row[3].split()[0]) for row in table.rows] == sorted(float(row[3].split()[0]) for row in table.rows)


def test_the_run_with_the_median_validation_score_is_taken(tmp_path: Path) -> None:
    files: list[Path | None] = [saved(drawn_predictions(3, seed=i), tmp_path / f"{i}.npz") for i in range(3)]
    found = error_analysis_chapter([evaluation(files, [0.93, 0.91, 0.92])])
    assert found is not None
    assert isinstance(found.blocks[0], Text)
    assert "trial 3 trained from seed 3, the run with the median validation score (92.00 %)" in found.blocks[0].text


def test_without_a_test_set_it_is_the_validation_data(tmp_path: Path) -> None:
    first = chapter(drawn_predictions(3), tmp_path, ("validation",)).blocks[0]
    assert isinstance(first, Text)
    assert "validation data (the test set has not been read)" in first.text


def test_without_predictions_there_is_no_chapter() -> None:
    assert error_analysis_chapter([]) is None
    assert error_analysis_chapter([evaluation([None], [0.9])]) is None


def test_many_classes_are_a_table_of_pairs(tmp_path: Path) -> None:
    told = drawn_predictions(30, 2000)
    blocks = chapter(told, tmp_path).blocks
    assert not [b for b in blocks if isinstance(b, Figure) and b.key == "confusion"]
    pairs = next(b for b in blocks if isinstance(b, Table))
    table = confusion_matrix(told)
    np.fill_diagonal(table, 0)
    assert [int(row[2]) for row in pairs.rows] == sorted(table.ravel().tolist(), reverse=True)[: len(pairs.rows)]
    assert all(table[int(row[0]), int(row[1])] == int(row[2]) for row in pairs.rows)


def test_the_most_confident_mistakes_have_their_words(tmp_path: Path) -> None:
    told = drawn_predictions(4)
    pictures = next(b for b in chapter(told, tmp_path).blocks if isinstance(b, Pictures))
    first = told.mistakes[0]
    sure = 100 * float(told.probabilities[first].max())
    assert pictures.captions[0] == f"{told.labels[first]} as {told.probabilities[first].argmax()} ({sure:.0f} %)"
    assert len(pictures.images) == len(pictures.captions) == 24
    assert pictures.images[0].startswith(b"\x89PNG")


def test_calibration_of_a_model_that_knows_what_it_knows() -> None:
    """Labels drawn from the probabilities themselves: no error but chance; squared and normalised it is too sure."""
    rng = np.random.default_rng(0)
    honest = rng.dirichlet(np.ones(3), size=20_000)
    labels = (honest.cumsum(1) < rng.random((20_000, 1))).sum(1)
    sharp = honest**3 / (honest**3).sum(1, keepdims=True)
    none = np.array([], dtype=int)
    assert expected_calibration_error(Predictions(labels, honest, none, None)) < 0.015
    assert expected_calibration_error(Predictions(labels, sharp, none, None)) > 0.1


def test_chance_on_a_small_set_is_not_read_as_overconfidence() -> None:
    rng, none = np.random.default_rng(0), np.array([], dtype=int)
    said = []
    for count in [100] * 100 + [1000] * 100:
        honest = rng.dirichlet(np.ones(3), size=count)
        labels = (honest.cumsum(1) < rng.random((count, 1))).sum(1)
        block = _reliability_blocks(Predictions(labels, honest, none, None))[1]
        assert isinstance(block, Text)
        said.append(block.text)
    assert sum("cannot be told" in text for text in said) > 150
    assert sum("confident" in text for text in said) <= 20  # 5 % is chance
    sharp = honest**3 / (honest**3).sum(1, keepdims=True)
    for told, side in ((sharp, "overconfident"), (honest**0.3 / (honest**0.3).sum(1, keepdims=True), "underconfident")):
        block = _reliability_blocks(Predictions(labels, told, none, None))[1]
        assert isinstance(block, Text)
        assert f"the model is {side}; rescale" in block.text


def test_bins_hold_equally_many_and_all() -> None:
    found = calibration_bins(drawn_predictions(4, 997))
    counts = [count for *_, count in found]
    assert sum(counts) == 997
    assert max(counts) - min(counts) <= 1


def test_the_error_is_the_weighted_mean_of_the_gaps() -> None:
    probabilities = np.array([[0.6, 0.4], [0.6, 0.4], [0.9, 0.1], [0.9, 0.1]])
    told = Predictions(np.array([0, 1, 0, 0]), probabilities, np.array([1]), None)
    assert expected_calibration_error(told, bins=2) == pytest.approx((0.1 + 0.1) / 2)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"test_labels": np.arange(8) + 3}, "its arrays do not belong together"),
        ({"test_labels": np.arange(7) % 3}, "its arrays do not belong together"),
        ({"test_mistakes": np.array([100])}, "its arrays do not belong together"),
        ({"test_probabilities": np.zeros(8)}, "its arrays do not belong together"),
        ({"test_probabilities": np.full((8, 3), "a")}, "test_probabilities holds <U1, not numbers"),
        ({"test_mistakes": None}, "has no test_mistakes"),
        ({"test_pictures": np.array([{}], object)}, "test_pictures cannot be read"),
    ],
)
def test_a_damaged_file_of_predictions_is_one_line(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    good = {"labels": np.arange(8) % 3, "probabilities": np.full((8, 3), 1 / 3), "mistakes": np.arange(2)}
    arrays = {**{f"test_{name}": array for name, array in good.items()}, **changes}
    np.savez(tmp_path / "p.npz", **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(DataError, match=f"{words}.*; delete the file, and run hpo evaluate again") as error:
        EvaluationRun("x", 0, 0, "COMPLETE", file=tmp_path / "p.npz").predictions("test")
    assert str(error.value).startswith(str(tmp_path))
