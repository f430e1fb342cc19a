"""Templates: the ready-made spaces and studies that the package ships."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from hpo.errors import DefinitionError, unknown

__all__ = ["find", "names"]

Kind = Literal["studies", "search_spaces"]
KIND_WORDS = {"studies": "study", "search_spaces": "space"}


def folder(kind: Kind) -> Path:
    """Where templates of a kind are: inside the package in a wheel, beside it in a checkout or an editable install."""
    package = Path(__file__).parent
    inside = package / kind
    return inside if inside.is_dir() else package.parent / kind


def names(kind: Kind) -> list[str]:
    """The names of all templates of a kind."""
    return sorted(path.stem for path in folder(kind).glob("*.toml"))


def find(kind: Kind, name: str) -> Path:
    """The file of a template.

    Raises:
        DefinitionError: no template of that name; the message names the closest one.
    """
    path = folder(kind) / f"{name}.toml"
    if name not in names(kind):
        raise DefinitionError(
            f"{unknown(f'{KIND_WORDS[kind]} template', name, names(kind))}, or give a path to a .toml file"
        )
    return path
