"""PNG encoding of arrays."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

__all__ = ["encode_png"]


def encode_png(image: np.ndarray[Any, Any]) -> bytes:
    """Encode an image as PNG; the same bytes for the same image.

    Args:
        image: (H, W) of grey or (H, W, 3) of red, green and blue, uint8.

    Raises:
        ValueError: it has another shape or type.
    """
    from PIL import Image

    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise ValueError(f"a picture is (H, W) or (H, W, 3) of uint8, but got {image.shape} of {image.dtype}")
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
