"""Stacks of all threads on stderr, and so in the attempt's log: when the process faults, and on SIGQUIT.

Python's ``faulthandler`` writes them from a signal handler in C, which needs neither the interpreter's lock
nor its help: also when a loop in C never gives the lock back. After SIGQUIT the process goes on.

MindSpore installs no handler for faults but SIGBUS, once a data pipeline runs (seen with 2.10).
"""

from __future__ import annotations

import contextlib
import faulthandler
import signal

STACKS_SIGNAL = signal.SIGQUIT
_STDERR = 2


def install() -> None:
    """Makes both work. What the interpreter was told, or the script says later, goes before it."""
    # Under PYTHONFAULTHANDLER or -X faulthandler it is on already. No stderr: nowhere to write to.
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        if not faulthandler.is_enabled():
            faulthandler.enable(file=_STDERR, all_threads=True)
        faulthandler.register(STACKS_SIGNAL, file=_STDERR, all_threads=True, chain=False)
