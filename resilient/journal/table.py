"""The vocabulary of the journal as a table, for ARCHITECTURE.md."""

from __future__ import annotations

import inspect
from dataclasses import MISSING, fields

from resilient.journal.base import EVENTS, JournalEvent
from resilient.journal.events import WorkerEvent

_OF_ALL = ("time", "monotonic", "attempt")


def table() -> str:
    """The events in the order of ``events``. A question mark: the field is there where it says something."""
    lines = ["| event | told by | fields | what happened |", "|---|---|---|---|"]
    for word, kind in EVENTS.items():
        if word == kind.word:
            teller = "worker" if issubclass(kind, WorkerEvent) else "supervisor"
            lines.append(f"| `{word}` | {teller} | {_names(kind)} | {_first_paragraph(kind)} |")
    return "\n".join(lines)


def _names(kind: type[JournalEvent]) -> str:
    own = [field for field in fields(kind) if field.name not in _OF_ALL]
    return ", ".join(field.name + ("" if field.default is MISSING else "?") for field in own)


def _first_paragraph(kind: type[JournalEvent]) -> str:
    words = inspect.getdoc(kind) or ""
    return " ".join(words.partition("\n\n")[0].replace("``", "`").split())
