"""Values of the user's own code outside of a model's modules: globals, class attributes and closures.

A model whose outputs follow from such a value cannot be one of a stack, for all members find the same one. They are
read before and after the code runs, and compared.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from itertools import count
from pathlib import Path
from types import FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["UserValues", "name_change", "read_user_values"]

UserValues = Mapping[str, Hashable]  # by what a message calls them
PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)
CONTAINERS = (list, tuple, set, frozenset, dict)
OTHERS = frozenset({"torch", "hpo", "builtins", *sys.stdlib_module_names}) - {"__main__"}
INSTALLED = frozenset({"site-packages", "dist-packages"})  # folders of installed packages
MOST_MODULES, MOST_ITEMS = 32, 2000  # that are read; of a value so many parts
LARGEST = 65536  # numbers of an array that are compared, rather than its place in memory
DEEPEST = 6


def read_user_values(modules: Iterable[nn.Module], functions: Iterable[Callable[..., Any]] = ()) -> UserValues:
    """Return the plain values that the user's own code can keep from one computation to the next.

    They are those in the globals of the modules that define the parts' classes and these functions, and of the user's
    modules that these import; in the attributes of classes; and in the closures of functions.

    Args:
        modules: of the user's; what torch's and ours hold is left out.
        functions: of the user's, such as the one that builds a model.
    """
    classes = {cls: None for module in modules for part in module.modules() for cls in type(part).__mro__}
    given: list[Any] = [each for each in (*classes, *map(_unwrap, functions)) if _is_own(each.__module__)]
    values: dict[str, Hashable] = {}
    for name, namespace in _find_namespaces(given):
        for key, value in list(namespace.items()):
            if key.isidentifier() and not key.startswith("__"):
                values.update(_read_named(key, value, name))
    for value in given:
        values.update(_read_named(value.__qualname__, value, value.__module__))
    return values


def name_change(before: UserValues, after: UserValues) -> str | None:
    """Return what has changed from one reading to another, such as `CALLS of models.py`; None if nothing has."""
    return next((name for name, value in after.items() if before.get(name, _MISSING) != value), None)


_MISSING = object()


def _is_own(module: object) -> bool:
    return isinstance(module, str) and module.partition(".")[0] not in OTHERS


def _is_users(module: object) -> bool:
    """Return whether the user has written a module, rather than installed it."""
    found = sys.modules.get(module) if isinstance(module, str) and _is_own(module) else None
    return found is not None and (module == "__main__" or not _is_installed(found))


def _is_installed(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    return file is None or not INSTALLED.isdisjoint(Path(file).parts)


def _find_namespaces(given: Iterable[Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield, by the names of their modules, the globals of functions and classes, and of what these import.

    Functions that were sent to this process have globals that are no module's here.
    """
    found: dict[int, tuple[str, dict[str, Any]]] = {}
    for value in given:
        functions = [value, *vars(value).values()] if isinstance(value, type) else [value]
        for each in filter(lambda each: isinstance(each, FunctionType) and _is_own(each.__module__), functions):
            found[id(each.__globals__)] = each.__module__, each.__globals__
        if (module := sys.modules.get(value.__module__)) is not None:
            found[id(vars(module))] = value.__module__, vars(module)
    left = list(found.values())
    for name, namespace in left:
        yield name, namespace
        for value in list(namespace.values()):
            other = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
            if isinstance(other, str) and _is_users(other) and len(found) < MOST_MODULES:
                held = vars(sys.modules[other])
                if id(held) not in found:
                    found[id(held)] = other, held
                    left.append((other, held))


def _describe(module: str) -> str:
    file = getattr(sys.modules.get(module), "__file__", None)
    return "the notebook" if file is None else Path(file).name


def _read_named(name: str, value: Any, module: str) -> Iterator[tuple[str, Hashable]]:
    """Yield a value, or the parts of a function or class of that module, each by its name."""
    value, place = _unwrap(value), f" of {_describe(module)}"
    if isinstance(value, FunctionType):
        if value.__module__ != module:
            return
        cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
        held = {key: _cell(cell) for key, cell in cells} | vars(value)
        held |= {"the defaults": (value.__defaults__, value.__kwdefaults__)}
        for key, each in held.items():
            yield f"{key} of {name}{place}", _Reader().read(each)
    elif isinstance(value, type):
        for key, each in list(vars(value).items()) if value.__module__ == module else ():
            if isinstance(_unwrap(each), FunctionType):
                yield from _read_named(f"{name}.{key}", each, module)
            elif not key.startswith("__"):
                yield f"{name}.{key}{place}", _Reader().read(each)
    elif not isinstance(value, ModuleType):
        yield f"{name}{place}", _Reader().read(value)


def _unwrap(value: Any) -> Any:
    return value.__func__ if isinstance(value, MethodType | staticmethod | classmethod) else value


def _cell(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # nothing is in it yet
        return None


class _Reader:
    """Reader of one value, of a bounded number of its parts."""

    def __init__(self) -> None:
        self._left = MOST_ITEMS
        self._seen: dict[int, object] = {}  # which keeps them, and so their places in memory

    def read(self, value: Any, depth: int = 0) -> Hashable:
        """Return what is equal for equal values; of objects that are not plain, their type."""
        self._left -= 1
        if isinstance(value, PLAIN):
            return type(value), repr(value)
        if isinstance(value, Tensor | np.ndarray | np.generic):
            return _read_numbers(value)
        if isinstance(value, count):
            return repr(value)
        if depth > DEEPEST or self._left < 0 or id(value) in self._seen:
            return cast(Hashable, type(value))
        self._seen[id(value)] = value
        if isinstance(value, dict):
            return dict, tuple((self.read(k, depth + 1), self.read(v, depth + 1)) for k, v in list(value.items()))
        if isinstance(value, CONTAINERS):
            return type(value), len(value), tuple(self.read(each, depth + 1) for each in list(value))
        if isinstance(value, FunctionType) and _is_users(value.__module__):
            cells = [_cell(cell) for cell in value.__closure__ or ()]
            return id(value), self.read(cells, depth + 1)
        if isinstance(value, SimpleNamespace) or (_is_users(type(value).__module__) and hasattr(value, "__dict__")):
            return type(value), self.read(vars(value), depth + 1)
        return cast(Hashable, type(value))


def _read_numbers(value: Any) -> Hashable:
    if isinstance(value, Tensor):
        if value.numel() > LARGEST or value.layout != torch.strided or value.is_quantized:
            return Tensor, id(value), value._version
        value = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    if value.size > LARGEST or value.dtype.hasobject:
        return type(value), id(value)
    return value.shape, str(value.dtype), zlib.crc32(np.ascontiguousarray(value).tobytes())
