"""Chapter on an autoencoder's reconstructions and its latent space."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np

from hpo.report.chapters.blocks import HIDDEN, Block, Chapter, Pictures, Subtitle, Text
from hpo.report.data.evaluations import CandidateRuns, EvaluationResults, EvaluationRun, median_run
from hpo.report.data.predictions import Reconstructions
from hpo.report.data.user_rows import is_public
from hpo.report.figures.overview import SERIES
from hpo.report.figures.plotly_spec import Figure, Spec, attach_spec, build_spec, escape_text, make_axis
from hpo.report.figures.png import encode_png
from hpo.report.format import count_text, values_text

__all__ = ["reconstruction_chapter"]

Array = np.ndarray[Any, Any]
LABELS_LIMIT = 20  # more colours cannot be told apart
SYMBOLS = ("circle", "square", "triangle-up", "diamond")


def reconstruction_chapter(evaluations: Sequence[EvaluationResults], *, show_data: bool = False) -> Chapter | None:
    """Write the chapter on every evaluated configuration; None where no reconstructions are on this machine.

    Samples of a user's own data set are shown only with `show_data`.
    """
    for evaluation in evaluations:
        shown = show_data or is_public(evaluation.data)
        blocks: list[Block] = []
        for index, candidate in enumerate(_best_first(evaluation)):
            run = median_run(evaluation, candidate)
            reconstructions = run.reconstructions("test") if run else None
            if run is not None and reconstructions is not None:
                blocks += [
                    Subtitle(candidate.label),
                    _subject_text(evaluation, candidate, run),
                    *_sample_blocks(index, reconstructions, evaluation.name_output, show_data=shown),
                ]
        if blocks:
            return Chapter("reconstruction", "Reconstructions", blocks)
    return None


def _best_first(evaluation: EvaluationResults) -> list[CandidateRuns]:
    best = evaluation.best
    return sorted(evaluation.candidates, key=lambda each: each is not best)


def _subject_text(evaluation: EvaluationResults, candidate: CandidateRuns, run: EvaluationRun) -> Text:
    error = run.test.get("test_reconstruction_error")
    text = f", reconstruction error {values_text('test_reconstruction_error', error)} on the test set" if error else ""
    size = None if candidate.config is None else candidate.config.effective().get("latent_size")
    latent = f"latent size {count_text(int(size))}, " if size is not None else ""
    sentence = f"{latent}trained from seed {run.seed} on {evaluation.dataset}{text}."
    return Text(sentence[:1].upper() + sentence[1:])


def _sample_blocks(
    index: int, reconstructions: Reconstructions, name: Callable[[int], str], *, show_data: bool
) -> list[Block]:
    blocks: list[Block] = []
    if reconstructions.originals is not None and not show_data:
        blocks.append(Text(HIDDEN, quiet=True))
    if (
        show_data
        and reconstructions.originals is not None
        and reconstructions.reconstructions is not None
        and len(reconstructions.originals)
    ):
        pairs = chain.from_iterable(zip(reconstructions.originals, reconstructions.reconstructions, strict=True))
        captions = ["sample", "reconstruction"] * len(reconstructions.originals)
        blocks.append(Pictures(f"reconstructions-{index}", [encode_png(picture) for picture in pairs], captions, 10))
    if reconstructions.codes is not None and len(reconstructions.codes):
        blocks.append(_plane_figure(index, reconstructions, reconstructions.codes, name))
    return blocks


def _plane_figure(index: int, reconstructions: Reconstructions, codes: Array, name: Callable[[int], str]) -> Figure:
    """Draw samples at their latent codes, coloured by their labels, which the model has never seen."""
    labels = sorted(set(reconstructions.labels.tolist()))
    coloured = labels if len(labels) <= LABELS_LIMIT else [None]
    traces: list[Spec] = []
    for place, label in enumerate(coloured):
        part = codes if label is None else codes[reconstructions.labels == label]
        colour, symbol = SERIES[place % len(SERIES)], SYMBOLS[place // len(SERIES) % len(SYMBOLS)]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": "samples" if label is None else escape_text(name(int(label))),
                "x": [round(float(value), 4) for value in part[:, 0]],
                "y": [round(float(value), 4) for value in part[:, 1]],
                "hoverinfo": "name",
                "marker": {"color": colour, "symbol": symbol, "size": 5, "opacity": 0.7},
            }
        )
    whole = reconstructions.explained >= 1
    names = ("latent dimension 1", "latent dimension 2") if whole else ("first component", "second component")
    spec = build_spec(
        traces, 520, xaxis=make_axis(names[0]), yaxis=make_axis(names[1], scaleanchor="x"), showlegend=len(coloured) > 1
    )
    share = f"{100 * reconstructions.explained:.0f} % of their variance"
    what = "Latent codes" if whole else f"First two principal components of the latent codes ({share})"
    caption = f"{what} of {count_text(len(codes))} test samples. Colours are labels, which the model has never seen."
    return attach_spec(Figure(f"latent-{index}", "Latent space"), spec, caption)
