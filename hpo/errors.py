"""Exceptions of this package, in one tree; the command line prints each as one line.

HpoError
├── RequestError            the request is wrong: exit code 2, before any trial
│   ├── ConfigError         a parameter's name or value
│   ├── SpaceError          a domain, a condition, a space
│   │   └── InvalidSpaceError     a space with configurations that are invalid
│   ├── DefinitionError     a study file, a sampler, a pruner, an objective
│   │   └── ImportRefusedError    a file of another tool that no study of ours can be, as it is
│   ├── DataError           a data set's file, shape or labels
│   ├── RegistryError       a model, data set or metric that is not registered
│   ├── StorageError        a storage URL that cannot be opened
│   │   ├── StorageMissingError   a SQLite file that does not exist
│   │   └── StorageDamagedError   a database with a value that its column cannot hold
│   ├── StorageLimitError   a name or a value that the database cannot store
│   ├── StudyNotFoundError  no study of that name in the storage
│   ├── StudyForeignError   a study that another tool made, whose objective function is not known
│   ├── StudyDamagedError   a study of which something that is needed cannot be read
│   └── StudyConflictError  a study of that name has another definition
└── RunError                something failed while running: exit code 1
    ├── CheckpointError     a checkpoint that is missing, damaged or another trial's
    ├── LeaseLostError      another worker has taken over the trial
    ├── StorageLostError    a database that was deleted or replaced while it was in use
    ├── StudyDeletedError   a study that was deleted while it was in use
    ├── DivergedError       a loss that is not finite
    ├── OutOfMemoryError    the device has too little memory for the trial
    ├── TrialTimeoutError   training that took longer than trial_timeout
    └── UserExitError       user code that would have ended the process
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
    "ImportRefusedError",
    "InvalidSpaceError",
    "LeaseLostError",
    "OutOfMemoryError",
    "RegistryError",
    "RequestError",
    "RunError",
    "SpaceError",
    "StorageDamagedError",
    "StorageError",
    "StorageLimitError",
    "StorageLostError",
    "StorageMissingError",
    "StudyConflictError",
    "StudyDamagedError",
    "StudyDeletedError",
    "StudyForeignError",
    "StudyNotFoundError",
    "TrialTimeoutError",
    "UserExitError",
]


SHORTEST_BEGINNING = 4  # characters of a name that stand for the whole of it


class HpoError(Exception):
    """Base of all errors that this package raises on purpose."""

    exit_code = 1


class RequestError(HpoError):
    """Error in a request, found before anything has run."""

    exit_code = 2


class ConfigError(RequestError):
    """Wrong name or value of a parameter."""


class SpaceError(RequestError):
    """Error in a domain, a condition or a space."""


class InvalidSpaceError(SpaceError):
    """Space with configurations that are invalid.

    Attributes:
        reasons: what is wrong with each that was found, without repetition; the message has the first.
    """

    def __init__(self, message: str, reasons: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.reasons = tuple(reasons)


class DefinitionError(RequestError):
    """Error in the definition of a study."""


class ImportRefusedError(DefinitionError):
    """File of another tool that cannot be imported as it is.

    Attributes:
        lines: everything that is against it, a line each; the message sums them up.
    """

    def __init__(self, message: str, lines: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.lines = tuple(lines)


class DataError(RequestError):
    """Missing or unusable data set."""


class RegistryError(RequestError):
    """Unregistered model, data set or metric."""


class StorageError(RequestError):
    """Storage that cannot be opened."""


class StorageMissingError(StorageError):
    """Storage whose SQLite file does not exist."""


class StorageDamagedError(StorageError):
    """Database that holds a value of another type than its column."""


class StorageLimitError(RequestError, ValueError):
    """Name or value that the database cannot store; a ValueError too, as Optuna's storages raise."""


class StudyNotFoundError(RequestError):
    """Name of a study that the storage does not hold."""


class StudyForeignError(RequestError):
    """Study made by another tool: the objective function, by which its trials could be run, is not known."""


class StudyDamagedError(RequestError):
    """Study whose definition, or another attribute that is needed, cannot be read.

    Attributes:
        damage: the attribute, and what is wrong with it.
    """

    def __init__(self, message: str, damage: str = "") -> None:
        super().__init__(message)
        self.damage = damage


class StudyConflictError(RequestError):
    """Name of a study that the storage holds with another definition."""


class RunError(HpoError):
    """Failure while running."""


class CheckpointError(RunError):
    """Checkpoint that is missing, cannot be read, is damaged, or belongs to another trial."""


class LeaseLostError(RunError):
    """Loss of a trial to another worker, or by deletion: nothing more may be written about it."""


class StorageLostError(RunError):
    """Loss of the database itself: it was deleted or replaced while it was in use."""


class StudyDeletedError(RunError, KeyError):
    """Deletion of a study while it was in use; a KeyError too, which is what Optuna asks of a storage."""

    __str__ = Exception.__str__  # a KeyError's would quote the message


class DivergedError(RunError):
    """Loss that is not finite."""


class OutOfMemoryError(RunError):
    """Lack of memory on the device for the trial."""


class TrialTimeoutError(RunError):
    """Training of a trial that took longer than the study's `trial_timeout`."""


class UserExitError(RunError):
    """Exit of user code that would have ended the process, such as `sys.exit()` in a model."""


def find_closest(name: str, valid: Iterable[str]) -> str | None:
    """Return the valid name that is most similar to `name`, or None if none is similar.

    A name that goes on where this one ends comes first: who writes `val_f1` has left `_macro` out.
    """
    names, lower = list(valid), name.lower()
    if len(lower) >= SHORTEST_BEGINNING and (longer := [each for each in names if each.startswith(lower)]):
        return min(longer, key=lambda each: (len(each), each))
    matches = difflib.get_close_matches(lower, names, n=1, cutoff=0.6)
    return matches[0] if matches else None


def describe_unknown(kind: str, name: str, valid: Iterable[str], known_as: str | None = None) -> str:
    """Return the message for an unknown name: the name, and the closest valid one or else all of them.

    Args:
        kind: of what it names.
        name: the unknown one.
        valid: the names that there are.
        known_as: the valid one that was meant, where that is known.
    """
    valid = sorted(valid)
    suggestion = known_as or find_closest(name, valid)
    hint = f"did you mean '{suggestion}'?" if suggestion else f"valid: {', '.join(valid) or 'none'}"
    return f"unknown {kind} {name!r}; {hint}"
