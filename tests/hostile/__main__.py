"""The long form: every damage under every command, `python -m tests.hostile`, or those whose names hold a text."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.hostile.damage import list_damage
from tests.hostile.harness import COMMANDS, HEALTHY, Home


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("texts", nargs="*", help="of the damage's names; by default all")
    parser.add_argument("--command", action="append", choices=list(COMMANDS), help="only this one; may be repeated")
    parser.add_argument("--rotate", type=int, help="run one command for each damage, the next one for the next damage")
    chosen = parser.parse_args()
    failed = count = 0
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        for index, damage in enumerate(list_damage(HEALTHY / "hpo.db")):
            if chosen.texts and not any(text in damage.name for text in chosen.texts):
                continue
            commands = chosen.command or list(COMMANDS)
            if chosen.rotate is not None:
                commands = [commands[(index + chosen.rotate) % len(commands)]]
            for command in commands:
                count += 1
                began = time.monotonic()
                faults = home.run(damage, command)
                if (seconds := time.monotonic() - began) > 20:
                    faults.append(f"took {seconds:.0f} s")
                failed += bool(faults)
                for fault in faults:
                    sys.stdout.write(f"FAULT {damage.name} | {command} | {fault}\n")
                    sys.stdout.flush()
    sys.stdout.write(f"{count} cases, {failed} with faults\n")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
