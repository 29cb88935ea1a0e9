"""What the finished training calls of a run have left in their callbacks, for attempts that pass by them.

A log that only grows: one line of JSON for each finished call, ``{"call": 3, "callbacks": ..., "things":
...}`` (see ``side_state``). It travels as a blob of the state, so that a step costs the same after a hundred
calls as after one. What is too large for it stays with the objects that hold it (``holdovers``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from resilient.state.holdovers import Holdovers

MOST_BYTES = 8 * 1024 * 1024
_MOST_OF_A_CALL_BYTES = 256 * 1024
_ROOM_FOR_NUMBERS_BYTES = 1024 * 1024
_ROOM_BYTES = 32 * 1024


class FinishedCalls:
    """The log of one run. ``content`` is what :attr:`content` gave. ``holdovers`` are the objects with values
    that the log does not keep."""

    def __init__(self, content: bytes = b"", holdovers: Holdovers | None = None) -> None:
        self.holdovers = holdovers or Holdovers()
        self._length = 0
        self._split: list[bytes] | None = None
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

    def add(self, call: int, document: Mapping[str, Any], *, only_numbers: bool = False) -> bool:
        """A call is over and has left this; False where that is too much to be kept.

        With ``only_numbers`` it is short, and part of the log is reserved for it.
        """
        line = json.dumps({"call": call, **document}, separators=(",", ":")).encode() + b"\n"
        room_bytes = MOST_BYTES - self._length - (0 if only_numbers else _ROOM_FOR_NUMBERS_BYTES)
        if len(line) > min(room_bytes, _MOST_OF_A_CALL_BYTES):
            return False
        self._append(line)
        return True

    def of_call(self, call: int) -> Any:
        """What a finished call has left; None where nothing is known. Raises ValueError for nonsense."""
        # By its beginning: a script with a thousand calls asks for each of them.
        beginning = f'{{"call":{call},'.encode()
        line = next((line for line in reversed(self._lines()) if line.startswith(beginning)), None)
        return None if line is None else json.loads(line)

    def _lines(self) -> list[bytes]:
        if self._split is None:
            self._split = self.content.splitlines()
        return self._split

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
        self._split = None
