"""Sample scores of a study's trials, read once: what each kept of its validation samples, and the samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from optuna.trial import TrialState

from hpo.datasets.sample_codec import unpack_scores, unpack_split
from hpo.datasets.sample_scores import SampleScores, ValidationSplit
from hpo.errors import DataError
from hpo.storage.stored_values import is_whole
from hpo.study import Study

__all__ = ["SampleTable", "read_sample_scores"]

ROOM = 2**28  # numbers that are kept in memory; beyond, epochs are left out
WHAT = "a row of sample scores"


@dataclass(frozen=True)
class SampleTable:
    """Sample scores of the COMPLETE trials of a study.

    Attributes:
        splits: the validation splits that they are of, by digest.
        trials: the scores of each fit, by the trial's number; a trial of which any cannot be read is left out.
    """

    splits: Mapping[str, ValidationSplit]
    trials: Mapping[int, tuple[SampleScores, ...]]


def read_sample_scores(study: Study) -> SampleTable:
    """Read the sample scores of a study. What is damaged is left out, and said in one line of the log."""
    storage, damage = study.storage, study.storage.damage
    splits: dict[str, ValidationSplit] = {}
    for digest, content in storage.read_splits(study.id).items():
        try:
            splits[digest] = unpack_split(content, digest)
        except DataError as error:
            damage.add(study.name, "a validation split of its sample scores", error)
    rows = storage.read_samples(study.id)
    largest = max((split.labels.size for split in splits.values()), default=1)
    most = max(1, ROOM // (max(1, sum(map(len, rows.values()))) * largest))
    trials: dict[int, tuple[SampleScores, ...]] = {}
    for trial in study.trials():
        fits = rows.get(trial._trial_id)
        if fits and trial.state == TrialState.COMPLETE:
            try:
                trials[trial.number] = tuple(_thin(each, most) for each in _unpack_fits(fits, splits))
            except DataError as error:
                damage.add(study.name, WHAT, error, trial=trial.number)
    return SampleTable(splits, trials)


def _unpack_fits(fits: Mapping[int, object], splits: Mapping[str, ValidationSplit]) -> list[SampleScores]:
    """Return the scores of each fit, in order.

    Raises:
        DataError: any is damaged.
    """
    if not all(map(is_whole, fits)) or sorted(fits) != list(range(len(fits))):
        raise DataError("their fits are not numbered from 0")
    return [unpack_scores(fits[fit], fit, splits) for fit in range(len(fits))]


def _thin(scores: SampleScores, most: int) -> SampleScores:
    """Return scores of at most so many epochs, spread evenly, and of the best one."""
    count = len(scores.epochs)
    if count <= most:
        return scores
    kept = np.union1d(np.linspace(0, count - 1, max(1, most - 1)).astype(int), [scores.best])
    best = int(np.searchsorted(kept, scores.best))
    return replace(scores, epochs=scores.epochs[kept], scores=scores.scores[kept].copy(), best=best)
