"""Command that evaluates a study: evaluate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from hpo.cli.lookup import format_command_line, load_runnable_study, load_study, make_backend
from hpo.cli.options import app, backend_options, dataset_options, format_option, launch_options, storage_option
from hpo.cli.output import print_rows, say
from hpo.errors import RequestError

if TYPE_CHECKING:
    from hpo.execution.worker_options import WorkerOptions
    from hpo.study import Study

__all__: list[str] = []


@app.command()
@click.argument("name")
@click.option("--top", type=click.IntRange(min=1), help="Number of configurations; by default 3.")
@click.option(
    "--seeds", type=click.IntRange(1, 1000), help="Number of runs of each; by default 5, and 1 with --outer-folds."
)
@dataset_options
@click.option(
    "--refit", is_flag=True, help="Train on training and validation data together, for a fixed number of epochs."
)
@click.option(
    "--objective",
    metavar="FILE.py:FUNCTION",
    help="Objective function of the study, if it has one and --import names no module that holds it.",
)
@click.option(
    "--outer-folds",
    type=click.IntRange(2, 1000),
    metavar="K",
    help="Nest the whole study: launch it anew on the training part of each of K outer folds, and test on the fold "
    "what it chooses. The test set is not read.",
)
@click.option("--dry-run", is_flag=True, help="Show the configurations and the number of runs; create nothing.")
@click.option("--inside", is_flag=True, help="Look into the best model too: its loss landscape, filters and units.")
@format_option("table", "json")
@backend_options
@launch_options
@storage_option
def evaluate(
    name: str,
    top: int | None,
    seeds: int | None,
    dataset: object,
    refit: bool,
    objective: str | None,
    outer_folds: int | None,
    dry_run: bool,
    inside: bool,
    style: str,
    backend: str,
    address: str | None,
    slurm: Sequence[str],
    options: WorkerOptions,
    storage: str | None,
) -> int:
    """Train the best configurations of NAME and its baseline again from fresh seeds, and test each run once.

    Runs that exist are not run again. Every reading of the test set is counted in the report.

    An objective function is called again with the parameters of the best trials, if it takes a seed: see hpo.seed.

    Example: hpo evaluate mnist_mlp --top 3 --seeds 5

    Example: hpo evaluate train --objective train.py:objective --seeds 5

    Example: hpo evaluate mine --outer-folds 5
    """
    from hpo.execution.evaluate import NESTED_SEEDS, SEEDS, TOP, check_results, publish_evaluations, run_evaluations
    from hpo.execution.evaluate_function import check_function_options, refuse_seedless
    from hpo.utils.signals import StopRequest

    if outer_folds is not None:
        from hpo.cli.evaluate_nested import evaluate_nested, preview_nested
        from hpo.execution.nested import refuse_other_options

        refuse_other_options(top=top, dataset=dataset, inside=inside, objective=objective)
        if dry_run:
            return preview_nested(load_runnable_study(name, storage, options.imports), outer_folds, style)
        where = make_backend(backend, address, slurm, options)
        study = load_runnable_study(name, storage, options.imports)
        return evaluate_nested(study, outer_folds, seeds or NESTED_SEEDS, options, where, style)
    top, seeds = top or TOP, seeds or SEEDS
    if dry_run:
        return _preview(load_study(name, storage, options.imports), top, seeds, dataset, style, refit=refit)
    where = make_backend(backend, address, slurm, options)
    study = load_runnable_study(name, storage, options.imports)
    with refuse_seedless(study):
        if study.definition.configured:
            evaluations = _plan(study, top, seeds, dataset, objective, refit=refit, inside=inside)
        else:
            check_function_options(study, dataset, refit=refit, inside=inside)
            evaluations, options = _plan_function(study, top, seeds, objective, options)
        with StopRequest(within=20) as stop:  # the workers take half of it
            if options.workers != 0:
                say(f"evaluating {name}: {', '.join(each.name for each in evaluations)} in {study.storage.masked_url}")
                run_evaluations(evaluations, options, stop, where)
    _print_scores(study, evaluations, style)
    if inside and not stop():
        from hpo.execution.inspect_model import inspect_model

        inspect_model(study, options.device)
    if not stop():
        publish_evaluations(study)
    say(f"write the report:  {format_command_line('report', study)}")
    if not stop() and options.workers != 0:
        check_results(evaluations)
    return stop.exit_code


def _plan(
    study: Study, top: int, seeds: int, dataset: object, objective: str | None, *, refit: bool, inside: bool
) -> list[Study]:
    """Plan the evaluations of a study of models."""
    from hpo.execution.evaluate import plan_evaluations

    if objective is not None:
        raise RequestError(f"--objective: study '{study.name}' trains models, and calls no objective function")
    if inside:
        from hpo.execution.inspect_model import check_inspectable

        check_inspectable(study)
    return plan_evaluations(study, top, seeds, dataset, refit=refit)


def _plan_function(
    study: Study, top: int, seeds: int, objective: str | None, options: WorkerOptions
) -> tuple[list[Study], WorkerOptions]:
    """Plan the evaluations of a study of an objective function; return the options of their workers as well."""
    from hpo.execution.evaluate_function import find_study_function, plan_function_evaluations
    from hpo.execution.objective_function import find_changes

    function = find_study_function(study, objective, options.imports, "evaluate")
    for notice in find_changes(study, function.reference):
        say(f"note: {notice}")
    evaluations = plan_function_evaluations(study, top, seeds, function)
    return evaluations, options.model_copy(update={"function": function.reference.location})


def _preview(study: Study, top: int, seeds: int, dataset: object, style: str, *, refit: bool) -> int:
    """Print what an evaluation would train."""
    from hpo.execution.evaluation_preview import preview_evaluation

    preview = preview_evaluation(study, top, seeds, dataset, refit=refit)
    print_rows(preview.rows, style)
    say(preview.text)
    return 0


def _print_scores(study: Study, evaluations: Sequence[Study], style: str) -> None:
    """Print the results of the evaluations that have just been run."""
    from hpo.execution.evaluate import read_results_of
    from hpo.report.stats.evaluation_stats import (
        compare_candidates,
        explain_columns,
        summarize_evaluation,
        tabulate_scores,
    )

    for results in read_results_of(study, evaluations):
        stats = compare_candidates(results)
        print_rows(tabulate_scores(stats), style)
        if style == "table":
            say(explain_columns(results))
        for sentence in summarize_evaluation(results, stats):
            say(sentence)
