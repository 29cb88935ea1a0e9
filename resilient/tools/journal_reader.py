"""A run's journal as the tools read it: journal.jsonl, one JSON object a line, whatever has become of it.

A crash tears lines, an older version writes other fields, and a file may have been written by anybody. So
nothing is taken on trust: a line that is no object with an event's name is counted and left out, a field of
another type than expected is as good as missing, and no text leaves here with a control character in it
(a terminal would obey it).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resilient.host.files import Files

_CHUNK_BYTES = 1 << 20
_LINE_BYTES = 1 << 20
"""A longer line is none of ours: a traceback is cut off long before."""

_LARGEST = 2**53
_TEXT_CHARACTERS = 20_000
_NONSENSE = (ValueError, TypeError, RecursionError)


@dataclass(frozen=True)
class Event:
    """One line of a journal. ``time`` is wall time, ``monotonic`` the clock of one boot, both in seconds."""

    name: str
    time: float | None = None
    monotonic: float | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)

    def text(self, name: str) -> str:
        """A field as text that may be printed; "" where there is none."""
        return clean(self.fields.get(name))

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts; whatever else stands in it is left out."""
        value = self.fields.get(name)
        items = value[:100] if isinstance(value, list) else []
        return tuple(text for text in map(clean, items) if text)

    def whole(self, name: str) -> int | None:
        """A whole number from 0 on: a step, an attempt, a pid; None where there is none."""
        value = self.fields.get(name)
        return value if type(value) is int and 0 <= value < _LARGEST else None

    def number(self, name: str) -> float | None:
        """A finite number; None where there is none."""
        return _finite(self.fields.get(name))

    def flag(self, name: str) -> bool:
        """Whether a field is true."""
        return self.fields.get(name) is True


def parse(line: bytes) -> Event | None:
    """The event of a line; None for a line that is none."""
    try:
        content = json.loads(line)
    except _NONSENSE:
        return None
    if not isinstance(content, dict) or not isinstance(content.get("event"), str):
        return None
    times = _finite(content.get("time")), _finite(content.get("monotonic"))
    return Event(clean(content["event"]), *times, content)


def clean(value: Any) -> str:
    """A text without anything a terminal would obey; "" for what is no text."""
    if not isinstance(value, str):
        return ""
    # Of the end of a line only \n stays: a lone \r would paint over what stands before it.
    text = value[:_TEXT_CHARACTERS].replace("\r\n", "\n").expandtabs(4)
    return "".join(c if c.isprintable() or c == "\n" else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return f"\\x{ord(character):02x}" if ord(character) < 256 else f"\\u{ord(character):04x}"


def _finite(value: Any) -> float | None:
    # An int beyond the floats raises OverflowError, hence the comparison before the conversion.
    if type(value) is int and abs(value) < _LARGEST:
        return float(value)
    if type(value) is float and math.isfinite(value) and abs(value) < _LARGEST:
        return value
    return None


class Journal:
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

    def events(self) -> Iterator[Event]:
        """The events there are by now. A last line without its end waits for the next call.

        Raises StorageError. A journal that does not exist (yet) has no events.
        """
        for line in self._lines():
            if not line.strip():
                continue
            event = parse(line)
            if event is None:
                self.torn += 1
            else:
                yield event

    def last(self) -> Event | None:
        """What stands in a last line without its end, once nobody adds to it: torn, but for its newline."""
        line, self._rest = self._rest, b""
        if not line.strip():
            return None
        event = parse(line)
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
