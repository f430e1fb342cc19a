"""Hyperparameter optimization for PyTorch: honest, parallel studies on SQL.

The names below are the public ones. Importing them imports neither torch nor a database driver.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

from hpo.config.registry import dataset, metric, model, training_loop

if TYPE_CHECKING:
    from hpo.config.trial_config import TrialConfig
    from hpo.datasets import Dataset, Feature, SampleShape
    from hpo.errors import HpoError
    from hpo.execution.backends.ray import Ray
    from hpo.execution.backends.slurm import Slurm
    from hpo.execution.evaluate import evaluate
    from hpo.execution.launch import launch
    from hpo.execution.optimize import optimize
    from hpo.execution.trial_checkpoint import checkpoint
    from hpo.execution.trial_seed import seed
    from hpo.export.writer import export_model
    from hpo.report.study_report import write_report
    from hpo.space import Constant, Space
    from hpo.space.fields import Categorical, Float, Int
    from hpo.space.fields import Categorical as Choices
    from hpo.study import StudyStorage
    from hpo.training.custom_loop import Trial

    __version__: str

__all__ = [
    "Categorical",
    "Choices",
    "Constant",
    "Dataset",
    "Feature",
    "Float",
    "HpoError",
    "Int",
    "Ray",
    "SampleShape",
    "Slurm",
    "Space",
    "StudyStorage",
    "Trial",
    "TrialConfig",
    "checkpoint",
    "dataset",
    "evaluate",
    "export_model",
    "launch",
    "metric",
    "model",
    "objective",
    "optimize",
    "seed",
    "training_loop",
    "write_report",
]

objective = training_loop  # its name until 0.1

# Loaded on first use: `hpo --help` should not wait for Optuna.
_LAZY = {
    "Categorical": "hpo.space.fields",
    "Constant": "hpo.space",
    "Dataset": "hpo.datasets",
    "Feature": "hpo.datasets",
    "Float": "hpo.space.fields",
    "HpoError": "hpo.errors",
    "Int": "hpo.space.fields",
    "Ray": "hpo.execution.backends.ray",
    "SampleShape": "hpo.datasets",
    "Slurm": "hpo.execution.backends.slurm",
    "Space": "hpo.space",
    "StudyStorage": "hpo.study",
    "Trial": "hpo.training.custom_loop",
    "TrialConfig": "hpo.config.trial_config",
    "checkpoint": "hpo.execution.trial_checkpoint",
    "evaluate": "hpo.execution.evaluate",
    "export_model": "hpo.export.writer",
    "launch": "hpo.execution.launch",
    "optimize": "hpo.execution.optimize",
    "seed": "hpo.execution.trial_seed",
    "write_report": "hpo.report.study_report",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("torch-hpo")
    elif name in _LAZY:
        value = getattr(importlib.import_module(_LAZY[name]), name)
    elif name == "Choices":
        value = __getattr__("Categorical")  # its name until 0.1
    else:
        raise AttributeError(f"module 'hpo' has no attribute '{name}'")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, "__version__"})
