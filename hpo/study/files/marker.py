"""Marker of a study's folder: the file `study.json`, which says to which study of which storage the folder belongs.

Whatever a database says, files are removed only from a folder whose marker names the same study, key and storage.
"""

from __future__ import annotations

import json
import logging
import re
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

from sqlalchemy.engine import URL, make_url

from hpo.storage.url import is_file, mask
from hpo.utils.files import write_atomically
from hpo.utils.home import home

__all__ = ["MARKER", "Marker", "leads_out", "read_marker", "storage_place", "write_marker"]

log = logging.getLogger("hpo.study")
MARKER = "study.json"
LOOPBACK = {None, "", "localhost", "127.0.0.1", "::1"}


def storage_place(url: URL) -> str:
    """Name the database of a URL: the URL without its password, and this machine's name if the database is local."""
    local = is_file(url) or url.host in LOOPBACK
    return f"{mask(url)} on {socket.gethostname()}" if local else mask(url)


@dataclass(frozen=True)
class Marker:
    """Content of a marker.

    Attributes:
        study, key: name and key of the study.
        storage: its storage, as `storage_place` names it.
    """

    study: str
    key: str
    storage: str

    def is_in(self, url: URL) -> bool:
        """Return whether the storage is that of a URL, whoever its user is there."""
        return _without_user(self.storage) == _without_user(storage_place(url))

    def is_elsewhere(self, url: URL) -> bool:
        """Return whether the storage is certainly another one: not a file that has moved, nor another spelling."""
        named = make_url(re.sub(r" on \S+$", "", self.storage))
        if is_file(named) != is_file(url):
            return True
        if not is_file(url):
            return named.database != url.database
        path, ours = self._local_file(), Path(str(url.database))
        return path is not None and path.exists() and not (ours.exists() and path.samefile(ours))

    def has_moved(self) -> bool:
        """Return whether the storage was a file of this machine that is not there any more."""
        path = self._local_file()
        return path is not None and not path.exists()

    def _local_file(self) -> Path | None:
        """Return the storage's file, if it is one of this machine."""
        text = self.storage.removesuffix(f" on {socket.gethostname()}")
        url = make_url(text)
        return Path(str(url.database)) if text != self.storage and is_file(url) else None


def _without_user(place: str) -> str:
    return re.sub(r"\?\S*", "", re.sub(r"//[^@/]*@", "//", place))


def read_marker(folder: Path) -> Marker | None:
    """Read a folder's marker; None if there is none, or if it is another folder's."""
    try:
        content = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        marker = Marker(**content)
        make_url(re.sub(r" on \S+$", "", marker.storage))
    except Exception:  # whatever stands in the file; a folder without a marker stays
        return None
    return marker if folder.name == f"{marker.study}-{marker.key}" else None


def write_marker(folder: Path, marker: Marker) -> None:
    """Write a folder's marker; a failure is logged."""
    try:
        write_atomically(folder / MARKER, json.dumps(asdict(marker)).encode(), sync=False)
    except OSError as error:
        path = folder / MARKER
        log.warning("%s: not written (%s); hpo gc will not know whose folder it is", path, error.strerror)


def leads_out(path: Path) -> bool:
    """Return whether a path in `HPO_HOME` leads out of it, by a link."""
    return not path.resolve().is_relative_to(home().resolve())
