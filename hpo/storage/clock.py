"""Clock of leases: the server's, and for a SQLite file this machine's, which goes on evenly whoever sets its time.

A SQLite file has no clock of its own: each process would ask the wall clock, which people and time servers set, and
which a program may be told to see differently. So the time in such a database is that since the machine was started,
counted from a moment that the first worker writes down. It looks like the wall clock's, which older versions use, and
which counts where there is no such moment: on another machine, say, that shares the file.
"""

from __future__ import annotations

import functools
import socket
import time
from pathlib import Path

import sqlalchemy as sa

from hpo.storage.tables import LEASES, WORKERS, wall_clock

__all__ = ["MACHINES", "boot_id", "boot_seconds", "database_clock", "start_clock"]

# One row for each time that a machine was started and had workers.
MACHINES = sa.Table(
    "hpo_machines",
    sa.MetaData(),  # made in SQLite files alone: servers have a clock
    sa.Column("boot", sa.String(255), primary_key=True),
    sa.Column("host", sa.String(255), nullable=False),
    # When it was started, in seconds since 1970, as the clock of leases has it.
    sa.Column("started", sa.Double, nullable=False),
)
LATER = 0.001  # seconds by which the clock begins after the end of the last lease of an earlier start


def boot_seconds() -> float:
    """Return the seconds of a monotonic clock that goes on while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


@functools.cache
def boot_id() -> str | None:
    """Return what names this start of the machine, and its clock, for all its processes; None where nothing does."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/time').readlink()}"  # a container may have a clock of its own
    except OSError:
        return None


def database_clock(connection: sa.Connection) -> sa.ColumnElement[float]:
    """Return an expression for the seconds since 1970 by the clock of leases, which all workers share.

    It holds the present moment, and is to be built in the transaction that uses it.
    """
    wall, boot = wall_clock(connection), boot_id()
    if connection.dialect.name != "sqlite" or boot is None:
        return wall
    started = sa.select(MACHINES.c.started).where(MACHINES.c.boot == boot).scalar_subquery()
    return sa.func.coalesce(started + boot_seconds(), wall, type_=sa.Double)


def start_clock(connection: sa.Connection) -> None:
    """Write down when this machine was started, once, before its first worker takes a lease.

    Where it was started anew, the clock begins after the last lease of before: its workers are gone, whatever the time
    was then, and is now.
    """
    boot, host, machines = boot_id(), socket.gethostname(), MACHINES.c
    if connection.dialect.name != "sqlite" or boot is None:
        return
    rows = connection.execute(sa.select(machines.boot).where((machines.boot == boot) | (machines.host == host)))
    boots = set(rows.scalars())
    if boot in boots:
        return
    now = float(connection.execute(sa.select(wall_clock(connection))).scalar_one())
    if boots:
        ends = sa.select(sa.func.max(LEASES.c.expires)), sa.select(sa.func.max(WORKERS.c.gone))
        now = max(now, *((connection.execute(end).scalar() or 0.0) + LATER for end in ends))
    connection.execute(sa.insert(MACHINES).values(boot=boot, host=host, started=now - boot_seconds()))
