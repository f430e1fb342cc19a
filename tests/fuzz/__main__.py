"""The long form: `python -m tests.fuzz`, for ten minutes; `--seconds` and `--seed` say how long, and which inputs."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.fuzz.harness import fuzz


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="hpo-fuzz-"))
    summary, findings = fuzz(options.seconds, options.seed, folder)
    sys.stdout.write("".join(f"{line}\n" for line in [*findings, summary.rstrip()]))
    sys.stdout.write(f"{len(findings)} findings{f', their inputs in {folder}' if findings else ''}\n")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
