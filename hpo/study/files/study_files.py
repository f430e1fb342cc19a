"""Files of a study on disk: checkpoints of its unfinished trials, weights of its best ones, and artifacts.

They lie in `HPO_HOME`, in folders of that study alone: `checkpoints/<name>-<key>/<number>.pt`,
`weights/<name>-<key>/<number>.safetensors` and `artifacts/<name>-<key>/<id>` (see `hpo.study.files.artifacts`). The key
is drawn when the study is created, and stored in it. So a study that is deleted and made again under
its name, and a study of the same name in another storage, have other folders. A file `study.json` in each folder says
whose it is, for `hpo gc`.

The `KEPT` best COMPLETE trials keep their weights: by the first objective, of equals the lower number. That holds for
several objectives too, although the Pareto front would suit them better: a front has no bound, and a trial that was
sixth on it can move up when a new trial beats one ahead of it, after its weights are gone. By one objective a trial
only ever moves down. A refit has scores of the test set alone, which is not to choose by: there the configurations that
the study ranked first come first.
"""

from __future__ import annotations

import importlib.metadata
import logging
import math
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from optuna.storages._rdb import models
from optuna.trial import TrialState
from sqlalchemy.engine import URL

from hpo.errors import RequestError
from hpo.storage.identity import KEY
from hpo.storage.tables import PARAMS, TRIALS, VALUES
from hpo.study.files.marker import MARKER, Marker, read_marker, storage_place, write_marker
from hpo.study.study import Study
from hpo.utils.files import write_atomically
from hpo.utils.home import make_folder
from hpo.utils.paths import is_name, study_path

__all__ = [
    "KEPT",
    "KEY",
    "KINDS",
    "StudyFiles",
    "draw_key",
    "link_files",
    "list_local_weights",
    "make_study_folder",
    "rank_trials",
    "study_folder",
    "weights_path",
]

log = logging.getLogger("hpo.study")
KEPT = 5
KINDS = ("checkpoints", "weights", "artifacts")

Write = Callable[[Path, Mapping[str, str]], object]


def study_key(study: Study) -> Any:
    """Return the study's key as the database has it, or None if it has no files yet."""
    return study.storage.get_study_user_attrs(study.id).get(KEY)


def study_folder(kind: str, study: Study) -> Path | None:
    """Return the study's folder of a kind of files, which may not be here; None if the study has no files.

    Raises:
        RequestError: the database has a key that is none, or a link leads out of `HPO_HOME`.
    """
    key = study_key(study)
    return None if key is None or not is_name(study.name) else study_path(kind, study.name, key)


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

    Both in one statement: between two, a trial that is stored meanwhile would seem beaten by the former best. Those of
    a refit rank by their configuration, whose place among the candidates Optuna stores.

    Returns:
        Value and number of the `KEPT` best, the best first; numbers of COMPLETE trials that are not among them.
    """
    value = VALUES.c.value
    order = value.desc() if study.maximize else value.asc()
    if study.definition.refit:
        candidate = sa.select(PARAMS.c.param_value).where(PARAMS.c.param_name == "configuration")
        order = candidate.where(PARAMS.c.trial_id == TRIALS.c.trial_id).scalar_subquery().asc()
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
            study.storage.update_study(study.id, {KEY: None}, {KEY: draw_key()})
        if _is_of_another(study, key):
            key = _draw_key_anew(study, key)
        self.key = key
        self._folders = {kind: make_study_folder(kind, study.name, key, study.storage.url) for kind in KINDS}
        self._best, _ = rank_trials(study)  # as last seen

    def folder(self, kind: str) -> Path:
        """Return the study's folder of a kind, one of `KINDS`."""
        return self._folders[kind]

    def checkpoint(self, number: int, fit: int = 0) -> Path:
        """Return the path of a trial's checkpoint in `HPO_HOME`, which workers of several machines may share.

        Those of further fits lie in the folder beside it, which goes with it.
        """
        folder = self._folders["checkpoints"]
        return folder / f"{number}/fit-{fit}.pt" if fit else folder / f"{number}.pt"

    def previous_checkpoint(self, number: int, fit: int) -> Path:
        """Return the path of the checkpoint before, which is kept of trials of several fits."""
        return self._folders["checkpoints"] / f"{number}/fit-{fit}.previous"

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
        if self.study.definition.refit:
            return False  # until the storage says so
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


def draw_key() -> str:
    """Draw the key of a study that writes its first file."""
    return secrets.token_hex(4)


def make_study_folder(kind: str, name: str, key: str, url: URL) -> Path:
    """Make a folder of the study of that name and key in that storage, with a file that says whose it is.

    Raises:
        RequestError: the name or the key is none of ours, or the folder cannot be made.
    """
    path = make_folder(study_path(kind, name, key))
    marker = read_marker(path)
    if marker is None or marker.has_moved():
        write_marker(path, Marker(name, key, storage_place(url)))
    return path


def _is_of_another(study: Study, key: str) -> bool:
    """Return whether the folders of the study's key belong to a study of another database.

    Other tools copy a study, or a whole database, with the key: then both would write the same files.
    """
    markers = (read_marker(study_path(kind, study.name, key)) for kind in KINDS)
    return any(marker is not None and marker.is_elsewhere(study.storage.url) for marker in markers)


def _draw_key_anew(study: Study, key: str) -> str:
    """Give a copied study a key of its own, with all files of the one that it came with; return its key."""
    new = draw_key()
    for kind in KINDS:
        source, to = study_path(kind, study.name, key), make_study_folder(kind, study.name, new, study.storage.url)
        link_files((path, to / path.name) for path in source.glob("[!.]*") if path.is_file() and path.name != MARKER)
        link_files(_pair_inner_files(source, to), copy=True)  # a loop may change its own files
    study.replace_key(key, new)
    log.warning("study %s: was copied from another database, whose files it does not share any more", study.name)
    return str(study_key(study))  # of several workers, that of the first


def _pair_inner_files(source: Path, to: Path) -> Iterator[tuple[Path, Path]]:
    """Yield each file in the folders of a folder, with its place in another one."""
    for folder, _, names in os.walk(source):
        if Path(folder) != source:
            paths = [Path(folder) / name for name in names]
            yield from ((path, to / path.relative_to(source)) for path in paths if path.is_file())


def link_files(pairs: Iterable[tuple[Path, Path]], *, copy: bool = False) -> None:
    """Link files to other paths, or copy them where there are no links; a file that is there already stays.

    Weights, checkpoints and artifacts are replaced as a whole, never changed. A failure is logged.

    Args:
        pairs: of a file and its other path.
        copy: whether they may be changed, so that they are copied in any case.
    """
    for path, to in pairs:
        try:
            if not to.exists():
                to.parent.mkdir(parents=True, exist_ok=True)
                _copy(path, to) if copy else _link(path, to)
        except OSError as error:
            log.warning("%s: not copied (%s)", path, error.strerror)


def _link(path: Path, to: Path) -> None:
    try:
        os.link(path, to)
    except OSError:
        _copy(path, to)


def _copy(path: Path, to: Path) -> None:
    with path.open("rb") as source:
        write_atomically(to, partial(shutil.copyfileobj, source), sync=False)
