"""Images in arrays, which are brought to another size by Pillow, as those in files are."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from hpo.errors import DataError
from hpo.utils.text import shorten

__all__ = ["Size", "resize_images"]

Array = np.ndarray[Any, Any]
Size = tuple[int, int]  # height and width


def resize_images(x: Any, size: Size, where: str) -> Any:
    """Return images (N, height, width) or, of an array, with their channels last; those of that size as they are.

    Args:
        x: an array (N, H, W) or (N, H, W, C), or a tensor (N, H, W) or (N, C, H, W). Bytes stay bytes, of which each is
            rounded; other numbers become float32.
        size: height and width.
        where: the beginning of an error's line.

    Raises:
        DataError: they are no images.
    """
    if len(x.shape) not in (3, 4):
        raise DataError(
            f"{where}: resize = {list(size)}: is for images, but a sample has shape {shorten(tuple(x.shape[1:]))}; "
            "leave resize out"
        )
    tensor = hasattr(x, "detach")
    if tuple(x.shape[2:] if tensor and len(x.shape) == 4 else x.shape[1:3]) == size:
        return x
    array = _to_array(x) if tensor else np.asarray(x)
    kind = np.uint8 if array.dtype == np.uint8 else np.float32
    planes = array.astype(kind, copy=False).reshape(*array.shape[:3], -1)
    resized = np.empty((len(array), *size, planes.shape[3]), kind)
    for image, out in zip(planes, resized, strict=True):
        for channel in range(planes.shape[3]):
            plane = Image.fromarray(np.ascontiguousarray(image[..., channel]))
            out[..., channel] = plane.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return resized if array.ndim == 4 else resized[..., 0]


def _to_array(x: Any) -> Array:
    """Return a tensor as an array with the channels last."""
    tensor = x.detach().cpu()
    array: Array = (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array
