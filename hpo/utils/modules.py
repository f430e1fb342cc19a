"""Modules of the user's: imported by name from the working directory, or by the path of their file."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from hpo.errors import RegistryError, RequestError
from hpo.utils.text import summarize_error

__all__ = ["GUARD", "OptimizeCall", "add_folder", "end_at_optimize", "import_file", "is_file_path"]

log = logging.getLogger("hpo.study")
INIT = "__init__.py"
GUARD = 'put it under `if __name__ == "__main__":`'


class OptimizeCall(BaseException):
    """The call of `study.optimize` in a script of the user's own that is imported."""


def is_file_path(text: str) -> bool:
    """Return whether a text names a module by the path of its file, or of its package's folder, and not by its name."""
    return text.endswith(".py") or os.sep in text


def add_folder(folder: Path) -> None:
    """Let modules be imported from a folder, before all others."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def import_file(path: Path) -> ModuleType:
    """Import a file under its own name, as a script that its folder's other files may import; once only.

    A file of a package is imported as the module of the package that it is, and a folder as a package. A script that
    calls `study.optimize` ends there, for its trials are the study's to begin.

    Raises:
        RequestError: there is no such file.
        RegistryError: it cannot be imported; the message has the line of the user's that failed.
    """
    path = path.expanduser().absolute()
    file = path / INIT if (path / INIT).is_file() else path
    if not file.is_file():
        raise RequestError(f"{file}: {'is a folder' if file.is_dir() else 'no such file'}; name a Python file")
    root, name = _find_name(file)
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__file__", None) == str(file):
        return loaded
    add_folder(root)
    try:
        if "." in name or file.name == INIT:
            return _import_of_package(name, file)
        if loaded is not None or not name.isidentifier():
            name = f"hpo_file_{name}"  # something else is imported under its name, or nothing can be
        loaded = sys.modules.get(name)
        if loaded is not None and loaded.__file__ == str(file):
            return loaded
        return _execute(name, file)
    except RegistryError:
        raise
    except (Exception, SystemExit) as error:
        raise RegistryError(f"{file}: {_locate(error, file)}{summarize_error(error)}") from error


def _find_name(file: Path) -> tuple[Path, str]:
    """Return the folder that a file's module is imported from, and its name there."""
    parts = [] if file.name == INIT else [file.stem]
    folder = file.parent
    while (folder / INIT).is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    return folder, ".".join(parts)


def _import_of_package(name: str, file: Path) -> ModuleType:
    """Import a file by the name that it has in its package.

    Raises:
        RegistryError: another package of that name is imported already; or the file optimizes while it is imported.
    """
    try:
        with end_at_optimize():
            module = importlib.import_module(name)
    except OptimizeCall as call:
        raise RegistryError(f"{file}: {_locate(call, file)}would run in every worker; {GUARD}") from None
    if getattr(module, "__file__", None) != str(file):
        raise RegistryError(f"{file}: another module is called {name}: {module.__file__}; rename one of them")
    return module


def _execute(name: str, file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None  # the file's name ends in .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so that what the file defines can be pickled
    try:
        with end_at_optimize():
            spec.loader.exec_module(module)
    except OptimizeCall as call:
        log.warning("%s, %sleft to the launch, and nothing after it is run", file.name, _locate(call, file))
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def end_at_optimize() -> Iterator[None]:
    """Raise `OptimizeCall` where a script that is imported in the meantime calls `study.optimize`.

    Each worker imports the script, and would call the function for all the script's own trials first.
    """
    optuna = sys.modules.get("optuna")  # which this layer does not import, but all that launch and work have
    if optuna is None:
        yield
        return

    def end(*_: object, **__: object) -> NoReturn:
        raise OptimizeCall

    optimize = optuna.Study.optimize
    optuna.Study.optimize = end
    try:
        yield
    finally:
        optuna.Study.optimize = optimize


def _locate(error: BaseException, file: Path) -> str:
    """Return the user's own line in which an error was raised, as `line 12 (import torchvison): `."""
    if isinstance(error, SyntaxError):
        return ""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    return f"line {frames[-1].lineno} ({frames[-1].line}): " if frames else ""
