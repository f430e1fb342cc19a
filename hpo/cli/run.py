"""Commands that train: launch, worker, train."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpo.cli.lookup import format_command_line, load_runnable_study, make_backend, write_report_of
from hpo.cli.options import (
    app,
    checkpoint_option,
    cohort_option,
    device_option,
    engine_options,
    format_option,
    import_option,
    lease_option,
    set_option,
    storage_option,
    tensorboard_option,
    tracker_option,
)
from hpo.cli.output import say
from hpo.errors import RequestError, RunError

if TYPE_CHECKING:
    from hpo.execution.launch import LaunchPlan
    from hpo.study import Study


@app.command()
@click.argument("study")
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    help="How many; by default one per GPU of this machine, else per core, and 1 elsewhere; 0 only creates the study.",
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
@click.option(
    "--warm-start",
    metavar="OLD",
    help="Begin with the best trials of study OLD of the same storage, after the baseline; of adaptive samplers only.",
)
@click.option("--top", type=click.IntRange(min=1), help="How many of the best of OLD; by default 5.")
@set_option
@click.option(
    "--dry-run", is_flag=True, help="Show the parameters, their domains and a few configurations; create nothing."
)
@click.option("--report", "report", is_flag=True, help="Write the report when the study has ended.")
@click.option("--detach", is_flag=True, help="Start the workers and return; they go on by themselves. Not on Ray.")
@engine_options
@tensorboard_option
@tracker_option
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
    detach: bool,
    backend: str,
    address: str | None,
    slurm: Sequence[str],
    cpus: int | None,
    gpus: float | None,
    cohort: int | None,
    checkpoint_every: float,
    lease: float,
    tensorboard: Path | None,
    trackers: Sequence[str],
    **keys: Any,
) -> int:
    """Launch STUDY, a template's name or a .toml file, or go on with the study of that name.

    Example: hpo launch mnist_mlp --workers 4 --trials 100 --set epochs=10
    """
    from hpo.execution.backends.base import WorkerOptions
    from hpo.execution.launch import run_plan
    from hpo.utils.home import folder
    from hpo.utils.signals import StopRequest

    where = make_backend(backend, address, slurm, gpus)
    if detach and (backend == "ray" or report):
        raise RequestError(
            f"--detach: {'tasks of Ray end with their launch' if backend == 'ray' else 'writes no report'}"
        )
    planned = _plan(study, storage, imports, sets, keys)
    for notice in planned.notices:
        say(f"note: {notice}")
    if dry_run:
        from hpo.study.input.preview import format_preview

        click.echo(format_preview(planned.name, planned.definition, planned.budget))
        return 0
    logs = folder("logs", planned.name)
    for notice in planned.definition.space.notices():
        say(f"note: {notice}")
    found = planned.create(storage)
    with StopRequest(within=20) as stop:  # the workers take half of it
        if found.left() and workers != 0:
            found.start_clock()
            say(f"study {found.name} in {found.storage.masked_url}; logs in {logs}")
            debug = bool(click.get_current_context().obj)
            options = WorkerOptions(
                workers, device, imports, checkpoint_every, lease, debug, cohort, tensorboard, trackers, cpus, gpus
            )
            if detach:
                count = len(where.start(found, options))
                see = format_command_line("show", found)
                say(f"started {count} worker{'s' if count > 1 else ''}; see them with: {see}")
                return 0
            try:
                run_plan(found, options, stop, where)
            except RunError:
                _say_state(found)  # the workers that did not fail may have done all there is
                raise
    _say_state(found)
    paths = write_report_of(found, None) if report and not stop() else None
    _print_ending(found, paths, imports)
    return stop.exit_code


@app.command()
@click.argument("name")
@click.option("--top", type=click.IntRange(min=1), default=3, show_default=True, help="How many of the best.")
@click.option("--seeds", type=click.IntRange(1, 1000), default=5, show_default=True, help="Runs of each.")
@click.option("--dataset", help="Another data set than the study's: a name, or the path of an .npz file.")
@click.option(
    "--refit", is_flag=True, help="Train on training and validation data together, for a fixed number of epochs."
)
@click.option("--inside", is_flag=True, help="Look into the best model too: its loss landscape, filters and units.")
@click.option("--workers", type=click.IntRange(min=0), help="How many, as in hpo launch.")
@engine_options
@format_option("table", "json")
@cohort_option
@checkpoint_option
@lease_option
@device_option
@import_option
@storage_option
def evaluate(
    name: str,
    top: int,
    seeds: int,
    dataset: str | None,
    refit: bool,
    inside: bool,
    workers: int | None,
    backend: str,
    address: str | None,
    slurm: Sequence[str],
    cpus: int | None,
    gpus: float | None,
    style: str,
    storage: str | None,
    device: str,
    imports: Sequence[str],
    cohort: int | None,
    checkpoint_every: float,
    lease: float,
) -> int:
    """Train the best configurations of NAME and its baseline again from fresh seeds, and test each run once.

    What has been run already is not run again. Every look at the test set is counted in the report.

    Example: hpo evaluate mnist_mlp --top 3 --seeds 5
    """
    from hpo.execution.backends.base import WorkerOptions
    from hpo.execution.evaluate import plan_evaluations, run_evaluations
    from hpo.utils.signals import StopRequest

    where = make_backend(backend, address, slurm, gpus)
    study = load_runnable_study(name, storage, imports)
    if inside:
        from hpo.execution.inspect_model import check_inspectable

        check_inspectable(study)
    made = plan_evaluations(study, top, seeds, dataset, refit=refit)
    debug = bool(click.get_current_context().obj)
    options = WorkerOptions(workers, device, imports, checkpoint_every, lease, debug, cohort, cpus=cpus, gpus=gpus)
    with StopRequest(within=20) as stop:  # the workers take half of it
        if workers != 0:
            say(f"evaluating {name}: {', '.join(each.name for each in made)} in {study.storage.masked_url}")
            run_evaluations(made, options, stop, where)
    _print_scores(study, made, style)
    if inside and not stop():
        from hpo.execution.inspect_model import inspect_model

        inspect_model(study, device)
    if not stop():
        from hpo.report.dashboard.publish import publish_report
        from hpo.report.report_data import read_report_data

        publish_report(read_report_data(study))
    say(f"write the report:  {format_command_line('report', study, imports)}")
    return stop.exit_code


@app.command()
@click.argument("name")
@click.option(
    "--threads", type=click.IntRange(min=1), help="Threads of torch; by default this worker's share of the cores."
)
@tensorboard_option
@tracker_option
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
    tensorboard: Path | None,
    trackers: Sequence[str],
    cohort: int | None,
    checkpoint_every: float,
    lease: float,
    device: str,
    imports: Sequence[str],
) -> int:
    """Attach a worker to the study NAME: it trains trials until nothing is left to begin.

    Example: hpo worker mnist_mlp --storage postgresql://me@db/studies
    """
    from hpo.utils.signals import StopRequest

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    logging.getLogger("alembic").setLevel(logging.WARNING)  # Optuna's; it tells of its plugins
    with StopRequest(within=10) as stop:  # before torch is imported: a stop may come at any time
        study = load_runnable_study(name, storage, imports)
        from hpo.execution.worker import Worker, cores_per_worker

        threads = threads or cores_per_worker(study)
        attached = Worker(study, device, threads, stop, checkpoint_every, lease, cohort, tensorboard, trackers)
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
    from hpo.config import registry
    from hpo.study.input.config_file import read_config
    from hpo.study.input.study_file import parse_override
    from hpo.utils.home import cores, folder
    from hpo.utils.signals import StopRequest

    registry.import_modules(imports)
    overrides = dict(parse_override(text) for text in sets)
    given = read_config(config_file, overrides, dataset, objective)
    for note in given.notes:
        say(f"note: {note}")
    from hpo.training import standalone  # torch, once the request is known to be right
    from hpo.training.settings import TrainSettings

    out = out or folder("train") / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    with StopRequest() as stop:
        result = standalone.train_config(
            given.config,
            given.dataset,
            out,
            settings=TrainSettings(
                monitor=given.objective.metric,
                direction=given.objective.direction,
                metrics=[registry.metrics.get(given.objective.metric)],
                should_stop=stop,
            ),
            device=device,
            threads=threads or cores(),
            test=test,
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
        which = "best" if "val_loss" in best else "last"
        split = "val" if "val_loss" in best else "train"
        shown = [name for each in ("accuracy", "loss", "reconstruction_error") if (name := f"{split}_{each}") in best]
        click.echo(f"{which} epoch {outcome.best_epoch}: {', '.join(f'{name} {best[name]:.4f}' for name in shown)}")
    for name, value in (result.test or {}).items():
        click.echo(f"test_{name} {value:.4f}")
    click.echo(f"written to {result.out}")
    return stop.exit_code


def _plan(
    study: str, storage: str | None, imports: Sequence[str], sets: Sequence[str], keys: dict[str, Any]
) -> LaunchPlan:
    from hpo.execution.launch import plan_launch
    from hpo.study.input.study_file import parse_override

    return plan_launch(study, storage, imports=imports, parameters=dict(parse_override(text) for text in sets), **keys)


def _print_scores(study: Study, made: Sequence[Study], style: str) -> None:
    """What the evaluations that have just been run say by now."""
    from hpo.cli.output import print_rows
    from hpo.report.data.evaluations import read_evaluations
    from hpo.report.stats.evaluation_stats import compare_candidates, score_rows, sentences

    names = {each.name for each in made}
    for evaluation in read_evaluations(study):
        if names & set(evaluation.studies):
            judgement = compare_candidates(evaluation)
            print_rows(score_rows(judgement), style)
            for sentence in sentences(evaluation, judgement):
                say(sentence)


def _say_state(study: Study) -> None:
    left, trials = study.left(), study.budget.trials
    if left == 0:
        say(f"study {study.name} is complete: {trials} trials")
    elif why := study.ended():
        say(f"study {study.name} has ended, {why}: {left} of {trials} trials are left")
    else:
        say(f"study {study.name}: {left} of {trials} trials are left")


def _print_ending(study: Study, paths: Any, imports: Sequence[str]) -> None:
    """The best configuration, the report's path, and what to type next."""
    from hpo.report.export_config import export_config

    best, objectives = study.best(), study.definition.objectives
    if best is not None:
        which = "best" if len(objectives) == 1 else f"of {len(objectives)} objectives, best by the first:"
        click.echo(f"\n{which} {objectives[0].metric} {best.values[0]:.4g}, trial {best.number}:\n")
        click.echo(export_config(study, best.number, "toml"))
    if paths is not None:
        click.echo(f"report:            {paths.html}")
    else:
        click.echo(f"write the report:  {format_command_line('report', study, imports)}")
    click.echo(f"open a dashboard:  {format_command_line('dashboard', study)}")
    click.echo(f"attach a worker:   {format_command_line('worker', study, imports)}")
