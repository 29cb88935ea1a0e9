"""Finds the death of a process in the kernel's log: killed for memory, or a fault of its own.

Source: the kernel's ABI/testing/dev-kmsg, mm/oom_kill.c, and arch/*/mm/fault.c for the words. Reading needs
root, or a kernel without dmesg_restrict. The log uses the pids of the initial pid namespace. In a container
our pids differ, and we would mistake another process's line for ours, so we do not read the log there.
A fault names the thread that caused it.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from resilient.host.terminal import printable

_KMSG = Path("/dev/kmsg")
_NAMESPACE = Path("/proc/self/ns/pid")
_INITIAL_NAMESPACE = 0xEFFFFFFC  # PROC_PID_INIT_INO of include/linux/proc_ns.h
_RECORD_BYTES = 16 * 1024
_MOST_RECORDS = 100_000

_OOM = re.compile(r"[Oo]ut of memory.*: Killed process (?P<pid>[0-9]+) \(")
_FAULTS = (
    re.compile(r"\[(?P<pid>[0-9]+)\]: segfault at "),
    re.compile(r"traps: .*\[(?P<pid>[0-9]+)\] (?:general protection|trap )"),
    re.compile(r"\[(?P<pid>[0-9]+)\]: (?:general protection|bus error|unhandled )"),
)


class Bookmark:
    """A place in the log: only later records are read.

    It compares no times: nothing adjusts the log's clock, and after months of uptime it differs from every
    other clock by more than an attempt may last.
    """

    def __init__(self) -> None:
        self._descriptor = -1
        if readable():
            with contextlib.suppress(OSError):
                self._descriptor = _open()
        self.move()

    def move(self) -> None:
        """Skips all present records."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.lseek(self._descriptor, 0, os.SEEK_END)

    def kernel_says(self, pids: int | Collection[int]) -> str:
        """The kernel's last record on these processes (or threads) since the bookmark, which moves to now.

        "" for none, and when the log cannot be read. A kill for memory takes precedence over a fault.
        """
        wanted = {pids} if isinstance(pids, int) else set(pids)
        return last_word(self._records(), wanted)

    def _records(self) -> Iterator[bytes]:
        """Reads one record at a time, up to a limit: new records must not keep us reading forever."""
        if self._descriptor < 0:
            return
        try:
            for _ in range(_MOST_RECORDS):
                # EPIPE: the kernel overwrote records before we read them; the next read continues after them.
                with contextlib.suppress(BrokenPipeError):
                    yield os.read(self._descriptor, _RECORD_BYTES)
        except OSError:
            # BlockingIOError means the end of the log.
            return

    def close(self) -> None:
        """Closes the log."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def last_word(records: Iterable[bytes], pids: Collection[int]) -> str:
    """The last record about the death of one of these processes; "" for none. Pure."""
    killed = fault = ""
    for text in filter(None, map(_parsed, records)):
        if _names(_OOM, text, pids):
            killed = text
        elif any(_names(pattern, text, pids) for pattern in _FAULTS):
            fault = text
    return killed or fault


def readable() -> bool:
    """Whether the log can be read and uses our pids."""
    try:
        ours = os.stat(_NAMESPACE).st_ino == _INITIAL_NAMESPACE
        os.close(_open())
    except OSError:
        return False
    return ours


def _parsed(record: bytes) -> str:
    """The printable text of a record, because a process chooses its own name; "" for anything else."""
    head, semicolon, text = record.partition(b";")
    if not semicolon or len(head.split(b",")) < 3:
        return ""
    line = text.split(b"\n", 1)[0].decode("utf-8", "replace")
    return printable(line)


def _names(pattern: re.Pattern[str], text: str, pids: Collection[int]) -> bool:
    match = pattern.search(text)
    return match is not None and int(match["pid"]) in pids


def _open() -> int:
    return os.open(_KMSG, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
