"""Children that are no processes: a test plays their part at the other end of a real link."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Sequence
from signal import SIGKILL

from resilient.errors import LinkError
from resilient.wire.link import Link
from resilient.wire.messages import Message
from supervisor.edges.vitals import Vitals

_pids = itertools.count(100_000)


class PlayedWorker:
    """The Worker protocol without a process.

    ``link`` is the supervisor's end, ``other`` the child's, which the test speaks through. ``die`` does what
    the death of a process does: its end of the link goes, ``end_fd`` becomes readable. ``signals`` are those
    it was sent, ``finished`` tells whether the supervisor has let go of it. It is in this ``state`` (S: it
    sleeps, T: it is stopped), with so many ``memory_bytes``.
    """

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.link = Link(ours)
        self.other = Link(theirs)
        self.end_fd, self._alive = os.pipe()
        self.pid = next(_pids)
        self.signals: list[int] = []
        self.finished = False
        self.state = "S"
        self.memory_bytes = 0
        self._code: int | None = None

    # What the supervisor does

    def reap(self) -> int | None:
        return self._code

    def signal(self, number: int) -> None:
        self.signals.append(number)

    def vitals(self) -> Vitals | None:
        return Vitals(self.state, resident_bytes=self.memory_bytes) if self._code is None else None

    def finish(self) -> None:
        assert not self.finished, "its descriptors may be somebody else's by now"
        self.finished = True
        self.link.close()
        os.close(self.end_fd)

    # What the test plays

    def hear(self) -> tuple[Message, list[int]] | None:
        """The next message the child was sent; None when there is none, or the supervisor has let go."""
        try:
            return self.other.poll()
        except LinkError:
            return None

    def say(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        self.other.send(message, descriptors)

    def die(self, code: int = -SIGKILL) -> None:
        if self._code is None:
            self._code = code
            self.other.close()
            os.close(self._alive)
