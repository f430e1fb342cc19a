"""Public names, and what a light command may import. Which package may import which: `lint-imports`."""

from __future__ import annotations

import importlib.metadata
import pkgutil
import platform
import subprocess
import sys

import pytest

import hpo


@pytest.mark.integration
@pytest.mark.parametrize(
    "code",
    [
        "import hpo",
        "import hpo; hpo.Space, hpo.Float, hpo.launch, hpo.StudyStorage, hpo.Dataset, hpo.TrialConfig",
        "import hpo; hpo.evaluate, hpo.write_report, hpo.Ray, hpo.Slurm, hpo.__version__",
        "import hpo.report.write, hpo.report.dashboard.server",
        "import hpo.study.files.study_files, hpo.study.files.cleanup, hpo.study.operations.copy_study",
        "from hpo.cli import main; main(['--version'])",
        "from hpo.cli import main; main(['list'])",
        "from hpo.cli import main; main(['templates'])",
        "from hpo.cli import main; main(['parameters', '--model', 'timm:resnet18'])",
        "from hpo.cli import main; main(['datasets'])",
        "from hpo.cli import main; main(['launch', 'quickstart', '--workers', '0'])",
        "from hpo.cli import main; main(['launch', 'grid_2700', '--set', 'optimizer=adam', '--workers', '0'])",
    ],
)
def test_no_torch_where_nothing_is_trained(code: str) -> None:
    check = (
        f"import sys, atexit\natexit.register(lambda: print('TORCH' if 'torch' in sys.modules else 'LIGHT'))\n{code}"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("LIGHT")


@pytest.mark.integration
def test_help_imports_next_to_nothing() -> None:
    heavy = "('torch', 'optuna', 'sqlalchemy', 'numpy', 'rich')"
    check = f"import sys\nimport hpo.cli\nprint(sorted(m for m in {heavy} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_change_only_on_purpose() -> None:
    assert hpo.__all__ == [
        "Categorical", "Choices", "Constant", "Dataset", "Feature", "Float", "HpoError", "Int", "Ray", "SampleShape",
        "Slurm", "Space", "StudyStorage", "Trial", "TrialConfig", "checkpoint", "dataset", "evaluate",
        "export_model", "launch", "metric", "model", "objective", "optimize", "seed", "training_loop", "write_report",
    ]  # fmt: skip
    for name in hpo.__all__:
        assert getattr(hpo, name) is not None


def test_the_version_is_that_of_the_installed_package() -> None:
    assert hpo.__version__ == importlib.metadata.version("torch-hpo")


@pytest.mark.integration
def test_version_prints_what_a_bug_report_needs_and_imports_nothing_heavy() -> None:
    check = "import sys\nfrom hpo.cli import app\napp.main(['--version'], standalone_mode=False)\n"
    check += "print('HEAVY' if {'torch', 'optuna'} & set(sys.modules) else 'LIGHT')"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    versions = {name: importlib.metadata.version(name) for name in ("torch-hpo", "torch", "optuna")}
    assert done.stdout.splitlines() == [
        f"torch-hpo {versions['torch-hpo']} (Python {platform.python_version()}, torch {versions['torch']}, "
        f"optuna {versions['optuna']})",
        "LIGHT",
    ]


def test_the_old_name_of_a_training_loop_still_works() -> None:
    assert hpo.objective is hpo.training_loop


def test_no_module_takes_the_place_of_a_public_name() -> None:
    """Python sets a module that somebody imports as an attribute of the package."""
    assert not {module.name for module in pkgutil.iter_modules(hpo.__path__)} & set(hpo.__all__)
