"""The training loop: one for every learner, every model and every device."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from hpo.config import registry
from hpo.config.cohort_key import is_measured, run_key, stack_key
from hpo.config.model_size import resolve_width
from hpo.config.trial_config import TrialConfig
from hpo.training.checkpoint import Checkpoint, CheckpointFile, CheckpointSpec, fingerprint
from hpo.training.cohort_run import CohortRun
from hpo.training.data import Data
from hpo.training.loop_run import LoopTrial, run_loop
from hpo.training.member import Member, TrainResult
from hpo.training.memory import keep_freed_memory, translate_memory_errors
from hpo.training.process_state import contain_user_code
from hpo.training.settings import TrainSettings
from hpo.training.stack_run import StackRun, data_key
from hpo.training.stacked.check import find_structure, why_alone
from hpo.training.stacked.learner import is_stacked
from hpo.training.suggestions import TrialLink

__all__ = ["train"]


def train(
    configs: Sequence[TrialConfig],
    data: Data | Sequence[Data] | Callable[[TrialConfig], Data],
    settings: TrainSettings | None = None,
    checkpoints: Sequence[CheckpointSpec | None] | None = None,
    links: Sequence[TrialLink | None] | None = None,
) -> list[TrainResult]:
    """Train each configuration to its end, and return the results in the same order.

    All of them are one cohort, trained at the same time: those whose models fit together are a stack, those that one
    run answers one run (see `hpo.config.cohort_key`), and stacks do their epochs in lockstep, one after the other.
    Models that are loops of the user's own train themselves, before the others and one by one; see
    `hpo.training.loop_run`.

    A row of metrics has: epoch (from 1); train_loss, with its smoothing and weights, and train_accuracy (of real
    targets train_r2) over the epoch's steps, each measured before its step; val_loss (without smoothing and weights),
    val_accuracy (val_r2) and the other metrics after the epoch, where there are validation samples (else the last epoch
    is the best), of models that reconstruct their input val_reconstruction_error instead of accuracies; learning_rate,
    which the next step would use;
    seconds of training so far, those before an interruption too, where a stack's are divided evenly among its trials.
    A trial ends as diverged after an epoch with an objective or a loss that is not finite, which is the last of its
    history; see `hpo.training.divergence`.

    Args:
        configs: the configurations, at least one.
        data: prepared for these configurations; or that of each of them, such as the folds of one; or a function that
            returns the data of a configuration, such as `hpo.training.data_cache.DataCache.get`. Trials that get the
            same object see the same batches.
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
    trials = _make_trials(configs, data, checkpoints, links)
    loops = [trial for trial in trials if registry.models.get(trial.config.model).loop]
    results = _train_loops(loops, settings) if loops else {}
    if others := [trial for trial in trials if trial.number not in results]:
        results |= _train_cohort(others, settings)
    return [results[number] for number in range(len(configs))]


@dataclass(frozen=True)
class TrialSpec:
    """Trial to train; see the arguments of `train`."""

    number: int
    config: TrialConfig
    data: Data
    spec: CheckpointSpec | None
    link: TrialLink | None


def _make_trials(
    configs: Sequence[TrialConfig],
    data: Data | Sequence[Data] | Callable[[TrialConfig], Data],
    checkpoints: Sequence[CheckpointSpec | None] | None,
    links: Sequence[TrialLink | None] | None,
) -> list[TrialSpec]:
    count = len(configs)
    of_each: Sequence[Data]
    if isinstance(data, Data):
        of_each = [data] * count
    else:
        of_each = [data(config) for config in configs] if callable(data) else data
    columns = configs, of_each, checkpoints or [None] * count, links or [None] * count
    return [TrialSpec(number, *row) for number, row in enumerate(zip(*columns, strict=True))]


def _train_loops(trials: Sequence[TrialSpec], settings: TrainSettings) -> dict[int, TrainResult]:
    """Train with loops of the user's own, one call after the other; return the results by the trials' numbers."""
    # They record no steps; the checkpoint's fingerprint is the same with and without.
    own = replace(settings, record_steps=False)
    results: dict[int, TrainResult] = {}
    calls: dict[object, list[LoopTrial]] = {}
    with translate_memory_errors():
        for trial in trials:
            file = _checkpoint_file(trial, own)
            checkpoint = None if file is None else file.load()
            key = stack_key(trial.config)
            together = trial.number if key is None else (key, checkpoint.epoch if checkpoint else 1, id(trial.data))
            made = LoopTrial(trial.number, trial.config, trial.data, file, checkpoint, trial.link)
            calls.setdefault(together, []).append(made)
    for group in calls.values():
        with contain_user_code(group[0].data.device), translate_memory_errors():
            found = run_loop(group, own)
        results |= {trial.number: result for trial, result in zip(group, found, strict=True)}
    return results


def _train_cohort(trials: Sequence[TrialSpec], settings: TrainSettings) -> dict[int, TrainResult]:
    """Train a cohort, and return the results by the trials' numbers."""
    resolved = {each.number: settings.resolve(each.config, len(each.data.y_val)) for each in trials}
    files = {each.number: file for each in trials if (file := _checkpoint_file(each, resolved[each.number]))}
    with contain_user_code(trials[0].data.device), translate_memory_errors():
        checkpoints = _load_checkpoints(files)
        together: list[list[TrialSpec]] = []
        apart: list[list[list[TrialSpec]]] = []
        for group in _group_into_stacks(trials, checkpoints, settings):
            if _is_apart(group):
                apart.append([group])
            else:
                together.append(group)
        results: dict[int, TrainResult] = {}
        for part in [together, *apart] if together else apart:  # a stack's models are built as its part begins
            stacks = [_make_stack(group, resolved, files, checkpoints) for group in part]
            results |= CohortRun(stacks, settings.callbacks).train()
        return results


def _load_checkpoints(files: Mapping[int, CheckpointFile]) -> dict[int, Checkpoint]:
    """Return the checkpoints to begin from by the trials' numbers, the fits of one trial at one place if they can be.

    A process may be killed after it has written some of them. Those that are a checkpoint ahead then begin from the one
    before, so that they go on as one stack, and round as they would have done.
    """
    found = {number: file.load() for number, file in files.items()}
    groups: dict[Hashable, list[int]] = {}
    for number, file in files.items():
        if file.trial is not None:
            groups.setdefault(file.trial, []).append(number)
    for numbers in groups.values():
        least = min(_place(found[number]) for number in numbers)
        ahead = [number for number in numbers if _place(found[number]) != least]
        before = {number: files[number].load_previous() for number in ahead}
        if all(_place(checkpoint) == least for checkpoint in before.values()):
            found |= before
    return {number: each for number, each in found.items() if each}


def _place(checkpoint: Checkpoint | None) -> tuple[int, int]:
    """Return the epoch and the step at which a trial begins."""
    return (checkpoint.epoch, checkpoint.step) if checkpoint else (1, 0)


def _is_apart(group: Sequence[TrialSpec]) -> bool:
    """Return whether trials do all their epochs before or after those of others.

    They do where they are one model of the user's, which may keep values in the process that other models would change.
    """
    own = not registry.models.get(group[0].config.model).builtin
    return own and len(set(map(_one_run, group))) == 1


def _make_stack(
    trials: Sequence[TrialSpec],
    settings: Mapping[int, TrainSettings],
    files: Mapping[int, CheckpointFile],
    checkpoints: Mapping[int, Checkpoint],
) -> StackRun:
    first = trials[0]
    shape, classes = first.data.shape, first.data.classes
    members = [Member(resolve_width(each.config, shape, classes), each.number) for each in trials]
    own = {each.number: checkpoints[each.number] for each in trials if each.number in checkpoints}
    return StackRun(members, [each.data for each in trials], settings[first.number], files, own)


def _checkpoint_file(trial: TrialSpec, settings: TrainSettings) -> CheckpointFile | None:
    """Return the checkpoint file of a trial, with the fingerprint that tells it from another's; None without one."""
    if trial.spec is None:
        return None
    names = [entry.name for entry in settings.metrics]
    found = fingerprint(
        trial.config,
        trial.data,
        settings.monitor or "",
        settings.direction,
        names,
        trial.spec.owner,
        record_steps=settings.record_steps,
    )
    return CheckpointFile(trial.spec, found)


def _group_into_stacks(
    trials: Sequence[TrialSpec], checkpoints: Mapping[int, Checkpoint], settings: TrainSettings
) -> list[list[TrialSpec]]:
    """Return the trials by stack, in the order of the stacks' first trials."""
    stacks: dict[object, list[TrialSpec]] = {}
    for trial in trials:
        checkpoint = checkpoints.get(trial.number)
        start = _place(checkpoint)
        key: object = _one_run(trial)
        if (models := stack_key(trial.config, trial.data.device.type)) is not None:
            key = models, data_key(trial.data, trial.config.batch_size)
        stacks.setdefault((key, start), []).append(trial)
    return [part for group in stacks.values() for part in _split_measured(group, checkpoints, settings)]


def _one_run(trial: TrialSpec) -> tuple[object, int]:
    """Return a key that is equal for trials that one run answers."""
    return run_key(trial.config), id(trial.data)


def _split_measured(
    trials: list[TrialSpec], checkpoints: Mapping[int, Checkpoint], settings: TrainSettings
) -> Iterable[list[TrialSpec]]:
    """Return trials of one stack as they are; those of models that are measured first by what their modules can.

    Only what several runs share is checked. How a trial has begun it goes on, for the states differ.
    """
    first = trials[0].config
    if stack_key(first, trials[0].data.device.type) is None or not is_measured(first):
        return [trials]
    parts: dict[object, list[TrialSpec]] = {}
    new: dict[object, list[TrialSpec]] = {}
    for trial in trials:
        checkpoint = checkpoints.get(trial.number)
        if checkpoint is not None and not is_stacked(checkpoint.learner):
            parts.setdefault(_one_run(trial), []).append(trial)
        else:
            structure = find_structure(trial.config, trial.data)
            (new if checkpoint is None else parts).setdefault(structure, []).append(trial)
    for structure, alike in new.items():
        several = len(set(map(_one_run, alike))) > 1
        for trial in alike:
            stacked = several and _may_stack(trial, settings)
            parts.setdefault(structure if stacked else _one_run(trial), []).append(trial)
    return parts.values()


def _may_stack(trial: TrialSpec, settings: TrainSettings) -> bool:
    asked = settings.may_stack is None or settings.may_stack(trial.config)
    return asked and why_alone(trial.config, trial.data) is None
