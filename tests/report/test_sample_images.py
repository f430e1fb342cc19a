"""Sample images and pictures, read back by pillow."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hpo.report.chapters.blocks import Pictures
from hpo.report.chapters.sample_images import sample_images_chapter
from hpo.report.figures.png import encode_png
from hpo.study.definition import Candidate, Evaluation
from hpo.study.files.artifacts import save_artifact
from tests.report.helpers import filled
from tests.study.helpers import make_study


@pytest.mark.parametrize("shape", [(28, 28), (5, 9), (8, 8, 3)])
def test_a_picture_is_the_array(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
    content = encode_png(image)
    assert np.array_equal(np.array(Image.open(io.BytesIO(content))), image)
    assert encode_png(image) == content


@pytest.mark.parametrize("image", [np.zeros((4, 4)), np.zeros((4, 4, 4), np.uint8), np.zeros(4, np.uint8)])
def test_other_arrays_are_refused(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="a picture is"):
        encode_png(image)


def test_a_row_per_class_of_the_kept_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_HOME", str(tmp_path / "home"))
    study = filled(tmp_path, trials=2)
    assert sample_images_chapter(study) is None
    companion = make_study(tmp_path, "filled-evaluation", trials=1, parameters={"epochs": 1, "depth": [1, 2]})
    candidate = Candidate(label="trial 0", trial=0, baseline=False, values={})
    of = Evaluation(of=study.name, candidates=(candidate,), metrics=("accuracy",))
    companion.replace_definition(
        companion.definition.model_copy(update={"evaluation": of, "parameters": {"epochs": 1}})
    )
    buffer, rng = io.BytesIO(), np.random.default_rng(0)
    images, labels = rng.integers(256, size=(24, 8, 8), dtype=np.uint8), np.repeat([2, 0], 12)
    np.savez(buffer, images=images, labels=labels)
    save_artifact(companion, "samples.npz", buffer.getvalue())
    chapter = sample_images_chapter(study)
    assert chapter is not None
    pictures = next(block for block in chapter.blocks if isinstance(block, Pictures))
    assert pictures.captions == ["0"] * 10 + ["2"] * 10
    assert np.array_equal(np.array(Image.open(io.BytesIO(pictures.images[0]))), images[12])
