"""Trials of readers in a process with little memory: one that raises anything but a line, or takes long, is found."""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from hpo.errors import HpoError
from tests.fuzz.targets import Target, make_targets

__all__ = ["Findings", "fuzz"]

SECONDS = 5  # of the processor, for the machine may be busy
WAIT = 60  # seconds
MEMORY = 2**30  # bytes beyond what the process has already
Findings = list[str]


class _TooLong(BaseException):
    """Alarm, which no reader may take for an error of its file."""


def fuzz(seconds: float, seed: int, folder: Path) -> tuple[str, Findings]:
    """Try mutations in processes of their own for a time; return a summary, and what was found.

    The inputs of the findings are kept in the folder.
    """
    findings, summary, end = Findings(), "", time.monotonic() + seconds
    while not summary or time.monotonic() < end:
        left = max(1.0, end - time.monotonic())
        command = [sys.executable, "-m", "tests.fuzz.harness", str(left), str(seed), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 120)
        summary += done.stdout
        findings += [line for line in done.stderr.splitlines() if line.startswith("found")]
        if done.returncode not in (0, 1) or not done.stdout:  # an error of the harness itself ends it with 1, too
            last = next(iter(folder.glob("now_*")), None)
            findings.append(f"found: process ended with {done.returncode} by {last}: {done.stderr[-500:]}")
            seed += 1_000_003
            if last is not None:
                last.replace(folder / f"ended_{seed}_{last.name}")
            summary += "a process ended\n"
    return summary, findings


def _run(seconds: float, seed: int, folder: Path) -> int:
    os.environ.setdefault("HPO_HOME", str(folder / "home"))
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, _stop)
    signal.signal(signal.SIGPROF, _stop)
    counts: Counter[str] = Counter()
    found = 0
    with tempfile.TemporaryDirectory() as beside:
        targets = make_targets(Path(beside))
        _warm_up(targets, folder)
        start, number = time.monotonic(), 0
        while time.monotonic() - start < seconds:
            number += 1
            chance = random.Random(f"{seed} {number}")
            target = chance.choice(targets)
            path = _write(folder, target, target.mutate(chance.choice(target.examples), chance))
            problem = _try(target, path)
            counts[target.name + target.suffix] += 1
            if problem:
                found += 1
                kept = folder / f"found_{seed}_{number}_{target.name}{target.suffix}"
                path.replace(kept)
                sys.stderr.write(f"found: {kept}: {problem}\n")
            path.unlink(missing_ok=True)
    sys.stdout.write(f"{number} inputs: {', '.join(f'{name} {n}' for name, n in sorted(counts.items()))}\n")
    return 1 if found else 0


def _stop(*_: object) -> None:
    raise _TooLong


def _write(folder: Path, target: Target, content: bytes) -> Path:
    path = folder / f"now_{target.name}{target.suffix}"
    path.write_bytes(content)
    return path


def _warm_up(targets: list[Target], folder: Path) -> None:
    """Let every reader import what it needs: that is no memory of its files."""
    for target in targets:
        target.read(_write(folder, target, target.write(target.examples[0])))


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def _try(target: Target, path: Path) -> str | None:
    """Return what is wrong with how a file was read; None if nothing is."""
    _limit_memory()
    start = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.setitimer(signal.ITIMER_REAL, WAIT)
    try:
        with _quiet():
            target.read(path)
    except _TooLong:
        return f"took more than {SECONDS} s: {traceback.format_exc().splitlines()[-3].strip()}"
    except HpoError as error:
        if "\n" in str(error):
            return f"more than one line: {str(error)!r}"
        if any(isinstance(each, MemoryError) for each in _chain(error)):
            return f"asked for too much memory: {error}"
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {str(error)[:300]!r} at {where.filename}:{where.lineno}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
    took = time.process_time() - start
    return f"took {took:.1f} s" if took > SECONDS else None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with contextlib.redirect_stderr(None), contextlib.redirect_stdout(None):
        yield


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what has led to it."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        yield error
        error = error.__cause__ or error.__context__


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("seconds", type=float)
    parser.add_argument("seed", type=int)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    sys.exit(_run(options.seconds, options.seed, options.folder))
