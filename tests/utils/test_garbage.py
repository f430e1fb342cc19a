"""Tests of the collection of cyclic garbage."""

from __future__ import annotations

import atexit
import gc
from unittest.mock import Mock

import pytest

from hpo.utils.garbage import end_without_collection, postpone_collection


def test_nothing_is_collected_within_and_garbage_is_collected_again_afterwards() -> None:
    with postpone_collection():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_collection_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with postpone_collection():
            assert not gc.isenabled()
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_process_of_many_commands_registers_its_end_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Mock()
    monkeypatch.setattr(atexit, "register", calls.register)
    monkeypatch.setattr(atexit, "unregister", calls.unregister)
    end_without_collection()
    assert [name for name, *_ in calls.mock_calls] == ["unregister", "register"]
