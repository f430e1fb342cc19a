"""Commands that import searches of other tools: import, and import-sweep, its older name."""

from __future__ import annotations

import copy
import shlex
from collections.abc import Sequence
from pathlib import Path

import click

from hpo.cli.options import app, dataset_options, import_option, set_option
from hpo.cli.output import say
from hpo.errors import ImportRefusedError, RequestError


@app.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The study file; by default it is printed.")
@click.option(
    "--loop",
    type=click.Path(path_type=Path),
    help="Write a Python file with all parameters, whatever they mean, and a training loop to fill in; the study trains"
    " that.",
)
@click.option(
    "--rename",
    "renames",
    multiple=True,
    metavar="THEIRS=OURS",
    help="Our name of their parameter or metric, or of a value, as optimizer.LAMB=adamw; may be repeated.",
)
@click.option(
    "--leave-out",
    "left_out",
    multiple=True,
    metavar="THEIRS",
    help="Parameter of theirs that the study does without; may be repeated.",
)
@set_option
@dataset_options
@import_option
def import_search(
    file: Path,
    out: Path | None,
    loop: Path | None,
    renames: Sequence[str],
    left_out: Sequence[str],
    sets: Sequence[str],
    dataset: object,
    imports: Sequence[str],
) -> None:
    """Make a study file of FILE, the search of another tool, which its content shows: a Weights & Biases sweep
    (YAML, JSON or Python); a search space of Ray Tune or an objective function of Optuna (Python, which is not run); a
    configuration of Hydra with a sweeper; hyperparameters of KerasTuner (JSON); an experiment of Katib or NNI, or a
    search space of NNI.

    What has another name here is printed as THEIRS -> OURS. A file that no study of our models can be is refused with
    all that is against it; with --loop nothing is lost.

    Example: hpo import sweep.yaml -o study.toml --dataset mnist --rename fc_size=width

    Example: hpo import sweep.yaml -o study.toml --loop sweep_loop.py
    """
    from hpo.config import registry
    from hpo.study.foreign.import_study import import_study
    from hpo.study.foreign.imported import ImportOptions, locate_data, write_files
    from hpo.study.foreign.loop_file import import_loop
    from hpo.study.input.study_file import parse_override

    registry.import_modules(imports)
    options = ImportOptions(
        renames=_parse_renames(renames),
        left_out=left_out,
        sets=dict(parse_override(text) for text in sets),
        dataset=locate_data(dataset, out),
        out=out,
    )
    try:
        study = import_study(file, options) if loop is None else import_loop(file, loop, options)
    except ImportRefusedError as error:
        for line in error.lines:
            say(line)
        raise
    for line in (*study.mappings, *(f"note: {note}" for note in study.notes)):
        say(line)
    say(study.describe_share())
    text = study.toml(file.name)
    write_files({path: content for path, content in ((loop, study.loop), (out, text)) if path is not None})
    if out is None:
        click.echo(text, nl=False)
    else:
        where = "" if out.parent.parts else "./"
        command = f"hpo launch {shlex.quote(f'{where}{out}')}"
        if loop is None:
            say(f"look at it with:  {command} --dry-run")
        else:
            say(f"write the training in {loop}, and launch it with:  {command} --import {shlex.quote(_module(loop))}")


def _module(loop: Path) -> str:
    """Return a loop's file as --import takes it."""
    return loop.stem if loop.parent == Path() else str(loop)


def _parse_renames(texts: Sequence[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    for theirs, equals, ours in pairs:
        if not (equals and theirs and ours):
            raise RequestError(f"--rename {theirs}: write theirs=ours, as --rename lr=learning_rate")
    return {theirs.strip(): ours.strip() for theirs, _, ours in pairs}


sweep_command = copy.copy(import_search)
sweep_command.name = "import-sweep"
sweep_command.help = "Make a study file of FILE: the older name of hpo import."
app.add_command(sweep_command)
