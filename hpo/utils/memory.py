"""Free memory of this machine."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["free_memory"]

UNKNOWN = 4 << 30  # bytes that are taken for free where the system does not say


def free_memory() -> int:
    """Return the bytes of free memory: those of the machine, or of the container where that has fewer."""
    available = re.search(r"MemAvailable:\s*(\d+) kB", _read_text("/proc/meminfo"))
    bounds = [int(available[1]) * 1024] if available else []
    limit, used = _read_text("/sys/fs/cgroup/memory.max"), _read_text("/sys/fs/cgroup/memory.current")
    if limit.isdigit() and used.isdigit():
        bounds.append(int(limit) - int(used))
    return min(bounds, default=UNKNOWN)


def _read_text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
