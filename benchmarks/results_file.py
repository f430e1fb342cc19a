"""File of a benchmark's results, a line of JSON each, so that a run that was interrupted goes on after the last one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["ResultsFile"]


class ResultsFile:
    """Results by what was planned.

    Args:
        path: of the file; its folder is made.

    Attributes:
        rows: the results, in the order in which they were added; each has what was planned as `planned`.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self.rows: list[dict[str, Any]] = []
        if path.exists():
            self.rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        self._by_plan = {json.dumps(row["planned"]): row for row in self.rows}

    def find(self, planned: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the result of what was planned, or None."""
        return self._by_plan.get(json.dumps(planned))

    def add(self, planned: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
        """Write a result, and return it with what was planned."""
        row = {**result, "planned": dict(planned)}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self.rows.append(row)
        self._by_plan[json.dumps(planned)] = row
        return row
