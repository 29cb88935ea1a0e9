"""Stacks of all threads on stderr, and so in the attempt's log: when the process faults, and on SIGQUIT.

Python's ``faulthandler`` writes them from a signal handler in C, which needs neither the interpreter's lock
nor its help: also when a loop in C never gives the lock back. After SIGQUIT the process goes on.

MindSpore installs no handler for faults but SIGBUS, once a data pipeline runs (seen with 2.10).
"""

from __future__ import annotations

import contextlib
import faulthandler
import re
import signal

STACKS_SIGNAL = signal.SIGQUIT
_STDERR = 2

_THREAD = r"(?:Current thread|Thread) 0x[0-9a-f]+.*\(most recent call first\):"
_BEGINNING = re.compile(rf"^(?:Fatal Python error: .*\n\n?)?{_THREAD}(?:\n|\Z)", re.MULTILINE)
# A frame, an ellipsis after the hundredth, a thread without frames, or the empty line between two threads.
_MORE = re.compile(rf"(?:{_THREAD}|  File \".*|  \.\.\.|  <.*>|)(?:\n|\Z)")


def install() -> None:
    """Makes both work. What the interpreter was told, or the script says later, goes before it."""
    # Under PYTHONFAULTHANDLER or -X faulthandler it is on already. No stderr: nowhere to write to.
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        if not faulthandler.is_enabled():
            faulthandler.enable(file=_STDERR, all_threads=True)
        faulthandler.register(STACKS_SIGNAL, file=_STDERR, all_threads=True, chain=False)


def newest_in(log: str) -> str:
    """The stacks that were written last into a log; empty where there are none.

    ``faulthandler`` marks neither beginning nor end, but every thread begins with a line of its own
    ("Current thread 0x... (most recent call first):"), a fault's with "Fatal Python error" before it.
    """
    newest, end = "", -1
    for found in _BEGINNING.finditer(log):
        if found.start() < end:
            continue
        end = found.end()
        while end < len(log) and (more := _MORE.match(log, end)) is not None:
            end = more.end()
        newest = log[found.start() : end].rstrip("\n")
    return newest
