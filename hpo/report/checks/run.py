"""Diagnostics: the checks of Google's Deep Learning Tuning Playbook, computed from a study.

Godbole, Dahl, Gilmer, Shallue, Nado, "Deep Learning Tuning Playbook", 2023. Thresholds marked [P] are the playbook's.
"""

from __future__ import annotations

from collections.abc import Sequence

from hpo.report.checks.curves import CURVE_CHECKS
from hpo.report.checks.finding import Finding
from hpo.report.checks.space import SPACE_CHECKS
from hpo.report.checks.trust import TRUST_CHECKS
from hpo.report.data.evaluations import EvaluationResults
from hpo.report.data.results import Results

__all__ = ["CHECKS", "run_checks"]

CHECKS = (*SPACE_CHECKS, *CURVE_CHECKS, *TRUST_CHECKS)
LEVELS = ("warning", "note", "unknown", "ok")


def run_checks(results: Results, evaluations: Sequence[EvaluationResults] = ()) -> list[Finding]:
    """What all checks find, warnings first; a check that has too little to look at is `unknown`."""
    findings = [finding for check in CHECKS for finding in check(results, evaluations) or [_unknown(check.__name__)]]
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))


def _unknown(check: str) -> Finding:
    return Finding(
        check,
        check.replace("_", " "),
        "unknown",
        "the study has too few trials or epochs, or nothing that this check applies to",
    )
