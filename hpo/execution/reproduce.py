"""Reproduction of a trial: it is trained again, and every epoch is compared with the recorded one."""

from __future__ import annotations

import math
import re
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from optuna.trial import FrozenTrial
from typing_extensions import override

from hpo.config import registry
from hpo.config.trial_config import TrialConfig
from hpo.errors import DivergedError, RequestError
from hpo.execution.data_check import check_weights
from hpo.execution.reproduce_fits import train_fits
from hpo.execution.restore import choose_trial
from hpo.storage.study_storage import ENVIRONMENT, EpochMetrics
from hpo.study import Study
from hpo.study.attributes import read_table, read_whole
from hpo.training.callbacks import Callback
from hpo.training.data_cache import DataCache
from hpo.training.device import select_device, set_threads
from hpo.training.environment import describe_environment
from hpo.training.member import Member, Metrics
from hpo.training.settings import TrainSettings
from hpo.training.standalone import train_config
from hpo.training.suggestions import TrialLink

__all__ = [
    "Difference",
    "Reproduction",
    "describe_reproduction",
    "find_changes",
    "measure_distance",
    "read_threads",
    "reproduce",
]

NOT_COMPARED = {"epoch", "seconds"}  # training time is no result
# Largest difference between a trial in a cohort and the same trial alone. In float64 the two agree to 1e-9; in float32
# each step rounds differently, which thousands of steps amplify, and dropout draws one mask for the whole cohort. On
# MNIST, 8 epochs, losses differed by up to 0.03 and accuracies by 0.012, about as much as between two seeds.
COHORT_TOLERANCE = 0.05
DETERMINISTIC = ("python", "torch-hpo", "torch", "numpy", "cuda", "device", "threads", "data")


@dataclass(frozen=True)
class Difference:
    """Largest difference of a metric over the epochs, and its epoch; 0 and None if all values are bit-identical."""

    metric: str
    largest: float
    epoch: int | None


@dataclass(frozen=True)
class Reproduction:
    """Result of a reproduction.

    Attributes:
        number: number of the trial.
        epochs: number of epochs that were compared.
        differences: largest difference of each metric.
        cohort: size of the recorded trial's cohort, itself included.
        changed: a line for each version, and each part of the hardware, that differs between then and now.
        known: true if the versions and the hardware were recorded then.
        step_name: what the recorded values are numbered by.
    """

    number: int
    epochs: int
    differences: Sequence[Difference]
    cohort: int
    changed: Sequence[str]
    known: bool
    step_name: str = "epoch"

    @property
    def identical(self) -> bool:
        """True if every metric of every epoch is the same to the last bit."""
        return all(each.largest == 0 for each in self.differences)

    @property
    def reproduced(self) -> bool:
        """True if it is identical, or differs by no more than training in a cohort explains."""
        return self.identical or (
            self.cohort > 1 and all(each.largest <= COHORT_TOLERANCE for each in self.differences)
        )


def reproduce(
    study: Study, number: int, *, out: Path | None = None, device: str = "auto", threads: int | None = None
) -> Reproduction:
    """Train trial `number` again, alone, for as many epochs as were recorded of it, and compare them.

    Of a trial of several fits all are trained again, and each is compared.

    Args:
        study: the trial's study.
        number: number of the trial.
        out: new or empty folder for the files that `hpo train` writes; None keeps none, as of several fits it must be.
        device: see `hpo.training.loop.select_device`.
        threads: number of torch's threads; by default as many as the trial was trained with.

    Raises:
        RequestError: there is no such trial, it has no configuration or no recorded epoch, or `out` is not empty, or
            it has several fits, whose files are not kept.
        DataError, RegistryError: the study's data set, or its model, is not here.
        RunError: out of memory.
    """
    study.check_configured("reproduce")
    trial = choose_trial(study, number)
    study.definition.check_registered()
    check_weights(study.definition)
    recorded = study.storage.read_epochs(study.id, trial._trial_id).get(trial._trial_id, [])
    if not recorded:
        raise RequestError(
            f"study '{study.name}': no epoch of trial {number} was recorded, so there is nothing to compare"
        )
    fits = _recorded_fits(study, trial)
    if fits and out is not None:
        raise RequestError(
            f"--out {out}: trial {number} has {len(fits)} fits, none of whose files are kept; leave it out, or train "
            f"its configuration once: hpo export {shlex.quote(study.name)} --trial {number} > trial.toml && hpo train "
            "--config trial.toml"
        )
    then = {name: str(value)[:200] for name, value in read_table(trial.system_attrs, ENVIRONMENT).items()}
    config = study.config_of(trial)
    threads = threads or read_threads(then)
    if threads:
        set_threads(threads)
    cache = DataCache(study.definition.dataset, select_device(device))
    now = describe_environment(cache.get(config, study.definition.fits[0].division))
    link = TrialLink(None, number, study.asked_params(trial), f"trial {number} of study '{study.name}'")
    pairs = [(recorded, _train(study, config, len(recorded), out, device, threads, link))] if not fits else []
    if fits:
        again = train_fits(study, config, {fit: len(rows) for fit, rows in fits.items()}, cache, link)
        pairs = [(rows, again[fit]) for fit, rows in fits.items()]
    return Reproduction(
        number,
        min(len(rows) for pair in pairs for rows in pair),
        _differences(pairs),
        read_whole(trial.user_attrs, "cohort") or 1,
        find_changes(then, now),
        bool(then),
    )


def _recorded_fits(study: Study, trial: FrozenTrial) -> dict[int, list[EpochMetrics]]:
    """Return what was recorded of each fit of a trial of several, by its number."""
    if not study.definition.several_fits:
        return {}
    known = {fit.number for fit in study.definition.fits}
    found = study.storage.read_fits(study.id, trial._trial_id).get(trial._trial_id, {})
    return {fit: rows for fit, rows in found.items() if fit in known}


def read_threads(environment: Mapping[str, str]) -> int | None:
    """Return the number of threads that a trial was trained with; None if it is not known."""
    threads = environment.get("threads", "")
    return int(threads) if re.fullmatch(r"[1-9]\d{0,3}", threads, re.ASCII) else None


class _Rows(Callback):
    """Callback that keeps the metrics of a number of epochs, after which training ends."""

    def __init__(self, count: int) -> None:
        self.rows: list[Metrics] = []
        self._count = count

    @property
    def full(self) -> bool:
        return len(self.rows) >= self._count

    @override
    def on_epoch(self, member: Member, metrics: Metrics) -> None:
        self.rows.append(metrics)


def _train(
    study: Study,
    config: TrialConfig,
    epochs: int,
    out: Path | None,
    device: str,
    threads: int | None,
    link: TrialLink,
) -> list[Metrics]:
    definition, rows = study.definition, _Rows(epochs)
    objective = definition.objectives[0]
    with ExitStack() as stack:
        folder = out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hpo-")))
        with suppress(DivergedError):  # as it may have done then; the rows show it
            train_config(
                config,
                definition.dataset,
                folder,
                settings=TrainSettings(
                    monitor=definition.metrics[0],
                    direction=objective.direction,
                    objectives=[each.metric for each in definition.objectives],
                    metrics=[registry.metrics.get(name) for name in definition.metrics],
                    callbacks=[rows],
                    should_stop=lambda: rows.full,
                ),
                device=device,
                threads=threads,
                link=link,
            )
    return rows.rows


def _differences(pairs: Sequence[tuple[Sequence[EpochMetrics], Sequence[Metrics]]]) -> list[Difference]:
    """Return the largest difference of each metric between recorded rows and those that were trained again."""
    rows = (row for recorded, again in pairs for row in (*recorded, *again))
    names = dict.fromkeys(name for row in rows for name in row if name not in NOT_COMPARED)
    found = {name: [_largest(name, recorded, again) for recorded, again in pairs] for name in names}
    return [max(each, key=lambda difference: difference.largest) for each in found.values()]


def _largest(name: str, recorded: Sequence[EpochMetrics], again: Sequence[Metrics]) -> Difference:
    """Return the largest difference; a missing epoch or value differs infinitely from one that is there."""
    largest = Difference(name, 0.0, None)
    for epoch in range(1, max(len(recorded), len(again)) + 1):
        sides = [rows[epoch - 1].get(name) if epoch <= len(rows) else None for rows in (recorded, again)]
        size = measure_distance(*sides)
        if size > largest.largest:
            largest = Difference(name, size, epoch)
    return largest


def measure_distance(one: float | None, other: float | None) -> float:
    """Return how far two values are apart: 0 of two that are missing or NaN, infinity if one of them is."""
    if one is None or other is None:
        return 0.0 if one is other else math.inf
    if one == other or (math.isnan(one) and math.isnan(other)):
        return 0.0
    size = abs(one - other)
    return size if math.isfinite(size) else math.inf


def find_changes(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """List what an environment has otherwise than an earlier one, of what a result depends on."""
    names = [name for name in DETERMINISTIC if then.get(name) != now.get(name)] if then else []
    return [f"{name}: {then.get(name, 'none')} then, {now.get(name, 'none')} now" for name in names]


def describe_reproduction(result: Reproduction) -> list[str]:
    """Return sentences on the result, a line each."""
    epochs = f"{result.epochs} {result.step_name}{'' if result.epochs == 1 else 's'}"
    if result.step_name != "epoch":
        returned = f"what trial {result.number} {f'reported in {epochs} and ' if result.epochs else ''}returned"
        same = f"identical: {returned} is the same to the last bit"
        lines = [same if result.identical else f"different: {returned} was not reproduced"]
    elif result.identical:
        lines = [f"identical: every metric of {epochs} of trial {result.number} is the same to the last bit"]
    elif result.reproduced:
        lines = [f"reproduced: {epochs} of trial {result.number} differ by no more than {COHORT_TOLERANCE:g}"]
    else:
        lines = [f"different: trial {result.number} was not reproduced in {epochs}"]
    if result.cohort > 1 and not result.identical:
        why = "sums are rounded and dropout is drawn differently"
        lines.append(f"it was trained in a cohort of {result.cohort} then, and alone now: {why}")
    if result.changed:
        lines += [f"changed: {line}" for line in result.changed]
    elif not result.known:
        lines.append("versions and hardware were not recorded then, so it is unknown what has changed")
    elif not result.identical and result.cohort == 1:
        lines.append("nothing that is recorded has changed: versions, hardware, threads and data are the same")
    return lines
