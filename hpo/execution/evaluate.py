"""Evaluation of a study: its best configurations and its baseline, trained again from several seeds and tested once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, overload

import optuna

from hpo.config import registry
from hpo.config.trial_config import TrialConfig
from hpo.datasets import Dataset, DatasetReference, full_name, is_path, load, make_reference
from hpo.datasets.source import DatasetSource, parse_source, spell_source
from hpo.errors import DataError, RequestError, RunError
from hpo.execution.backends.base import Backend
from hpo.execution.compare_studies import plan_comparison
from hpo.execution.evaluate_function import (
    check_function_options,
    find_study_function,
    plan_function_evaluations,
    refuse_seedless,
)
from hpo.execution.evaluation_request import SEEDS, TOP, EvaluationRequest
from hpo.execution.launch import check_backend, run_study, run_workers
from hpo.execution.notebook_code import send_notebook_code
from hpo.execution.optimize import send_function
from hpo.execution.sample_images import pack_sample_images
from hpo.execution.worker_options import WorkerOptions, accepts_worker_options
from hpo.report.dashboard.publish import publish_report
from hpo.report.data.evaluations import EvaluationResults, read_comparisons, read_evaluations
from hpo.report.data.results import read_results
from hpo.report.export_config import rank_configurations
from hpo.report.report_data import read_report_data
from hpo.report.stats.across_datasets import compare_across
from hpo.report.stats.evaluation_stats import EvaluationStats, compare_candidates
from hpo.report.stats.study_comparison import compare_studies
from hpo.report.stats.variance_sources import measure_variance_sources
from hpo.study import Study
from hpo.study.definition import Source, test_metric
from hpo.study.files.artifacts import find_artifact, save_artifact
from hpo.study.input.compatibility import check_task
from hpo.study.operations.candidates import parse_sources
from hpo.study.operations.evaluation_study import create_evaluations
from hpo.study.operations.open_study import open_study
from hpo.study.operations.progress import explain_no_result

if TYPE_CHECKING:
    from hpo.report.stats.nested_score import NestedScore

__all__ = [
    "NESTED_SEEDS",
    "SAMPLES",
    "SEEDS",
    "TOP",
    "EvaluationRequest",
    "check_results",
    "choose_candidates",
    "evaluate",
    "plan_evaluations",
    "plan_request",
    "publish_evaluations",
    "read_comparisons_of",
    "read_results_of",
    "run_evaluations",
]

SAMPLES = "samples.npz"
NESTED_SEEDS = 1


@overload
def evaluate(study: str | Study | optuna.Study, *, outer_folds: int, **keywords: Any) -> NestedScore: ...


@overload
def evaluate(
    study: str | Study | optuna.Study, *, outer_folds: None = None, **keywords: Any
) -> list[EvaluationStats]: ...


@accepts_worker_options
def evaluate(
    study: str | Study | optuna.Study,
    *,
    storage: str | None = None,
    top: int | None = None,
    seeds: int | None = None,
    dataset: object = None,
    datasets: Sequence[object] = (),
    refit: bool = False,
    vary: str | Sequence[str] = (),
    compare: str | Study | None = None,
    inside: bool = False,
    objective: str | Callable[[optuna.trial.Trial], Any] | None = None,
    outer_folds: int | None = None,
    workers: int | None = 1,
    backend: Backend | None = None,
    **keywords: Any,
) -> list[EvaluationStats] | NestedScore:
    """Train the best configurations of a study and its baseline again from fresh seeds, and test each run once.

    It does what `hpo evaluate` does. Runs that exist are not run again, and every reading of the test set is counted in
    the report. One worker runs in this process.

    An objective function is called again with the parameters of the best trials and fresh seeds, if it takes a seed:
    see `hpo.seed`.

    Args:
        study: a study's name, or a study as `hpo.launch` returns it.
        storage: URL of the storage that a name is looked up in; by default the one that the commands use.
        top: number of configurations, the best first; by default 3.
        seeds: number of runs of each; by default 5, and 1 with `outer_folds`.
        dataset: another data set than the study's: a name, or the path of an .npz file.
        datasets: several data sets, on each of which the configurations are evaluated. The statistics then have a
            comparison `across` them.
        refit: train on training and validation data together, for a fixed number of epochs.
        vary: sources of chance that are varied each alone, and then all together: of `split`, `order`, `init` and
            `seed`; or `all`. The statistics then have their `variance`.
        compare: another study on the same data. The chosen configurations of both are trained from the same fresh seeds
            and splits; the statistics are those of this comparison, with their `pairs`.
        inside: look into the best model too: its loss landscape, filters and units.
        objective: the study's objective function, or `FILE.py:FUNCTION`, where the study has one.
        outer_folds: nest the whole study instead: launch it anew on the training part of each of so many outer folds,
            and test on the fold what it chooses. The test set is not read.
        workers: number of processes on this machine, or of workers of the backend; None starts one per GPU, or one per
            core if there is none. 0 only creates the evaluations.
        backend: where the workers run: `hpo.Ray(address)` or `hpo.Slurm(parameters)`; by default on this machine.
        keywords: the options of workers below.

    Returns:
        Scores and their comparison, one for each data set and way of training that this evaluation has; with
        `outer_folds` the score of the nested evaluation.

    Raises:
        RequestError: a value is wrong; no trial is complete; or the study has no test set.
        RunError: a worker failed.
    """
    options = WorkerOptions.parse({"workers": workers, **keywords})
    check_backend(backend, options)
    opened = open_study(study, storage, options.imports)
    if outer_folds is not None:
        others = {"top": top, "dataset": dataset, "datasets": datasets, "vary": vary, "compare": compare}
        others |= {"inside": inside or None, "objective": objective}
        return _nest(opened, outer_folds, seeds or NESTED_SEEDS, options, backend, others)
    top, seeds = top or TOP, seeds or SEEDS
    if not opened.definition.configured:
        check_function_options(opened, dataset, datasets, refit=refit, inside=inside, vary=vary, compare=compare)
        function = find_study_function(opened, objective, options.imports, "evaluate")
        with send_function(function, options, backend) as options, refuse_seedless(opened):
            evaluations = plan_function_evaluations(opened, top, seeds, function)
            for each in evaluations:
                if each.remaining():
                    run_study(each, options, backend, function)
        return _read_stats(opened, evaluations, ran=workers != 0)
    if objective is not None:
        raise RequestError(f"objective: study '{opened.name}' trains models, and calls no objective function")
    opened.definition.check_registered()
    if inside:
        from hpo.execution.inspect_model import check_inspectable  # torch

        check_inspectable(opened)
    with send_notebook_code(opened.definition, options, backend) as options:
        request = EvaluationRequest(top, seeds, dataset, datasets, refit, parse_sources(vary), compare)
        evaluations = plan_request(opened, request)
        for each in evaluations:
            if each.remaining():
                run_study(each, options, backend)
    if inside:
        from hpo.execution.inspect_model import inspect_model

        inspect_model(opened, options.device)
    return _read_stats(opened, evaluations, ran=workers != 0)


def _nest(
    study: Study,
    count: int,
    seeds: int,
    options: WorkerOptions,
    backend: Backend | None,
    others: Mapping[str, object],
) -> NestedScore:
    """Run the nested evaluation of a study, which takes no other options."""
    from hpo.execution.nested import evaluate_nested, refuse_other_options

    refuse_other_options(**others)
    study.definition.check_registered()
    with send_notebook_code(study.definition, options, backend) as sent:
        run = None if sent.workers == 0 else lambda each: run_study(each, sent, backend)
        return evaluate_nested(study, count, seeds, run)


def _read_stats(study: Study, evaluations: Sequence[Study], *, ran: bool) -> list[EvaluationStats]:
    """Update what the dashboard shows, and return the statistics of some evaluations.

    Raises:
        RunError: an evaluation that ran has no complete run.
    """
    publish_evaluations(study)
    if ran:
        check_results(evaluations)
    results, comparisons = read_results_of(study, evaluations), read_comparisons_of(study, evaluations)
    across = compare_across(results)
    stats = [
        replace(compare_candidates(each), variance=measure_variance_sources(each), across=across) for each in results
    ]
    return stats + [replace(compare_candidates(each), pairs=tuple(compare_studies(each))) for each in comparisons]


def plan_request(study: Study, request: EvaluationRequest) -> list[Study]:
    """Create or extend the evaluations that a request asks for; run nothing.

    Raises:
        RequestError: see `plan_evaluations` and `hpo.execution.compare_studies.plan_comparison`.
    """
    request.check()
    if request.compare is not None:
        return plan_comparison(study, request.compare, request.seeds)
    names = request.datasets or [request.dataset]
    for name in names:  # all of them, before any evaluation is created
        choose_candidates(study, request.top, name, refit=request.refit)
        data = _load_tested(study.definition.dataset if name is None else refer_to_other(study, name))
        _check_split(data, request.vary)
    return [
        evaluation
        for name in names
        for vary in request.vary
        for evaluation in plan_evaluations(study, request.top, request.seeds, name, refit=request.refit, vary=vary)
    ]


def plan_evaluations(
    study: Study,
    top: int = 3,
    seeds: int = 5,
    dataset: object = None,
    *,
    refit: bool = False,
    needs_test: bool = True,
    vary: Source = "seed",
) -> list[Study]:
    """Create or extend the evaluations of a study's best configurations and its baseline; run nothing.

    Args:
        study: the study to evaluate.
        top: number of its configurations: that which `hpo export` writes, and the best; those of the Pareto front if it
            has several objectives.
        seeds: number of seeds that each is trained from.
        dataset: a name or an .npz file instead of the study's data set.
        refit: train on training and validation data together, for a fixed number of epochs.
        needs_test: whether data without a test set are refused; otherwise the validation data alone are measured on.
        vary: what follows the fresh seed; the rest stays as it was in the study.

    Raises:
        RequestError: no trial is complete, the study is an evaluation itself, a configuration does not fit the data, or
            these have no test set, or no split to vary.
    """
    candidates = choose_candidates(study, top, dataset, refit=refit)
    other = None if dataset is None else refer_to_other(study, dataset)
    reference = other or study.definition.dataset
    data = _load_tested(reference) if needs_test else load(reference)
    _check_split(data, [vary])
    tested = data.test is not None
    evaluations = create_evaluations(study, candidates, seeds, other, refit=refit, tested=tested, vary=vary)
    for each in evaluations:
        if (
            vary == "seed"
            and find_artifact(each, SAMPLES) is None
            and (content := pack_sample_images(data)) is not None
        ):
            save_artifact(each, SAMPLES, content)
    return evaluations


def _check_split(data: Dataset, vary: Sequence[Source]) -> None:
    if "split" not in vary or (data.validation is None and data.times is None):
        return
    why = "have validation samples of their own" if data.times is None else "have times, of which the latest validate"
    raise RequestError(f"evaluate --vary: the data {why}, so there is no split to vary; use --vary order,init,seed")


def refer_to_other(study: Study, dataset: object) -> DatasetReference:
    """Return the reference of another data set than a study's; a file without options is read with those of the study.

    The study's own file without options is the study's data set as it is.

    Raises:
        RequestError: it cannot be used, or is for another task.
    """
    own = study.definition.dataset
    name, source = parse_source(dataset)
    is_own = source is None and full_name(name) == own.name
    if is_own:  # its test part is that of the study, whose trials may have been trained on other rows
        dataset = own.spelled
    elif source is None and own.source is not None:
        shared = own.source.model_copy(update={"test": None, "validation": None})
        shared = shared if is_path(name) else DatasetSource(resize=shared.resize)
        dataset = name if shared == DatasetSource() else spell_source(name, shared)
    reference = make_reference(dataset)
    check_task(own.task, reference)
    return own if is_own and reference.sha256 == own.sha256 else reference


def choose_candidates(
    study: Study, top: int, dataset: object, *, refit: bool
) -> list[tuple[int, TrialConfig, int | None]]:
    """Return number, configuration and best epoch of the trials that an evaluation trains again; see above.

    Raises:
        RequestError: no trial is complete, the study is an evaluation itself, or it cannot be tested.
    """
    _check_objectives(study)
    rows = [row for row in rank_configurations(study, read_results(study)) if row.config is not None][:top]
    candidates = [(row.number, row.config, row.best_epoch) for row in rows if row.config is not None]
    if not candidates:
        raise RequestError(f"evaluate: study '{study.name}' has no COMPLETE trial to train again; launch it first")
    _check_loop(study, dataset, refit=refit)
    return candidates


def _check_objectives(study: Study) -> None:
    if study.definition.evaluation is not None:
        of = study.definition.evaluation.of
        raise RequestError(f"evaluate: '{study.name}' is an evaluation itself; evaluate '{of}' with other options")
    if not any(test_metric(objective.metric) for objective in study.definition.objectives):
        metrics = ", ".join(study.definition.metrics)
        raise RequestError(f"evaluate: no objective of study '{study.name}' can be measured on a test set ({metrics})")


def _check_loop(study: Study, dataset: object, *, refit: bool) -> None:
    if registry.NO_DATA in (study.definition.dataset.name, dataset):
        raise RequestError(
            f"evaluate: the training loop of study '{study.name}' reads its own data, so no test set is known here; "
            "register them with @hpo.dataset, name them in the study file, and let the loop take them from trial.data"
        )
    if refit and any(study.definition.declarations.get(name).loop for name in study.space.models):
        raise RequestError("evaluate --refit: a training loop of your own chooses its data itself; leave --refit out")


def run_evaluations(
    evaluations: Sequence[Study],
    options: WorkerOptions,
    should_stop: Callable[[], bool] = lambda: False,
    backend: Backend | None = None,
) -> None:
    """Run evaluations one after the other, with the workers of a backend, until no run is left.

    Raises:
        RunError: a worker failed.
    """
    for each in evaluations:
        if each.remaining() and not should_stop():
            run_workers(each, options, should_stop, backend)


def check_results(evaluations: Sequence[Study]) -> None:
    """Refuse to call evaluations a success of which one has no run that was tested.

    Raises:
        RunError: no run of one of them is complete; the line has the most frequent reason.
    """
    lines = [line for each in evaluations if (line := explain_no_result(each)) is not None]
    if lines:
        raise RunError("; ".join(lines))


def read_results_of(study: Study, evaluations: Sequence[Study]) -> list[EvaluationResults]:
    """Return the results of a study that some of its evaluations are part of."""
    names = {each.name for each in evaluations}
    return [results for results in read_evaluations(study) if names & set(results.all_studies)]


def read_comparisons_of(study: Study, evaluations: Sequence[Study]) -> list[EvaluationResults]:
    """Return the comparisons of a study with others that some of its evaluations are part of."""
    names = {each.name for each in evaluations}
    return [results for results in read_comparisons(study) if names & set(results.studies)]


def publish_evaluations(study: Study) -> None:
    """Update the study's figures and note in the dashboard, which show its evaluations."""
    publish_report(read_report_data(study))


def _load_tested(data: DatasetReference) -> Dataset:
    """Load a data set that must have a test set, which is not read here."""
    dataset = load(data)
    if dataset.test is None:
        held = "say test = 0.2 in a study file" if data.module is None else "give `test` in its hpo.Dataset"
        raise DataError(f"{data.name}: has no test set to evaluate on; {held}, or nest the study with --outer-folds 5")
    return dataset
