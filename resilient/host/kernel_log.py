"""What the kernel's log says of the death of a process: killed for memory, or a fault of its own.

Source: the kernel's ABI/testing/dev-kmsg, mm/oom_kill.c, and arch/*/mm/fault.c for the words. Reading needs
root, or a kernel without dmesg_restrict. The log counts processes as the initial pid namespace does: in a
container our numbers are others, and somebody else's line would be taken for ours, so nothing is read there.
A fault names the thread that had it.
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
    """A place in the log: only the records behind it are read.

    No clock is compared: the log's own is not disciplined, and after months of uptime it differs from every
    other by more than an attempt may last.
    """

    def __init__(self) -> None:
        self._descriptor = -1
        if readable():
            with contextlib.suppress(OSError):
                self._descriptor = _open()
        self.move()

    def move(self) -> None:
        """Passes over all that is there."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.lseek(self._descriptor, 0, os.SEEK_END)

    def kernel_says(self, pids: int | Collection[int]) -> str:
        """The kernel's last word on these processes (or threads) since then; the next time, since now.

        "" for none, and where the log cannot be read. A kill for memory goes before a fault.
        """
        wanted = {pids} if isinstance(pids, int) else set(pids)
        return last_word(self._records(), wanted)

    def _records(self) -> Iterator[bytes]:
        """One record a read; what is written meanwhile does not keep us reading for ever."""
        if self._descriptor < 0:
            return
        try:
            for _ in range(_MOST_RECORDS):
                # EPIPE: records were overwritten before we read them; the next read goes on after them.
                with contextlib.suppress(BrokenPipeError):
                    yield os.read(self._descriptor, _RECORD_BYTES)
        except OSError:
            # BlockingIOError is the end.
            return

    def close(self) -> None:
        """Lets go of the log."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def last_word(records: Iterable[bytes], pids: Collection[int]) -> str:
    """The last of the records that tells of the death of one of these processes. Pure."""
    killed = fault = ""
    for text in filter(None, map(_parsed, records)):
        if _names(_OOM, text, pids):
            killed = text
        elif any(_names(pattern, text, pids) for pattern in _FAULTS):
            fault = text
    return killed or fault


def readable() -> bool:
    """Whether the log can be read, and speaks of processes by our numbers."""
    try:
        ours = os.stat(_NAMESPACE).st_ino == _INITIAL_NAMESPACE
        os.close(_open())
    except OSError:
        return False
    return ours


def _parsed(record: bytes) -> str:
    """The text, without what a terminal would obey: a process names itself. "" for what is no record."""
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
