"""Chapter of sample images of the training data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hpo.errors import DataError
from hpo.report.chapters.blocks import Block, Chapter, Pictures, Text
from hpo.report.data.predictions import AGAIN, ARTIFACT_LIMIT
from hpo.report.data.user_rows import is_public
from hpo.report.figures.png import encode_png
from hpo.report.format import one_line
from hpo.study import Study
from hpo.study.files.artifacts import find_artifact
from hpo.study.operations.evaluation_study import evaluation_studies
from hpo.utils.arrays import open_npz

__all__ = ["sample_images_chapter"]

SHOWN = 10  # of a class; where there are many classes, fewer
PICTURES_LIMIT = 120


def sample_images_chapter(study: Study, *, show_data: bool = False) -> Chapter | None:
    """Write the chapter: images, a row per class; None where no evaluation has kept any on this machine.

    Those of a user's own data set are shown only with `show_data`.
    """
    samples = _find_samples(study) if show_data or is_public(study.definition.dataset) else None
    if samples is None:
        return None
    names = study.definition.dataset.output_names
    dataset, path = samples
    with open_npz(path, ARTIFACT_LIMIT, AGAIN) as arrays:
        images, labels = arrays.read("images"), arrays.read("labels")
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or labels.shape != images.shape[:1]:
        raise DataError(f"{path}: holds no images with their labels; {AGAIN}")
    classes = sorted(set(labels.tolist()))
    each = max(1, min(SHOWN, PICTURES_LIMIT // max(len(classes), 1)))
    chosen = [i for label in classes[:PICTURES_LIMIT] for i in np.flatnonzero(labels == label)[:each]]
    if not chosen:
        return None
    text = f"Training images of {dataset} with their labels."
    if len(chosen) < len(images):
        text += f" {len(chosen)} of the {len(images)} stored images are shown."
    captions = [_name_class(names, int(labels[i])) for i in chosen]
    blocks: list[Block] = [
        Text(text, quiet=True),
        Pictures("samples", [encode_png(images[i]) for i in chosen], captions, each),
    ]
    return Chapter("samples", "Sample images", blocks)


def _name_class(names: Sequence[str], label: int) -> str:
    return one_line(names[label]) if 0 <= label < len(names) else str(label)


def _find_samples(study: Study) -> tuple[str, Path] | None:
    """Find the samples of the study's own data set; return its name and their file."""
    own = study.definition.dataset.name
    for companion in evaluation_studies(study):
        path = find_artifact(companion, "samples.npz")
        if companion.definition.dataset.name == own and path is not None:
            return Path(own).name, path
    return None
