"""Readers, each with valid files of its format and the mutation that fits it."""

from __future__ import annotations

import io
import json
import shutil
import tomllib
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
import yaml
from PIL import Image
from safetensors.numpy import save as save_arrays
from safetensors.torch import save

from hpo.config.trial_config import TrialConfig
from hpo.datasets import DatasetSource, make_reference
from hpo.datasets.sample_codec import pack_scores, pack_split, unpack_scores, unpack_split
from hpo.datasets.sample_scores import Kind, SampleScores, ValidationSplit, measure
from hpo.datasets.table import read_source
from hpo.export import predict as prediction
from hpo.export.format import Preprocessing
from hpo.export.sample_files import read_samples
from hpo.report.data.evaluations import EvaluationRun
from hpo.storage.stored_values import UnreadableError, parse_fits, parse_value
from hpo.study.attributes import DEFINITION, StudyAttributes
from hpo.study.foreign.import_study import import_study
from hpo.study.foreign.imported import ImportOptions
from hpo.study.foreign.loop_file import import_loop
from hpo.study.foreign.readers import read_search
from hpo.study.input.config_file import read_config, read_parameters
from hpo.study.input.preview import format_preview
from hpo.study.input.study_file import parse_override, read_study
from hpo.study.input.templates import find_template, template_names
from hpo.training import checkpoint
from hpo.training.checkpoint import Checkpoint
from hpo.training.models import build_model
from tests.cifar_files import write_cifar10
from tests.fuzz.mutation import (
    Mutation,
    mutate_archive,
    mutate_array,
    mutate_bytes,
    mutate_document,
    mutate_picture,
    write_document,
)
from tests.hostile.damage import DECLARED

__all__ = ["Target", "make_targets"]

TABLES = ("csv", "parquet", "feather", "jsonl")
DOCUMENTS = ("toml", "json", "yaml")
SHAPE, CLASSES = (1, 6, 6), 4
CONFIG = TrialConfig(widths="8-8")
# Metrics of an epoch by fit, as a row of hpo_fits has them.
FIT_METRICS = b'{"epoch": [2, 2, 2], "val_loss": [0.5, 0.25, null], "seconds": [1.5, 1, 2], "fit": [0, 1, 2]}'
SWEEPS = Path(__file__).parent.parent / "imports" / "wandb"
OTHER_SEARCHES = [
    file for tool in ("hydra", "katib", "keras_tuner", "nni") for file in (SWEEPS.parent / tool).iterdir()
    if file.suffix in (".yaml", ".json")
]  # fmt: skip
SCRIPTS = [file for tool in ("optuna", "ray_tune") for file in sorted((SWEEPS.parent / tool).glob("*.py"))]
SWEEP = Path(__file__).parent.parent / "study" / "foreign" / "fashion_sweep.yaml"


@dataclass(frozen=True)
class Target:
    """Reader under test.

    Attributes:
        name: what the file's name begins with.
        suffix: of the file.
        examples: valid contents; of a document as JSON, whatever its format.
        read: reads a file, and uses what it holds as far as the commands do before they begin to work.
        mutate: changes a content.
    """

    name: str
    suffix: str
    examples: list[bytes]
    read: Callable[[Path], object]
    mutate: Mutation

    def write(self, example: bytes) -> bytes:
        """Return a valid content, of a document in its format."""
        style = self.suffix[1:]
        return write_document(json.loads(example), style) if style in DOCUMENTS else example


def make_targets(folder: Path) -> list[Target]:
    """Make every target, with the files that they need beside the one that is damaged."""
    arrays, weights = _arrays(), _weights()
    np.savez(folder / "good.npz", **arrays)
    bundle = _make_bundle(folder / "model", weights)
    cifar = write_cifar10(folder / "cifar", count=10, batches=1)
    batch = (cifar / "data_batch_1").read_bytes()
    documents = {style: partial(mutate_document, style=style) for style in DOCUMENTS}
    studies = [_as_json(find_template("studies", name)) for name in template_names("studies")]
    config = json.dumps({"dataset": "mnist", "objective": "val_loss", "parameters": CONFIG.effective()}).encode()
    preprocessing = (bundle / "preprocessing.json").read_bytes()
    reads = {path.name: partial(_read_bundle, bundle, path.name) for path in bundle.iterdir()}
    return [
        Target("study", ".toml", studies, _read_study, documents["toml"]),
        Target("definition", ".json", _definitions(studies[0], folder), _read_definition, documents["json"]),
        *(Target("config", f".{s}", [config], _read_config, documents[s]) for s in ("toml", "json", "yaml")),
        Target("sweep", ".yaml", _sweeps(), _import_study, documents["yaml"]),
        Target("loop", ".yaml", _sweeps(), _import_loop, documents["yaml"]),
        Target("script", ".py", [file.read_bytes() for file in SCRIPTS], _import_script, mutate_bytes),
        Target("override", ".txt", [b"epochs=5", b'width={low=1, high=9}'], _read_override, mutate_bytes),
        Target("array", ".npy", [_npy(arrays["x_test"]), _npy(arrays["x_test"][0] / 9)], _read_samples, mutate_array),
        Target("data", ".npz", [_npz(arrays), _npz(arrays, packed=True)], _read_data, mutate_archive),
        Target("tensors", ".safetensors", [save_arrays(arrays)], _read_data, _mutate_weights),
        Target("tensors", ".pt", [_tensors(arrays)], _read_data, mutate_archive),
        Target("batch", ".pkl", [batch], partial(_read_batch, cifar), mutate_bytes),
        *(Target("table", f".{kind}", [_table(kind)], _read_table, mutate_bytes) for kind in TABLES),
        Target("fits", ".json", [FIT_METRICS], _read_fits, documents["json"]),
        Target("samples", ".scores", _sample_scores(), _read_scores, _mutate_packed),
        Target("samples", ".split", _splits(), _read_split, _mutate_packed),
        Target("predictions", ".npz", [_npz(_predictions(), packed=True)], _read_predictions, mutate_archive),
        Target("picture", ".png", _pictures("PNG"), _read_samples, mutate_picture),
        Target("picture", ".jpg", _pictures("JPEG"), _read_samples, mutate_picture),
        Target("weights", ".safetensors", [weights], reads["weights.safetensors"], _mutate_weights),
        Target("bundle", ".toml", [config], reads["config.toml"], documents["toml"]),
        Target("bundle", ".json", [preprocessing], reads["preprocessing.json"], documents["json"]),
        Target("checkpoint", ".pt", [_checkpoint(folder)], _read_checkpoint, mutate_archive),
    ]  # fmt: skip


# Examples.


def _as_json(path: Path) -> bytes:
    return json.dumps(tomllib.loads(path.read_text(encoding="utf-8"))).encode()


def _definitions(study: bytes, folder: Path) -> list[bytes]:
    (folder / "good.json").write_bytes(study)
    stored = read_study("quickstart")[1].model_dump(mode="json")
    return [json.dumps(each).encode() for each in (stored, {**stored, **DECLARED})]


def _sweeps() -> list[bytes]:
    sweep = yaml.safe_load(SWEEP.read_text(encoding="utf-8"))
    early = {"type": "hyperband", "eta": 3, "s": 2, "max_iter": 27}
    files = [SWEEPS / "nested.yaml", SWEEPS / "dqn.yaml", *sorted(OTHER_SEARCHES)]
    others = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in files]
    return [
        json.dumps(each).encode() for each in ({**sweep, "early_terminate": early, "settings": {"a": [1]}}, *others)
    ]


def _import_study(path: Path) -> None:
    renames = {"value": "val_loss"} if read_search(path).metric == "value" else {}  # a rename of nothing is refused
    import_study(path, ImportOptions(dataset="mnist", renames=renames)).toml("x")


def _import_script(path: Path) -> None:
    _import_loop(path)
    _import_study(path)


def _import_loop(path: Path) -> None:
    """Import a loop, whose Python must be one that can be compiled."""
    study = import_loop(path, Path("fuzzed_loop.py"), ImportOptions())
    compile(study.loop, "fuzzed_loop.py", "exec")
    study.toml("x")


def _arrays() -> dict[str, np.ndarray[Any, Any]]:
    random = np.random.default_rng(0)
    sizes = {"train": 20, "test": 8}
    samples = {f"x_{part}": random.integers(0, 256, (n, 6, 6), dtype=np.uint8) for part, n in sizes.items()}
    return samples | {f"y_{part}": np.arange(n) % CLASSES for part, n in sizes.items()}


def _table(kind: str) -> bytes:
    dates = [f"2020-{1 + i % 12:02}-03" for i in range(24)]
    frame = pl.DataFrame(
        {"area": np.arange(24) / 7, "zone": ["a", "b"] * 12, "sold": dates, "price": np.arange(24) % 3}
    )
    file = io.BytesIO()
    writers = {"csv": frame.write_csv, "parquet": frame.write_parquet, "feather": frame.write_ipc}
    writers.get(kind, frame.write_ndjson)(file)
    return file.getvalue()


def _predictions() -> dict[str, np.ndarray[Any, Any]]:
    probabilities = np.full((8, CLASSES), 1 / CLASSES, np.float16)
    pictures = np.zeros((2, 6, 6), np.uint8)
    found = {"labels": np.arange(8) % CLASSES, "probabilities": probabilities, "mistakes": np.arange(2)}
    return {f"test_{name}": array for name, array in {**found, "pictures": pictures}.items()}


def _splits() -> list[bytes]:
    return [pack_split(_split(groups)) for groups in (None, np.arange(60) // 4)]


def _split(groups: np.ndarray[Any, Any] | None = None) -> ValidationSplit:
    return ValidationSplit.of(np.arange(60) % CLASSES, np.arange(60) * 3, 60, groups)


def _sample_scores() -> list[bytes]:
    split, random, epochs = _split(), np.random.default_rng(0), np.arange(1, 4)
    kinds: dict[Kind, str] = {"correct": "val_accuracy", "prediction": "val_f1_macro", "loss": "val_loss"}
    numbers = {kind: random.integers(0, 2, (3, 60)) for kind in kinds}
    kinds["rank"], numbers["rank"] = "val_roc_auc", random.integers(0, 60, (3, 60, CLASSES))
    return [
        pack_scores(SampleScores(0, split.digest, epochs, 1, numbers[kind], kind, metric), split)
        for kind, metric in kinds.items()
    ]


def _npy(array: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _npz(arrays: dict[str, Any], *, packed: bool = False) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(file, **arrays)
    return file.getvalue()


def _tensors(arrays: dict[str, np.ndarray[Any, Any]]) -> bytes:
    file = io.BytesIO()
    torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, file)
    return file.getvalue()


def _pictures(kind: str) -> list[bytes]:
    modes = ("L", "RGB") if kind == "JPEG" else ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
    return [_picture(mode, kind) for mode in modes]


def _picture(mode: str, kind: str) -> bytes:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new(mode, (9, 7)).save(file, kind, exif=exif)
    return file.getvalue()


def _weights() -> bytes:
    return save({name: each.contiguous() for name, each in build_model(CONFIG, SHAPE, CLASSES).state_dict().items()})


def _make_bundle(folder: Path, weights: bytes) -> Path:
    folder.mkdir()
    takes = Preprocessing(shape=SHAPE, classes=CLASSES, values="uint8", shift=(1.0,), scale=(2.0,))
    (folder / "preprocessing.json").write_text(takes.model_dump_json())
    (folder / "config.toml").write_text('dataset = "mnist"\n[parameters]\nwidths = "8-8"\n')
    (folder / "weights.safetensors").write_bytes(weights)
    np.save(folder / "one.npy", np.zeros((6, 6), np.uint8))
    return folder


def _checkpoint(folder: Path) -> bytes:
    model = build_model(CONFIG, SHAPE, CLASSES)
    names = Checkpoint.__dataclass_fields__
    found = Checkpoint(**{name: dict(model.state_dict()) if "weights" in name else [1, 2.5] for name in names})
    checkpoint.save(folder / "good.pt", found, {"a": 1})
    return (folder / "good.pt").read_bytes()


def _mutate_weights(content: bytes, random: Any) -> bytes:
    """Change a safetensors file: its header, a JSON document after its length, or any bytes."""
    if random.random() < 0.3:
        return mutate_bytes(content, random)
    length = int.from_bytes(content[:8], "little")
    header = mutate_document(content[8 : 8 + length], random, "json")
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def _mutate_packed(content: bytes, random: Any) -> bytes:
    """Change packed sample scores: what they unpack to, or their bytes."""
    if random.random() < 0.2:
        return mutate_bytes(content, random)
    return zlib.compress(mutate_bytes(zlib.decompress(content), random))


# Readers.


def _read_study(path: Path) -> None:
    name, definition, budget = read_study(str(path))
    format_preview(name, definition, budget)


def _read_definition(path: Path) -> None:
    try:
        stored = parse_value(path.read_text(encoding="utf-8", errors="surrogateescape"))
    except UnreadableError:
        return  # the attribute is missing then
    attrs = StudyAttributes("study", "sqlite:///studies.db", {DEFINITION: stored})
    attrs.space(attrs.definition).notices()


def _read_config(path: Path) -> None:
    read_config(path)
    read_parameters(path)


def _read_override(path: Path) -> None:
    parse_override(path.read_text(encoding="utf-8", errors="surrogateescape"))


def _read_samples(path: Path) -> None:
    takes = Preprocessing(shape=SHAPE, classes=CLASSES, values="uint8", shift=(1.0,), scale=(2.0,))
    read_samples(path, takes)


def _read_table(path: Path) -> object:
    return read_source(path, DatasetSource(label=("price",)))


def _read_data(path: Path) -> None:
    make_reference(str(path))


def _read_batch(folder: Path, path: Path) -> None:
    """Read CIFAR-10 with this file as its only training batch."""
    shutil.copyfile(path, folder / "data_batch_1")
    make_reference(str(folder))


def _read_checkpoint(path: Path) -> None:
    checkpoint.load(path, {"a": 1})


def _read_predictions(path: Path) -> None:
    EvaluationRun("x", 0, 0, "COMPLETE", file=path).predictions("test")


def _read_scores(path: Path) -> None:
    split = _split()
    scores = unpack_scores(path.read_bytes(), 0, {split.digest: split})
    measure(scores.metric, scores.scores, split, np.ones((2, 60)))


def _read_split(path: Path) -> None:
    unpack_split(path.read_bytes(), _split().digest)


def _read_fits(path: Path) -> None:
    try:
        fits = parse_fits(path.read_text(encoding="utf-8", errors="surrogateescape"))
    except UnreadableError:
        return  # the row is left out
    assert all(isinstance(value, float | int) for row in fits.values() for value in row.values())


def _read_bundle(bundle: Path, name: str, path: Path) -> None:
    """Read an exported model one of whose files is this one."""
    good = (bundle / name).read_bytes()
    try:
        shutil.copyfile(path, bundle / name)
        prediction.predict(bundle, [bundle / "one.npy"])
    finally:
        (bundle / name).write_bytes(good)
