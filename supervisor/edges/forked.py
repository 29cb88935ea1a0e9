"""Processes that the supervisor forks of itself: alone, deaf to stops, with no descriptor but their own."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Collection

from resilient.config import SAVE_SIGNAL

_DEAF = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    SAVE_SIGNAL,
)


def fork_alone(serve: Callable[[], None], kept: Collection[int]) -> int:
    """A process that does this and ends: its pid. Of our descriptors it has those ``kept``.

    Only before the supervisor has threads. Raises OSError where there can be none.
    """
    if (pid := os.fork()) != 0:
        return pid
    status = 1
    try:
        _be_alone(kept)
        serve()
        status = 0
    finally:
        # Nothing of what the supervisor does at its end is ours to do.
        os._exit(status)


def _be_alone(kept: Collection[int]) -> None:
    """A stop is for the supervisor; and nobody who reads its output, or a socket of its, waits for us."""
    for number in _DEAF:
        signal.signal(number, signal.SIG_IGN)
    signal.set_wakeup_fd(-1)
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(null, standard)
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor > 2 and descriptor not in kept:
            with contextlib.suppress(OSError):
                os.close(descriptor)
