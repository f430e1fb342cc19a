"""Commands that read studies: list, show, trials, report, export, dashboard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from hpo.cli.lookup import format_command_line, load_runnable_study, load_study, mask_urls, open_storage
from hpo.cli.options import app, format_option, import_option, storage_option
from hpo.cli.output import print_json, print_rows, print_tree, program, say
from hpo.utils.text import quantity

if TYPE_CHECKING:
    from hpo.study import Study


@app.command("list")
@format_option("table", "json")
@storage_option
def list_(style: str, storage: str | None) -> None:
    """List the studies of a storage."""
    from hpo.errors import StorageMissingError
    from hpo.study.operations.list_studies import list_studies
    from hpo.utils.home import default_storage

    try:
        rows = list_studies(storage or default_storage())
    except StorageMissingError:
        if storage:
            raise
        rows = []  # nothing has been launched here yet
    if not rows:
        say(f"no studies in {mask_urls(storage)}; launch one with: {program()} launch quickstart")
    print_rows(rows, style)


@app.command()
@click.argument("name")
@format_option("table", "json")
@import_option
@storage_option
def show(name: str, style: str, storage: str | None, imports: Sequence[str]) -> None:
    """Show a study: definition, budget, trials by state, failures, best configuration, workers."""
    from hpo.report.data.corrected_score import describe_correction
    from hpo.report.data.summary import study_summary
    from hpo.report.data.trial_table import shown_front
    from hpo.report.stats.selection import read_corrected_results
    from hpo.study.files.study_files import list_local_weights
    from hpo.study.operations.stack_notes import describe_stacks, read_stack_notes
    from hpo.study.operations.worker_status import format_trial_numbers

    study = load_study(name, storage, imports)
    results = read_corrected_results(study)
    summary = study_summary(results)
    summary["weights"] = [{"trial": number, "path": str(path)} for number, path in list_local_weights(study).items()]
    notes = read_stack_notes(study)
    if style == "json":
        print_json({**summary, "models": [note.model_dump(mode="json") for note in notes]})
        return
    from hpo.space import ExtendedSpace
    from hpo.study.input.preview import format_learned_preview, format_preview

    if study.definition.learned:
        click.echo(format_learned_preview(study.name, study.definition, study.budget, results.space))
    else:
        asked = results.space.asked if isinstance(results.space, ExtendedSpace) else ()
        click.echo(format_preview(study.name, study.definition, study.budget, samples=0, asked=asked))
    click.echo()
    workers = [{**row, "trials": format_trial_numbers(row["trials"])} for row in summary["workers"]]
    front = shown_front(results) if summary["front"] else []
    tables = {"front": front, "workers": workers, "failed": summary["failed"]}
    summary["corrected"] = describe_correction(results.corrected) if results.corrected else None
    summary["work"] = results.work.text if results.work else None
    if notes:
        summary["models"] = describe_stacks(notes)
    if not study.definition.configured and summary["best"]:
        summary["best"]["steps"] = summary["best"].pop("epochs_done")
    if summary["best"] and summary["baseline"] and summary["best"]["number"] == summary["baseline"]["number"]:
        summary["baseline"] = f"trial {summary['best']['number']}, the best"
    print_tree(
        {key: value for key, value in summary.items() if key not in ("name", "definition", "objectives", *tables)}
    )
    for title, rows in tables.items():
        if rows:
            click.echo(f"\n{title}:")
            print_rows(rows, "table")
    if summary["unattended"]:
        click.echo(f"\n{_unattended(study, imports)}")


@app.command()
@click.argument("name")
@format_option("table", "json", "csv")
@import_option
@storage_option
def trials(name: str, style: str, storage: str | None, imports: Sequence[str]) -> None:
    """List the trials of a study."""
    from hpo.report.data.results import read_results
    from hpo.report.data.trial_table import shown_trials, trial_table

    results = read_results(load_study(name, storage, imports))
    rows = shown_trials(results) if style == "table" else trial_table(results)
    if not rows:
        say(f"study {name} has no trials yet")
    print_rows(rows, style)


@app.command()
@click.argument("name")
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write to; by default reports/NAME in HPO_HOME.")
@click.option(
    "--suggest",
    type=click.Path(path_type=Path),
    help="Write a file for the next study to this path, instead of a report.",
)
@click.option(
    "--show-data",
    is_flag=True,
    help="Show rows of your own data: the worst predictions as they stand in the file, points, and images.",
)
@import_option
@storage_option
def report(
    name: str, out: Path | None, suggest: Path | None, show_data: bool, storage: str | None, imports: Sequence[str]
) -> None:
    """Write the report of a study: HTML, Markdown with figures, JSON, the best configuration and the study file.

    Example: hpo report quickstart --out my_report
    """
    if suggest is not None:
        from hpo.report.next_study import write_suggestion

        click.echo(write_suggestion(load_study(name, storage, imports), suggest))
        return
    from hpo.report.study_report import write_report

    study = load_study(name, storage, imports)
    if not study.trials():
        say(f"note: study {name} has no trials yet; its report says only what it is")
    click.echo(str(write_report(study, out, show_data=show_data).html))


@app.command()
@click.argument("name")
@click.option("--trial", "number", type=int, help="Export this trial instead of the best one.")
@click.option(
    "--rule",
    type=click.Choice(["best", "one_se", "evaluated"]),
    help="How the trial is chosen: best has the best value; one_se is the cheapest within one standard error of it; "
    "evaluated is the best from fresh seeds, after hpo evaluate. By default best, or one_se where several trials "
    "share the best value.",
)
@click.option(
    "--weights", type=click.Path(path_type=Path), help="Write the trained model to this new folder, for hpo predict."
)
@click.option(
    "--trials",
    "records",
    type=click.Path(path_type=Path),
    help="Write every trial's record to this new folder: comb_N with train.csv, validation.csv, params.json, test.csv.",
)
@format_option("toml", "json", "yaml", "python")
@import_option
@storage_option
def export(
    name: str,
    number: int | None,
    rule: str | None,
    weights: Path | None,
    records: Path | None,
    style: str,
    storage: str | None,
    imports: Sequence[str],
) -> None:
    """Print the best configuration of a study for hpo train --config, or write its trained model, or all trials.

    Example: hpo export quickstart --weights model
    """
    if rule is not None and (number is not None or records is not None):
        _refuse_rule(rule, "--trial names the trial" if number is not None else "--trials writes every trial")
    if records is not None:
        _export_trials(load_study(name, storage, imports), records, number, weights)
        return
    if weights is not None:
        from hpo.export.writer import write_model

        for line in write_model(load_runnable_study(name, storage, imports), weights, number, rule):
            say(f"note: {line}")
        click.echo(str(weights))
        return
    from hpo.report.export_config import export_config

    click.echo(export_config(load_study(name, storage, imports), number, style, rule=rule), nl=False)


def _refuse_rule(rule: str, reason: str) -> NoReturn:
    from hpo.errors import RequestError

    raise RequestError(f"--rule {rule}: {reason}, so there is nothing to choose; leave one of them out")


def _export_trials(study: Study, folder: Path, number: int | None, weights: Path | None) -> None:
    from hpo.errors import RequestError
    from hpo.report.trial_files import export_trials

    if number is not None or weights is not None:
        other = "--weights" if weights is not None else "--trial"
        raise RequestError(
            f"--trials {folder}: writes every trial, so it cannot be combined with {other}; leave one of them out"
        )
    count = export_trials(study, folder)
    say(f"{count} {'trial' if count == 1 else 'trials'} written")
    click.echo(str(folder))


@app.command()
@click.argument("name", required=False)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="Port to listen on.")
@click.option("--writable", is_flag=True, help="Let the dashboard change and delete studies.")
@storage_option
def dashboard(name: str | None, host: str, port: int, writable: bool, storage: str | None) -> int:
    """Serve optuna-dashboard on the storage, read-only, until Ctrl-C.

    A host that other machines can reach requires a token: HPO_DASHBOARD_TOKEN, or a new one that is printed. So does
    --writable where other users can log in to this machine.

    Example: hpo dashboard quickstart --port 8081
    """
    from hpo.report.dashboard.server import serve

    study = load_study(name, storage) if name else None
    return serve(
        study.storage if study else open_storage(storage), host=host, port=port, study=study, writable=writable
    )


def _unattended(study: Study, imports: Sequence[str]) -> str:
    command = format_command_line("launch", study, imports)
    if study.has_settled():
        command += " --until trials"  # or it would end at once again
    why = f"it has ended, {ended}" if (ended := study.stop_reason()) else "no live worker"
    return f"{quantity(study.remaining(), 'trial')} left, {why}; run: {command}"
