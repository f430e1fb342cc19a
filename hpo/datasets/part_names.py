"""Names that folders, arrays and parts of data sets have, by the part that they mean."""

from __future__ import annotations

__all__ = ["PARTS"]

PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
}
