"""Objective functions of the user's own: `FILE.py:NAME` or `MODULE:NAME` to a function of Optuna's trial."""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import optuna

from hpo.config import registry
from hpo.errors import RegistryError, RequestError, find_closest
from hpo.study import Study
from hpo.study.definition import FunctionReference
from hpo.utils.files import write_atomically
from hpo.utils.modules import GUARD, OptimizeCall, add_folder, end_at_optimize, import_file
from hpo.utils.text import shorten, summarize_error

__all__ = [
    "ObjectiveFunction",
    "describe_function",
    "find_changes",
    "find_function",
    "find_objective",
    "is_function",
    "load_function",
    "pickle_function",
    "read_study",
]

PICKLE = ".objective.pkl"
Function = Callable[[optuna.trial.Trial], Any]


@dataclass(frozen=True)
class ObjectiveFunction:
    """Objective function, and the reference by which its study knows it."""

    call: Function
    reference: FunctionReference


def is_function(text: str) -> bool:
    """Return whether a command's argument names an objective function: `FILE.py:NAME` or `MODULE:NAME`."""
    place, colon, name = text.rpartition(":")
    return bool(colon) and name.isidentifier() and (place.endswith(".py") or _is_module_name(place))


def _is_module_name(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))


def find_objective(file: str) -> str | None:
    """Find the objective function of a `FILE.py`, and return it as `FILE.py:NAME`.

    It is the only function of the file that takes one argument, called `trial`. None if there are several or none, or
    if the file registers a training loop or a model.

    Raises:
        RegistryError: the file cannot be imported.
    """
    module = registry.import_module(file)
    if any(registry.models.get(name).module == module.__name__ for name in registry.models.names()):
        return None
    functions = [value for value in vars(module).values() if inspect.isfunction(value)]
    own = [each.__name__ for each in functions if each.__module__ == module.__name__ and _takes_trial(each)]
    return f"{file}:{own[0]}" if len(own) == 1 else None


def _takes_trial(function: Callable[..., Any]) -> bool:
    parameters = inspect.signature(function).parameters.values()
    return [each.name for each in parameters if each.default is inspect.Parameter.empty] == ["trial"]


def load_function(text: str) -> ObjectiveFunction:
    """Load an objective function, importing the file or module that holds it.

    Args:
        text: `FILE.py:NAME`, or `MODULE:NAME` for a module that can be imported from the working directory; `FILE.py`,
            for the only objective function of a file; or a file that `pickle_function` wrote.

    Raises:
        RequestError: there is no such file or name, or it does not take a trial.
        RegistryError: the file cannot be imported; the message has the line of the user's that failed.
    """
    if text.endswith(PICKLE):
        return _load_pickle(Path(text))
    text = _complete_name(text)
    place, _, name = text.rpartition(":")
    file = Path(place).expanduser().absolute() if place.endswith(".py") else None
    module = import_file(file) if file is not None else _import_module(place)
    function = getattr(module, name, None)
    if function is None:
        raise RequestError(f"{text}: {place} {_explain_missing(module, name)}")
    check_function(text, function)
    return ObjectiveFunction(function, _make_reference(name, module, file))


def _complete_name(text: str) -> str:
    """Return what names a function, with the function's name where its file alone was given.

    Raises:
        RequestError: it names no function, and the file has several or none.
    """
    place = text.removesuffix(":")
    named = find_objective(place) if place.endswith(".py") else text
    if named is None:
        functions = _list_functions(registry.import_module(place))
        raise RequestError(f"{place}: name its objective function, as {place}:FUNCTION; its functions are: {functions}")
    if not is_function(named):
        raise RequestError(f"{shorten(named, quote=False)}: name a function as FILE.py:FUNCTION or MODULE:FUNCTION")
    return named


def _list_functions(module: ModuleType) -> str:
    names = [name for name, value in vars(module).items() if inspect.isfunction(value) and not name.startswith("_")]
    return ", ".join(names) or "none"


def pickle_function(function: ObjectiveFunction, folder: Path) -> Path:
    """Write a function that no file holds, with all that it refers to, for workers that this process starts.

    Raises:
        RequestError: it refers to something that cannot be pickled.
    """
    import cloudpickle  # type: ignore[import-untyped]

    path = folder / f"{function.reference.name}{PICKLE}"
    try:
        content = cloudpickle.dumps((function.call, function.reference.model_dump()))
    except Exception as error:  # whatever an object's own __reduce__ raises
        raise RequestError(
            f"{function.reference.label}: cannot be sent to worker processes ({summarize_error(error)}); create inside "
            "the function what it cannot take along, or use workers=1"
        ) from error
    write_atomically(path, content)
    return path


def _load_pickle(path: Path) -> ObjectiveFunction:
    import cloudpickle

    try:
        call, reference = cloudpickle.loads(path.read_bytes())
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror}; the process that launched has ended") from error
    return ObjectiveFunction(call, FunctionReference(**reference))


def describe_function(function: Function) -> FunctionReference:
    """Return the reference of a function of this process: by its module, by the script that runs, or by its name."""
    module = inspect.getmodule(function)  # None of what was typed at a prompt
    name = getattr(function, "__name__", type(function).__name__)
    if module is not None and getattr(module, name, None) is not function:
        module = None  # an object that is called, or made by a function: whoever imports the module finds another
    if module is not None and module.__name__ != "__main__":
        return _make_reference(name, module, None)
    script = getattr(module, "__file__", None)
    if module is not None and script is not None and script.endswith(".py"):
        return _make_reference(name, module, Path(script).absolute())
    return FunctionReference(name=name, sha256=_digest_source(function))


def find_function(study: Study, text: str | None, imports: Sequence[str]) -> ObjectiveFunction:
    """Return the objective function of a study, for a worker.

    Args:
        study: a study of an objective function.
        text: the function, as `load_function` takes it, or its file or module alone; None if one of the modules holds
            it.
        imports: modules that the user has named. What a database names is not imported.

    Raises:
        RequestError: nothing names the function, or it is of another name.
        RegistryError: its file or module cannot be imported.
    """
    reference = study.definition.function
    assert reference is not None
    if text is None:
        holder = reference.module or Path(reference.file or "").stem
        if holder not in imports:
            named = f"--objective {reference.file or holder}:{reference.name}"
            raise RequestError(
                f"study '{study.name}' calls the objective function {reference.label}, which a worker imports only if "
                f"you name it: add {named}" + (f", or --import {holder}" if holder else "")
            )
        text = f"{holder}:{reference.name}"
    elif (place := text.removesuffix(":")).endswith(".py") or _is_module_name(place):
        text = f"{place}:{reference.name}"
    function = load_function(text)
    if function.reference.name != reference.name:
        raise RequestError(f"--objective {text}: study '{study.name}' calls {reference.label}")
    return function


def find_changes(study: Study, reference: FunctionReference) -> list[str]:
    """Return a line if the source of a study's function is not what it was at the launch."""
    stored = study.definition.function
    if stored is None or not stored.sha256 or not reference.sha256 or stored.sha256 == reference.sha256:
        return []
    return [
        f"{reference.label}: its source is not the one that study '{study.name}' was launched with (SHA-256 now "
        f"{reference.sha256[:12]}, at the launch {stored.sha256[:12]}); trials of both are compared"
    ]


def check_function(label: str, function: object) -> None:
    """Check that an objective function can be called with a trial alone.

    Raises:
        RequestError: it cannot.
    """
    if not callable(function):
        raise RequestError(f"{label}: is {type(function).__name__}, not a function; name a function of one argument")
    if isinstance(function, type):
        raise RequestError(f"{label}: is a class; name a function of one argument, the trial, or an instance of it")
    try:
        inspect.signature(function).bind(None)
    except TypeError:
        wanted = ", ".join(map(str, inspect.signature(function).parameters.values()))
        if not wanted:
            raise RequestError(
                f"{label}: takes no arguments, but an objective function is called with the trial; let it take one"
            ) from None
        raise RequestError(
            f"{label}: takes ({wanted}), but an objective function is called with the trial alone; "
            "give the other arguments defaults"
        ) from None
    except ValueError:  # of a builtin, whose signature is not known
        return


def read_study(text: str, variable: str) -> optuna.Study:
    """Return the study that an objective's file made and keeps in a variable.

    Args:
        text: the objective function, as `load_function` takes it.
        variable: the variable's name.

    Raises:
        RequestError: there is no such variable, or it holds no study.
    """
    place = text.rpartition(":")[0]
    file = Path(place).expanduser().absolute() if place.endswith(".py") else None
    module = import_file(file) if file is not None else _import_module(place)
    study = getattr(module, variable, None)
    if study is None:
        raise RequestError(f"--study {variable}: {place} has no such variable outside functions and `if __name__ == …`")
    if not isinstance(study, optuna.Study):
        raise RequestError(f"--study {variable}: is {type(study).__name__}, not an optuna.Study")
    return study


def _make_reference(name: str, module: ModuleType, file: Path | None) -> FunctionReference:
    source = file or (None if module.__file__ is None else Path(module.__file__))
    digest = "" if source is None or source.suffix != ".py" else _digest_file(source)
    return FunctionReference(
        name=name, file=None if file is None else str(file), module=None if file else module.__name__, sha256=digest
    )


def _digest_file(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:  # removed since it was imported
        return ""


def _digest_source(function: Function) -> str:
    try:
        return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()
    except (OSError, TypeError):  # typed at a prompt, or an object
        return ""


def _import_module(name: str) -> ModuleType:
    add_folder(Path.cwd())
    try:
        with end_at_optimize():
            return importlib.import_module(name)
    except OptimizeCall:
        raise RegistryError(f"module {name}: its study.optimize would run in every worker; {GUARD}") from None
    except (Exception, SystemExit) as error:
        raise RegistryError(f"module {name}: {summarize_error(error)}") from error


def _explain_missing(module: ModuleType, name: str) -> str:
    functions = [each for each, value in vars(module).items() if inspect.isfunction(value) and not each.startswith("_")]
    near = find_closest(name, functions)
    if near:
        return f"has no {name}; did you mean '{near}'?"
    return f"has no {name}; its functions are: {', '.join(functions) or 'none'}"
