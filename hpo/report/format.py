"""Formatting of numbers, parameters and domains as text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from hpo.config.parameter import Value
from hpo.space import Choices, Constant, Dimension
from hpo.space.domains import Between, Condition, Domain, Range

__all__ = [
    "amount_text",
    "candidate_text",
    "cell_text",
    "condition_text",
    "count_text",
    "dimension_text",
    "domain_text",
    "duration_text",
    "finite",
    "gain_text",
    "is_share",
    "metric_text",
    "names_text",
    "number_of",
    "number_text",
    "one_line",
    "percent_text",
    "sentence",
    "state_text",
    "time_text",
    "value_text",
    "values_text",
]

NONE = "-"  # what stands in a table where there is no value

METRICS = {
    "val_accuracy": "validation accuracy",
    "val_loss": "validation loss",
    "val_reconstruction_error": "reconstruction error",
    "test_accuracy": "test accuracy",
    "test_reconstruction_error": "reconstruction error on the test set",
    "test_loss": "test loss",
    "train_accuracy": "training accuracy",
    "train_loss": "training loss",
    "parameter_count": "number of weights",
    "train_seconds": "training time",
}
SPLITS = {"val": "validation", "test": "test", "train": "training"}
SCORES = {
    "accuracy": "accuracy",
    "loss": "loss",
    "r2": "R²",
    "balanced_accuracy": "balanced accuracy",
    "top5_accuracy": "top-5 accuracy",
    "roc_auc": "ROC AUC",
    "average_precision": "average precision",
    "log_loss": "log loss",
    "calibration_error": "calibration error",
    "mcc": "Matthews correlation",
    "cohen_kappa": "Cohen's kappa",
    "mae": "mean absolute error",
    "rmse": "root mean squared error",
    "mape": "mean absolute percentage error",
    "median_absolute_error": "median absolute error",
    "spearman": "Spearman correlation",
    **{
        f"{name}_{average}": f"{'F1' if name == 'f1' else name} ({average})"
        for name in ("precision", "recall", "f1")
        for average in ("macro", "micro", "weighted")
    },
}
SHARES = ("accuracy", "_mape", "_calibration_error")  # how names of metrics end that are shown in percent


def metric_text(metric: str) -> str:
    """Format a metric's name in words: `val_accuracy` is the validation accuracy, `test_r2` the test R²."""
    split, _, score = metric.partition("_")
    if split in SPLITS and score in SCORES:
        return f"{SPLITS[split]} {SCORES[score]}"
    return METRICS.get(metric, metric)


def candidate_text(label: str) -> str:
    """Format a candidate's label for a sentence: `defaults` is the default configuration, `trial 4` stays."""
    return {"baseline": "the baseline", "defaults": "the default configuration"}.get(label, label)


def state_text(state: str) -> str:
    """Format a trial's state in words."""
    return "failed" if state == "FAIL" else state.lower()


def is_share(metric: str) -> bool:
    """Return whether the metric is shown in percent."""
    return metric.endswith(SHARES)


def values_text(metric: str, value: float | None) -> str:
    """Format an objective's value: shares in percent, counts with separators, times in units, else four digits."""
    if value is None or not math.isfinite(value):
        return NONE if value is None else str(value)
    if is_share(metric):
        return f"{100 * value:.2f} %"
    if metric == "parameter_count":
        return count_text(int(value))
    if metric == "train_seconds":
        return duration_text(value)
    return amount_text(value)


def amount_text(value: float) -> str:
    """Format a real number with four significant digits, a large one with all before the point: 1.235, 25,313."""
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.4g}"


def gain_text(metric: str, amount: float) -> str:
    """Format a difference of two values of a metric, without its sign: shares in percentage points."""
    return f"{100 * abs(amount):.2f} percentage points" if is_share(metric) else values_text(metric, abs(amount))


def percent_text(share: float) -> str:
    """Format a share between 0 and 1 in whole percent."""
    return f"{100 * share:.0f} %"


def number_of(count: int, noun: str) -> str:
    """Format a count with its noun, which has a plural in -s: `1 trial`, `1,200 trials`, `no trials`."""
    return f"{count_text(count) if count else 'no'} {noun}{'' if count == 1 else 's'}"


def sentence(text: str) -> str:
    """Return words with a capital letter and a full stop, where they have none; of nothing, nothing."""
    return text[:1].upper() + text[1:] + ("" if not text or text[-1] in ".!?" else ".")


def names_text(names: Sequence[str]) -> str:
    """Format an enumeration: `a`, `a and b`, `a, b and c`."""
    return " and ".join([*([", ".join(names[:-1])] if len(names) > 1 else []), *names[-1:]])


def value_text(value: Value | None) -> str:
    """Format a parameter's value; fractions with three significant digits."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def cell_text(kind: str, value: str | float | None) -> str:
    """Format a value in a `DataTable`, as `table.js` writes it too."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return NONE
    if isinstance(value, str):
        return value
    if kind == "share":
        return f"{100 * value:.2f} %"
    if kind == "seconds":
        return duration_text(value)
    return f"{value:,.0f}" if kind == "count" else number_text(value)


def number_text(value: float) -> str:
    """Format a number with four significant digits; a whole one with all of them."""
    return str(int(value)) if value == round(value) and abs(value) < 1e15 else f"{value:.4g}"


def count_text(count: int | None) -> str:
    """Format a count with thousands separated: 101,770."""
    return NONE if count is None else f"{count:,}"


def duration_text(seconds: float | None) -> str:
    """Format seconds: `4.2 s`, `2 min 03 s`, `1 h 05 min`."""
    if seconds is None:
        return NONE
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {rest:02d} s"


def time_text(moment: datetime | None) -> str:
    """Format date and time to the minute."""
    return NONE if moment is None else f"{moment:%Y-%m-%d %H:%M}"


def condition_text(condition: Condition | Mapping[str, Any]) -> str:
    """Format a condition: `optimizer = adam or adamw, depth = 1 to 3`; empty where there is none."""

    def test_text(test: Any) -> str:
        if isinstance(test, Between):
            return f"{value_text(test.low)} to {value_text(test.high)}"
        return " or ".join(value_text(value) for value in test)

    tests = Condition.from_table(condition).tests
    return ", ".join(f"{name} = {test_text(test)}" for name, test in tests.items())


def dimension_text(dimension: Dimension) -> str:
    """Format a dimension: `learning_rate` or, of several alternatives, `learning_rate (optimizer = adam)`."""
    name = dimension.parameter.name
    return name if dimension.key == name else f"{name} ({condition_text(dimension.domain.when)})"


def domain_text(domain: Domain) -> str:
    """Format a domain: `0.0005 to 0.005, log`, `64, 128`, `relu`."""
    if isinstance(domain, Constant):
        return value_text(domain.value)
    if isinstance(domain, Choices):
        return ", ".join(value_text(value) for value in domain.values)
    assert isinstance(domain, Range)
    scale = ", log" if domain.log else f", step {value_text(domain.step)}" if domain.step is not None else ""
    return f"{value_text(domain.low)} to {value_text(domain.high)}{scale}"


def one_line(text: str) -> str:
    """Put text of unknown origin on one line, control characters replaced."""
    return "".join(character if character.isprintable() else " " for character in text)


def finite(data: Any) -> Any:
    """Replace what JSON cannot hold: numbers that are not finite by None, times by ISO texts."""
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, dict):
        return {str(key): finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [finite(value) for value in data]
    return data.isoformat(timespec="seconds") if isinstance(data, datetime) else data
