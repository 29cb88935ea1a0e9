"""The reactions to a message, beside that it is noted (see ``listeners``).

The record of the run changes, the worker is answered, a standby is prepared.
"""

from __future__ import annotations

from functools import partial

from resilient.wire.messages import FirstStep, ResumeRecorded, Resuming, Said, WorkerNews
from supervisor.checkpointing.save_requests import answer
from supervisor.edges.journal_writer import JournalWriter
from supervisor.group.launcher import Launcher
from supervisor.group.worker_processes import Worker
from supervisor.loop.helm import Helm
from supervisor.loop.listeners import Listeners
from supervisor.loop.machine import SupervisorState
from supervisor.loop.run_book import RunBook


class Reactions:
    """Hears what workers say of themselves, and what came of their saves."""

    def __init__(
        self, journal: JournalWriter, helm: Helm, book: RunBook, listeners: Listeners, launcher: Launcher
    ) -> None:
        self._journal = journal
        self._helm = helm
        self._book = book
        self._listeners = listeners
        self._launcher = launcher

    def on_news(self, worker: Worker, message: Said) -> None:
        """A worker has said something of itself, if it makes sense."""
        if news := self._listeners.news_in(message):
            self.heard(worker, news)

    def heard(self, worker: Worker | None, message: WorkerNews) -> None:
        """Takes note of what a worker has said, or (None) of what is said of one that lives no more."""
        attempt = self._launcher.attempt if worker in self._launcher.group else None
        self._listeners.hear(message, attempt, lambda: self._react(worker, message))

    def _react(self, worker: Worker | None, message: WorkerNews) -> None:
        if isinstance(message, Resuming) and worker is not None:
            # The worker waits for that, and not we: the disk may not answer.
            self._journal.writer.after(partial(answer, worker, ResumeRecorded()))
        elif isinstance(message, FirstStep) and self._helm.state is SupervisorState.RUNNING:
            # The first step is complete: the start is over.
            self._prepare_standby()
        self._book.note(message)

    def _prepare_standby(self) -> None:
        config = self._book.standby_config
        if config is not None:
            self._launcher.prepare_standby(config, self._book.attempts + 1)
