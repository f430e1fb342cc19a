"""How important each parameter was, by Optuna's PED-ANOVA."""

from __future__ import annotations

import warnings

from hpo.report.data.results import Results
from hpo.study import Study

__all__ = ["importances"]


def importances(study: Study, results: Results) -> tuple[dict[str, float], str]:
    """Shares by dimension key, the largest first, summing to 1; and why there are none, where there are none.

    PED-ANOVA (Watanabe, Bansal and Hutter, 2023) compares the best trials with all; it handles parameters that only
    some trials have.
    """
    held = {key for row in results.ranked for key in row.params}
    keys = [dimension.key for dimension in results.space.varied if dimension.key in held]
    if not results.varied:
        return {}, "The study varies no parameter."
    few = "Too few complete trials to tell what mattered."
    if not keys or len(results.ranked) < 4:
        return {}, few
    from optuna.importance import get_param_importances

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            shares = get_param_importances(study.optuna_study, params=keys, normalize=False)
        except ValueError as error:  # trials that others added need not fit together
            return {}, f"Importances cannot be computed: {error}"
    total = sum(shares.values())
    if not total > 0:
        return {}, few
    return {key: share / total for key, share in sorted(shares.items(), key=lambda item: -item[1])}, ""
