"""Cache of decoded images: made once, kept in HPO_HOME by content, and memory-mapped when read."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpo.datasets.decoder_pool import decode_all
from hpo.datasets.folder_state import FolderState, cache_folder, digest_folder, known_digest
from hpo.datasets.image_decoder import Outcome, explain_fault, read_header
from hpo.errors import DataError
from hpo.utils.memory import free_memory
from hpo.utils.text import shorten

__all__ = ["Images", "open_images"]

Array = np.ndarray[Any, Any]
Size = tuple[int, int]  # height and width
VERSION = 1  # of what a cache holds; raise it where the same files would give other pixels
PROBES = 256  # images whose headers tell the size and the colours of all
LARGEST_SIDE = 224  # of images that are brought to one size without being asked
SHARE = 0.5  # of the free memory that images may take, as they are and as float32
WORST = 0.01  # of the images that may be corrupt
NAMED = 5  # corrupt images that a message names
ABANDONED = 86400.0  # seconds after which what a killed process has left is deleted


@dataclass(frozen=True)
class Images:
    """Decoded images.

    Attributes:
        x: uint8, (N, H, W) of grey ones or (N, H, W, 3), read-only and memory-mapped.
        faults: what is wrong with those that were left out, by name.
        notes: what was assumed.
    """

    x: Array
    faults: dict[str, str]
    notes: tuple[str, ...]


def open_images(
    states: Sequence[FolderState],
    names: Sequence[str],
    resize: Size | None,
    unpack: Callable[[Path], None] | None = None,
) -> Images:
    """Return images in the order of their names, from the cache if it has them. Corrupt ones are left out.

    Args:
        states: of the folder, taken before its files were listed, and of others that hold some of the images.
        names: of the files, relative to the folder.
        resize: height and width; by default those that most images have.
        unpack: writes the files into a folder, under their names, where they are not in the first one as they are.

    Raises:
        DataError: more than 1 % are corrupt; all together are too many for this machine's memory or disk.
    """
    cache, where = cache_folder(), str(states[0].path)
    known = [digest for state in states if (digest := known_digest(state)) is not None]
    if len(known) == len(states) and (found := _read_cache(cache / _make_key(known, names, resize))):
        return found
    _delete_abandoned(cache)
    with tempfile.TemporaryDirectory(prefix=".new.", dir=cache) as temporary:
        new, root = Path(temporary) / "images", states[0].path
        new.mkdir()
        if unpack is not None:
            root = Path(temporary) / "files"
            unpack(root)
        hashes = _fill(new, root, names, resize, where)
        digests = [digest_folder(states[0], hashes if unpack is None else {}), *map(digest_folder, states[1:])]
        target = cache / _make_key(digests, names, resize)
        if _read_cache(target) is None:
            shutil.rmtree(target, ignore_errors=True)  # a damaged one
            with suppress(OSError):  # another worker was faster
                new.rename(target)
    images = _read_cache(target)
    if images is None:
        raise DataError(f"{target}: is not what was written there; free space on its disk, or set HPO_HOME to another")
    return images


def _make_key(digests: Sequence[str], names: Sequence[str], resize: Size | None) -> str:
    content = json.dumps([VERSION, list(digests), list(names), resize])
    return "images-" + hashlib.sha256(content.encode(errors="surrogateescape")).hexdigest()[:24]


def _read_cache(folder: Path) -> Images | None:
    """Return what a cache holds, or None if there is none, or a damaged one."""
    try:
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        shape = tuple(map(int, index["shape"]))
        if (folder / "pixels").stat().st_size != math.prod(shape):
            return None
        return Images(np.memmap(folder / "pixels", np.uint8, "r", shape=shape), index["faults"], tuple(index["notes"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _delete_abandoned(cache: Path) -> None:
    for left in cache.glob(".new.*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > ABANDONED:
                shutil.rmtree(left, ignore_errors=True)


def _fill(folder: Path, root: Path, names: Sequence[str], resize: Size | None, where: str) -> dict[str, str]:
    """Decode images into a folder: `pixels` and `index.json`. Return the SHA-256 of each file."""
    files = [f"{root}/{name}" for name in names]
    size, colour = _probe(where, files, resize)
    pixels = folder / "pixels"
    outcomes = _decode(where, files, pixels, size, colour)
    if not colour and any(outcome.colour for outcome in outcomes):
        colour = True
        outcomes = _decode(where, files, pixels, size, colour)
    found = sorted(zip(names, outcomes, strict=True))
    faults = {name: each.problem for name, each in found if each.problem}
    _check_faults(where, faults, len(names))
    shape = (len(names), *size, 3) if colour else (len(names), *size)
    kept = _close_gaps(pixels, shape, [not outcome.problem for outcome in outcomes])
    notes = _tell(outcomes, faults, size, resize)
    index = {"shape": [kept, *shape[1:]], "faults": faults, "notes": notes}
    (folder / "index.json").write_text(json.dumps(index), encoding="utf-8", errors="replace")
    return {name: each.sha256 for name, each in zip(names, outcomes, strict=True)}


def _probe(where: str, files: Sequence[str], resize: Size | None) -> tuple[Size, bool]:
    """Return the size that images are brought to, and whether they have colours, from the headers of some."""
    headers, fault = [], ""
    for index in sorted({int(index) for index in np.linspace(0, len(files) - 1, PROBES)}):
        try:
            headers.append(read_header(files[index]))
        except Exception as error:  # Pillow may raise anything; the whole pass counts what is corrupt
            fault = fault or f"{files[index]}: {explain_fault(error)}"
    if not headers:
        raise DataError(
            f"{where}: none of the images can be decoded ({shorten(fault, 300, quote=False)}); replace them"
        )
    return resize or _choose_size([size for size, _ in headers]), any(colour for _, colour in headers)


def _choose_size(sizes: Sequence[Size]) -> Size:
    """Return the size of most images, or where they differ much, the medians of height and width, at most 224."""
    (common, count), *_ = Counter(sizes).most_common(1)
    if 2 * count > len(sizes):
        return common
    height, width = (float(side) for side in np.median(np.array(sizes), 0))
    scale = min(1.0, LARGEST_SIDE / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _decode(where: str, files: Sequence[str], pixels: Path, size: Size, colour: bool) -> list[Outcome]:
    shape = (len(files), *size, 3) if colour else (len(files), *size)
    _check_room(where, shape, pixels.parent)
    with pixels.open("wb") as file:
        file.truncate(math.prod(shape))
    return decode_all(files, pixels, shape)


def _check_room(where: str, shape: tuple[int, ...], folder: Path) -> None:
    count, size = math.prod(shape), "x".join(map(str, shape[1:]))
    what = f"{where}: {shape[0]:,} images of {size}"
    free = free_memory()
    if 5 * count > SHARE * free:
        raise DataError(
            f"{what} take {5 * count / 1e9:,.3g} GB in training, more than half of the {free / 1e9:,.3g} GB that are "
            "free; make them smaller with resize = [H, W], or give them as a torch.utils.data.Dataset, which is read "
            "batch by batch"
        )
    disk = shutil.disk_usage(folder).free
    if count > disk:
        raise DataError(
            f"{what} take {count / 1e9:,.3g} GB on the disk of HPO_HOME, which has {disk / 1e9:,.3g} GB left; free "
            "some, or set HPO_HOME to a folder on another disk"
        )


def _check_faults(where: str, faults: dict[str, str], count: int) -> None:
    if len(faults) > WORST * count:
        raise DataError(
            f"{where}: {len(faults):,} of {count:,} images cannot be decoded, more than 1 %: {_name_faults(faults)}; "
            "replace or delete them"
        )


def _name_faults(faults: dict[str, str]) -> str:
    named = [f"{shorten(name)} {problem}" for name, problem in list(faults.items())[:NAMED]]
    return ", ".join(named) + (", …" if len(faults) > NAMED else "")


def _close_gaps(pixels: Path, shape: tuple[int, ...], good: Sequence[bool]) -> int:
    """Move the rows of good images together, and return how many there are."""
    kept = sum(good)
    if kept < len(good):
        x = np.memmap(pixels, np.uint8, "r+", shape=shape)
        for new, old in enumerate(np.flatnonzero(good)):
            if new != old:
                x[new] = x[old]
        x.flush()
        del x
        with pixels.open("r+b") as file:
            file.truncate(kept * math.prod(shape[1:]))
    return kept


def _tell(outcomes: Sequence[Outcome], faults: dict[str, str], size: Size, resize: Size | None) -> list[str]:
    notes = []
    if faults:
        notes.append(
            f"{len(faults):,} of {len(outcomes):,} images cannot be decoded, and are left out: {_name_faults(faults)}"
        )
    others = Counter(outcome.size for outcome in outcomes if not outcome.problem and outcome.size != size)
    if others and resize is None:
        sizes = len(others) + (sum(others.values()) + len(faults) < len(outcomes))
        notes.append(
            f"images have {sizes} sizes: {sum(others.values()):,} are brought to {size[0]}x{size[1]} (height, width; "
            "sides are stretched); resize = [H, W] sets another size"
        )
    if deep := sum(outcome.deep for outcome in outcomes):
        notes.append(f"{deep:,} images have 16 bits a pixel, of which the upper 8 are kept")
    return notes
