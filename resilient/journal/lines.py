"""An event as a line of the journal, and back.

    {"time": 1764350864.2, "monotonic": 5310.7, "event": "attempt", "attempt": 2, "pid": 4711}

Whatever a line holds, it is an event or it is none: reading never fails.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, NamedTuple, get_type_hints

from resilient.journal import events  # noqa: F401 - it makes the events known
from resilient.journal.base import EVENTS, JournalEvent, UnknownEvent
from resilient.journal.fields import ReadBy, clean, number

_NONSENSE = (ValueError, TypeError, RecursionError)
_STAMPS = ("time", "monotonic")


class _Field(NamedTuple):
    """A field of an event: how it is read, and its default; MISSING where it is always written."""

    name: str
    read: Callable[[object], Any]
    default: Any


_FIELDS: dict[type[JournalEvent], tuple[_Field, ...]] = {}
_WRITTEN: dict[type[JournalEvent], tuple[tuple[str, Any], ...]] = {}


def _fields(kind: type[JournalEvent]) -> tuple[_Field, ...]:
    """The fields of an event; looked up in its annotations once."""
    if kind not in _FIELDS:
        hints = get_type_hints(kind, include_extras=True)
        _FIELDS[kind] = tuple(
            _Field(field.name, _reader(hints[field.name]), field.default) for field in fields(kind)
        )
    return _FIELDS[kind]


def _written(kind: type[JournalEvent]) -> tuple[tuple[str, Any], ...]:
    """The names and defaults of the fields that are not written with the time."""
    if kind not in _WRITTEN:
        own = [field for field in _fields(kind) if field.name not in _STAMPS]
        _WRITTEN[kind] = tuple((field.name, field.default) for field in own)
    return _WRITTEN[kind]


def _reader(hint: Any) -> Callable[[object], Any]:
    read_by = hint.__metadata__[0]
    assert isinstance(read_by, ReadBy)
    return read_by.read


def decode(line: bytes) -> JournalEvent | None:
    """The event of a line; None for a line that is none."""
    try:
        content = json.loads(line)
    except _NONSENSE:
        return None
    name = content.get("event") if isinstance(content, dict) else None
    if not isinstance(name, str):
        return None
    kind = EVENTS.get(name)
    if kind is None:
        time, monotonic = (number(content.get(stamp)) for stamp in _STAMPS)
        return UnknownEvent(clean(name), time=time, monotonic=monotonic)
    return kind(**{field.name: field.read(content.get(field.name)) for field in _fields(kind)})


def content_of(event: JournalEvent) -> dict[str, Any]:
    """What an event says beside its word and its time, as it is written."""
    assert event.word, "an event of another version is not ours to write"
    own = vars(event)
    return {
        name: own[name]
        for name, default in _written(type(event))
        if default is MISSING or own[name] != default
    }
