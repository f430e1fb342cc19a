"""Sample images of a data set: the first of each class, which reports show."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from hpo.datasets import Dataset, flat_labels, is_split

__all__ = ["pack_sample_images"]

Array = np.ndarray[Any, Any]
IMAGES_PER_CLASS = 10
MAX_CLASSES = 20  # whose images can still be told apart in one picture


def pack_sample_images(data: Dataset) -> bytes | None:
    """Return the first training images of each class as the content of an .npz file; None without images or classes."""
    if not isinstance(data.train, tuple) or not is_split(data.train) or data.task not in (None, "classification"):
        return None
    images, labels = _images(data.train[0]), flat_labels(data.train[1], "train")
    if images is None:
        return None
    classes = np.unique(labels)[:MAX_CLASSES]
    first = np.concatenate([np.flatnonzero(labels == label)[:IMAGES_PER_CLASS] for label in classes])
    file = io.BytesIO()
    np.savez_compressed(file, images=_to_bytes(images[first]), labels=labels[first])
    return file.getvalue()


def _images(x: Any) -> Array | None:
    """Return images as an array (N, H, W) or (N, H, W, 3); None for features and other numbers of channels."""
    array = np.asarray(x.cpu() if hasattr(x, "cpu") else x)
    if array.ndim == 4 and not isinstance(x, np.ndarray):
        array = array.transpose(0, 2, 3, 1)  # a tensor has its channels first
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    return array if array.ndim == 3 or (array.ndim == 4 and array.shape[3] == 3) else None


def _to_bytes(images: Array) -> Array:
    """Scale images from their extremes to 0 … 255, unless they are bytes already."""
    if images.dtype == np.uint8:
        return images
    low, high = float(images.min()), float(images.max())
    scaled: Array = np.rint(255 * (images - low) / max(high - low, 1e-12)).astype(np.uint8)
    return scaled
