"""Exported models of tables without a study, whose weights are as drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import tomli_w
import torch
from safetensors.torch import save_file
from torch import nn

from hpo.config.trial_config import TrialConfig
from hpo.datasets import Dataset
from hpo.datasets.table_file import read_table
from hpo.datasets.table_labels import make_labels
from hpo.datasets.table_schema import make_schema
from hpo.export.format import CONFIG, ONNX, PREPROCESSING, WEIGHTS
from hpo.export.graph import make_graph
from hpo.export.onnx import write_onnx
from hpo.export.writer import _samples, preprocessing_of
from hpo.training.data import Data, prepare_data
from hpo.training.models import build_model

CPU = torch.device("cpu")
LABELS = {"classification": ("kind",), "multilabel": ("warm", "wet"), "regression": ("price", "rent")}


def write_rows(path: Path, rows: int = 300) -> Path:
    """Write a table with numbers, a category and a date, of which some are missing, and labels of every task."""
    rng = np.random.default_rng(0)
    colours = rng.choice(["red", "blue", "grey"], rows).tolist()
    size = rng.lognormal(0, 1, rows).round(3)
    frame = pl.DataFrame(
        {
            "rooms": [None if i % 9 == 0 else int(each) for i, each in enumerate(rng.integers(1, 9, rows))],
            "colour": [None if i % 11 == 0 else each for i, each in enumerate(colours)],
            "size": size,
            "kind": rng.choice(["house", "flat", "hut"], rows),
            "warm": rng.integers(0, 2, rows),
            "wet": rng.integers(0, 2, rows),
            "price": (200_000 + 90_000 * size + rng.normal(0, 9000, rows)).round(2),
            "rent": (700 + 100 * size).round(2),
        }
    )
    frame.write_csv(path)
    return path


def read_dataset(path: Path, task: str, held: int = 60) -> Dataset:
    """Read a table of `write_rows` for a task, the last rows as validation data; labels of others are left out."""
    frame, label = read_table(path), LABELS[task]
    labels, _ = make_labels(frame, label, task, str(path))  # type: ignore[arg-type]
    skip = [name for names in LABELS.values() for name in names if name not in label]
    chosen, numbers = np.arange(frame.height) < frame.height - held, np.arange(1, frame.height + 1)
    schema, _ = make_schema(frame, labels, str(path), chosen, numbers, skip)
    x, y = schema.read(frame), labels.read(frame, str(path))
    return Dataset(
        (x[chosen], y[chosen]), validation=(x[~chosen], y[~chosen]), classes=len(labels.names), task=labels.task,
        output_names=labels.names, features=schema.features, schema=schema,
    )  # fmt: skip


def prepare(path: Path, task: str, **parameters: object) -> tuple[Data, TrialConfig]:
    """Read a table of `write_rows` for a task, and prepare it."""
    config = TrialConfig(task=task, **parameters)  # type: ignore[arg-type]
    return prepare_data(read_dataset(path, task), config, CPU), config


def export(folder: Path, data: Data, config: TrialConfig) -> nn.Module:
    """Write the folder of an exported model, and return the model, which takes encoded samples."""
    folder.mkdir()
    model = build_model(config, data.shape, data.classes).eval()
    preprocessing = preprocessing_of(data)
    save_file(dict(model.state_dict()), folder / WEIGHTS)
    (folder / CONFIG).write_text(tomli_w.dumps({"parameters": config.literals(none="off")}))
    (folder / PREPROCESSING).write_text(preprocessing.model_dump_json())
    write_onnx(make_graph(model, preprocessing), folder / ONNX, _samples(data))
    return model
