"""Benchmark of data that are read while training goes on: seconds an epoch, against a plain loop that reads and trains.

    python -m benchmarks.streaming [--samples 2048] [--size 224] [--workers 1 2] [--latency 1] [--repeats 3]

Each sample is a JPEG, which is read, decoded and made smaller when it is asked for, and nothing is held in memory.
`--latency` is how many milliseconds each file takes to begin, as on a disk of the network. The plain loop is what one
writes by hand: read a batch, then train on it, in turn. torch's is the same loop over a DataLoader with as many
processes as ours. Ours is `hpo.Dataset(…, workers=N)` in `hpo.training.loop.train`. All train the same model on one
thread, in the same run, in turns; the best of the repeats counts. `hidden` is how much of the shorter of reading and
training, both measured by themselves, takes no time of its own.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

import hpo
from hpo.config import registry
from hpo.config.trial_config import TrialConfig
from hpo.datasets.map_style import read_parts
from hpo.training.data import prepare_data
from hpo.training.loop import train
from hpo.utils.home import cores

BATCH, CLASSES, SIDE = 64, 10, 64


class Files(TorchDataset[Any]):
    """Images (3, 64, 64) of uint8, each in a JPEG of size x size pixels."""

    def __init__(self, folder: Path, samples: int, size: int, latency: float) -> None:
        self.folder, self.samples, self.size, self.latency = folder, samples, size, latency

    def write(self) -> None:
        """Write the files."""
        rng = np.random.default_rng(0)
        for index in range(self.samples):
            coarse = Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8))
            coarse.resize((self.size, self.size), Image.Resampling.BICUBIC).save(self.folder / f"{index}.jpg")

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        time.sleep(self.latency / 1000)
        with Image.open(self.folder / f"{index}.jpg") as image:
            pixels = np.asarray(image.resize((SIDE, SIDE)))
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy()), index % CLASSES


def make_model(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, 2, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(16 * width, CLASSES),
    )


class HandWritten:
    """Loops that one writes by hand."""

    def __init__(self, files: Files, width: int) -> None:
        self.files, self.width = files, width

    def step(self) -> Callable[[torch.Tensor, torch.Tensor], None]:
        """Return a step of a new model."""
        model = make_model(self.width)
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)

        def step(x: torch.Tensor, y: torch.Tensor) -> None:
            loss = nn.functional.cross_entropy(model(x.float() / 255), y)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

        return step

    def loop(self, workers: int) -> float:
        """Return the seconds of an epoch."""
        step, began = self.step(), time.perf_counter()
        for x, y in DataLoader(self.files, BATCH, shuffle=True, num_workers=workers):
            step(x, y)
        return time.perf_counter() - began

    def read(self) -> float:
        """Return the seconds of reading alone."""
        began = time.perf_counter()
        for _ in DataLoader(self.files, BATCH, shuffle=True):
            pass
        return time.perf_counter() - began

    def train(self) -> float:
        """Return the seconds of training alone, on one batch again and again."""
        x, y = next(iter(DataLoader(self.files, BATCH)))
        step, began = self.step(), time.perf_counter()
        for _ in range(len(self.files) // BATCH):
            step(x, y)
        return time.perf_counter() - began


def time_ours(files: Any, width: int, workers: int) -> float:
    """Return the seconds of an epoch, with the validation of one batch, as `train` measures them."""
    registry.models._entries.pop("streamed", None)
    registry.model("streamed")(lambda *_: make_model(width))
    held = [files[index] for index in range(BATCH)]
    validation = torch.stack([x for x, _ in held]), torch.tensor([y for _, y in held])
    dataset = hpo.Dataset(train=files, validation=validation, classes=CLASSES, task="classification", workers=workers)
    config = TrialConfig(model="streamed", batch_size=BATCH, epochs=1)
    data = prepare_data(read_parts(dataset, "files"), config, torch.device("cpu"), "files")
    began = time.perf_counter()
    (result,) = train([config], data)
    assert result.status == "completed"
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=2048)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--latency", type=float, default=1.0)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, Python {platform.python_version()}, {cores()} cores")
    with tempfile.TemporaryDirectory() as folder:
        files = Files(Path(folder), options.samples, options.size, options.latency)
        files.write()
        hand = HandWritten(files, options.width)
        measures: dict[str, Callable[[], float]] = {
            "reading alone": hand.read,
            "training alone": hand.train,
            "plain loop": lambda: hand.loop(0),
        }
        for count in options.workers:
            measures[f"torch's loop, {count} process{'es' if count > 1 else ''}"] = partial(hand.loop, count)
            measures[f"ours, workers = {count}"] = partial(time_ours, files, options.width, count)
        found: dict[str, list[float]] = {name: [] for name in measures}
        for _ in range(options.repeats):
            for name, measure in measures.items():
                found[name].append(measure())
    best = {name: min(times) for name, times in found.items()}
    plain, shorter = best["plain loop"], min(best["reading alone"], best["training alone"])
    print("| loop | seconds an epoch | times as fast as the plain loop | hidden |\n|---|---|---|---|")
    for name, seconds in best.items():
        row = f"{plain / seconds:.2f} | {100 * min(1, max(0, (plain - seconds) / shorter)):.0f} %"
        row = "— | —" if name.endswith("alone") else row
        print(f"| {name} | {seconds:.2f} | {row} |")


if __name__ == "__main__":
    main()
