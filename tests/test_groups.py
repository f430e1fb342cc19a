"""Tests of a group run in one process: versions of pytest and pytest-xdist that do not fit let them run in several."""

from __future__ import annotations

import os

import pytest


@pytest.mark.xdist_group("one process")
def test_the_group_of_a_test_is_known_where_tests_are_distributed(request: pytest.FixtureRequest) -> None:
    assert request.node.nodeid.endswith("@one process") or "PYTEST_XDIST_WORKER" not in os.environ
