"""Next study file, as the findings of a study advise: `hpo report NAME --suggest FILE`.

Of an objective function it has the calls of `trial.suggest_…` instead.
"""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpo.config.parameter import Value
from hpo.errors import RequestError
from hpo.report.checks.finding import Finding
from hpo.report.checks.run import run_checks
from hpo.report.data.evaluations import read_evaluations
from hpo.report.data.results import Results, read_results
from hpo.report.suggest_calls import format_suggest_call
from hpo.space import Constant, LearnedSpace, Space
from hpo.storage.url import mask
from hpo.study import Study
from hpo.study.input.resampling_keys import spell_resampling
from hpo.study.warm_start import check_warm_start
from hpo.utils.home import default_storage
from hpo.utils.paths import ROOM, fit_name
from hpo.utils.toml import toml_value

__all__ = ["suggest_function", "suggest_study", "write_suggestion"]

# The checks whose lines change the space, in this order.
ACTED_ON = ("boundary", "infeasible", "isolation", "improving", "flat", "stability", "density")
WARM = 3  # of the best trials: enough to begin from, few enough to leave the budget to what is new


def write_suggestion(study: Study, path: Path) -> Path:
    """Write the next study file, or the calls of an objective function that asks for the next space.

    Raises:
        RequestError: the study is an evaluation or part of one, or has no trials; the file exists with other content,
            or cannot be written.
    """
    if (of := study.definition.nested_of) is not None:
        raise RequestError(f"--suggest: study '{study.name}' is part of a nested evaluation; name the study '{of}'")
    results = read_results(study)
    findings = run_checks(results, read_evaluations(study))
    text = suggest_study(results, findings) if study.definition.configured else suggest_function(results, findings)
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
        "dataset": definition.dataset.spelled,
        "objective": [objective.model_dump() for objective in definition.objectives],
        "trials": max(results.budget.trials, first),
        **results.budget.model_dump(include={"timeout", "trial_timeout", "target", "until"}, exclude_none=True),
        "sampler": {"name": definition.sampler.name, **definition.sampler.options},
        "pruner": {"name": definition.pruner.name, **definition.pruner.options},
        "seed": (definition.seed + 1) % 2**32,
        **({"constraints": [each.text for each in definition.constraints]} if definition.constraints else {}),
        **spell_resampling(definition),
        **({"record_steps": True} if definition.record_steps else {}),
        **({"metrics": list(definition.recorded)} if definition.recorded else {}),
    }
    if definition.sampler.name == "grid":
        del keys["trials"]
    lines = [f"# What follows from the study {shlex.quote(results.name)}.", *_toml_lines(keys)]
    if warm:
        rows = [f"    {toml_value(results.space.spell(table))}," for table in warm]
        lines += ["# The best trials come first.", "warm_start = [", *rows, "]"]
    lines += ["", "[parameters]"]
    for name, literal in results.space.spell(parameters).items():
        lines += [f"# {_one_line(reason)}" for reason in reasons.get(name, ())] + _toml_lines({name: literal})
    if definition.baseline is not None:
        lines += ["", "[baseline]", *_toml_lines(results.space.spell(definition.baseline))]
    if definition.report is not None:
        lines += ["", "[report]", *_toml_lines(definition.report.model_dump(mode="json", exclude_defaults=True))]
    return "\n".join(lines) + "\n"


def suggest_function(results: Results, findings: Sequence[Finding]) -> str:
    """Write the calls of an objective function with its domains changed as the findings say, with the reasons.

    Raises:
        RequestError: the study is an evaluation, or none of its trials has a parameter.
    """
    definition, space = results.definition, results.space
    if definition.evaluation is not None:
        of = definition.evaluation.of
        raise RequestError(f"--suggest: study '{results.name}' is an evaluation; name the study '{of}'")
    if not isinstance(space, LearnedSpace) or not space.domains:
        raise RequestError(f"--suggest: no trial of study '{results.name}' has a parameter yet, so no space is known")
    literals = {name: domain.to_json() for name, (domain,) in space.domains.items()}
    reasons: dict[str, list[str]] = {}
    for name, literal, reason in _list_changes(findings):
        if name in literals and name not in reasons:  # what was widened is not narrowed
            literals[name] = literal
            reasons[name] = [reason]
    called = "the objective function" if definition.function is None else definition.function.label
    lines = [
        f"# What follows from the study {shlex.quote(_one_line(results.name))}: calls for {_one_line(called)}.",
        "# To begin with its best trials:",
        f"#   {_one_line(_next_launch(results))}",
    ]
    for line in space.notices():
        reasons.setdefault(line.partition(":")[0], []).append(line.partition(": ")[2])
    for name, literal in literals.items():
        if (count := space.count(name)) < len(results.trials):
            reasons.setdefault(name, []).append(f"{count} of {len(results.trials)} trials have it")
        lines += ["", *(f"# {_one_line(reason)}" for reason in reasons.get(name, ()))]
        lines.append(format_suggest_call(space, name, literal))
    return "\n".join(lines) + "\n"


def _next_launch(results: Results) -> str:
    """Return the command that launches the next study of an objective function."""
    place = shlex.quote(results.definition.function_location or "")
    name, budget = shlex.quote(fit_name(results.name, "-next", ROOM)), results.budget.trials
    storage = "" if results.storage == mask(default_storage()) else f" --storage {shlex.quote(results.storage)}"
    more = f"--warm-start {shlex.quote(results.name)} --top {WARM} --trials {budget}{storage}"
    return f"hpo launch {place} --name {name} {more}"


def _list_changes(findings: Sequence[Finding]) -> Iterator[tuple[str, Any, str]]:
    """Yield parameter, new domain and reason of each change that the findings advise, in the order of `ACTED_ON`."""
    for finding in (each for check in ACTED_ON for each in findings if each.check == check and each.toml):
        for name, literal in tomllib.loads(finding.toml).items():
            yield name, literal, f"{finding.evidence}: {finding.advice}"


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
