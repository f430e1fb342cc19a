"""Training of one configuration without a study, as `hpo train` does it, and the files it writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tomli_w
from safetensors.torch import save

from hpo.config import registry
from hpo.config.registry import Direction
from hpo.config.trial_config import TrialConfig
from hpo.config.values import OFF
from hpo.datasets import DatasetReference
from hpo.errors import DivergedError, RequestError
from hpo.training.callbacks import CsvLog, Progress
from hpo.training.data import Data
from hpo.training.data_cache import DataCache
from hpo.training.device import select_device, set_threads
from hpo.training.loggers.tensorboard import TensorBoard
from hpo.training.loop import train
from hpo.training.member import Scores, TrainResult, Weights
from hpo.training.metrics import measure_metrics
from hpo.training.predictions import evaluate_weights
from hpo.training.settings import TrainSettings
from hpo.training.suggestions import TrialLink
from hpo.utils.files import write_atomically

__all__ = ["JobResult", "train_config", "write_config", "write_weights"]

FILES = ("config.toml", "metrics.csv", "weights.safetensors")


@dataclass(frozen=True)
class JobResult:
    """Result of `train_config`.

    Attributes:
        outcome: of the training.
        out: the folder of its files.
        test: the scores on the test set, where they were asked for.
    """

    outcome: TrainResult
    out: Path
    test: Scores | None = None


def train_config(
    config: TrialConfig,
    reference: DatasetReference,
    out: Path,
    *,
    settings: TrainSettings | None = None,
    device: str = "auto",
    threads: int | None = None,
    test: bool = False,
    progress: bool = True,
    extra_header: str | None = None,
    link: TrialLink | None = None,
) -> JobResult:
    """Train one configuration; write config.toml, metrics.csv, TensorBoard events and weights.safetensors to `out`.

    Args:
        config: what to train.
        reference: the data set.
        out: a folder, which is created or empty.
        settings: monitor, metrics, further callbacks and the stop condition; by default those of `TrainSettings`, with
            the task's default metric as the monitor.
        device: see `hpo.training.device.select_device`.
        threads: of torch; None leaves torch its own choice.
        test: read the test set, once, at the end, and measure the kept weights on it.
        progress: print a line per epoch on standard error.
        extra_header: lines for the head of config.toml, without `#`.
        link: of the trial that is trained again, to what a loop of the user's own was given then.

    Raises:
        RequestError: `out` is not empty; or the configuration or the data set is wrong.
        RunError: out of memory; or training diverged before any epoch could be kept.
    """
    _empty_folder(out)
    where = select_device(device)
    if threads is not None:
        set_threads(threads)
    data = DataCache(reference, where).get(config)
    settings = settings or TrainSettings()
    settings = settings if settings.monitor else settings.choose_monitor(config)
    assert settings.monitor is not None
    write_config(out / "config.toml", config, reference, settings.monitor, settings.direction, extra_header)
    registered = [entry.name for entry in settings.metrics if not entry.measured]
    files = [CsvLog(out / "metrics.csv", registered), TensorBoard([out])]
    callbacks = [*files, *([Progress()] if progress else []), *settings.callbacks]
    (outcome,) = train([config], data, replace(settings, callbacks=callbacks), links=[link])
    if outcome.weights is None and outcome.status == "diverged":
        raise DivergedError(f"diverged: {outcome.cause}; try a smaller learning_rate or gradient_clip")
    if outcome.weights is not None:
        write_weights(out / "weights.safetensors", outcome.weights)
    if not test or outcome.weights is None or outcome.status == "interrupted":
        return JobResult(outcome, out)
    return JobResult(outcome, out, _test(outcome, data, settings))


def _test(outcome: TrainResult, data: Data, settings: TrainSettings) -> Scores:
    """Return the scores and metrics on the test set, without a prefix."""
    x, y = data.test()
    evaluation = evaluate_weights(outcome, data, x, y)
    entries = [entry for entry in settings.metrics if not entry.reported]
    (metrics,) = measure_metrics(entries, outcome.config, data, x, y, [evaluation.outputs])
    return {**evaluation.scores, **{name.removeprefix("val_"): value for name, value in metrics.items()}}


def write_config(
    path: Path,
    config: TrialConfig,
    reference: DatasetReference,
    monitor: str,
    direction: Direction,
    header: str | None = None,
) -> None:
    """Write a configuration as `hpo train --config` reads it: only the parameters that have an effect."""
    usual = registry.metrics.get(monitor).direction
    document: dict[str, Any] = {
        "dataset": reference.spelled,
        "objective": monitor if direction == usual else {"metric": monitor, "direction": direction},
        "parameters": config.literals(none=OFF),
    }
    comment = "".join(f"# {line}\n" for line in (header or "").splitlines())
    write_atomically(path, (comment + tomli_w.dumps(document)).encode())


def write_weights(path: Path, weights: Weights, about: Mapping[str, str] | None = None) -> None:
    """Write a state dict as safetensors, with texts for its header that describe it."""
    write_atomically(path, save(weights, metadata=dict(about) if about else None))


def _empty_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        taken = next(out.iterdir(), None)
    except OSError as error:
        raise RequestError(f"--out {out}: cannot be used ({error.strerror}); choose another folder") from error
    if taken is not None:
        what = "holds a run already" if any((out / name).exists() for name in FILES) else "is not empty"
        raise RequestError(f"--out {out}: {what}; choose another folder, or delete this one")
