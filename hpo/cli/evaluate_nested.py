"""Nested evaluation by `hpo evaluate --outer-folds`: its run, its preview, and what it prints."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from hpo.cli.lookup import format_command_line
from hpo.cli.output import print_json, print_rows, say
from hpo.utils.text import quantity

if TYPE_CHECKING:
    from hpo.execution.backends.base import Backend
    from hpo.execution.worker_options import WorkerOptions
    from hpo.report.stats.nested_score import NestedScore
    from hpo.study import Study

__all__ = ["evaluate_nested", "preview_nested"]


def evaluate_nested(study: Study, count: int, seeds: int, options: WorkerOptions, backend: Backend, style: str) -> int:
    """Run what is missing of a nested evaluation, and print its score."""
    from hpo.execution.evaluate import publish_evaluations
    from hpo.execution.launch import run_workers
    from hpo.execution.nested import check_nested, list_caveats, plan_outer_folds, read_score, run_nested
    from hpo.study.operations.nested_study import create_outer_study
    from hpo.utils.signals import StopRequest

    folds = plan_outer_folds(study, count)
    for caveat in list_caveats(study):
        say(f"note: {caveat}")
    studies = [create_outer_study(study, fold) for fold in folds]

    def run(each: Study) -> None:
        say(f"running {each.name}")
        run_workers(each, options, stop, backend)

    with StopRequest(within=20) as stop:  # the workers take half of it
        if options.workers != 0:
            say(f"nesting {study.name} in {quantity(count, 'outer fold')}, in {study.storage.masked_url}")
            run_nested(studies, seeds, run, stop)
    nested = read_score(study, count)
    _print_score(nested, style)
    if not stop():
        publish_evaluations(study)
    say(f"write the report:  {format_command_line('report', study)}")
    if not stop() and options.workers != 0:
        check_nested(studies, nested)
    return stop.exit_code


def preview_nested(study: Study, count: int, style: str) -> int:
    """Print what a nested evaluation would train."""
    from hpo.execution.nested import list_nested

    rows = list_nested(study, count)
    print_rows([asdict(row) for row in rows], style)
    trials = quantity(sum(row.trials for row in rows), "trial")
    say(f"would train {trials}, and test on each outer fold what is chosen without it; nothing is created")
    return 0


def _print_score(nested: NestedScore, style: str) -> None:
    from hpo.report.chapters.nested import describe_agreement, describe_nested
    from hpo.report.render.json import nested_document

    if style == "json":
        print_json(nested_document(nested))
    else:
        print_rows(_list_rows(nested), style)
    for line in [*describe_nested(nested), describe_agreement(nested)]:
        say(line)
    if nested.remaining:
        say("the same command goes on with what is left")


def _list_rows(nested: NestedScore) -> list[dict[str, Any]]:
    """Return a row for each outer fold, with the parameters that its study has chosen."""
    rows: list[dict[str, Any]] = []
    chosen = 0
    for fold in nested.folds:
        settings = {}
        if fold.trial is not None:
            settings = {each.parameter: each.values[chosen] for each in nested.parameters}
            chosen += 1
        head = {
            "fold": f"{fold.fold} of {nested.count}",
            "trial": fold.trial,
            "chosen": fold.claimed,
            "test": fold.score,
            nested.rival: fold.rival,
        }
        rows.append(head | {f"parameter {name}" if name in head else name: each for name, each in settings.items()})
    return rows
