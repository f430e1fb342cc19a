"""Chapter with all trials in one table, the best first."""

from __future__ import annotations

from collections.abc import Collection

from hpo.config.parameter import Value
from hpo.report.chapters.blocks import Chapter, Column, DataTable, Kind, Text
from hpo.report.data.repeats import describe_repeats, repeated_trials
from hpo.report.data.results import Results, TrialRow
from hpo.report.format import is_share, state_text, value_text

__all__ = ["trials_chapter"]


ORIGIN_NOTES = {"returned": "value returned", "last report": "value of the last report"}


def trials_chapter(results: Results) -> Chapter | None:
    """Write the chapter; None of a study without trials. Complete trials come first, the best of all in front."""
    if not results.trials:
        return None
    rows = _order_trials(results)
    front = {row.number for row in results.front} if len(results.objectives) > 1 else set[int]()
    settings = [results.settings(row) for row in rows]
    names = dict.fromkeys([*results.varied, *(name for values in settings for name in values)])
    columns_held = [name for name in names if any(values.get(name) is not None for values in settings)]
    repeats = repeated_trials(results.trials, results.definition)
    note_texts = [_note_text(row, repeats.get(row.number), front=row.number in front) for row in rows]
    notes = any(note_texts)
    costs = _cost_columns(results)
    columns = [
        Column("trial", "count"),
        Column("state"),
        *(Column(name, _column_kind(name)) for name in [each.metric for each in results.objectives]),
        *([Column("standard error", _error_kind(results))] if results.definition.several_fits else []),
        *(Column(name, _column_kind(name)) for name in results.recorded),
        *(
            Column(name, "number" if all(map(_is_numeric, (v.get(name) for v in settings))) else "text")
            for name in columns_held
        ),
        *(Column(name, kind) for name, kind in costs.items()),
        *([Column("note")] if notes else []),
    ]
    lines = [
        [
            row.number,
            state_text(row.state),
            *(row.values or (None,) * len(results.objectives)),
            *([row.standard_error] if results.definition.several_fits else []),
            *map(row.metric, results.recorded),
            *(_cell_value(values.get(name)) for name in columns_held),
            *_cost_cells(row, costs),
            *([note] if notes else []),
        ]
        for row, values, note in zip(rows, settings, note_texts, strict=True)
    ]
    text = describe_repeats(results.trials, results.definition, results.space)
    said = [] if text is None else [Text(f"{text}.", quiet=True)]
    return Chapter("trials", "All trials", [*said, DataTable("trials", columns, lines, "state")])


def _order_trials(results: Results) -> list[TrialRow]:
    """Sort by the Pareto front, the rank of other comparable trials, and the number of the rest."""
    numbers = dict.fromkeys(row.number for row in (*results.front, *results.ranked))
    place = {number: i for i, number in enumerate(numbers)}
    return sorted(results.trials, key=lambda row: place.get(row.number, len(place) + row.number))


_COST: dict[str, Kind] = {"best epoch": "count", "epochs": "count", "weights": "count", "time": "seconds"}


def _cost_columns(results: Results) -> dict[str, Kind]:
    """Return the columns of what trials cost; of an objective function those that it has something for."""
    if not results.definition.configured:
        steps: dict[str, Kind] = {"steps": "count"} if any(row.epochs for row in results.trials) else {}
        return {**steps, "time": "seconds"}
    # The number of weights as an objective has a column of its own.
    counted = any(objective.metric == "parameter_count" for objective in results.objectives)
    return {name: kind for name, kind in _COST.items() if not (counted and name == "weights")}


def _column_kind(metric: str) -> Kind:
    if is_share(metric):
        return "share"
    return {"parameter_count": "count", "train_seconds": "seconds"}.get(metric, "number")  # type: ignore[return-value]


def _error_kind(results: Results) -> Kind:
    kind = _column_kind(results.objective.metric)
    return "number" if kind == "count" else kind


def _is_numeric(value: Value | None) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _cell_value(value: Value | None) -> str | float | None:
    return value if _is_numeric(value) and not isinstance(value, str) else value_text(value)


def _cost_cells(row: TrialRow, columns: Collection[str]) -> list[float | None]:
    steps = len(row.epochs)
    cells = {"best epoch": row.best_epoch, "epochs": steps, "steps": steps, "weights": row.parameter_count}
    return [{**cells, "time": row.seconds}[name] for name in columns]


def _note_text(row: TrialRow, earlier: int | None, *, front: bool) -> str:
    """Note what is special about a trial."""
    words = ["baseline"] if row.baseline else []
    words += ["Pareto front"] if front else []
    words += ["added by others"] if row.extra else []
    words += [ORIGIN_NOTES[row.value_from]] if row.value_from in ORIGIN_NOTES else []
    words += [row.raced] if row.raced else []
    words += [f"as trial {earlier}"] if earlier is not None else []
    words += [": ".join(filter(None, (row.known_failure, row.message)))] if row.known_failure or row.message else []
    return ", ".join(words)
