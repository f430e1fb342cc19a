"""SQLite where it loses data. The mount tables are made up; nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpo.errors import StorageError
from hpo.storage import network_fs
from hpo.storage.network_fs import find_mount, refuse_remote_sqlite
from hpo.study import StudyStorage
from hpo.study.operations.list_studies import list_studies
from tests.study.helpers import sqlite_url


def mounts(folder: Path, *rows: tuple[str, str]) -> Path:
    """A table of mounts: point and type of each."""
    table = folder / "mounts"
    lines = ["/dev/sda1 / ext4 rw,relatime 0 0", *(f"server:/x {point} {kind} rw 0 0" for point, kind in rows)]
    table.write_text("\n".join(lines) + "\n")
    return table


def test_the_longest_mount_point_holds_a_path_and_of_equals_the_last(tmp_path: Path) -> None:
    table = mounts(
        tmp_path,
        ("/home", "autofs"),
        ("/home", "nfs4"),
        ("/home/me/local", "xfs"),
        ("/my\\040disk", "cifs"),
        ("/homes", "lustre"),
    )
    found = {path: find_mount(Path(path), table) for path in ("/home/a/b.db", "/home/me/local/c", "/my disk/d", "/etc")}
    assert found == {
        "/home/a/b.db": ("/home", "nfs4"),
        "/home/me/local/c": ("/home/me/local", "xfs"),
        "/my disk/d": ("/my disk", "cifs"),
        "/etc": ("/", "ext4"),
    }
    (tmp_path / "link").symlink_to("/home/a")
    assert find_mount(tmp_path / "link" / "b.db", table) == ("/home", "nfs4")
    assert find_mount(Path("/etc"), tmp_path / "no such table") is None  # no Linux: nothing is known


def test_this_machine_has_a_file_system(tmp_path: Path) -> None:
    if network_fs.MOUNTS.exists():
        found = find_mount(tmp_path)
        assert found is not None
        assert tmp_path.is_relative_to(found[0])


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "lustre", "gpfs", "beegfs", "fuse.sshfs", "9p"])
def test_sqlite_on_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    url = sqlite_url(tmp_path)
    monkeypatch.delenv(network_fs.ALLOW, raising=False)
    monkeypatch.setattr(network_fs, "MOUNTS", mounts(tmp_path, (str(tmp_path), kind)))
    with pytest.raises(StorageError) as error:
        StudyStorage(url)
    text = str(error.value)
    assert "\n" not in text
    for words in (f"({kind} at {tmp_path})", "docs/postgresql.md", "hpo doctor --recipe"):
        assert words in text
    assert not (tmp_path / "studies.db").exists()
    monkeypatch.setenv(network_fs.ALLOW, "1")
    StudyStorage(url).create_new_study([])
    monkeypatch.delenv(network_fs.ALLOW)
    assert len(list_studies(url)) == 1  # reading is no harm


def test_a_local_disk_and_a_server_are_not_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_fs, "MOUNTS", mounts(tmp_path, ("/", "nfs"), (str(tmp_path), "fuse.ext4")))
    StudyStorage(sqlite_url(tmp_path))
    StudyStorage("sqlite://")
    network_fs.refuse_network_sqlite(network_fs.normalize("postgresql://me@host/studies"))


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///studies.db"])
def test_workers_of_other_machines_are_refused_sqlite(url: str) -> None:
    with pytest.raises(StorageError, match=r"SQLite serves one machine.*hpo doctor --recipe"):
        refuse_remote_sqlite(url)
    refuse_remote_sqlite("postgresql://me@host/studies")
    refuse_remote_sqlite("mysql://me@host/studies")
