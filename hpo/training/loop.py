"""The training loop: one for every learner, every model and every device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from hpo.config import registry
from hpo.config.cohort_key import cohort_key
from hpo.config.model_size import resolve_width
from hpo.config.trial_config import TrialConfig
from hpo.training.checkpoint import Checkpoint, CheckpointFile, CheckpointSpec, fingerprint
from hpo.training.cohort_run import CohortRun
from hpo.training.data import Data
from hpo.training.loop_run import run_loop
from hpo.training.member import Member, TrainResult
from hpo.training.memory import keep_freed_memory, translate_memory_errors
from hpo.training.process_state import contain_user_code
from hpo.training.settings import TrainSettings
from hpo.training.suggestions import TrialLink

__all__ = ["train"]


def train(
    configs: Sequence[TrialConfig],
    data: Data,
    settings: TrainSettings | None = None,
    checkpoints: Sequence[CheckpointSpec | None] | None = None,
    links: Sequence[TrialLink | None] | None = None,
) -> list[TrainResult]:
    """Train each configuration to its end, and return the results in the same order.

    Models that are loops of the user's own train themselves; see `hpo.training.loop_run`.
    Trials that fit together are one cohort, trained at the same time, and those that one run answers are one run; see
    `hpo.config.cohort_key`. The others, and those that begin from another place than the rest, are trained one after
    the other.

    A row of metrics has: epoch (from 1); train_loss, with its smoothing and weights, and train_accuracy (of real
    targets train_r2) over the epoch's steps, each measured before its step; val_loss (without smoothing and weights),
    val_accuracy (val_r2) and the other metrics after the epoch, where there are validation samples (else the last epoch
    is the best), of models that reconstruct their input val_reconstruction_error instead of accuracies; learning_rate,
    which the next step would use;
    seconds of training so far, those before an interruption too, where a cohort's are divided evenly among its trials.
    A trial ends as diverged after an epoch with an objective or a loss that is not finite, which is the last of its
    history; see `hpo.training.divergence`.

    Args:
        configs: the configurations, at least one.
        data: prepared for these configurations.
        settings: metrics, callbacks and the stop condition of all of them; by default `TrainSettings()`.
        checkpoints: one for each configuration, None for no checkpoints of that one. A trial that ends as interrupted
            has left one. A trial that begins from one ends with the same bits as if it had never been interrupted, on
            the same machine with as many threads; but for rounding and dropout where it is, or was, trained with
            others. Where the data set gives batches, that holds as long as an epoch's batches follow from torch's
            global generator or never change: those of the epoch's steps already done are read again, and passed over.
        links: one for each configuration, which loops of the user's own use; None for no study.

    Raises:
        CheckpointError: a checkpoint to begin from is missing, damaged or another trial's; no callback has been called
            for its trial.
        ConfigError: a model cannot take the data's samples.
        OutOfMemoryError: the device has too little memory.
        UserExitError: the user's code would have ended the process.
    """
    keep_freed_memory()
    settings = settings or TrainSettings()
    specs = [None] * len(configs) if checkpoints is None else checkpoints
    if registry.models.get(configs[0].model).loop:
        # They record no steps; the checkpoint's fingerprint is the same with and without.
        found = [None] * len(configs) if links is None else links
        return _train_custom_loops(configs, data, replace(settings, record_steps=False), specs, found)
    settings = settings.resolve(configs[0], len(data.y_val))
    files = {
        number: _checkpoint_file(spec, config, data, settings)
        for number, (config, spec) in enumerate(zip(configs, specs, strict=True))
        if spec is not None
    }
    with contain_user_code(data.device), translate_memory_errors():
        resumed = {number: file.load() for number, file in files.items()}
        results: dict[int, TrainResult] = {}
        for numbers in _group_into_cohorts(configs, resumed):
            members = [Member(resolve_width(configs[number], data.shape, data.classes), number) for number in numbers]
            run = CohortRun(members, data, settings, files)
            results |= run.train({number: resumed.get(number) for number in numbers})
        return [results[number] for number in range(len(configs))]


def _train_custom_loops(
    configs: Sequence[TrialConfig],
    data: Data,
    settings: TrainSettings,
    specs: Sequence[CheckpointSpec | None],
    links: Sequence[TrialLink | None],
) -> list[TrainResult]:
    """Train with loops of the user's own, one trial after the other."""
    results = []
    for number, (config, spec, link) in enumerate(zip(configs, specs, links, strict=True)):
        file = None if spec is None else _checkpoint_file(spec, config, data, settings)
        with contain_user_code(data.device), translate_memory_errors():
            results.append(run_loop(config, number, data, settings, file, link))
    return results


def _checkpoint_file(spec: CheckpointSpec, config: TrialConfig, data: Data, settings: TrainSettings) -> CheckpointFile:
    """Return the checkpoint file of one trial, with the fingerprint that tells it from another's."""
    names = [entry.name for entry in settings.metrics]
    monitor, direction = settings.monitor or "", settings.direction
    expected = fingerprint(config, data, monitor, direction, names, spec.owner, record_steps=settings.record_steps)
    return CheckpointFile(spec, expected)


def _group_into_cohorts(configs: Sequence[TrialConfig], resumed: Mapping[int, Checkpoint | None]) -> list[list[int]]:
    """Return the trials' numbers by cohort, in the order of the cohorts' first trials."""
    cohorts: dict[object, list[int]] = {}
    for number, config in enumerate(configs):
        checkpoint = resumed.get(number)
        start = (checkpoint.epoch, checkpoint.step) if checkpoint else (1, 0)
        cohorts.setdefault((cohort_key(config), start), []).append(number)
    return list(cohorts.values())
