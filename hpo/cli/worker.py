"""Command that attaches a worker to a study: worker."""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
from typing import TYPE_CHECKING

import click

from hpo.cli.lookup import load_runnable_study
from hpo.cli.options import app, storage_option, worker_options
from hpo.cli.output import say
from hpo.errors import RunError
from hpo.utils.garbage import postpone_collection

if TYPE_CHECKING:
    from hpo.execution.worker_options import WorkerOptions

__all__: list[str] = []


@app.command()
@click.argument("name")
@worker_options
@storage_option
def worker(name: str, options: WorkerOptions, storage: str | None) -> int:
    """Attach a worker to the study NAME: it trains trials until nothing is left to begin.

    Example: hpo worker mnist_mlp --storage postgresql://me@db/studies
    """
    from hpo.utils.signals import StopRequest

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    logging.getLogger("alembic").setLevel(logging.WARNING)  # Optuna's; it logs its plugins
    if sys.__stderr__ is not None and not faulthandler.is_enabled():
        faulthandler.enable(sys.__stderr__)  # a crash of native code shows in the log where it happened
    with StopRequest(within=10) as stop:  # before torch is imported: a stop may come at any time
        with postpone_collection():
            study = load_runnable_study(name, storage, options.imports)
            from hpo.execution.threads import choose_threads
            from hpo.execution.worker import Worker, cores_per_worker

        cpus = choose_threads(study, options.cpus, lambda: cores_per_worker(study))
        attached = Worker(study, options.model_copy(update={"cpus": cpus}), stop, end_process=_end)
        try:
            attached.run()
        except RunError as error:
            if not stop():
                raise
            say(f"hpo: {error}")  # it stops as it was asked to
    return stop.exit_code


def _end(reason: str) -> None:
    """End this process at once, whatever its other threads do."""
    say(f"hpo: {reason}")
    os._exit(1)
