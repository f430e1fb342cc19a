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
    from hpo.datasets import Dataset
    from hpo.errors import HpoError
    from hpo.execution.launch import launch
    from hpo.space import Choices, Constant, Float, Int, Space
    from hpo.study import StudyStorage
    from hpo.training.custom_loop import Trial

__all__ = [
    "Choices",
    "Constant",
    "Dataset",
    "Float",
    "HpoError",
    "Int",
    "Space",
    "StudyStorage",
    "Trial",
    "TrialConfig",
    "dataset",
    "launch",
    "metric",
    "model",
    "objective",
    "training_loop",
]

objective = training_loop  # the name until 0.1

# Loaded on first use: `hpo --help` should not wait for Optuna.
_LAZY = {
    "Choices": "hpo.space",
    "Constant": "hpo.space",
    "Dataset": "hpo.datasets",
    "Float": "hpo.space",
    "HpoError": "hpo.errors",
    "Int": "hpo.space",
    "Space": "hpo.space",
    "StudyStorage": "hpo.study",
    "Trial": "hpo.training.custom_loop",
    "TrialConfig": "hpo.config.trial_config",
    "launch": "hpo.execution.launch",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.metadata.version("torch-hpo")
    if name not in _LAZY:
        raise AttributeError(f"module 'hpo' has no attribute '{name}'")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value
