"""Commands that change what a storage or HPO_HOME holds: stop, retry, delete, gc, copy, fork."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from hpo.cli.lookup import format_command_line, load_study, open_storage
from hpo.cli.options import app, format_option, import_option, set_option, storage_option
from hpo.cli.output import format_size, print_rows, say
from hpo.errors import RequestError
from hpo.utils.text import quantity

if TYPE_CHECKING:
    from hpo.study.definition import FunctionReference


@app.command()
@click.argument("name")
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="Seconds to wait until all have stopped; 0 does not wait.",
)
@storage_option
def stop(name: str, wait: float, storage: str | None) -> int:
    """Ask all workers of a study, on all machines, to checkpoint, release their trials, and end.

    hpo launch NAME goes on where they stopped.
    """
    from hpo.study.operations.worker_status import stop_workers

    study = load_study(name, storage)
    asked, left = stop_workers(study, wait)
    say(
        f"study {name}: {quantity(asked, 'worker')} {'was' if asked == 1 else 'were'} asked to stop"
        if asked
        else f"study {name}: no worker is alive"
    )
    for worker in left if wait else ():
        say(f"{worker.name} on {worker.host} has not stopped yet; its last sign of life was {worker.seen:.0f} s ago")
    return 1 if left and wait else 0


@app.command()
@click.argument("name")
@click.option("--trial", "numbers", type=int, multiple=True, help="Only this trial; may be repeated.")
@storage_option
def retry(name: str, numbers: Sequence[int], storage: str | None) -> None:
    """Let the failed trials of a study wait again, each under its own number and with its own parameters.

    Their epochs are deleted; the next worker trains them again. Trials that diverged or ran out of memory are PRUNED,
    and stay so.
    """
    study = load_study(name, storage)
    again = study.retry(numbers or None)
    if not again:
        say(f"study {name}: no trial has failed")
        return
    say(
        f"study {name}: {quantity(len(again), 'trial')} {'waits' if len(again) == 1 else 'wait'} again: "
        f"{', '.join(map(str, again))}"
    )
    say(f"run: {format_command_line('launch', study)}")


@app.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@storage_option
def delete(name: str, yes: bool, storage: str | None) -> None:
    """Delete a study with its trials, evaluations and files in HPO_HOME. Logs and reports stay."""
    from hpo.storage.disk_full import DiskFullError
    from hpo.study.files.cleanup import find_study_folders, remove_files
    from hpo.study.operations.nested_study import list_companions

    study = load_study(name, storage)
    studies = [study, *list_companions(study)]
    count = sum(sum(each.storage.count_trials(each.id).values()) for each in studies)
    evaluations = f" and its evaluations ({', '.join(each.name for each in studies[1:])})" if studies[1:] else ""
    if not yes:
        if not sys.stdin.isatty():
            raise RequestError(f"delete {name}: {quantity(count, 'trial')} would be lost; confirm with --yes")
        click.confirm(
            f"Delete study {name}{evaluations} with {quantity(count, 'trial')} from {study.storage.masked_url}?",
            abort=True,
            err=True,
        )
    folders = [folder for each in studies for folder in find_study_folders(each)]
    removable = [folder for folder in folders if not folder.stays]

    def delete_rows() -> None:
        for each in reversed(studies):  # the study last, for it finds the others again should this be interrupted
            study.storage.delete_study(each.id)

    def delete_files() -> None:
        for folder in removable:
            remove_files(folder.path)

    try:
        delete_rows()
        delete_files()
    except DiskFullError:  # the files first, then, which may make room for the database's log
        delete_files()
        delete_rows()
    for folder in folders:
        if folder.stays:
            say(f"note: {folder.path} stays: {folder.why}")
    freed = format_size(sum(folder.size for folder in removable))
    say(f"study {name}{evaluations} deleted: {quantity(count, 'trial')}, {freed} freed on disk")


@app.command()
@click.argument("name", required=False)
@click.option("--dry-run", is_flag=True, help="Print what would be removed; remove nothing.")
@click.option("--unknown", is_flag=True, help="Also remove folders that do not record which study they belong to.")
@format_option("table", "json")
@storage_option
def gc(name: str | None, dry_run: bool, unknown: bool, style: str, storage: str | None) -> None:
    """Remove files from HPO_HOME that no trial of the storage, or of the study NAME, needs any more.

    These are checkpoints of finished trials, files that killed processes left half-written, weights of trials that are
    not among the five best, and all checkpoints and weights of deleted studies. Logs, reports and files of studies in
    another storage stay.
    """
    from hpo.study.files.cleanup import find_unneeded_files, remove_files

    files = find_unneeded_files(open_storage(storage), name, unknown=unknown)
    removable = [each for each in files if not each.stays]
    if not dry_run:
        for each in removable:
            remove_files(each.path)
    done = "to remove" if dry_run else "removed"
    rows = [{"what": "stays" if e.stays else done, "size": e.size, "why": e.why, "path": str(e.path)} for e in files]
    if style == "table":
        rows = [{**row, "size": format_size(each.size)} for row, each in zip(rows, files, strict=True)]
    print_rows(rows, style)
    say(f"{done}: {format_size(sum(each.size for each in removable))}")
    if any(each.stays for each in files):
        say("note: --unknown also removes the folders that do not record which study they belong to")


@app.command()
@click.argument("name")
@click.option("--to", "target", required=True, metavar="URL", help="Database to copy to.")
@click.option("--as", "new_name", metavar="NEWNAME", help="Name of the copy; by default the same.")
@storage_option
def copy(name: str, target: str, new_name: str | None, storage: str | None) -> None:
    """Copy the study NAME to another database, with all its trials; workers there can go on with it.

    A trial that is being trained waits in the copy, and starts from scratch there; here its training goes on.

    Example: hpo copy mine --to postgresql://me@host/studies
    """
    from hpo.study import StudyStorage
    from hpo.study.operations.copy_study import copy_study

    study = load_study(name, storage)
    copied = copy_study(study, StudyStorage(target), new_name or name)
    count = sum(copied.storage.count_trials(copied.id).values())
    say(f"study {copied.name} is now in {copied.storage.masked_url}: {quantity(count, 'trial')}")
    say(f"go on with it:  {format_command_line('launch', copied)}")


@app.command()
@click.argument("old")
@click.argument("new")
@set_option
@click.option("--trials", type=int, help="Budget of NEW, the kept trials included; by default that of OLD.")
@click.option("--sampler", help="Sampler instead of OLD's.")
@click.option("--pruner", help="Pruner instead of OLD's.")
@click.option(
    "--objective",
    metavar="FILE.py:FUNCTION",
    help="Objective function of NEW, if OLD has another one or none is known.",
)
@click.option("--dry-run", is_flag=True, help="Show which trials would be kept; create nothing.")
@import_option
@storage_option
def fork(
    old: str,
    new: str,
    sets: Sequence[str],
    objective: str | None,
    dry_run: bool,
    imports: Sequence[str],
    storage: str | None,
    **keys: Any,
) -> None:
    """Create a study NEW from study OLD with a changed space, and keep every finished trial that is valid in it.

    Kept trials are not trained again: they count toward the budget, and the sampler learns from them. OLD stays as it
    is.

    Of a study of an objective function, which alone knows its space, all finished trials are kept.

    Example: hpo fork mine mine2 --set 'optimizer=["adam", "nadam"]'
    """
    from hpo.study.input.study_file import parse_override
    from hpo.study.operations import fork

    study = load_study(old, storage, imports)
    function = None if objective is None else _load_reference(objective)
    plan = fork.fork_study(study, new, dict(parse_override(text) for text in sets), function, **keys)
    for line in plan.refused:
        say(f"not kept: {line}")
    for state, numbers in plan.skipped.items():
        say(f"not kept: {state} {'trial' if len(numbers) == 1 else 'trials'} {', '.join(map(str, numbers))}")
    kept, trials = len(plan.kept), plan.budget.trials
    if dry_run:
        say(
            f"study {new} would keep {kept} of {quantity(len(study.trials()), 'trial')} of {old}; "
            f"its budget would be {trials}"
        )
        return
    forked = plan.create()
    left = forked.remaining()
    say(
        f"study {new} in {forked.storage.masked_url} keeps {quantity(kept, 'trial')} of {old}; "
        f"{left} of {trials} are left"
    )
    say(f"go on with it:  {format_command_line('launch', forked, imports)}{'' if left else ' --trials N'}")


def _load_reference(text: str) -> FunctionReference:
    from hpo.execution.objective_function import load_function

    return load_function(text).reference
