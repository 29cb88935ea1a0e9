"""What the kernel tells of one worker and its descendants: read from /proc, no judgment in it.

Processes and threads come and go while they are read; what has gone counts nothing. Fields are those of
proc(5): ``stat`` for the state, CPU time and memory, ``status`` for the tracer, ``io`` where it may be read,
and ``task/TID/schedstat``, whose second number is how long a thread was ready to run and had no CPU.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_PROC = Path("/proc")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# Of ``stat``, counted from behind the command's name, which may hold anything.
_STATE, _PARENT, _TIMES, _RESIDENT = 0, 1, slice(11, 15), 21


@dataclass(frozen=True)
class Vitals:
    """One worker at one instant.

    ``state`` is its letter in ``ps`` (R, S, D, T, ...), ``traced`` whether a debugger holds it, ``waited_s``
    for each of its threads how long it has waited for a CPU since it began. Of the worker and all its
    descendants together: ``cpu_s`` of CPU time, those that have ended included, ``io_bytes`` read and
    written, ``resident_bytes``, in which shared pages count for each (``footprint`` knows better), and
    ``members``, who they are.
    """

    state: str
    traced: bool = False
    waited_s: Mapping[int, float] = field(default_factory=dict)
    cpu_s: float = 0.0
    io_bytes: int = 0
    resident_bytes: int = 0
    members: tuple[int, ...] = ()


def read(pid: int) -> Vitals | None:
    """The vitals of a worker; None when it has ended, also where nobody has collected it yet."""
    stats = {pid: _stat(pid)}
    own = stats[pid]
    if own is None or own[_STATE] in "ZX":
        return None
    stats.update((child, _stat(child)) for child in _descendants(pid))
    alive = {member: stat for member, stat in stats.items() if stat is not None}
    return Vitals(
        state=own[_STATE],
        traced=_is_traced(pid),
        waited_s=_waits(pid),
        cpu_s=sum(sum(map(int, stat[_TIMES])) for stat in alive.values()) / _TICKS_PER_S,
        io_bytes=sum(map(_io_bytes, alive)),
        resident_bytes=sum(int(stat[_RESIDENT]) for stat in alive.values()) * _PAGE_BYTES,
        members=tuple(alive),
    )


def _text(*parts: str) -> str:
    """A file of /proc; empty where it, or what it tells of, is not there, or not to be read by us."""
    with contextlib.suppress(OSError):
        return _PROC.joinpath(*parts).read_text(errors="replace")
    return ""


def _stat(pid: int) -> list[str] | None:
    fields = _text(str(pid), "stat").rpartition(")")[2].split()
    return fields if len(fields) > _RESIDENT else None


def _threads(pid: int) -> list[str]:
    with contextlib.suppress(OSError):
        return os.listdir(_PROC / str(pid) / "task")
    return []


def _descendants(pid: int) -> Iterator[int]:
    known = [] if _knows_children() else _parents()
    waiting, seen = [pid], {pid}
    while waiting:
        member = waiting.pop()
        children = [child for child, parent in known if parent == member] if known else _children(member)
        for child in children:
            if child not in seen:
                seen.add(child)
                waiting.append(child)
                yield child


def _knows_children() -> bool:
    """Whether the kernel lists each thread's children; it may be built without."""
    return (_PROC / "self" / "task" / str(os.getpid()) / "children").exists()


def _children(pid: int) -> list[int]:
    lists = (_text(str(pid), "task", thread, "children") for thread in _threads(pid))
    return [int(child) for text in lists for child in text.split()]


def _parents() -> list[tuple[int, int]]:
    """Every process of the machine with its parent."""
    stats = ((int(name), _stat(int(name))) for name in os.listdir(_PROC) if name.isdigit())
    return [(pid, int(stat[_PARENT])) for pid, stat in stats if stat is not None]


def _is_traced(pid: int) -> bool:
    for line in _text(str(pid), "status").splitlines():
        if line.startswith("TracerPid:"):
            return line.split()[1] != "0"
    return False


def _waits(pid: int) -> dict[int, float]:
    waits = {}
    for thread in _threads(pid):
        numbers = _text(str(pid), "task", thread, "schedstat").split()
        if len(numbers) > 1:
            waits[int(thread)] = int(numbers[1]) / 1e9
    return waits


def _io_bytes(pid: int) -> int:
    """What it has read and written, by calls or from and to disks (mapped files), some of it twice."""
    counted = ("rchar:", "wchar:", "read_bytes:", "write_bytes:")
    lines = (line.split() for line in _text(str(pid), "io").splitlines())
    return sum(int(words[1]) for words in lines if words[0] in counted)
