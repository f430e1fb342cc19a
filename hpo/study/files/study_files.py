"""Files of a study on disk: checkpoints of its unfinished trials, weights of its best ones, and artifacts.

They lie in `HPO_HOME`, in folders of that study alone: `checkpoints/<name>-<key>/<number>.pt`,
`weights/<name>-<key>/<number>.safetensors` and `artifacts/<name>-<key>/<id>` (see `hpo.study.files.artifacts`). The key
is drawn when the study is created, and stored in it. So a study that is deleted and made again under
its name, and a study of the same name in another storage, have other folders. A file `study.json` in each folder says
whose it is, for `hpo gc`.

The `KEPT` best COMPLETE trials keep their weights: by the first objective, of equals the lower number. That holds for
several objectives too, although the Pareto front would suit them better: a front has no bound, and a trial that was
sixth on it can move up when a new trial beats one ahead of it, after its weights are gone. By one objective a trial
only ever moves down.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import math
import secrets
import socket
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from optuna.storages._rdb import models
from optuna.trial import TrialState
from sqlalchemy.engine import URL

from hpo.errors import RequestError
from hpo.storage.identity import KEY
from hpo.storage.tables import TRIALS, VALUES
from hpo.storage.url import is_file, mask
from hpo.study.study import Study
from hpo.utils.files import write_atomically
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
KEPT = 5
KINDS = ("checkpoints", "weights", "artifacts")
MARKER = "study.json"
LOOPBACK = {None, "", "localhost", "127.0.0.1", "::1"}

Write = Callable[[Path, Mapping[str, str]], object]


def storage_place(url: URL) -> str:
    """Name the database of a URL: the URL without its password, and this machine's name if the database is local."""
    local = is_file(url) or url.host in LOOPBACK
    return f"{mask(url)} on {socket.gethostname()}" if local else mask(url)


def study_key(study: Study) -> str | None:
    """Return the study's key, or None if it has no files yet."""
    key = study.storage.get_study_user_attrs(study.id).get(KEY)
    return None if key is None else str(key)


def study_folder(kind: str, study: Study) -> Path | None:
    """Return the study's folder of a kind of files, which may not be here; None if the study has no files yet."""
    key = study_key(study)
    return None if key is None else home() / kind / f"{study.name}-{key}"


def weights_path(study: Study, number: int) -> Path | None:
    """Return the file of the weights of a trial's best epoch, as safetensors; None if it is not here."""
    return list_local_weights(study).get(number)


def list_local_weights(study: Study) -> dict[int, Path]:
    """List the files of weights in this `HPO_HOME`, by the trial's number."""
    weights = study_folder("weights", study)
    return {} if weights is None else files_by_number(weights, ".safetensors")


def files_by_number(directory: Path, suffix: str) -> dict[int, Path]:
    """List the files `<number><suffix>` of a folder, by number; none if the folder is missing."""
    return {int(path.stem): path for path in sorted(directory.glob(f"*{suffix}")) if path.stem.isdecimal()}


def rank_trials(study: Study, numbers: Collection[int] = ()) -> tuple[list[tuple[float, int]], set[int]]:
    """Rank the COMPLETE trials with a finite first objective, and find those of `numbers` that `KEPT` others beat.

    Both in one statement: between two, a trial that is stored meanwhile would seem beaten by the former best.

    Returns:
        Value and number of the `KEPT` best, the best first; numbers of COMPLETE trials that are not among them.
    """
    value = VALUES.c.value
    order = value.desc() if study.maximize else value.asc()
    place = sa.func.row_number().over(order_by=[order, TRIALS.c.number]).label("place")
    ranked = (
        sa.select(TRIALS.c.number, value, place)
        .join_from(TRIALS, VALUES, VALUES.c.trial_id == TRIALS.c.trial_id)
        .where(TRIALS.c.study_id == study.id, TRIALS.c.state == TrialState.COMPLETE, VALUES.c.objective == 0)
        .where(VALUES.c.value_type == models.TrialValueModel.TrialValueType.FINITE)
        .subquery()
    )
    query = sa.select(ranked).where((ranked.c.place <= KEPT) | ranked.c.number.in_(numbers)).order_by(ranked.c.place)
    rows = study.storage.read(lambda connection: connection.execute(query).all())
    best = [(float(row.value), int(row.number)) for row in rows if row.place <= KEPT]
    return best, {int(row.number) for row in rows if row.place > KEPT}


class StudyFiles:
    """Files of one study in `HPO_HOME`, as a worker writes them."""

    def __init__(self, study: Study) -> None:
        self.study = study
        while (key := study_key(study)) is None:  # of several workers the first draws it; the others adopt it
            study.storage.update_study(study.id, {KEY: None}, {KEY: secrets.token_hex(4)})
        self.key = key
        self._folders = {kind: self._make_folder(kind) for kind in KINDS}
        self._best, _ = rank_trials(study)  # as last seen

    def folder(self, kind: str) -> Path:
        """Return the study's folder of a kind, one of `KINDS`."""
        return self._folders[kind]

    def checkpoint(self, number: int) -> Path:
        """Return the path of a trial's checkpoint in `HPO_HOME`, which workers of several machines may share."""
        return self._folders["checkpoints"] / f"{number}.pt"

    def weights(self, number: int) -> Path:
        """Return the path of the weights of a trial's best epoch, whether they are kept or not."""
        return self._folders["weights"] / f"{number}.safetensors"

    def check_writable(self) -> None:
        """Check that files can be written, before a trial is trained whose checkpoints and weights would be missing.

        Raises:
            RequestError: they cannot; the line says why.
        """
        for path in self._folders.values():
            try:
                with tempfile.TemporaryFile(dir=path):
                    pass
            except OSError as error:
                why = error.strerror or error
                raise RequestError(f"{path}: cannot be written ({why}); set HPO_HOME to a folder that can") from error

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
        # The best as last seen may be fewer or worse than by now: then some are kept for a moment too many.
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
        header = {
            "study": self.study.name,
            "study_id": str(self.study.id),
            "study_key": self.key,
            "trial": str(number),
            "torch-hpo": importlib.metadata.version("torch-hpo"),
            "metric": self.study.definition.objectives[0].metric,
            "value": repr(value),
        }
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, header)
        except Exception as error:  # a full disk, or tensors of a user's model that safetensors refuses
            log.warning("weights %s: not written (%s); the trial counts without them", path, error)

    def _remove_beaten(self) -> None:
        files = files_by_number(self._folders["weights"], ".safetensors")
        self._best, beaten = rank_trials(self.study, files)
        for number in beaten:
            try:
                files[number].unlink(missing_ok=True)
            except OSError as error:
                log.warning("weights %s: not removed (%s)", files[number], error.strerror)

    def _make_folder(self, kind: str) -> Path:
        """Make a folder of the study, with a file that says whose it is."""
        path = folder(kind, f"{self.study.name}-{self.key}")
        marker = path / MARKER
        if not marker.exists():
            content = {"study": self.study.name, "key": self.key, "storage": storage_place(self.study.storage.url)}
            try:
                write_atomically(marker, json.dumps(content).encode(), sync=False)
            except OSError as error:
                log.warning("%s: not written (%s); hpo gc will not know whose folder it is", marker, error.strerror)
        return path
