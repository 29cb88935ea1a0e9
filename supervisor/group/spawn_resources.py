"""The pieces that it takes to start a process: we get all of them, or keep none."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from resilient.wire.link import Link
from supervisor.group.standard_input import Share
from supervisor.group.worker_output import OutputPump

_KILLED_S = 5.0
_DRAIN_S = 5.0


@dataclass
class SpawnResources:
    """The pieces of a process that starts, before there is a worker that they belong to."""

    link: Link | None = None
    process: subprocess.Popen[bytes] | None = None
    pumps: Sequence[OutputPump] = ()
    stdin: Share | None = None


@contextlib.contextmanager
def in_hand() -> Iterator[SpawnResources]:
    """Lets go of everything if not all of it can be had: a process that nobody looks after must not live."""
    resources = SpawnResources()
    try:
        yield resources
    except BaseException:
        if resources.process is not None:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                resources.process.kill()
                resources.process.wait(_KILLED_S)
        for pump in resources.pumps:
            pump.finish(_DRAIN_S)
        if resources.stdin is not None:
            resources.stdin.end()
        if resources.link is not None:
            resources.link.close()
        raise
