"""The link between a supervisor and a worker: one ``SOCK_SEQPACKET`` socket pair.

One message of the vocabulary (``wire/messages.py``) per packet; file descriptors travel beside it
(``SCM_RIGHTS``). It is encoded and decoded here: everybody else has values. A message that is too large for a
packet goes in several (``parts``), its descriptors with the last one. A packet is whole or absent, and each
part names its message: two threads may send at once, and a process killed in the middle of a send leaves
nothing that could be taken for a message.

What goes wrong is one of four errors, since it leads to four decisions:

    LinkError       the other side is gone: do without it
    NonsenseError   one message made no sense: leave it out, and go on listening
    TooLargeError   this message is too large for any link, and not because of its texts, which are cut
    StalledError    the other side lives and does not read: try later
"""

from __future__ import annotations

import array
import contextlib
import os
import select
import socket
import time
from collections.abc import Sequence

from resilient.errors import LinkError, NonsenseError, StalledError
from resilient.host.descriptors import identity
from resilient.wire import parts
from resilient.wire.messages import Message
from resilient.wire.packing import decode, encode

LIMIT_BYTES = 64 * 1024
"""The size of a packet."""

LIMIT_DESCRIPTORS = 4

_DESCRIPTOR_BYTES = array.array("i").itemsize


class Link:
    """One end of a link. A single thread receives; any thread may send."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._unfinished = parts.UnfinishedMessages()
        self._identity = identity(end.fileno())

    @classmethod
    def from_fd(cls, descriptor: int) -> Link:
        """The end that was inherited under this descriptor; children of ours do not inherit it."""
        try:
            end = socket.socket(fileno=descriptor)
            end.set_inheritable(False)
        except OSError as error:
            raise LinkError(f"descriptor {descriptor} is no link: {error}") from error
        return cls(end)

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(
        self,
        message: Message,
        descriptors: Sequence[int] = (),
        patience_s: float | None = None,
        limit_bytes: int = parts.MOST_BYTES,
    ) -> None:
        """Sends one message; its texts are cut, with a mark, where it has more than ``limit_bytes``.

        Raises TooLargeError; LinkError when the other side is gone; StalledError when that has read nothing
        for ``patience_s`` (by default this waits for ever). The receiver drops the parts of a message that
        was given up so.
        """
        self._demand_ours()
        end_s = None if patience_s is None else time.monotonic() + patience_s
        *first, last = parts.split(encode(message, limit_bytes), LIMIT_BYTES)
        for part in first:
            self._send(part, (), end_s)
        self._send(last, descriptors, end_s)

    def _send(self, packet: bytes, descriptors: Sequence[int], end_s: float | None) -> None:
        beside = (
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        )
        while True:
            try:
                # Not socket.send_fds: it drops the flags, and SIGPIPE would end us before we could save.
                self._socket.sendmsg([packet], beside, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
                return
            except BlockingIOError:
                left_s = None if end_s is None else max(0.0, end_s - time.monotonic())
                if not self._is_ready(select.POLLOUT, left_s) and end_s is not None:
                    raise StalledError("the other side of the link does not read") from None
            except OSError as error:
                raise LinkError(f"the other side of the link is gone: {error}") from error

    def receive(self) -> tuple[Message, list[int]]:
        """Waits for one message and its descriptors. Raises LinkError at the end, and NonsenseError."""
        while True:
            if (received := self._take()) is not None:
                return received

    def _take(self) -> tuple[Message, list[int]] | None:
        """Waits for a packet: a message, or None for a part of one that is not complete yet."""
        self._demand_ours()
        try:
            data, beside, flags = self._receive()
        except OSError as error:
            raise LinkError(f"the link broke: {error}") from error
        descriptors = _descriptors(beside)
        message = None
        try:
            message = self._assemble(data, flags)
        finally:
            if message is None:
                for descriptor in descriptors:
                    with contextlib.suppress(OSError):
                        os.close(descriptor)
        return None if message is None else (message, descriptors)

    def _assemble(self, data: bytes, flags: int) -> Message | None:
        if not data:
            raise LinkError("the other side of the link is gone")
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise NonsenseError("a message on the link was cut off")
        whole = self._unfinished.add(data) if parts.is_part(data) else data
        return None if whole is None else decode(whole)

    def _receive(self) -> tuple[bytes, Sequence[tuple[int, int, bytes]], int]:
        space_bytes = socket.CMSG_SPACE(LIMIT_DESCRIPTORS * _DESCRIPTOR_BYTES)
        # Not socket.recv_fds: it drops the flags, and a child started meanwhile would inherit.
        limits = LIMIT_BYTES + 1, space_bytes, socket.MSG_CMSG_CLOEXEC
        try:
            data, beside, flags, _ = self._socket.recvmsg(*limits)
        except ConnectionResetError:
            # It ended without having read all we sent. The kernel says so once, and before what it had said.
            data, beside, flags, _ = self._socket.recvmsg(*limits)
        return data, beside, flags

    def poll(self, timeout_s: float = 0.0) -> tuple[Message, list[int]] | None:
        """A message that is there, or comes in time; None for none. Raises as :meth:`receive` does."""
        while self._is_ready(select.POLLIN, timeout_s):
            if (received := self._take()) is not None:
                return received
        return None

    def wait(self, kind: type[Message], timeout_s: float) -> bool:
        """Waits for a message of this class, and drops it; False when it did not come in time.

        Others that come before it are dropped as well. Raises as :meth:`receive` does.
        """
        end_s = time.monotonic() + timeout_s
        while self._is_ready(select.POLLIN, max(0.0, end_s - time.monotonic())):
            received = self._take()
            if received is not None and isinstance(received[0], kind):
                return True
        return False

    def _is_ready(self, events: int, timeout_s: float | None) -> bool:
        self._demand_ours()
        # Not select.select: it takes no descriptor above 1023, and who started us may have left many open.
        waiting = select.poll()
        waiting.register(self._socket, events)
        return bool(waiting.poll(None if timeout_s is None else timeout_s * 1000))

    def finish(self) -> None:
        """Says nothing more: the other side hears the end of the link, and can still be heard."""
        self._socket.shutdown(socket.SHUT_WR)

    def is_over(self, within_s: float = 0.0) -> bool:
        """Whether the other side is gone, or goes in that time; what it has said last may still be there."""
        # Asked for nothing, the kernel tells of the end alone.
        return self._is_ready(0, within_s)

    def _demand_ours(self) -> None:
        """Raises LinkError when somebody has closed the descriptor: the number may be another file's now."""
        number = self._socket.fileno()
        if number < 0 or identity(number) != self._identity:
            # Without closing it: that would be the other file.
            self._socket.detach()
            raise LinkError("the link was closed by somebody else in this process")

    def close(self) -> None:
        self._socket.close()


def _descriptors(beside: Sequence[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, content in beside:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(content[: len(content) - len(content) % _DESCRIPTOR_BYTES])
    return list(found)
