"""Static pictures: every kind of figure, read back as XML; their texts, sizes and bytes."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from datetime import datetime
from typing import Any

import numpy as np
import pytest

from hpo.report.chapters.class_errors import _matrix_figure, _reliability_blocks, confusion_matrix
from hpo.report.chapters.parameter_importance import parameter_importance_chapter
from hpo.report.data.results import read_results
from hpo.report.figures import overview
from hpo.report.figures.parallel_coordinates import parallel_coordinates_figure
from hpo.report.figures.plotly_spec import Figure, build_spec, escape_text, make_axis
from hpo.report.figures.slices import slice_figures
from hpo.report.figures.timeline import timeline_figure
from hpo.report.render.svg import render_svg
from hpo.report.stats.importance import compute_importances
from tests.report.helpers import BASELINE, filled
from tests.report.test_error_analysis import drawn_predictions

SVG = "{http://www.w3.org/2000/svg}"


def texts(picture: str) -> list[str]:
    return ["".join(node.itertext()).strip() for node in ET.fromstring(picture).iter(f"{SVG}text")]


def one(trace: dict[str, Any], **layout: Any) -> Figure:
    return Figure("one", "One", spec=build_spec([trace], 300, **layout))


def paint(figure: Figure) -> str:
    found = render_svg(figure)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[Figure]:
    folder = tmp_path_factory.mktemp("svg")
    states = ("COMPLETE", "PRUNED", "COMPLETE", "FAIL")
    study = filled(folder, trials=60, states=states, baseline=BASELINE)
    two = filled(folder, "two", trials=20, objective=["val_accuracy", "parameter_count", "val_loss"], pruner="none")
    results, told = read_results(study), drawn_predictions(4)
    blocks = parameter_importance_chapter(study, results, compute_importances(study, results)).blocks
    return [
        overview.history_figure(results),
        overview.curves_figure(results),
        overview.pareto_figure(read_results(two)),
        parallel_coordinates_figure(results),
        timeline_figure(results, datetime.now()),
        *slice_figures(results),
        *(block for block in blocks if isinstance(block, Figure)),
        _matrix_figure(confusion_matrix(told), str),
        *(block for block in _reliability_blocks(told) if isinstance(block, Figure)),
    ]


def test_every_figure_of_a_report_is_small_and_the_same_again(drawn: list[Figure]) -> None:
    for figure in drawn:
        if figure.spec is not None:
            picture = paint(figure)
            assert ET.fromstring(picture).tag == f"{SVG}svg", figure.key
            assert len(picture) < 30_000, (figure.key, len(picture))
            assert render_svg(figure) == picture, figure.key


def test_the_texts_of_a_figure_are_its_own(drawn: list[Figure]) -> None:
    by_key = {figure.key: figure for figure in drawn}
    assert {"trial", "validation accuracy", "best so far", "baseline"} <= set(texts(paint(by_key["history"])))
    assert {"predicted", "label", "0", "3"} <= set(texts(paint(by_key["confusion"])))
    assert {"number of weights", "val_loss"} & set(texts(paint(by_key["pareto"])))


def test_what_has_no_static_picture_is_none() -> None:
    assert render_svg(Figure("none", "None", reason="why")) is None
    assert render_svg(one({"type": "parcoords", "dimensions": []})) is None


def test_thousands_of_points_stay_small() -> None:
    points = np.random.default_rng(0).random((3000, 2))
    trace = {"type": "scatter", "mode": "markers", "x": points[:, 0].tolist(), "y": points[:, 1].tolist()}
    picture = paint(one(trace))
    assert len(picture) < 60_000
    assert "<image" in picture


@pytest.mark.parametrize("text", ["</text><script>alert(1)</script>", "$\\frac{1}{2}$", "a & b < c", "50 % \\alpha_$"])
def test_hostile_texts_stay_texts(text: str) -> None:
    trace = {
        "type": "bar",
        "orientation": "h",
        "x": [1, 2],
        "y": [escape_text(text), "b"],
        "text": [escape_text(text), "x"],
    }
    picture = paint(one(trace, xaxis=make_axis(escape_text(text)), yaxis=make_axis(type="category")))
    assert text in texts(picture)
    assert not list(ET.fromstring(picture).iter(f"{SVG}script"))


@pytest.mark.parametrize(
    ("axes", "values"),
    [
        ({"type": "log", "range": [-3, 1]}, [0.001, 0.1, 10]),
        ({"type": "date"}, ["2026-01-01 10:00:00", "2026-01-02 10:00:00", "2026-01-03 00:00:00.5"]),
        ({"type": "category"}, ["a", "b", "c"]),
        ({}, [1, None, 3]),
    ],
)
def test_axes_of_every_type(axes: dict[str, Any], values: list[Any]) -> None:
    trace = {"type": "scatter", "mode": "lines+markers", "x": values, "y": [1, 2, 3]}
    assert paint(one(trace, xaxis=make_axis(**axes))).count("<path") > 2


def test_bars_with_errors_heatmaps_and_contours() -> None:
    error = {"type": "data", "symmetric": False, "array": [1, 2], "arrayminus": [0.5, 1]}
    paint(one({"type": "bar", "x": ["a", "b"], "y": [3, 4], "error_y": error, "text": ["3", "4"]}))
    z = np.add.outer(np.linspace(-1, 1, 12) ** 2, np.linspace(-1, 1, 12) ** 2).tolist()
    for kind in ("heatmap", "contour"):
        paint(one({"type": kind, "z": z, "x": list(range(12)), "y": list(range(12)), "colorscale": "Viridis"}))


def test_a_picture_can_be_written_and_seen_alone(drawn: list[Figure]) -> None:
    """No address outside of the file is fetched: those in it are names of XML's languages."""
    for figure in drawn[:3]:
        picture = paint(figure)
        assert "<script" not in picture
        links = [v for node in ET.fromstring(picture).iter() for k, v in node.attrib.items() if k.endswith("href")]
        assert all(link.startswith(("#", "data:")) for link in links)
