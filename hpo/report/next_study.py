"""Next study file, as the findings of a study advise: `hpo report NAME --suggest FILE`."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpo.config.parameter import Value
from hpo.errors import RequestError
from hpo.report.checks.finding import Finding
from hpo.report.checks.run import run_checks
from hpo.report.data.evaluations import read_evaluations
from hpo.report.data.results import Results, read_results
from hpo.space import Constant, Space
from hpo.study import Study
from hpo.study.warm_start import check_warm_start
from hpo.utils.paths import ROOM, fit_name
from hpo.utils.toml import toml_value

__all__ = ["suggest_study", "write_suggestion"]

# The checks whose lines change the space, in this order.
ACTED_ON = ("boundary", "infeasible", "isolation", "improving", "flat", "stability", "density")
WARM = 3  # of the best trials: enough to begin from, few enough to leave the budget to what is new


def write_suggestion(study: Study, path: Path) -> Path:
    """Write the next study file.

    Raises:
        RequestError: the file exists with other content, or cannot be written.
    """
    study.check_configured("--suggest")
    results = read_results(study)
    text = suggest_study(results, run_checks(results, read_evaluations(study)))
    try:
        if path.exists() and path.read_bytes() != text.encode():
            raise RequestError(f"{path}: exists with other content; give another name, or remove it")
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RequestError(f"{path}: cannot be written: {error.strerror or error}") from error
    return path


def suggest_study(results: Results, findings: Sequence[Finding]) -> str:
    """Write the next study's file in TOML: the space changed as the findings say, begun from the best trials."""
    definition = results.definition
    parameters, reasons = _change_parameters(results, findings)
    warm = _warm_start(results, Space(parameters, registered=results.space.registered))
    first = len(warm) + (definition.baseline is not None)
    keys: dict[str, Any] = {
        "name": fit_name(results.name, "-next", ROOM),
        "dataset": definition.dataset.name,
        "objective": [objective.model_dump() for objective in definition.objectives],
        "trials": max(results.budget.trials, first),
        **results.budget.model_dump(include={"timeout", "trial_timeout", "target"}, exclude_none=True),
        "sampler": {"name": definition.sampler.name, **definition.sampler.options},
        "pruner": {"name": definition.pruner.name, **definition.pruner.options},
        "seed": (definition.seed + 1) % 2**32,
        **({"constraints": [each.text for each in definition.constraints]} if definition.constraints else {}),
        **({"record_steps": True} if definition.record_steps else {}),
    }
    if definition.sampler.name == "grid":
        del keys["trials"]
    lines = [f"# What follows from the study {shlex.quote(results.name)}.", *_toml_lines(keys)]
    if warm:
        rows = [f"    {toml_value(table)}," for table in warm]
        lines += ["# The best trials come first.", "warm_start = [", *rows, "]"]
    lines += ["", "[parameters]"]
    for name, literal in parameters.items():
        lines += [f"# {_one_line(reason)}" for reason in reasons.get(name, ())] + _toml_lines({name: literal})
    if definition.baseline is not None:
        lines += ["", "[baseline]", *_toml_lines(definition.baseline)]
    if definition.report is not None:
        lines += ["", "[report]", *_toml_lines(definition.report.model_dump(mode="json", exclude_defaults=True))]
    return "\n".join(lines) + "\n"


def _toml_lines(table: Mapping[str, Any]) -> list[str]:
    return [f"{key} = {toml_value(value)}" for key, value in table.items()]


def _one_line(text: str) -> str:
    # A control character in a comment is no TOML, and a line break would end it.
    return "".join(c if c.isprintable() else " " for c in text)


def _change_parameters(results: Results, findings: Sequence[Finding]) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Return the parameters with every change that gives a valid space, and the reasons by parameter."""
    parameters, reasons = dict(results.definition.parameters), dict[str, list[str]]()
    acting = [each for check in ACTED_ON for each in findings if each.check == check and each.toml]
    for finding in acting:
        for name, literal in tomllib.loads(finding.toml).items():
            if name in reasons and (name == "epochs" or finding.check in ("density", "infeasible")):
                continue  # what was widened is not narrowed
            changed = {**parameters, name: _replace_domain(parameters.get(name), literal)}
            try:
                Space(changed, registered=results.space.registered)
            except RequestError:
                continue
            parameters = changed
            reasons.setdefault(name, []).append(f"{finding.evidence}: {finding.advice}")
    return parameters, reasons


def _replace_domain(current: Any, literal: Any) -> Any:
    """Replace a parameter's domain, or of several alternatives the one under the same condition."""
    if not isinstance(current, list) or not isinstance(literal, Mapping):
        return literal
    return [literal if each.get("when") == literal.get("when") else each for each in current]


def _warm_start(results: Results, space: Space) -> list[dict[str, Value]]:
    """Return the best trials' values, of those that the changed space holds."""
    constants = {d.parameter.name for d in space.dimensions if isinstance(d.domain, Constant)}
    rows = [row for row in results.top(WARM) if row.config is not None and not (row.baseline or row.extra)]
    tables: list[dict[str, Value]] = []
    for row in rows:
        values = results.space.values(row.params)
        table = {name: value for name, value in values.items() if name not in constants}
        try:
            tables += check_warm_start([table] if table else [], space, results.definition.sampler.name)
        except RequestError:
            continue
    return tables
