"""Choice of the configuration that is used, by a rule that is named."""

from __future__ import annotations

import math
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from hpo.errors import RequestError, describe_unknown
from hpo.report.commands import format_command
from hpo.report.data.evaluations import EvaluationResults
from hpo.report.data.results import Results, TrialRow
from hpo.report.data.sample_scores import SampleTable
from hpo.report.format import count_text, metric_text, number_of
from hpo.report.stats.evaluation_stats import compare_candidates
from hpo.report.stats.pairwise import paired_errors
from hpo.report.stats.trial_stats import standard_error
from hpo.study.definition import Evaluation

__all__ = ["RULES", "Choice", "Rule", "choose_trial", "default_rule"]

SAME_TIME = 1.1  # times the shortest training: those that take less are no slower
Rule = Literal["best", "one_se", "evaluated"]
RULES: tuple[Rule, ...] = get_args(Rule)


@dataclass(frozen=True)
class Choice:
    """The trial that is used.

    Attributes:
        row: the trial.
        rule: by which it was chosen.
        reason: what the rule found, a clause: `it has the fewest weights of …`.
    """

    row: TrialRow
    rule: Rule
    reason: str


def default_rule(results: Results) -> Rule:
    """Return the rule where none is named: `one_se` where trials share the best value, for `best` cannot tell them.

    They do so where validation samples are few. The rule is `best` everywhere else, and for objective functions, whose
    trials have no size.
    """
    best, shared = results.best, len(results.objectives) == 1 and results.definition.configured
    ties = sum(row.value == best.value for row in results.ranked) if best is not None else 0
    return "one_se" if shared and ties > 1 and results.definition.evaluation is None else "best"


def choose_trial(
    results: Results,
    rule: str | None = None,
    table: SampleTable | None = None,
    evaluations: Sequence[EvaluationResults] = (),
    among: Collection[int] | None = None,
) -> Choice:
    """Choose the trial that is used.

    - `best`: the best value; of equals the first trial. Of a refit, whose only values are of the test set, which is not
      to choose by, the first run of the configuration that its study ranked first.
    - `one_se`: the cheapest trial (the fewest weights, then a training shorter by a tenth) within one standard error
      of the best: of the difference, sample by sample, where both have sample scores, else of the best one's score.
      Where neither is known, among those of the best value. Of equally cheap ones the best.
    - `evaluated`: the best from fresh seeds, as `hpo evaluate` trained it.

    Args:
        results: the study.
        rule: its name; None for `default_rule`.
        table: the study's sample scores, if they have been read.
        evaluations: of the study.
        among: numbers of the trials that `one_se` may choose, beside the best one, and those from which a refit's is
            chosen, if it has any; None for all.

    Raises:
        RequestError: there is no such rule, no complete trial, several objectives (`one_se`), or no finished evaluation
            (`evaluated`).
    """
    if rule is not None and rule not in RULES:
        raise RequestError(describe_unknown("rule", rule, RULES))
    if results.best is None:
        counts = ", ".join(f"{count} {state}" for state, count in results.counts.items() if count)
        raise RequestError(
            f"study '{results.name}' has no COMPLETE trial yet ({counts or 'no trials'}); name one with --trial"
        )
    name = rule or default_rule(results)
    if name == "evaluated":
        return _choose_evaluated(results, evaluations)
    if name == "one_se":
        return _choose_cheapest(results, table, among)
    evaluation = results.definition.evaluation
    if evaluation is not None and evaluation.refit:
        return _choose_refit(results, evaluation, among)
    return Choice(results.best, "best", "it has the best value")


def _choose_refit(results: Results, evaluation: Evaluation, among: Collection[int] | None) -> Choice:
    order = {candidate.label: place for place, candidate in enumerate(evaluation.candidates)}

    def place(row: TrialRow) -> tuple[int, bool, int]:
        away = among is not None and row.number not in among
        return order.get(str(row.params.get("configuration")), len(order)), away, row.config.seed if row.config else 0

    reason = f"its configuration is the first of study '{evaluation.of}', and the test set is not to choose by"
    return Choice(min(results.ranked, key=place), "best", reason)


def _choose_cheapest(results: Results, table: SampleTable | None, among: Collection[int] | None) -> Choice:
    if len(results.objectives) > 1:
        raise RequestError(
            f"rule one_se: study '{results.name}' has {len(results.objectives)} objectives; choose a trial of its "
            f"Pareto front with --trial (`hpo show {shlex.quote(results.name)}` lists them)"
        )
    best = results.best
    assert best is not None
    paired = {} if table is None else paired_errors(table, results, best.number)
    error = standard_error(results)
    near, known = _list_near(results, best, paired, error or 0.0), error is not None or bool(paired)
    allowed = [row for row in near if among is None or row.number in among] or [best]
    if len(near) == 1:
        alone = "no other trial is within one standard error of it"
        return Choice(best, "one_se", alone if known else "it has the best value, whose standard error is not known")
    within = "within one standard error of" if known else "that share"
    group = f"of the {count_text(len(near))} trials {within} the best {_metric(results)}"
    smallest = _list_smallest(allowed)
    fastest = _list_fastest(smallest)
    reason = _describe_cost(allowed, smallest, fastest)
    return Choice(fastest[0], "one_se", f"{group} (trial {best.number}) it is {reason}")


def _metric(results: Results) -> str:
    return metric_text(results.objective.metric)


def _list_near(results: Results, best: TrialRow, paired: Mapping[int, float], alone: float) -> list[TrialRow]:
    """List the trials within one standard error of the best, the best first."""
    return [
        row for row in results.ranked if abs((row.value or 0.0) - (best.value or 0.0)) <= paired.get(row.number, alone)
    ]


def _list_smallest(rows: Sequence[TrialRow]) -> list[TrialRow]:
    """List the trials of the fewest weights, in their order."""
    sizes = [math.inf if row.parameter_count is None else row.parameter_count for row in rows]
    return [row for row, size in zip(rows, sizes, strict=True) if size == min(sizes)]


def _list_fastest(rows: Sequence[TrialRow]) -> list[TrialRow]:
    """List the trials that took no longer than the shortest training and a tenth, in their order.

    Less is chance; and the trials of a cohort share its time.
    """
    seconds = [math.inf if row.seconds is None else row.seconds for row in rows]
    return [row for row, own in zip(rows, seconds, strict=True) if own <= SAME_TIME * min(seconds)]


def _describe_cost(rows: Sequence[TrialRow], smallest: Sequence[TrialRow], fastest: Sequence[TrialRow]) -> str:
    """Say by what the best of those that are fastest to train among the smallest trials is the cheapest of all."""
    if len(rows) == 1:
        return "the only one whose weights are here"
    count = smallest[0].parameter_count or 0
    if len(smallest) == 1:
        return f"the smallest ({number_of(count, 'weight')})"
    few = "" if len(smallest) == len(rows) else f" of those with the fewest weights ({count_text(count)})"
    if len(fastest) == len(smallest):
        return f"the best{few}" if few else "the best of equal size and training time"
    if len(fastest) == 1:
        return f"the fastest to train{few}"
    return f"the best{few} and the shortest training" if few else "the best of those with the shortest training"


def _choose_evaluated(results: Results, evaluations: Sequence[EvaluationResults]) -> Choice:
    command = format_command(results, "evaluate")
    for evaluation in (each for each in evaluations if each.on_own_data and not each.refit):
        best = compare_candidates(evaluation).best
        if best is None:
            continue
        if best.candidate.trial is None:
            raise RequestError(
                f"rule evaluated: from fresh seeds the default configuration is better than every trial of study "
                f"'{results.name}' that was evaluated; name a trial with --trial, or choose by rule best"
            )
        return Choice(results.trial(best.candidate.trial), "evaluated", "it has the best mean score from fresh seeds")
    raise RequestError(
        f"rule evaluated: no configuration of study '{results.name}' has been evaluated from fresh seeds; run {command}"
    )
