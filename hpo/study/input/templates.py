"""Templates: ready-made spaces and studies that the package ships."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from hpo.errors import DefinitionError, describe_unknown

__all__ = ["find_any_template", "find_template", "list_templates", "names_file", "template_names"]

Kind = Literal["studies", "search_spaces"]
KIND_WORDS: dict[Kind, str] = {"studies": "study", "search_spaces": "space"}


def template_folder(kind: Kind | Literal["docs"]) -> Path:
    """Return the folder of a kind of files: in a wheel inside the package, otherwise beside it."""
    package = Path(__file__).parents[2]
    inside = package / kind
    return inside if inside.is_dir() else package.parent / kind


def template_names(kind: Kind) -> list[str]:
    """List the names of all templates of a kind."""
    return sorted(path.stem for path in template_folder(kind).glob("*.toml"))


def find_template(kind: Kind, name: str) -> Path:
    """Return the file of a template.

    Raises:
        DefinitionError: there is no template of that name; the message names the closest one.
    """
    path = template_folder(kind) / f"{name}.toml"
    if name not in template_names(kind):
        problem = describe_unknown(f"{KIND_WORDS[kind]} template", name, template_names(kind))
        raise DefinitionError(f"{problem}, or give a path to a .toml file")
    return path


def names_file(name: str) -> bool:
    """Return whether the name of a study or a space is that of a file, rather than of a template or a stored study."""
    return os.sep in name or Path(name).suffix in (".toml", ".yaml", ".yml", ".json")


def find_any_template(name: str) -> Path:
    """Return the file of a study template, or else of a space template, of that name.

    Raises:
        DefinitionError: there is neither.
    """
    for kind in KIND_WORDS:
        if name in template_names(kind):
            return find_template(kind, name)
    raise DefinitionError(describe_unknown("template", name, [n for kind in KIND_WORDS for n in template_names(kind)]))


def list_templates() -> list[tuple[str, str, str]]:
    """List kind, name and first comment line of every template, studies first."""
    return [
        (KIND_WORDS[kind], name, _read_summary(find_template(kind, name)))
        for kind in KIND_WORDS
        for name in template_names(kind)
    ]


def _read_summary(path: Path) -> str:
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""
