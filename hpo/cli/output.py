"""Output of commands: results on standard output, everything else on standard error."""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from hpo.utils.text import format_number

__all__ = ["format_size", "print_json", "print_rows", "print_tree", "printable", "program", "say"]


def program() -> str:
    """Return the name of this command as it can be typed in any folder: `hpo` if the path finds it."""
    running = Path(sys.argv[0])
    on_path = shutil.which("hpo")
    if running.name != "hpo" or (on_path is not None and os.path.samefile(on_path, running)):  # noqa: PTH121
        return "hpo"
    return shlex.quote(str(running.absolute()))


def say(text: str) -> None:
    """Print a line on standard error."""
    click.echo(printable(text), err=True)


def printable(text: str) -> str:
    """Return a text with its control characters written out: a name in a database must not steer the terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def format_size(size: int) -> str:
    """Return a number of bytes as text for people, in powers of 1000."""
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"


def print_json(value: Any) -> None:
    """Print JSON on standard output."""
    click.echo(json.dumps(value, indent=2, default=str, allow_nan=False))


def print_rows(rows: Sequence[dict[str, Any]], style: str) -> None:
    """Print rows as a table, JSON or CSV, with columns in the order in which they first appear."""
    if style == "json":
        print_json(rows)
    elif style == "csv":
        names = list(dict.fromkeys(name for row in rows for name in row))
        writer = csv.DictWriter(sys.stdout, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    elif rows:
        _print_table(rows)


def _print_table(rows: Sequence[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    names = list(dict.fromkeys(name for row in rows for name in row))
    used = [name for name in names if any(row.get(name) not in (None, "") for row in rows)]
    table = Table(*used, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text(_cell(row.get(name))) for name in used))
    console = Console(highlight=False)
    # Lines are cut to a terminal's width for people, but not for other programs that read a pipe.
    console.width = console.width if console.is_terminal else 10_000
    console.print(table)


def _cell(value: Any) -> str:
    if value is None or value == ():
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return " ".join(map(_cell, value))
    return format_number(value) if isinstance(value, float) else printable(str(value))


def print_tree(value: dict[str, Any], indent: str = "") -> None:
    """Print nested values, a line each, without empty ones."""
    for key, item in value.items():
        if isinstance(item, dict) and item:
            click.echo(f"{indent}{key}:")
            print_tree(item, indent + "  ")
        elif isinstance(item, list) and item and all(isinstance(part, dict) for part in item):
            click.echo(f"{indent}{key}:")
            for part in item:
                click.echo(f"{indent}  {', '.join(f'{k} {_cell(v)}' for k, v in part.items())}")
        elif item not in (None, {}, []):
            click.echo(f"{indent}{key}: {', '.join(map(_cell, item)) if isinstance(item, list) else _cell(item)}")
