"""Whether another attempt can be launched now, or what is in its way: looked at thinly, judged purely.

An attempt that starts without room for one checkpoint, without memory, or beside a process of the attempt
before that still holds the device, fails as well, and takes a restart from the budget. So the supervisor
looks first, and waits, with a reason, where waiting may help.

A disk that is dead does not answer at all. Hence a thread asks it, and nobody waits long for that. Where
no thread can be had, it is asked directly: whether there is one is no word about the disk.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from resilient.host.memory import available_bytes
from resilient.sizes import size
from supervisor.edges.question import Question
from supervisor.edges.writer_process import try_to_make

_CHECKPOINT_MARGIN = 0.1
_MOST_MARGIN_BYTES = 4 * 1024**2
_LEAST_MARGIN_BYTES = 128 * 1024
"""For the log, the journal and the manifest: as much as the checkpoint once more, between these two."""

_LEAST_INODES = 16
_MEMORY_SHARE = 0.8
"""A peak has pages in it that the kernel can take back: an attempt may do with less."""

_PATIENCE_S = 2.0


class ObstacleKind(enum.Enum):
    """The kinds of obstacles."""

    GONE = "directory gone"
    REPLACED = "directory replaced"
    READ_ONLY = "not writable"
    SILENT = "disk does not answer"
    DISK = "disk full"
    INODES = "no inodes"
    ALIVE = "processes alive"
    MEMORY = "memory"
    SAVING = "nothing can be saved"


@dataclass(frozen=True)
class Need:
    """The needs of an attempt. 0 where that is not known: then only the margin is asked for.

    ``checkpoint_bytes`` is the size of the last committed checkpoint, ``memory_bytes`` the most resident
    memory that the last attempt had, without what it shares with us (the mirror stays).
    """

    checkpoint_bytes: int = 0
    memory_bytes: int = 0


@dataclass(frozen=True)
class DiskSpace:
    """The place of the checkpoints. None where that cannot be told.

    ``trouble`` is what came of an attempt to make a file there: an errno, 0 for none.
    """

    free_bytes: int | None = None
    free_inodes: int | None = None
    trouble: int = 0


@dataclass(frozen=True)
class ReadinessFacts:
    """The machine as it was seen. ``disk`` is None when it does not answer; ``alive`` are processes of
    earlier attempts.

    ``root`` tells whether the run directory is the one that the supervisor has locked: True, False for
    another one, None for none at all.
    """

    root: bool | None
    disk: DiskSpace | None
    alive: tuple[str, ...] = ()
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Obstacle:
    """Why an attempt is not launched now.

    ``may_pass`` tells whether waiting may help. ``fatal`` tells what to do when it did not: True, give up;
    False, launch all the same, because what was measured is a guess.
    """

    kind: ObstacleKind
    reason: str
    may_pass: bool = True
    fatal: bool = True


def judge(facts: ReadinessFacts, need: Need) -> Obstacle | None:
    """The first thing that is in the way of an attempt; None for nothing."""
    return _directory(facts) or _disk(facts.disk, need) or _processes(facts.alive) or _memory(facts, need)


def _directory(facts: ReadinessFacts) -> Obstacle | None:
    if facts.disk is None:
        return Obstacle(ObstacleKind.SILENT, "the disk of the run directory does not answer")
    if facts.root is None:
        # An automounter, or a network file system, may bring it back.
        return Obstacle(ObstacleKind.GONE, "the run directory is gone: it was removed, moved or unmounted")
    if not facts.root:
        reason = "the run directory is another one than this supervisor has locked: it was exchanged"
        return Obstacle(ObstacleKind.REPLACED, reason, may_pass=False)
    return None


def _disk(disk: DiskSpace | None, need: Need) -> Obstacle | None:
    assert disk is not None
    if disk.trouble:
        full = disk.trouble in (errno.ENOSPC, errno.EDQUOT)
        why = os.strerror(disk.trouble)
        return Obstacle(
            ObstacleKind.DISK if full else ObstacleKind.READ_ONLY,
            f"no file can be made for a checkpoint: {why}",
        )
    margin = min(_MOST_MARGIN_BYTES, max(_LEAST_MARGIN_BYTES, need.checkpoint_bytes))
    wanted = round(need.checkpoint_bytes * (1 + _CHECKPOINT_MARGIN)) + margin
    if disk.free_bytes is not None and disk.free_bytes < wanted:
        reason = f"a checkpoint needs {size(wanted)} of disk, and {size(disk.free_bytes)} are free"
        return Obstacle(ObstacleKind.DISK, reason)
    if disk.free_inodes is not None and disk.free_inodes < _LEAST_INODES:
        return Obstacle(ObstacleKind.INODES, "the file system has no room for more files (inodes)")
    return None


def _processes(alive: tuple[str, ...]) -> Obstacle | None:
    if not alive:
        return None
    held = ", ".join(alive[:5]) + (f" and {len(alive) - 5} more" if len(alive) > 5 else "")
    return Obstacle(
        ObstacleKind.ALIVE, f"of the attempt before, {held} would not die: it may hold the device"
    )


def _memory(facts: ReadinessFacts, need: Need) -> Obstacle | None:
    wanted = round(need.memory_bytes * _MEMORY_SHARE)
    if facts.memory_bytes is None or facts.memory_bytes >= wanted:
        return None
    had, left = size(need.memory_bytes), size(facts.memory_bytes)
    reason = f"the attempt before took {had} of memory, and {left} are available"
    return Obstacle(ObstacleKind.MEMORY, reason, fatal=False)


# Looking


Probe = Callable[[Path], int]
"""The errno of making a file in a directory, 0 for none. It may never answer."""


class ReadinessCheck:
    """Looks at what an attempt needs. Made while the run's lock is held: that file tells the directory."""

    def __init__(self, root: Path, probe: Probe = try_to_make) -> None:
        self._root = root
        self._probe = probe
        self._lock = _identity(root / "lock")
        self._asked: Question[tuple[bool | None, DiskSpace]] | None = None

    def look(self, places: Sequence[Path] = (), pids: Iterable[int] = ()) -> ReadinessFacts:
        """Looks at the machine. Waits two seconds at most for a disk, and not again while it is silent.

        ``places`` are the directories of checkpoints, where they lie outside of the run's own; ``pids`` are
        the processes of the attempts before.
        """
        if self._asked is None:
            asked = partial(_ask, self._root, self._lock, [self._root, *places], self._probe)
            self._asked = Question(asked)
            self._asked.wait(_PATIENCE_S)
            if self._asked.lost:
                # That says nothing about the disk, and may stay so: a limit on the processes of a user.
                self._asked = None
                return ReadinessFacts(*asked(), tuple(_alive(pids)), available_bytes())
        root, disk = self._asked.answer if self._asked.is_answered else (None, None)
        if self._asked.is_answered:
            self._asked = None
        return ReadinessFacts(root, disk, tuple(_alive(pids)), available_bytes())


def _ask(
    root: Path, lock: tuple[int, int] | None, places: Sequence[Path], probe: Probe
) -> tuple[bool | None, DiskSpace]:
    found = _identity(root / "lock")
    disks = (_look_at(place, probe) for place in places)
    # Of several places the worst one counts.
    worst = min(disks, key=lambda disk: (not disk.trouble, disk.free_bytes or 0))
    return None if found is None else found == lock, worst


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _look_at(place: Path, probe: Probe) -> DiskSpace:
    # A place that a script names is made by the first save: what is above it decides.
    while not os.path.isdir(place) and place != place.parent:
        place = place.parent
    try:
        status = os.statvfs(place)
    except OSError as error:
        return DiskSpace(trouble=error.errno or errno.EIO)
    # Some file systems do not count inodes.
    inodes = status.f_favail if status.f_files else None
    return DiskSpace(status.f_bavail * status.f_frsize, inodes, probe(place))


def _alive(pids: Iterable[int]) -> Iterable[str]:
    for pid in pids:
        with contextlib.suppress(psutil.Error, OSError):
            process = psutil.Process(pid)
            # A zombie holds nothing any more.
            if process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
                yield f"process {pid} ({''.join(c for c in process.name() if c.isprintable())})"
