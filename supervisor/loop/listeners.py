"""Everybody who takes note of what a worker says, or of what is said of its saves.

Each hears by itself: when one of them fails over a message, the others have heard it all the same.
"""

from __future__ import annotations

from collections.abc import Callable

from resilient.errors import NonsenseError, OtherVersionError
from resilient.journal.events import LinkLost, StandbyWaits, WarningGiven
from resilient.wire.messages import (
    Message,
    Said,
    StandbyReady,
    UnknownMessage,
    UsageRefused,
    WorkerNews,
)
from supervisor.edges.journal_writer import JournalWriter
from supervisor.group.attempt import Attempt
from supervisor.loop.internal_errors import InternalErrors
from supervisor.telling.news import event_of
from supervisor.telling.story import Story
from supervisor.verdict.judge import Judge
from supervisor.watching.watchman import Watchman


class Listeners:
    """Passes messages on to attempt, judge, journal, watchman and story."""

    def __init__(
        self,
        judge: Judge,
        journal: JournalWriter,
        watchman: Watchman,
        story: Story,
        internal_errors: InternalErrors,
    ) -> None:
        self._judge = judge
        self._journal = journal
        self._watchman = watchman
        self._story = story
        self._internal_errors = internal_errors
        self._refused: set[str] = set()

    def news_in(self, message: Said) -> WorkerNews | None:
        """The news in what a worker has said; None for what is none, which is reported once for each kind."""
        if isinstance(message, WorkerNews):
            return message
        if isinstance(message, OtherVersionError):
            return UsageRefused(str(message.args[0]), message.hint)
        wrong = str(message)
        if not isinstance(message, NonsenseError):
            wrong = f"{_name(message)} is nothing that this version hears from a training"
        if wrong not in self._refused:
            self._refused.add(wrong)
            text = f"a message of the training made no sense, and was left out: {wrong}"
            self._journal.write(WarningGiven(text))
            self._story.trouble(text)
        return None

    def standby(self, message: Said) -> None:
        """A standby has said something."""
        news = self.news_in(message)
        if isinstance(news, StandbyReady):
            self._journal.write(StandbyWaits(news.memory_bytes))
            self._story.standby(news)

    def tell_mute(self, attempt: Attempt) -> None:
        """A worker says nothing more, and lives."""
        self._journal.write(LinkLost(attempt=attempt.number))
        self._story.mute()

    def find(self, step: int, on_disk: int | None) -> None:
        """Notes what heartbeat and disk say that a mute worker has done (see ``Judge.found``)."""
        self._judge.found(step, on_disk)

    def hear(self, message: WorkerNews, attempt: Attempt | None, react: Callable[[], None]) -> None:
        """Takes note of a message; of a worker that lives it is one of this ``attempt``.

        ``react`` is called as soon as the judge has written down what must be on disk first.
        """
        steps: list[Callable[[], None]] = [
            lambda: self._judge.note(message, alive=attempt is not None),
            react,
            lambda: self._journal.write(event_of(message, attempt.number if attempt is not None else None)),
            lambda: self._watchman.note(message),
            lambda: self._story.message(message),
        ]
        if attempt is not None:
            steps.insert(0, lambda: attempt.hear(message))
        for step in steps:
            with self._internal_errors.contained(f"a message ({message.word})"):
                step()


def _name(message: Message) -> str:
    return repr(message.name) if isinstance(message, UnknownMessage) else message.word
