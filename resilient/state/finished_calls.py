"""What the finished training calls of a run have left in their callbacks, for attempts that pass by them.

A log that only grows: one line of JSON for each finished call, ``{"call": 3, "callbacks": ..., "things":
...}`` (see ``side_state``). It travels as a blob of the state, so that a step costs the same after a hundred
calls as after one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

MOST_BYTES = 8 * 1024 * 1024
_MOST_OF_A_CALL_BYTES = 256 * 1024
_ROOM_BYTES = 32 * 1024


class FinishedCalls:
    """The log of one run. ``content`` is what :attr:`content` gave."""

    def __init__(self, content: bytes = b"") -> None:
        self._length = 0
        self._buffer = bytearray()
        self._append(content)

    @property
    def content(self) -> bytes:
        """The log as bytes."""
        return bytes(self._buffer[: self._length])

    @property
    def blob(self) -> bytearray:
        """The same with room to grow; of it the first :attr:`length` bytes count."""
        return self._buffer

    @property
    def length(self) -> int:
        return self._length

    def add(self, call: int, document: Mapping[str, Any], complain: Callable[[str], None]) -> None:
        """A call is over; ``complain`` hears where what it leaves is too much to be kept."""
        line = json.dumps({"call": call, **document}, separators=(",", ":")).encode() + b"\n"
        if len(line) > _MOST_OF_A_CALL_BYTES or self._length + len(line) > MOST_BYTES:
            complain(
                "what the callbacks of finished training calls hold is too much to be kept: a script that is "
                "restarted behind such a call finds them as it made them"
            )
            return
        self._append(line)

    def of_call(self, call: int) -> Any:
        """What a finished call has left; None where nothing is known. Raises ValueError for nonsense."""
        found = None
        for line in self.content.splitlines():
            document = json.loads(line)
            if document["call"] == call:
                found = document
        return found

    def _append(self, line: bytes) -> None:
        wanted = self._length + len(line)
        if wanted > len(self._buffer):
            # Not in place: a boundary that was observed may still look at the old one.
            # Four times as much as before: each time there is too little, the mirror is made anew.
            buffer = bytearray(max(_ROOM_BYTES, 4 * len(self._buffer), wanted))
            buffer[: self._length] = self._buffer[: self._length]
            self._buffer = buffer
        self._buffer[self._length : wanted] = line
        self._length = wanted
