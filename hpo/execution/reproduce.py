"""Training a trial once more, and comparing every epoch with what was recorded. Joins study and training."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from typing_extensions import override

from hpo.config import registry
from hpo.config.trial_config import TrialConfig
from hpo.errors import DivergedError, RequestError
from hpo.execution.restore import choose_trial
from hpo.storage.study_storage import ENVIRONMENT, EpochMetrics
from hpo.study import Study
from hpo.training.callbacks import Callback
from hpo.training.data import DataCache
from hpo.training.device import select_device as device_of
from hpo.training.device import set_threads
from hpo.training.environment import describe_environment
from hpo.training.member import Member, Metrics
from hpo.training.settings import TrainSettings
from hpo.training.standalone import train_config

__all__ = ["Difference", "Reproduction", "describe_reproduction", "reproduce"]

UNCOMPARED = {"epoch", "seconds"}  # the time that training took is no result
# What a trial of a cohort may differ by from the trial alone. In float64 the two agree to 1e-9; in float32 each step
# rounds differently, which thousands of steps amplify, and dropout draws one mask for the whole cohort: on MNIST, 8
# epochs, losses were seen to differ by up to 0.03 and accuracies by 0.012, about as between two seeds.
COHORT_TOLERANCE = 0.05
DETERMINISTIC = ("python", "torch-hpo", "torch", "numpy", "cuda", "device", "threads", "data")


@dataclass(frozen=True)
class Difference:
    """The largest difference of a metric over the epochs, and the epoch that has it; 0 where all are the same bits."""

    metric: str
    largest: float
    epoch: int | None


@dataclass(frozen=True)
class Reproduction:
    """What came of it.

    Attributes:
        number: the trial's.
        epochs: how many were compared.
        differences: by metric.
        cohort: how many trials the recorded one was trained with, itself among them.
        changed: what it was trained with then and now, where that differs, a line each.
        known: whether it was noted what it was trained with.
    """

    number: int
    epochs: int
    differences: Sequence[Difference]
    cohort: int
    changed: Sequence[str]
    known: bool

    @property
    def identical(self) -> bool:
        """Whether every metric of every epoch is the same to the last bit."""
        return all(each.largest == 0 for each in self.differences)

    @property
    def reproduced(self) -> bool:
        """Whether it is identical, or differs by no more than training in a cohort does."""
        return self.identical or (
            self.cohort > 1 and all(each.largest <= COHORT_TOLERANCE for each in self.differences)
        )


def reproduce(
    study: Study, number: int, *, out: Path | None = None, device: str = "auto", threads: int | None = None
) -> Reproduction:
    """Train trial `number` once more, alone, as many epochs as were recorded of it, and compare.

    Args:
        out: keeps what `hpo train` writes; an empty or new folder.
        device: see `hpo.training.device.select_device`.
        threads: of torch; by default as many as it was trained with.

    Raises:
        RequestError: no such trial, no configuration or no recorded epoch; or `out` is not empty.
        DataError, RegistryError: what the study is trained on is not here.
        RunError: out of memory.
    """
    trial = choose_trial(study, number)
    study.definition.check_registered()
    recorded = study.storage.read_epochs(study.id, trial._trial_id).get(trial._trial_id, [])
    if not recorded:
        raise RequestError(f"study '{study.name}': of trial {number} no epoch was recorded, so nothing can be compared")
    then: Mapping[str, str] = trial.system_attrs.get(ENVIRONMENT, {})
    config = study.config_of(trial)
    wanted = threads or int(then.get("threads", 0)) or None
    if wanted:
        set_threads(wanted)
    now = describe_environment(DataCache(study.definition.dataset, device_of(device)).get(config))
    rows = _train(study, config, len(recorded), out, device, wanted)
    return Reproduction(
        number,
        min(len(rows), len(recorded)),
        _differences(recorded, rows),
        int(trial.user_attrs.get("cohort", 1)),
        _changed(then, now),
        bool(then),
    )


class _Rows(Callback):
    """Keeps the rows of metrics, and ends training once there are enough."""

    def __init__(self, enough: int) -> None:
        self.rows: list[Metrics] = []
        self._enough = enough

    @property
    def full(self) -> bool:
        return len(self.rows) >= self._enough

    @override
    def on_epoch(self, member: Member, metrics: Metrics) -> None:
        self.rows.append(metrics)


def _train(
    study: Study, config: TrialConfig, epochs: int, out: Path | None, device: str, threads: int | None
) -> list[Metrics]:
    definition, kept = study.definition, _Rows(epochs)
    objective = definition.objectives[0]
    with ExitStack() as stack:
        folder = out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hpo-")))
        with suppress(DivergedError):  # as it may have done then; the rows tell
            train_config(
                config,
                definition.dataset,
                folder,
                settings=TrainSettings(
                    monitor=definition.metrics[0],
                    direction=objective.direction,
                    metrics=[registry.metrics.get(name) for name in definition.metrics],
                    callbacks=[kept],
                    should_stop=lambda: kept.full,
                ),
                device=device,
                threads=threads,
            )
    return kept.rows


def _differences(recorded: Sequence[EpochMetrics], again: Sequence[Metrics]) -> list[Difference]:
    names = dict.fromkeys(name for row in (*recorded, *again) for name in row if name not in UNCOMPARED)
    return [_largest(name, recorded, again) for name in names]


def _largest(name: str, recorded: Sequence[EpochMetrics], again: Sequence[Metrics]) -> Difference:
    """An epoch that one has and the other lacks, and a number against none, differ infinitely."""
    found = Difference(name, 0.0, None)
    for epoch in range(1, max(len(recorded), len(again)) + 1):
        sides = [rows[epoch - 1].get(name) if epoch <= len(rows) else None for rows in (recorded, again)]
        size = _distance(*sides)
        if size > found.largest:
            found = Difference(name, size, epoch)
    return found


def _distance(one: float | None, other: float | None) -> float:
    if one is None or other is None:
        return 0.0 if one is other else math.inf
    if one == other or (math.isnan(one) and math.isnan(other)):
        return 0.0
    size = abs(one - other)
    return size if math.isfinite(size) else math.inf


def _changed(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    names = [name for name in DETERMINISTIC if then.get(name) != now.get(name)] if then else []
    return [f"{name}: {then.get(name, 'none')} then, {now.get(name, 'none')} now" for name in names]


def describe_reproduction(found: Reproduction) -> list[str]:
    """What came of it in words, a line each."""
    epochs = f"{found.epochs} {'epoch' if found.epochs == 1 else 'epochs'}"
    if found.identical:
        lines = [f"identical: every metric of {epochs} of trial {found.number} is the same to the last bit"]
    elif found.reproduced:
        lines = [f"reproduced: {epochs} of trial {found.number} differ by no more than {COHORT_TOLERANCE:g}"]
    else:
        lines = [f"different: trial {found.number} is not reproduced in {epochs}"]
    if found.cohort > 1 and not found.identical:
        why = "sums are rounded and dropout is drawn differently"
        lines.append(f"it was trained in a cohort of {found.cohort}, and alone now: {why}")
    if found.changed:
        lines += [f"changed: {line}" for line in found.changed]
    elif not found.known:
        lines.append("what it was trained with was not noted, so what has changed cannot be told")
    elif not found.identical and found.cohort == 1:
        lines.append("nothing that is noted has changed: versions, hardware, threads and data are the same")
    return lines
