"""What a report says, in words and tables, the same for HTML and Markdown."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from hpo.errors import RequestError
from hpo.home import default_storage
from hpo.report.export import export_config
from hpo.report.results import Results, TrialRow
from hpo.report.words import (
    NONE,
    condition_text,
    count_text,
    domain_text,
    duration_text,
    is_share,
    metric_text,
    state_text,
    time_text,
    value_text,
    values_text,
)
from hpo.space import Constant
from hpo.study import Objective
from hpo.study.opening import mask

__all__ = ["Content", "Setting", "Table", "content"]

TOP = 10
MESSAGES = 10


@dataclass(frozen=True)
class Table:
    """Rows of texts under columns; those named in `numeric` are aligned to the right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: Sequence[str] = ()


@dataclass(frozen=True)
class Setting:
    """A varied parameter of the best configuration, beside the baseline's value."""

    name: str
    value: str
    baseline: str = ""


@dataclass(frozen=True)
class Content:
    """The report in words.

    Attributes:
        name: the study's.
        score: the best value, or a few words where there is none.
        subject: what the score is.
        facts: short facts under the score: trials, time, state.
        notes: sentences that say how far the score can be trusted.
        settings: the varied parameters of the best configuration.
        config: the best configuration as TOML, or empty.
        no_config: why there is none.
        commands: what to type, with what it does.
        top: the best trials.
        top_title: what `top` holds.
        states: counts by state.
        kinds: counts by kind of failure.
        messages: failures in their own words.
        definition: what the study is.
        space: the parameters and their domains.
        written: when the study was read.
    """

    name: str
    score: str
    subject: str
    facts: list[str]
    notes: list[str]
    settings: list[Setting]
    config: str
    no_config: str
    commands: list[tuple[str, str]]
    top: Table
    top_title: str
    states: Table
    kinds: Table
    messages: Table
    definition: Table
    space: Table
    written: str


def content(results: Results, now: datetime) -> Content:
    """What to say of a study.

    Args:
        results: the study.
        now: when it was read; naive local time.
    """
    config, no_config = _config(results)
    return Content(
        name=results.name,
        score=_score(results),
        subject=_subject(results),
        facts=_facts(results),
        notes=_notes(results),
        settings=_settings(results),
        config=config,
        no_config=no_config,
        commands=_commands(results) if config else [],
        top=_top(results),
        top_title="Pareto front" if len(results.objectives) > 1 else "Best trials",
        states=_states(results),
        kinds=Table(["kind", "trials"], [[k, str(n)] for k, n in results.failures.items()], ["trials"]),
        messages=_messages(results),
        definition=_definition(results),
        space=_space(results),
        written=time_text(now),
    )


# The answer.


def _score(results: Results) -> str:
    best = results.best
    if best is None or best.values is None:
        return "No result yet"
    return values_text(results.objective.metric, best.values[0])


def _subject(results: Results) -> str:
    best = results.best
    if best is None or best.values is None:
        return "no trial is complete"
    first = metric_text(results.objective.metric)
    others = [
        f"{metric_text(objective.metric)} {values_text(objective.metric, value)}"
        for objective, value in zip(results.objectives[1:], best.values[1:], strict=True)
    ]
    if others:
        place = "the only one" if len(results.front) == 1 else f"the best in it of {len(results.front)}"
        return f"{first}, with {', '.join(others)}: trial {best.number}, {place} on the Pareto front"
    epoch = f", epoch {best.best_epoch}" if best.best_epoch else ""
    return f"{first}, trial {best.number}{epoch}"


def _facts(results: Results) -> list[str]:
    counts = results.counts
    states = ", ".join(f"{count} {state_text(state)}" for state, count in counts.items() if count)
    facts = [f"{len(results.trials)} trials: {states}" if results.trials else "no trials yet"]
    if results.left:
        ended = f" ({results.ended})" if results.ended else ""
        facts.append(f"not finished: {results.left} of {max(results.budget.trials, len(results.trials))} left{ended}")
    if results.began and results.last:
        workers = len({row.worker for row in results.trials if row.worker})
        by = f" on {workers} workers" if workers > 1 else ""
        facts.append(
            f"{duration_text((results.last - results.began).total_seconds())}{by}, from {time_text(results.began)}"
        )
    return facts


def _notes(results: Results) -> list[str]:
    if results.best is None:
        return ["A trial's value is that of its best epoch; only complete trials are ranked."] if results.trials else []
    chosen = len(results.ranked)
    among = f"the best of {chosen} complete trials" if chosen > 1 else "of the only complete trial"
    bias = ", and having been chosen it flatters a little" if chosen > 1 else ""
    data = "on validation data" if any(o.metric.startswith("val_") for o in results.objectives) else "of this study"
    notes = [f"This is a score {data}: {among}{bias}. The study has not looked at the test set."]
    extra = sum(row.extra for row in results.trials)
    if extra:
        notes.append(
            f"{extra} {'trial was' if extra == 1 else 'trials were'} added by others to the study's own slots."
        )
    return notes + _against_baseline(results, results.best)


def _against_baseline(results: Results, best: TrialRow) -> list[str]:
    """How the best compares with the configuration used today."""
    row, objective = results.baseline, results.objective
    if row is None:
        return []
    if not row.comparable or row.value is None or best.value is None:
        return [f"The baseline (trial {row.number}) has no score to compare with: it {_was(row)}."]
    if row.number == best.number:
        return ["The best trial is the baseline itself: nothing that was tried is better."]
    told = f"The baseline (trial {row.number}) reached {values_text(objective.metric, row.value)}"
    return [f"{told}: {_difference(objective, best.value, row.value)} One seed each: small differences may be luck."]


def _was(row: TrialRow) -> str:
    return {"PRUNED": "was pruned", "FAIL": "failed"}.get(row.state, f"is {state_text(row.state)}")


def _difference(objective: Objective, best: float, baseline: float) -> str:
    gain = best - baseline if objective.direction == "maximize" else baseline - best
    if gain == 0:
        return "the same as the best."
    word = "better" if gain > 0 else "worse"
    if not is_share(objective.metric):
        return f"the best is {values_text(objective.metric, abs(gain))} {word}."
    points = f"the best is {100 * abs(gain):.2f} percentage points {word}"
    if gain > 0 and 0 <= baseline < 1:
        return f"{points}, {100 * gain / (1 - baseline):.0f} % fewer errors."
    return f"{points}."


def _settings(results: Results) -> list[Setting]:
    best, rival = results.best, results.baseline
    if best is None:
        return []
    usual = results.settings(rival) if rival is not None and rival.number != best.number else {}
    return [
        Setting(name, value_text(value), value_text(usual[name]) if name in usual else "")
        for name, value in results.settings(best).items()
    ]


def _config(results: Results) -> tuple[str, str]:
    try:
        return export_config(results), ""
    except RequestError as error:
        return "", str(error)


def _commands(results: Results) -> list[tuple[str, str]]:
    name = shlex.quote(results.name)
    storage = "" if results.storage == mask(default_storage()) else f" --storage {shlex.quote(results.storage)}"
    modules = dict.fromkeys(filter(None, [*results.definition.modules.values(), results.definition.dataset.module]))
    imports = "".join(f" --import {shlex.quote(module)}" for module in modules)
    return [
        ("save the best configuration", f"hpo export {name} --format toml{imports}{storage} > best_config.toml"),
        ("train it again", f"hpo train --config best_config.toml{imports} --out best"),
        ("look closer", f"hpo dashboard {name}{storage}"),
    ]


# Tables.


def _top(results: Results) -> Table:
    rows = results.top(TOP)
    settings = [results.settings(row) for row in rows]
    names = list(dict.fromkeys(name for values in settings for name in values))
    names = [name for name in results.varied if name in names] + [n for n in names if n not in results.varied]
    metrics = [objective.metric for objective in results.objectives]
    cost = ["best epoch", *([] if "parameter_count" in metrics else ["weights"]), "time"]
    lines = [
        [_numbered(row), *_values(results, row), *(value_text(values.get(name)) for name in names), *_cost(row, cost)]
        for row, values in zip(rows, settings, strict=True)
    ]
    numbers = [name for name in names if all(_numeric(values.get(name)) for values in settings)]
    return Table(["trial", *metrics, *names, *cost], lines, [*metrics, *numbers, *cost])


def _numeric(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _numbered(row: TrialRow) -> str:
    return f"{row.number} (baseline)" if row.baseline else f"{row.number} (extra)" if row.extra else str(row.number)


def _values(results: Results, row: TrialRow) -> list[str]:
    return [values_text(o.metric, v) for o, v in zip(results.objectives, row.values or (), strict=False)]


def _cost(row: TrialRow, columns: Sequence[str]) -> list[str]:
    told: Mapping[str, str] = {
        "best epoch": str(row.best_epoch) if row.best_epoch else NONE,
        "weights": count_text(row.parameter_count),
        "time": duration_text(row.seconds),
    }
    return [told[column] for column in columns]


def _states(results: Results) -> Table:
    def spent(state: str) -> str:
        seconds = [row.seconds for row in results.trials if row.state == state and row.seconds is not None]
        return duration_text(sum(seconds)) if seconds else NONE

    rows = [[state_text(state), str(count), spent(state)] for state, count in results.counts.items() if count]
    return Table(["state", "trials", "time in all"], rows, ["trials", "time in all"])


def _messages(results: Results) -> Table:
    failed = (row for row in results.trials if row.failure)
    rows = [
        [str(row.number), state_text(row.state), row.failure or "", row.message or NONE]
        for row in islice(failed, MESSAGES)
    ]
    return Table(["trial", "state", "kind", "message"], rows, ["trial"])


def _definition(results: Results) -> Table:
    definition, budget = results.definition, results.budget
    objectives = ", ".join(f"{objective.direction} {objective.metric}" for objective in definition.objectives)
    rows = [
        ["data set", definition.dataset.name],
        ["objective" if len(definition.objectives) == 1 else "objectives", objectives],
        ["budget", f"{budget.trials} trials"],
        ["sampler", _named(definition.sampler.name, definition.sampler.options)],
        ["pruner", _named(definition.pruner.name, definition.pruner.options)],
        ["seed", str(definition.seed)],
    ]
    if budget.timeout is not None:
        rows.append(["timeout", duration_text(budget.timeout)])
    if budget.target is not None:
        rows.append(["target", values_text(results.objective.metric, budget.target)])
    if definition.baseline is not None:
        rows.append(
            ["baseline", ", ".join(f"{k} = {value_text(v)}" for k, v in definition.baseline.items()) or "defaults"]
        )
    return Table(["", ""], rows)


def _named(name: str, options: Mapping[str, object]) -> str:
    told = ", ".join(f"{key} = {value}" for key, value in options.items())
    return f"{name} ({told})" if told else name


def _space(results: Results) -> Table:
    varied = {dimension.key for dimension in results.space.varied}
    rows = [
        [
            dimension.parameter.name,
            domain_text(dimension.domain) + ("" if dimension.key in varied else " (constant)"),
            condition_text(dimension.domain.when),
        ]
        for dimension in sorted(results.space.dimensions, key=lambda d: isinstance(d.domain, Constant))
    ]
    return Table(["parameter", "domain", "where"], rows)
