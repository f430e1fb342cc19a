"""PNG encoding of arrays."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

__all__ = ["encode_palette_png", "encode_png"]

COLOURS = 256  # that a palette of a PNG file holds


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


def encode_palette_png(image: np.ndarray[Any, Any]) -> bytes | None:
    """Write a PNG file's content with a palette of the image's own colours; None where they are more than 256.

    Args:
        image: (H, W, 3) of red, green and blue or (H, W, 4) with opacity, uint8.
    """
    from PIL import Image

    colours, places = np.unique(image.reshape(-1, image.shape[2]), axis=0, return_inverse=True)
    if len(colours) > COLOURS:
        return None
    indices = Image.fromarray(places.reshape(image.shape[:2]).astype(np.uint8)).convert("P")
    indices.putpalette(colours.tobytes(), "RGBA" if image.shape[2] == 4 else "RGB")
    buffer = io.BytesIO()
    indices.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
