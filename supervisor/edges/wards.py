"""Whom we have started, and the process that ends them should we be killed: the ``guardian``.

It is forked of the supervisor, and told of each child before the child runs anything of the user's. Each
packet is a whole ``Charge``, sent at once and behind no write to a disk, so what was sent is read whatever
becomes of us. When the link ends without a word, the supervisor was killed.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket

from resilient.host.cgroup import ControlGroup
from resilient.wire.encoding import from_bytes, to_bytes
from supervisor.edges.forked import fork_alone
from supervisor.edges.guardian import Charge, Guardian, known

_SAVE_S = 600.0
"""Beyond the grace, for the commit that a saver has in hand."""

_LOOK_S = 5.0
_SEND_S = 1.0
_MOST_BYTES = 1 << 20
_GOODBYE = b"goodbye"


class Wards:
    """Keeps the guardian informed. Workers have ``grace_s`` to save; with None nobody guards.

    Made before the supervisor has threads: the guardian is forked. Where there can be none, SIGTERM from the
    kernel is all that a killed supervisor leaves its workers. ``leaders`` are all that we have started: each
    leads a session, of which its own children are, too.
    """

    def __init__(self, grace_s: float | None) -> None:
        self._grace_s = grace_s or 0.0
        self._workers: list[int] = []
        self._savers: list[int] = []
        self._group = ""
        self.leaders: set[int] = set()
        self.pid = 0
        if grace_s is None:
            self._link: socket.socket | None = None
            return
        self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # One that was stopped must not hold up a launch.
        self._link.settimeout(_SEND_S)
        with theirs, contextlib.suppress(OSError):
            self.pid = fork_alone(lambda: _serve(theirs), {theirs.fileno()})

    def add(self, pid: int, *, saves: bool = False) -> None:
        """One more process, that works or that saves."""
        (self._savers if saves else self._workers).append(pid)
        self.leaders.add(pid)
        self._tell()

    def enter(self, group: ControlGroup) -> None:
        """The group of the attempt, from now on."""
        if str(group.path) != self._group:
            self._group = str(group.path)
            self._tell()

    def close(self) -> None:
        """The supervisor ends in order: nobody is left to be ended."""
        self._send(_GOODBYE)
        if self._link is not None:
            self._link.close()
        if self.pid:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, 0)

    def _tell(self) -> None:
        # Those that have ended are forgotten.
        workers, savers = known(self._workers), known(self._savers)
        self._workers, self._savers = [pid for pid, _ in workers], [pid for pid, _ in savers]
        charge = Charge(workers, savers, self._group, self._grace_s, self._grace_s + _SAVE_S)
        self._send(to_bytes(charge))

    def _send(self, packet: bytes) -> None:
        # Somebody may have killed it.
        if self._link is not None:
            with contextlib.suppress(OSError):
                self._link.send(packet, socket.MSG_NOSIGNAL)


def _serve(link: socket.socket) -> None:
    """What the guardian's process does."""
    guardian = Guardian()
    waiting = select.poll()
    waiting.register(link, select.POLLIN)
    link.setblocking(True)
    while True:
        while not waiting.poll(_LOOK_S * 1000 if guardian.is_needed else None):
            # Whatever it is: those that are known must be ended all the same.
            with contextlib.suppress(Exception):
                guardian.look()
        packet = link.recv(_MOST_BYTES)
        if packet == _GOODBYE:
            return
        if not packet:
            guardian.end_all()
            return
        with contextlib.suppress(Exception):
            guardian.take(from_bytes(Charge, packet))
