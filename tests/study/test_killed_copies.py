"""A copy or a fork whose process is killed, at each of its steps: a repeat completes it, and nothing is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from hpo.study import Study, StudyStorage, study_names
from hpo.study.files import study_files
from hpo.study.files.artifacts import find_artifact, save_artifact
from hpo.study.files.cleanup import find_unneeded_files, remove_files
from hpo.study.files.study_files import KEPT, StudyFiles, list_local_weights
from hpo.study.operations.copy_study import copy_study
from hpo.study.operations.fork import fork_study
from hpo.utils.home import home
from tests.study.helpers import holder, make_study, new_storage, sqlite_url

FILES = KEPT + 1  # weights and an artifact
POINTS = ("before file 0", "before file 3", "before the commit", "after the commit")


def finished_study(folder: Path) -> Study:
    study = make_study(folder, sampler="tpe")
    files = StudyFiles(study)
    for number in range(KEPT):
        claim = study.claim(holder())
        assert claim is not None
        study.suggest_config(claim)
        files.weights(number).write_text(f"weights {number}")
        if number == 0:
            save_artifact(study, "a.txt", b"one", trial_id=claim.id)
        study.storage.set_trial_state_values(claim.id, TrialState.COMPLETE, [0.5])
    study.storage.flush()
    return study


def check_files(study: Study) -> None:
    """All that the finished trials have is there."""
    weights = {number: path.read_text() for number, path in list_local_weights(study).items()}
    assert weights == {number: f"weights {number}" for number in range(KEPT)}
    artifact = find_artifact(study, "a.txt", study.trials()[0].system_attrs)
    assert artifact is not None
    assert artifact.read_bytes() == b"one"


def kill_at(patch: pytest.MonkeyPatch, point: str) -> None:
    """Let this process kill itself at a point of what it does."""
    link, commit = study_files._link, sa.engine.base.RootTransaction.commit
    left = [int(point.rpartition(" ")[2])] if "file" in point else [FILES]

    def count(path: Path, to: Path) -> None:
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        link(path, to)

    def commit_or_die(transaction: sa.engine.base.RootTransaction) -> None:
        if point == "before the commit" and left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        commit(transaction)
        if point == "after the commit" and left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    patch.setattr(study_files, "_link", count)
    patch.setattr(sa.engine.base.RootTransaction, "commit", commit_or_die)


def run_and_be_killed(work: Callable[[], object], point: str) -> None:
    """Do the work in a process that is killed at a point."""
    child = os.fork()
    if child == 0:
        try:
            with pytest.MonkeyPatch.context() as patch:
                kill_at(patch, point)
                work()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.integration
@pytest.mark.parametrize("verb", ["copy", "fork"])
def test_a_copy_or_a_fork_that_is_killed(tmp_path: Path, verb: str) -> None:
    study = finished_study(tmp_path)
    (tmp_path / "other").mkdir()
    new_storage(tmp_path / "other").engine.dispose()
    target_url = sqlite_url(tmp_path / "other" if verb == "copy" else tmp_path)
    before = content(home())
    for number, point in enumerate(POINTS):
        name = f"new {number}"

        def create(name: str = name) -> Study:
            source = Study(StudyStorage(sqlite_url(tmp_path)), "small")
            target = StudyStorage(target_url)
            return copy_study(source, target, name) if verb == "copy" else fork_study(source, name).create()

        run_and_be_killed(create, point)
        target = StudyStorage(target_url)
        arrived = point == "after the commit"
        assert (name in study_names(target)) == arrived
        copied = Study(target, name) if arrived else create()
        check_files(copied)
        leftovers = [each for each in find_unneeded_files(target) if not each.stays]
        assert {each.why for each in leftovers} <= {f"study {name} is deleted"}
        for each in leftovers:
            remove_files(each.path)
        check_files(copied)
    check_files(study)
    assert content(home()).items() >= before.items()
    assert len(list((home() / "weights").iterdir())) == 1 + len(POINTS)  # the study's, and one of each copy


def test_files_that_a_sweep_takes_before_the_commit_are_brought_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = finished_study(tmp_path)
    link = study_files.link_files

    def sweep_afterwards(pairs: object) -> None:
        link(pairs)  # type: ignore[arg-type]
        monkeypatch.undo()
        monkeypatch.setenv("HPO_HOME", str(tmp_path / "home"))
        for each in find_unneeded_files(StudyStorage(sqlite_url(tmp_path))):
            remove_files(each.path)

    monkeypatch.setattr("hpo.study.operations.copy_study.link_files", sweep_afterwards)
    check_files(copy_study(study, new_storage(tmp_path), "copy"))
