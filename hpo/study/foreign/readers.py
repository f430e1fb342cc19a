"""Readers of other tools' files, of which the content of a file chooses one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hpo.errors import DefinitionError, RequestError
from hpo.study.foreign.search import ForeignSearch
from hpo.utils.documents import read_document, read_text

__all__ = ["READERS", "Document", "Reader", "read_search"]

Document = Mapping[str, Any] | str  # the table of a YAML or JSON file, or the text of a Python file


@dataclasses.dataclass(frozen=True)
class Reader:
    """Reader of one tool's files.

    Attributes:
        kind: what it reads, for messages: "Weights & Biases sweep".
        recognizes: returns, of a document and its path, whether it is one of these; it raises nothing.
        read: returns the search; it raises a RequestError that names the key and the value, but not the file.
    """

    kind: str
    recognizes: Callable[[Document, Path], bool]
    read: Callable[[Document, Path], ForeignSearch]


# The first that recognizes a file reads it, so the most particular come first.
READERS: tuple[Reader, ...] = ()


def read_search(path: Path) -> ForeignSearch:
    """Read the search that a file of another tool describes. A Python file is parsed and never run.

    Args:
        path: of a YAML, JSON or Python file.

    Raises:
        RequestError: the file cannot be read, is of no known tool, or is wrong; the message begins with the path.
    """
    document = _read(path)
    reader = next((reader for reader in READERS if reader.recognizes(document, path)), None)
    if reader is None:
        kinds = ", ".join(reader.kind for reader in READERS)
        raise DefinitionError(f"{path}: is none of the files that can be imported: {kinds}")
    try:
        return reader.read(document, path)
    except RequestError as error:
        raise type(error)(f"{path}: {error}") from error


def _read(path: Path) -> Document:
    suffix = path.suffix.lower()
    if suffix == ".py":
        return read_text(path)
    return read_document(path, style="json" if suffix == ".json" else "yaml")
