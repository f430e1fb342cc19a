"""Pruner `wilcoxon` of trials of several fits, as its options describe it; `hpo.study.racing` asks it."""

from __future__ import annotations

import optuna
from optuna.trial import FrozenTrial
from typing_extensions import override

__all__ = ["FitPruner"]


class FitPruner(optuna.pruners.BasePruner):
    """Pruner of trials that are worse than the best one on the fits that both have; see `hpo.study.racing.Race`.

    Args:
        p_threshold: p of the test below which a trial is dropped.
        n_startup_steps: how many fits two trials must share.
        n_warmup_steps: epochs before the first comparison.
    """

    def __init__(self, p_threshold: float = 0.1, n_startup_steps: int = 2, n_warmup_steps: int = 0) -> None:
        self.p_threshold, self.least_fits, self.warmup = p_threshold, max(2, n_startup_steps), n_warmup_steps

    @override
    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Return false: what a trial reports to Optuna is the mean over its fits, which are compared apart."""
        return False
