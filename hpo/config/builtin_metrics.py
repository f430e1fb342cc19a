"""Built-in metrics by name: what each is a metric of, and which of its values are better. No torch.

Those that are not measured by the training loop anyway are functions of `hpo.training.metrics`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from hpo.config.choices import Direction

__all__ = ["BUILTIN_METRICS", "RECONSTRUCTION", "BuiltinMetric", "default_metric", "list_fitting"]

RECONSTRUCTION = "reconstruction"  # what models do whose target is their input, whatever the data set's task is
CLASSES, LABELS, TARGETS = ("classification",), ("classification", "multilabel"), ("regression",)
EVERYWHERE = (*LABELS, *TARGETS, RECONSTRUCTION)


@dataclass(frozen=True)
class BuiltinMetric:
    """Traits of a built-in metric.

    Attributes:
        direction: which of its values are better.
        tasks: those that it is a metric of, `reconstruction` among them.
        measured: whether the training loop measures it in any case.
    """

    direction: Direction
    tasks: Collection[str]
    measured: bool = False


def _averages(name: str) -> dict[str, BuiltinMetric]:
    return {f"val_{name}_{average}": BuiltinMetric("maximize", LABELS) for average in ("macro", "micro", "weighted")}


BUILTIN_METRICS: Mapping[str, BuiltinMetric] = MappingProxyType(
    {
        "val_accuracy": BuiltinMetric("maximize", LABELS, measured=True),
        "val_loss": BuiltinMetric("minimize", EVERYWHERE, measured=True),
        "val_r2": BuiltinMetric("maximize", TARGETS, measured=True),
        "val_reconstruction_error": BuiltinMetric("minimize", (RECONSTRUCTION,), measured=True),
        "parameter_count": BuiltinMetric("minimize", EVERYWHERE, measured=True),
        "train_seconds": BuiltinMetric("minimize", EVERYWHERE, measured=True),
        "val_balanced_accuracy": BuiltinMetric("maximize", CLASSES),
        "val_top5_accuracy": BuiltinMetric("maximize", CLASSES),
        **_averages("precision"),
        **_averages("recall"),
        **_averages("f1"),
        "val_roc_auc": BuiltinMetric("maximize", LABELS),
        "val_average_precision": BuiltinMetric("maximize", LABELS),
        "val_log_loss": BuiltinMetric("minimize", LABELS),
        "val_calibration_error": BuiltinMetric("minimize", LABELS),
        "val_mcc": BuiltinMetric("maximize", CLASSES),
        "val_cohen_kappa": BuiltinMetric("maximize", CLASSES),
        "val_mae": BuiltinMetric("minimize", TARGETS),
        "val_rmse": BuiltinMetric("minimize", TARGETS),
        "val_mape": BuiltinMetric("minimize", TARGETS),
        "val_median_absolute_error": BuiltinMetric("minimize", TARGETS),
        "val_spearman": BuiltinMetric("maximize", TARGETS),
    }
)
DEFAULTS = {"classification": "val_accuracy", "multilabel": "val_f1_macro", "regression": "val_r2"}


def default_metric(task: str, *, reconstructs: bool = False) -> str:
    """Return the metric by which models are compared where none is named."""
    return "val_loss" if reconstructs else DEFAULTS[task]


def list_fitting(task: str) -> list[str]:
    """Return the names of the built-in metrics of a task, or of `reconstruction`."""
    return [name for name, metric in BUILTIN_METRICS.items() if task in metric.tasks]
