"""What the report says of reference models: in a sentence of the verdict, and beside the scores of the networks."""

from __future__ import annotations

from collections.abc import Sequence

from hpo.report.chapters.blocks import Block, Table, Text
from hpo.report.data.evaluations import EvaluationResults
from hpo.report.data.reference_models import ReferenceModel, ReferenceModels
from hpo.report.data.results import Results
from hpo.report.format import count_text, duration_text, gain_text, metric_text, names_text, sentence, values_text
from hpo.report.stats.evaluation_stats import Score

__all__ = ["compare_with_evaluated", "compare_with_trial", "reference_blocks", "reference_note"]


def compare_with_evaluated(evaluation: EvaluationResults, best: Score) -> str:
    """Compare the best reference model with the best configuration of an evaluation; nothing without one."""
    metric = evaluation.test_metric if best.test is not None else evaluation.validation_metric
    interval = best.test or best.validation
    models = () if evaluation.reference_models is None else evaluation.reference_models.models
    maximize = evaluation.objective.direction == "maximize"
    found = _best(models, metric, maximize=maximize)
    if found is None or interval is None or metric is None:
        return ""
    model, score = found
    rows = "test" if best.test is not None else "validation"
    lead = (score - interval.mean) * (1 if maximize else -1)
    apart = interval.count > 1 and not interval.low <= score <= interval.high
    if interval.count > 1 and not apart:
        verdict = "no clear difference from the best network"
    elif lead > 0:
        verdict = f"better than the best network by {gain_text(metric, lead)}"
    else:
        verdict = f"the best network is better by {gain_text(metric, lead)}"
    return f"{_subject(model)} has {values_text(metric, score)} on the same {rows} rows, {_time(model)}: {verdict}."


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
    return f"{_subject(model)} has {values_text(metric, score)} on the same validation rows, {_time(model)}: {verdict}."


def _best(
    models: Sequence[ReferenceModel], metric: str | None, *, maximize: bool
) -> tuple[ReferenceModel, float] | None:
    scored = [(model, score) for model in models if (score := model.score(metric)) is not None]
    return max(scored, key=lambda pair: pair[1] if maximize else -pair[1], default=None)


def _subject(model: ReferenceModel) -> str:
    return f"{model.name[:1].upper()}{model.name[1:]} with default settings"


def _time(model: ReferenceModel) -> str:
    return f"trained in {duration_text(model.seconds)}"


def reference_note(models: ReferenceModels | None) -> list[Block]:
    """Say what reference models are."""
    if models is None or not models.models:
        return []
    what = names_text([f"{model.name} ({duration_text(model.seconds)})" for model in models.models])
    notes = "".join(f" {sentence(f'{model.name}: {model.note}')}" for model in models.models if model.note)
    text = (
        f"{what[:1].upper()}{what[1:]}: scikit-learn's with default settings, trained once on the same "
        f"{count_text(models.samples)} training rows and scored by the same function on the same rows.{notes}"
    )
    return [Text(text, quiet=True)]


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
        *([model.name, values_text(metric, score), duration_text(model.seconds)] for model, score in scored),
    ]
    columns = ["model", metric_text(metric), "training time"]
    return [Table(columns, rows, columns[1:]), *reference_note(models)]
