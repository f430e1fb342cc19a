"""Arrays of each task, split as our own trials split them, so that all tools are scored on the same samples."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np

from benchmarks.rivals.tasks import study_file
from hpo.config.trial_config import TrialConfig
from hpo.datasets import load, make_reference, split_rows


def find_data(task: str, folder: Path) -> str:
    """Return what `--dataset` names, which is made first where it is ours to make."""
    name: str = tomllib.loads(study_file(task).read_text())["dataset"]
    if not name.endswith(".npz"):
        return name
    if not (folder / name).exists():
        make_table(folder / name)
    return str(folder / name)


def make_table(path: Path) -> None:
    """Write a table of 20,000 training rows, by scikit-learn's generator."""
    from sklearn.datasets import make_classification

    x, y = make_classification(
        24_000, 30, n_informative=15, n_classes=5, n_clusters_per_class=4, flip_y=0.02, random_state=0
    )
    x, y = x.astype(np.float32), y.astype(np.int64)
    np.savez(path, x_train=x[:20_000], y_train=y[:20_000], x_test=x[20_000:], y_test=y[20_000:])


def write_arrays(task: str, seed: int, folder: Path) -> None:
    """Write the arrays of a seed, with the mean and the deviation of its training part."""
    path = folder / f"{task}-{seed}.npz"
    if path.exists():
        return
    dataset = load(make_reference(find_data(task, folder)))
    assert isinstance(dataset.train, tuple)
    x, y = (np.asarray(part) for part in dataset.train)
    rest, chosen = split_rows(y.astype(np.int64), TrialConfig().validation, seed, "classification")
    x_train = x[rest]
    axis = 0 if x.ndim == 2 else None  # of images one for all pixels, as people write it
    scale = 255 if x.dtype == np.uint8 else 1
    mean, deviation = x_train.mean(axis=axis) / scale, x_train.std(axis=axis) / scale
    temporary = path.with_name(f"part-{path.name}")
    np.savez(
        temporary,
        x_train=x_train,
        y_train=y[rest],
        x_val=x[chosen],
        y_val=y[chosen],
        mean=np.float32(mean),
        deviation=np.float32(deviation),
    )
    temporary.rename(path)
