"""Studies that are imported: the search of another tool's file as a study file, with what was changed for it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpo.datasets.readers import PREFIXES
from hpo.datasets.reference import is_path
from hpo.datasets.source import parse_source, spell_source
from hpo.errors import RequestError
from hpo.study.foreign.search import ForeignSearch
from hpo.utils.paths import ROOM, is_name
from hpo.utils.toml import toml_value

__all__ = ["ImportOptions", "ImportedStudy", "comment", "locate_data", "name_study", "valid_name", "write_files"]


@dataclass(frozen=True)
class ImportOptions:
    """Options of an import.

    Attributes:
        renames: our names by theirs, of parameters, metrics and, as `parameter.value`, values.
        left_out: parameters of theirs that are left out on purpose.
        sets: parameters of ours, with their domains, in addition to the file's or instead of them.
        dataset: as a study file has it; None leaves it to the file.
        out: the study file, from whose folder relative paths start; None where it is printed.
    """

    renames: Mapping[str, str] = field(default_factory=dict)
    left_out: Sequence[str] = ()
    sets: Mapping[str, Any] = field(default_factory=dict)
    dataset: object = None
    out: Path | None = None


@dataclass
class ImportedStudy:
    """Search as a study.

    Attributes:
        tool: whose search it was.
        table: the keys of a study file.
        mappings: `theirs -> ours` for everything that has another name or value here, a line each.
        notes: differences, and parts without an equivalent, a line each.
        about: the search's description.
        kept: how many of the file's parameters the study has.
        total: how many the file has, without those that are left out on purpose.
        loop: text of the training loop's Python file; empty without one.
    """

    tool: str
    table: dict[str, Any] = field(default_factory=dict)
    mappings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    about: str = ""
    kept: int = 0
    total: int = 0
    loop: str = ""

    def toml(self, source: str) -> str:
        """Return the text of the study file, with the mappings and the notes at its head."""
        head = [
            f"Imported from {source} ({self.tool}).",
            *self.about.splitlines(),
            *self.mappings,
            *(f"note: {note}" for note in self.notes),
        ]
        keys = [f"{key} = {toml_value(value)}" for key, value in self.table.items() if key != "parameters"]
        parameters = [f"{key} = {toml_value(value)}" for key, value in self.table["parameters"].items()]
        return "\n".join([*map(comment, head), *keys, "", "[parameters]", *parameters]) + "\n"

    def describe_share(self) -> str:
        """Say how many of the file's parameters the study has, and where a loop has the others."""
        share, others = f"{self.kept} of {self.total} parameters are kept", self.total - self.kept
        if not (self.loop and others):
            return share
        stand = "stand in the loop as expressions" if others > 1 else "stands in the loop as an expression"
        return f"{share}; {others} {stand}, to be computed there"


def comment(line: str) -> str:
    """Return a line as a comment of TOML or Python, without what could end it."""
    return f"# {''.join(c if c.isprintable() else ' ' for c in line)}".rstrip()


def locate_data(dataset: object, out: Path | None) -> object:
    """Return a data set as the study file has it: its paths, given from the working directory, from that file's folder.

    Raises:
        DefinitionError: it is no data set's name, path or table.
    """
    folder = Path.cwd() if out is None else out.resolve().parent
    if dataset is None or folder == Path.cwd():
        return dataset
    name, source = parse_source(dataset)
    parts = {
        key: _locate(path, folder)
        for key in ("test", "validation")
        if isinstance(path := getattr(source, key, None), str)
    }
    moved = source if source is None else source.model_copy(update=parts)
    return spell_source(_locate(name, folder) if is_path(name) else name, moved)


def _locate(path: str, folder: Path) -> str:
    if path.startswith(PREFIXES) or Path(path).expanduser().is_absolute():
        return path
    return os.path.relpath(Path(path).resolve(), folder)


def write_files(texts: Mapping[Path, str]) -> None:
    """Write the files of an import: all, or none where one of them exists with other content.

    Raises:
        RequestError: one exists with other content, or cannot be written.
    """
    for path, text in texts.items():
        if path.exists() and _read(path) != text:
            raise RequestError(f"{path}: exists with other content; choose another name, or remove it")
    for path, text in texts.items():
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise RequestError(f"{path}: cannot be written: {error.strerror or error}") from error


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def name_study(search: ForeignSearch) -> str | None:
    """Return the search's name where it can be a study's."""
    return None if search.name is None else valid_name(search.name)


def valid_name(text: object) -> str | None:
    """Return a text where it can be a study's name."""
    name = str(text).strip()
    return name if is_name(name, ROOM) else None
