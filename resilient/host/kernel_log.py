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

_KMSG = Path("/dev/kmsg")
_NAMESPACE = Path("/proc/self/ns/pid")
_INITIAL_NAMESPACE = 0xEFFFFFFC  # PROC_PID_INIT_INO of include/linux/proc_ns.h
_RECORD_BYTES = 16 * 1024
_MOST_RECORDS = 100_000
_CLOCKS_APART_S = 1.0
"""The log's clock is not disciplined as the monotonic one is."""

_OOM = re.compile(r"[Oo]ut of memory.*: Killed process (?P<pid>[0-9]+) \(")
_FAULTS = (
    re.compile(r"\[(?P<pid>[0-9]+)\]: segfault at "),
    re.compile(r"traps: .*\[(?P<pid>[0-9]+)\] (?:general protection|trap )"),
    re.compile(r"\[(?P<pid>[0-9]+)\]: (?:general protection|bus error|unhandled )"),
)


def kernel_says(pids: int | Collection[int], since_s: float) -> str:
    """The kernel's last word on these processes (or threads) since a reading of the monotonic clock.

    "" for none, and where the log cannot be read. A kill for memory goes before a fault.
    """
    wanted = {pids} if isinstance(pids, int) else set(pids)
    return last_word(_records(), wanted, since_s)


def last_word(records: Iterable[bytes], pids: Collection[int], since_s: float) -> str:
    """The last of the records that tells of the death of one of these processes. Pure."""
    killed = fault = ""
    for at_s, text in filter(None, map(_parsed, records)):
        if at_s < since_s - _CLOCKS_APART_S:
            continue
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


def _parsed(record: bytes) -> tuple[float, str] | None:
    """The time in seconds, and the text without what a terminal would obey: a process names itself."""
    head, semicolon, text = record.partition(b";")
    fields = head.split(b",")
    if not semicolon or len(fields) < 3 or not fields[2].isdigit():
        return None
    line = text.split(b"\n", 1)[0].decode("utf-8", "replace")
    return int(fields[2][:18]) / 1e6, "".join(c if c.isprintable() else "?" for c in line)


def _names(pattern: re.Pattern[str], text: str, pids: Collection[int]) -> bool:
    match = pattern.search(text)
    return match is not None and int(match["pid"]) in pids


def _open() -> int:
    return os.open(_KMSG, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def _records() -> Iterator[bytes]:
    """One record a read; what is written meanwhile does not keep us reading for ever."""
    if not readable():
        return
    descriptor = _open()
    try:
        for _ in range(_MOST_RECORDS):
            # EPIPE: the oldest records were overwritten while we read; the next read goes on after them.
            with contextlib.suppress(BrokenPipeError):
                yield os.read(descriptor, _RECORD_BYTES)
    except OSError:
        # BlockingIOError is the end.
        return
    finally:
        os.close(descriptor)
