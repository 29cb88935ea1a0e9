"""A message that is larger than a packet: how it is split, and put together again.

    part     0 (no JSON begins so) u8 | token of the message, 8 bytes | index u32 | count u32 | bytes

The parts of one message come in order, those of several may be mixed: the token tells them apart. A sender
that was killed, or gave up, leaves a message unfinished: the oldest ones are dropped before they take too
much memory, whatever their parts claim.
"""

from __future__ import annotations

import os
import struct

from resilient.errors import NonsenseError, TooLargeError

MOST_BYTES = 16 * 1024 * 1024
"""Of one message. Several threads may be sending at once; of all that are unfinished more may be kept."""

_MOST_UNFINISHED_BYTES = 4 * MOST_BYTES
_HEAD = struct.Struct(">B8sII")
_MARK = 0


def split(data: bytes, packet_bytes: int) -> list[bytes]:
    """A message as the packets that carry it: itself, where it fits into one. Raises TooLargeError."""
    if len(data) <= packet_bytes:
        return [data]
    if len(data) > MOST_BYTES:
        raise TooLargeError(f"a message of {len(data)} bytes is too large for the link")
    room = packet_bytes - _HEAD.size
    pieces = [data[start : start + room] for start in range(0, len(data), room)]
    # A forked child has the same link, and would count as its parent does.
    token = os.urandom(8)
    heads = (_HEAD.pack(_MARK, token, index, len(pieces)) for index in range(len(pieces)))
    return [head + piece for head, piece in zip(heads, pieces, strict=True)]


def is_part(packet: bytes) -> bool:
    """Whether a packet carries a part of a message, instead of a whole one."""
    return packet[:1] == bytes([_MARK])


class UnfinishedMessages:
    """Messages of which not every part has come yet, the oldest first."""

    def __init__(self) -> None:
        self._pieces: dict[bytes, list[bytes]] = {}
        self._size_bytes = 0

    def add(self, packet: bytes) -> bytes | None:
        """Takes a part: the whole message, when this was its last one. Raises NonsenseError."""
        if len(packet) <= _HEAD.size:
            raise NonsenseError("a part of a message is cut off")
        _, token, index, count = _HEAD.unpack_from(packet)
        piece = packet[_HEAD.size :]
        if not index < count:
            raise NonsenseError("a part of a message makes no sense")
        if index != len(self._pieces.get(token, ())):
            # The rest of one whose beginning was dropped.
            self._drop(token)
            return None
        self._pieces.setdefault(token, []).append(piece)
        self._size_bytes += len(piece)
        if index == count - 1:
            return b"".join(self._drop(token))
        while self._size_bytes > _MOST_UNFINISHED_BYTES:
            self._drop(next(iter(self._pieces)))
        return None

    def _drop(self, token: bytes) -> list[bytes]:
        pieces = self._pieces.pop(token, [])
        self._size_bytes -= sum(map(len, pieces))
        return pieces
