"""Verdict: the report in three lines, which claim no more than the numbers do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from hpo.report.chapters.nested import describe_nested
from hpo.report.chapters.reference_models import compare_with_evaluated, compare_with_trial
from hpo.report.commands import format_command
from hpo.report.data.corrected_score import describe_choice, describe_correction
from hpo.report.data.evaluations import CandidateRuns, EvaluationResults
from hpo.report.data.results import Results, TrialRow
from hpo.report.format import (
    candidate_text,
    count_text,
    gain_text,
    is_share,
    metric_text,
    names_text,
    number_of,
    sentence,
    state_text,
    values_text,
)
from hpo.report.report_data import ReportData
from hpo.report.stats.evaluation_stats import (
    Comparison,
    EvaluationStats,
    Interval,
    Score,
    list_lost_runs,
)
from hpo.report.stats.null_result import explain_null_result
from hpo.report.stats.trial_stats import standard_error
from hpo.utils.text import format_rough

__all__ = ["describe_evaluation", "interval_text", "write_verdict"]

LEVEL = 0.95
COUNTED = ("parameter_count", "train_seconds")  # objectives that say nothing of data


def write_verdict(data: ReportData) -> list[str]:
    """Write the report in three lines of plain text: the best trial and its score, how sure that is, what to do next.

    Commands stand between backticks. No winner is named where the differences are not significant.
    """
    results = data.results
    deciding = _deciding_evaluation(data)
    null = explain_null_result(results)
    nothing = sentence(str(null)) if null else ""
    if deciding is not None:
        evaluation, stats, score = deciding
        comparison = " ".join([_comparison_text(stats), *(sentence(line) for line in list_lost_runs(evaluation))])
        if len(results.objectives) > 1:
            comparison = (
                f"{_front_text(results)} By {metric_text(evaluation.objective.metric)} alone: {comparison}".strip()
            )
        sure = "" if stats.winner else nothing, comparison, compare_with_evaluated(evaluation, score)
        lines = [_evaluated_text(evaluation, score), " ".join(filter(None, sure))]
    elif results.best is None:
        lines = [_no_result_text(results), "Only complete trials are ranked, so there is nothing to compare yet."]
    else:
        leads = "" if null else _single_run_leads(results, results.best)
        alone = nothing, _corrected_text(results), leads, compare_with_trial(results, data.reference_models)
        lines = [_single_run_text(results, results.best), " ".join(filter(None, alone))]
    if nested := _nested_text(data):
        lines[1] = f"{nested} {lines[1]}"
    return [*lines, _next_step(data, None if deciding is None else deciding[2].candidate)]


def describe_evaluation(evaluation: EvaluationResults, stats: EvaluationStats) -> list[str]:
    """Describe the best of an evaluation and its lead, a line each; nothing before any run is complete."""
    return [] if stats.best is None else [_evaluated_text(evaluation, stats.best), _comparison_text(stats)]


def _nested_text(data: ReportData) -> str:
    """Return what the nested evaluation of the most outer folds says; nothing without a complete one."""
    complete = [each for each in data.nested if each.complete]
    return " ".join(describe_nested(complete[-1])[:2]) if complete else ""


def _deciding_evaluation(data: ReportData) -> tuple[EvaluationResults, EvaluationStats, Score] | None:
    """Return the evaluation on the study's own data that has results, rather one without a refit, and its best."""
    pairs = zip(data.evaluations, data.evaluation_stats, strict=True)
    for evaluation, stats in sorted((pair for pair in pairs if pair[0].on_own_data), key=lambda pair: pair[0].refit):
        if stats.best is not None:
            return evaluation, stats, stats.best
    return None


# With an evaluation.


def _evaluated_text(evaluation: EvaluationResults, best: Score) -> str:
    metric = evaluation.test_metric if best.test is not None else evaluation.validation_metric
    interval = best.test or best.validation
    assert metric is not None
    assert interval is not None
    data = " trained on training and validation data" if evaluation.refit else ""
    line = f"{_label_at_start(best.candidate.label)}{data}: {metric_text(metric)} {interval_text(metric, interval)}."
    if best.study_score is None or best.bias is None or best.validation is None:
        return line
    study_score, fresh_score = (
        values_text(evaluation.objective.metric, x) for x in (best.study_score, best.validation.mean)
    )
    name = metric_text(evaluation.objective.metric)
    if evaluation.function:
        return f"{line} Its {name} was {study_score} in the study."
    return f"{line} Its {name} was {study_score} in the study and {fresh_score} from fresh seeds."


def interval_text(metric: str, interval: Interval) -> str:
    """Format a mean with its 95 % interval: `97.71 % (95 % interval 97.60 to 97.82 %, 5 seeds)`."""
    mean = values_text(metric, interval.mean)
    if interval.count < 2:
        return f"{mean} (one seed, so no interval)"
    if not math.isfinite(interval.low):
        return f"{mean} ({number_of(interval.count, 'seed')}, too few for an interval)"
    low, high = (values_text(metric, bound) for bound in (interval.low, interval.high))
    return f"{mean} (95 % interval {low.removesuffix(' %')} to {high}, {number_of(interval.count, 'seed')})"


def _comparison_text(stats: EvaluationStats) -> str:
    """Say whether the best is better than the rival and the others; without significance no winner is named."""
    rival = next((each.candidate.label for each in stats.scores if each.candidate.baseline), None)
    compared = {each.second: each for each in stats.comparisons}
    if stats.winner is not None:
        rest = [candidate_text(label) if label == rival else label for label in compared]
        weakest = min(stats.comparisons, key=lambda each: each.difference.mean)
        if len(rest) == 1:
            return f"It is better than {rest[0]} by {_difference_text(weakest)}."
        closest = candidate_text(weakest.second)
        lead = f"its lead over the closest, {closest}, is {_difference_text(weakest)}"
        return f"It is better than {names_text(rest)}; {lead}."
    beaten = [label for label, each in compared.items() if each.significant and each.difference.mean > 0]
    worse = [label for label, each in compared.items() if each.significant and each.difference.mean < 0]
    if not compared and stats.uncompared:
        others = names_text([*map(candidate_text, stats.uncompared)])
        return f"It was run from no seed of {others}, so they cannot be compared."
    if not compared:
        return "No other one has been evaluated."
    where = "" if stats.scores[0].candidate.config is None else "on the test set "
    parts = [f"No winner: no significant difference from {names_text([*map(candidate_text, stats.tied)])}"]
    if not stats.tied:
        parts = ["No winner"]
    if worse:
        parts.append(f"{where}{names_text([*map(candidate_text, worse)])} {'is' if len(worse) == 1 else 'are'} better")
    if beaten:
        parts.append(f"it is better than {names_text([*map(candidate_text, beaten)])}")
    return "; ".join(parts) + "."


def _difference_text(comparison: Comparison) -> str:
    difference = comparison.difference
    low, high = (gain_text(comparison.metric, bound) for bound in (difference.low, difference.high))
    unit = " percentage points"
    return f"{gain_text(comparison.metric, difference.mean)} ({low.removesuffix(unit)} to {high.removesuffix(unit)})"


def _label_at_start(label: str) -> str:
    return _capitalize(candidate_text(label))


def _capitalize(text: str) -> str:
    return text[:1].upper() + text[1:]


# Without one.


def _no_result_text(results: Results) -> str:
    counts = ", ".join(f"{count_text(count)} {state_text(state)}" for state, count in results.counts.items() if count)
    return f"No result yet: no trial is complete ({counts or 'no trials yet'}){_all_infeasible_clause(results)}."


def _all_infeasible_clause(results: Results) -> str:
    """Say so where nothing but constraints keeps trials from being complete."""
    ended = [row for row in results.trials if row.state in ("PRUNED", "FAIL", "COMPLETE")]
    if not ended or any(row.feasible for row in ended):
        return ""
    bounds = names_text([constraint.text for constraint in results.definition.constraints])
    return f", and every trial that ended violates {bounds}"


def _single_run_text(results: Results, best: TrialRow) -> str:
    """Return the best trial with its values, how many it is the best of, and that it is not tested yet."""
    pairs = zip(results.objectives, best.values or (), strict=False)
    values = ", ".join(f"{metric_text(o.metric)} {values_text(o.metric, value)}" for o, value in pairs)
    if len(results.objectives) == 1 and best.standard_error is not None:
        metric, error = results.objective.metric, format_rough(best.standard_error)
        error = values_text(metric, best.standard_error) if is_share(metric) else error
        values += f" ± {error} (standard error{_describe_fits(results, best)})"
    count = len(results.ranked)
    place = f"best of {count_text(count)} complete trials" if count > 1 else "the only complete trial"
    if len(results.objectives) > 1 and count > 1:
        place += f" by {metric_text(results.objective.metric)}"
    needs_test = results.objective.metric not in COUNTED and results.definition.evaluation is None
    needs_test = needs_test and results.definition.configured  # what the value is measured on, the function knows
    return f"Trial {best.number}: {values}, {place}{'; not tested yet' if needs_test else ''}."


def _corrected_text(results: Results) -> str:
    """Return what the best trial is worth, corrected for its having been chosen; nothing where that is not known."""
    score = results.corrected
    if score is None:
        return ""
    pruned = sum(row.state == "PRUNED" and row.failure is None for row in results.trials)
    flatters = ""
    if pruned > score.trials:  # among which the choice was made first of all
        flatters = f"The {number_of(pruned, 'pruned trial')} took no part in that, so it may still be flattered."
    return " ".join(filter(None, (describe_correction(score, said=True), flatters, describe_choice(score))))


def _describe_fits(results: Results, best: TrialRow) -> str:
    """Say what a trial's standard error is over: its folds, repeats and seeds, or its validation samples."""
    resampling = results.definition.resampling
    if not best.fits:
        return " over its validation samples" if results.definition.configured else ""
    if resampling is not None and len(best.fits) == resampling.count:
        return f" of the mean over {resampling.factors}"
    return f" of the mean over {number_of(len(best.fits), 'fit')}"


def _single_run_leads(results: Results, best: TrialRow) -> str:
    """Say what one seed each allows to say of the baseline and the runner-up."""
    rivals = _find_rivals(results, best)
    sentences = [*_baseline_sentences(results, best), *(_lead_sentences(results, best, rivals) if rivals else [])]
    if len(results.objectives) > 1:
        compared = results.baseline is not None and results.baseline.comparable
        by = [f"By {metric_text(results.objective.metric)} alone:"] if compared else []  # of which `best` is the best
        sentences = [*filter(None, [_front_text(results)]), *by, *sentences]
    return " ".join(sentences) or "There is no other trial to compare it with."


def _front_text(results: Results) -> str:
    if len(results.front) > 1:
        return f"No single winner: the {len(results.front)} trials on the Pareto front trade one objective for another."
    others = len(results.ranked) - 1
    if not others:
        return ""
    rest = "the other trial is not" if others == 1 else f"none of the other {others} trials is"
    return f"It alone is the Pareto front: {rest} better in any objective."


def _find_rivals(results: Results, best: TrialRow) -> list[tuple[str, TrialRow]]:
    """Return the baseline and the runner-up, with what they are called."""
    baseline = results.baseline
    rivals = [("the baseline", baseline)] if baseline is not None and baseline.comparable else []
    if len(results.objectives) == 1:
        rivals += [(f"trial {row.number} (the runner-up)", row) for row in results.ranked[1:2] if not row.baseline]
    return [(words, row) for words, row in rivals if row is not None and row.number != best.number]


def _lead_sentences(results: Results, best: TrialRow, rivals: Sequence[tuple[str, TrialRow]]) -> list[str]:
    """Name the leads that exceed chance, and those that do not: with these no winner is named."""
    ties = [words for words, row in rivals if row.value == best.value]
    leads = [
        _Lead(words, abs((best.value or 0.0) - (row.value or 0.0)), _chance_limit(results, row))
        for words, row in rivals
        if words not in ties
    ]
    if ties:
        equal = names_text(ties)
        told = f"{equal[0].upper()}{equal[1:]} {'has' if len(ties) == 1 else 'have'} the same value: no winner."
        return [told, *_describe_leads(results, leads)]
    return _describe_leads(results, leads)


@dataclass(frozen=True)
class _Lead:
    """Lead over a rival, and how far chance may reach; None where that is not known."""

    rival: str
    gain: float
    reach: float | None


def _describe_leads(results: Results, leads: Sequence[_Lead]) -> list[str]:
    metric, lines = results.objective.metric, list[str]()
    # What a function's value is measured on, the function knows.
    noise = "sampling noise in the validation data" if results.definition.configured else "the noise of its values"
    if results.definition.several_fits:
        noise = "the noise of its fits and of their validation samples"
    clear = [each for each in leads if each.reach is not None and each.gain > each.reach]
    close = [each for each in leads if each not in clear]
    if clear:
        reaches = names_text(list(dict.fromkeys(gain_text(metric, each.reach or 0.0) for each in clear)))
        lines.append(
            f"It leads {_rivals_text(metric, clear)}, more than {noise} explains "
            f"({reaches}); with {_count_seeds(results)} each that is no proof."
        )
    known = [each.reach for each in close if each.reach is not None]
    if close and not known:
        more = "." if metric in COUNTED else f"; with {_count_seeds(results)} each no winner can be named."
        lines.append(f"It leads {_rivals_text(metric, close)}{more}")
    elif close:
        also = " also" if clear else ""
        reach = f" ({noise} alone reaches {gain_text(metric, max(known))})"
        lines.append(
            f"No winner: it{also} leads {_rivals_text(metric, close)}, which may be chance{'' if clear else reach}."
        )
    return lines


def _rivals_text(metric: str, leads: Sequence[_Lead]) -> str:
    return names_text([f"{each.rival} by {gain_text(metric, each.gain)}" for each in leads])


def _count_seeds(results: Results) -> str:
    """Say how often each trial was measured: `one seed`, `15 fits`, or `one call` of an objective function."""
    definition = results.definition
    if definition.several_fits:
        return number_of(len(definition.fits), "fit")
    return "one seed" if definition.configured else "one call"


def _chance_limit(results: Results, rival: TrialRow) -> float | None:
    """Return how far the best of k equal configurations may lead another by chance in the validation data (95 %).

    A normal quantile of the difference of two estimates, its level divided by k (Bonferroni): the best of many is
    lucky. Without sample scores two trials are taken as independent, which is cautious where they share their
    validation samples.
    """
    quantile = NormalDist().inv_cdf(1 - (1 - LEVEL) / (2 * max(len(results.ranked), 1)))
    if results.corrected is not None and (paired := results.corrected.difference_errors.get(rival.number)):
        return quantile * paired
    error = standard_error(results)
    return None if error is None else quantile * math.sqrt(2) * error


def _baseline_sentences(results: Results, best: TrialRow) -> list[str]:
    """Describe a baseline that is no rival: it has no score, or is the best itself."""
    row = results.baseline
    if row is None:
        return []
    if row.number == best.number:
        return ["The best trial is the baseline itself: no other trial is better."]
    if row.comparable:
        return []
    was = {"PRUNED": "was pruned", "FAIL": "failed"}.get(row.state, f"is {state_text(row.state)}")
    return [f"The baseline (trial {row.number}) has no score to compare with: it {was}."]


# What to do.


def _next_step(data: ReportData, evaluated: CandidateRuns | None) -> str:
    """Return the advice of the first warning, for an evaluation of a faulty study measures the fault; or a command."""
    results, findings = data.results, data.findings
    ended = not results.remaining_trials or results.stop_reason is not None
    if results.best is None and ended and _all_infeasible_clause(results):
        return "Next: loosen the constraints, or widen the space to configurations that satisfy them."
    if ended and results.best is not None and results.definition.evaluation is not None:
        return f"Next: read the report of {results.definition.companion_of}, the study that this one evaluates."
    warning = next((each for each in findings if each.level == "warning" and each.advice), None)
    if warning is not None:
        more = sum(each.level == "warning" for each in findings) - 1
        others = f" ({number_of(more, 'more warning')} below)" if more else ""
        return sentence(f"Next: {warning.advice.removesuffix('.')}{others}")
    if not ended:
        return f"Next: {'resume' if results.started_at else 'start'} it with `{format_command(results, 'launch')}`."
    if results.best is None and results.counts["PRUNED"] and not results.counts["FAIL"]:
        return "Next: prune later, or not at all: no trial has come to its end."
    if results.best is None:
        return "Next: find out why no trial is complete; the chapter Cost lists the failures with their messages."
    if results.definition.learned:
        return _next_step_of_function(data, evaluated)
    if finish := _finish_evaluation(data):
        return finish
    if (of := results.definition.companion_of) is not None:
        return f"Next: read the report of {of}, the study that this one evaluates."
    if evaluated is None and any(each.complete for each in data.nested):
        return f"Next: export the configuration with `{format_command(results, 'export')}`."
    if evaluated is None and not results.definition.dataset.tested:
        return f"Next: score it without a test set, by `{format_command(results, 'evaluate', '--outer-folds 5')}`."
    if evaluated is None:
        return f"Next: evaluate it from fresh seeds and on the test set with `{format_command(results, 'evaluate')}`."
    if evaluated.trial is None:
        return "Next: keep the default configuration, or search another space: no trial is better."
    chosen = results.best if data.choice is None else data.choice.row
    other = "" if evaluated.trial == chosen.number else f"--trial {evaluated.trial}"
    return f"Next: export the configuration with `{format_command(results, 'export', other)}`."


def _finish_evaluation(data: ReportData) -> str:
    left = sum(each.remaining_runs for each in data.evaluations if each.on_own_data)
    command = format_command(data.results, "evaluate")
    return f"Next: finish the evaluation ({number_of(left, 'run')} left) with `{command}`." if left else ""


def _next_step_of_function(data: ReportData, evaluated: CandidateRuns | None) -> str:
    """Return what to do with the parameters of an objective function; one that takes a seed can be evaluated."""
    results = data.results
    if finish := _finish_evaluation(data):
        return finish
    if evaluated is None and results.takes_seed:
        return f"Next: call the best ones again with fresh seeds, by `{format_command(results, 'evaluate')}`."
    other = evaluated is not None and results.best is not None and evaluated.trial != results.best.number
    more = f"--trial {evaluated.trial} --format python" if evaluated is not None and other else "--format python"
    return f"Next: use its parameters; `{format_command(results, 'export', more)}` prints them."
