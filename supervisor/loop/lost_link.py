"""A worker that lives and has no link to us any more: its script has closed what was not its own.

It goes on training, as by plain python. It commits by itself, once our saver has let go of the lock. Its
heartbeat says where it is, and how its script has ended; its mirror, which we have mapped too, is saved if it
dies. A process that ends closes its link as well, a moment before its end is seen.
"""

from __future__ import annotations

from supervisor.edges.timers import Timers
from supervisor.loop.listeners import Hearing
from supervisor.saves.durable_steps import Shelf
from supervisor.saves.save_requests import Commits
from supervisor.workers.attempt import Attempt
from supervisor.workers.launcher import Launcher
from supervisor.workers.workers import Worker

_MOMENT_S = 0.5


class Muteness:
    """Finds out that an attempt is mute, and from heartbeat and disk what no message has told."""

    def __init__(
        self, timers: Timers, launcher: Launcher, commits: Commits, hearing: Hearing, shelf: Shelf
    ) -> None:
        self._timers = timers
        self._launcher = launcher
        self._commits = commits
        self._hearing = hearing
        self._shelf = shelf

    def on_over(self, attempt: Attempt) -> None:
        """An attempt has ended: it was mute as well if its heartbeat knows more than it has said."""
        if attempt.speaks and attempt.has_ended_unheard:
            self._note(attempt)
        if attempt.is_mute:
            self._hearing.find(attempt.step if attempt.progressed else 0, self._shelf.newest_step())

    def on_silence(self, worker: Worker) -> None:
        """A worker's link has ended: it is mute if it lives a moment later."""
        self._timers.set("silence", _MOMENT_S, lambda: self._look(worker))

    def _look(self, worker: Worker) -> None:
        attempt = self._launcher.attempt
        if attempt is None or attempt.was_replaced:
            return
        if worker in attempt.workers and worker.vitals() is not None:
            self._note(attempt)
            self._commits.leave_to_worker()

    def _note(self, attempt: Attempt) -> None:
        if attempt.fall_mute():
            self._hearing.tell_mute(attempt)
