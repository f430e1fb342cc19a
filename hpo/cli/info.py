"""Commands that list what is available and check it: templates, parameters, datasets, doctor."""

from __future__ import annotations

from collections.abc import Sequence

import click

from hpo.cli.options import app, format_option, import_option, join_dataset, storage_option
from hpo.cli.output import print_json, print_rows, say
from hpo.errors import RequestError


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
@click.argument("data", required=False)
@click.option("--label", metavar="COLUMN", help="Column to predict, of which the task is told; several with commas.")
@click.option("--drop", metavar="COLUMN", help="Columns that are no features, with commas.")
@format_option("table", "json")
@import_option
def datasets(data: str | None, label: str | None, drop: str | None, style: str, imports: Sequence[str]) -> None:
    """List the data sets, or say what DATA holds: a file of a table or of arrays, a folder of images, sklearn:NAME.

    Of data sets: shape, classes, sizes, path and checksum. Of a table, for each column: what it is used as, missing and
    different values, range, and what is odd about it. With a label: the task and why, the classes or targets, what is
    held out, and what is wrong with the data.
    """
    from hpo.config import registry

    registry.import_modules(imports)
    if data is not None:
        _describe_data(join_dataset(data, {"label": label, "drop": drop}), style)
        return
    if label or drop:
        raise RequestError("--label and --drop are about a file; name it: hpo datasets FILE --label NAME")
    from dataclasses import asdict

    from hpo.datasets import describe

    print_rows([asdict(row) for row in describe()], style)


def _describe_data(data: object, style: str) -> None:
    from dataclasses import asdict

    from hpo.datasets.description import describe_source
    from hpo.datasets.source import parse_source

    name, source = parse_source(data)
    description = describe_source(name, source)
    if style == "json":
        print_json(asdict(description))
        return
    say(f"{name}: {description.summary}")
    columns = [{key: value for key, value in column.items() if key != "note"} for column in description.columns]
    for rows in (columns, description.outputs, description.samples):
        print_rows(rows, style)
    for note in [*description.list_remarks(), *description.notes]:
        say(f"note: {note}")


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
