"""Folders of batches as CIFAR's archives have them, with images of our own making."""

from __future__ import annotations

import io
import pickle
import struct
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

__all__ = ["COLOURS", "NAMES", "dump_python2", "make_images", "write_cifar10", "write_cifar10_binary", "write_cifar100"]

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
COLOURS = np.random.default_rng(3).integers(40, 215, (10, 3))  # of each class


class Python2Pickler(pickle._Pickler):
    """Pickler of what Python 2 called a str, which CIFAR's files hold in the place of texts and bytes."""

    dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)

    def save_str(self, value: bytes | str) -> None:
        """Write a BINSTRING, as Python 2 did."""
        content = value if isinstance(value, bytes) else value.encode()
        self.write(b"T" + struct.pack("<i", len(content)) + content)
        self.memoize(value)

    dispatch[bytes] = dispatch[str] = save_str


def dump_python2(value: Any) -> bytes:
    """Return the pickle that Python 2 with NumPy 1 would have written."""
    out = io.BytesIO()
    Python2Pickler(out, 2).dump(value)
    return out.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def make_images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return bytes (N, 3072), channels first, whose colour tells the class, and classes (N,)."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 10
    x = COLOURS[labels][:, :, None] + rng.normal(0, 40, (count, 3, 1024))
    return x.clip(0, 255).astype(np.uint8).reshape(count, 3072), labels


def write_cifar10(folder: Path, count: int = 20, batches: int = 5) -> Path:
    """Write CIFAR-10's folder for Python, of so many images a batch."""
    folder.mkdir(parents=True)
    for number in range(1, batches + 2):
        x, y = make_images(count, number)
        batch = {"batch_label": f"batch {number}", "labels": y.tolist(), "data": x, "filenames": ["a.png"] * count}
        (folder / (f"data_batch_{number}" if number <= batches else "test_batch")).write_bytes(dump_python2(batch))
    meta = {"num_cases_per_batch": count, "label_names": NAMES, "num_vis": 3072}
    (folder / "batches.meta").write_bytes(dump_python2(meta))
    return folder


def write_cifar10_binary(folder: Path, count: int = 20) -> Path:
    """Write CIFAR-10's binary folder, with the same images."""
    folder.mkdir(parents=True)
    for number in range(1, 7):
        x, y = make_images(count, number)
        records = np.concatenate([y[:, None].astype(np.uint8), x], 1)
        (folder / (f"data_batch_{number}.bin" if number < 6 else "test_batch.bin")).write_bytes(records.tobytes())
    (folder / "batches.meta.txt").write_text("\n".join(NAMES) + "\n\n")
    return folder


def write_cifar100(folder: Path, *, binary: bool, count: int = 40) -> Path:
    """Write CIFAR-100's folder: class i is in group i % 5."""
    folder.mkdir(parents=True)
    fine, coarse = [f"fine{i}" for i in range(10)], [f"group{i}" for i in range(5)]
    for seed, name in enumerate(("train", "test")):
        x, y = make_images(count, seed)
        if binary:
            records = np.concatenate([np.stack([y % 5, y], 1).astype(np.uint8), x], 1)
            (folder / f"{name}.bin").write_bytes(records.tobytes())
        else:
            batch = {"data": x, "fine_labels": y.tolist(), "coarse_labels": (y % 5).tolist()}
            (folder / name).write_bytes(dump_python2(batch))
    if binary:
        (folder / "fine_label_names.txt").write_text("\n".join(fine))
        (folder / "coarse_label_names.txt").write_text("\n".join(coarse))
    else:
        (folder / "meta").write_bytes(dump_python2({"fine_label_names": fine, "coarse_label_names": coarse}))
    return folder
