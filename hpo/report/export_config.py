"""Export of a trial's configuration as a file that `hpo train --config` accepts."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any, Literal, get_args

from hpo.config.values import OFF
from hpo.errors import RequestError, describe_unknown
from hpo.report.data.evaluations import read_evaluations
from hpo.report.data.results import Results, TrialRow, read_results
from hpo.report.data.sample_scores import read_sample_scores
from hpo.report.format import one_line
from hpo.report.stats.choice import Choice, choose_trial, default_rule
from hpo.study import Study
from hpo.study.operations.candidates import parameter_values_of

__all__ = ["Format", "choose_exported", "export_config", "rank_configurations"]

Format = Literal["toml", "json", "yaml", "python"]


def export_config(
    study: Study | Results,
    number: int | None = None,
    format: str = "toml",  # noqa: A002
    *,
    rule: str | None = None,
    choice: Choice | None = None,
) -> str:
    """Write the chosen configuration, or that of trial `number`, as the text of a file.

    Of a trial whose space is learned it has the parameters as Optuna has them; `python` makes a `FixedTrial` of them.

    Its keys are `dataset`, `objective` (a metric's name, or a table of metric and direction where that is not the
    metric's own; of several objectives the first) and `parameters`: all those that have an effect, floats exact.

    Args:
        study: the study, or what has been read of it.
        number: of the trial; None for that which the rule chooses.
        format: `toml`, `json`, `yaml` or `python`.
        rule: `best`, `one_se` or `evaluated`, see `hpo.report.stats.choice`; None for the study's default.
        choice: by the rule, where it has been made already.

    Raises:
        RequestError: no such trial, format or rule, no COMPLETE trial, nothing that the rule needs, or a trial without
            a configuration.
    """
    if format not in get_args(Format):
        raise RequestError(describe_unknown("format", format, get_args(Format)))
    results = study if isinstance(study, Results) else read_results(study)
    if number is not None:
        row, choice = results.trial(number), None
    else:
        choice = choice or _choose(study, results, rule)
        row = choice.row
    header = _header_lines(results, row, choice)
    if not results.definition.configured:
        return _format_params(results, row, format, header)
    if format == "python":
        raise RequestError("format python: is for trials of an objective function; use toml, json or yaml")
    if row.config is None:
        reason = "it was added by others" if row.params else "it has no parameters yet"
        raise RequestError(f"trial {row.number} of study '{results.name}' has no configuration: {reason}")
    table = {
        "dataset": results.definition.dataset.spelled,
        "objective": _objective_entry(results),
        "parameters": row.config.literals(none=OFF if format == "toml" else None),
    }
    return _format_table(table, header, format)


def _choose(study: Study | Results, results: Results, rule: str | None) -> Choice:
    return choose_trial(results, rule) if isinstance(study, Results) else choose_exported(study, results, rule)


def choose_exported(
    study: Study, results: Results, rule: str | None = None, among: Collection[int] | None = None
) -> Choice:
    """Choose the trial that is exported, reading of the study what its rule needs; see `choose_trial`."""
    name = rule or (default_rule(results) if results.best is not None else "best")
    table = read_sample_scores(study) if name == "one_se" else None
    return choose_trial(results, rule, table, read_evaluations(study) if name == "evaluated" else (), among)


def rank_configurations(study: Study, results: Results) -> list[TrialRow]:
    """Rank the configurations by their trials: that which is exported, then the best ones.

    Of equal configurations, from whatever seed, only the first trial is listed.
    """
    choice = choose_exported(study, results) if results.best is not None else None
    first = [] if choice is None or choice.rule == "best" else [choice.row]
    rows, seen = list[TrialRow](), list[object]()
    for row in (*first, *results.top(len(results.trials))):
        if (key := _configuration_key(results, row)) not in seen:
            seen.append(key)
            rows.append(row)
    return rows


def _configuration_key(results: Results, row: TrialRow) -> object:
    if row.config is None:
        return row.params
    return {**parameter_values_of(row.config, None), "split_seed": 0}, results.asked(row)


def _format_params(results: Results, row: TrialRow, format: str, header: list[str]) -> str:  # noqa: A002
    """Format the parameters of a trial of an objective function."""
    if format == "python":
        lines = [f"# {line}" for line in header]
        call = f"trial = optuna.trial.FixedTrial({dict(row.recorded)!r}, number={row.number})"
        return "\n".join([*lines, "import optuna", "", call]) + "\n"
    objectives = [objective.model_dump() for objective in results.objectives]
    table = {"objective": objectives[0] if len(objectives) == 1 else objectives, "parameters": dict(row.params)}
    return _format_table(table, header, format)


def _objective_entry(results: Results) -> str | dict[str, str]:
    metric, direction = results.definition.metrics[0], results.objective.direction
    own = results.definition.declarations.metric(metric).direction
    return metric if direction == own else {"metric": metric, "direction": direction}


def _header_lines(results: Results, row: TrialRow, choice: Choice | None) -> list[str]:
    lines = [f"trial {row.number} of study {one_line(results.name)}"]
    if choice is not None and (choice.rule != "best" or (results.best and results.best.number) != row.number):
        lines.append(f"rule {choice.rule}: {choice.reason}")
    if row.values is not None:
        pairs = zip(results.objectives, row.values, strict=False)
        values = ", ".join(f"{objective.metric} {value!r}" for objective, value in pairs)
        evaluation = results.definition.evaluation
        on = " (test)" if evaluation and evaluation.refit else " (validation)" if results.definition.configured else ""
        lines.append(f"{row.state}: {values}{on}")
    else:
        lines.append(row.state)
    if asked := results.asked(row):
        lines.append(f"asked for by the training loop: {one_line(str(asked)[1:-1])}")
    return lines


def _format_table(table: dict[str, Any], header: list[str], format: str) -> str:  # noqa: A002
    comment = "".join(f"# {line}\n" for line in header)
    if format == "json":
        return json.dumps(table, indent=2) + "\n"
    if format == "yaml":
        import yaml

        return comment + yaml.safe_dump(table, sort_keys=False, allow_unicode=True)
    import tomli_w

    return comment + tomli_w.dumps(table)
