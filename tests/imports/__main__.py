"""Table of the corpus: for each construct what came out, and the share of parameters that are kept.

A value that only the file's own code computes is not kept: a loop has its expression in a comment.
"""

from __future__ import annotations

import sys

from tests.imports.cases import CASES, Case


def _row(case: Case) -> tuple[str, str, str, str, str]:
    outcome, loop = case.outcome(), case.loop
    if isinstance(outcome, str):
        return case.name, case.construct, "refused", f"0/{loop.total}", f"{loop.kept}/{loop.total}"
    share = f"{outcome.kept}/{outcome.total}"
    return (
        case.name,
        case.construct,
        f"imported, {len(outcome.notes)} note{'' if len(outcome.notes) == 1 else 's'}",
        share,
        f"{loop.kept}/{loop.total}",
    )


def _sum(column: list[str]) -> str:
    kept, total = (sum(int(cell.split("/")[place]) for cell in column) for place in (0, 1))
    return f"{kept}/{total} ({kept / total:.0%})"


def main() -> None:
    """Print the table, or with --write write the expected files anew."""
    if "--write" in sys.argv:
        for case in CASES:
            case.write()
    rows = [("file", "construct", "without a loop", "kept", "with --loop"), *map(_row, CASES)]
    rows.append(("all", f"{len(CASES)} files", "", *(_sum([row[place] for row in rows[1:]]) for place in (3, 4))))
    widths = [max(len(row[place]) for row in rows) for place in range(5)]
    for row in rows:
        sys.stdout.write("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n")


if __name__ == "__main__":
    main()
