"""Checks of Google's Deep Learning Tuning Playbook, computed from a study, and those of its data and of chance.

Godbole, Dahl, Gilmer, Shallue, Nado, "Deep Learning Tuning Playbook", 2023. Thresholds marked [P] are the playbook's.
"""

from __future__ import annotations

from collections.abc import Sequence

from hpo.report.checks.chance import CHANCE_CHECKS
from hpo.report.checks.curves import CURVE_CHECKS
from hpo.report.checks.data import DATA_CHECKS
from hpo.report.checks.finding import Finding
from hpo.report.checks.fits import FIT_CHECKS
from hpo.report.checks.selection import SELECTION_CHECKS
from hpo.report.checks.space import SPACE_CHECKS
from hpo.report.checks.trust import TRUST_CHECKS
from hpo.report.data.evaluations import EvaluationResults
from hpo.report.data.results import Results

__all__ = ["CHECKS", "run_checks"]

CHECKS = (*SPACE_CHECKS, *CURVE_CHECKS, *TRUST_CHECKS)
TITLES = {
    "boundary": "bounds of the ranges",
    "axis": "effect of each parameter",
    "density": "trials in the good region",
    "isolation": "best trial by value",
    "fairness": "trials per value",
    "rough": "noise late in training",
    "flat": "converged early",
    "best_epoch": "the best epoch",
    "periodic": "periodic validation",
    "budget": "size of the budget",
    "stability": "edge of stability",
    "rising": "loss above the best learning rate",
    "improving": "still improving",
    "infeasible": "diverged or failed trials",
    "checkpoint": "evaluation by epoch",
    "warm_up": "warm-up",
    "adam": "parameters of Adam",
}  # of checks that could not be computed
# Checks of what only configurations of ours have: their parameters, losses, seeds and test sets.
OF_CONFIGURATIONS = {
    *("adam", "checkpoint", "conditional", "fixed", "noise", "order", "overfitting", "patterns", "periodic"),
    *("best_epoch", "clipping", "retraining", "rising", "stability", "training_loss", "warm_up"),
}
# Checks of how trials were chosen, and from what: the runs of an evaluation are a grid of configurations and seeds.
OF_SEARCHES = {
    *("boundary", "axis", "density", "isolation", "fairness", "fixed", "conditional", "patterns", "adam"),
    *("stability", "rising", "budget", "retraining", "search_seed", "noise", "order"),
}
LEVELS = ("warning", "note", "unknown", "ok")


def run_checks(results: Results, evaluations: Sequence[EvaluationResults] = ()) -> list[Finding]:
    """Run all checks and return their findings, warnings first; a check with too little data is `unknown`.

    Those of the data say nothing where no worker has looked at them, or where there is nothing of their kind; those of
    chance where no evaluation has measured it; those of folds where a trial has one fit; those of the choice where
    there are no sample scores.
    """
    definition = results.definition
    left_out = set() if definition.configured else OF_CONFIGURATIONS
    left_out = left_out if definition.evaluation is None else left_out | OF_SEARCHES
    checks = [check for check in CHECKS if check.__name__ not in left_out]
    findings = [
        finding for check in checks for finding in check(results, evaluations) or [_unknown(check.__name__, results)]
    ]
    others = (*CHANCE_CHECKS, *DATA_CHECKS, *FIT_CHECKS, *SELECTION_CHECKS)
    findings += [finding for check in others for finding in check(results, evaluations)]
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))


def _unknown(check: str, results: Results) -> Finding:
    return Finding(
        check,
        TITLES.get(check) or check.replace("_", " "),
        "unknown",
        f"the study has too few trials or {results.step_name}s, or nothing that this check applies to",
    )
