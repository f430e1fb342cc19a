"""Command that imports sweeps of other tools: import-sweep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from hpo.cli.options import app, import_option
from hpo.cli.output import say


@app.command("import-sweep")
@click.argument("sweep", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The study file; by default it is printed.")
@click.option(
    "--rename",
    "renames",
    multiple=True,
    metavar="THEIRS=OURS",
    help="Our name of their parameter or metric, or of a value, as optimizer.Lion=adamw; may be repeated.",
)
@import_option
def import_sweep(sweep: Path, out: Path | None, renames: Sequence[str], imports: Sequence[str]) -> None:
    """Convert SWEEP, a Weights & Biases sweep file, to a study file. Settings without an equivalent are listed.

    Example: hpo import-sweep sweep.yaml -o study.toml --rename fc_size=width
    """
    from hpo.config import registry
    from hpo.study.input.wandb_sweep import import_sweep as read
    from hpo.study.input.wandb_sweep import write_study

    registry.import_modules(imports)
    imported = read(sweep, renames)
    for note in imported.notes:
        say(f"note: {note}")
    if out is None:
        click.echo(imported.toml(sweep.name), nl=False)
        return
    write_study(imported, sweep, out)
    say(f"look at it with:  hpo launch {'' if out.parent.parts else './'}{out} --dry-run")
