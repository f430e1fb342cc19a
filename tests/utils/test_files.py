"""Atomic writes: the old file or the new one, never half of it."""

import os
from pathlib import Path
from typing import BinaryIO

import pytest

from hpo.errors import RequestError
from hpo.utils.files import atomic_folder, remove_file, write_atomically


def test_content_may_be_bytes_or_a_function(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a", b"one")
    write_atomically(tmp_path / "a", lambda file: file.write(b"two"))
    assert (tmp_path / "a").read_bytes() == b"two"
    assert [each.name for each in tmp_path.iterdir()] == ["a"]


def test_a_write_that_fails_leaves_the_old_file_alone(tmp_path: Path) -> None:
    def fail(file: BinaryIO) -> None:
        file.write(b"half")
        raise ValueError("a full disk")

    write_atomically(tmp_path / "a", b"old")
    with pytest.raises(ValueError, match="a full disk"):
        write_atomically(tmp_path / "a", fail)
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(("umask", "expected"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_permissions_are_those_of_any_new_file(tmp_path: Path, umask: int, expected: int) -> None:
    (tmp_path / "a").touch(mode=0o666)  # also where it replaces one that all may read
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "a", b"")
        with atomic_folder(tmp_path / "new") as folder:
            (folder / "file").touch()
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == expected
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o777 & ~umask
    assert (tmp_path / "new" / "file").stat().st_mode & 0o777 == expected


@pytest.mark.parametrize("sync", [True, False])
def test_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sync: bool) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    write_atomically(tmp_path / "a", b"", sync=sync)
    assert bool(synced) == sync


def test_removing_takes_what_killed_writers_left(tmp_path: Path) -> None:
    for name in ("a", ".a.17.00ff00ff", ".ab.17.00ff00ff", "ab"):
        (tmp_path / name).touch()
    remove_file(tmp_path / "a")
    remove_file(tmp_path / "a")
    assert sorted(each.name for each in tmp_path.iterdir()) == [".ab.17.00ff00ff", "ab"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def fail() -> None:
        with atomic_folder(tmp_path / "new") as folder:
            (folder / "file").touch()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not list(tmp_path.iterdir())
    with atomic_folder(tmp_path / "new") as folder:
        (folder / "file").touch()
        assert not (tmp_path / "new").exists()
    assert [each.name for each in (tmp_path / "new").iterdir()] == ["file"]
    with pytest.raises(RequestError, match="is not empty"), atomic_folder(tmp_path / "new"):
        pass
