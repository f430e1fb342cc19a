"""Chapter on the inside of the best model: its loss landscape, and inputs that excite its units."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpo.errors import DataError, DefinitionError
from hpo.report.chapters.blocks import Block, Chapter, Note, Pictures, Subtitle, Text
from hpo.report.data.predictions import AGAIN, ARTIFACT_LIMIT
from hpo.report.figures.plotly_spec import HOVER, Figure, attach_spec, build_spec, escape_text, make_axis
from hpo.report.figures.png import encode_png
from hpo.report.format import count_text, one_line, values_text
from hpo.study import Study
from hpo.study.files.artifacts import find_artifact
from hpo.utils.arrays import open_npz
from hpo.utils.documents import parse_json
from hpo.utils.text import first_line

__all__ = ["model_inspection_chapter"]

Array = np.ndarray[Any, Any]
ABOUT = ("trial", "metric", "value", "samples", "split", "shape", "filters", "layers", "notes")
FLOOR = 1e-6  # of losses, on a logarithmic scale
PIXELS = 84  # the least height of a picture, where its samples are smaller
NOISE = "What looks like noise excites the model more than any sample: training never taught it to ignore such inputs."
RINGS = (0.5, 1.0)  # distances from the model whose loss is in the text
# The same in the light and in the dark theme: dark is low. Viridis, which is even to the eye, also without colour.
SCALE = ("#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725")
NAMES = {"linear": ("unit", "units"), "convolution": ("channel", "channels"), "outputs": ("class", "classes")}
COLD, ZERO, WARM = ((33, 102, 172), (247, 247, 247), (178, 24, 43))  # ColorBrewer's RdBu, safe for the colour-blind
SHADES = 127  # of red and of blue: with white they are 255 colours, which a palette of a PNG file holds


@dataclass(frozen=True)
class InspectionData:
    """Data that `hpo.execution.inspect_model.inspect_model` stored: arrays, and `about`, which says what they are."""

    arrays: Mapping[str, Array]
    about: Mapping[str, Any]
    output_names: Sequence[str] = ()

    def name_unit(self, kind: str, unit: int) -> str:
        """Return what a unit is called: of an output the class, where the data set names it."""
        named = kind == "class" and 0 <= unit < len(self.output_names)
        return one_line(self.output_names[unit]) if named else f"{kind} {unit}"

    @property
    def subject(self) -> str:
        """Samples that it was measured on."""
        return f"{count_text(self.about['samples'])} {self.about['split']} samples"


def model_inspection_chapter(study: Study) -> Chapter | None:
    """Write the chapter; None where `hpo evaluate --inside` has not been run, or not on this machine."""
    data = _read_data(study)
    if data is None:
        return None
    blocks = [*_subject_blocks(study, data), *_landscape_blocks(data), *_first_layer_blocks(data), *_layer_blocks(data)]
    notes = [Text(one_line(note), quiet=True) for note in data.about["notes"]]
    return Chapter("inside", "Inside the best model", [*blocks, *notes])


def _read_data(study: Study) -> InspectionData | None:
    path = find_artifact(study, "inside.npz")
    if path is None:
        return None
    with open_npz(path, ARTIFACT_LIMIT, AGAIN) as file:
        arrays = {name: file.read(name) for name in file.names}
    try:
        about = parse_json(str(arrays.pop("about")))
    except (KeyError, DefinitionError) as error:
        raise DataError(f"{path}: about: cannot be read ({first_line(error)}); {AGAIN}") from error
    if missing := [name for name in ABOUT if name not in about]:
        raise DataError(f"{path}: about: has no {', '.join(missing)}; {AGAIN}")
    return InspectionData(arrays, about, study.definition.dataset.output_names)


def _subject_blocks(study: Study, data: InspectionData) -> list[Block]:
    about, best = data.about, study.best()
    number = about["trial"]
    value = values_text(about["metric"], about["value"])
    blocks: list[Block] = [
        Text(f"The weights of trial {number} ({about['metric']} {value}), examined with {data.subject}.")
    ]
    if best is None or (best.number, best.values[0]) != (number, about["value"]):
        now = "The study no longer has a best trial" if best is None else f"Trial {best.number} is now the best"
        evidence = f"{now}; what follows is about trial {number}, the best when this was computed."
        advice = f"Compute it again: `hpo evaluate {shlex.quote(study.name)} --inside`."
        blocks.insert(0, Note("warning", "Computed for an earlier best model", evidence, advice))
    return blocks


# The loss around it.


def _landscape_blocks(data: InspectionData) -> list[Block]:
    steps, losses, accuracies = (data.arrays[name] for name in ("steps", "losses", "accuracies"))
    logs = np.where(np.isfinite(losses), np.log10(np.maximum(losses, FLOOR)), np.nan)
    texts = [[_point_text(losses[i, j], accuracies[i, j]) for j in range(len(steps))] for i in range(len(steps))]
    contour = {
        "type": "contour",
        "x": _finite_or_none(steps),
        "y": _finite_or_none(steps),
        "z": [_finite_or_none(row) for row in logs],
        "text": texts,
        "hovertemplate": HOVER,
        "colorscale": [[i / (len(SCALE) - 1), colour] for i, colour in enumerate(SCALE)],
        "ncontours": 24,
        "line": {"width": 0.5, "color": "rgba(255,255,255,0.35)"},
        "colorbar": {
            "title": {"text": "log10 of the loss", "side": "bottom"},
            "orientation": "h",
            "y": -0.14,
            "yanchor": "top",
            "len": 0.6,
            "thickness": 12,
            "outlinewidth": 0,
        },
    }
    across = make_axis("step along one random direction", showgrid=False, constrain="domain")
    up = make_axis("step along another", showgrid=False, scaleanchor="x", constrain="domain")
    spec = build_spec([contour, _model_mark()], 520, xaxis=across, yaxis=up, showlegend=False)
    caption = (
        "The cross is the model. Away from it, its weights change along two random directions, each filter by its own "
        "norm times the step (Li et al. 2018). Dark is a low loss. A wide basin tolerates changes of the weights; "
        "another plane through the same model would look somewhat different."
    )
    return [attach_spec(Figure("landscape", "Loss landscape"), spec, caption), Text(_landscape_text(data))]


def _model_mark() -> dict[str, Any]:
    marker = {"symbol": "cross", "size": 11, "color": "#ffffff", "line": {"color": "#000000", "width": 1}}
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "the model",
        "x": [0.0],
        "y": [0.0],
        "marker": marker,
        "hoverinfo": "skip",
    }


def _finite_or_none(values: Array) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def _point_text(loss: float, accuracy: float) -> str:
    return escape_text(f"loss {loss:.4g}, accuracy {100 * accuracy:.1f} %")


def _landscape_text(data: InspectionData) -> str:
    """Describe the landscape: the loss at the model, how fast it grows, and whether a lower one was met."""
    steps, losses, accuracies = (data.arrays[name] for name in ("steps", "losses", "accuracies"))
    middle = len(steps) // 2
    centre = losses[middle, middle]
    distance = np.hypot(steps[:, None], steps[None, :])
    rings = [_ring_text(losses, accuracies, distance, each, steps[1] - steps[0]) for each in RINGS]
    low = np.unravel_index(np.argmin(np.where(np.isfinite(losses), losses, np.inf)), losses.shape)
    lower = (
        "No point of the map has a lower loss."
        if losses[low] >= centre
        else f"The lowest loss of the map, {losses[low]:.3g}, is {distance[low]:.2g} away: "
        + ("the model lies at the bottom." if distance[low] < 0.2 else "training stopped on the slope of this basin.")
    )
    here = f"The loss is {centre:.3g} at the model, and the accuracy {100 * accuracies[middle, middle]:.1f} %."
    return " ".join([here, *rings, lower])


def _ring_text(losses: Array, accuracies: Array, distance: Array, radius: float, width: float) -> str:
    """Describe the medians at a distance, over the points of a ring one step wide."""
    ring = np.abs(distance - radius) <= width / 2
    loss, accuracy = np.median(losses[ring]), np.median(accuracies[ring])
    return f"At a distance of {radius:g} the median loss is {loss:.3g}, the accuracy {100 * accuracy:.1f} %."


# What its units respond to.


def _first_layer_blocks(data: InspectionData) -> list[Block]:
    filters = data.about["filters"]
    if filters is None or len(data.about["shape"]) != 3:
        return []
    weights = data.arrays["filters"].astype(np.float32)
    linear = list(weights.shape[1:]) == data.about["shape"]
    singular, plural = NAMES["outputs" if filters["only"] else "linear" if linear else "convolution"]
    captions = [data.name_unit(singular, unit) for unit in filters["units"]]
    note = (
        f"{_units_text(len(weights), filters['of'], plural)} of module {one_line(filters['name'])}; "
        f"each picture on a scale of its own, {_scale_text(weights.shape[1])}."
    )
    if linear:
        note += " Pixels that are the same in every sample keep their initial noise."
    pictures = Pictures("inside-weights", [_encode_picture(each) for each in weights], captions)
    return [Subtitle("Weights of the first layer"), pictures, Text(note, quiet=True)]


def _layer_blocks(data: InspectionData) -> list[Block]:
    layers = data.about["layers"]
    if len(data.about["shape"]) != 3:
        return [Text("The samples are not images, so the inputs that excite the units are not drawn.", quiet=True)]
    return [block for place, layer in enumerate(layers) for block in _one_layer_blocks(data, place, layer)]


def _one_layer_blocks(data: InspectionData, place: int, layer: Mapping[str, Any]) -> list[Block]:
    singular, plural = NAMES[layer["kind"]]
    inputs = _crop_to_seen(data.arrays[f"inputs_{place}"].astype(np.float32))
    if place == 0 and "filters" in data.arrays and _are_parallel(inputs, data.arrays["filters"].astype(np.float32)):
        sentences = [
            f"A {singular} responds most to an input that looks like its weights.",
            *_response_sentences(data, layer),
        ]
        return [Text(" ".join(sentences), quiet=True)]
    outputs = layer["kind"] == "outputs"
    title = (
        "Inputs that excite each class most"
        if outputs
        else f"Inputs that excite the {plural} of layer {layer['number']} most"
    )
    captions = [data.name_unit(singular, unit) for unit in layer["units"]]
    pictures = Pictures(f"inside-{place}", [_encode_picture(each) for each in inputs], captions)
    return [Subtitle(title), pictures, Text(_layer_caption(data, layer, inputs), quiet=True)]


def _crop_to_seen(inputs: Array) -> Array:
    """Crop to the part (k, channels, h, w) that any unit sees; elsewhere an input that excites it is exactly 0."""
    seen = np.abs(inputs).max(axis=(0, 1)) > 0
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    if not rows.size:
        return inputs
    return inputs[:, :, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _are_parallel(one: Array, other: Array) -> bool:
    """Return whether all pictures equal another's but for their scale."""
    if one.shape != other.shape:
        return False
    a, b = (each.reshape(len(each), -1) for each in (one, other))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return bool(((a * b).sum(1) >= 0.999 * lengths).all())


def _layer_caption(data: InspectionData, layer: Mapping[str, Any], inputs: Array) -> str:
    of = "" if layer["kind"] == "outputs" else f" of module {one_line(layer['name'])}"
    shape, (height, width) = data.about["shape"], inputs.shape[2:]
    part = "" if [height, width] == shape[1:] else f" It sees {height} x {width} of {shape[1]} x {shape[2]} pixels."
    text = (
        f"{_units_text(len(layer['units']), layer['of'], NAMES[layer['kind']][1])}{of}: "
        f"the input with a sample's norm to which each responds most ({_scale_text(shape[0])}), found by gradient "
        "ascent; there may be others."
    )
    return " ".join([text + part, *_response_sentences(data, layer), *([NOISE] if layer["kind"] == "outputs" else [])])


def _response_sentences(data: InspectionData, layer: Mapping[str, Any]) -> list[str]:
    return [*_strength_sentences(data, layer), *_silent_sentences(layer)]


def _strength_sentences(data: InspectionData, layer: Mapping[str, Any]) -> list[str]:
    """Compare the responses with those to real samples, over the units that one of those excites at all."""
    pairs = zip(layer["responses"], layer["to_samples"], strict=True)
    ratios = [response / real for response, real in pairs if real > 0]
    if not ratios:
        return []
    return [f"The response to it is {np.median(ratios):.1f} times (median) that to the best of {data.subject}."]


def _silent_sentences(layer: Mapping[str, Any]) -> list[str]:
    if layer["kind"] == "outputs" or not layer["silent"]:
        return []
    return [f"{layer['silent']} of {layer['of']} respond above zero to no sample."]


def _units_text(count: int, total: int, plural: str) -> str:
    if count == total:
        return f"All {total} {plural}"
    which = "the first" if plural == "classes" else "those with the largest outgoing weights"
    return f"{count} of {total} {plural} ({which})"


def _scale_text(channels: int) -> str:
    if channels == 3:
        return "grey for zero"
    return "red above zero, blue below" + (" (the mean over its channels)" if channels > 1 else "")


def _encode_picture(values: Array) -> bytes:
    """Encode (channels, H, W) numbers as PNG: three channels are RGB around grey, others a scale with zero white."""
    sizes = np.abs(values)
    # The strongest of a hundred pixels are cut off: next to a single one the others would all look like zero.
    scaled = np.clip(values / (np.quantile(sizes, 0.99) or sizes.max() or 1.0), -1, 1)
    image = _to_grey_rgb(scaled) if len(values) == 3 else _to_diverging_colours(scaled.mean(0))
    times = max(1, -(-PIXELS // image.shape[0]))
    return encode_png(image.repeat(times, 0).repeat(times, 1))


def _to_grey_rgb(values: Array) -> Array:
    grey: Array = np.round(127.5 * (1 + values)).astype(np.uint8).transpose(1, 2, 0)
    return grey


def _to_diverging_colours(values: Array) -> Array:
    """Map numbers from -1 to 1, (H, W), to colours: blue, white, red."""
    values = np.round(SHADES * values) / SHADES
    ends = np.where(values[..., None] < 0, COLD, WARM)
    colours: Array = np.round(ZERO + np.abs(values)[..., None] * (ends - np.array(ZERO))).astype(np.uint8)
    return colours
