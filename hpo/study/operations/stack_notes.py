"""Notes of workers on the user's own models: how many of each were trained at once, or why each is trained alone.

Whoever may write to a database may set them to anything: one that cannot be read is left out, and a line says so.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from hpo.study.attributes import explain_error
from hpo.study.stored_study import StoredStudy
from hpo.utils.text import shorten

__all__ = ["StackNote", "describe_stacks", "read_stack_notes", "write_stack_note"]

log = logging.getLogger("hpo.study")
PREFIX = "hpo:stack:"
MOST = 64  # notes of a study: widths that are all different say no more
SHOWN = 4  # of a model, in text


def _check_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("it has characters that cannot be printed")
    return text


Text = Annotated[str, Field(max_length=500), AfterValidator(_check_line)]
Scalar = bool | int | FiniteFloat | Text | None


class StackNote(BaseModel):
    """Note on a model.

    Attributes:
        model: its name.
        parameters: the values that may decide how it is trained, by name.
        at_once: how many were trained at once.
        why: why it is trained alone; None where it is not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    model: Text = Field(min_length=1, max_length=200)
    parameters: dict[Text, Scalar] = Field(max_length=100)
    at_once: int = Field(ge=1, le=10**6)
    why: Text | None = None

    @classmethod
    def of(cls, model: str, parameters: Mapping[str, Any], at_once: int, why: str | None) -> StackNote:
        """Return a note; its texts are shortened to what is kept."""
        kept = {name: _keep(value) for name, value in parameters.items()}
        short = None if why is None else shorten(why, 500, quote=False)
        return cls(model=model, parameters=kept, at_once=at_once, why=short)

    @property
    def key(self) -> str:
        """The attribute of the study that holds it: notes on other shapes do not overwrite each other."""
        content = json.dumps([self.model, sorted(self.parameters.items())])
        return PREFIX + hashlib.sha256(content.encode()).hexdigest()[:12]


def _keep(value: object) -> bool | int | float | str | None:
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return shorten(str(value), 500, quote=False)


def write_stack_note(study: StoredStudy, note: StackNote, known: int) -> bool:
    """Store a note, unless there are many already; return whether it was stored.

    Args:
        study: whose.
        note: the note.
        known: how many others there are.
    """
    if known >= MOST:
        return False
    study.storage.set_study_user_attr(study.id, note.key, note.model_dump(mode="json"))
    return True


def read_stack_notes(study: StoredStudy) -> list[StackNote]:
    """Return a study's notes that can be read, by model."""
    stored = study.storage.get_study_user_attrs(study.id)
    found = [_read(study.name, key, value) for key, value in stored.items() if key.startswith(PREFIX)]
    notes = [note for note in found if note is not None]
    return sorted(notes[:MOST], key=lambda note: (note.model, json.dumps(sorted(note.parameters.items()))))


def _read(study: str, key: str, value: object) -> StackNote | None:
    try:
        return StackNote.model_validate(value)
    except ValidationError as error:
        why = f"its attribute {shorten(key, quote=False)} is damaged: {explain_error(error)}"
        _log_once(f"study {shorten(study)}: {shorten(why, 300, quote=False)}")
        return None


@functools.cache
def _log_once(line: str) -> None:
    log.warning("%s, and is left out", line)


def describe_stacks(notes: Sequence[StackNote]) -> dict[str, str]:
    """Return in a line for each model how it is trained.

    Only parameters that tell notes of a model apart are named.
    """
    return {model: _describe([note for note in notes if note.model == model]) for model in {n.model: 0 for n in notes}}


def _describe(notes: Sequence[StackNote]) -> str:
    names = {name for note in notes for name in note.parameters}
    apart = sorted(name for name in names if len({repr(note.parameters.get(name)) for note in notes}) > 1)
    stacked = [note for note in notes if note.why is None]
    lines = []
    if stacked:
        most = max(note.at_once for note in stacked)
        where = _list_values(stacked, notes, apart)
        lines.append(f"stacked{where}, up to {most} at a time" if most > 1 else f"can be stacked{where}, no two were")
    for why in {note.why: 0 for note in notes if note.why is not None}:
        alone = [note for note in notes if note.why == why]
        where = _list_values(alone, notes, apart)
        lines.append(f"one at a time{where}: {shorten(why, 300, quote=False)}")
    return "; ".join(lines)


def _list_values(notes: Sequence[StackNote], among: Sequence[StackNote], names: Sequence[str]) -> str:
    """Return what tells notes from the others among which they are: ` (act relu; width 16, 32)`.

    Where that would be true of others too, each combination is: ` (act relu, width 16; act tanh, width 8)`.
    """
    others = [note for note in among if note not in notes]
    if not others:
        return ""
    values = {name: list(dict.fromkeys(_get_texts(notes, name))) for name in names}
    shown = {name: shorten(name, 60, quote=False) for name in names}
    if any(all(text in values[name] for name in names for text in _get_texts([other], name)) for other in others):
        pairs = ([f"{shown[name]} {text}" for name in names for text in _get_texts([note], name)] for note in notes)
        parts = [_list_some([", ".join(each) for each in pairs if each], "; ")]
    else:
        parts = [f"{shown[name]} {_list_some(found, ', ')}" for name, found in values.items() if found]
    return f" ({'; '.join(parts)})" if any(parts) else ""


def _get_texts(notes: Sequence[StackNote], name: str) -> list[str]:
    """Return a parameter's values in those notes that have it."""
    return [shorten(str(note.parameters[name]), 30, quote=False) for note in notes if name in note.parameters]


def _list_some(texts: Sequence[str], separator: str) -> str:
    return separator.join(texts[:SHOWN]) + (f"{separator}…" if len(texts) > SHOWN else "")
