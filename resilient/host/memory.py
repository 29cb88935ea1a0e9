"""How much memory is still available, within the limits of our control group.

Sources: proc(5), and the kernel's documentation of cgroup v1 (memory.txt) and v2 (cgroup-v2.rst). A group's
usage includes ``inactive_file``: page cache that the kernel frees before it kills.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import psutil

_CGROUPS = Path("/sys/fs/cgroup")


def available_bytes(cgroups: Path = _CGROUPS, membership: Path = Path("/proc/self/cgroup")) -> int:
    """Bytes that this process may still allocate before the kernel kills a process."""
    return min([int(psutil.virtual_memory().available), *_left_in_groups(cgroups, membership)])


def _left_in_groups(cgroups: Path, membership: Path) -> Iterator[int]:
    with contextlib.suppress(OSError):
        # A group's name may be any bytes.
        for line in os.fsdecode(membership.read_bytes()).splitlines():
            fields = line.split(":", 2)
            if len(fields) != 3:
                continue
            _, controllers, path = fields
            if controllers == "":
                yield from _left(cgroups, path, "memory.max", "memory.current", "inactive_file")
            elif "memory" in controllers.split(","):
                names = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
                yield from _left(cgroups / "memory", path, *names)


def _left(root: Path, path: str, limit: str, usage: str, reclaimable: str) -> Iterator[int]:
    """The bytes left in a group and in each one above it; nothing for a group without a limit."""
    group = root / path.lstrip("/")
    for folder in (group, *group.parents):
        if not folder.is_relative_to(root):
            return
        with contextlib.suppress(OSError, ValueError):
            # A v2 group without a limit says "max", which raises ValueError.
            most, used = (int((folder / name).read_text()) for name in (limit, usage))
            yield max(0, most - used + _counted(folder / "memory.stat", reclaimable))


def _counted(stat: Path, name: str) -> int:
    """A number in memory.stat; 0 when it is missing, so that no used memory counts as free."""
    with contextlib.suppress(OSError, ValueError):
        for line in stat.read_text().splitlines():
            if line.startswith(f"{name} "):
                return int(line.split()[1])
    return 0
