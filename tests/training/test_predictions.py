"""Stored predictions of a model, and the importance of features, against NumPy and known functions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from hpo.config.trial_config import TrialConfig
from hpo.datasets import Dataset, Feature
from hpo.datasets.sample_scores import SAMPLES_LIMIT, choose_samples
from hpo.training.data import Data, prepare_data
from hpo.training.loop import train
from hpo.training.permutation_importance import compute_importance, list_feature_columns
from hpo.training.prediction_arrays import RawSplit, regression_arrays
from hpo.training.predictions import predict_split
from hpo.training.settings import TrainSettings

FEATURES = (
    Feature(name="size", column="size", missing=True),
    Feature(name="colour", column="colour", kind="category", categories=("red", "blue")),
    Feature(name="noise", column="noise"),
)
SMALL: dict[str, Any] = {"validation": 100, "epochs": 20, "widths": "16", "batch_size": 32, "learning_rate": 0.01}


def houses(samples: int = 500) -> Data:
    """Targets that follow from the size, and are higher for blue ones; sizes are in the first file's rows 1 to N."""
    rng = np.random.default_rng(0)
    size, colour = rng.uniform(1, 9, samples), rng.integers(1, 3, samples)
    x = np.stack([size, colour, rng.normal(size=samples)], 1).astype(np.float32)
    y = (1000 * size + 3000 * (colour == 2) + rng.normal(0, 50, samples)).astype(np.float32)
    rows = {"train": np.arange(1, samples + 1) * 10, "test": np.arange(1, 51)}
    dataset = Dataset(train=(x, y), test=(x[:50], y[:50]), task="regression", features=FEATURES, rows=rows)
    return prepare_data(dataset, TrialConfig(task="regression", **SMALL), torch.device("cpu"))


def test_predictions_of_targets_are_in_their_own_units_and_know_their_rows() -> None:
    data = houses()
    (outcome,) = train([TrialConfig(task="regression", **SMALL)], data, TrainSettings(monitor="val_r2"))
    found = predict_split(outcome, data, (data.x_val, data.y_val), split="validation").arrays
    x, y = data.dataset.train  # type: ignore[misc]
    assert data.val_index is not None
    assert found["targets"][:, 0] == pytest.approx(y[data.val_index], rel=1e-5)
    errors = np.abs(found["targets"] - found["predictions"])[:, 0]
    assert errors.mean() < 1000
    order = np.argsort(-errors)[:5]
    assert found["worst_rows"][:5].tolist() == (10 * (data.val_index[order] + 1)).tolist()
    assert found["worst_in_file"]
    residuals = (found["targets"] - found["predictions"])[:, 0]
    for place, label, count, mean in zip(
        found["bin_features"], found["bin_labels"], found["bin_counts"], found["bin_means"][:, 0], strict=True
    ):
        if label in ("red", "blue"):
            mine = x[data.val_index, 1] == (1, 2)[label == "blue"]
            assert place == 1
            assert count == mine.sum()
            assert mean == pytest.approx(residuals[mine].mean(), rel=1e-3)
    assert found["bin_counts"][found["bin_features"] == 0].sum() == 100


def test_no_value_of_a_single_row_bounds_a_bin_and_rare_categories_are_joined() -> None:
    x = np.stack([np.arange(100.0), np.where(np.arange(100) < 95, 1, 2), np.zeros(100)], 1).astype(np.float32)
    x[:3, 0] = np.nan
    data = houses()
    raw = RawSplit(x, FEATURES, np.arange(100), in_file=True)
    found = regression_arrays(torch.zeros(100, 1), torch.zeros(100, 1), data, raw, deviations=False)
    labels = [str(label) for label in found["bin_labels"]]
    assert not [label for label in labels if "99" in label or label.startswith("3 ")]
    assert "missing" in labels
    assert "red" in labels
    assert "blue" not in labels  # 5 rows
    assert int(found["bin_counts"][labels.index("any other")]) == 5


def test_variances_become_deviations_in_the_targets_own_units() -> None:
    data = houses()
    assert data.target_scaling is not None
    outputs = torch.cat([torch.zeros(4, 1), torch.full((4, 1), 2 * np.log(0.5))], 1)
    found = regression_arrays(outputs, torch.zeros(4, 1), data, RawSplit(), deviations=True)
    assert found["deviations"][:, 0] == pytest.approx(np.full(4, 0.5 * data.target_scaling.scale[0]), rel=1e-5)
    assert "worst_rows" not in found


def test_each_run_stores_the_same_samples_of_a_large_split() -> None:
    chosen = choose_samples(3 * SAMPLES_LIMIT)
    assert len(chosen) == len(set(chosen.tolist())) == SAMPLES_LIMIT
    assert (chosen == choose_samples(3 * SAMPLES_LIMIT)).all()


def test_a_missing_number_is_shuffled_with_its_indicator() -> None:
    assert list_feature_columns(FEATURES, 4) == [("size", [0, 2]), ("colour", [3]), ("noise", [1])]
    assert list_feature_columns((), 2) == [("feature 0", [0]), ("feature 1", [1])]


DATED = (
    Feature(name="sold", column="sold", missing=True),
    Feature(name="sold.month_sin", column="sold", missing=True),
    Feature(name="sold.month_cos", column="sold", missing=True),
    Feature(name="size", column="size"),
    Feature(name="day.month_sin", column="day"),
    Feature(name="day.month_cos", column="day"),
)


def test_a_date_is_one_column() -> None:
    columns = list_feature_columns(DATED, 9)
    assert columns == [("sold", [0, 1, 2, 6, 7, 8]), ("size", [3]), ("day", [4, 5])]
    month = np.arange(100) % 12
    angle = 2 * np.pi * month / 12
    x = np.stack([np.arange(100.0), np.sin(angle), np.cos(angle), np.arange(100.0), np.sin(angle), np.cos(angle)], 1)
    raw = RawSplit(x.astype(np.float32), DATED, np.arange(100), in_file=True)
    found = regression_arrays(torch.zeros(100, 1), torch.zeros(100, 1), houses(), raw, deviations=False)
    assert found["features"].tolist() == ["sold", "size", "day"]
    labels = [found["bin_labels"][found["bin_features"] == i].tolist() for i in range(3)]
    assert "2000-01-11 to 2000-01-21" in labels[0]
    assert labels[2][0] == "below 2"
    assert labels[2][-1] == "from 11"


def test_bins_of_years_and_months_are_written_as_people_do() -> None:
    x = np.stack([np.arange(0.0, 4000, 40), *np.zeros((2, 100)), np.arange(1900.0, 2000), *np.zeros((2, 100))], 1)
    raw = RawSplit(x.astype(np.float32), DATED, np.arange(100), in_file=True)
    found = regression_arrays(torch.zeros(100, 1), torch.zeros(100, 1), houses(), raw, deviations=False)
    labels = [found["bin_labels"][found["bin_features"] == i].tolist() for i in range(2)]
    assert labels[0][:2] == ["below 2001-01", "2001-01 to 2002-03"]
    assert labels[1][:2] == ["below 1910", "1910 to 1920"]


def test_the_importance_of_a_linear_function_is_twice_the_variance_of_its_terms() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2000, 3, generator=generator)
    y = 3 * x[:, 0] + x[:, 1]

    def mean_squared_error(samples: torch.Tensor, labels: torch.Tensor) -> float:
        return float((3 * samples[:, 0] + samples[:, 1] - labels).square().mean())

    found = compute_importance([("a", [0]), ("b", [1]), ("c", [2])], x, y, mean_squared_error, maximize=False)
    assert found is not None
    assert found.score == 0
    assert found.losses.mean(0) == pytest.approx([18, 2, 0], rel=0.1)
    assert (found.losses.std(0)[:2] > 0).all()
