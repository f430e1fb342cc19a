"""Sheets of pictures: every pixel read back, and the captions below their pictures."""

from __future__ import annotations

import base64
import io
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from hpo.report.chapters.blocks import Pictures
from hpo.report.figures.png import encode_png
from hpo.report.render.contact_sheet import GAP, SIDE, contact_sheet

SVG = "{http://www.w3.org/2000/svg}"


def read(text: str) -> tuple[np.ndarray, float, list[tuple[float, float, str]]]:
    """The pixels of a sheet, how many of its units each takes, and its captions with their places."""
    root = ElementTree.fromstring(text)
    [image] = root.iter(f"{SVG}image")
    content = Image.open(io.BytesIO(base64.b64decode(image.attrib["href"].partition(",")[2])))
    pixels = np.array(content.convert("RGB" if content.mode == "P" else content.mode))
    assert image.attrib["width"] == root.attrib["width"]
    captions = [(float(each.attrib["x"]), float(each.attrib["y"]), each.text or "") for each in root.iter(f"{SVG}text")]
    return pixels, float(image.attrib["width"]) / pixels.shape[1], captions


@pytest.mark.parametrize(("shape", "times"), [((28, 28), 1), ((28, 20), 1), ((28, 28, 3), 3), ((14, 14, 3), 6)])
def test_every_picture_is_there_with_its_caption_below(shape: tuple[int, ...], times: int) -> None:
    images = np.random.default_rng(0).integers(250, size=(5, *shape), dtype=np.uint8)
    enlarged = images.repeat(times, 1).repeat(times, 2)
    captions = [f"unit {i}" for i in range(5)]
    pixels, scale, written = read(
        contact_sheet(Pictures("p", [encode_png(image) for image in enlarged], captions, columns=3))
    )
    assert [text for _, _, text in written] == captions
    assert scale * max(shape[:2]) == pytest.approx(SIDE, rel=0.01)
    for image, (x, y, _) in zip(images, written, strict=True):
        bottom, left = int((y - 11) / scale + 0.5), round(x / scale - shape[1] / 2)
        assert np.array_equal(pixels[bottom - shape[0] : bottom, left : left + shape[1]], image)
    gap = written[1][0] - written[0][0] - scale * shape[1]
    assert gap == pytest.approx(GAP, abs=scale)


def test_pictures_of_few_pixels_keep_narrow_gaps() -> None:
    kernels = np.random.default_rng(0).integers(250, size=(4, 5, 5, 3), dtype=np.uint8).repeat(17, 1).repeat(17, 2)
    pixels, scale, _ = read(contact_sheet(Pictures("p", [encode_png(kernel) for kernel in kernels], list("abcd"))))
    assert pixels.shape[1] * scale == pytest.approx(4 * SIDE + 5 * GAP, rel=0.02)


def test_pictures_of_different_sizes_are_centred() -> None:
    large, small = np.zeros((20, 20), np.uint8), np.full((10, 14), 50, np.uint8)
    pixels, _, _ = read(contact_sheet(Pictures("p", [encode_png(large), encode_png(small)], ["a", "b"])))
    rows, columns = np.nonzero(pixels == 50)
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == small.shape
    dark = np.nonzero(pixels == 0)[0]
    assert rows.min() - dark.min() == dark.max() - rows.max() == 5


def test_a_hundred_pictures_take_less_than_each_alone() -> None:
    rng = np.random.default_rng(0)
    digits = np.where(rng.random((100, 28, 28)) < 0.15, rng.integers(256, size=(100, 28, 28)), 0).astype(np.uint8)
    images = [encode_png(digit) for digit in digits]
    text = contact_sheet(Pictures("p", images, ["7"] * 100, columns=10))
    assert len(text) < sum(len(base64.b64encode(image)) for image in images)


def test_equal_colours_of_all_pictures_are_a_palette() -> None:
    shades = np.linspace(0, 250, 200).astype(np.uint8)
    images = np.random.default_rng(0).choice(shades, size=(10, 28, 28))[..., None].repeat(3, -1)
    text = contact_sheet(Pictures("p", [encode_png(image) for image in images], ["unit 1"] * 10))
    assert len(text) < 0.5 * sum(len(base64.b64encode(encode_png(image))) for image in images)
