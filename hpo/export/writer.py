"""Writer of an exported model: a folder that is used without the study."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import optuna
import torch
from optuna.trial import FrozenTrial

from hpo.errors import RunError
from hpo.execution.restore import RestoredTrial, restore
from hpo.export.format import CARD, CONFIG, ONNX, PREPROCESSING, WEIGHTS, Array, Preprocessing
from hpo.export.graph import make_graph
from hpo.export.model_card import ExportedModel, model_card
from hpo.export.onnx import has_onnx, plain_torch, write_onnx
from hpo.report.data.evaluations import read_evaluations
from hpo.report.data.results import read_results
from hpo.report.export_config import choose_exported, export_config
from hpo.storage.study_storage import ENVIRONMENT
from hpo.study import Study
from hpo.study.attributes import read_number, read_table
from hpo.study.definition import test_metric
from hpo.study.files.study_files import list_local_weights
from hpo.study.operations.open_study import open_study
from hpo.training.data import Data
from hpo.utils.files import atomic_folder, check_new_folder
from hpo.utils.paths import study_path

__all__ = ["export_model", "preprocessing_of", "write_model"]

log = logging.getLogger("hpo.export")
COMPARED = 256  # samples


def export_model(
    study: str | Study | optuna.Study,
    number: int | None = None,
    *,
    rule: str | None = None,
    out: str | Path | None = None,
    storage: str | None = None,
    imports: Sequence[str] = (),
) -> Path:
    """Write a trained model to a new folder, as `hpo export --weights` does, and return the folder.

    See `write_model` for the files. They need no study, and `model.onnx` needs no torch.

    Args:
        study: a study's name, or a study as `hpo.launch` returns it.
        number: of the trial; None exports the one that the rule chooses.
        rule: `best`, `one_se` or `evaluated`, see `hpo.report.stats.choice`; None for the study's default.
        out: the folder, which must be new or empty; by default `exports/NAME/trial_N` in `HPO_HOME`.
        storage: URL of the storage that a name is looked up in; by default the one that the commands use.
        imports: modules that register the user's models, data sets and metrics.

    Raises:
        RequestError: there is no such study or trial, its weights are not here, or the folder cannot be written to.
        DataError, RegistryError: the study's data set, or its model, is not here.
    """
    opened = open_study(study, storage, imports)
    chosen = _choose_number(opened, number, rule)
    folder = Path(out) if out is not None else study_path("exports", opened.name) / f"trial_{chosen}"
    for note in write_model(opened, folder, chosen):
        log.info("%s", note)
    return folder


def write_model(study: Study, folder: Path, number: int | None = None, rule: str | None = None) -> list[str]:
    """Write the model of the chosen trial, or of trial `number`, to a new folder: all of it, or nothing.

    The folder holds `weights.safetensors`, `config.toml`, `preprocessing.json`, `model.onnx` and a model card,
    `README.md`; the ONNX file is left out if the model cannot be written as ONNX. See `hpo.export.format`.

    Returns:
        Remarks on the export, a line each.

    Raises:
        RequestError: the folder is not empty or cannot be created; there is no such trial, or its weights are not here.
        DataError, RegistryError: the study's data set, or its model, is not here.
    """
    check_new_folder(folder)
    restored = restore(study, _choose_number(study, number, rule), device="cpu")
    with atomic_folder(folder) as new_folder:
        return _write(study, restored, new_folder)


def _choose_number(study: Study, number: int | None, rule: str | None) -> int:
    """Return a trial's number, or which the rule chooses: where none is named, of those whose weights are here."""
    if number is not None:
        return number
    study.check_configured("weights")
    here = list_local_weights(study)
    return choose_exported(study, read_results(study), rule, here if rule is None and here else None).row.number


def _write(study: Study, restored: RestoredTrial, folder: Path) -> list[str]:
    results = read_results(study)
    number = restored.trial.number
    row = results.trial(number)
    assert row.config is not None
    preprocessing = preprocessing_of(restored.data, reconstructs=row.config.reconstructs)
    shutil.copyfile(restored.weights, folder / WEIGHTS)
    (folder / CONFIG).write_text(export_config(results, number), encoding="utf-8")
    (folder / PREPROCESSING).write_text(preprocessing.model_dump_json(indent=2) + "\n", encoding="utf-8")
    onnx, note = _write_onnx(restored, preprocessing, folder)
    environment = {name: str(text) for name, text in read_table(restored.trial.system_attrs, ENVIRONMENT).items()}
    tests = _own_tests(restored.trial, [each.metric for each in results.objectives])
    exported = ExportedModel(preprocessing, environment, plain_torch(restored.model), onnx, tests)
    (folder / CARD).write_text(model_card(results, row, read_evaluations(study), exported), encoding="utf-8")
    return [note]


def _own_tests(trial: FrozenTrial, metrics: Sequence[str]) -> dict[str, float]:
    """Return the test scores that a run of an evaluation has beside the metrics of its objectives."""
    names = [name for metric in metrics if (name := test_metric(metric)) is not None and name not in metrics]
    found = {name: read_number(trial.user_attrs, name) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def _write_onnx(
    restored: RestoredTrial, preprocessing: Preprocessing, folder: Path
) -> tuple[tuple[int, float] | None, str]:
    """Write the ONNX file; return the number of samples it was compared on with the largest difference, and a remark.

    The former is None if there is no ONNX file.
    """
    if not has_onnx():
        return None, f"{ONNX} is left out: it needs the extra, pip install 'torch-hpo[onnx]'"
    samples = _samples(restored.data)
    try:
        difference = write_onnx(make_graph(restored.model, preprocessing), folder / ONNX, samples)
    except RunError as error:  # a user's own model may do what ONNX cannot express
        (folder / ONNX).unlink(missing_ok=True)
        return None, f"{ONNX} is left out: {error}"
    note = (
        f"{ONNX}: on {len(samples)} samples its outputs differ from torch's by at most {difference:.2g} of the largest"
    )
    return (len(samples), difference), note


def _samples(data: Data) -> torch.Tensor:
    """Return samples as an ONNX file takes them: rows of a table's raw matrix, else inputs."""
    if data.encoder is not None:
        return torch.from_numpy(_rows(data))
    samples = (data.x_val if len(data.y_val) > 1 else data.x_train)[:COMPARED]
    if len(samples) < 2:  # a data set that streams, with hardly any validation samples
        samples = torch.zeros(2, *data.shape, dtype=data.x_val.dtype)
    return samples


def _rows(data: Data) -> Array:
    """Return training rows of a table, each twice: as it is, and with values that are missing or were never seen."""
    x = np.asarray(data.dataset.train[0][: COMPARED // 2], np.float32)  # type: ignore[index]
    changed = x.copy()
    rows, columns = np.indices(x.shape)
    changed[(rows + columns) % 3 == 0] = np.nan
    changed[(rows + columns) % 3 == 1] = 0
    return np.concatenate([x, changed])


def preprocessing_of(data: Data, *, reconstructs: bool = False) -> Preprocessing:
    """Return the preprocessing that made the data's samples inputs of models, for their split and seed."""
    shift, scale = _scaling(data)
    target_shift, target_scale = _target_scaling(data)
    return Preprocessing(
        task=data.task,
        shape=tuple(data.shape),
        classes=data.classes,
        output_names=tuple(data.output_names),
        reconstructs=reconstructs,
        values="integer" if data.integers else "uint8" if data.raw_bytes else "float",
        vocabulary=data.vocabulary,
        shift=_numbers(shift),
        scale=_numbers(scale),
        target_shift=_numbers(target_shift),
        target_scale=_numbers(target_scale),
        encoder=data.encoder,
        table=data.dataset.schema,
        texts=data.dataset.texts,
    )


def _scaling(data: Data) -> tuple[Array, Array]:
    """Return shift and scale of each channel or feature; of a table none."""
    if data.encoder is not None or data.integers:
        return np.empty(0), np.empty(0)
    if data.scaling is not None:
        return data.scaling.shift, data.scaling.scale
    shift, scale = np.zeros(data.shape[0]), np.ones(data.shape[0])
    if data.raw_bytes:
        middle = 127.5 if data.input_scaling == "symmetric" else 0.0
        shift, scale = shift + middle, scale * (255.0 - middle)
    return shift, scale


def _target_scaling(data: Data) -> tuple[Array, Array]:
    """Return shift and scale of each target of a regression; batches that stream have theirs as they are."""
    if data.target_scaling is not None:
        return data.target_scaling.shift, data.target_scaling.scale
    count = data.classes if data.task == "regression" else 0
    return np.zeros(count), np.ones(count)


def _numbers(values: Array) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
