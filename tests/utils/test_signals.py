"""Orderly stops: what is ignored stays so, and nothing that is waited for outlasts the time to stop."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from hpo.utils.signals import StopRequest


def test_nohup_stays_in_force() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.integration
def test_a_process_that_waits_for_something_else_ends_all_the_same() -> None:
    code = """
import os, signal, threading
from hpo.utils.signals import StopRequest
with StopRequest(within=0.2):
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait()
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 143
