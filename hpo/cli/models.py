"""Commands on trained models: predict with an exported one, and train a recorded one again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from hpo.cli.lookup import load_runnable_study
from hpo.cli.options import app, device_option, format_option, import_option, storage_option
from hpo.cli.output import print_rows, say

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
    """Predict the classes of PNG, JPEG and .npy files with the model in FOLDER, as hpo export --weights wrote it.

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
@click.option("--threads", type=click.IntRange(1, 4096), help="Threads of torch; by default as many as the trial had.")
@device_option
@import_option
@storage_option
def reproduce(
    name: str,
    number: int,
    out: Path | None,
    threads: int | None,
    device: str,
    imports: Sequence[str],
    storage: str | None,
) -> int:
    """Train trial NUMBER of the study NAME again, and compare every epoch with what was recorded.

    The exit code is 1 if they differ by more than training in a cohort explains.

    Example: hpo reproduce quickstart 3
    """
    from hpo.execution.reproduce import describe_reproduction, reproduce

    result = reproduce(load_runnable_study(name, storage, imports), number, out=out, device=device, threads=threads)
    print_rows(
        [{"metric": d.metric, "largest difference": d.largest, "epoch": d.epoch} for d in result.differences], "table"
    )
    for sentence in describe_reproduction(result):
        say(sentence)
    return 0 if result.reproduced else 1
