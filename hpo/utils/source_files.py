"""Python files of the user's, imported by their paths."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from hpo.errors import RegistryError, RequestError
from hpo.utils.text import summarize_error

__all__ = ["import_file"]


def import_file(file: Path) -> ModuleType:
    """Import a file under its own name, as a script that its folder's other files may import.

    Raises:
        RequestError: there is no such file.
        RegistryError: it cannot be imported; the message has the line of the user's that failed.
    """
    name = file.stem
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__file__", None) == str(file):
        return loaded
    if not file.is_file():
        raise RequestError(f"{file}: {'is a folder' if file.is_dir() else 'no such file'}; name a Python file")
    if loaded is not None or not name.isidentifier():
        name = f"hpo_objective_{name}"  # something else is imported under its name, or nothing can be
    if str(file.parent) not in sys.path:
        sys.path.insert(0, str(file.parent))
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None  # the file's name ends in .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so that what the file defines can be pickled
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise RegistryError(f"{file}: {_locate(error, file)}{summarize_error(error)}") from error
    return module


def _locate(error: BaseException, file: Path) -> str:
    """Return the user's own line in which an error was raised, as `line 12 (import torchvison): `."""
    if isinstance(error, SyntaxError):
        return ""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    return f"line {frames[-1].lineno} ({frames[-1].line}): " if frames else ""
