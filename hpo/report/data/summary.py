"""Summary of a study for JSON, as `hpo show` writes it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from hpo.report.data.corrected_score import corrected_json
from hpo.report.data.repeats import describe_repeats
from hpo.report.data.results import Results, TrialRow
from hpo.report.format import finite
from hpo.study.definition import SETTLED
from hpo.study.outlook import explain_unsettled, refuse_unsettled

__all__ = ["study_summary", "trial_json"]


def study_summary(results: Results) -> dict[str, Any]:
    """Summarize the study for JSON (numbers that are not finite as None, times in ISO 8601 without a zone).

    Keys: `name`, `storage`, `definition`, `budget`, `left`, `ended`, `began`, `last`, `objectives`, `counts` (by
    state), `value_from` (of training loops: COMPLETE trials by where their values come from), `failures` (by kind),
    `best` and `baseline` (a trial, or None), `corrected` (see `hpo.report.data.corrected_score`; None where it has not
    been computed, or there is none), `front` (trials; several objectives only), `failed` (each failed trial, but those
    that violate a constraint), `workers` (see `hpo.study.operations.worker_status.WorkerState`), `work` (what they have
    done, those that have ended too: see `hpo.storage.worker_stats.WorkSummary`; or None), `unattended` (whether trials
    are left and no worker lives), `repeats` (how many trials repeat the parameters of an earlier one, and why, in
    words; or None), `settled` (`asked`: whether the study ends once it has settled; `after`: the number of trials after
    which it had, or None; `gain` and `noise` by then, or by now, and `why`, in words; None of studies of which it
    cannot be told).

    A trial has `number`, `state`, `values` (by metric), `config` (the parameters that have an effect, or None),
    `params`, `best_epoch`, `value_from`, `epochs_done`, `seconds`, `parameter_count`, `failure`, `message`; in studies
    of several fits a trial also `standard_error`, `fits` (the first objective of each at the best epoch, or as
    its loop returned it, by the fit's number from 0) and `raced` (by which trial it was dropped, in words; or None).
    """
    summary: dict[str, Any] = finite(
        {
            "name": results.name,
            "storage": results.storage,
            "definition": results.definition.model_dump(mode="json"),
            "budget": results.budget.model_dump(),
            "left": results.remaining_trials,
            "ended": results.stop_reason,
            "began": results.started_at,
            "last": results.last_event_at,
            "objectives": [objective.model_dump() for objective in results.objectives],
            "counts": results.counts,
            **({"value_from": results.origins} if results.origins else {}),
            "failures": results.failures,
            "failed": [_failed_json(row) for row in results.trials if row.failure and row.feasible],
            "best": trial_json(results, results.best),
            "corrected": corrected_json(results.corrected) if results.corrected else None,
            "baseline": trial_json(results, results.baseline),
            "front": [trial_json(results, row) for row in results.front] if len(results.objectives) > 1 else [],
            "workers": [asdict(worker) for worker in results.workers],
            "work": asdict(results.work) if results.work else None,
            "unattended": results.unattended,
            "repeats": describe_repeats(results.trials, results.definition, results.space),
            "settled": _settled_json(results),
        }
    )
    return summary


def _settled_json(results: Results) -> dict[str, Any] | None:
    if refuse_unsettled(results.definition):
        return None
    settled = results.settled
    outlook = settled or (results.outlooks[-1] if results.outlooks else None)
    return {
        "asked": results.budget.until == SETTLED,
        "after": None if settled is None else settled.trials,
        "gain": None if outlook is None else outlook.gain,
        "noise": None if outlook is None else outlook.noise,
        "why": explain_unsettled(outlook, results.definition, results.budget.trials),
    }


def trial_json(results: Results, row: TrialRow | None) -> dict[str, Any] | None:
    """Return a trial as `study_summary` documents it."""
    if row is None:
        return None
    values = row.values or (None,) * len(results.objectives)
    return {
        "number": row.number,
        "state": row.state,
        "values": {o.metric: value for o, value in zip(results.objectives, values, strict=False)},
        "config": row.config.effective() if row.config else None,
        "params": row.params,
        "best_epoch": row.best_epoch,
        "value_from": row.value_from,
        "epochs_done": len(row.epochs),
        "seconds": row.seconds,
        "parameter_count": row.parameter_count,
        "failure": row.failure,
        "message": row.message,
        **_fits_json(results, row),
    }


def _fits_json(results: Results, row: TrialRow) -> dict[str, Any]:
    """Return what a trial of several fits has beside the others: how many, their values, and the standard error."""
    if not results.definition.several_fits:
        return {}
    metric = results.objective.metric
    at_best = {fit: next((e for e in rows if e.get("epoch") == row.best_epoch), {}) for fit, rows in row.fits.items()}
    values = {str(fit): row.fit_returns.get(fit, epoch.get(metric)) for fit, epoch in sorted(at_best.items())}
    return {"standard_error": row.standard_error, "fits": values, "raced": row.raced}


def _failed_json(row: TrialRow) -> dict[str, Any]:
    return {"trial": row.number, "state": row.state, "failure": row.failure, "message": row.message}
