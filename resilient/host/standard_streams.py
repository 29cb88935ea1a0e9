"""Standard streams that are closed: what is opened next would take their numbers.

Whoever is started with ``<&- >&- 2>&-`` (some daemons and cron jobs are) has no 0, 1 and 2. The kernel gives
the lowest number that is free, so the next file opened is one of these, and what is printed lands in it.
"""

from __future__ import annotations

import os
import sys

_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def hold() -> None:
    """Has /dev/null in the place of each that is closed, for our children too. To be called first of all."""
    # In this order: all lower ones are open, so the one that is opened is the one that was closed.
    for number, (name, mode) in enumerate(_STREAMS):
        try:
            os.fstat(number)
        except OSError:
            descriptor = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(descriptor, True)
            if getattr(sys, name) is None:
                setattr(sys, name, os.fdopen(descriptor, mode, closefd=False))
