"""A data set that is larger than the memory that a worker takes for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

MODULE = """
import resource
import sys
from pathlib import Path

import hpo
import numpy as np
import torch

FILE, SAMPLES, FEATURES, SIZE = Path(__file__).parent / "samples.bin", 200_000, 1000, 2000
MB = 2**20


def block(number):
    x = np.fromfile(FILE, np.float32, SIZE * FEATURES, offset=4 * number * SIZE * FEATURES).reshape(SIZE, FEATURES)
    return x, np.arange(SIZE) % 2


class Blocks:
    def __len__(self):
        return SAMPLES // SIZE - 1

    def __iter__(self):
        return (block(number) for number in torch.randperm(len(self)).tolist())


@hpo.dataset("large")
def large():
    return hpo.Dataset(train=Blocks(), validation=block(SAMPLES // SIZE - 1), classes=2)


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MB


if __name__ == "__main__":
    with FILE.open("wb") as file:
        file.truncate(4 * SAMPLES * FEATURES)  # zeros, of which the disk holds none
    space = {"widths": "4", "epochs": 1, "learning_rate": 0.01}
    import hpo.training.loop

    torch.set_num_threads(1)
    before = peak()
    study = hpo.launch(name="large", dataset="large", parameters=space, sampler="random", trials=1, device="cpu")
    print(FILE.stat().st_size / MB, peak() - before, study.trials[0].state.name)
"""


@pytest.mark.integration
def test_a_worker_holds_no_more_than_a_few_batches(tmp_path: Path) -> None:
    (tmp_path / "large.py").write_text(MODULE, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "large.py"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr
    size, taken, state = done.stdout.split()
    assert state == "COMPLETE"
    assert float(size) > 760
    assert float(taken) < 200
