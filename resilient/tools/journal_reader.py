"""A run's journal as the tools read it: its events, whatever has become of the file.

A crash tears lines, and a file may have been written by anybody. A line that is no event is counted and left
out; what an event's fields hold is looked at by ``resilient.journal``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from resilient.host.files import Files
from resilient.journal.base import JournalEvent
from resilient.journal.lines import decode

_CHUNK_BYTES = 1 << 20
_LINE_BYTES = 1 << 20
"""A longer line is none of ours: a traceback is cut off long before."""


class JournalReader:
    """Reads events, and later those that have been added since. ``torn`` counts lines that are none."""

    def __init__(self, files: Files, path: Path, offset: int = 0) -> None:
        self._files = files
        self._path = path
        self._offset = offset
        self._rest = b""
        self._too_long = False
        self.torn = 0

    def skip(self) -> None:
        """Goes to the end: only what is added from now on is read."""
        try:
            self._offset = self._files.identity(self._path).size_bytes
        except FileNotFoundError:
            self._offset = 0
        self._rest = b""

    def events(self) -> Iterator[JournalEvent]:
        """The events there are by now. A last line without its end waits for the next call.

        Raises StorageError. A journal that does not exist (yet) has no events.
        """
        for line in self._lines():
            if not line.strip():
                continue
            event = decode(line)
            if event is None:
                self.torn += 1
            else:
                yield event

    def last(self) -> JournalEvent | None:
        """What stands in a last line without its end, once nobody adds to it: torn, but for its newline."""
        line, self._rest = self._rest, b""
        if not line.strip():
            return None
        event = decode(line)
        self.torn += event is None
        return event

    def _lines(self) -> Iterator[bytes]:
        for data in self._chunks():
            *whole, rest = (self._rest + data).split(b"\n")
            for number, line in enumerate(whole):
                if (number == 0 and self._too_long) or len(line) > _LINE_BYTES:
                    self.torn += 1
                else:
                    yield line
            if whole:
                self._too_long = False
            if len(rest) > _LINE_BYTES:
                rest, self._too_long = b"", True
            self._rest = rest

    def _chunks(self) -> Iterator[bytes]:
        try:
            reader = self._files.open(self._path)
        except FileNotFoundError:
            return
        try:
            buffer = bytearray(_CHUNK_BYTES)
            while length := reader.read_into(memoryview(buffer), self._offset):
                self._offset += length
                yield bytes(buffer[:length])
        finally:
            reader.close()
