"""Tables of the results, in Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.rivals.contenders import CONTENDERS
from benchmarks.rivals.curves import Summary, best_at, find_ties, seconds_to, summarize
from benchmarks.rivals.tasks import SCORES, TITLES

Row = dict[str, Any]
TIMES = (60, 240, 900)
EXPLANATION = (
    "Medians over the seeds (least to most). * The best, and the ties with it: the 95 % bootstrap intervals of the "
    "medians overlap."
)


def show_task(task: str, rows: Sequence[Row]) -> str:
    """Return the table of a task's runs with a budget of seconds; rows of one budget."""
    asked = rows[0]["seconds"]
    names = [name for name in CONTENDERS if any(row["tool"] == name for row in rows)]
    own = {name: [row for row in rows if row["tool"] == name] for name in names}
    columns = [("seeds", [str(len(own[name])) for name in names])]
    columns += [
        (f"seconds to {score}", compare(own, seconds_until(score), "{:.1f}", largest=False)) for score in SCORES[task]
    ]
    columns += [
        (f"best at {seconds:g} s", compare(own, best_by(seconds), "{:.4f}", largest=True))
        for seconds in sorted({asked, *(time for time in TIMES if time < asked)})
    ]
    columns += [
        ("trials begun", spread(own, lambda row: row["begun"], "{:.0f}")),
        ("to the last epoch", spread(own, lambda row: row["complete"], "{:.0f}")),
        (f"seconds, of {asked:g}", spread(own, lambda row: row["wall"], "{:.1f}")),
        ("processor seconds", spread(own, lambda row: row["processor"], "{:.0f}")),
        ("peak memory, MB", spread(own, lambda row: row["memory"], "{:.0f}")),
        ("lines", [str(CONTENDERS[name].lines(task)) for name in names]),
    ]
    return f"{TITLES[task]}, {asked:g} s\n\n" + make_table([CONTENDERS[name].title for name in names], columns)


def show_budgets(rows: Sequence[Row]) -> str:
    """Return the table of the runs with a budget of trials: asked and done, and the same with a worker killed."""
    names = [name for name in CONTENDERS if any(row["tool"] == name for row in rows)]
    columns = []
    for kind, title in (("trials", "trials ended"), ("killed", "trials ended, a worker killed")):
        found = {name: [row for row in rows if row["tool"] == name and row["kind"] == kind] for name in names}
        columns.append((title, [", ".join(map(describe, found[name])) or missing(name, kind) for name in names]))
    asked = rows[0]["trials"]
    titles = [CONTENDERS[name].title for name in names]
    return f"A budget of {asked} trials, {TITLES[rows[0]['task']]}\n\n" + make_table(titles, columns)


def missing(name: str, kind: str) -> str:
    return "not run" if kind == "trials" or CONTENDERS[name].workers else "no workers"


def describe(row: Row) -> str:
    open_trials = row["begun"] - row["ended"]
    rest = f" ({open_trials} begun and never ended)" if open_trials else ""
    if row["exit"] and not row["stopped"] and row["ended"] < row["trials"]:
        rest += " (ended with an error)"
    if row["kind"] == "killed" and not row["killed"]:
        rest += " (none was killed)"
    return f"{row['ended']}{rest}" + (f" (did not end by itself in {row['wall']:.0f} s)" if row["stopped"] else "")


def seconds_until(score: float) -> Callable[[Row], float]:
    return lambda row: seconds_to(row["curve"], score)


def best_by(seconds: float) -> Callable[[Row], float]:
    return lambda row: best_at(row["curve"], seconds)


def spread(own: dict[str, list[Row]], figure: Callable[[Row], float], form: str) -> list[str]:
    return [write(summarize([figure(row) for row in rows]), form) for rows in own.values()]


def compare(own: dict[str, list[Row]], figure: Callable[[Row], float], form: str, *, largest: bool) -> list[str]:
    """Return the cells of a figure, with a star for the best and for its ties."""
    summaries = [summarize([figure(row) for row in rows]) for rows in own.values()]
    best = (max if largest else min)(each.median for each in summaries)
    ties = find_ties(summaries, largest=largest)
    return [
        write(each, form) + ("*" if math.isfinite(best) and (tie or each.median == best) else "")
        for each, tie in zip(summaries, ties, strict=True)
    ]


def write(summary: Summary, form: str) -> str:
    def text(value: float) -> str:
        return form.format(value) if math.isfinite(value) else ("never" if value > 0 else "none")

    if summary.least == summary.most:
        return text(summary.median)
    return f"{text(summary.median)} ({text(summary.least)} to {text(summary.most)})"


def make_table(titles: Sequence[str], columns: Sequence[tuple[str, Sequence[str]]]) -> str:
    lines = ["| | " + " | ".join(name for name, _ in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for number, title in enumerate(titles):
        lines.append(f"| {title} | " + " | ".join(cells[number] for _, cells in columns) + " |")
    return "\n".join(lines)
