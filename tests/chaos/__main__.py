"""The long form: `python -m tests.chaos`, or some of its cases: `python -m tests.chaos sqlite-1 outage`."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests import servers
from tests.chaos.harness import ASHA, Case, Rows, run, undisturbed
from tests.chaos.outage import outage
from tests.study.helpers import sqlite_url

# By seed: fixed parameters, of which every trial must be the same to the last bit; and an adaptive study with pruning.
SAME = Case("random", "none", 1, workers=6, trials=60, epochs=20, samples=4000, kills=30, stops=6, limit=900, least=30)
# Half of the workers train cohorts, which are the same within rounding only. ASHA pauses trials, and goes on with some.
MIXED: dict[str, Any] = {"cohorts": (4, 1)}
CASES = {
    1: SAME,
    2: replace(SAME, sampler="tpe", pruner="median", seed=2),
    3: replace(SAME, seed=3, own_model=True, samples=1500, **MIXED),
    4: replace(SAME, sampler="tpe", pruner=ASHA, seed=4, **MIXED),
}
AWAY = Case("random", "none", 1, workers=4, trials=6, epochs=300, samples=3000, kills=0, stops=0, limit=600, least=0)
NAMES = ("sqlite-1", "sqlite-2", "sqlite-3", "postgres-1", "postgres-2", "postgres-4", "outage")


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(NAMES)}; by default all")
    chosen = parser.parse_args().cases or NAMES
    for name in chosen:
        if name not in NAMES:
            parser.error(f"{name} is none of {', '.join(NAMES)}")
    folder = Path(tempfile.mkdtemp(prefix="hpo-chaos-"))
    say(f"databases and logs, kept where something is lost: {folder}")
    with servers.postgres_server() as server:
        same: Rows = []
        if {"sqlite-1", "postgres-1"} & set(chosen):
            say(f"undisturbed, one worker: {SAME.trials} trials")
            same = undisturbed(SAME, folder / "undisturbed")
        for name in chosen:
            if name == "outage":
                outage(server, folder / name, AWAY, 60, lambda text: say(f"outage: {text}"))
                continue
            database, seed = name.split("-")
            case = CASES[int(seed)]
            (folder / name).mkdir()
            url = server.url if database == "postgres" else sqlite_url(folder / name)
            rows = run(case, url, folder / name, lambda text, name=name: say(f"{name}: {text}"))  # type: ignore[misc]
            assert case is not SAME or rows == same, f"{name}: a trial is not what it is undisturbed"
    shutil.rmtree(folder)
    say("nothing was lost")


if __name__ == "__main__":
    main()
