"""Sample scores and validation splits as bytes, as a database keeps them.

The numbers of an epoch are stored as what differs from the epoch before (XOR), predictions in the first epoch as what
differs from the labels; then byte by byte of the numbers, and compressed. Real numbers are rounded to 14 binary digits,
which changes them by at most 0.006 %.

Stored content is not trusted: what is damaged is one clear line, and unpacks to no more than a limit.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from hpo.datasets.sample_scores import SAMPLES_LIMIT, Kind, SampleScores, ValidationSplit, score_kind
from hpo.errors import DataError

__all__ = ["count_epochs", "count_samples", "number_type", "pack_scores", "pack_split", "unpack_scores", "unpack_split"]

Array = np.ndarray[Any, Any]
FORMAT = 1
ROOM = 2**18  # bytes that the numbers of a fit have, before they are compressed
MOST_EPOCHS = 64
FEWEST_SAMPLES = 200  # of a larger split, for whose columns there would be no more room
BITS = {"?": 1, "u1": 8, "u2": 16, "f4": 24}  # of a number
MOST_COLUMNS = 2**16
LIMIT = 2**24  # bytes that a row may unpack to
MOST_SAMPLES = 2**53  # of a split, few of which are kept: a number that is a float as well
NEWLINE = b"\n"  # after the header
ROUNDING = 2**9  # of the whole numbers that hold a float32, whose last 10 of 23 binary digits are dropped


def number_type(kind: Kind, labels: Array) -> str:
    """Return NumPy's name of the type that scores are stored as: `?` for bits, `u1`, `u2` or `f4`."""
    if kind in ("loss", "squared_error", "absolute_error"):
        return "f4"
    if kind == "rank":
        return "u2"
    if kind == "correct" or labels.ndim == 2:
        return "?"
    return "u1" if labels.max(initial=0) < 256 else "u2"


def count_samples(kind: str, columns: int, count: int) -> int:
    """Return how many of `count` samples have room, each with so many columns of a type of `number_type`.

    An epoch has half of all room. None are kept where a larger split would shrink to fewer than 200.
    """
    room = min(SAMPLES_LIMIT, ROOM * 4 // (BITS[kind] * max(1, columns)))
    return min(room, count) if room >= FEWEST_SAMPLES or room >= count else 0


def count_epochs(kind: str, numbers: int) -> int:
    """Return how many epochs have room, each of so many numbers of a type of `number_type`."""
    return max(2, min(MOST_EPOCHS, ROOM * 8 // (BITS[kind] * max(1, numbers))))


def pack_scores(scores: SampleScores, split: ValidationSplit) -> bytes:
    """Return the bytes of sample scores; the number of the fit and the digest of the split are kept beside them."""
    kind = number_type(scores.kind, split.labels)
    numbers = _to_whole(scores.scores, kind)
    numbers[1:] ^= numbers[:-1].copy()
    if scores.kind == "prediction":
        numbers[0] ^= split.labels.astype(numbers.dtype)
    header = {
        "metric": scores.metric,
        "split": scores.split,
        "epochs": scores.epochs.tolist(),
        "best": scores.best,
        "columns": 0 if scores.scores.ndim == 2 else scores.scores.shape[2],
    }
    return _compress(header, _to_bytes(numbers, kind))


def unpack_scores(content: object, fit: int, splits: Mapping[str, ValidationSplit]) -> SampleScores:
    """Return sample scores from their bytes.

    Args:
        content: what `pack_scores` returned.
        fit: the number of the fit.
        splits: validation splits by digest, the scores' own among them.

    Raises:
        DataError: they are damaged, or their split is missing.
    """
    header, body = _decompress(content)
    metric, digest, best = header.get("metric"), header.get("split"), header.get("best")
    split = splits.get(digest) if isinstance(digest, str) else None
    if split is None:
        raise DataError("the validation split that they are of cannot be read")
    kind = score_kind(metric, split.task) if isinstance(metric, str) else None
    epochs, columns = _read_wholes(header.get("epochs")), header.get("columns")
    if kind is None or not isinstance(metric, str):
        raise DataError("their metric has none")
    if not isinstance(columns, int) or not 0 <= columns < MOST_COLUMNS:
        raise DataError("they have not as many numbers a sample as their metric needs")
    if not len(epochs) or (np.diff(epochs) <= 0).any() or not isinstance(best, int) or not 0 <= best < len(epochs):
        raise DataError("their epochs are not in order")
    shape = (len(epochs), len(split.labels), *([columns] if columns > 0 else []))
    _check_columns(kind, shape, split)
    number = number_type(kind, split.labels)
    numbers = _from_bytes(body, number, shape)
    if kind == "prediction":
        numbers[0] ^= split.labels.astype(numbers.dtype)
    np.bitwise_xor.accumulate(numbers, 0, out=numbers)
    found: Array = numbers
    if number in ("f4", "?"):
        found = numbers.view(np.float32) if number == "f4" else numbers.view(np.int8)
    if not np.isfinite(found).all() or (kind == "rank" and found.max(initial=0) >= shape[1]):
        raise DataError("their numbers are out of range")
    return SampleScores(fit, split.digest, epochs, best, found, kind, metric)


def pack_split(split: ValidationSplit) -> bytes:
    """Return the bytes of a validation split; its digest is kept beside them."""
    header = {"count": split.count, "shape": split.labels.shape, "type": _label_type(split)}
    header |= {"index": split.index is not None, "groups": split.groups is not None}
    parts = [] if split.index is None else [_to_bytes(np.diff(split.index, prepend=0).astype(np.uint32), "u4")]
    parts += [] if split.groups is None else [_to_bytes(split.groups.astype(np.uint32), "u4")]
    return _compress(header, b"".join([*parts, split.labels.astype(f"<{header['type']}").tobytes()]))


def unpack_split(content: object, digest: object) -> ValidationSplit:
    """Return a validation split from its bytes.

    Raises:
        DataError: they are damaged, or of another digest.
    """
    header, body = _decompress(content)
    shape, count, kind = _read_wholes(header.get("shape")), header.get("count"), header.get("type")
    if len(shape) not in (1, 2) or shape.min() < 1 or kind not in ("i4", "u1", "f4") or not isinstance(count, int):
        raise DataError("its header is damaged")
    samples = int(shape[0])
    size = int(shape.prod()) * np.dtype(kind).itemsize
    names = [name for name in ("index", "groups") if header.get(name)]
    if len(body) != size + 4 * samples * len(names):
        raise DataError("it has not as many samples as it says")
    columns = {
        name: _from_bytes(body[4 * samples * place : 4 * samples * (place + 1)], "u4", (samples,)).astype(np.int64)
        for place, name in enumerate(names)
    }
    index = columns["index"].cumsum() if "index" in columns else None
    labels = np.frombuffer(body[-size:], f"<{kind}").reshape(shape)
    labels = labels.astype(np.int64 if kind == "i4" else kind)
    found = ValidationSplit.of(labels, index, count, columns.get("groups"))
    classes = kind == "i4"
    if not samples <= count < MOST_SAMPLES or found.digest != digest or (labels.ndim == 1) != classes:
        raise DataError("its samples are not those of its digest")
    if (classes and labels.min() < 0) or not np.isfinite(labels).all():
        raise DataError("its labels are out of range")
    return found


def _label_type(split: ValidationSplit) -> str:
    return {"classification": "i4", "multilabel": "u1", "regression": "f4"}[split.task]


def _check_columns(kind: Kind, shape: tuple[int, ...], split: ValidationSplit) -> None:
    """Check that scores have as many numbers a sample as their kind has.

    Raises:
        DataError: they have not.
    """
    single = kind in ("correct", "loss") or (split.task == "classification" and kind == "prediction")
    free = split.task == "classification" and kind == "rank"  # one, or one for each class
    columns = shape[2:]
    fits = not columns if single else free or columns == split.labels.shape[1:]
    if not fits or np.prod(shape, dtype=float) > LIMIT:
        raise DataError("they have not as many numbers a sample as their metric needs")


def _read_wholes(value: object) -> Array:
    """Return a list of whole numbers as an array; an empty one of anything else."""
    if not isinstance(value, list) or not all(type(each) is int and 0 <= each < 2**31 for each in value):
        return np.zeros(0, np.int64)
    return np.array(value, np.int64)


# Numbers.


def _to_whole(scores: Array, kind: str) -> Array:
    """Return scores as whole numbers, those of 32 bits rounded: a copy."""
    if kind != "f4":
        return scores.astype(kind)
    whole = scores.astype("<f4").view(np.uint32).copy()
    whole += ROUNDING
    whole &= ~np.uint32(2 * ROUNDING - 1)
    return whole


def _to_bytes(numbers: Array, kind: str) -> bytes:
    """Return the bits of each epoch, or the bytes of all numbers: all first ones, all second ones, and so on."""
    if kind == "?":
        return np.packbits(numbers.reshape(len(numbers), -1), axis=1).tobytes()
    return np.ascontiguousarray(numbers.reshape(-1, 1).astype(f"<{numbers.dtype.str[1:]}").view(np.uint8).T).tobytes()


def _from_bytes(body: bytes, kind: str, shape: tuple[int, ...]) -> Array:
    """Return what `_to_bytes` made bytes of, as whole numbers or booleans.

    Raises:
        DataError: there are not as many bytes as numbers need.
    """
    count, width = int(np.prod(shape[1:], dtype=int)), 4 if kind in ("f4", "u4") else 1 if kind == "?" else int(kind[1])
    needed = shape[0] * -(-count // 8) if kind == "?" else shape[0] * count * width
    if len(body) != needed:
        raise DataError("they have not as many numbers as samples")
    whole = np.frombuffer(body, np.uint8)
    if kind == "?":
        return np.unpackbits(whole.reshape(shape[0], -1), axis=1, count=count).reshape(shape).astype(bool)
    planes = np.ascontiguousarray(whole.reshape(width, -1).T)
    return planes.view(f"<u{width}").astype(f"u{width}").reshape(shape)


# Bytes.


def _compress(header: Mapping[str, object], body: bytes) -> bytes:
    return zlib.compress(json.dumps({"format": FORMAT, **header}).encode() + NEWLINE + body, 9)


def _decompress(content: object) -> tuple[Mapping[str, Any], bytes]:
    """Return header and body.

    Raises:
        DataError: they are damaged, or from a later version.
    """
    if not isinstance(content, bytes):
        raise DataError("they are no bytes")
    reader = zlib.decompressobj()
    try:
        whole = reader.decompress(content, LIMIT)
    except zlib.error as error:
        raise DataError(f"they cannot be unpacked ({error})") from error
    if not reader.eof:
        raise DataError("they are cut off, or unpack to too much")
    first, _, body = whole.partition(NEWLINE)
    try:
        header = json.loads(first)
    except (ValueError, RecursionError):
        raise DataError("their header is damaged") from None
    if not isinstance(header, dict):
        raise DataError("their header is damaged")
    if header.get("format") != FORMAT:
        raise DataError("another version of torch-hpo wrote them")
    return header, body
