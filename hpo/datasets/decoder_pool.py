"""Decoding of many images on all cores, with a progress bar on a terminal.

Many images are decoded by processes of their own, which write into one file of pixels: of small images, Pillow
spends most of its time in Python, where threads wait for each other. Few are decoded by threads, for which no process
has to start.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hpo.datasets import image_decoder
from hpo.datasets.image_decoder import Outcome, decode_files
from hpo.errors import DataError
from hpo.utils.home import cores

__all__ = ["FEW", "decode_all"]

CHUNK = 64  # images that are decoded at once
FEW = 2000  # images that threads decode
Job = tuple[int, list[str]]  # the first row, and the files of the rows from there on


def decode_all(files: Sequence[str], pixels: Path, shape: tuple[int, ...]) -> list[Outcome]:
    """Decode files into the rows of an array of uint8, which is a file, and return what was found in each.

    Args:
        files: paths, as many as the array has rows.
        pixels: the file of the array.
        shape: of the array: (N, H, W) or (N, H, W, 3).

    Raises:
        DataError: a decoder has crashed.
    """
    jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
    for first in range(0, len(files), CHUNK):
        jobs.put((first, list(files[first : first + CHUNK])))
    serve = _decode_here if len(files) <= FEW else _decode_elsewhere
    with _progress(len(files)) as advance, ThreadPoolExecutor(cores()) as pool:
        parts = [pool.submit(serve, jobs, pixels, shape, advance) for _ in range(cores())]
        done = {first: outcomes for part in parts for first, outcomes in part.result().items()}
    return [outcome for first in sorted(done) for outcome in done[first]]


def _decode_here(
    jobs: queue.SimpleQueue[Job], pixels: Path, shape: tuple[int, ...], advance: Callable[[int], None]
) -> dict[int, list[Outcome]]:
    done = {}
    with pixels.open("r+b", buffering=0) as file:
        for first, files in _take(jobs):
            done[first] = decode_files(files, file.fileno(), shape, first)
            advance(len(files))
    return done


def _decode_elsewhere(
    jobs: queue.SimpleQueue[Job], pixels: Path, shape: tuple[int, ...], advance: Callable[[int], None]
) -> dict[int, list[Outcome]]:
    """Have a process decode, which is started as a program of its own: nothing of this one is imported or copied."""
    command = [sys.executable, "-P", str(image_decoder.__file__), str(pixels), ",".join(map(str, shape))]
    done = {}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as process:
        for first, files in _take(jobs):
            done[first] = _ask(process, first, files)
            advance(len(files))
    return done


def _ask(process: subprocess.Popen[bytes], first: int, files: list[str]) -> list[Outcome]:
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps([first, files]).encode() + b"\n")
        process.stdin.flush()
        answer = process.stdout.readline()
    except BrokenPipeError:
        answer = b""
    if not answer:
        process.kill()
        raise DataError(
            f"{files[0]}: the decoder has crashed on it or one of the {len(files) - 1} images after it (exit code "
            f"{process.wait()}); look for a damaged one"
        )
    return [Outcome(sha256, problem, (size[0], size[1]), *rest) for sha256, problem, size, *rest in json.loads(answer)]


def _take(jobs: queue.SimpleQueue[Job]) -> Iterator[Job]:
    while True:
        try:
            yield jobs.get_nowait()
        except queue.Empty:
            return


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """Yield a function that tells how many more images are done; only a terminal shows it."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns: list[Any] = [TextColumn("images"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda count: bar.advance(task, count)
