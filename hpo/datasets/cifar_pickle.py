"""Reader of the pickles in which CIFAR's batches are kept, by which no code of theirs can run.

A pickle names the functions that make its objects. These files need NumPy's arrays alone, so each name stands for
something inert of ours that keeps what it is given, and the array is made of that here; every other name is refused.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

from hpo.utils.text import shorten

__all__ = ["unpickle_batch"]

Array = np.ndarray[Any, Any]
ARRAYS = ("numpy.core.multiarray", "numpy._core.multiarray")  # the module's names before and since NumPy 2
BYTES = {"u1", "uint8", "|u1"}


class BatchUnpickler(pickle._Unpickler):  # the one in C keeps as much memory as a small file asks for
    """Unpickler of dicts, lists, numbers, texts, and arrays of bytes."""

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        """Return what a name stands for here.

        Raises:
            pickle.UnpicklingError: it is none of an array's.
        """
        if (module in ARRAYS and name == "_reconstruct") or (module, name) == ("numpy", "ndarray"):
            return lambda *_: Kept()
        if (module, name) == ("numpy", "dtype"):
            return lambda *given: Kept(given)
        if (module, name) == ("_codecs", "encode"):  # of bytes, as Python 3 writes them for Python 2
            return lambda text, _=None: str(text).encode("latin1")
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no such file needs")


class Kept:
    """Object that does nothing but keep what a pickle says of an array or of its type."""

    __slots__ = ("given", "state")

    def __init__(self, given: tuple[Any, ...] = ()) -> None:
        self.given = given
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        """Keep the state."""
        self.state = state


def unpickle_batch(content: bytes) -> dict[str, Any]:
    """Return the dict in a pickle, its keys as texts and its arrays of bytes, (N, M), as NumPy has them.

    Raises:
        ValueError: it is none, or asks for more than such a file needs; the line says why.
    """
    try:
        found: Any = BatchUnpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a damaged pickle can make its reader raise anything
        why = shorten(str(error), 100, quote=False) if isinstance(error, pickle.UnpicklingError) else ""
        raise ValueError(f"is no batch of CIFAR{f' ({why})' if why else ''}") from error
    if not isinstance(found, dict):
        raise ValueError("is no batch of CIFAR: its pickle holds no dict")  # noqa: TRY004 - of a file, not of a caller
    return {_to_text(key): _to_array(value) if isinstance(value, Kept) else value for key, value in found.items()}


def _to_text(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def _to_array(kept: Kept) -> Array:
    """Return the array that its state describes: version, shape, type, order, and bytes.

    Raises:
        ValueError: it is no array of bytes in the order of C.
    """
    match kept.state:
        case (_, tuple(shape), Kept(given=(kind, *_)), order, bytes(content)):
            whole = all(isinstance(side, int) and side >= 0 for side in shape)
            if whole and _to_text(kind) in BYTES and not order and math.prod(shape) == len(content):
                return np.frombuffer(content, np.uint8).reshape(shape)
    raise ValueError("is no batch of CIFAR: holds an array that is none of bytes")
