"""Opens /dev/null in place of closed standard streams, so that no other file gets their numbers.

A process started with ``<&- >&- 2>&-`` (as some daemons and cron jobs are) has no 0, 1 and 2. The kernel
gives each new file the lowest free number, so printed text would land in the next opened file.
"""

from __future__ import annotations

import os
import sys

_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def hold() -> None:
    """Opens /dev/null in place of each closed one, for our children too. Call this before anything else."""
    # In this order all lower numbers are open, so the new file gets exactly the closed number.
    for number, (name, mode) in enumerate(_STREAMS):
        try:
            os.fstat(number)
        except OSError:
            descriptor = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(descriptor, True)
            if getattr(sys, name) is None:
                setattr(sys, name, os.fdopen(descriptor, mode, closefd=False))
