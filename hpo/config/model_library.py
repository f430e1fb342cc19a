"""Libraries of models, of which any is known by name: `timm:resnet18`, `torchvision:resnet18`. Imports neither."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass

from hpo.errors import RegistryError, find_closest

__all__ = ["LIBRARIES", "MODULE", "ModelLibrary", "correct_name", "find_library", "spell_names"]

MODULE = "hpo.training.library_models"
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")  # no address of a hub, from which the library would download


@dataclass(frozen=True)
class ModelLibrary:
    """Library of models.

    Attributes:
        package: its name, and what names of its models begin with.
        target: dotted name of the function that builds any of its models.
        uses: the shared parameters that its models use.
    """

    package: str
    target: str
    uses: frozenset[str]

    def check_installed(self, model: str) -> None:
        """Refuse a model of the library where that is not installed; it is not imported.

        Raises:
            RegistryError: names the extra to install.
        """
        if importlib.util.find_spec(self.package) is None:
            raise RegistryError(
                f"model '{model}': needs the package {self.package}, which is not installed here; "
                "run: pip install 'torch-hpo[timm]'"
            )


LIBRARIES = {
    "timm": ModelLibrary("timm", f"{MODULE}.timm_model", frozenset({"dropout", "precision"})),
    "torchvision": ModelLibrary("torchvision", f"{MODULE}.torchvision_model", frozenset({"precision"})),
}


def find_library(model: str) -> ModelLibrary | None:
    """Return the library that a model's name begins with; None for a name that is none of a library's models."""
    prefix, colon, name = model.partition(":")
    return LIBRARIES.get(prefix) if colon and NAME.fullmatch(name) else None


def correct_name(model: str) -> str | None:
    """Return the name of a library's model whose library is misspelled, or None; it is not looked up there."""
    prefix, colon, name = model.partition(":")
    library = find_closest(prefix, LIBRARIES) if colon and NAME.fullmatch(name) else None
    return f"{library}:{name}" if library else None


def spell_names(model: str) -> str:
    """Return what a model of that name is called in each library: `timm:resnet18 or torchvision:resnet18`."""
    name = model if NAME.fullmatch(model) else "NAME"
    return " or ".join(f"{library}:{name}" for library in LIBRARIES)
