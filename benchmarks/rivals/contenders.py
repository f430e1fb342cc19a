"""Tools that are compared: what is run of each, and what of it its user has to write."""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.rivals.data import find_data
from benchmarks.rivals.session import Session
from benchmarks.rivals.tasks import TOOLS, read_space, study_file

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
        kills: whether it stops a trial by killing its process, so that the trial cannot say that it has ended.
        timed: whether it takes a budget of seconds; we end the others ourselves.
        environment: variables that it needs, with the run's folder for `{folder}`.
    """

    title: str
    files: tuple[str, ...]
    distribution: str
    threads: int = 1
    workers: bool = True
    kills: bool = False
    timed: bool = True
    environment: Mapping[str, str] | None = None

    def command(self, session: Session) -> list[str]:
        if not self.files:
            return launch_command(session)
        return [sys.executable, "-m", f"benchmarks.rivals.tools.{Path(self.files[0]).stem}"]

    def variables(self, session: Session) -> dict[str, str]:
        own = {name: value.format(folder=session.folder) for name, value in (self.environment or {}).items()}
        return {"OMP_NUM_THREADS": str(self.threads), **own} if self.files else own

    def lines(self, task: str) -> int:
        """Count the lines of code that its user writes for a task."""
        files = [TOOLS / name for name in self.files] or [study_file(task)]
        return sum(count_lines(path, read_space(task).model) for path in files)

    @property
    def version(self) -> str | None:
        """The installed version, or None."""
        try:
            return version(self.distribution)
        except PackageNotFoundError:
            return None


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
        "KerasTuner",
        ("keras_tuner_fit.py",),
        "keras-tuner",
        2,
        workers=False,
        timed=False,
        environment={"KERAS_BACKEND": "torch"},
    ),
    "ax": Contender("Ax", ("ax_client.py", LOOP), "ax-platform", workers=False),
    "syne": Contender(
        "Syne Tune",
        ("syne_tune_launch.py", "syne_tune_train.py", LOOP),
        "syne-tune",
        kills=True,
        environment={"SYNETUNE_FOLDER": "{folder}"},
    ),
}


def count_lines(path: Path, model: str) -> int:
    """Count lines of code, without blank lines, comments, docstrings, and the functions that make the other model."""
    code = path.read_text()
    if path.suffix != ".py":
        return sum(1 for line in code.splitlines() if line.strip() and not line.startswith("#"))
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines: set[int] = set()
    fresh = True  # whether a statement begins here: a string that does is a docstring
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type in skipped:
            fresh = fresh or token.type == tokenize.NEWLINE
        elif not (fresh and token.type == tokenize.STRING):
            lines.update(range(token.start[0], token.end[0] + 1))
            fresh = False
    others = {"mlp", "cnn"} - {model}
    for node in ast.parse(code).body:
        if isinstance(node, ast.FunctionDef) and node.name.removeprefix("make_") in others:
            lines -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)
