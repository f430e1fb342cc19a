"""The one tree of exceptions; the command line prints any of them as one line.

HpoError
├── RequestError            what was asked for is wrong: exit code 2, before any trial
│   ├── ConfigError         a parameter's name or value
│   ├── SpaceError          a domain, a condition, a space
│   ├── DefinitionError     a study file, a sampler, a pruner, an objective
│   ├── DataError           a data set's file, shape or labels
│   ├── RegistryError       a model, data set or metric that is not registered
│   ├── StorageError        a storage URL that cannot be opened
│   │   └── StorageMissingError   a SQLite file that does not exist
│   ├── StudyNotFoundError  no study of that name in the storage
│   ├── StudyForeignError   a study that plain Optuna made: it has no definition
│   └── StudyConflictError  a study of that name has another definition
└── RunError                something failed while running: exit code 1
    ├── CheckpointError     a checkpoint that is missing, damaged or another trial's
    ├── LeaseLostError      another worker has taken the trial over
    ├── DivergedError       a loss that is not finite
    └── OutOfMemoryError    the device has too little memory for the trial
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DefinitionError",
    "DivergedError",
    "HpoError",
    "LeaseLostError",
    "OutOfMemoryError",
    "RegistryError",
    "RequestError",
    "RunError",
    "SpaceError",
    "StorageError",
    "StorageMissingError",
    "StudyConflictError",
    "StudyForeignError",
    "StudyNotFoundError",
]


class HpoError(Exception):
    """Any error this package raises on purpose."""

    exit_code = 1


class RequestError(HpoError):
    """What was asked for is wrong; nothing has been run."""

    exit_code = 2


class ConfigError(RequestError):
    """A parameter's name or value is wrong."""


class SpaceError(RequestError):
    """A domain, a condition or a space is wrong."""


class DefinitionError(RequestError):
    """A study's definition is wrong."""


class DataError(RequestError):
    """A data set cannot be used as it is."""


class RegistryError(RequestError):
    """A model, data set or metric is not registered."""


class StorageError(RequestError):
    """A storage cannot be opened."""


class StorageMissingError(StorageError):
    """The SQLite file of a storage does not exist."""


class StudyNotFoundError(RequestError):
    """The storage holds no study of that name."""


class StudyForeignError(RequestError):
    """The study was made by others, so that nobody here knows how to train its trials."""


class StudyConflictError(RequestError):
    """The storage holds a study of that name with another definition."""


class RunError(HpoError):
    """Something failed while running."""


class CheckpointError(RunError):
    """A checkpoint is missing, cannot be read, is damaged, or is another trial's."""


class LeaseLostError(RunError):
    """Another worker has taken the trial over, or the trial is gone: nothing more may be written of it."""


class DivergedError(RunError):
    """A loss is not finite."""


class OutOfMemoryError(RunError):
    """The device has too little memory for the trial."""


def closest(name: str, valid: Iterable[str]) -> str | None:
    """The valid name that looks most like `name`, or None where none does."""
    matches = difflib.get_close_matches(name.lower(), list(valid), n=1, cutoff=0.6)
    return matches[0] if matches else None


def unknown(kind: str, name: str, valid: Iterable[str]) -> str:
    """The one line for an unknown name: the name, the closest valid one or else all of them."""
    valid = sorted(valid)
    near = closest(name, valid)
    hint = f"did you mean '{near}'?" if near else f"valid: {', '.join(valid) or 'none'}"
    return f"unknown {kind} {name!r}; {hint}"
