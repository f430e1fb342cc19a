"""What a study keeps on disk: checkpoints of its unfinished trials, the weights of its best ones, and artifacts.

They lie in `HPO_HOME`, in folders of that study alone: `checkpoints/<name>-<key>/<number>.pt`,
`weights/<name>-<key>/<number>.safetensors` and `artifacts/<name>-<key>/<id>` (see `hpo.study.files.artifacts`). The key
is drawn when the study first keeps something, and stored in it. So a study that is deleted and made again under its
name, and one of the same name in another storage, have other folders.
A file `study.json` in each says whose it is, for `hpo gc`.

The `KEPT` best COMPLETE trials keep their weights: by the first objective, the lower number of equals. With several
objectives too, although the Pareto front would be nearer to what is asked of them: a front has no bound, and a trial
that was sixth on it can move up when a new trial beats one ahead of it, after its weights are gone. By one objective a
trial only ever moves down.
"""

from __future__ import annotations

import json
import logging
import math
import os
import secrets
import socket
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from optuna.storages._rdb import models
from optuna.trial import TrialState
from sqlalchemy.engine import URL

from hpo import __version__
from hpo.storage.tables import TRIALS, VALUES
from hpo.storage.url import is_file, mask
from hpo.study.study import Study
from hpo.utils.home import folder, home

__all__ = [
    "KEPT",
    "KEY",
    "KINDS",
    "MARKER",
    "StudyFiles",
    "list_local_weights",
    "rank_trials",
    "storage_place",
    "study_folder",
    "weights_path",
]

log = logging.getLogger("hpo.study")
KEY = "hpo:key"  # a study's user attribute
KEPT = 5
KINDS = ("checkpoints", "weights", "artifacts")
MARKER = "study.json"
LOOPBACK = {None, "", "localhost", "127.0.0.1", "::1"}

Write = Callable[[Path, Mapping[str, str]], object]


def storage_place(url: URL) -> str:
    """The database that a URL means: the URL without its password, and the machine's name where it means this one's."""
    here = is_file(url) or url.host in LOOPBACK
    return f"{mask(url)} on {socket.gethostname()}" if here else mask(url)


def study_key(study: Study) -> str | None:
    """The study's key, or None where it has kept nothing yet."""
    found = study.storage.get_study_user_attrs(study.id).get(KEY)
    return None if found is None else str(found)


def study_folder(kind: str, study: Study) -> Path | None:
    """The study's folder of checkpoints or weights, which may not be here; None where it has kept nothing yet."""
    key = study_key(study)
    return None if key is None else home() / kind / f"{study.name}-{key}"


def weights_path(study: Study, number: int) -> Path | None:
    """The weights of a trial's best epoch, as safetensors; None where they are not here."""
    return list_local_weights(study).get(number)


def list_local_weights(study: Study) -> dict[int, Path]:
    """The weights that are in this `HPO_HOME`, by the trial's number."""
    found = study_folder("weights", study)
    return {} if found is None else trial_number_of(found, ".safetensors")


def trial_number_of(found: Path, suffix: str) -> dict[int, Path]:
    """The files `<number><suffix>` of a folder, by number; none where the folder is missing."""
    return {int(path.stem): path for path in sorted(found.glob(f"*{suffix}")) if path.stem.isdecimal()}


def rank_trials(study: Study, numbers: Collection[int] = ()) -> tuple[list[tuple[float, int]], set[int]]:
    """The `KEPT` best COMPLETE trials with a finite first objective, and which of `numbers` they have beaten.

    Both in one statement: a trial that is told between two would seem beaten by those that were the best before.

    Returns:
        Value and number of the best, the best first; numbers of trials that are COMPLETE, and not among them.
    """
    value = VALUES.c.value
    order = value.desc() if study.maximize else value.asc()
    place = sa.func.row_number().over(order_by=[order, TRIALS.c.number]).label("place")
    told = (
        sa.select(TRIALS.c.number, value, place)
        .join_from(TRIALS, VALUES, VALUES.c.trial_id == TRIALS.c.trial_id)
        .where(TRIALS.c.study_id == study.id, TRIALS.c.state == TrialState.COMPLETE, VALUES.c.objective == 0)
        .where(VALUES.c.value_type == models.TrialValueModel.TrialValueType.FINITE)
        .subquery()
    )
    query = sa.select(told).where((told.c.place <= KEPT) | told.c.number.in_(numbers)).order_by(told.c.place)
    rows = study.storage.read(lambda connection: connection.execute(query).all())
    best = [(float(row.value), int(row.number)) for row in rows if row.place <= KEPT]
    return best, {int(row.number) for row in rows if row.place > KEPT}


class StudyFiles:
    """The files of one study in `HPO_HOME`, as a worker writes them."""

    def __init__(self, study: Study) -> None:
        self.study = study
        while (key := study_key(study)) is None:  # of several workers one is faster; the others take its key over
            study.storage.update_study(study.id, {KEY: None}, {KEY: secrets.token_hex(4)})
        self.key = key
        self._folders = {kind: self._make(kind) for kind in KINDS}
        self._best, _ = rank_trials(study)  # as last seen

    def folder(self, kind: str) -> Path:
        """The study's folder of that kind, one of `KINDS`."""
        return self._folders[kind]

    def checkpoint(self, number: int) -> Path:
        """Where the trial's checkpoint is: in `HPO_HOME`, which workers of several machines may share."""
        return self._folders["checkpoints"] / f"{number}.pt"

    def weights(self, number: int) -> Path:
        """Where the weights of the trial's best epoch are, if they are kept."""
        return self._folders["weights"] / f"{number}.safetensors"

    @contextmanager
    def keep_best_weights(self, trials: Sequence[tuple[int, float, Write]]) -> Iterator[None]:
        """Keep the weights of trials that will be among the best while the block stores them as COMPLETE.

        Weights are published before the block, so that no trial among the best is ever without; those of other trials
        are removed after it, and only where a trial is COMPLETE and beaten by `KEPT` others, which stays true whoever
        finishes meanwhile. Whoever is killed in between leaves a file too many at worst, for `hpo gc`. The storage may
        refuse any of several trials, so they do not beat each other before.

        Args:
            trials: number and first objective of each, and a function that writes its weights to a path, with a table
                of texts that says what they are. If writing fails, that is logged, and the trial counts all the same.
        """
        # Those seen last may be fewer or worse than there are by now: then these are kept for a moment too many.
        kept = [each for each in trials if math.isfinite(each[1]) and not self._beaten(each[0], each[1])]
        for number, value, write in kept:
            self._publish(number, value, write)
        yield
        if kept:
            self._remove_beaten()

    def _beaten(self, number: int, value: float) -> bool:
        sign = -1 if self.study.maximize else 1
        return sum((sign * v, n) < (sign * value, number) for v, n in self._best) >= KEPT

    def _publish(self, number: int, value: float, write: Write) -> None:
        path = self.weights(number)
        about = {
            "study": self.study.name,
            "study_id": str(self.study.id),
            "study_key": self.key,
            "trial": str(number),
            "torch-hpo": __version__,
            "metric": self.study.definition.objectives[0].metric,
            "value": repr(value),
        }
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, about)
        except Exception as error:  # a full disk, or tensors of a user's model that safetensors refuses
            log.warning("weights %s: not written (%s); the trial counts without them", path, error)

    def _remove_beaten(self) -> None:
        here = trial_number_of(self._folders["weights"], ".safetensors")
        self._best, beaten = rank_trials(self.study, here)
        for number in beaten:
            try:
                here[number].unlink(missing_ok=True)
            except OSError as error:
                log.warning("weights %s: not removed (%s)", here[number], error.strerror)

    def _make(self, kind: str) -> Path:
        """Make a folder of the study, and say in it whose it is."""
        path = folder(kind, f"{self.study.name}-{self.key}")
        marker = path / MARKER
        if not marker.exists():
            temporary = path / f".{MARKER}.{os.getpid()}.{secrets.token_hex(4)}"
            content = {"study": self.study.name, "key": self.key, "storage": storage_place(self.study.storage.url)}
            try:
                temporary.write_text(json.dumps(content), encoding="utf-8")
                temporary.replace(marker)
            except OSError as error:
                log.warning("%s: not written (%s); hpo gc will not know whose folder it is", marker, error.strerror)
        return path
