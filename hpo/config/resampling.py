"""Resampling of a trial: how many times its configuration is fitted, on which splits and from which seeds. No torch.

A *fit* is one training of a trial's configuration. Its training seed decides the initial weights and the order of the
data; its division decides which samples it is trained on and which it is validated on.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from hpo.errors import ConfigError
from hpo.utils.text import quantity, shorten

if TYPE_CHECKING:
    from hpo.config.trial_config import TrialConfig

__all__ = [
    "MOST_FITS",
    "Division",
    "DivisionRule",
    "Fit",
    "Resampling",
    "Resplit",
    "derive_split_seed",
    "derive_training_seed",
]

DivisionRule = Literal["group", "time"]
Resplit = Literal["never", "per_trial"]
MOST_FITS = 1_000  # of a trial


@dataclass(frozen=True)
class Division:
    """Division of the samples of one fit into a training part and a validation part.

    Attributes:
        kind: one of several folds, which have no sample in common, or one of several random splits.
        count: the number of folds, or of random splits.
        index: which of them this is, from 0.
        repeat: which division into folds, from 0; with the seed of the split it decides the permutation.
        by: what folds go by: groups stay whole, or training samples are earlier than validation samples. None goes by
            what the data set has: its times, else its groups, else neither.
    """

    kind: Literal["fold", "holdout"]
    count: int
    index: int
    repeat: int = 0
    by: DivisionRule | None = None


@dataclass(frozen=True)
class Fit:
    """Training of a trial's configuration on one division of the samples, and from one seed.

    Attributes:
        number: its position in the trial, from 0.
        division: of the samples; None is the configuration's own validation split.
        seed: replica of the training seed, from 0, which is the configuration's own.
        repeats, seeds: how many of each its trial has, for its name.
    """

    number: int
    division: Division | None
    seed: int = 0
    repeats: int = field(default=1, compare=False)
    seeds: int = field(default=1, compare=False)

    @property
    def repeat(self) -> int:
        """The number of its division into folds, from 0."""
        return 0 if self.division is None else self.division.repeat

    def config(self, config: TrialConfig) -> TrialConfig:
        """Return the configuration with this fit's training seed; the seed of the split stays what it was.

        The first seed of the first repeat is the configuration's own.
        """
        if not self.seed and not self.repeat:
            return config
        seed = derive_training_seed(config.seed, self.repeat, self.seed)
        return config.model_copy(update={"seed": seed, "split_seed": config.seed_of_split})

    @property
    def name(self) -> str:
        """The fit in words, by its place: `fold 2 of 5, repeat 1 of 3`, `split 4 of 10`, `seed 2 of 3`."""
        parts = []
        if self.division is not None:
            what = "fold" if self.division.kind == "fold" else "split"
            parts.append(f"{what} {self.division.index + 1} of {self.division.count}")
        if self.repeats > 1:
            parts.append(f"repeat {self.repeat + 1} of {self.repeats}")
        if self.seeds > 1:
            parts.append(f"seed {self.seed + 1} of {self.seeds}")
        return ", ".join(parts) or "the only fit"


def derive_training_seed(seed: int, repeat: int, replica: int) -> int:
    """Return the training seed of a repeat and a replica, 0 to 2**32 - 1, from a configuration's own seed."""
    return _derive_seed(f"training seed {seed} {repeat} {replica}")


def derive_split_seed(seed: int, number: int) -> int:
    """Return the seed of a trial's own split, 0 to 2**32 - 1, from the study's seed and the trial's number."""
    return _derive_seed(f"split seed {seed} {number}")


def _derive_seed(entropy: str) -> int:
    return int.from_bytes(hashlib.sha256(entropy.encode()).digest()[:4], "little")


class Resampling(BaseModel):
    """Resampling of each trial of a study: folds, repeats of them, or random splits, and seeds. Its value is the mean.

    Attributes:
        folds: the number of folds, each of which is the validation part once; None divides into none.
        by: what folds go by; see `Division`.
        repeats: the number of divisions into folds, each with another permutation and another training seed.
        holdout: the number of random splits, each as large as `validation` says.
        seeds: the number of training seeds on each split.
        intensify: whether a trial begins with a few fits, and gets more while it may be the best.

    Raises:
        ConfigError: the values are impossible, or do not go together.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    folds: int | None = None
    by: DivisionRule | None = None
    repeats: int = 1
    holdout: int | None = None
    seeds: int = 1
    intensify: bool = False

    @model_validator(mode="after")
    def _check(self) -> Resampling:
        for name, value in (("folds", self.folds), ("holdout", self.holdout)):
            if value is not None and not 2 <= value <= MOST_FITS:
                fewer = "; leave it out for one validation split" if value < 2 else ""
                raise ConfigError(f"{name} = {shorten(value)}: must be from 2 to {MOST_FITS:,}{fewer}")
        for name, value in (("repeats", self.repeats), ("seeds", self.seeds)):
            if not 1 <= value <= MOST_FITS:
                raise ConfigError(f"{name} = {shorten(value)}: must be from 1 to {MOST_FITS:,}")
        if self.folds is not None and self.holdout is not None:
            raise ConfigError(f"holdout = {self.holdout}: a trial has folds or random splits, not both; remove one")
        if self.folds is None and self.by is not None:
            raise ConfigError(f"by = '{self.by}': says what folds go by; give folds too")
        if self.folds is None and self.repeats > 1:
            instead = "a larger holdout" if self.holdout else "folds too, or seeds instead"
            raise ConfigError(f"repeats = {self.repeats}: repeats a division into folds; give {instead}")
        if self.by == "time" and self.repeats > 1:
            raise ConfigError(f"repeats = {self.repeats}: folds by time are the same each time; remove repeats")
        if self.count > MOST_FITS:
            raise ConfigError(f"{self.text}: at most {MOST_FITS:,} are possible; take fewer of each")
        if self.intensify and self.count == 1:
            raise ConfigError("intensify = true: a trial has one fit; give folds, holdout or seeds")
        return self

    @property
    def division(self) -> str | None:
        """The key that divides the samples, as in a study file: `folds = 5`; None where the validation split does."""
        if self.folds is not None:
            return f"folds = {self.folds}"
        return None if self.holdout is None else f"holdout = {self.holdout}"

    @property
    def count(self) -> int:
        """The number of fits of a trial."""
        return (self.folds or self.holdout or 1) * self.repeats * self.seeds

    @property
    def fits(self) -> tuple[Fit, ...]:
        """The fits of a trial, by seed, repeat and fold: the first ones are the folds of the first repeat."""
        places = [(s, r, d) for s in range(self.seeds) for r in range(self.repeats) for d in self._divisions(r)]
        return tuple(
            Fit(number, division, seed, self.repeats, self.seeds) for number, (seed, _, division) in enumerate(places)
        )

    def _divisions(self, repeat: int) -> list[Division | None]:
        if self.folds is not None:
            return [Division("fold", self.folds, index, repeat, self.by) for index in range(self.folds)]
        if self.holdout is not None:
            return [Division("holdout", self.holdout, index) for index in range(self.holdout)]
        return [None]

    @property
    def factors(self) -> str:
        """The factors of the number of fits, in words: `5 folds x 3 repeats`."""
        by = f" by {self.by}" if self.by else ""
        parts = [] if self.folds is None else [f"{quantity(self.folds, 'fold')}{by}"]
        parts += [] if self.holdout is None else [quantity(self.holdout, "random split")]
        parts += [quantity(self.repeats, "repeat")] if self.repeats > 1 else []
        parts += [quantity(self.seeds, "seed")] if self.seeds > 1 else []
        return " x ".join(parts) or "one split"

    @property
    def text(self) -> str:
        """The fits in words: `5 folds x 3 repeats: 15 fits a trial`."""
        first = ", few of them at first" if self.intensify else ""
        return f"{self.factors}: {quantity(self.count, 'fit')} a trial{first}"
