"""Exits of user code become errors; requests to stop pass."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import pytest

from hpo.errors import UserExitError
from hpo.utils.exits import translate_exits
from hpo.utils.signals import StopRequest, StopSignal

EXIT = sys.exit  # before a library has put a function in its place


@pytest.fixture(autouse=True)
def _own_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "exit", EXIT)


class Odd(BaseException):
    """Of a library."""


def argparse_exit() -> None:
    argparse.ArgumentParser(prog="mine").parse_args(["--unknown"])


def cancelled() -> None:
    raise asyncio.CancelledError


def odd() -> None:
    raise Odd("x" * 5_000_000)


def test_a_library_in_the_place_of_sys_exit_is_not_where_it_was_called(monkeypatch: pytest.MonkeyPatch) -> None:
    leave = sys.exit

    class Hooks:
        def exit(self, code: object = 0) -> None:
            leave(code)

    monkeypatch.setattr(sys, "exit", Hooks().exit)
    with pytest.raises(UserExitError, match=r"sys\.exit\(4\) was called in function_of_the_user \("), translate_exits():
        function_of_the_user()


def function_of_the_user() -> None:
    sys.exit(4)


@pytest.mark.parametrize(
    ("function", "begins"),
    [
        (lambda: sys.exit(0), "sys.exit(0) was called in <lambda> ("),
        (lambda: sys.exit(), "sys.exit() was called in <lambda> ("),
        (lambda: sys.exit("bye " * 1000), "sys.exit('bye bye"),
        (argparse_exit, "sys.exit(2) was called in exit ("),
        (cancelled, "CancelledError was raised in cancelled ("),
        (odd, "Odd: xxx"),
    ],
)
def test_an_exit_is_an_error_that_says_what_and_where(function: Callable[[], Any], begins: str) -> None:
    with pytest.raises(UserExitError) as raised, translate_exits():
        function()
    text = str(raised.value)
    assert text.startswith(begins)
    assert ".py:" in text
    assert len(text) < 2300


def test_an_exception_passes() -> None:
    with pytest.raises(KeyError), translate_exits():
        raise KeyError


def test_ctrl_c_passes_and_a_keyboard_interrupt_of_user_code_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "getsignal", lambda _: signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt), translate_exits():
        raise KeyboardInterrupt
    monkeypatch.undo()
    with StopRequest(), pytest.raises(UserExitError, match="KeyboardInterrupt was raised"), translate_exits():
        raise KeyboardInterrupt  # SIGINT has a handler that raises none


def signal_twice() -> None:
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_second_signal_passes() -> None:
    with StopRequest() as stop:
        with pytest.raises(StopSignal) as raised, translate_exits():
            signal_twice()
        assert (raised.value.code, stop.exit_code) == (143, 143)
