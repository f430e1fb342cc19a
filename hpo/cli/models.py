"""Commands on trained models: predict with an exported one, and train a recorded one again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpo.cli.lookup import load_runnable_study
from hpo.cli.options import app, device_option, format_option, import_option, storage_option
from hpo.cli.output import print_rows, say
from hpo.errors import RequestError

if TYPE_CHECKING:
    from hpo.execution.reproduce import Reproduction
    from hpo.study import Study

__all__: list[str] = []


@app.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--onnx", is_flag=True, help="Compute with onnxruntime, without torch.")
@click.option(
    "--invert", is_flag=True, help="Turn dark images on a light background into light ones on a dark background."
)
@format_option("table", "json", "csv")
@import_option
def predict(folder: Path, files: Sequence[Path], onnx: bool, invert: bool, style: str, imports: Sequence[str]) -> None:
    """Predict what FILES hold with the model in FOLDER, as hpo export --weights wrote it.

    Files are tables of new rows (CSV, TSV, Parquet, Arrow, JSON lines), PNG and JPEG images, and arrays (.npy, .npz,
    …). What is predicted are classes, labels with their probabilities, or targets in their own units.

    Example: hpo predict model seven.png digits.npy
    """
    from hpo.config import registry
    from hpo.export.predict import predict

    registry.import_modules(imports)
    rows, notes = predict(folder, files, onnx=onnx, invert=invert)
    for note in notes:
        say(f"note: {note}")
    print_rows(rows, style)


@app.command()
@click.argument("name")
@click.argument("number", type=int)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Keep the files that hpo train writes, with the weights, in this folder.",
)
@click.option(
    "--objective",
    metavar="FILE.py:FUNCTION",
    help="Objective function of the study, if it has one and --import names no module that holds it.",
)
@click.option("--threads", type=click.IntRange(1, 4096), help="Threads of torch; by default as many as the trial had.")
@device_option
@import_option
@storage_option
def reproduce(
    name: str,
    number: int,
    out: Path | None,
    objective: str | None,
    threads: int | None,
    device: str,
    imports: Sequence[str],
    storage: str | None,
) -> int:
    """Train trial NUMBER of the study NAME again, and compare every epoch with what was recorded.

    An objective function is called again with the trial's parameters and seed, and what it reports and returns is
    compared.

    The exit code is 1 if they differ by more than training in a cohort explains.

    Example: hpo reproduce quickstart 3
    """
    from hpo.execution.reproduce import describe_reproduction, reproduce

    study = load_runnable_study(name, storage, imports)
    if study.definition.configured:
        if objective is not None:
            raise RequestError(f"--objective: study '{name}' trains models, and calls no objective function")
        result = reproduce(study, number, out=out, device=device, threads=threads)
    else:
        result = _reproduce_call(study, number, objective, out, threads, imports)
    rows = [
        {"metric": d.metric, "largest difference": d.largest, result.step_name: d.epoch} for d in result.differences
    ]
    print_rows(rows, "table")
    for sentence in describe_reproduction(result):
        say(sentence)
    return 0 if result.reproduced else 1


def _reproduce_call(
    study: Study, number: int, objective: str | None, out: Path | None, threads: int | None, imports: Sequence[str]
) -> Reproduction:
    """Call the objective function of a study again."""
    from hpo.execution.evaluate_function import find_study_function
    from hpo.execution.objective_function import find_changes
    from hpo.execution.reproduce_function import reproduce_call

    if out is not None:
        raise RequestError(f"--out: study '{study.name}' calls an objective function, which keeps its own files")
    function = find_study_function(study, objective, imports, "reproduce")
    for notice in find_changes(study, function.reference):
        say(f"note: {notice}")
    return reproduce_call(study, number, function, threads)
