"""Command that evaluates a study: evaluate."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from hpo.cli.lookup import format_command_line, load_runnable_study, load_study, make_backend
from hpo.cli.options import app, backend_options, dataset_options, format_option, launch_options, storage_option
from hpo.cli.output import print_json, print_rows, say
from hpo.errors import RequestError

if TYPE_CHECKING:
    from hpo.execution.evaluate import EvaluationRequest
    from hpo.execution.worker_options import WorkerOptions
    from hpo.study import Study

__all__: list[str] = []


@app.command()
@click.argument("name")
@click.option(
    "--top", type=click.IntRange(min=1), help="Number of configurations, that of hpo export first; by default 3."
)
@click.option(
    "--seeds", type=click.IntRange(1, 1000), help="Number of runs of each; by default 5, and 1 with --outer-folds."
)
@dataset_options
@click.option(
    "--datasets",
    metavar="A,B,C",
    callback=lambda _context, _option, value: _split_names(value),
    help="Several data sets, on each of which the configurations are evaluated, with one table of all: names or files.",
)
@click.option(
    "--refit", is_flag=True, help="Train on training and validation data together, for a fixed number of epochs."
)
@click.option(
    "--vary",
    metavar="SOURCES",
    help="Vary sources of chance, each alone and then all together, and say how much each contributes: split, order, "
    "init (initial weights), seed (order and init), with commas; or all.",
)
@click.option(
    "--compare",
    metavar="STUDY",
    help="Compare with another study on the same data: the chosen configuration of each, from equal seeds and splits.",
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
    datasets: Sequence[str],
    refit: bool,
    vary: str | None,
    compare: str | None,
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

    Example: hpo evaluate mnist_mlp --vary all --seeds 10

    Example: hpo evaluate mnist_mlp --compare mnist_cnn --seeds 29

    Example: hpo evaluate iris_mlp --datasets sklearn:iris,sklearn:wine,sklearn:digits

    Example: hpo evaluate train --objective train.py:objective --seeds 5

    Example: hpo evaluate mine --outer-folds 5
    """
    from hpo.execution.evaluate import (
        NESTED_SEEDS,
        SEEDS,
        TOP,
        EvaluationRequest,
        check_results,
        publish_evaluations,
        run_evaluations,
    )
    from hpo.execution.evaluate_function import check_function_options, refuse_seedless
    from hpo.study.operations.candidates import parse_sources
    from hpo.utils.signals import StopRequest

    if outer_folds is not None:
        from hpo.cli.evaluate_nested import evaluate_nested, preview_nested
        from hpo.execution.nested import refuse_other_options

        refuse_other_options(
            top=top, dataset=dataset, datasets=datasets, vary=vary, compare=compare, inside=inside, objective=objective
        )
        if dry_run:
            return preview_nested(load_runnable_study(name, storage, options.imports), outer_folds, style)
        where = make_backend(backend, address, slurm, options)
        study = load_runnable_study(name, storage, options.imports)
        return evaluate_nested(study, outer_folds, seeds or NESTED_SEEDS, options, where, style)
    top, seeds = top or TOP, seeds or SEEDS
    request = EvaluationRequest(top, seeds, dataset, datasets, refit, parse_sources(vary or ()), compare)
    if dry_run:
        return _preview(load_study(name, storage, options.imports), request, style)
    where = make_backend(backend, address, slurm, options)
    study = load_runnable_study(name, storage, options.imports)
    with refuse_seedless(study):
        if study.definition.configured:
            evaluations = _plan(study, request, objective, inside=inside)
        else:
            check_function_options(study, dataset, datasets, refit=refit, inside=inside, vary=vary, compare=compare)
            evaluations, options = _plan_function(study, top, seeds, objective, options)
        with StopRequest(within=20) as stop:  # the workers take half of it
            if options.workers != 0:
                say(f"evaluating {name}: {', '.join(each.name for each in evaluations)} in {study.storage.masked_url}")
                run_evaluations(evaluations, options, stop, where)
    _print_scores(study, evaluations, style, across=bool(datasets))
    if inside and not stop():
        from hpo.execution.inspect_model import inspect_model

        inspect_model(study, options.device)
    if not stop():
        publish_evaluations(study)
    say(f"write the report:  {format_command_line('report', study)}")
    if not stop() and options.workers != 0:
        check_results(evaluations)
    return stop.exit_code


def _split_names(text: str | None) -> list[str]:
    """Split data sets at the commas between them, which are none of those in a table."""
    parts = re.findall(r"(?:\{[^}]*\}|[^,{])+", text or "")
    return [part.strip() for part in parts if part.strip()]


def _plan(study: Study, request: EvaluationRequest, objective: str | None, *, inside: bool) -> list[Study]:
    """Plan the evaluations of a study of models."""
    from hpo.execution.compare_studies import explain_choices
    from hpo.execution.evaluate import plan_request

    if objective is not None:
        raise RequestError(f"--objective: study '{study.name}' trains models, and calls no objective function")
    if inside:
        from hpo.execution.inspect_model import check_inspectable

        check_inspectable(study)
    evaluations = plan_request(study, request)
    if request.compare is not None:
        for line in explain_choices(study, request.compare):
            say(line)
    return evaluations


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


def _preview(study: Study, request: EvaluationRequest, style: str) -> int:
    """Print what an evaluation would train."""
    from hpo.execution.evaluation_preview import preview_evaluation

    preview = preview_evaluation(study, request)
    print_rows(preview.rows, style)
    say(preview.text)
    return 0


def _print_scores(study: Study, evaluations: Sequence[Study], style: str, *, across: bool) -> None:
    """Print the results of the evaluations that have just been run; one table as JSON is a list of its rows.

    Args:
        study: the study.
        evaluations: those that were asked for.
        style: table or json.
        across: whether several data sets are compared in one table.
    """
    from hpo.execution.evaluate import read_comparisons_of, read_results_of
    from hpo.report.stats.result_tables import list_result_tables

    results, comparisons = read_results_of(study, evaluations), read_comparisons_of(study, evaluations)
    tables = list_result_tables(results, comparisons, across=across)
    if style == "json":
        print_json(tables[0].rows if len(tables) == 1 else {table.name: table.rows for table in tables})
    for table in tables:
        if style == "table":
            print_rows(table.rows, style)
            say(table.legend)
        for line in table.lines:
            say(line)
