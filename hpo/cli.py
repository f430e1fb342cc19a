"""The command line: translates words into calls and decides nothing.

Only what `--help` needs is imported here; each command imports what it calls, so that the light ones stay light.
"""

from __future__ import annotations

import logging
import math
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hpo.console import print_json, print_rows, print_tree, program, say, size_in_words
from hpo.errors import HpoError, RequestError, RunError

if TYPE_CHECKING:
    from hpo.launching import Plan
    from hpo.study import Study, StudyStorage

Command = TypeVar("Command", bound=Callable[..., Any])

storage_option = click.option(
    "--storage",
    envvar="OPTUNA_STORAGE",
    metavar="URL",
    help="Database URL; by default the SQLite file in HPO_HOME (./hpo_runs).",
)
import_option = click.option(
    "--import",
    "imports",
    envvar="HPO_IMPORT",
    multiple=True,
    metavar="MODULE",
    help="A module that registers your models, data sets or metrics; may be repeated.",
)


def _device(_context: click.Context, _option: click.Parameter, name: str) -> str:
    """Refuse what can be no device before a study is made for it; whether it is there, its worker finds out."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise click.BadParameter(f"{name!r} is none of auto, cpu, cuda, cuda:N")
    return name


device_option = click.option(
    "--device", default="auto", show_default=True, callback=_device, help="auto, cpu, cuda or cuda:N."
)
set_option = click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="NAME=VALUE",
    help="Override a parameter: a value, or a domain in TOML; may be repeated.",
)


def _finite(_context: click.Context, _option: click.Parameter, value: float) -> float:
    if not math.isfinite(value):
        raise click.BadParameter(f"{value} is no number of seconds")
    return value


checkpoint_option = click.option(
    "--checkpoint-every",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    callback=_finite,
    help="Seconds between checkpoints of a trial; 0 writes one after each epoch.",
)
lease_option = click.option(
    "--lease",
    type=click.FloatRange(min=1),
    default=60.0,
    show_default=True,
    callback=_finite,
    help="Seconds for which a trial stays a worker's without a sign of life; then another takes it over.",
)


def _cohort(_context: click.Context, _option: click.Parameter, value: str) -> int | None:
    if value != "auto" and not (value.isascii() and value.isdigit() and int(value) >= 1):
        raise click.BadParameter(f"{value!r} is neither auto nor a number of trials from 1")
    return None if value == "auto" else int(value)


cohort_option = click.option(
    "--cohort",
    metavar="auto|K",
    default="auto",
    show_default=True,
    callback=_cohort,
    help="How many trials a worker trains at the same time, at most; 1 trains one by one. auto: as many as its device "
    "trains well, of an adaptive sampler's up to 8.",
)


def format_option(*formats: str) -> Callable[[Command], Command]:
    """`--format`, the first one being the default."""
    return click.option(
        "--format", "style", type=click.Choice(formats), default=formats[0], show_default=True, help="How to print."
    )


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--debug", is_flag=True, help="Show the traceback of an error; may stand anywhere.")
def app(debug: bool) -> None:
    """Hyperparameter optimization for PyTorch: launch studies, attach workers, read reports."""


# Launching and working.


@app.command()
@click.argument("study")
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    help="Worker processes on this machine; by default the number of cores; 0 creates the study and starts none.",
)
@click.option("--trials", type=int, help="The budget: exactly this many trials in all; a larger one extends a study.")
@click.option("--timeout", help='No trial is begun after this much time: "2h", "15m", "90".')
@click.option("--target", type=float, help="End the study once the objective reaches this value.")
@click.option("--name", help="Name of the study; by default the file's stem.")
@click.option("--dataset", help="Data set instead of the file's: a name, or the path of an .npz file.")
@click.option("--objective", help="Metric instead of the file's.")
@click.option("--sampler", help="Sampler instead of the file's.")
@click.option("--pruner", help="Pruner instead of the file's.")
@click.option("--seed", type=int, help="Seed instead of the file's.")
@set_option
@click.option(
    "--dry-run", is_flag=True, help="Show the parameters, their domains and a few configurations; create nothing."
)
@click.option("--report", "report", is_flag=True, help="Write the report when the study has ended.")
@cohort_option
@checkpoint_option
@lease_option
@device_option
@import_option
@storage_option
def launch(
    study: str,
    workers: int | None,
    storage: str | None,
    device: str,
    imports: Sequence[str],
    sets: Sequence[str],
    dry_run: bool,
    report: bool,
    cohort: int | None,
    checkpoint_every: float,
    lease: float,
    **keys: Any,
) -> int:
    """Launch STUDY, a template's name or a .toml file, or go on with the study of that name.

    Example: hpo launch mnist_mlp --workers 4 --trials 100 --set epochs=10
    """
    from hpo.backends.options import WorkerOptions
    from hpo.home import cores, folder
    from hpo.launching import run
    from hpo.signals import StopRequest

    planned = _plan(study, storage, imports, sets, keys)
    if dry_run:
        from hpo.study.preview import preview

        click.echo(preview(planned.name, planned.definition, planned.budget))
        _say_price(planned, storage, workers, device)
        return 0
    logs = folder("logs", planned.name)
    for notice in planned.definition.space.notices():
        say(f"note: {notice}")
    _say_price(planned, storage, workers, device)  # while there is no study yet whose definition stands
    found = planned.create(storage)
    with StopRequest(within=20) as stop:  # the workers take half of it
        if found.left() and workers != 0:
            found.start_clock()
            say(f"study {found.name} in {found.storage.masked_url}; logs in {logs}")
            try:
                started = WorkerOptions(workers or cores(), device, imports, checkpoint_every, lease, DEBUG, cohort)
                run(found, started, stop)
            except RunError:
                _say_state(found)  # the workers that did not fail may have done all there is
                raise
    _say_state(found)
    paths = _write_report(found, None) if report and not stop() else None
    _print_ending(found, paths, imports)
    return stop.exit_code


@app.command()
@click.argument("name")
@click.option(
    "--threads", type=click.IntRange(min=1), help="Threads of torch; by default this worker's share of the cores."
)
@cohort_option
@checkpoint_option
@lease_option
@device_option
@import_option
@storage_option
def worker(
    name: str,
    storage: str | None,
    threads: int | None,
    cohort: int | None,
    checkpoint_every: float,
    lease: float,
    device: str,
    imports: Sequence[str],
) -> int:
    """Attach a worker to the study NAME: it trains trials until nothing is left to begin.

    Example: hpo worker mnist_mlp --storage postgresql://me@db/studies
    """
    from hpo.signals import StopRequest

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    logging.getLogger("alembic").setLevel(logging.WARNING)  # Optuna's; it tells of its plugins
    with StopRequest(within=10) as stop:  # before torch is imported: a stop may come at any time
        study = _study(name, storage, imports)
        from hpo.worker import Worker, share_of_cores

        attached = Worker(study, device, threads or share_of_cores(study), stop, checkpoint_every, lease, cohort)
        try:
            attached.run()
        except RunError as error:
            if not stop():
                raise
            say(f"hpo: {error}")  # on the way out, as it was asked
    return stop.exit_code


@app.command()
@set_option
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="A configuration file, as hpo export writes it."
)
@click.option("--dataset", help="A name, or the path of an .npz file; by default mnist.")
@click.option("--objective", help="The metric whose best epoch is kept; by default val_accuracy.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for configuration, metrics, events and weights; by default a new one in HPO_HOME.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads of torch; by default all cores.")
@click.option("--test", is_flag=True, help="Read the test set, once, at the end.")
@device_option
@import_option
def train(
    sets: Sequence[str],
    config_file: Path | None,
    dataset: str | None,
    objective: str | None,
    out: Path | None,
    threads: int | None,
    test: bool,
    device: str,
    imports: Sequence[str],
) -> int:
    """Train one configuration, without a study.

    Example: hpo train --set optimizer=momentum --set learning_rate=0.01 --set epochs=2 --out run1
    """
    from hpo import registry
    from hpo.home import cores, folder
    from hpo.signals import StopRequest
    from hpo.study.config_file import read_config
    from hpo.study.file import override

    registry.import_modules(imports)
    overrides = dict(override(text) for text in sets)
    given = read_config(config_file, overrides, dataset, objective)
    for note in given.notes:
        say(f"note: {note}")
    from hpo.training import job  # torch, once the request is known to be right

    out = out or folder("train") / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    with StopRequest() as stop:
        result = job.run(
            given.config,
            given.dataset,
            out,
            monitor=given.objective.metric,
            direction=given.objective.direction,
            metrics=[registry.metrics.get(given.objective.metric)],
            device=device,
            threads=threads or cores(),
            test=test,
            should_stop=stop,
        )
    outcome = result.outcome
    if outcome.status == "diverged":
        epochs = len(outcome.history)
        raise RunError(
            f"diverged in epoch {epochs}: a loss is not finite; lower learning_rate (metrics in {result.out})"
        )
    if outcome.status == "interrupted":
        say(f"interrupted after {len(outcome.history)} of {given.config.epochs} epochs")
    if (best := outcome.best) is not None:
        click.echo(
            f"best epoch {outcome.best_epoch}: val_accuracy {best['val_accuracy']:.4f}, val_loss {best['val_loss']:.4f}"
        )
    if result.test_accuracy is not None:
        click.echo(f"test_accuracy {result.test_accuracy:.4f}")
    click.echo(f"written to {result.out}")
    return stop.exit_code


# Reading.


@app.command("list")
@format_option("table", "json")
@storage_option
def list_(style: str, storage: str | None) -> None:
    """List the studies of a storage."""
    from hpo.errors import StorageMissingError
    from hpo.home import default_storage
    from hpo.study.listing import listing

    try:
        rows = listing(storage or default_storage())
    except StorageMissingError:
        if storage:
            raise
        rows = []  # nobody has launched anything here yet
    if not rows:
        say(f"no studies in {_masked(storage)}; launch one with: {program()} launch quickstart")
    print_rows(rows, style)


@app.command()
@click.argument("name")
@format_option("table", "json")
@import_option
@storage_option
def show(name: str, style: str, storage: str | None, imports: Sequence[str]) -> None:
    """Show a study: definition, budget, trials by state, failures, best configuration, workers."""
    from hpo.report.results import read_results
    from hpo.report.results import show as summary
    from hpo.study.keeping import weights_here
    from hpo.study.workers import in_short

    study = _study(name, storage, imports)
    results = read_results(study)
    shown = summary(results)
    shown["weights"] = [{"trial": number, "path": str(path)} for number, path in weights_here(study).items()]
    if style == "json":
        print_json(shown)
        return
    from hpo.study.preview import preview

    click.echo(preview(study.name, study.definition, study.budget, samples=0))
    click.echo()
    workers = [{**row, "trials": in_short(row["trials"])} for row in shown["workers"]]
    tables = {"workers": workers, "failed": shown["failed"]}
    shown["work"] = results.work.text if results.work else None
    print_tree({key: value for key, value in shown.items() if key not in ("name", "definition", "objectives", *tables)})
    for title, rows in tables.items():
        if rows:
            click.echo(f"\n{title}:")
            print_rows(rows, "table")
    if shown["unattended"]:
        click.echo(f"\n{_unattended(study, imports)}")


@app.command()
@click.argument("name")
@format_option("table", "json", "csv")
@import_option
@storage_option
def trials(name: str, style: str, storage: str | None, imports: Sequence[str]) -> None:
    """List the trials of a study."""
    from hpo.report.results import read_results, trial_table

    print_rows(trial_table(read_results(_study(name, storage, imports))), style)


@app.command()
@click.argument("name")
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="Seconds to wait until all have stopped; 0 only asks.",
)
@storage_option
def stop(name: str, wait: float, storage: str | None) -> int:
    """Ask all workers of a study, on all machines, to checkpoint, give their trials back, and end.

    hpo launch NAME goes on where they stopped.
    """
    from hpo.study.workers import stop_workers

    study = _found(name, storage)
    asked, left = stop_workers(study, wait)
    say(f"study {name}: {asked} workers were asked to stop" if asked else f"study {name}: no worker lives")
    for worker in left if wait else ():
        say(f"{worker.name} on {worker.host} has not stopped yet; last heard of {worker.seen:.0f} s ago")
    return 1 if left and wait else 0


@app.command()
@click.argument("name")
@click.option("--trial", "numbers", type=int, multiple=True, help="Only that trial; may be repeated.")
@storage_option
def retry(name: str, numbers: Sequence[int], storage: str | None) -> None:
    """Put the failed trials of a study back, each under its own number and with its own parameters.

    Their reports are cleared; the next worker trains them again. Trials that diverged or were out of memory are PRUNED,
    and stay so.
    """
    study = _found(name, storage)
    again = study.retry(numbers or None)
    say(f"study {name}: {len(again)} trials wait again{': ' if again else ''}{', '.join(map(str, again))}")
    if again:
        say(f"run: {_command('launch', study)}")


@app.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@storage_option
def delete(name: str, yes: bool, storage: str | None) -> None:
    """Delete a study and all its trials, and its checkpoints and weights in HPO_HOME. Logs and reports stay."""
    from hpo.study.sweeping import folders_of, remove

    study = _found(name, storage)
    count = len(study.trials())
    if not yes:
        if not sys.stdin.isatty():
            raise RequestError(f"delete {name}: {count} trials would be lost; say so with --yes")
        click.confirm(f"Delete study {name} with {count} trials from {study.storage.masked_url}?", abort=True, err=True)
    folders = folders_of(study)
    study.storage.delete_study(study.id)
    for each in folders:
        remove(each.path)
    say(f"study {name} deleted: {count} trials, {size_in_words(sum(each.size for each in folders))} freed on disk")


@app.command()
@click.argument("name", required=False)
@click.option("--dry-run", is_flag=True, help="Print what would be removed; remove nothing.")
@click.option("--unknown", is_flag=True, help="Remove also folders that do not say which study they belong to.")
@format_option("table", "json")
@storage_option
def gc(name: str | None, dry_run: bool, unknown: bool, style: str, storage: str | None) -> None:
    """Remove from HPO_HOME what no trial of the storage needs any more, or of the study NAME alone.

    That is: checkpoints of finished trials, files that killed writers left, weights of trials that are not among the
    five best, and all checkpoints and weights of deleted studies. Logs, reports and what belongs to studies of another
    storage stay.
    """
    from hpo.study.sweeping import leftovers, remove

    found = leftovers(_opened(storage), name, unknown=unknown)
    gone = [each for each in found if not each.stays]
    if not dry_run:
        for each in gone:
            remove(each.path)
    done = "to remove" if dry_run else "removed"
    rows = [{"what": "stays" if e.stays else done, "size": e.size, "why": e.why, "path": str(e.path)} for e in found]
    if style == "table":
        rows = [{**row, "size": size_in_words(each.size)} for row, each in zip(rows, found, strict=True)]
    print_rows(rows, style)
    say(f"{done}: {size_in_words(sum(each.size for each in gone))}")
    if any(each.stays for each in found):
        say("note: of what stays, --unknown removes the folders that do not say whose they are")


@app.command()
@click.argument("name")
@click.option("--to", "target", required=True, metavar="URL", help="The database to copy to.")
@click.option("--as", "new_name", metavar="NEWNAME", help="The name there; by default the same.")
@storage_option
def copy(name: str, target: str, new_name: str | None, storage: str | None) -> None:
    """Copy the study NAME into another database, with all its trials; workers there go on with it.

    A trial in training arrives as waiting, and begins anew there; here it goes on.

    Example: hpo copy mine --to postgresql://me@host/studies
    """
    from hpo.study import StudyStorage
    from hpo.study.copying import copy_study

    study = _found(name, storage)
    copied = copy_study(study, StudyStorage(target), new_name or name)
    masked = copied.storage.masked_url
    say(f"study {copied.name} is in {masked} now: {sum(copied.storage.count_trials(copied.id).values())} trials")
    say(f"go on with it:  {program()} launch {shlex.quote(copied.name)} --storage {shlex.quote(masked)}")


@app.command()
@click.argument("name")
@click.option("--out", type=click.Path(path_type=Path), help="Folder; by default reports/NAME in HPO_HOME.")
@import_option
@storage_option
def report(name: str, out: Path | None, storage: str | None, imports: Sequence[str]) -> None:
    """Write the report of a study: report.html, report.md, report.json and best_config.toml.

    Example: hpo report quickstart --out my_report
    """
    paths = _write_report(_study(name, storage, imports), out)
    click.echo(str(paths.html))


@app.command()
@click.argument("name")
@click.option("--trial", "number", type=int, help="That trial's configuration instead of the best one's.")
@format_option("toml", "json", "yaml")
@import_option
@storage_option
def export(name: str, number: int | None, style: str, storage: str | None, imports: Sequence[str]) -> None:
    """Print the best configuration of a study, as hpo train --config reads it."""
    from hpo.report.export import export_config

    click.echo(export_config(_study(name, storage, imports), number, style), nl=False)


@app.command()
@click.argument("name", required=False)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8080, show_default=True, help="Port to listen on.")
@click.option(
    "--allow-remote", is_flag=True, help="Listen on an address that others reach, although the dashboard has no login."
)
@storage_option
def dashboard(name: str | None, host: str, port: int, allow_remote: bool, storage: str | None) -> int:
    """Serve optuna-dashboard on the storage, until Ctrl-C."""
    from hpo.dashboard import serve

    study = _found(name, storage) if name else None
    return serve(
        study.storage if study else _opened(storage),
        host=host,
        port=port,
        study=study,
        allow_remote=allow_remote,
    )


@app.command()
@click.argument("name", required=False)
def templates(name: str | None) -> None:
    """List the ready-made studies and spaces, or print the one called NAME, to copy."""
    from hpo import templates as shipped

    if name:
        click.echo(shipped.find_any(name).read_text(encoding="utf-8"), nl=False)
        return
    print_rows([{"kind": kind, "name": template, "what": what} for kind, template, what in shipped.listing()], "table")


@app.command()
@click.option("--model", help="Only the parameters that may have an effect under this model.")
@format_option("table", "json")
@import_option
def parameters(model: str | None, style: str, imports: Sequence[str]) -> None:
    """List every parameter: type, default, bounds, when it has an effect, help."""
    from hpo import registry
    from hpo.config import described

    registry.import_modules(imports)
    print_rows(described(model), style)


@app.command()
@format_option("table", "json")
@import_option
def datasets(style: str, imports: Sequence[str]) -> None:
    """List the data sets: shape, classes, sizes, path and checksum."""
    from dataclasses import asdict

    from hpo import registry
    from hpo.datasets import describe

    registry.import_modules(imports)
    print_rows([asdict(row) for row in describe()], style)


@app.command()
@click.option("--recipe", is_flag=True, help="Print how to run a PostgreSQL of your own, without root; check nothing.")
@format_option("table", "json")
@storage_option
def doctor(recipe: bool, style: str, storage: str | None) -> int:
    """Check Python, torch, CUDA, the storage, the data sets and the disk, and say what to do.

    Nothing is altered. The exit code is 1 if there is a problem; a warning is none.
    """
    from hpo import doctor as checks

    if recipe:
        click.echo(checks.recipe(), nl=False)
        return 0
    from dataclasses import asdict

    from hpo.home import default_storage

    findings = checks.examine(storage or default_storage())
    print_rows([asdict(finding) for finding in findings], style)
    return int(any(finding.state == "problem" for finding in findings))


# From words to objects.


def _opened(storage: str | None) -> StudyStorage:
    from hpo.home import default_storage
    from hpo.study import StudyStorage

    return StudyStorage(storage or default_storage(), create=False)


def _masked(storage: str | None) -> str:
    from hpo.home import default_storage
    from hpo.study.opening import mask

    return mask(storage or default_storage())


def _found(name: str, storage: str | None) -> Study:
    """The study, whatever its definition needs."""
    from hpo.study import Study

    return Study(_opened(storage), name)


def _study(name: str, storage: str | None, imports: Sequence[str]) -> Study:
    """The study, with everything registered that its definition names."""
    from hpo import registry

    study = _found(name, storage)
    registry.import_modules(imports)
    study.definition.check_registered()
    return study


def _plan(study: str, storage: str | None, imports: Sequence[str], sets: Sequence[str], keys: dict[str, Any]) -> Plan:
    from hpo.launching import plan
    from hpo.study.file import override

    return plan(study, storage, imports=imports, parameters=dict(override(text) for text in sets), **keys)


def _write_report(study: Study, out: Path | None) -> Any:
    from hpo.home import folder
    from hpo.report import write_report

    return write_report(study, out or folder("reports", study.name))


# What is printed.


def _unattended(study: Study, imports: Sequence[str]) -> str:
    why = f"it has ended, {ended}" if (ended := study.ended()) else "no live worker"
    return f"{study.left()} trials left, {why}; run: {_command('launch', study, imports)}"


def _command(command: str, study: Study, imports: Sequence[str] = ()) -> str:
    """A command on the study, to be typed as it stands."""
    modules = "".join(f" --import {shlex.quote(module)}" for module in imports)
    name, storage = shlex.quote(study.name), shlex.quote(study.storage.masked_url)
    return f"{program()} {command} {name} --storage {storage}{modules}"


def _say_state(study: Study) -> None:
    left, trials = study.left(), study.budget.trials
    if left == 0:
        say(f"study {study.name} is complete: {trials} trials")
    elif why := study.ended():
        say(f"study {study.name} has ended, {why}: {left} of {trials} trials are left")
    else:
        say(f"study {study.name}: {left} of {trials} trials are left")


def _say_price(planned: Plan, storage: str | None, workers: int | None, device: str) -> None:
    from hpo.home import cores
    from hpo.pricing import price_notice

    notice = price_notice(planned, storage, max(1, cores() // (workers or cores())), device)
    if notice is not None:
        say(f"note: {notice}")


def _print_ending(study: Study, paths: Any, imports: Sequence[str]) -> None:
    """The best configuration, the report's path, and what to type next."""
    from hpo.report.export import export_config

    best, objectives = study.best(), study.definition.objectives
    if best is not None:
        which = "best" if len(objectives) == 1 else f"of {len(objectives)} objectives, best by the first:"
        click.echo(f"\n{which} {objectives[0].metric} {best.values[0]:.4g}, trial {best.number}:\n")
        click.echo(export_config(study, best.number, "toml"))
    if paths is not None:
        click.echo(f"report:            {paths.html}")
    else:
        click.echo(f"write the report:  {_command('report', study, imports)}")
    click.echo(f"open a dashboard:  {_command('dashboard', study)}")
    click.echo(f"attach a worker:   {_command('worker', study, imports)}")


# The way in and out.

DEBUG = False


def main(arguments: Iterable[str] | None = None) -> None:
    """Run a command; every error is one line and an exit code."""
    global DEBUG
    given = list(sys.argv[1:] if arguments is None else arguments)
    DEBUG = "--debug" in given
    try:
        code = app.main(
            [argument for argument in given if argument != "--debug"], prog_name="hpo", standalone_mode=False
        )
    except (HpoError, click.ClickException) as error:
        if DEBUG:
            raise
        message = error.format_message() if isinstance(error, click.ClickException) else str(error)
        say(f"hpo: {' '.join(message.split())}")
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read our output has read enough; the interpreter's own flush must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if DEBUG:
            raise
        say(f"hpo: unexpected {type(error).__name__}: {' '.join(str(error).split())[:500]} (--debug shows where)")
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)
