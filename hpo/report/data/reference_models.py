"""Reference models of a study, as its workers trained and scored them; see `hpo.training.reference_models`."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hpo.report.data.predictions import AGAIN, ARTIFACT_LIMIT
from hpo.study import Study
from hpo.study.files.artifacts import find_artifact, save_artifact
from hpo.utils.arrays import open_npz
from hpo.utils.documents import SIZE_LIMIT

__all__ = ["ReferenceModel", "ReferenceModels", "read_reference_models", "save_reference_models"]

FILE = "reference_models.json"
PREDICTIONS = "reference_predictions.npz"
Array = np.ndarray[Any, Any]


class ReferenceModel(BaseModel):
    """Model of scikit-learn with default settings.

    Attributes:
        name: what it is: `gradient boosting`, `logistic regression`, `ridge regression`.
        scores: by metric (`val_accuracy`, `test_accuracy`, …).
        seconds: that its training took.
        note: what is not as usual, or nothing.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    scores: dict[str, float]
    seconds: float
    note: str = ""

    def score(self, metric: str | None) -> float | None:
        """Return a finite score; None where it has none."""
        value = self.scores.get(metric or "")
        return value if value is not None and math.isfinite(value) else None


class ReferenceModels(BaseModel):
    """Reference models of a data set.

    Attributes:
        split: names the split that they were trained on; the same text for the same split.
        samples: training samples.
        divided: `5 folds` or `10 random splits` that scores are means over; empty where there is one split.
        models: the most capable first.
        file: where their predictions are, if they are here.
    """

    model_config = ConfigDict(frozen=True)

    split: str
    samples: int
    divided: str = ""
    models: tuple[ReferenceModel, ...]
    file: Path | None = Field(None, exclude=True)

    def predictions(self, split: str, place: int) -> tuple[Array, Array] | None:
        """Return what is true, and what a model predicts, of the rows of `validation` or `test` that are stored.

        They are classes (N,), or targets (n, T) in their own units, of the same rows as networks store; None where the
        file has none.

        Raises:
            DataError: the file is damaged.
        """
        if self.file is None:
            return None
        names = f"{split}_truth", f"{split}_{place}"
        with open_npz(self.file, ARTIFACT_LIMIT, AGAIN) as arrays:
            if not set(names) <= arrays.names:
                return None
            truth, predicted = (arrays.read(name) for name in names)
        known = truth.shape == predicted.shape and all(each.dtype.kind in "iuf" for each in (truth, predicted))
        return (truth, predicted) if known else None


def save_reference_models(study: Study, models: ReferenceModels, predictions: Mapping[str, Array]) -> None:
    """Save them with the study's files.

    Args:
        study: whose they are.
        models: with their scores.
        predictions: `<split>_truth`, and `<split>_<i>` of the i-th model; see `ReferenceModels.predictions`.

    Raises:
        OSError: the file cannot be written.
    """
    if predictions:
        file = io.BytesIO()
        np.savez_compressed(file, **predictions)  # type: ignore[arg-type]  # its first keyword is a flag
        save_artifact(study, PREDICTIONS, file.getvalue())
    save_artifact(study, FILE, models.model_dump_json().encode(), "application/json")


def read_reference_models(study: Study) -> ReferenceModels | None:
    """Read a study's reference models; None where they are not here, or damaged, for a report can do without."""
    path = find_artifact(study, FILE)
    models = None if path is None else _parse(path)
    return models if models is None else models.model_copy(update={"file": find_artifact(study, PREDICTIONS)})


def _parse(path: Path) -> ReferenceModels | None:
    try:
        if path.stat().st_size > SIZE_LIMIT:
            return None
        return ReferenceModels.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
