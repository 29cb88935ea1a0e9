"""The link between a supervisor and a worker: one ``SOCK_SEQPACKET`` socket pair.

One JSON message per packet, with its ``type``; file descriptors travel beside it (``SCM_RIGHTS``). A packet
is whole or absent, so two threads may send at once, and a process killed in the middle of a send leaves no
half message behind. When the other side is gone, sending raises LinkError instead of a signal.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import select
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from resilient.errors import LinkError

LIMIT_BYTES = 64 * 1024
LIMIT_DESCRIPTORS = 4
_DESCRIPTOR_BYTES = array.array("i").itemsize


class Link:
    """One end of a link. A single thread receives; any thread may send."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

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

    def send(self, message: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Sends one message. Raises LinkError when it is too large or the other side is gone."""
        data = json.dumps(message).encode()
        if len(data) > LIMIT_BYTES:
            raise LinkError(f"a {message.get('type')} message of {len(data)} bytes is too large for the link")
        try:
            # A send through send_fds is the same call without any descriptors.
            socket.send_fds(self._socket, [data], list(descriptors), socket.MSG_NOSIGNAL)
        except OSError as error:
            raise LinkError(f"the other side of the link is gone: {error}") from error

    def receive(self) -> tuple[dict[str, Any], list[int]]:
        """Waits for one message and its descriptors. Raises LinkError at the end, and for nonsense."""
        try:
            data, beside, flags = self._receive()
        except OSError as error:
            raise LinkError(f"the link broke: {error}") from error
        descriptors = _descriptors(beside)
        try:
            return _parse(data, flags), descriptors
        except LinkError:
            for descriptor in descriptors:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
            raise

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

    def poll(self) -> tuple[dict[str, Any], list[int]] | None:
        """A message that is there already; None when there is none. Raises as :meth:`receive` does."""
        return self.receive() if self._is_readable(0.0) else None

    def wait(self, kind: str, timeout_s: float) -> bool:
        """Waits for a message of this type, and drops it; False when it did not come in time.

        Others that come before it are dropped as well. Raises as :meth:`receive` does.
        """
        end_s = time.monotonic() + timeout_s
        while self._is_readable(max(0.0, end_s - time.monotonic())):
            if self.receive()[0]["type"] == kind:
                return True
        return False

    def _is_readable(self, timeout_s: float) -> bool:
        # Not select.select: it takes no descriptor above 1023, and who started us may have left many open.
        waiting = select.poll()
        waiting.register(self._socket, select.POLLIN)
        return bool(waiting.poll(timeout_s * 1000))

    def finish(self) -> None:
        """Says nothing more: the other side hears the end of the link, and can still be heard."""
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._socket.close()


def _descriptors(beside: Sequence[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, content in beside:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(content[: len(content) - len(content) % _DESCRIPTOR_BYTES])
    return list(found)


def _parse(data: bytes, flags: int) -> dict[str, Any]:
    if not data:
        raise LinkError("the other side of the link is gone")
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        raise LinkError("a message on the link was cut off")
    try:
        message = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise LinkError(f"a message on the link is no JSON: {error}") from error
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise LinkError("a message on the link has no type")
    return message
