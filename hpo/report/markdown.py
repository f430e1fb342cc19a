"""The report as Markdown: text and tables, short enough for a repository."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from hpo.report.content import Content, Table
from hpo.report.words import one_line

__all__ = ["markdown"]


def markdown(told: Content, shares: Mapping[str, float], no_shares: str) -> str:
    """The text of `report.md`.

    Args:
        told: what the report says.
        shares: importances by parameter in words, summing to 1.
        no_shares: why there are none, where there are none.
    """
    parts = [
        f"# {_text(told.name)}",
        f"**{_text(told.score)}** ({_text(told.subject)})",
        "\n".join(f"- {_text(fact)}" for fact in (*told.facts, *told.notes)),
        *_best(told),
        f"## {told.top_title}",
        _table(told.top) if told.top.rows else "No trial is complete yet.",
        "## What mattered",
        _importance(shares) if shares else _text(no_shares),
        "## Trials",
        _table(told.states) if told.states.rows else "No trials yet.",
        *([_table(told.kinds), _table(told.messages)] if told.kinds.rows else []),
        "## Definition",
        _table(told.definition),
        _table(told.space),
        f"Read from the study at {told.written}. Figures are in report.html, all numbers in report.json.",
    ]
    return "\n\n".join(parts) + "\n"


def _best(told: Content) -> list[str]:
    if not told.config:
        return ["## Best configuration", _text(told.no_config)]
    rival = any(setting.baseline for setting in told.settings)
    columns = ["parameter", "best", *(["baseline"] if rival else [])]
    rows = [[s.name, s.value, *([s.baseline or "-"] if rival else [])] for s in told.settings]
    commands = "\n".join(f"{command}  # {what}" for what, command in told.commands)
    return [
        "## Best configuration",
        *([_table(Table(columns, rows))] if rows else ["The study varies no parameter."]),
        "To reproduce it:",
        _fenced("sh", commands),
        _fenced("toml", told.config),
    ]


def _importance(shares: Mapping[str, float]) -> str:
    rows = [[name, f"{100 * share:.0f} %"] for name, share in shares.items()]
    return _table(Table(["parameter", "importance (PED-ANOVA)"], rows, ["importance (PED-ANOVA)"]))


def _fenced(language: str, text: str) -> str:
    """A code block whose fence is longer than any in the text."""
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def _table(table: Table) -> str:
    lines = [table.columns, ["--:" if column in table.numeric else "---" for column in table.columns]]
    head = [_row(map(_text, lines[0])), _row(lines[1])]
    return "\n".join([*head, *(_row(map(_text, row)) for row in table.rows)])


def _row(cells: Sequence[str] | map[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _text(text: str) -> str:
    """Text of unknown origin with Markdown's and HTML's own characters escaped, on one line."""
    escaped = re.sub(r"([\\`*\[\]|<>#~])", r"\\\1", one_line(text))
    # An underscore inside of a word means nothing to Markdown, and names are full of them.
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", escaped).replace("&", "&amp;")
