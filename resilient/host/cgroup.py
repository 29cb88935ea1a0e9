"""Control groups: one for the workers of an attempt, and the kernel's count of kills for memory.

Sources: cgroups(7), the kernel's cgroup-v2.rst and cgroup-v1/memory.rst, proc(5) on mountinfo.

A process cannot leave its group by detaching itself (``setsid``, a double fork), and ``cgroup.kill`` (Linux
5.14) kills a whole group at once, including processes forked at that moment. So a group kill also ends
processes that a scan of the process table may miss. We make groups only below our own group, if we may write
there (root, a delegated unit, a container), and never enable a controller: our own group keeps its processes,
and no limit changes. If any of this is not available, the supervisor works without it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import select
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
# resilient-PID-BORN-NUMBER-MARK: the kernel reuses pids; pid and start time together name one process.
_NAME = re.compile(r"resilient-([0-9]{1,10})-([0-9]{1,20})-[0-9]{1,10}(?:-([0-9a-z]{1,40}))?")
_OCTAL = re.compile(r"\\([0-7]{3})")
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Memberships:
    """The directories of a process's groups: in the unified hierarchy (v2), and in v1's memory controller."""

    unified: Path | None = None
    memory: Path | None = None


def locate(membership: str, mounts: str) -> Memberships:
    """The groups of a process, from /proc/PID/cgroup and /proc/self/mountinfo. Pure."""
    unified = memory = None
    for line in membership.splitlines():
        fields = line.split(":", 2)
        if len(fields) != 3:
            continue
        _, controllers, path = fields
        if line.startswith("0::"):
            unified = _below_mount(path, mounts, "cgroup2", "")
        elif "memory" in controllers.split(","):
            memory = _below_mount(path, mounts, "cgroup", "memory")
    return Memberships(unified, memory)


def _below_mount(path: str, mounts: str, kind: str, controller: str) -> Path | None:
    if ".." in path.split("/"):
        # Outside our cgroup namespace.
        return None
    for line in mounts.splitlines():
        # 41 31 0:38 ROOT MOUNT_POINT rw,relatime [optional ...] - KIND SOURCE OPTIONS
        before, dash, after = line.partition(" - ")
        fields, about = before.split(" "), after.split(" ")
        if not dash or len(fields) < 6 or len(about) < 3 or about[0] != kind:
            continue
        if controller and controller not in about[2].split(","):
            continue
        root, point = map(_unescaped, fields[3:5])
        # A container may see only a part of the hierarchy; a group outside it has no path here.
        if root == "/":
            return Path(point) / path.lstrip("/")
        if path == root or path.startswith(f"{root}/"):
            return Path(point) / path[len(root) :].lstrip("/")
    return None


def _unescaped(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)


def memberships(pid: int | None = None) -> Memberships:
    """The groups of a process, by default our own; empty when they are unknown."""
    try:
        membership = (_PROC / str(pid or "self") / "cgroup").read_bytes()
        mounts = (_PROC / "self" / "mountinfo").read_bytes()
    except OSError:
        return Memberships()
    # A group's name may be any bytes.
    return locate(os.fsdecode(membership), os.fsdecode(mounts))


# Groups of our own


class ControlGroup:
    """A group of ours, for the processes of one attempt."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def procs(self) -> Path:
        """The file that adds a process: a pid written to it, or "0" for the writer itself."""
        return self.path / "cgroup.procs"

    @property
    def pids(self) -> list[int]:
        """The pids in it and in the groups below."""
        found: list[int] = []
        for folder, _, _ in os.walk(self.path):
            with contextlib.suppress(OSError, ValueError):
                found += map(int, (Path(folder) / "cgroup.procs").read_text().split())
        return found

    def add(self, pid: int) -> bool:
        """Adds a process with all its threads; children that it has forked already stay where they are."""
        try:
            self.procs.write_text(str(pid))
        except OSError:
            return False
        return True

    def kill(self, timeout_s: float) -> bool:
        """Kills everything in it and in the groups below; returns whether nothing lives there in time."""
        try:
            (self.path / "cgroup.kill").write_text("1")
            return self._empty_within(timeout_s)
        except OSError:
            return False

    def _empty_within(self, timeout_s: float) -> bool:
        deadline_s = time.monotonic() + timeout_s
        with open(self.path / "cgroup.events", "rb", buffering=0) as events:
            changed = select.poll()
            changed.register(events, select.POLLPRI)
            while True:
                # The order matters: the poll reports changes after this read.
                events.seek(0)
                if b"populated 0" in events.read():
                    return True
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    return False
                changed.poll(left_s * 1000)

    def remove(self) -> bool:
        """Removes it and the groups below; returns whether it is gone. One with processes stays."""
        for folder, _, _ in os.walk(self.path, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
        return not self.path.exists()


class ControlGroups:
    """Makes groups below our own. ``at`` is our own group's directory.

    ``mark``, letters and digits, is part of the groups' names; no two living supervisors have the same one.
    """

    def __init__(self, at: Path, mark: str = "") -> None:
        self._at = at
        self._mark = mark

    @classmethod
    def available(cls, mark: str = "") -> ControlGroups | None:
        """Our groups, if they can be made, filled and killed, which this tries out; otherwise None."""
        at = memberships().unified
        if at is None:
            return None
        groups = cls(at, mark)
        groups.clear_away()
        group = groups.make()
        if group is None:
            return None
        usable = os.access(group.path / "cgroup.kill", os.W_OK) and os.access(at / "cgroup.procs", os.W_OK)
        group.remove()
        return groups if usable else None

    def make(self) -> ControlGroup | None:
        """A new group, with our pid and mark in its name; None when that fails."""
        mark = f"-{self._mark}" if self._mark else ""
        path = self._at / f"resilient-{os.getpid()}-{born_at(os.getpid()) or 0}-{next(_numbers)}{mark}"
        try:
            path.mkdir()
        except OSError:
            return None
        return ControlGroup(path)

    def clear_away(self) -> None:
        """Removes the empty groups of dead supervisors."""
        with contextlib.suppress(OSError):
            for name in os.listdir(self._at):
                match = _NAME.fullmatch(name)
                if match and not _lives(int(match[1]), int(match[2])):
                    ControlGroup(self._at / name).remove()

    def orphans(self) -> list[ControlGroup]:
        """The groups, with processes in them, that a dead supervisor with our mark left behind.

        It searches the whole visible hierarchy: that supervisor may have been in another session.
        """
        if not self._mark:
            return []
        found = []
        for folder, names, _ in os.walk([self._at, *_upwards(self._at)][-1]):
            for name in names:
                match = _NAME.fullmatch(name)
                if match and match[3] == self._mark and not _lives(int(match[1]), int(match[2])):
                    group = ControlGroup(Path(folder) / name)
                    found += [group] if group.pids else []
        return found


def born_at(pid: int) -> int | None:
    """The start time of a process in the kernel's ticks; None when it is dead or a zombie."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(fields[19]) if fields[0] not in "ZX" else None


def _lives(pid: int, born: int) -> bool:
    if (_PROC / str(pid)).exists():
        return born_at(pid) == born
    try:
        # /proc may hide other users' processes (hidepid), so a missing entry proves nothing.
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


# Killed for memory


def oom_kills(pid: int | None = None) -> int | None:
    """How many processes the kernel has killed for memory in a process's group (None: ours).

    Callers compare the count before and after. None when the kernel does not count. The count is that of the
    victims' group. In v2, ``memory.events`` includes the groups below, and a group without that file is
    counted in the nearest one above that has it. Groups further up also count foreign processes, so this does
    not read them.
    """
    groups = memberships(pid)
    for path in _upwards(groups.unified):
        count = _count(path / "memory.events")
        if count is not None:
            return count
    return _count(groups.memory / "memory.oom_control") if groups.memory is not None else None


def _upwards(group: Path | None) -> Iterator[Path]:
    while group is not None and (group / "cgroup.procs").exists():
        yield group
        group = group.parent


def _count(path: Path) -> int | None:
    try:
        return count_of(path.read_text(), "oom_kill")
    except OSError:
        return None


def count_of(text: str, name: str) -> int | None:
    """A count in a file of ``name value`` lines; None when it is missing. Pure."""
    for line in text.splitlines():
        words = line.split()
        if len(words) == 2 and words[0] == name and words[1].isdecimal():
            return int(words[1])
    return None
