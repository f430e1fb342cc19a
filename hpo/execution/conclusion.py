"""Conclusion of a study that is to end once it has settled: fresh seeds of its tied leaders, and a verdict.

What is left of the study's timeout is spent on its evaluation, the same that `hpo evaluate` makes: every model is
measured on the test set once, if the data have one, and every reading is counted. How many seeds there are is decided
by validation scores alone, so that the test scores are what they would be without that decision.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from hpo.errors import RequestError
from hpo.execution.evaluate import check_results, plan_evaluations, publish_evaluations, read_results_of
from hpo.execution.evaluate_function import plan_function_evaluations, refuse_seedless
from hpo.execution.objective_function import ObjectiveFunction
from hpo.report.chapters.verdict import describe_evaluation
from hpo.report.commands import format_command
from hpo.report.data.evaluations import EvaluationResults, read_evaluations
from hpo.report.data.results import read_results
from hpo.report.export_config import choose_exported, rank_configurations
from hpo.report.format import gain_text, names_text
from hpo.report.stats.evaluation_stats import FEWEST_SEEDS, EvaluationStats, compare_candidates
from hpo.report.stats.null_result import explain_null_result, list_leaders
from hpo.report.stats.selection import read_corrected_results
from hpo.study import Study
from hpo.study.definition import SETTLED
from hpo.study.operations.evaluation_study import MAX_SEEDS
from hpo.study.outlook import explain_unsettled

__all__ = ["Conclusion", "Verdict"]

log = logging.getLogger("hpo.study")


@dataclass(frozen=True)
class Verdict:
    """Verdict on a study.

    Attributes:
        lines: the verdict in words; none where none is asked for, or the study goes on.
        trial: which was the best from fresh seeds; None where the default configuration was, or none was trained.
        keeps_default: whether the default configuration was.
    """

    lines: tuple[str, ...] = ()
    trial: int | None = None
    keeps_default: bool = False


@dataclass(frozen=True)
class Conclusion:
    """Conclusion of one study, which has ended.

    Attributes:
        study: the study.
        run: runs an evaluation, and begins no trial of it after a time, in seconds since 1970.
        should_stop: true asks for an orderly stop.
        function: the study's objective function, if it has one.
    """

    study: Study
    run: Callable[[Study, float], object]
    should_stop: Callable[[], bool] = lambda: False
    function: ObjectiveFunction | None = None

    def conclude(self) -> Verdict:
        """Spend what is left of the timeout, and return the verdict; one without lines if none is asked for.

        Raises:
            RunError: a worker failed, or no fresh seed came to an end.
        """
        if self.study.budget.until != SETTLED or self.should_stop():
            return Verdict()
        results = read_corrected_results(self.study)
        settled = results.settled
        if settled is None:
            if results.remaining_trials:
                return Verdict()
            last = results.outlooks[-1] if results.outlooks else None
            return Verdict((f"not settled: {explain_unsettled(last, results.definition, results.budget.trials)}",))
        if (null := explain_null_result(results)) is not None:
            return Verdict((str(null),))
        leaders = [row.number for row in list_leaders(results, settled.noise, rank_configurations(self.study, results))]
        noise = gain_text(results.objective.metric, settled.noise)
        if len(leaders) == 1:
            return Verdict((f"trial {leaders[0]} leads by more than the noise, {noise}",))
        tied = f"trials {names_text([*map(str, leaders)])} are tied: they differ by less than the noise, {noise}"
        left = self.study.seconds_left
        if left is None or left <= 0:
            known = [each for each in read_evaluations(self.study) if each.on_own_data and not each.refit]
            if any(set(leaders) <= {each.trial for each in one.candidates if each.complete_runs} for one in known):
                return self._decide(known)
            command = format_command(results, "launch", "--timeout 10m")
            return Verdict((f"{tied}; compare them from fresh seeds, for ten minutes, with: {command}",))
        log.info("%s; fresh seeds of them for up to %.0f s", tied, left)
        return self._compare(len(leaders), settled.noise, self.study.storage.read_clock() + left, tied)

    def _compare(self, top: int, noise: float, deadline: float, tied: str) -> Verdict:
        """Train the leaders from more and more seeds, until they are told apart or the time is up."""
        seeds, evaluations = FEWEST_SEEDS, list[Study]()
        with nullcontext() if self.function is None else refuse_seedless(self.study):
            while True:
                try:
                    evaluations = self._plan(top, seeds)
                except RequestError as error:
                    return Verdict((tied, str(error)))
                for each in evaluations:
                    if each.remaining() and not self._ends(deadline):
                        self.run(each, deadline)
                compared = read_results_of(self.study, evaluations)
                stats = [compare_candidates(each, by_validation=True) for each in compared]
                if self._ends(deadline) or all(_is_decided(each, noise) for each in stats) or seeds >= MAX_SEEDS:
                    break
                seeds = min(seeds + max(seeds // 2, 1), MAX_SEEDS)
        if self.should_stop():
            return Verdict()
        publish_evaluations(self.study)
        if (verdict := self._decide(compared)).lines:
            return verdict
        if not self._ends(deadline):
            check_results(evaluations)
        return Verdict((f"{tied}; no fresh seed of them came to an end in the time that was left",))

    def _decide(self, evaluations: Sequence[EvaluationResults]) -> Verdict:
        """Return the verdict of evaluations; one without lines before any of their runs is complete."""
        final = [(each, compare_candidates(each)) for each in evaluations]
        best = [stats.best.candidate for _, stats in final if stats.best is not None]
        if not best:
            return Verdict()
        lines = [line for each, stats in final for line in describe_evaluation(each, stats)]
        trial = best[0].trial
        return Verdict((*lines, *self._advise(trial)), trial, keeps_default=trial is None)

    def _advise(self, trial: int | None) -> list[str]:
        """Say how to export the trial that was best from fresh seeds, where the study's own choice is another."""
        results = read_results(self.study)
        if trial is None:
            return ["keep the default configuration, or search another space: no trial is better"]
        if trial == choose_exported(self.study, results).row.number:
            return []
        options = f"--trial {trial}" + (" --format python" if results.definition.learned else "")
        return [f"export trial {trial} with: {format_command(results, 'export', options)}"]

    def _plan(self, top: int, seeds: int) -> list[Study]:
        if self.function is None:
            return plan_evaluations(self.study, top, seeds, needs_test=False)
        return plan_function_evaluations(self.study, top, seeds, self.function)

    def _ends(self, deadline: float) -> bool:
        return self.should_stop() or self.study.storage.read_clock() >= deadline


def _is_decided(stats: EvaluationStats, noise: float) -> bool:
    """Return whether each of the others is worse than the best, or differs from it by less than the noise."""
    differences = [each.difference for each in stats.comparisons]
    return bool(differences) and all(each.low > 0 or max(-each.low, each.high) < noise for each in differences)
