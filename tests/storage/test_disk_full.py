"""A SQLite file on a disk that is full."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from optuna.study import StudyDirection

from hpo.errors import RunError
from hpo.storage import disk_full
from hpo.storage.disk_full import DiskFullError
from hpo.storage.transient_errors import is_transient
from hpo.study import StudyStorage
from hpo.study.files.study_files import StudyFiles
from hpo.utils.home import home
from tests.helpers import run_hpo
from tests.study.helpers import make_study, new_storage, sqlite_url


@pytest.fixture
def full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyStorage:
    """A storage whose file may not grow any more, as if its disk were full."""
    storage = new_storage(tmp_path)
    storage.create_new_study([StudyDirection.MINIMIZE], "s")
    monkeypatch.setattr(disk_full, "_free", lambda _: 0)
    # SQLite refuses itself what would need another page.
    sa.event.listen(storage.engine, "checkout", lambda connection, *_: connection.execute("PRAGMA max_page_count = 1"))
    return storage


def test_what_is_refused_says_that_the_disk_is_full(full: StudyStorage, tmp_path: Path) -> None:
    study_id = full.get_study_id_from_name("s")
    said = f"storage sqlite:.*: the disk is full: 0 bytes are free in {tmp_path}"
    for call in (
        lambda: full.set_study_user_attr(study_id, "a", "x" * 500_000),  # by Optuna's code
        lambda: full.update_study(study_id, {}, {"b": "x" * 500_000}),  # by ours
    ):
        with pytest.raises(DiskFullError, match=said):
            call()
    assert [study.study_name for study in full.get_all_studies()] == ["s"]


def test_it_is_the_databases_error_to_some_and_one_line_to_others() -> None:
    error = DiskFullError("the disk is full", OSError("full"))
    assert isinstance(error, RunError)
    assert isinstance(error, sa.exc.DBAPIError)
    assert not is_transient(error)
    assert str(error) == "the disk is full"


def test_files_go_first_where_the_rows_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    delete = StudyStorage.delete_study
    folder = StudyFiles(make_study(tmp_path)).folder("checkpoints")

    def refuse(self: StudyStorage, study_id: int) -> None:
        if folder.exists():
            raise DiskFullError("the disk is full", OSError("full"))
        delete(self, study_id)

    monkeypatch.setattr(StudyStorage, "delete_study", refuse)
    done = run_hpo("delete", "small", "--yes", "--storage", sqlite_url(tmp_path))
    assert done.returncode == 0, done.stderr
    assert StudyStorage(sqlite_url(tmp_path)).get_all_studies() == []


SCRIPT = """
mount -t tmpfs -o size=3m tmpfs "$HPO_HOME" || exit 99
"$@" launch "$STUDY" --workers 0 > /dev/null 2>&1 || exit 98
dd if=/dev/zero of="$HPO_HOME/fill" bs=4k 2> /dev/null
for command in "list" "gc" "delete small --yes"; do
    echo "== $command"; "$@" $command 2>&1 | tail -1
done
"""


@pytest.mark.integration
def test_a_real_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], check=False).returncode:
        pytest.skip("hardware: this machine lets nobody mount")
    study = tmp_path / "small.toml"
    study.write_text('dataset = "mnist"\nobjective = "val_accuracy"\ntrials = 12\nsampler = "random"\n')
    home().mkdir(parents=True)
    monkeypatch.setenv("STUDY", str(study))
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", SCRIPT, "sh", sys.executable, "-m", "hpo"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.returncode, done.stderr)
    said = dict(part.split("\n", 1) for part in done.stdout.split("== ")[1:])
    assert said["list"].startswith("small")
    assert said["gc"].startswith("removed: ")
    assert "disk I/O" not in done.stdout
    assert "deleted" in said["delete small --yes"] or "the disk is full" in said["delete small --yes"]
