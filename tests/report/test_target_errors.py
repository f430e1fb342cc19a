"""The analysis of a regression's errors, against NumPy, scipy and draws from known distributions."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats as scipy_stats

from hpo.config.trial_config import TrialConfig
from hpo.datasets import DatasetReference
from hpo.datasets.source import DatasetSource
from hpo.errors import DataError
from hpo.report.chapters.blocks import Block, Chapter, Table, Text
from hpo.report.chapters.error_analysis import error_analysis_chapter
from hpo.report.chapters.feature_importance import average_losses, feature_importance_chapter
from hpo.report.chapters.target_errors import bin_predictions, bin_residuals, explained_share
from hpo.report.chapters.worst_rows import worst_class_blocks
from hpo.report.data.evaluations import CandidateRuns, EvaluationResults, EvaluationRun
from hpo.report.data.predictions import FeatureResiduals, Predictions, WorstRows, read_target_predictions
from hpo.report.data.user_rows import read_user_rows
from hpo.report.figures.plotly_spec import Figure
from hpo.report.stats.conformal import calibrate_interval, expected_coverage
from hpo.study import Objective
from hpo.utils.arrays import open_npz

Array = np.ndarray[Any, Any]
HOUSES = DatasetReference(name="/data/houses.csv", task="regression", output_names=("price",))


def regression_file(path: Path, *, targets: int = 1, noise: float = 1.0, **more: Array) -> Path:
    """Predictions that are off by normal noise, of both splits, and residuals that depend on the feature `size`."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Array] = {}
    for split, count in (("validation", 400), ("test", 1000)):
        predictions = rng.normal(50_000, 10_000, (count, targets))
        truth = predictions + noise * rng.normal(0, 1000, (count, targets))
        worst = np.argsort(-np.abs(truth - predictions).sum(1))[:5]
        arrays |= {
            f"{split}_targets": truth.astype(np.float32),
            f"{split}_predictions": predictions.astype(np.float32),
            f"{split}_count": np.array(count),
            f"{split}_worst_targets": truth[worst].astype(np.float32),
            f"{split}_worst_predictions": predictions[worst].astype(np.float32),
            f"{split}_worst_rows": worst + 1,
            f"{split}_worst_in_file": np.array(True),
            f"{split}_features": np.array(["size", "colour <b>"]),
            f"{split}_bin_features": np.array([0, 0, 1, 1]),
            f"{split}_bin_labels": np.array(["below 3", "from 3", "red", "any other"]),
            f"{split}_bin_counts": np.full(4, count // 2),
            f"{split}_bin_means": np.array([[-800.0], [800.0], [0.0], [1.0]]) * np.ones((1, targets)),
            f"{split}_bin_deviations": np.full((4, targets), 600.0),
        }
    arrays |= {
        "validation_importance_features": np.array(["size", "colour"]),
        "validation_importance_losses": np.array([[0.5, 0.0], [0.6, -0.01], [0.4, 0.01]]),
        "validation_importance_score": np.array(0.9),
        "validation_importance_samples": np.array(400),
    }
    np.savez(path, **{**arrays, **more})  # type: ignore[arg-type]
    return path


def evaluation(*files: Path, data: DatasetReference = HOUSES) -> EvaluationResults:
    runs = tuple(
        EvaluationRun("e", i, i, "COMPLETE", {"val_r2": 0.9}, {"test_r2": 0.9}, file=f) for i, f in enumerate(files)
    )
    candidate = CandidateRuns("trial 3", 3, False, TrialConfig(), {}, 0.9, runs)
    objective = Objective(metric="val_r2", direction="maximize")
    return EvaluationResults(("e",), "houses.csv", True, False, objective, (candidate,), 0, data=data)


def chapter(path: Path, **more: Any) -> Chapter:
    found = error_analysis_chapter([evaluation(path)], **more)
    assert found is not None
    return found


def table(blocks: list[Block], column: str) -> dict[str, list[str]]:
    found = next(b for b in blocks if isinstance(b, Table) and column in b.columns)
    return {name: [row[i] for row in found.rows] for i, name in enumerate(found.columns)}


def test_the_errors_are_those_of_numpy(tmp_path: Path) -> None:
    path = regression_file(tmp_path / "p.npz")
    found = read_target_predictions(path, "test")
    assert found is not None
    sizes = np.abs(found.residuals[:, 0])
    told = table(list(chapter(path).blocks), "RMSE")
    assert told["median error"] == [f"{np.median(sizes):.4g}"]
    assert told["95 %"] == [f"{np.quantile(sizes, 0.95):.4g}"]
    assert told["RMSE"] == [f"{math.sqrt(np.mean(sizes**2)):.4g}"]
    correlation = 1 - np.sum(sizes**2) / np.sum((found.targets - found.targets.mean()) ** 2)
    assert told["R²"] == [f"{correlation:.4f}"]
    assert "%" not in "".join(told["MAE"] + told["bias"])


def test_intervals_cover_what_they_say_on_the_test_set(tmp_path: Path) -> None:
    path = regression_file(tmp_path / "p.npz")
    told = table(list(chapter(path).blocks), "covered on the test set")
    for level, covered, expected in zip(
        (0.8, 0.9, 0.95), told["covered on the test set"], told["expected"], strict=True
    ):
        low, high = (float(part) for part in expected.removesuffix(" %").split(" to "))
        assert low <= float(covered.removesuffix(" %")) <= high
        assert low < 100 * level < high
    # Noise of a normal distribution with a deviation of 1000.
    assert float(told["prediction plus or minus"][1]) == pytest.approx(1645, rel=0.1)


def test_the_quantile_of_an_interval_is_corrected_for_the_finite_sample() -> None:
    residuals = np.arange(1.0, 20.0)  # 19: the ceil(20 * 0.9) = 18th smallest, and the ceil(20 * 0.95) = 19th
    assert calibrate_interval(residuals, 0.9) is not None
    assert calibrate_interval(residuals, 0.9).factor == 18  # type: ignore[union-attr]
    assert calibrate_interval(-residuals, 0.95).factor == 19  # type: ignore[union-attr]
    assert calibrate_interval(residuals, 0.96) is None
    assert calibrate_interval(residuals, 0.9, scales=np.full(19, 2.0)).factor == 9  # type: ignore[union-attr]


def test_the_mean_coverage_is_the_level_and_its_spread_the_expected_one() -> None:
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(2000):
        interval = calibrate_interval(rng.standard_cauchy(99), 0.9)
        assert interval is not None
        covered.append(interval.covers(rng.standard_cauchy(200)).mean())
    assert np.mean(covered) == pytest.approx(0.9, abs=0.003)
    low, high = expected_coverage(0.9, 99, 200)
    assert np.mean([low <= each <= high for each in covered]) == pytest.approx(0.95, abs=0.02)


def test_residuals_are_binned_by_what_is_predicted() -> None:
    predicted = np.arange(100.0)
    bins = bin_residuals(predicted, np.where(predicted < 50, -1.0, 1.0), bins=4)
    assert [mean for _, mean, _, _ in bins] == [-1, -1, 1, 1]
    assert sum(count for *_, count in bins) == 100


def test_the_share_that_a_feature_explains_is_epsilon_squared() -> None:
    rng = np.random.default_rng(0)
    groups = [rng.normal(shift, 1, 50) for shift in (0, 0.5, 1)]
    feature = FeatureResiduals(
        "f",
        ["a", "b", "c"],
        np.array([50, 50, 50]),
        np.array([[g.mean()] for g in groups]),
        np.array([[g.std()] for g in groups]),
    )
    f = scipy_stats.f_oneway(*groups).statistic
    assert explained_share(feature, 0) == pytest.approx((f - 1) / (f + (150 - 3) / 2))  # epsilon squared from F


def test_rows_of_the_users_data_are_shown_only_on_demand(tmp_path: Path) -> None:
    found = chapter(regression_file(tmp_path / "p.npz"))
    text = " ".join(b.text for b in found.blocks if isinstance(b, Text))
    assert "--show-data" in text
    told = table(list(found.blocks), "row")
    assert list(told) == ["row", "error"]
    told = table(list(chapter(tmp_path / "p.npz", show_data=True).blocks), "row")
    assert list(told) == ["row", "true", "predicted", "error"]
    shown = " ".join(b.text for b in chapter(tmp_path / "p.npz", show_data=True).blocks if isinstance(b, Text))
    assert "The rows themselves cannot be shown: /data/houses.csv" in shown  # for that file is not here


def test_labels_of_rows_are_shown_only_on_demand() -> None:
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)
    worst = WorstRows(np.array([7]), in_file=True)
    wrong = Predictions(np.array([1, 1]), probabilities, np.array([0]), None, worst)
    own, public = evaluation(), evaluation(data=DatasetReference(name="mnist"))
    shown = {"own": (own, False), "asked": (own, True), "public": (public, False)}
    columns = {
        name: list(table(worst_class_blocks(of, wrong, "test", show_data=show), "row"))
        for name, (of, show) in shown.items()
    }
    assert columns["own"] == ["row", "probability"]
    assert columns["asked"] == columns["public"] == ["row", "label", "predicted", "probability"]


def points(found: Chapter, key: str) -> int:
    figure = next(b for b in found.blocks if isinstance(b, Figure) and b.key == key)
    return 0 if figure.spec is None else sum(len(trace["x"]) for trace in figure.spec["data"])


def test_no_figure_has_a_single_row_of_the_users_data(tmp_path: Path) -> None:
    path = regression_file(tmp_path / "p.npz")
    hidden, shown = chapter(path), chapter(path, show_data=True)
    assert points(hidden, "predicted-0") == points(hidden, "residuals-0") == 12
    assert points(shown, "predicted-0") == 1000
    few = chapter(regression_file(tmp_path / "q.npz", test_bin_counts=np.array([996, 4, 995, 5])))
    assert points(few, "residuals-by-0") == 2  # of `colour`, whose fewest samples are 5
    assert not any(isinstance(b, Figure) and b.key == "residuals-by-1" for b in few.blocks)


def test_bins_of_predictions_hold_no_single_row() -> None:
    rng = np.random.default_rng(0)
    true = rng.exponential(1, 95)
    bins = bin_predictions(true, true + rng.normal(0, 0.1, 95))
    assert [n for *_, n in bins] == [11, 11, 11, 11, 11, 10, 10, 10, 10]
    assert max(mean for mean, _, _ in bins) < true.max()
    assert bins[0][0] == pytest.approx(np.sort(true)[:11].mean())
    assert bin_predictions(true[:9], true[:9]) == []


def test_rows_of_a_file_are_shown_as_they_stand_there(tmp_path: Path) -> None:
    train, test = tmp_path / "houses.csv", tmp_path / "later.csv"
    train.write_text("id,sold,area,price\n" + "".join(f"00{i},2019-08-{i + 10},{i}.5,{i}\n" for i in range(20)))
    test.write_text("id,sold,area,price\n007,2019-08-31,,1\n008,2019-09-01,2.50,3\n")
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (train, test)}
    source = DatasetSource(label=("price",), drop=("id",), test=str(test))
    data = DatasetReference(name=str(train), sha256=digests, source=source, task="regression")
    found = read_user_rows(data, "test", WorstRows(np.array([2, 1]), in_file=True), 5)
    assert found is not None
    assert list(found.features) == ["id", "sold", "area", "price"]
    assert found.cells == [["008", "2019-09-01", "2.50", "3"], ["007", "2019-08-31", "-", "1"]]
    found = read_user_rows(data, "validation", WorstRows(np.array([20]), in_file=True), 5)
    assert found is not None
    assert found.cells == [["0019", "2019-08-29", "19.5", "19"]]
    with pytest.raises(DataError, match="has no such rows"):
        read_user_rows(data, "test", WorstRows(np.array([3]), in_file=True), 5)
    test.write_text("id,sold,area,price\n")
    with pytest.raises(DataError, match="is not the file that the study was made with"):
        read_user_rows(data, "test", WorstRows(np.array([1]), in_file=True), 5)


def test_text_of_the_data_is_escaped_in_figures(tmp_path: Path) -> None:
    figures = [b for b in chapter(regression_file(tmp_path / "p.npz")).blocks if isinstance(b, Figure)]
    assert {figure.key for figure in figures} >= {"predicted-0", "residuals-0", "residuals-by-0"}
    assert all("<b>" not in str(figure.spec) for figure in figures)


def test_several_targets_have_a_row_and_a_figure_each(tmp_path: Path) -> None:
    path = regression_file(tmp_path / "p.npz", targets=3)
    data = HOUSES.model_copy(update={"output_names": ("weight", "waist", "pulse")})
    found = error_analysis_chapter([evaluation(path, data=data)])
    assert found is not None
    assert table(list(found.blocks), "RMSE")["target"] == ["weight", "waist", "pulse"]
    assert len([b for b in found.blocks if isinstance(b, Figure) and b.key.startswith("predicted-")]) == 3


def test_importance_is_of_all_seeds_where_there_are_several(tmp_path: Path) -> None:
    one = regression_file(tmp_path / "1.npz")
    other = regression_file(
        tmp_path / "2.npz", validation_importance_losses=np.array([[0.7, 0.1], [0.7, 0.1], [0.7, 0.1]])
    )
    found = feature_importance_chapter([evaluation(one, other)])
    assert found is not None
    losses = average_losses([EvaluationRun("e", 0, 0, "COMPLETE", file=f).importance() for f in (one, other)])  # type: ignore[misc]
    assert [each.feature for each in losses] == ["size", "colour"]
    assert losses[0].mean == pytest.approx(0.6)
    low, high = scipy_stats.t.interval(0.95, 1, loc=0.6, scale=scipy_stats.sem([0.5, 0.7]))
    assert (losses[0].low, losses[0].high) == (pytest.approx(low), pytest.approx(high))


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("test_predictions", np.zeros((3, 1))),
        ("test_worst_rows", np.zeros(3)),
        ("test_bin_means", np.zeros((3, 1))),
        ("test_bin_labels", np.zeros(4)),
        ("test_targets", np.full((1000, 1), np.nan)),
        ("test_count", np.zeros(2)),
        ("test_features", np.array([b"a"])),
    ],
)
def test_a_damaged_file_is_one_line(name: str, array: Array, tmp_path: Path) -> None:
    path = regression_file(tmp_path / "p.npz", **{name: array})
    with pytest.raises(DataError, match="; delete the file, and run hpo evaluate again") as error:
        read_target_predictions(path, "test")
    assert str(error.value).startswith(str(path))
    with open_npz(path) as arrays:
        assert name in arrays.names
