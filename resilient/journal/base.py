"""What all events of a journal have in common. The events themselves are in ``events``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from resilient.journal.fields import Count, Number, Text

JOURNAL_VERSION = 1
EVENTS: dict[str, type[JournalEvent]] = {}
"""Every event that can be written, by its word."""


@dataclass(frozen=True)
class JournalEvent:
    """Something that happened to a run. ``time`` and ``monotonic`` are None until it was written."""

    word: ClassVar[str] = ""
    time: Number = field(default=None, kw_only=True)
    monotonic: Number = field(default=None, kw_only=True)
    attempt: Count = field(default=None, kw_only=True)

    def __init_subclass__(cls, word: str = "") -> None:
        assert word not in EVENTS, f"two events are called {word}"
        cls.word = word
        if word:
            EVENTS[word] = cls


@dataclass(frozen=True)
class UnknownEvent(JournalEvent):
    """An event of another version, or of somebody else. Nobody reads more of it than its name."""

    name: Text
