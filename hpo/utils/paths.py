"""Paths made of texts from a database, which whoever may write to it chooses: they stay inside a folder of ours.

Every such path is made here. A part is accepted only if it is one that hpo itself could have made, and the path only if
it is inside the folder after all links have been followed.
"""

from __future__ import annotations

import re
from pathlib import Path

from hpo.errors import RequestError
from hpo.utils.home import home
from hpo.utils.text import shorten

__all__ = ["ROOM", "fit_name", "is_key", "is_name", "is_own_file", "study_path"]

NAME = re.compile(r"\w[\w .+@=,-]*")
KEY = re.compile(r"[0-9a-f]{8}")
LONGEST, LONGEST_BYTES = 100, 240  # of a study's name: with its key it is a folder's, which may have 255 bytes
ROOM = 20  # characters that a new study leaves to the names made from its own, such as its evaluation's
NAME_RULE = "letters, digits, spaces and . _ + @ = , - beginning with a letter or digit"


def is_name(text: str, room: int = 0) -> bool:
    """Return whether a text can be a study's name, a folder's and a command's argument on every system.

    Args:
        text: any text.
        room: number of characters that it leaves to names which are made from it.
    """
    return _fits(text, room) and NAME.fullmatch(text) is not None and text == text.strip()


def _fits(text: str, room: int) -> bool:
    return len(text) <= LONGEST - room and len(text.encode(errors="replace")) <= LONGEST_BYTES - room


def fit_name(name: str, suffix: str, room: int = 0) -> str:
    """Return a name with a suffix; the name is cut where both are longer than a name may be."""
    while name and not _fits(name + suffix, room):
        name = name[:-1]
    return (name + suffix).strip()


def is_key(text: object) -> bool:
    """Return whether a value can be a study's key, which is part of its folders' names."""
    return isinstance(text, str) and KEY.fullmatch(text) is not None


def study_path(kind: str, study: str, key: object = None, *, root: Path | None = None) -> Path:
    """Return the path of a study's folder of a kind: `<root>/<kind>/<study>`, or with a key `<study>-<key>`.

    Args:
        kind: `logs`, `reports`, `weights`, …; empty for a folder directly in `root`.
        study: the study's name.
        key: the value of its attribute `hpo:key`, if the folder is for this very study.
        root: the folder that the path must stay in; by default `HPO_HOME`.

    Raises:
        RequestError: the name or the key is none that hpo makes, or a link leads out of the folder; the line names the
            study, what is wrong with it, and the value.
    """
    if not is_name(study):
        raise RequestError(
            f"study {shorten(study)}: no folder of ours can have its name (up to {LONGEST} {NAME_RULE}); give "
            "--out DIR where the command takes it, or a copy another name: hpo copy NAME --to URL --as NEW"
        )
    if key is not None and not is_key(key):
        raise RequestError(
            f"study {study!r}: its attribute hpo:key is {shorten(str(key))}, and not 8 hexadecimal digits: hpo has "
            "not made it, and uses no files by it; a copy gets its own: hpo copy NAME --to URL --as NEW"
        )
    base = root or home()
    path = base / kind / (study if key is None else f"{study}-{key}")
    real = path.resolve()
    if not real.is_relative_to(base.resolve()):
        raise RequestError(f"study {study!r}: its folder {path} is in {base} by name alone; the link leads to {real}")
    return path


def is_own_file(folder: Path, name: str) -> bool:
    """Return whether a file is there, directly in the folder also when links have been followed."""
    path = folder / name
    return path.name == name and path.is_file() and path.resolve().parent == folder.resolve()
