"""Minification of matplotlib's SVG: the same picture in a fifth to a twentieth of the bytes.

matplotlib writes each point of a scatter plot as a path of its own, numbers with six decimals, and every style in full.
Here a mark is defined once and its places are one path, numbers have one decimal of a point, and styles are classes.
Order, colours and texts stay, and no place moves by more than half of that decimal.
"""

from __future__ import annotations

import base64
import io
import itertools
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from hpo.report.figures.png import encode_palette_png

__all__ = ["minify"]

SVG, HREF = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
TAGS = {"svg", "g", "defs", "style", "clipPath", "rect", "path", "text", "use", "image"}
DECIMALS, OUTLINE_DECIMALS = 1, 2  # of a point: for places; for the outline of a mark, which is a few points wide
TOLERANCE = 0.01  # points by which two outlines of one mark differ, because matplotlib rounds each
FEWEST = 3  # marks in a row for which a definition is shorter
OPACITY_STEP = 17  # of 255: sixteen opacities are enough for the soft edges of lines, and halve a picture

Array = np.ndarray[Any, Any]
Segment = tuple[str, list[float]]  # a command of a path, M, L, Q, C or z, and its numbers
Outline = Sequence[Segment]


def minify(text: str) -> str:
    """Shorten a file that matplotlib wrote; leave it as it is where it holds an element that is not known here.

    Args:
        text: an SVG file as `Figure.savefig` writes it.
    """
    root = ET.fromstring(text)
    for metadata in root.findall(f"{SVG}metadata"):
        root.remove(metadata)
    return _Minifier(root).write() if all(map(_is_known, root.iter())) else text


def _is_known(node: ET.Element) -> bool:
    match node.tag.removeprefix(SVG):
        case "g":
            return node.attrib.keys() <= {"id", "clip-path"}
        case "clipPath":
            return [child.tag for child in node] == [f"{SVG}rect"]
        case "text":
            return len(node) == 0
        case tag:
            return tag in TAGS


@dataclass(frozen=True)
class _Leaf:
    """An element that draws something.

    Attributes:
        node: the element.
        look: its style.
        clip: the link to its clipping path, or nothing.
        outline: of a path.
        mark: it is one of the marks of a scatter plot or of a line.
    """

    node: ET.Element
    look: str
    clip: str
    outline: Outline = ()
    mark: bool = False

    @property
    def kind(self) -> str:
        """The name of the element."""
        return self.node.tag.removeprefix(SVG)


class _Minifier:
    """One file: what it draws, and the short names of its styles, clipping paths and marks."""

    def __init__(self, root: ET.Element) -> None:
        self.root = root
        self.definitions = {node.attrib["id"]: node for node in root.iter(f"{SVG}path") if "id" in node.attrib}
        texts = (_parse_style(node) for node in root.iter(f"{SVG}text"))
        self.family = next((style["font-family"] for style in texts if "font-family" in style), "sans-serif")
        self.classes: dict[str, str] = {}
        self.clips: dict[str, str] = {}
        self.markers: dict[tuple[str, str], str] = {}

    def write(self) -> str:
        """Write the whole file."""
        body: list[str] = []
        for clip, leaves in itertools.groupby(self._leaves(self.root), key=lambda leaf: leaf.clip):
            body += self._clip_group(clip, leaves)
        size = " ".join(f'{name}="{self.root.attrib[name]}"' for name in ("width", "height", "viewBox"))
        head = f'<svg xmlns="{SVG[1:-1]}" {size}>'
        return "\n".join([head, *self._style_sheet(), *self._definitions(), *body, "</svg>\n"])

    def _leaves(self, parent: ET.Element, clip: str = "") -> Iterator[_Leaf]:
        """Yield what is drawn, in its order; of an axis all lines before all texts, so that they share a style."""
        name = parent.attrib.get("id", "")
        leaves: list[_Leaf] = []
        for node in parent:
            inner = node.attrib.get("clip-path", clip)
            style = {key: value for key, value in _parse_style(node).items() if value != self.family}
            match node.tag.removeprefix(SVG):
                case "g":
                    leaves += self._leaves(node, inner)
                case "use":
                    leaves.append(self._expand_use(node, inner))
                case "path" if "d" in node.attrib:  # which a line outside of its panel has not
                    outline = _parse_outline(node.attrib["d"])
                    leaves.append(_Leaf(node, _join_style(style), inner, outline, name.startswith("PathCollection")))
                case "text" | "image":
                    leaves.append(_Leaf(node, _join_style(style), inner))
        if name.startswith("matplotlib.axis"):
            leaves.sort(key=lambda leaf: leaf.kind == "text")
        yield from leaves

    def _expand_use(self, node: ET.Element, clip: str) -> _Leaf:
        """Put a mark of matplotlib's own definitions at its place."""
        mark = self.definitions[node.attrib[HREF].removeprefix("#")]
        outline = _translate(_parse_outline(mark.attrib["d"]), float(node.attrib["x"]), float(node.attrib["y"]))
        return _Leaf(mark, _join_style(_parse_style(node) | _parse_style(mark)), clip, outline, mark=True)

    # Elements.

    def _clip_group(self, link: str, leaves: Iterable[_Leaf]) -> list[str]:
        """Write what has one clipping path."""
        groups = itertools.groupby(leaves, key=lambda leaf: (leaf.kind, leaf.look))
        elements = [element for _, run in groups for element in self._elements(list(run))]
        lines: list[str] = []
        for name, same in itertools.groupby(elements, key=lambda element: element[0]):
            lines += _group(f' class="{name}"' if name else "", [text for _, text in same])
        clip = f' clip-path="url(#{self.clips.setdefault(link, f"c{len(self.clips)}")})"' if link else ""
        return _group(clip, lines)

    def _elements(self, leaves: Sequence[_Leaf]) -> Iterator[tuple[str, str]]:
        """Yield the class and the text of elements of one kind and style."""
        kind, look = leaves[0].kind, leaves[0].look
        if kind == "image":
            yield from (("", _write_image(leaf.node)) for leaf in leaves)
        elif kind == "text":
            yield from ((self._class(look), _write_text(leaf.node)) for leaf in leaves)
        else:
            for mark, run in itertools.groupby(leaves, key=lambda leaf: leaf.mark):
                outlines = [leaf.outline for leaf in run]
                yield from self._marks(look, outlines) if mark else self._paths(look, outlines)

    def _paths(self, look: str, outlines: Sequence[Outline]) -> Iterator[tuple[str, str]]:
        if "fill:none" in look and "opacity" not in look:  # where opaque lines cross, one path looks like two
            outlines = [[segment for outline in outlines for segment in outline]]
        yield from ((self._class(look), f'<path d="{_write_outline(outline, DECIMALS)}"/>') for outline in outlines)

    def _marks(self, look: str, outlines: Sequence[Outline]) -> Iterator[tuple[str, str]]:
        """Yield a path for each row of equal marks: it has no line of its own, but a marker at each of its points."""
        for same in _split_by_shape(outlines):
            if len(same) < FEWEST:
                yield from ((self._class(look), _write_mark(outline)) for outline in same)
                continue
            centres = [_centre(outline) for outline in same]
            shape = _write_mark(_translate(same[0], -centres[0][0], -centres[0][1]))
            name = self.markers.setdefault((self._class(look), shape), f"m{len(self.markers)}")
            places = [("M" if i == 0 else "L", list(centre)) for i, centre in enumerate(centres)]
            yield name, f'<path d="{_write_outline(places, DECIMALS, thin=False)}"/>'

    def _class(self, look: str) -> str:
        return self.classes.setdefault(look, f"s{len(self.classes)}")

    def _style_sheet(self) -> Iterator[str]:
        default = "".join(node.text or "" for node in self.root.iter(f"{SVG}style")).replace("*", "svg")
        yield f"<style>\n{default}\nsvg{{font-family:{self.family}}}"
        yield from (f".{name}{{{look}}}" for look, name in self.classes.items())
        yield from (f".{name}{{fill:none;marker:url(#{name})}}" for name in self.markers.values())
        yield "</style>"

    def _definitions(self) -> Iterator[str]:
        for node in self.root.iter(f"{SVG}clipPath"):
            if name := self.clips.get(f"url(#{node.attrib['id']})"):
                sides = " ".join(f'{key}="{_write_number(float(value))}"' for key, value in node[0].attrib.items())
                yield f'<clipPath id="{name}"><rect {sides}/></clipPath>'
        for (look, shape), name in self.markers.items():
            mark = "".join(_group(f' class="{look}"', [shape]))
            yield f'<marker id="{name}" markerUnits="userSpaceOnUse" overflow="visible">{mark}</marker>'


def _group(attributes: str, elements: Sequence[str]) -> list[str]:
    """Give elements the same attributes: of a group, where they are several."""
    if not attributes:
        return list(elements)
    if len(elements) == 1:
        return [elements[0].replace(" ", f"{attributes} ", 1)]
    return [f"<g{attributes}>", *elements, "</g>"]


def _parse_style(node: ET.Element) -> dict[str, str]:
    pairs = (each.split(":", 1) for each in node.attrib.get("style", "").split(";") if ":" in each)
    return {key.strip(): value.strip() for key, value in pairs}


def _join_style(style: dict[str, str]) -> str:
    return ";".join(f"{key}:{value}" for key, value in style.items())


# Outlines.


def _parse_outline(text: str) -> list[Segment]:
    parts = re.findall(r"([MLQCz])([^MLQCz]*)", text)
    return [(command, [float(number) for number in numbers.split()]) for command, numbers in parts]


def _translate(outline: Outline, x: float, y: float) -> list[Segment]:
    return [(command, [n + (y if i % 2 else x) for i, n in enumerate(numbers)]) for command, numbers in outline]


def _points(outline: Outline) -> Array:
    """Stack all points of an outline, (N, 2), those between the ends of a curve included."""
    return np.array([number for _, numbers in outline for number in numbers]).reshape(-1, 2)


def _centre(outline: Outline) -> tuple[float, float]:
    points = _points(outline)
    x, y = (points.min(0) + points.max(0)) / 2
    return float(x), float(y)


def _split_by_shape(outlines: Iterable[Outline]) -> Iterator[list[Outline]]:
    """Split a row of marks where their shape changes."""
    row: list[Outline] = []
    for outline in outlines:
        if row and not _have_one_shape(outline, row[0]):
            yield row
            row = []
        row.append(outline)
    yield row


def _have_one_shape(one: Outline, other: Outline) -> bool:
    if [command for command, _ in one] != [command for command, _ in other]:
        return False
    apart = _points(one) - _points(other)
    return float(np.abs(apart - apart[0]).max()) <= TOLERANCE


def _write_mark(outline: Outline) -> str:
    """Write a mark as a circle, which matplotlib draws as eight curves, or as the path that it is."""
    x, y = _centre(outline)
    radii = np.array([np.hypot(numbers[-2] - x, numbers[-1] - y) for _, numbers in outline if numbers])
    if [command for command, _ in outline].count("C") == 8 and np.ptp(radii) <= TOLERANCE:
        place = "".join(
            f' {side}="{text}"' for side, at in (("cx", x), ("cy", y)) if (text := _write_number(at)) != "0"
        )
        return f'<circle{place} r="{_write_number(float(radii.mean()), OUTLINE_DECIMALS)}"/>'
    return f'<path d="{_write_outline(outline, OUTLINE_DECIMALS)}"/>'


def _write_outline(outline: Outline, decimals: int, *, thin: bool = True) -> str:
    """Write a path, each point relative to the one before; both are rounded first, so that errors do not add up.

    Args:
        outline: in points.
        decimals: of a point.
        thin: leave out lines shorter than the last decimal.
    """
    tokens: list[str] = []
    last = ""
    pen = start = (0, 0)
    for command, numbers in outline:
        if command == "z":
            tokens.append("z")
            last, pen = "z", start
            continue
        ends = [round(number * 10**decimals) for number in numbers]
        letter, steps = _step(command, [end - pen[i % 2] for i, end in enumerate(ends)])
        if thin and command == "L" and last != "m" and not any(steps):
            continue
        pen = (ends[-2], ends[-1])
        if command == "M":
            start = pen
        if letter == "m" or (letter != last and (last, letter) != ("m", "l")):  # points after that of an m are lines
            tokens.append(letter)
        tokens += [_write_decimal(step, decimals) for step in steps]
        last = letter
    return _join_tokens(tokens)


def _step(command: str, steps: list[int]) -> tuple[str, list[int]]:
    """Choose the relative command and its numbers: a line along an axis has a shorter one."""
    if command == "L" and steps[1] == 0:
        return "h", steps[:1]
    if command == "L" and steps[0] == 0:
        return "v", steps[1:]
    return command.lower(), steps


def _join_tokens(tokens: Sequence[str]) -> str:
    """Join letters and numbers, with a space only where two numbers would be read as one."""
    parts = list(tokens[:1])
    for before, token in itertools.pairwise(tokens):
        clear = before.isalpha() or token.isalpha() or token[0] == "-" or (token[0] == "." and "." in before)
        parts.append(token if clear else f" {token}")
    return "".join(parts)


def _write_decimal(units: int, decimals: int) -> str:
    """Write a number of tenths, hundredths and so on as shortly as possible."""
    text = f"{abs(units) / 10**decimals:.{decimals}f}".rstrip("0").rstrip(".")
    return ("-" if units < 0 else "") + (text.removeprefix("0") or "0")


def _write_number(value: float, decimals: int = DECIMALS) -> str:
    return _write_decimal(round(value * 10**decimals), decimals)


# Texts and pictures.


def _write_text(node: ET.Element) -> str:
    place = "".join(f' {side}="{_write_number(float(node.attrib[side]))}"' for side in "xy" if side in node.attrib)
    transform = node.attrib.get("transform", "")
    if not transform.startswith("rotate(-0 "):
        numbers = re.sub(r"-?[\d.]+", lambda number: _write_number(float(number[0])), transform)
        place += f' transform="{numbers}"'
    return f"<text{place}>{escape(node.text or '', quote=False)}</text>"


def _write_image(node: ET.Element) -> str:
    sides = "".join(f' {name}="{node.attrib[name]}"' for name in ("transform", "x", "y", "width", "height"))
    content = _compress(base64.b64decode(node.attrib[HREF].partition(",")[2]))
    return f'<image{sides} href="data:image/png;base64,{base64.b64encode(content).decode()}"/>'


def _compress(content: bytes) -> bytes:
    """Rewrite a PNG file with a palette: of its own colours in sixteen opacities, or of 256 that are near."""
    from PIL import Image

    pixels = np.array(Image.open(io.BytesIO(content), formats=("PNG",)).convert("RGBA"))
    pixels[..., 3] = np.round(pixels[..., 3] / OPACITY_STEP) * OPACITY_STEP
    pixels[pixels[..., 3] == 0] = 0
    if (own := encode_palette_png(pixels)) is not None:
        return own
    buffer = io.BytesIO()
    near = Image.fromarray(pixels).quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    near.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
