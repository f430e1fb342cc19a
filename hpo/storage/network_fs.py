"""Network file systems, on which SQLite is refused, as it is for workers on several machines.

Its write-ahead log is shared memory, which ends at the machine, and its locks are those of the file system, which
network file systems keep badly: studies are lost without an error.
"""

from __future__ import annotations

import os
from pathlib import Path

from sqlalchemy.engine import URL

from hpo.errors import StorageError
from hpo.storage.url import is_file, mask, normalize

__all__ = ["ALLOW", "find_mount", "find_network_mount", "refuse_network_sqlite", "refuse_remote_sqlite"]

# The type says how a folder is mounted, not who else writes to it: the whole disk of some sandboxes is 9p, and one
# machine alone may use its NFS home. Whoever knows that says so; the message does not invite to guess.
ALLOW = "HPO_SQLITE_ON_NETWORK"
MOUNTS = Path("/proc/mounts")
# As /proc/mounts names them, those in user space without their "fuse.".
NETWORK = frozenset({
    "9p", "afs", "beegfs", "beegfs_nodev", "ceph", "ceph-fuse", "cifs", "curlftpfs", "davfs", "davfs2", "fhgfs",
    "gcsfuse", "gfs2", "glusterfs", "goofys", "gpfs", "juicefs", "lustre", "mfs", "ncpfs", "nfs", "nfs4", "ocfs2",
    "orangefs", "panfs", "pvfs2", "rclone", "s3fs", "smb3", "smbfs", "smbnetfs", "sshfs", "wekafs",
})  # fmt: skip
RECIPE = "a PostgreSQL of your own needs no root; the steps: hpo doctor --recipe (docs/postgresql.md)"


def find_mount(path: Path, mounts: Path | None = None) -> tuple[str, str] | None:
    """Find the mount point that holds a path, which need not exist yet, and its type; None where the system lists none.

    Args:
        path: a file or a folder.
        mounts: a file in the format of Linux' /proc/mounts; by default that one.
    """
    try:
        lines = (mounts or MOUNTS).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    real = path.resolve()
    found: tuple[str, str] | None = None
    for line in lines:
        _, point, kind, *_ = line.split(" ")
        point = point.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
        # Of two at the same point the later one covers the earlier.
        if real.is_relative_to(point) and (found is None or len(point) >= len(found[0])):
            found = point, kind
    return found


def find_network_mount(url: URL) -> str | None:
    """Describe the network file system that a SQLite file lies on, by type and mount point; None for any other
    storage.
    """
    found = find_mount(Path(str(url.database))) if is_file(url) else None
    return f"{found[1]} at {found[0]}" if found and found[1].removeprefix("fuse.") in NETWORK else None


def refuse_network_sqlite(url: URL) -> None:
    """Refuse to write to a SQLite file on a network file system.

    Raises:
        StorageError: names the file system, and what to do instead.
    """
    where = find_network_mount(url)
    if where and not os.environ.get(ALLOW):
        raise StorageError(
            f"storage {mask(url)}: it lies on a network file system ({where}), where SQLite loses data; "
            f"give a --storage on a local disk, or use PostgreSQL: {RECIPE}"
        )


def refuse_remote_sqlite(url: str) -> None:
    """Refuse SQLite as the storage of workers on other machines.

    Raises:
        StorageError: says what to use instead.
    """
    parsed = normalize(url)
    if parsed.get_backend_name() == "sqlite":
        raise StorageError(
            f"storage {mask(parsed)}: SQLite serves one machine, and these workers run on others; use PostgreSQL: "
            f"{RECIPE}"
        )
