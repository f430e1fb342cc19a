"""Tools that are compared: what is run of each, and what of it its user has to write."""

from __future__ import annotations

import io
import sys
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks.rivals.data import find_data
from benchmarks.rivals.session import Session
from benchmarks.rivals.tasks import TOOLS, study_file

LOOP = "torch_loop.py"


@dataclass(frozen=True)
class Contender:
    """A tool.

    Attributes:
        title: what the tables call it.
        files: that its user writes, of the folder `tools`; the first is run. None for ours: the study file.
        distribution: whose version is printed.
        threads: of each of its processes that train.
        workers: whether trials run in processes that may die alone.
        environment: variables that it needs, with the run's folder for `{folder}`.
    """

    title: str
    files: tuple[str, ...]
    distribution: str
    threads: int = 1
    workers: bool = True
    environment: Mapping[str, str] | None = None

    def command(self, session: Session) -> list[str]:
        if not self.files:
            return launch_command(session)
        return [sys.executable, "-m", f"benchmarks.rivals.tools.{Path(self.files[0]).stem}"]

    def variables(self, session: Session) -> dict[str, str]:
        own = {name: value.format(folder=session.folder) for name, value in (self.environment or {}).items()}
        return {"OMP_NUM_THREADS": str(self.threads), **own} if self.files else own

    def lines(self, task: str) -> int:
        """Count the lines of code that its user writes: without blank lines, comments and docstrings."""
        files = [TOOLS / name for name in self.files] or [study_file(task)]
        return sum(count_lines(path) for path in files)

    @property
    def version(self) -> str:
        return version(self.distribution)


def launch_command(session: Session) -> list[str]:
    folder = Path(session.folder)
    options = {
        "--dataset": find_data(session.task, folder.parent),
        "--trials": session.trials,
        "--timeout": session.seconds,
        "--seed": session.seed,
        "--workers": 2,
        "--storage": f"sqlite:///{folder}/hpo.db",
    }
    words = [str(word) for option in options.items() for word in option]
    return [sys.executable, "-m", "hpo", "launch", str(study_file(session.task)), *words]


CONTENDERS = {
    "hpo": Contender("torch-hpo", (), "torch-hpo", environment={"HPO_HOME": "{folder}"}),
    "optuna-resident": Contender("Optuna, our loop", ("optuna_resident.py", "optuna_dataloader.py"), "optuna"),
    "optuna": Contender("Optuna", ("optuna_dataloader.py", LOOP), "optuna"),
    "ray": Contender("Ray Tune", ("ray_tune.py", LOOP), "ray", environment={"RAY_TRAIN_V2_ENABLED": "1"}),
    "smac": Contender("SMAC3", ("smac3.py", LOOP), "smac"),
    "keras": Contender(
        "KerasTuner", ("keras_tuner_fit.py",), "keras-tuner", 2, False, environment={"KERAS_BACKEND": "torch"}
    ),
    "ax": Contender("Ax", ("ax_client.py", LOOP), "ax-platform", workers=False),
    "syne": Contender(
        "Syne Tune",
        ("syne_tune_launch.py", "syne_tune_train.py", LOOP),
        "syne-tune",
        environment={"SYNETUNE_FOLDER": "{folder}"},
    ),
}


def count_lines(path: Path) -> int:
    """Count lines of code; a line of a statement that goes over several counts, a docstring does not."""
    if path.suffix != ".py":
        return sum(1 for line in path.read_text().splitlines() if line.strip() and not line.startswith("#"))
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines: set[int] = set()
    fresh = True  # whether a statement begins here: a string that does is a docstring
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if token.type in skipped:
            fresh = fresh or token.type == tokenize.NEWLINE
        elif not (fresh and token.type == tokenize.STRING):
            lines.update(range(token.start[0], token.end[0] + 1))
            fresh = False
    return len(lines)
