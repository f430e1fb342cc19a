"""Checkpoints of a trial, from which it resumes, bit for bit, as if it had never been interrupted.

A checkpoint is taken between two steps, also in the midst of an epoch: an epoch may take minutes, and an orderly stop
has seconds. Three things are not in it, for they follow from the configuration and the place: the order of the data
(from seed and epoch), the learning rate (from the step), and early stopping (from the history and the best epoch).
"""

from __future__ import annotations

import logging
import pickle
import shutil
import time
import zipfile
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from hpo.config.registry import Direction
from hpo.config.trial_config import TrialConfig
from hpo.errors import CheckpointError
from hpo.training.data import Data
from hpo.training.member import Metrics, State, Weights
from hpo.training.memory import is_out_of_memory
from hpo.utils.files import remove_file, write_atomically
from hpo.utils.text import first_line

__all__ = [
    "Checkpoint",
    "CheckpointFile",
    "CheckpointSpec",
    "Fingerprint",
    "delete_checkpoint",
    "fingerprint",
    "load",
    "save",
]

log = logging.getLogger("hpo.training")
FORMAT = 3  # of the file; a checkpoint of another is refused
EVERY = 30.0
Fingerprint = dict[str, Any]


@dataclass(frozen=True)
class CheckpointSpec:
    """Options of a trial's checkpoints: their file, how often they are written, and whether to resume from one.

    Attributes:
        path: the file; its folder is created.
        resume: begin from the file, which must then exist and belong to the trial.
        every: seconds between checkpoints; 0 means after each epoch. An orderly stop writes one in any case.
        previous: the file of the checkpoint before, kept where the trial has others beside it; None keeps none.
        trial: equal for the checkpoints of one trial, the fits of which begin from one place, if they can.
        owner: whose checkpoint it is, such as a study's id and a trial's number; that of another owner is refused.
        may_write: called before each write; false once the trial, and with it the file, belongs to another worker.
        clock: returns seconds that only grow.
    """

    path: Path
    resume: bool = False
    previous: Path | None = None
    trial: Hashable = None
    every: float = EVERY
    owner: str = ""
    may_write: Callable[[], bool] = lambda: True
    clock: Callable[[], float] = time.monotonic


@dataclass(frozen=True)
class Checkpoint:
    """State of a member between two steps.

    Attributes:
        epoch: the one in training, from 1.
        step: how many of its steps are done; none where the last epoch has been closed.
        seconds: of training and validation so far.
        generators: the states of torch's generators, the CPU's first; only dropout in the midst of an epoch needs
            them, for each epoch begins with a seed of its own.
        history, steps, best_epoch, best_weights: see `Member`.
        learner: the state that `Learner.state` returned.
        sample_log: the state of the member's log of sample scores; None where they are not kept.
    """

    epoch: int
    step: int
    seconds: float
    generators: list[Tensor]
    history: list[Metrics]
    steps: list[Tensor]
    best_epoch: int | None
    best_weights: Weights | None
    learner: State
    sample_log: State | None = None


class CheckpointFile:
    """Checkpoint file of one member.

    Args:
        spec: its options.
        expected: the fingerprint that is written, and that a checkpoint to begin from must have.
    """

    def __init__(self, spec: CheckpointSpec, expected: Fingerprint) -> None:
        self._spec = spec
        self._fingerprint = expected
        self._written_at = spec.clock()
        self._epochs = 0

    def load(self) -> Checkpoint | None:
        """Return the checkpoint to begin from, or None where the spec asks for none.

        Raises:
            CheckpointError: see `load`.
        """
        if not self._spec.resume:
            return None
        path, previous = self._spec.path, self._spec.previous
        if previous is not None and not path.exists() and previous.exists():  # killed between the two
            path = previous
        return self._take(load(path, self._fingerprint))

    def load_previous(self) -> Checkpoint | None:
        """Return the checkpoint before the last one, to begin from instead; None where there is none to read."""
        previous = self._spec.previous
        if previous is None or not previous.exists():
            return None
        try:
            return self._take(load(previous, self._fingerprint))
        except CheckpointError as error:
            log.warning("%s", error)
            return None

    def _take(self, checkpoint: Checkpoint) -> Checkpoint:
        self._epochs = len(checkpoint.history)
        return checkpoint

    def due(self, epochs: int) -> bool:
        """Return whether a checkpoint is due now, after so many whole epochs."""
        if self._spec.every:
            return self._spec.clock() - self._written_at >= self._spec.every
        return epochs > self._epochs

    def write(self, checkpoint: Checkpoint) -> None:
        """Replace the file. A failure is logged, the last checkpoint stays, and training goes on."""
        if not self._spec.may_write():
            return
        try:
            with self._keep_previous():
                save(self._spec.path, checkpoint, self._fingerprint)
        except (OSError, RuntimeError) as error:  # torch's writer makes a RuntimeError of a full disk
            why = error.__context__ if isinstance(error.__context__, OSError) else error
            path, reason = self._spec.path, first_line(why)
            log.warning("checkpoint %s: not written (%s); training goes on without it", path, reason)
        self._written_at = self._spec.clock()
        self._epochs = len(checkpoint.history)

    @contextmanager
    def _keep_previous(self) -> Iterator[None]:
        """Move the file that is there aside while a new one is written; after an error it is back."""
        path, previous = self._spec.path, self._spec.previous
        if previous is None or not path.exists():
            yield
            return
        previous.parent.mkdir(parents=True, exist_ok=True)
        path.replace(previous)
        try:
            yield
        except BaseException:
            previous.replace(path)
            raise

    @property
    def trial(self) -> Hashable:
        """The key that the checkpoints of one trial share; None for one that has no others beside it."""
        return self._spec.trial

    def verify(self) -> None:
        """Read back the checkpoint, and do nothing where none could be written.

        Raises:
            CheckpointError: it cannot be read, as when it holds anything but tensors and plain values.
        """
        if self._spec.path.exists():
            load(self._spec.path, self._fingerprint)

    @property
    def folder(self) -> Path:
        """The folder beside the checkpoint in which a loop of the user's own may keep files."""
        return checkpoint_folder(self._spec.path)

    @contextmanager
    def translate_state_errors(self) -> Iterator[None]:
        """Turn the errors of a learner that cannot load a state into one of a single line.

        Raises:
            CheckpointError: the state is another model's or optimizer's.
        """
        with _translate_errors(self._spec.path, "does not fit the model or the optimizer"):
            yield


def fingerprint(
    config: TrialConfig,
    data: Data,
    monitor: str,
    direction: Direction,
    metrics: Sequence[str] = (),
    owner: str = "",
    *,
    record_steps: bool = False,
) -> Fingerprint:
    """Return the plain values that identify a trial: with any of them changed, it would be another one.

    Args:
        config: its configuration.
        data: its data set, split and scaled.
        monitor, direction: of the metric that decides which epoch is the best.
        metrics: names of the registered metrics.
        owner: see `CheckpointSpec`.
        record_steps: whether the losses of steps are kept.
    """
    return {
        "format": FORMAT,
        "torch": str(torch.__version__),
        "owner": owner,
        "monitor": monitor,
        "direction": direction,
        "metrics": list(metrics),
        "record_steps": record_steps,
        "train samples": len(data.y_train),
        "validation samples": len(data.y_val),
        "sample shape": list(data.shape),
        "classes": data.classes,
        "data seed": data.seed,
        "data scaling": data.input_scaling,
        "data digest": data.digest,
        **config.effective(),
    }


def checkpoint_folder(path: Path) -> Path:
    """Return the folder of the files that belong to a checkpoint."""
    return path.with_suffix("")


def delete_checkpoint(path: Path) -> None:
    """Delete a checkpoint, where there is one, and the folder of files beside it.

    Raises:
        OSError: they cannot be deleted.
    """
    remove_file(path)
    if checkpoint_folder(path).exists():
        shutil.rmtree(checkpoint_folder(path))


def save(path: Path, checkpoint: Checkpoint, expected: Fingerprint) -> None:
    """Publish a checkpoint: a reader finds the old one or the new one, whole.

    Raises:
        OSError, RuntimeError: it cannot be written; the one that was there stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"fingerprint": expected, **vars(checkpoint)}
    write_atomically(path, lambda file: torch.save(content, file))


def load(path: Path, expected: Fingerprint) -> Checkpoint:
    """Read a checkpoint, its tensors to the CPU.

    Raises:
        CheckpointError: there is none, it cannot be read, it is damaged, or it belongs to another trial.
    """
    with _translate_errors(path, "is damaged"):
        try:
            with path.open("rb") as file:
                content = _read_verified(file)
        except FileNotFoundError:
            raise CheckpointError(f"checkpoint {path}: there is none") from None
        except OSError as error:
            raise CheckpointError(f"checkpoint {path}: cannot be read ({error.strerror or error})") from error
        _check_fingerprint(path, content.pop("fingerprint"), expected)
        return Checkpoint(**content)


def _read_verified(file: BinaryIO) -> dict[str, Any]:
    """Read a file and verify its checksums, which torch itself does not."""
    with zipfile.ZipFile(file) as archive:
        if any(each.compress_type != zipfile.ZIP_STORED for each in archive.infolist()):
            raise pickle.UnpicklingError("it is compressed, which torch's files are not")  # it could unpack to any size
        damaged = archive.testzip()
    if damaged is not None:
        raise pickle.UnpicklingError(f"the sum of its part {damaged} is wrong")
    file.seek(0)
    content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    return content


def _check_fingerprint(path: Path, actual: Fingerprint, expected: Fingerprint) -> None:
    for name in [*expected, *(name for name in actual if name not in expected)]:
        if actual.get(name) != expected.get(name):
            was, now = (repr(values.get(name, "nothing")) for values in (actual, expected))
            raise CheckpointError(f"checkpoint {path}: is of another trial: its {name} is {was}, and must be {now}")


@contextmanager
def _translate_errors(path: Path, what: str) -> Iterator[None]:
    """Turn any error into a CheckpointError, except out of memory, which is no fault of the file."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:  # a damaged file can make its reader raise anything
        if is_out_of_memory(error):
            raise
        raise CheckpointError(f"checkpoint {path}: {what} ({first_line(error)})") from error
