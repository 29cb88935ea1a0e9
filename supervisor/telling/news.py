"""The journal's event for each piece of news of a worker: of the same word, with the same fields."""

from __future__ import annotations

from resilient.journal.base import EVENTS
from resilient.journal.events import WorkerEvent
from resilient.wire.messages import WorkerNews


def event_of(news: WorkerNews, attempt: int | None = None) -> WorkerEvent:
    """The event of what the worker of ``attempt`` says; None for what is said of one that lives no more."""
    kind = EVENTS[news.word]
    assert issubclass(kind, WorkerEvent)
    return kind(**vars(news), attempt=attempt)
