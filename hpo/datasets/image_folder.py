"""Folders of images: which files they hold, in which part of the data set, and with which labels.

Either each folder below is a class, as in torchvision's ImageFolder, or `labels.csv` has a row for each file. Both may
be below `train`, `test` and `validation`.
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hpo.datasets.folder_state import LABELS, FolderState, is_image, list_folders
from hpo.datasets.image_decoder import SUFFIXES
from hpo.datasets.notes import describe_unlabelled
from hpo.datasets.part_names import PARTS
from hpo.datasets.roles import Roles
from hpo.datasets.source import DatasetSource
from hpo.datasets.text_table import find_separator, to_numbers
from hpo.errors import DataError, find_closest
from hpo.utils.text import quantity, shorten

__all__ = ["ImageFiles", "list_images"]

Array = np.ndarray[Any, Any]
FILE_COLUMNS = ("file", "filename", "file_name", "image", "img", "path", "filepath", "name", "id", "image_id")
LABEL_COLUMNS = ("label", "labels", "class", "target", "y")
LARGEST_CSV = 1 << 28  # bytes
GLANCE = 100  # rows by which a column is told to name files


@dataclass(frozen=True)
class ImageFiles:
    """Files of one part of a data set.

    Attributes:
        names: relative to the root, (N,).
        labels: as the folder has them: texts or numbers, (N,) or (N, columns).
        columns: the names of several label columns, or of one of numbers.
        groups, times, weights: of each file, (N,), or None.
        rows: the number of each file's row in labels.csv, from 1; or of each file in the order of their names.
        notes: what was left out.
    """

    names: list[str]
    labels: Array
    columns: tuple[str, ...] = ()
    groups: Array | None = None
    times: Array | None = None
    weights: Array | None = None
    rows: Array = field(default_factory=lambda: np.empty(0, np.int64))
    notes: tuple[str, ...] = ()


def list_images(state: FolderState, others: Mapping[str, FolderState], source: DatasetSource) -> dict[str, ImageFiles]:
    """Return the files of a folder of images with their labels, by part: `train`, and what there is of the others.

    Args:
        state: of the folder.
        others: those of folders elsewhere that hold the test or validation data, by part.
        source: the columns of labels.csv that are used.

    Raises:
        DataError: there are no images, or they have no labels; `labels.csv` is wrong.
    """
    root = Part(state, "", state.path)
    folders = list_folders(state.path)
    named = {name: PARTS[name.lower()] for name in folders if name.lower() in PARTS}
    if "train" not in named.values() or LABELS in state.names:
        return {"train": _list_part(root, source, training=True), **_list_others(root, others, source)}
    if len(set(named.values())) < len(named):
        raise DataError(f"{state.path}: has two folders for one part ({', '.join(sorted(named))}); keep one of them")
    parts = {
        part: _list_part(Part(state, f"{name}/", state.path), source, training=part == "train")
        for name, part in sorted(named.items())
    }
    return {**parts, **_list_others(root, others, source)}


class Part(NamedTuple):
    """Part of a data set: what is below a folder.

    Attributes:
        state: of the folder, or of one that holds it.
        prefix: its path in that one, with a slash at its end, or empty.
        root: the folder that the data set's files are named from.
    """

    state: FolderState
    prefix: str
    root: Path

    @property
    def folder(self) -> Path:
        """Its path."""
        return self.state.path / self.prefix

    @property
    def lead(self) -> str:
        """The text before a file's name in the folder, in the data set's names."""
        lead = os.path.relpath(self.folder, self.root)
        return "" if lead == "." else f"{lead}/"

    def choose(self, names: Iterable[str]) -> list[str]:
        """Return those names that are below the folder, from there on."""
        return [name[len(self.prefix) :] for name in names if name.startswith(self.prefix)]


def _list_others(root: Part, others: Mapping[str, FolderState], source: DatasetSource) -> dict[str, ImageFiles]:
    return {part: _list_part(Part(state, "", root.root), source) for part, state in others.items()}


def _list_part(part: Part, source: DatasetSource, *, training: bool = False) -> ImageFiles:
    names = part.choose(part.state.names)
    if LABELS in names:
        return _read_labels(part, [name for name in names if is_image(name)], source)
    columns = [key for key in ("label", "group", "time", "weight") if getattr(source, key)]
    if columns:
        raise DataError(f"{part.folder}: {columns[0]} names a column, but folders by class have none; give a {LABELS}")
    return _list_classes(part, [name for name in names if is_image(name)], training)


def _list_classes(part: Part, images: Sequence[str], training: bool) -> ImageFiles:
    names = [name for name in images if "/" in name]
    labels = [name.partition("/")[0] for name in names]
    loose = [name for name in images if "/" not in name]
    _check_found(part.folder, names, loose)
    if training:
        _check_classes(part.folder, labels)
    others = part.choose(part.state.others)
    notes = [f"{quantity(len(others), 'file')} left out, such as {shorten(others[0])}: no images"] if others else []
    if loose:
        notes.append(f"{quantity(len(loose), 'image')} in no class's folder left out, such as {shorten(loose[0])}")
    lead = part.lead
    return ImageFiles(
        [f"{lead}{name}" for name in names],
        np.array(labels),
        rows=np.arange(1, len(names) + 1),
        notes=tuple(notes),
    )


def _check_found(folder: Path, names: Sequence[str], loose: Sequence[str]) -> None:
    if not names and loose:
        raise DataError(
            f"{folder}: has {quantity(len(loose), 'image')}, such as {shorten(loose[0])}, but no labels; put them into "
            f"a folder for each class, or give a {LABELS} with the columns file and label"
        )
    if not names:
        endings = ", ".join(sorted(SUFFIXES))
        raise DataError(
            f"{folder}: holds no images ({endings}); correct the path, or put a folder for each class in it"
        )


def _check_classes(folder: Path, labels: Sequence[str]) -> None:
    """Check the classes of training images, each of which must be in training and in what is held out."""
    counts = Counter(labels)
    for name in list_folders(folder):
        if name not in counts:
            raise DataError(f"{folder}: class {shorten(name, 40)} has no images; add some, or delete its folder")
    if len(counts) < 2:
        raise DataError(f"{folder}: has one class, {shorten(labels[0], 40)}; at least 2 are needed")
    for name, count in counts.items():
        if count == 1:
            raise DataError(
                f"{folder}: class {shorten(name, 40)} has a single image, so that none can be held out; add more, or "
                "delete its folder"
            )


# ---- labels.csv


def _read_labels(part: Part, images: Sequence[str], source: DatasetSource) -> ImageFiles:
    path = part.folder / LABELS
    table = _read_table(path)
    known = dict.fromkeys(images)
    column = _find_file_column(path, table, source, known)
    names, missing = _match_files(path, column, table[column], known)
    label = _find_labels(path, table, column, source)
    keep = [i for i, name in enumerate(names) if all(table[each][i].strip() for each in label)]
    if not keep:
        raise DataError(f"{path}: column {label[0]!r} is empty in every row; name another label")
    values = [_parse_column([table[each][i] for i in keep]) for each in label]
    _check_kinds(path, label, values)
    notes = [f"{quantity(missing, 'image')} without a row in {LABELS} left out"] if missing else []
    if len(keep) < len(names):
        notes.append(describe_unlabelled(np.setdiff1d(np.arange(len(names)), keep) + 1, f"{LABELS} row"))
    roles, lead = _read_roles(table, keep, source, path), part.lead
    return ImageFiles(
        [f"{lead}{names[i]}" for i in keep],
        values[0] if len(label) == 1 else np.stack(values, 1),
        tuple(label) if len(label) > 1 or values[0].dtype.kind == "f" else (),
        roles.groups,
        roles.times,
        roles.weights,
        np.array(keep) + 1,
        tuple(notes),
    )


def _read_table(path: Path) -> dict[str, list[str]]:
    """Return the columns of a small CSV file, with all values as texts.

    Raises:
        DataError: it cannot be read, is none, or a row has another number of values than the header.
    """
    try:
        if path.stat().st_size > LARGEST_CSV:
            raise DataError(f"{path}: has more than {LARGEST_CSV:,} bytes; give each class a folder instead")
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file, delimiter=find_separator(path), strict=True) if row]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); correct its permissions") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path}: is no CSV file in UTF-8 ({shorten(str(error), quote=False)}); save it again"
        ) from error
    if len(rows) < 2:
        raise DataError(f"{path}: has no rows; it must hold a header, and a row for each image")
    header = [name.strip() for name in rows[0]]
    if len(set(header)) < len(header):
        raise DataError(f"{path}: has two columns of one name; rename one of them")
    for number, row in enumerate(rows[1:], 1):
        if len(row) != len(header):
            raise DataError(f"{path}, row {number}: {len(row)} values, where the header has {len(header)}; correct it")
    return dict(zip(header, map(list, zip(*rows[1:], strict=True)), strict=True))


def _find_file_column(
    path: Path, table: Mapping[str, list[str]], source: DatasetSource, known: Mapping[str, object]
) -> str:
    if (shown := next((name for name in table if name in known), None)) is not None:
        raise DataError(
            f"{path}: its first line holds {shorten(shown)}, which is an image; put a line of column names above it"
        )
    stems = {_drop_suffix(name) for name in known}
    free = [name for name in table if name not in source.label]
    likely = [name for name in free if name.lower() in FILE_COLUMNS]
    for name in [*likely, *(name for name in free if name not in likely)]:
        values = table[name][:GLANCE]
        if len(set(values)) == len(values) and any(value in known or value in stems for value in values):
            return name
    if likely:
        return likely[0]  # whose first file that is missing is named
    raise DataError(f"{path}: no column names the images beside it; give it a column 'file' with their paths")


def _match_files(path: Path, column: str, values: Sequence[str], known: Mapping[str, object]) -> tuple[list[str], int]:
    """Return the file of each row, and how many files have none. A suffix that a row lacks is added."""
    stems: dict[str, str] = {}
    for name in known:
        stems.setdefault(_drop_suffix(name), name)
    names: list[str] = []
    for number, value in enumerate(values, 1):
        name = os.path.normpath(value.strip()) if value.strip() else ""
        found = name if name in known else stems.get(name)
        if found is None:
            raise DataError(
                f"{path}, row {number}: no image {shorten(value)} (column {column!r}); correct or delete it"
            )
        names.append(found)
    first: dict[str, int] = {}
    for number, name in enumerate(names, 1):
        if first.setdefault(name, number) != number:
            raise DataError(f"{path}, row {number}: {shorten(name)} has row {first[name]} already; delete one of them")
    return names, len(known) - len(names)


def _drop_suffix(name: str) -> str:
    return str(Path(name).with_suffix(""))


def _find_labels(path: Path, table: Mapping[str, list[str]], column: str, source: DatasetSource) -> list[str]:
    asked = {"drop": source.drop, "group": source.group, "time": source.time, "weight": source.weight}
    used = {name for value in asked.values() for name in ([value] if isinstance(value, str) else value or ())}
    for name in [*source.label, *sorted(used)]:
        if name not in table:
            near = find_closest(name, table)
            hint = f"did you mean '{near}'?" if near else f"its columns are: {', '.join(table)}"
            raise DataError(f"{path}: has no column {shorten(name)}; {hint}")
    if source.label:
        return list(source.label)
    free = [name for name in table if name != column and name not in used]
    if len(free) == 1:
        return free
    likely = [name for name in free if name.lower() in LABEL_COLUMNS]
    if len(likely) == 1:
        return likely
    if len(free) > 1 and all(set(table[name]) <= {"0", "1"} for name in free):
        return free
    if not free:
        raise DataError(f"{path}: has no column to predict; add one called label")
    which = shorten(", ".join(free), quote=False)
    raise DataError(f"{path}: is not clear about what is predicted; say which of {which} it is: label = …")


def _parse_column(texts: Sequence[str]) -> Array:
    """Return a column as whole numbers, real numbers or texts."""
    words = [text.strip().lower() for text in texts]
    if set(words) <= {"true", "false"}:
        return np.array([word == "true" for word in words], np.int64)
    for kind in (np.int64, np.float64):
        try:
            return np.array(texts).astype(kind)
        except (ValueError, OverflowError):
            continue
    return np.array([text.strip() for text in texts])


def _check_kinds(path: Path, label: Sequence[str], values: Sequence[Array]) -> None:
    texts = [name for name, column in zip(label, values, strict=True) if column.dtype.kind == "U"]
    if texts and len(label) > 1:
        raise DataError(f"{path}: column {texts[0]!r} holds texts; several labels must be numbers, or 0 and 1")


def _read_roles(table: Mapping[str, list[str]], keep: Sequence[int], source: DatasetSource, path: Path) -> Roles:
    import polars as pl

    used = {name for name in (source.group, source.time, source.weight) if name is not None}
    frame = pl.DataFrame({name: to_numbers(pl.Series([table[name][i].strip() or None for i in keep])) for name in used})
    return Roles.read(frame, source, str(path), np.array(keep) + 1)
