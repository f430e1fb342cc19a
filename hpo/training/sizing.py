"""How many configurations a device trains well at the same time."""

from __future__ import annotations

from collections.abc import Sequence

from hpo.config import TrialConfig
from hpo.training.data import Data

__all__ = ["cohort_size"]


def cohort_size(configs: Sequence[TrialConfig], data: Data, most: int) -> int:  # noqa: ARG001
    """How many of these configurations this device trains well at the same time, at most `most`."""
    return min(most, 32)
