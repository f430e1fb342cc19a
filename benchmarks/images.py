"""Benchmark of folders of images: images per second until training can begin, against what Pillow alone decodes.

    python -m benchmarks.images [--counts 50000 5000] [--sizes 28 224] [--repeats 3]

The images are PNGs made of Fashion-MNIST's, or where that is not on this machine MNIST's; the larger ones are enlarged
and have noise, as photographs do. Pillow's figure is of a pool with a process per core that is at work already and
throws the pixels away. Ours is the whole of reading a new folder, from its name to a data set that is checked:
listing, starting processes, decoding, hashing each file, and keeping the pixels in the cache. Best of the repeats, for
both in turns; files are in the memory of the system, for both.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from hpo import datasets
from hpo.datasets import DatasetSource
from hpo.datasets.images import read_source
from hpo.errors import DataError
from hpo.utils.home import cores

CHUNK = 64


def make_folder(folder: Path, count: int, size: int) -> list[str]:
    """Write grey PNGs of size x size into a folder per class, and return their paths."""
    try:
        x, y = datasets.fashion_mnist().train
    except DataError:
        x, y = datasets.mnist().train
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 8, (size, size), dtype=np.uint8)
    files = []
    for i in range(count):
        path = folder / f"class_{y[i % len(y)]}" / f"{i:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(x[i % len(x)])
        if size != image.width:
            enlarged = np.asarray(image.resize((size, size))) // 2
            image = Image.fromarray(enlarged + np.roll(noise, i, (0, 1)[i % 2]))
        image.save(path)
        files.append(str(path))
    return files


def decode(files: Sequence[str]) -> int:
    """Decode files with Pillow alone, and return how many."""
    for file in files:
        with Image.open(file) as image:
            image.load()
    return len(files)


def time_pillow(files: Sequence[str], pool: ProcessPoolExecutor) -> float:
    chunks = [files[i : i + CHUNK] for i in range(0, len(files), CHUNK)]
    began = time.perf_counter()
    assert sum(pool.map(decode, chunks)) == len(files)
    return time.perf_counter() - began


def time_ours(folder: Path, count: int) -> tuple[float, float]:
    """Return the seconds of reading a new folder, and of reading it again, from the cache."""
    shutil.rmtree(Path(os.environ["HPO_HOME"]), ignore_errors=True)
    taken = []
    for _ in range(2):
        began = time.perf_counter()
        dataset = read_source(folder, DatasetSource())
        taken.append(time.perf_counter() - began)
        assert isinstance(dataset.train, tuple)
        assert len(dataset.train[1]) == count - round(0.2 * count)
    return taken[0], taken[1]


def measure(folder: Path, count: int, size: int, repeats: int) -> tuple[float, float, float]:
    """Return images per second of Pillow alone and of ours, and our seconds from the cache."""
    files = make_folder(folder, count, size)
    rivals, ours, again = [], [], []
    with ProcessPoolExecutor(cores()) as pool:
        time_pillow(files[: 64 * cores()], pool)  # its processes are started
        for _ in range(repeats):
            rivals.append(time_pillow(files, pool))
            first, second = time_ours(folder, count)
            ours.append(first)
            again.append(second)
    return count / min(rivals), count / min(ours), min(again)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[50_000, 5000])
    parser.add_argument("--sizes", type=int, nargs="+", default=[28, 224])
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    print(f"Python {platform.python_version()}, {cores()} cores, {platform.processor() or platform.machine()}")
    print(f"{'images':>8}{'size':>10}{'Pillow':>12}{'ours':>12}{'ratio':>8}{'from the cache':>17}")
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["HPO_HOME"] = str(Path(temporary) / "home")
        for count, size in zip(given.counts, given.sizes, strict=True):
            pillow, ours, again = measure(Path(temporary) / f"images_{size}", count, size, given.repeats)
            row = f"{count:>8,}{f'{size}x{size}':>10}{pillow:>10,.0f}/s{ours:>10,.0f}/s{ours / pillow:>8.2f}"
            print(f"{row}{again:>15.2f} s", flush=True)


if __name__ == "__main__":
    main()
