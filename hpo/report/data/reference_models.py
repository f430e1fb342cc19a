"""Reference models of a study, as its workers trained and scored them; see `hpo.training.reference_models`."""

from __future__ import annotations

import math
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from hpo.study import Study
from hpo.study.files.artifacts import find_artifact, save_artifact
from hpo.utils.documents import SIZE_LIMIT

__all__ = ["ReferenceModel", "ReferenceModels", "read_reference_models", "save_reference_models"]

FILE = "reference_models.json"


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
        models: the most capable first.
    """

    model_config = ConfigDict(frozen=True)

    split: str
    samples: int
    models: tuple[ReferenceModel, ...]


def save_reference_models(study: Study, models: ReferenceModels) -> None:
    """Save them with the study's files.

    Raises:
        OSError: the file cannot be written.
    """
    save_artifact(study, FILE, models.model_dump_json().encode(), "application/json")


def read_reference_models(study: Study) -> ReferenceModels | None:
    """Read a study's reference models; None where they are not here, or damaged, for a report can do without."""
    path = find_artifact(study, FILE)
    return None if path is None else _parse(path)


def _parse(path: Path) -> ReferenceModels | None:
    try:
        if path.stat().st_size > SIZE_LIMIT:
            return None
        return ReferenceModels.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
