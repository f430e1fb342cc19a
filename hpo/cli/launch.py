"""Command that launches a study: launch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from hpo.cli.lookup import format_command_line, make_backend
from hpo.cli.options import (
    app,
    backend_options,
    dataset_options,
    launch_options,
    resampling_options,
    set_option,
    storage_option,
)
from hpo.cli.output import say
from hpo.errors import RequestError, RunError, StorageLostError, StudyDeletedError
from hpo.utils.text import quantity

if TYPE_CHECKING:
    from hpo.execution.backends.base import Backend
    from hpo.execution.conclusion import Verdict
    from hpo.execution.launch import LaunchPlan
    from hpo.execution.worker_options import WorkerOptions
    from hpo.study import Study

__all__: list[str] = []


@app.command()
@click.argument("study")
@click.option("--trials", type=int, help="Budget: exactly this many trials in all; a larger one extends a study.")
@click.option("--timeout", help='Start no trial after this much time: "2h", "15m", "90".')
@click.option("--trial-timeout", help="Fail a trial that trains for longer than this, even one that hangs.")
@click.option("--target", type=float, help="End the study once the objective reaches this value.")
@click.option(
    "--until",
    help="settled: end the study once going on is expected to gain less than the noise of its values; trials: do not.",
)
@click.option("--name", help="Name of the study; by default the file's stem.")
@dataset_options
@click.option("--objective", help="Metric instead of the file's.")
@click.option(
    "--direction",
    help="Of an objective function: minimize or maximize; several with commas, one for each value that it returns. By"
    " default what its file gives to optuna.create_study, or minimize.",
)
@click.option("--metric-names", help="Of an objective function: names of its values, with commas.")
@click.option(
    "--study",
    "made",
    metavar="VARIABLE",
    help="Of an objective function: variable of its file that holds an optuna.Study, from which direction, sampler,"
    " pruner and name are read.",
)
@click.option(
    "--sampler", help="Sampler instead of the file's: a name, or a table, as '{name=\"tpe\", n_startup_trials=5}'."
)
@click.option(
    "--pruner", help="Pruner instead of the file's: a name, or a table, as '{name=\"hyperband\", max_resource=27}'."
)
@click.option("--seed", type=int, help="Seed instead of the file's.")
@resampling_options
@click.option(
    "--warm-start",
    metavar="OLD",
    help="Start with the best trials of study OLD of the same storage, after the baseline; for adaptive samplers only.",
)
@click.option("--top", type=click.IntRange(min=1), help="Number of best trials of OLD; by default 5.")
@set_option
@click.option(
    "--dry-run",
    is_flag=True,
    help="Load the data set, train a step of every kind of configuration on a few samples, and show the parameters,"
    " their domains and a few configurations; create nothing.",
)
@click.option("--report", is_flag=True, help="Write the report when the study has ended.")
@click.option("--detach", is_flag=True, help="Start the workers and return; they go on by themselves. Not on Ray.")
@backend_options
@launch_options
@storage_option
def launch(
    study: str,
    storage: str | None,
    options: WorkerOptions,
    sets: Sequence[str],
    dry_run: bool,
    report: bool,
    detach: bool,
    backend: str,
    address: str | None,
    slurm: Sequence[str],
    **keys: Any,
) -> int:
    """Launch STUDY: a template's name, a .toml file, FILE.py:FUNCTION, an objective function of Optuna's trial, or
    FILE.py, which holds one of those or registers a training loop or a model.

    The name of a stored study goes on with it.

    Example: hpo launch mnist_mlp --workers 4 --trials 100 --set epochs=10

    Example: hpo launch quickstart --dataset house_prices.csv --label price

    Example: hpo launch train.py:objective --direction maximize --workers 4 --trials 100

    Example: hpo launch my_loop.py --dataset mnist --workers 4 --trials 20
    """
    where = make_backend(backend, address, slurm, options)
    if detach and (backend == "ray" or report):
        why = "tasks of Ray end with their launch" if backend == "ray" else "cannot write a report"
        raise RequestError(f"--detach: {why}")
    plan, options = _plan(study, storage, options, sets, keys)
    for notice in plan.notices:
        say(f"note: {notice}")
    if dry_run:
        return _preview(plan, options, storage)
    for notice in plan.definition.space.notices():
        say(f"note: {notice}")
    created = plan.create(storage)
    if detach and created.remaining() and options.workers != 0:
        return _detach(created, options, where)
    return _run(created, options, where, report=report)


def _preview(plan: LaunchPlan, options: WorkerOptions, storage: str | None) -> int:
    """Try the study out, and show it; its objective function, if it has one, is not called."""
    from hpo.execution.sanity_check import check_study
    from hpo.execution.study_names import find_study
    from hpo.study.input.preview import format_learned_preview, format_preview

    name, definition, budget = plan.name, plan.definition, plan.budget
    if definition.learned:
        stored = find_study(name, storage)  # whose trials have shown of the space what is known of it
        click.echo(format_learned_preview(name, definition, budget, (stored or definition).space))
        return 0
    click.echo("\n".join([format_preview(name, definition, budget), "", *check_study(definition, options.device)]))
    return 0


def _plan(
    study: str, storage: str | None, options: WorkerOptions, sets: Sequence[str], keys: dict[str, Any]
) -> tuple[LaunchPlan, WorkerOptions]:
    """Return the plan, and the options of its workers."""
    from hpo.execution.objective_function import is_function
    from hpo.study.input.study_file import parse_override

    model = None
    if study.endswith(".py:"):  # without the function's name
        study = study[:-1]
    if study.endswith(".py") or ".py:" in study or is_function(study):
        from hpo.config import registry
        from hpo.execution.launch_model import find_model, plan_model_launch
        from hpo.execution.objective_function import find_objective

        registry.import_modules(options.imports)
        if study.endswith(".py") and (named := find_objective(study)) is not None:
            study = named
            say(f"note: objective function {study}")
        model = find_model(study)
        if model is None:
            return _plan_function(study, storage, options, {**keys, "set": sets})
    for name in ("direction", "metric_names", "made"):
        if keys.pop(name) is not None:
            spelled = "study" if name == "made" else name.replace("_", "-")
            raise RequestError(f"--{spelled}: is for objective functions, FILE.py:FUNCTION; {study} is none")
    parameters = dict(parse_override(text) for text in sets)
    if model is not None:
        return plan_model_launch(model, storage, options, parameters=parameters, **keys)
    from hpo.execution.launch import plan_launch

    return plan_launch(study, storage, imports=options.imports, parameters=parameters, **keys), options


def _plan_function(
    text: str, storage: str | None, options: WorkerOptions, keys: dict[str, Any]
) -> tuple[LaunchPlan, WorkerOptions]:
    from hpo.execution.launch_function import plan_function_launch
    from hpo.execution.objective_function import load_function, read_study

    for name in ("dataset", "objective", "set"):
        if keys.pop(name):
            spelled = name.replace("_", "-")
            raise RequestError(f"--{spelled}: is for study files; an objective function has this in its own code")
    function = load_function(text)
    variable = keys.pop("made")
    made = None if variable is None else read_study(text, variable)
    plan = plan_function_launch(function, storage, made, read_file=True, **keys)
    return plan, options.model_copy(update={"function": function.reference.location})


def _detach(study: Study, options: WorkerOptions, backend: Backend) -> int:
    """Start the workers, and leave them to themselves."""
    from hpo.study.definition import SETTLED
    from hpo.utils.signals import StopRequest

    _say_start(study)
    study.start_clock()
    with StopRequest(within=20):  # a signal must not leave some of the workers unstarted
        count = len(backend.start(study, options))
    see = format_command_line("show", study)
    say(f"started {count} worker{'s' if count > 1 else ''}; see them with: {see}")
    if study.budget.until == SETTLED:
        say("note: once it has settled, launch it again for fresh seeds of the best, and the verdict")
    return 0


def _run(study: Study, options: WorkerOptions, backend: Backend, *, report: bool) -> int:
    """Run a study to its end, and print its result."""
    from hpo.execution.launch import run_workers
    from hpo.study.operations.progress import explain_no_result
    from hpo.utils.signals import StopRequest

    verdict = None
    with StopRequest(within=20) as stop:  # the workers take half of it
        if study.remaining() and options.workers != 0:
            _say_start(study)
            try:
                run_workers(study, options, stop, backend)
            except (StorageLostError, StudyDeletedError):
                raise
            except RunError:
                _say_state(study)  # the workers that did not fail may have done all there is
                raise
        elif options.workers != 0:
            study.start_clock()  # for its conclusion
        _say_state(study)
        _say_repeats(study)
        if options.workers != 0:
            verdict = _conclude(study, options, backend, stop)
    for line in verdict.lines if verdict else ():
        click.echo(f"verdict: {line}")
    _print_result(study, options.imports, verdict, report=report and not stop())
    if not stop() and (why := explain_no_result(study)):
        raise RunError(why)
    return stop.exit_code


def _conclude(study: Study, options: WorkerOptions, backend: Backend, stop: Callable[[], bool]) -> Verdict:
    """Return the verdict on a study that was to end once it has settled, after fresh seeds of its tied leaders."""
    from hpo.execution.conclusion import Conclusion, Verdict
    from hpo.execution.launch import run_workers
    from hpo.execution.objective_function import find_function
    from hpo.study.definition import SETTLED

    if study.budget.until != SETTLED:
        return Verdict()
    called = study.definition.function is not None
    function = find_function(study, options.function, options.imports) if called else None

    def run(evaluation: Study, deadline: float) -> None:
        say(f"fresh seeds of the best: {evaluation.name}, {quantity(evaluation.remaining(), 'run')}")
        run_workers(evaluation, options, stop, backend, deadline)

    return Conclusion(study, run, stop, function).conclude()


def _say_start(study: Study) -> None:
    from hpo.utils.paths import study_path

    say(f"study {study.name} in {study.storage.masked_url}; logs in {study_path('logs', study.name)}")


def _say_state(study: Study) -> None:
    from hpo.study.operations.progress import describe_rest

    left, trials = study.remaining(), study.budget.trials
    if left == 0:
        say(f"study {study.name} is complete: {quantity(trials, 'trial')}")
    elif why := study.stop_reason():
        say(f"study {study.name} has ended, {why}: {describe_rest(left, trials)}")
    else:
        say(f"study {study.name}: {describe_rest(left, trials)}")


def _say_repeats(study: Study) -> None:
    """Say how many calls of an objective function have repeated another's parameters; only it knows its choices."""
    from hpo.report.data.repeats import describe_repeats
    from hpo.report.data.results import read_results

    if not study.definition.learned:
        return
    results = read_results(study)
    if (repeats := describe_repeats(results.trials, results.definition, results.space)) is not None:
        say(f"note: {repeats}")


def _print_config(study: Study, verdict: Verdict | None) -> None:
    """Print the configuration of the best trial from fresh seeds, or else of that which is exported, if any."""
    from hpo.report.data.results import read_results
    from hpo.report.export_config import choose_exported, export_config

    results = read_results(study)
    if results.best is None or (verdict is not None and verdict.keeps_default):
        return
    if verdict is not None and verdict.trial is not None:
        click.echo(f"\nbest from fresh seeds, trial {verdict.trial}:\n")
        click.echo(export_config(results, verdict.trial, "toml"))
        return
    choice, count = choose_exported(study, results), len(results.objectives)
    which = "best" if choice.rule == "best" else "chosen among the best,"
    which = which if count == 1 else f"of {count} objectives, best by the first:"
    click.echo(f"\n{which} {results.objectives[0].metric} {choice.row.value:.4g}, trial {choice.row.number}:\n")
    click.echo(export_config(results, choice=choice))


def _print_result(study: Study, imports: Sequence[str], verdict: Verdict | None, *, report: bool) -> None:
    """Print the configuration to use, and commands to go on with; write the report if it is asked for.

    Args:
        study: the study.
        imports: modules that the commands import.
        verdict: on a study that was to end once it has settled.
        report: whether it is written.
    """
    _print_config(study, verdict)
    if report:
        from hpo.report.study_report import write_report

        click.echo(f"report:            {write_report(study).html}")
    else:
        click.echo(f"write the report:  {format_command_line('report', study)}")
    click.echo(f"open a dashboard:  {format_command_line('dashboard', study)}")
    click.echo(f"attach a worker:   {format_command_line('worker', study, imports)}")
