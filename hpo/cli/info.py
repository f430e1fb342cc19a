"""Commands that list what is available and check it: templates, parameters, datasets, doctor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from hpo.cli.options import app, format_option, import_option, storage_option
from hpo.cli.output import print_json, print_rows, say
from hpo.errors import RequestError
from hpo.utils.text import quantity


@app.command()
@click.argument("name", required=False)
def templates(name: str | None) -> None:
    """List the ready-made studies and spaces, or print the one called NAME, to copy."""
    from hpo.study.input import templates as shipped

    if name:
        click.echo(shipped.find_any_template(name).read_text(encoding="utf-8"), nl=False)
        return
    print_rows(
        [{"kind": kind, "name": template, "what": what} for kind, template, what in shipped.list_templates()], "table"
    )


@app.command()
@click.option("--model", help="Only the parameters that may have an effect with this model.")
@format_option("table", "json")
@import_option
def parameters(model: str | None, style: str, imports: Sequence[str]) -> None:
    """List every parameter: type, default, bounds, the condition under which it has an effect, help."""
    from hpo.config import registry
    from hpo.config.trial_config import parameter_rows

    registry.import_modules(imports)
    print_rows(parameter_rows(model), style)


@app.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--label", multiple=True, help="A column of FILE to predict, of which the task is told; repeatable.")
@click.option("--drop", multiple=True, help="A column of FILE that is left out; repeatable.")
@format_option("table", "json")
@import_option
def datasets(
    file: Path | None, label: tuple[str, ...], drop: tuple[str, ...], style: str, imports: Sequence[str]
) -> None:
    """List the data sets, or say what the table in FILE holds: CSV, TSV, Parquet, Feather, Arrow or JSON lines.

    Of data sets: shape, classes, sizes, path and checksum. Of a table, for each column: what it is used as, missing and
    different values, range, and what is odd about it; and with --label the task, the classes, and what is held out.
    """
    from dataclasses import asdict

    from hpo.config import registry

    registry.import_modules(imports)
    if file is not None:
        _describe_table(file, label, drop, style)
        return
    if label or drop:
        raise RequestError("--label and --drop are about a file; name it: hpo datasets FILE --label NAME")
    from hpo.datasets import describe

    print_rows([asdict(row) for row in describe()], style)


def _describe_table(file: Path, label: tuple[str, ...], drop: tuple[str, ...], style: str) -> None:
    from dataclasses import asdict

    from hpo.datasets.source import DatasetSource
    from hpo.datasets.table_description import describe_table
    from hpo.datasets.table_file import TABLE_SUFFIXES, is_table

    if not is_table(file):
        raise RequestError(f"{file}: is no table by its name, which must end in {', '.join(TABLE_SUFFIXES)}")
    description = describe_table(file, DatasetSource(label=label, drop=drop))
    if style == "json":
        print_json(asdict(description))
        return
    say(f"{file}: {description.rows:,} rows, {quantity(len(description.columns), 'column')}")
    print_rows([asdict(column) for column in description.columns], style)
    for note in description.notes:
        say(note)
    print_rows(description.outputs, style)


@app.command()
@click.option("--recipe", is_flag=True, help="Print how to run your own PostgreSQL without root; check nothing.")
@format_option("table", "json")
@storage_option
def doctor(recipe: bool, style: str, storage: str | None) -> int:
    """Check Python, torch, CUDA, the storage, the data sets and the disk, and advise on what to do.

    Nothing is changed. The exit code is 1 if there is a problem; a warning is not a problem.
    """
    from hpo.execution import doctor as checks

    if recipe:
        click.echo(checks.read_recipe(), nl=False)
        return 0
    from dataclasses import asdict

    from hpo.utils.home import default_storage

    results = checks.run_checks(storage or default_storage())
    print_rows([asdict(result) for result in results], style)
    return int(any(result.state == "problem" for result in results))
