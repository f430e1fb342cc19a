"""Reference models in the report: a sentence of the verdict, and rows beside the scores of the networks."""

from __future__ import annotations

from collections.abc import Sequence

from hpo.report.chapters.blocks import Block, Table, Text
from hpo.report.data.evaluations import EvaluationResults
from hpo.report.data.reference_models import ReferenceModel, ReferenceModels
from hpo.report.data.results import Results
from hpo.report.format import count_text, duration_text, gain_text, metric_text, names_text, sentence, values_text
from hpo.report.stats.evaluation_stats import FEWEST_SEEDS, Score
from hpo.report.stats.mean_interval import mean_reach
from hpo.report.stats.reference_comparison import RowGains, measure_row_gains

__all__ = ["compare_with_evaluated", "compare_with_trial", "reference_blocks", "reference_note"]

SHORTEST = 0.1  # seconds that are told


def compare_with_evaluated(evaluation: EvaluationResults, best: Score) -> str:
    """Compare the best reference model with the best configuration of an evaluation; nothing without one.

    They are paired by row where the predictions of both are here. Else the reference model is compared with what the
    network's seeds vary by, which few seeds do not tell.
    """
    metric = evaluation.test_metric if best.test is not None else evaluation.validation_metric
    interval = best.test or best.validation
    models = evaluation.reference_models
    maximize = evaluation.objective.direction == "maximize"
    found = _best(() if models is None else models.models, metric, maximize=maximize)
    if models is None or found is None or interval is None or metric is None:
        return ""
    model, score = found
    split = "test" if best.test is not None else "validation"
    lead = (score - interval.mean) * (1 if maximize else -1)
    gains = measure_row_gains(best.candidate, models, models.models.index(model), metric, split)
    if gains is not None:
        verdict = _paired_verdict(metric, lead, gains)
    else:
        verdict = _seeds_verdict(metric, lead, list(best.candidate.scores(metric).values()))
    return f"{_subject(model)} has {values_text(metric, score)} on the same {split} rows{_time(model)}: {verdict}."


def _paired_verdict(metric: str, lead: float, gains: RowGains) -> str:
    seeds = len(gains.values)
    over = "with its only seed" if seeds == 1 else f"with each of its {seeds} seeds"
    over = over if seeds < FEWEST_SEEDS else f"over {seeds} seeds"
    same = (gains.values.mean() > 0) == (lead > 0)
    if gains.apart and same:
        return f"{_lead_text(metric, lead)} (significant: paired by row, {over})"
    return f"no significant difference ({_lead_text(metric, lead)}; paired by row, {over})"


def _seeds_verdict(metric: str, lead: float, scores: Sequence[float]) -> str:
    seeds = len(scores)
    if seeds < FEWEST_SEEDS:
        few = "a single seed is too few" if seeds == 1 else f"{seeds} seeds are too few"
        return f"{_lead_text(metric, lead)}; {few} to tell"
    if abs(lead) > mean_reach(scores):
        return f"{_lead_text(metric, lead)}, more than the {seeds} seeds of the network explain"
    return f"no clear difference ({_lead_text(metric, lead)}, which the {seeds} seeds of the network can explain)"


def _lead_text(metric: str, lead: float) -> str:
    if lead == 0:
        return "the same as the best network"
    return f"{gain_text(metric, lead)} {'better' if lead > 0 else 'worse'} than the best network"


def compare_with_trial(results: Results, models: ReferenceModels | None) -> str:
    """Compare the best reference model with the best trial on the validation split; nothing without one."""
    best = results.best
    maximize = results.objective.direction == "maximize"
    metric = results.objective.metric
    found = _best(() if models is None else models.models, metric, maximize=maximize)
    if found is None or best is None or best.value is None:
        return ""
    model, score = found
    lead = (score - best.value) * (1 if maximize else -1)
    count = len(results.ranked)
    network = "the best network"
    if lead > 0:
        verdict = f"better than {network} by {gain_text(metric, lead)}"
    elif lead == 0:
        verdict = f"the same as {network}"
    elif count > 1:
        verdict = (
            f"{network}, which was chosen as the best of {count_text(count)} on these rows, is better by "
            f"{gain_text(metric, lead)}"
        )
    else:
        verdict = f"{network} is better by {gain_text(metric, lead)}"
    rows = "test rows" if metric.startswith("test_") else "validation rows"  # a refit has test scores alone
    return f"{_subject(model)} has {values_text(metric, score)} on the same {rows}{_time(model)}: {verdict}."


def _best(
    models: Sequence[ReferenceModel], metric: str | None, *, maximize: bool
) -> tuple[ReferenceModel, float] | None:
    scored = [(model, score) for model in models if (score := model.score(metric)) is not None]
    return max(scored, key=lambda pair: pair[1] if maximize else -pair[1], default=None)


def _subject(model: ReferenceModel) -> str:
    return f"{model.name[:1].upper()}{model.name[1:]} with default settings"


def _time(model: ReferenceModel) -> str:
    """Return how long its training took, where that is long enough to be measured."""
    return f", trained in {duration_text(model.seconds)}" if model.seconds >= SHORTEST else ""


def _seconds_text(model: ReferenceModel) -> str:
    return duration_text(model.seconds) if model.seconds >= SHORTEST else f"under {duration_text(SHORTEST)}"


def reference_note(models: ReferenceModels | None) -> list[Block]:
    """Say what reference models are."""
    if models is None or not models.models:
        return []
    what = names_text([f"{model.name} ({_seconds_text(model)})" for model in models.models])
    notes = "".join(f" {sentence(f'{model.name}: {model.note}')}" for model in models.models if model.note)
    text = (
        f"{what[:1].upper()}{what[1:]}: scikit-learn's with default settings, {_describe_training(models)} and scored "
        f"by the same function on the same rows.{notes}"
    )
    return [Text(text, quiet=True)]


def _describe_training(models: ReferenceModels) -> str:
    if models.divided:
        return f"trained on each of the same {models.divided}"
    return f"trained once on the same {count_text(models.samples)} training rows"


def reference_blocks(results: Results, models: ReferenceModels | None) -> list[Block]:
    """Tabulate the reference models beside the best trial, on the validation split of a study without evaluation."""
    best = results.best
    if best is None or best.value is None or models is None:
        return []
    metric = results.objective.metric
    scored = [(model, score) for model in models.models if (score := model.score(metric)) is not None]
    if not scored:
        return []
    rows = [
        [f"trial {best.number}", values_text(metric, best.value), duration_text(best.seconds)],
        *([model.name, values_text(metric, score), _seconds_text(model)] for model, score in scored),
    ]
    columns = ["model", metric_text(metric), "training time"]
    return [Table(columns, rows, columns[1:]), *reference_note(models)]
