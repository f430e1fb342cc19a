"""Commands that change what a storage or HPO_HOME holds: stop, retry, delete, gc, copy, fork."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from typing import Any

import click

from hpo.cli.lookup import format_command_line, load_runnable_study, load_study, open_storage
from hpo.cli.options import app, format_option, import_option, set_option, storage_option
from hpo.cli.output import print_rows, program, say, size_in_words
from hpo.errors import RequestError


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
    from hpo.study.operations.worker_status import stop_workers

    study = load_study(name, storage)
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
    study = load_study(name, storage)
    again = study.retry(numbers or None)
    say(f"study {name}: {len(again)} trials wait again{': ' if again else ''}{', '.join(map(str, again))}")
    if again:
        say(f"run: {format_command_line('launch', study)}")


@app.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@storage_option
def delete(name: str, yes: bool, storage: str | None) -> None:
    """Delete a study with its trials and evaluations, and what they keep in HPO_HOME. Logs and reports stay."""
    from hpo.study.files.cleanup import find_study_folders, remove_files
    from hpo.study.operations.evaluation_study import evaluation_studies

    study = load_study(name, storage)
    going = [study, *evaluation_studies(study)]
    count = sum(len(each.trials()) for each in going)
    evaluations = f" and its evaluations ({', '.join(each.name for each in going[1:])})" if going[1:] else ""
    if not yes:
        if not sys.stdin.isatty():
            raise RequestError(f"delete {name}: {count} trials would be lost; say so with --yes")
        click.confirm(
            f"Delete study {name}{evaluations} with {count} trials from {study.storage.masked_url}?",
            abort=True,
            err=True,
        )
    folders = [folder for each in going for folder in find_study_folders(each)]
    for each in reversed(going):  # what is left of them, should this end in its midst, is found again by the study
        study.storage.delete_study(each.id)
    for folder in folders:
        remove_files(folder.path)
    freed = size_in_words(sum(folder.size for folder in folders))
    say(f"study {name}{evaluations} deleted: {count} trials, {freed} freed on disk")


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
    from hpo.study.files.cleanup import find_unneeded_files, remove_files

    found = find_unneeded_files(open_storage(storage), name, unknown=unknown)
    gone = [each for each in found if not each.stays]
    if not dry_run:
        for each in gone:
            remove_files(each.path)
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
    from hpo.study.operations.copy_study import copy_study

    study = load_study(name, storage)
    copied = copy_study(study, StudyStorage(target), new_name or name)
    masked = copied.storage.masked_url
    say(f"study {copied.name} is in {masked} now: {sum(copied.storage.count_trials(copied.id).values())} trials")
    say(f"go on with it:  {program()} launch {shlex.quote(copied.name)} --storage {shlex.quote(masked)}")


@app.command()
@click.argument("old")
@click.argument("new")
@set_option
@click.option("--trials", type=int, help="The budget of NEW, the kept trials included; by default that of OLD.")
@click.option("--sampler", help="Sampler instead of OLD's.")
@click.option("--pruner", help="Pruner instead of OLD's.")
@click.option("--dry-run", is_flag=True, help="Say which trials would be kept; create nothing.")
@import_option
@storage_option
def fork(
    old: str, new: str, sets: Sequence[str], dry_run: bool, imports: Sequence[str], storage: str | None, **keys: Any
) -> None:
    """Make a study NEW of study OLD with a changed space, and keep every ended trial that is valid in it.

    Kept trials are not trained again: they count toward the budget, and the sampler learns from them. OLD stays as it
    is.

    Example: hpo fork mine mine2 --set 'optimizer=["adam", "nadam"]'
    """
    from hpo.study.input.study_file import parse_override
    from hpo.study.operations import fork

    study = load_runnable_study(old, storage, imports)
    planned = fork.fork_study(study, new, dict(parse_override(text) for text in sets), **keys)
    for line in planned.refused:
        say(f"not kept: {line}")
    for state, numbers in planned.skipped.items():
        say(f"not kept: {state} {'trial' if len(numbers) == 1 else 'trials'} {', '.join(map(str, numbers))}")
    kept, trials = len(planned.kept), planned.budget.trials
    if dry_run:
        say(f"study {new} would keep {kept} of {len(study.trials())} trials of {old}; its budget would be {trials}")
        return
    made = planned.create()
    left = made.remaining()
    say(f"study {new} in {made.storage.masked_url} keeps {kept} trials of {old}; {left} of {trials} are left")
    say(f"go on with it:  {format_command_line('launch', made, imports)}{'' if left else ' --trials N'}")
