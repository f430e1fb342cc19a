"""Running the command as a user does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent  # of the checkout
ALONE = {"OMP_NUM_THREADS": "1"}  # threads of tests that run side by side wait for each other, spinning


def hpo(
    *arguments: str, cwd: Path | None = None, timeout: float = 240, **environment: str
) -> subprocess.CompletedProcess[str]:
    """The finished command."""
    return subprocess.run(
        [sys.executable, "-m", "hpo", *arguments],
        cwd=cwd,
        env={**ALONE, **os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def start_hpo(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.Popen[str]:
    """The command, running."""
    return subprocess.Popen(
        [sys.executable, "-m", "hpo", *arguments],
        cwd=cwd,
        env={**ALONE, **os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
