"""Minified pictures: every place, text and colour read back and compared with what matplotlib had written."""

from __future__ import annotations

import base64
import io
import re
import xml.etree.ElementTree as ET
from collections import Counter
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hpo.report.figures.plotly_spec import Figure, build_spec, make_axis
from hpo.report.figures.png import encode_palette_png
from hpo.report.render import svg as renderer
from hpo.report.render.svg_minifier import _write_outline, minify

SVG = "{http://www.w3.org/2000/svg}"
HALF = 0.05 + 1e-6  # points: half of the decimal that is kept
NUMBER = r"-?(?:\d+\.?\d*|\.\d+)"


def draw(traces: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, **layout: Any) -> tuple[str, str]:
    """The same figure as matplotlib writes it, and minified."""
    figure = Figure("one", "One", spec=build_spec(traces, 300, **layout))
    with monkeypatch.context() as patch:
        patch.setattr(renderer, "minify", lambda text: text)
        before = renderer.render_svg(figure)
    after = renderer.render_svg(figure)
    assert before is not None
    assert after is not None
    return before, after


def absolute(outline: str) -> list[tuple[float, float]]:
    """The ends of a path's segments, of absolute and of relative commands."""
    ends: list[tuple[float, float]] = []
    x = y = 0.0
    start = (x, y)
    for command, text in re.findall(r"([a-zA-Z])([^a-zA-Z]*)", outline):
        numbers = [float(number) for number in re.findall(NUMBER, text)]
        if command == "z":
            x, y = start
        width = {"h": 1, "v": 1, "c": 6, "C": 6, "q": 4, "Q": 4}.get(command, 2)
        for i in range(0, len(numbers), width):
            step = numbers[i : i + width]
            if command.isupper():
                x, y = step[-2:]
            else:
                x, y = (
                    x + (0 if command == "v" else step[-2 if width > 1 else 0]),
                    y + (0 if command == "h" else step[-1]),
                )
            ends.append((x, y))
            if command in "mM" and i == 0:
                start = (x, y)
    return ends


def scatter(count: int, **more: Any) -> dict[str, Any]:
    points = np.random.default_rng(0).random((count, 2))
    return {"type": "scatter", "mode": "markers", "x": points[:, 0].tolist(), "y": points[:, 1].tolist(), **more}


def mark_centres(text: str) -> np.ndarray:
    """Centres of the marks that matplotlib drew, in their order."""
    marks = [
        path
        for group in ET.fromstring(text).iter(f"{SVG}g")
        if group.attrib.get("id", "").startswith("PathCollection")
        for path in group.iter(f"{SVG}path")
    ]
    ends = [np.array(absolute(path.attrib["d"])) for path in marks]
    return np.array([(each.min(0) + each.max(0)) / 2 for each in ends])


def marker_places(text: str) -> np.ndarray:
    """Points of the paths that carry a marker."""
    paths = [path for path in ET.fromstring(text).iter(f"{SVG}path") if path.attrib.get("class", "").startswith("m")]
    return np.array([end for path in paths for end in absolute(path.attrib["d"])])


@pytest.mark.parametrize("symbol", ["circle", "circle-open", "triangle-up", "x", "diamond"])
def test_every_mark_of_a_crowded_figure_stays_at_its_place(symbol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = draw([scatter(1000, marker={"symbol": symbol})], monkeypatch)
    centres, places = mark_centres(before), marker_places(after)
    assert len(centres) == len(places) == 1000
    assert np.abs(centres - places).max() <= HALF
    assert len(after) < 15_000
    assert len(after) < len(before) / 10


def test_a_mark_keeps_its_outline(monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = draw([scatter(10, marker={"size": 8})], monkeypatch)
    wide = np.ptp(absolute(next(ET.fromstring(before).iter(f"{SVG}path")).attrib["d"]), axis=0)
    assert wide.min() > 100  # the ground of the picture, for which a circle must not be taken
    circle = next(ET.fromstring(after).iter(f"{SVG}circle"))
    assert float(circle.attrib["r"]) == pytest.approx(0.72 * 8 / 2, abs=0.005)


def test_the_points_of_lines_stay_at_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.linspace(0, 1, 400)
    lines = [
        {"type": "scatter", "mode": "lines", "x": x.tolist(), "y": np.sin(k * x).tolist(), "line": {"color": colour}}
        for k, colour in ((3, "#123456"), (5, "#654321"))
    ]
    before, after = draw(lines, monkeypatch)
    look = {name: f".{name}" for name in re.findall(r"\.(s\d+)\{[^}]*stroke:#(?:123456|654321)", after)}
    old = [p for p in ET.fromstring(before).iter(f"{SVG}path") if re.search("#(123456|654321)", p.attrib["style"])]
    new = [p for p in ET.fromstring(after).iter(f"{SVG}path") if p.attrib.get("class") in look]
    assert len(old) == len(new) > 0
    for one, other in zip(old, new, strict=True):
        first, second = np.array(absolute(one.attrib["d"])), np.array(absolute(other.attrib["d"]))
        nearest = np.abs(first[:, None] - second[None]).max(2).min(1)
        assert nearest.max() <= 2 * HALF  # of a point that is left out, the one before


def test_a_line_outside_of_its_panel_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        {"type": "scatter", "mode": "lines", "x": [0, 1], "y": y, "line": {"color": colour}}
        for y, colour in (([0.2, 0.8], "#123456"), ([-9, -8], "#654321"))
    ]
    before, after = draw(lines, monkeypatch, yaxis=make_axis(range=[0, 1]))
    assert any("d" not in path.attrib for path in ET.fromstring(before).iter(f"{SVG}path"))
    assert "#123456" in after
    assert "#654321" not in after


def test_texts_and_colours_are_all_there(monkeypatch: pytest.MonkeyPatch) -> None:
    bars = {"type": "bar", "x": ["a", "b <&>", "c"], "y": [3, 4, 5], "text": ["3", "4 % ", "5"]}
    before, after = draw([bars, scatter(3, name="n")], monkeypatch, xaxis=make_axis("the x"), yaxis=make_axis("the y"))
    one, other = (Counter(each.text for each in ET.fromstring(text).iter(f"{SVG}text")) for text in (before, after))
    assert one == other
    assert set(re.findall("#[0-9a-f]{6}", before)) == set(re.findall(r"(?<=:)#[0-9a-f]{6}", after))


def test_of_an_axis_lines_come_first_and_all_else_keeps_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    colours = ["#000001", "#000002", "#000001", "#000003"]
    marks = [scatter(5, marker={"color": colour}) for colour in colours]
    _, after = draw(marks, monkeypatch, xaxis=make_axis("the x"))
    names = dict(re.findall(r"\.(s\d+)\{fill:(#00000\d)\}", after))
    markers = dict(re.findall(r'<marker id="(m\d+)".*?class="(s\d+)"', after))
    drawn = [path.attrib.get("class", "") for path in ET.fromstring(after).iter(f"{SVG}path")]
    assert [names[markers[name]] for name in drawn if name in markers] == colours


def test_a_picture_keeps_its_colours_and_sixteen_opacities(monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = draw([scatter(3000)], monkeypatch)

    def image(text: str) -> np.ndarray:
        data = re.search(r'base64,([^"]*)"', text)
        assert data is not None
        return np.array(Image.open(io.BytesIO(base64.b64decode(data[1]))).convert("RGBA")).astype(int)

    one, other = image(before), image(after)
    seen = other[..., 3] > 0
    assert np.array_equal(one[seen][:, :3], other[seen][:, :3])
    assert np.abs(one[..., 3] - other[..., 3]).max() <= 8
    assert len(after) < len(before)


def test_a_palette_has_the_colours_of_the_image() -> None:
    rng = np.random.default_rng(0)
    for channels in (3, 4):
        image = rng.integers(256, size=(200, channels), dtype=np.uint8)[rng.integers(200, size=(30, 40))]
        content = encode_palette_png(image)
        assert content is not None
        assert np.array_equal(
            np.array(Image.open(io.BytesIO(content)).convert("RGBA" if channels == 4 else "RGB")), image
        )
    assert encode_palette_png(rng.integers(256, size=(30, 40, 3), dtype=np.uint8)) is None


@pytest.mark.parametrize(
    "body",
    [
        '<circle cx="1" cy="1" r="1"/>',
        '<text x="1" y="2" style="fill: #000000"><tspan>a</tspan></text>',
        '<g transform="scale(2)"><path d="M 0 0 L 1 1 " style="fill: none"/></g>',
        '<defs><clipPath id="a"><path d="M 0 0 L 1 1 z "/></clipPath></defs>',
    ],
)
def test_a_file_with_unknown_elements_is_left_as_it_is(body: str) -> None:
    text = f'<svg xmlns="{SVG[1:-1]}" width="9pt" height="9pt" viewBox="0 0 9 9"><g id="figure_1">{body}</g></svg>'
    assert minify(text) == text


def test_outlines_are_written_with_as_few_letters_as_they_need() -> None:
    path = [
        ("M", [0.04, 10.0]),
        ("L", [0.56, 10.0]),
        ("L", [0.56, 9.51]),
        ("L", [1.0, 9.0]),
        ("L", [1.51, 9.53]),
        ("z", []),
    ]
    assert _write_outline(path, 1) == "m0 10h.6v-.5l.4-.5.5.5z"
    assert _write_outline([("M", [1.0, 1.0]), ("M", [2.0, 3.0]), ("L", [4.0, 4.0])], 1) == "m1 1m1 2 2 1"
    points = [("M", [1.0, 1.0]), ("L", [1.01, 1.01]), ("L", [1.02, 1.0]), ("L", [5.0, 1.0])]
    assert len(absolute(_write_outline(points, 1, thin=False))) == 4
    assert absolute(_write_outline(points, 1))[-1] == (5.0, 1.0)
