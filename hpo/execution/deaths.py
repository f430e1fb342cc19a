"""Deaths of a trial's attempts: those that ended their worker's process, or would have."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hpo.errors import RunError
from hpo.study import ClaimedTrial, Study
from hpo.study.files.study_files import StudyFiles
from hpo.training.checkpoint import checkpoint_folder

__all__ = ["MAX_DEATHS", "SUSPECT", "DeathCounter", "is_suspect"]

log = logging.getLogger("hpo.execution.worker")
MAX_DEATHS = 5  # attempts in a row that may end so
SUSPECT = 2  # deaths in a row after which a trial is trained alone: it may have killed its cohorts' workers
DEATHS = "deaths"  # user attribute of a trial
CUT_OFF = "its last worker died or was cut off"


@dataclass(frozen=True)
class _Deaths:
    """Deaths of a trial in a row, how far it got (epoch, time of its checkpoint), and the last known cause."""

    count: int = 0
    place: tuple[int, int] = (0, 0)
    cause: str = ""

    @classmethod
    def read(cls, attrs: Mapping[str, Any]) -> _Deaths:
        """Read what is stored; anything else than what this module writes counts as nothing."""
        match attrs.get(DEATHS):
            case {"count": int(count), "place": [int(epoch), int(written)], **others}:
                return cls(count, (epoch, written), str(others.get("cause", "")))
        return cls()


def is_suspect(attrs: Mapping[str, Any]) -> bool:
    """Tell from a trial's user attributes whether it is to be trained alone: it may end whoever trains it."""
    deaths = _Deaths.read(attrs)
    return deaths.count >= SUSPECT or (deaths.count > 0 and bool(deaths.cause))


class DeathCounter:
    """Counter of deaths, for a trial that kills its worker would kill one worker after the other.

    Args:
        study: the study.
        files: its files.
    """

    def __init__(self, study: Study, files: StudyFiles) -> None:
        self._study, self._files = study, files

    def count(self, claim: ClaimedTrial, cause: str = "") -> None:
        """Count a death of a claimed trial, from 1 again where it has got farther than ever before.

        Args:
            claim: the trial.
            cause: what ended it, where that is known.

        Raises:
            RunError: MAX_DEATHS attempts in a row have died without completing a further epoch or checkpoint.
        """
        storage, path = self._study.storage, self._files.checkpoint(claim.number)
        storage.flush()  # the epochs of an attempt that ended in this process
        before = _Deaths.read(storage.get_trial(claim.id).user_attrs)
        # The trials of an objective function report steps, and have a folder.
        steps = max(storage.get_trial(claim.id).intermediate_values, default=-1) + 1
        epoch = storage.read_last_epochs(self._study.id, [claim.id]).get(claim.id, steps)
        places = [place for place in (path, checkpoint_folder(path)) if place.exists()]
        written = max((place.stat().st_mtime_ns for place in places), default=0)
        # Than ever, lest an attempt that dies elsewhere each time counts as progress for ever; a checkpoint that is
        # written goes on from the one before, and its time is that of any machine.
        farther = epoch > before.place[0] or written != before.place[1]
        place = [max(epoch, before.place[0]), written]
        count, cause = 1 if farther else before.count + 1, cause or before.cause
        storage.set_trial_user_attr(claim.id, DEATHS, {"count": count, "place": place, "cause": cause})
        storage.flush()  # before this worker may die as well
        log.warning("trial %d: %s; counted as death %d of %d", claim.number, cause or CUT_OFF, count, MAX_DEATHS)
        if count >= MAX_DEATHS:
            raise RunError(_describe(count, cause))


def _describe(count: int, cause: str) -> str:
    if cause:
        return f"{cause}; {count} attempts ended like that, or with their worker's death, and made no progress"
    return (
        f"{count} workers died of it, or were cut off, and it made no progress; see their logs: too little memory, a "
        "crash of native code, or os._exit() in a model ends a process like that"
    )
