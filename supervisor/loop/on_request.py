"""Requests of a person to a training that goes on: a checkpoint now, or the stacks of its threads."""

from __future__ import annotations

from resilient.journal.events import RequestRefused, WorkRequested
from supervisor.edges import wakeup
from supervisor.edges.journal_writer import JournalWriter
from supervisor.group.attempt import Attempt
from supervisor.telling.story import Story


def pass_on(number: int, running: Attempt | None, journal: JournalWriter, story: Story) -> None:
    """Passes a request on to the ``running`` attempt, or says that there is none that could be asked."""
    what = wakeup.REQUESTS[number]
    journal.write(WorkRequested(what))
    # Another program than a worker of ours would die of it.
    if running is not None and running.speaks:
        running.send(number)
        return
    text = f"there is no training that could be asked for {what} just now"
    journal.write(RequestRefused(what, text))
    story.trouble(text)
