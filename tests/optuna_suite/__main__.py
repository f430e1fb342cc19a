"""Optuna's own tests on our storage, `python -m tests.optuna_suite`, or those that the arguments name for pytest.

The tests are those of the version that is installed; they are downloaded from the package index with pip, once, into
`build/`. New failures are errors; what fails for a reason is in `optuna_suite_plugin.py`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import optuna

HERE = Path(__file__).parent
BUILD = HERE.parents[1] / "build" / "optuna-tests"
# Those that take a storage, and those of what asks one: studies, trials, samplers, pruners.
MODULES = (
    "storages_tests/test_storages.py", "storages_tests/test_heartbeat.py", "storages_tests/test_callbacks.py",
    "storages_tests/test_grpc.py", "study_tests", "trial_tests", "search_space_tests", "samplers_tests",
    "pruners_tests", "test_callbacks.py", "test_multi_objective.py",
)  # fmt: skip


def fetch_tests() -> Path:
    """Download and unpack the source of the Optuna that is installed; return its folder."""
    folder = BUILD / f"optuna-{optuna.__version__}"
    if not folder.exists():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        pinned = f"optuna=={optuna.__version__}"
        subprocess.run([*pip, "--no-deps", "--no-binary=:all:", "--dest", str(BUILD), pinned], check=True)
        with tarfile.open(f"{folder}.tar.gz") as archive:
            archive.extractall(BUILD, filter="data")
    return folder


def main() -> int:
    folder = fetch_tests()
    plugin = ["-p", "optuna_suite_plugin", "-p", "no:cacheprovider"]
    chosen = sys.argv[1:] or ["-q", "--tb=short", *(f"tests/{module}" for module in MODULES)]
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    return subprocess.run([sys.executable, "-m", "pytest", *plugin, *chosen], cwd=folder, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
