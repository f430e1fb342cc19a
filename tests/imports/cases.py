"""Cases of the corpus, and what comes out of each: a study or a refusal, and a loop with every parameter."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hpo.errors import ImportRefusedError, RequestError
from hpo.study.foreign.import_study import import_study
from hpo.study.foreign.imported import ImportedStudy, ImportOptions
from hpo.study.foreign.loop_file import import_loop
from hpo.study.input.study_file import parse_override

__all__ = ["CASES", "Case"]

HERE = Path(__file__).parent
LOOP = "filled_loop"


@dataclass(frozen=True)
class Case:
    """Case of the corpus.

    Attributes:
        file: another tool's file.
        construct: what it is there for.
        options: of `hpo import`: `dataset`, `rename`, `leave_out` and `set`, as the command line has them.
    """

    file: Path
    construct: str
    options: ImportOptions

    @property
    def name(self) -> str:
        """Folder and name of the file."""
        return f"{self.file.parent.name}/{self.file.name}"

    @property
    def expected(self) -> Path:
        """The study file that must come out."""
        return self.file.with_suffix(".expected.toml")

    @property
    def refusal(self) -> Path:
        """All that must be said against the file."""
        return self.file.with_suffix(".refused.txt")

    def outcome(self) -> ImportedStudy | str:
        """Return the study, or what is said against it, a line each."""
        try:
            return import_study(self.file, self.options)
        except ImportRefusedError as error:
            lines = [*error.lines, str(error)]
        except RequestError as error:
            lines = [str(error)]
        return "".join(f"{line}\n" for line in lines).replace(f"{self.file}: ", "")

    def text(self) -> str:
        """Return the text that the expected file has, whichever it is."""
        outcome = self.outcome()
        return outcome if isinstance(outcome, str) else outcome.toml(self.file.name)

    @cached_property
    def loop(self) -> ImportedStudy:
        """The same file as a training loop to fill in."""
        return import_loop(self.file, Path(f"{LOOP}.py"), ImportOptions())

    def write(self) -> None:
        """Write the expected file anew."""
        self.expected.unlink(missing_ok=True)
        self.refusal.unlink(missing_ok=True)
        path = self.refusal if isinstance(self.outcome(), str) else self.expected
        path.write_text(self.text(), encoding="utf-8")


def _read(path: Path) -> list[Case]:
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    return [
        Case(
            path.parent / name,
            case["construct"],
            ImportOptions(
                renames=dict(text.split("=") for text in case.get("rename", ())),
                left_out=tuple(case.get("leave_out", ())),
                sets=dict(parse_override(text) for text in case.get("set", ())),
                dataset=case.get("dataset"),
            ),
        )
        for name, case in table.items()
    ]


CASES = [case for path in sorted(HERE.glob("*/cases.toml")) for case in _read(path)]
