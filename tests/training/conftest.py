"""What several tests of training need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from hpo.config import registry


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Bits are compared between runs of as many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def own_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what a test registers to that test."""
    for kind in (registry.models, registry.datasets, registry.metrics):
        monkeypatch.setattr(kind, "_entries", dict(kind._entries))
