"""Precision and recall by label and class, against scikit-learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics

from hpo.config.trial_config import TrialConfig
from hpo.datasets import DatasetReference
from hpo.report.chapters.blocks import Chapter, Pictures, Table, Text
from hpo.report.chapters.class_errors import class_blocks
from hpo.report.chapters.error_analysis import error_analysis_chapter
from hpo.report.data.evaluations import CandidateRuns, EvaluationResults, EvaluationRun
from hpo.report.data.predictions import Predictions
from hpo.report.figures.plotly_spec import Figure
from hpo.report.stats.precision_recall import best_threshold, decide, trace_precision_recall
from hpo.study import Objective

Array = np.ndarray[Any, Any]
TAGS = DatasetReference(name="/data/tags.csv", task="multilabel", output_names=("cat", "dog", "never"))


def drawn(count: int, seed: int) -> tuple[Array, Array]:
    """Labels drawn from rounded probabilities, so that some of these are equal; the last label nobody has."""
    rng = np.random.default_rng(seed)
    probabilities = np.round(rng.beta(1, 3, (count, 3)), 2).astype(np.float16)
    labels = (rng.random((count, 3)) < probabilities).astype(np.uint8)
    labels[:, 2] = 0
    return labels, probabilities


def multilabel_chapter(folder: Path) -> Chapter:
    arrays: dict[str, Array] = {}
    for split, seed in (("validation", 0), ("test", 1)):
        labels, probabilities = drawn(500, seed)
        arrays |= {
            f"{split}_labels": labels,
            f"{split}_probabilities": probabilities,
            f"{split}_count": np.array(900),
        }
    np.savez(folder / "p.npz", **arrays)  # type: ignore[arg-type]
    run = EvaluationRun("e", 0, 0, "COMPLETE", {"val_f1_macro": 0.5}, {}, file=folder / "p.npz")
    candidate = CandidateRuns("trial 3", 3, False, TrialConfig(), {}, 0.9, (run,))
    objective = Objective(metric="val_f1_macro", direction="maximize")
    found = error_analysis_chapter(
        [EvaluationResults(("e",), "tags.csv", True, False, objective, (candidate,), 0, data=TAGS)]
    )
    assert found is not None
    return found


@pytest.mark.parametrize("label", [0, 1])
def test_the_curve_and_its_average_are_those_of_sklearn(label: int) -> None:
    labels, probabilities = drawn(700, 2)
    y, p = labels[:, label] > 0, probabilities[:, label].astype(np.float32)
    curve = trace_precision_recall(y, p)
    assert curve is not None
    precision, recall, thresholds = metrics.precision_recall_curve(y, p)
    assert curve.average_precision == pytest.approx(metrics.average_precision_score(y, p))
    assert curve.thresholds[::-1] == pytest.approx(thresholds)
    assert curve.precision[::-1] == pytest.approx(precision[:-1])
    assert curve.recall[::-1] == pytest.approx(recall[:-1])
    best = best_threshold(curve)
    assert decide(y, p, best).f1 == pytest.approx(max(metrics.f1_score(y, p >= t) for t in thresholds))


def test_thresholds_are_chosen_on_validation_data_and_scored_on_the_test_set(tmp_path: Path) -> None:
    found = next(b for b in multilabel_chapter(tmp_path).blocks if isinstance(b, Table))
    (y, p), (y_val, p_val) = drawn(500, 1), drawn(500, 0)
    lines = {row[0]: dict(zip(found.columns, row, strict=True)) for row in found.rows}
    for i, name in enumerate(("cat", "dog")):
        candidates = np.unique(p_val[:, i])
        f1 = [metrics.f1_score(y_val[:, i], p_val[:, i] >= t) for t in candidates]
        threshold = candidates[len(f1) - 1 - int(np.argmax(f1[::-1]))]
        line = lines[name]
        assert line["threshold"] == f"{threshold:.2f}"
        assert line["F1 there"] == f"{100 * metrics.f1_score(y[:, i], p[:, i] >= threshold):.1f} %"
        assert line["F1"] == f"{100 * metrics.f1_score(y[:, i], p[:, i] >= 0.5):.1f} %"
        assert line["positives"] == str(y[:, i].sum())
    assert [lines["never"][column] for column in ("positives", "average precision", "threshold")] == ["0", "-", "-"]


def test_it_says_how_many_samples_are_stored(tmp_path: Path) -> None:
    first = multilabel_chapter(tmp_path).blocks[0]
    assert isinstance(first, Text)
    assert "What follows is of 500 of these samples, drawn at random." in first.text


def binary(share: float) -> Predictions:
    rng = np.random.default_rng(0)
    labels = (rng.random(1000) < share).astype(np.int64)
    positive = np.clip(0.5 * labels + 0.6 * rng.random(1000), 0, 1)
    pictures = np.zeros((1, 4, 4), np.uint8)
    return Predictions(labels, np.stack([1 - positive, positive], 1).astype(np.float32), np.array([0]), pictures)


@pytest.mark.parametrize(("share", "drawn_class"), [(0.1, "spam"), (0.9, "ham"), (0.5, None)])
def test_an_imbalance_has_the_curve_of_the_rare_class(share: float, drawn_class: str | None) -> None:
    blocks = class_blocks(binary(share), lambda i: ("ham", "spam")[i], show_data=False)
    curves = [b for b in blocks if isinstance(b, Figure) and b.key == "precision-recall-rare"]
    assert bool(curves) == (drawn_class is not None)
    if drawn_class is not None:
        assert curves[0].spec is not None
        assert curves[0].spec["data"][0]["name"].startswith(f"{drawn_class} (AP 0.")


def test_classes_have_their_names_and_pictures_are_shown_only_on_demand() -> None:
    def pictures(*, show_data: bool) -> list[Pictures]:
        blocks = class_blocks(binary(0.5), lambda i: ("ham", "spam")[i], show_data=show_data)
        matrix = next(b for b in blocks if isinstance(b, Figure) and b.key == "confusion")
        assert matrix.spec is not None
        assert matrix.spec["data"][0]["x"] == ["ham", "spam"]
        assert {row[0] for b in blocks if isinstance(b, Table) for row in b.rows} == {"ham", "spam"}
        return [b for b in blocks if isinstance(b, Pictures)]

    assert not pictures(show_data=False)
    assert pictures(show_data=True)[0].captions[0].split(" as ")[0] in ("ham", "spam")
