"""The pieces that it takes to start a process: we get all of them, or keep none."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from resilient.wire.link import Link
from supervisor.workers.standard_input import Share
from supervisor.workers.worker_output import Pump

_KILLED_S = 5.0
_DRAIN_S = 5.0


@dataclass
class Hand:
    """The pieces of a process that starts, before there is a worker that they belong to."""

    link: Link | None = None
    process: subprocess.Popen[bytes] | None = None
    pumps: Sequence[Pump] = ()
    stdin: Share | None = None


@contextlib.contextmanager
def in_hand() -> Iterator[Hand]:
    """Lets go of everything if not all of it can be had: a process that nobody looks after must not live."""
    hand = Hand()
    try:
        yield hand
    except BaseException:
        if hand.process is not None:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                hand.process.kill()
                hand.process.wait(_KILLED_S)
        for pump in hand.pumps:
            pump.finish(_DRAIN_S)
        if hand.stdin is not None:
            hand.stdin.end()
        if hand.link is not None:
            hand.link.close()
        raise
