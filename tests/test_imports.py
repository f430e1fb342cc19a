"""The design's import rules, and what a light command may import."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import hpo

PACKAGE = Path(hpo.__file__).parent
BASE = frozenset(
    {
        "errors",
        "foreign",
        "choices",
        "config",
        "cohorts",
        "registry",
        "datasets",
        "home",
        "signals",
        "templates",
        "widths",
    }
)
# What each part may import of ours, itself aside; `TYPE_CHECKING` blocks and functions count as well.
ALLOWED = {
    **dict.fromkeys(BASE, BASE),
    "space": BASE,
    "study": BASE | {"space"},
    "training": BASE,
    "reporting": BASE | {"space", "study", "training"},
    "looking": BASE | {"reporting", "space", "study", "training"},
    "telling": BASE | {"reporting", "space", "study", "training"},
    "worker": BASE | {"looking", "reporting", "telling", "space", "study", "training"},
    "backends": BASE | {"space", "study"},
    "report": BASE | {"bundle", "space", "study"},
    "gates": frozenset(),
    "dashboard": BASE | {"gates", "study"},
    "publishing": BASE | {"report", "study"},
    "doctor": BASE | {"study"},
    "restoring": BASE | {"study", "training"},
    "inside": BASE | {"restoring", "study", "training"},
    "bundle": BASE,
    "exporting": BASE | {"bundle", "restoring", "report", "study", "training"},
    "predicting": BASE | {"bundle", "study", "training"},
    "reproducing": BASE | {"restoring", "study", "training"},
    "launching": BASE | {"space", "study", "backends", "worker"},
    "evaluating": BASE | {"space", "study", "backends", "report", "launching"},
    "pricing": BASE | {"study", "training", "launching"},
    "sweeps": BASE | {"report", "study"},
    "console": frozenset(),
    "cli": BASE
    | {"console", "space", "study", "training", "worker", "backends", "report", "dashboard", "doctor", "launching"}
    | {"evaluating", "pricing", "inside", "exporting", "predicting", "reproducing", "publishing", "sweeps"},
    "__init__": BASE | {"space", "study", "training", "launching"},
    "__main__": {"cli"},
}
FORBIDDEN = {
    "space": {"torch", "sqlalchemy"},
    "study": {"torch"},
    "training": {"optuna", "sqlalchemy"},
    "report": {"torch"},
    "dashboard": {"torch"},
    "bundle": {"torch", "optuna", "sqlalchemy"},
    "gates": {"torch", "optuna", "sqlalchemy"},
    "publishing": {"torch"},
    "sweeps": {"torch"},
    **dict.fromkeys(BASE, frozenset({"torch", "optuna", "sqlalchemy"})),
}


def imports_of(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=[str(f.relative_to(PACKAGE)) for f in FILES])
def test_imports_run_one_way(path: Path) -> None:
    part, names = part_of(path), imports_of(path)
    parts = {part_of(p) for p in FILES}
    ours = {name.split(".")[1] for name in names if name.startswith("hpo.")} & parts
    assert ours - {part} <= ALLOWED[part]
    assert not {name.split(".")[0] for name in names} & FORBIDDEN.get(part, set())


@pytest.mark.parametrize(
    "code",
    [
        "import hpo",
        "import hpo; hpo.Space, hpo.Float, hpo.launch, hpo.StudyStorage, hpo.Dataset, hpo.TrialConfig",
        "import hpo.report, hpo.dashboard",
        "import hpo.study.keeping, hpo.study.sweeping, hpo.study.copying",
        "from hpo.cli import main; main(['list'])",
        "from hpo.cli import main; main(['templates'])",
        "from hpo.cli import main; main(['parameters'])",
        "from hpo.cli import main; main(['datasets'])",
        "from hpo.cli import main; main(['launch', 'quickstart', '--dry-run'])",
        "from hpo.cli import main; main(['launch', 'grid_2700', '--set', 'optimizer=adam', '--dry-run'])",
    ],
)
def test_no_torch_where_nothing_is_trained(code: str) -> None:
    check = (
        f"import sys, atexit\natexit.register(lambda: print('TORCH' if 'torch' in sys.modules else 'LIGHT'))\n{code}"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("LIGHT")


def test_help_imports_next_to_nothing() -> None:
    heavy = "('torch', 'optuna', 'sqlalchemy', 'numpy', 'rich')"
    check = f"import sys\nimport hpo.cli\nprint(sorted(m for m in {heavy} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_change_only_on_purpose() -> None:
    assert hpo.__all__ == [
        "Choices", "Constant", "Dataset", "Float", "HpoError", "Int", "Space", "StudyStorage", "Trial",
        "TrialConfig", "dataset", "launch", "metric", "model", "objective",
    ]  # fmt: skip
    for name in hpo.__all__:
        assert getattr(hpo, name) is not None


def test_no_module_takes_the_place_of_a_public_name() -> None:
    """Python sets a module that somebody imports as an attribute of the package."""
    assert not {part_of(path) for path in FILES} & set(hpo.__all__)
