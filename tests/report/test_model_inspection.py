"""The chapter on the inside of the best model, from artifacts made by hand."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hpo.report.chapters.blocks import Note, Pictures, Subtitle, Text
from hpo.report.chapters.model_inspection import model_inspection_chapter
from hpo.report.figures.plotly_spec import Figure
from hpo.study import Study
from hpo.study.files.artifacts import save_artifact
from tests.report.helpers import filled

STEPS = np.linspace(-1, 1, 21, dtype=np.float32)
BOWL = 0.1 + STEPS[:, None] ** 2 + STEPS[None, :] ** 2


def layer(kind: str, **more: Any) -> dict[str, Any]:
    usual = {"name": "3", "number": 2, "kind": kind, "of": 2, "units": [0, 1], "silent": 0}
    return {**usual, "responses": [6.0, 9.0], "to_samples": [2.0, 3.0], **more}


def keep(study: Study, arrays: dict[str, Any], **about: Any) -> None:
    best = study.best()
    assert best is not None
    usual: dict[str, Any] = {
        "trial": best.number,
        "metric": "val_accuracy",
        "value": best.values[0],
        "samples": 2000,
        "split": "validation",
        "shape": [1, 4, 6],
        "norm": 3.0,
        "filters": None,
        "layers": [layer("linear"), layer("outputs")],
        "notes": [],
    }
    small = np.zeros((2, 1, 4, 6), dtype=np.float16)
    small[0, 0, 0, 0], small[0, 0, 3, 5], small[1, 0, 1, 1] = 2, -2, 1
    held = {"steps": STEPS, "losses": BOWL, "accuracies": 1 - BOWL / 3, "inputs_0": small, "inputs_1": small, **arrays}
    file = io.BytesIO()
    np.savez_compressed(file, about=np.array(json.dumps({**usual, **about})), **held)
    save_artifact(study, "inside.npz", file.getvalue())


def blocks(study: Study, kind: type[Any]) -> list[Any]:
    chapter = model_inspection_chapter(study)
    assert chapter is not None
    assert chapter.key == "inside"
    return [block for block in chapter.blocks if isinstance(block, kind)]


def words(study: Study) -> str:
    return " ".join(block.text for block in blocks(study, Text))


def pixels(picture: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture)))


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return filled(tmp_path, trials=4)


def test_without_artifacts_there_is_no_chapter(study: Study) -> None:
    assert model_inspection_chapter(study) is None


def test_the_landscape_and_what_its_numbers_say(study: Study) -> None:
    keep(study, {})
    (figure,) = blocks(study, Figure)
    contour, mark = figure.spec["data"]
    assert np.allclose(10 ** np.array(contour["z"]), BOWL, rtol=1e-5)
    assert (mark["x"], mark["y"]) == ([0.0], [0.0])
    json.dumps(figure.spec, allow_nan=False)
    assert "The loss is 0.1 at the model, and the accuracy 96.7 %." in words(study)
    told = re.findall(r"At a distance of ([\d.]+) the median loss is ([\d.]+),", words(study))
    assert [float(distance) for distance, _ in told] == [0.5, 1.0]
    assert [float(loss) for _, loss in told] == pytest.approx([0.1 + 0.25, 0.1 + 1.0], rel=0.05)
    assert "No point of the map has a lower loss." in words(study)
    assert blocks(study, Note) == []


def test_a_model_on_a_slope_is_told_from_one_at_the_bottom(study: Study) -> None:
    keep(study, {"losses": BOWL + 1 + STEPS[None, :]})
    assert "is 0.5 away: training stopped on the slope of this basin." in words(study)


def test_losses_that_overflow_or_vanish_leave_holes(study: Study) -> None:
    losses = BOWL.copy()
    losses[0, 0], losses[0, 1], losses[10, 10] = np.inf, np.nan, 0
    keep(study, {"losses": losses})
    (figure,) = blocks(study, Figure)
    z = figure.spec["data"][0]["z"]
    assert z[0][:2] == [None, None]
    assert z[10][10] == pytest.approx(-6)
    json.dumps(figure.spec, allow_nan=False)


def test_pictures_are_red_above_zero_and_blue_below(study: Study) -> None:
    keep(study, {})
    first = blocks(study, Pictures)[0]
    picture = pixels(first.images[0])
    assert picture.shape == (84, 126, 3)  # each pixel 21 times as large
    red, blue, zero = picture[0, 0], picture[-1, -1], picture[40, 60]
    assert red[0] > 150 > red[2]
    assert blue[2] > 150 > blue[0]
    assert (zero == 247).all()
    assert first.captions == ["unit 0", "unit 1"]
    assert [block.text for block in blocks(study, Subtitle)] == [
        "Inputs that excite the units of layer 2 most", "Inputs that excite each class most",
    ]  # fmt: skip
    assert "The response to it is 3.0 times (median) that to the best of 2,000 validation samples." in words(study)


def test_inputs_like_the_weights_are_shown_once(study: Study) -> None:
    weights = np.random.default_rng(0).normal(size=(2, 1, 4, 6)).astype(np.float16)
    about = {"filters": {"name": "1", "of": 9, "units": [4, 2], "only": False}}
    keep(study, {"filters": weights, "inputs_0": weights * 3}, **about)
    assert [pictures.key for pictures in blocks(study, Pictures)] == ["inside-weights", "inside-1"]
    assert "2 of 9 units (those with the largest outgoing weights) of module 1" in words(study)
    assert "A unit responds most to an input that looks like its weights." in words(study)
    keep(study, {"filters": weights, "inputs_0": -weights}, **about)
    assert [pictures.key for pictures in blocks(study, Pictures)] == ["inside-weights", "inside-0", "inside-1"]


def test_colour_filters_and_what_a_channel_sees(study: Study) -> None:
    filters = np.zeros((1, 3, 3, 3), dtype=np.float16)
    filters[0, 0] = 1  # red
    inputs = np.zeros((2, 3, 8, 8), dtype=np.float16)
    inputs[:, :, 2:5, 3:6] = 1
    channels = layer("convolution", silent=1)
    outputs = {"inputs_1": np.ones((2, 3, 8, 8), dtype=np.float16)}
    about = {
        "shape": [3, 8, 8],
        "filters": {"name": "0", "of": 1, "units": [0], "only": False},
        "layers": [channels, layer("outputs")],
    }
    keep(study, {"filters": filters, "inputs_0": inputs, **outputs}, **about)
    weights, seen, _ = blocks(study, Pictures)
    assert pixels(weights.images[0])[0, 0].tolist() == [255, 128, 128]
    assert pixels(seen.images[0]).shape == (84, 84, 3)
    assert "It sees 3 x 3 of 8 x 8 pixels." in words(study)
    assert "1 of 2 respond above zero to no sample." in words(study)


def test_samples_that_are_no_images_have_a_landscape_alone(study: Study) -> None:
    keep(study, {}, shape=[24], notes=["Of outputs no inputs can be found: <b>no</b>"])
    assert blocks(study, Pictures) == []
    assert "not images" in words(study)
    assert "<b>no</b>" in words(study)  # whoever renders it escapes it


def test_another_best_trial_is_warned_of(study: Study) -> None:
    keep(study, {}, trial=99)
    (note,) = blocks(study, Note)
    assert note.level == "warning"
    assert "what follows is about trial 99" in note.text
    assert "hpo evaluate filled --inside" in note.advice
