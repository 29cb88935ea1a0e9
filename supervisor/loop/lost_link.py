"""A worker that lives and has no link to us any more: its script has closed what was not its own.

It goes on training, as by plain python. It commits by itself, once our saver has let go of the lock. Its
heartbeat says where it is, and how its script has ended; its mirror, which we have mapped too, is saved if it
dies. A process that ends closes its link as well, a moment before its end is seen.
"""

from __future__ import annotations

from supervisor.checkpointing.durable_steps import DurableSteps
from supervisor.checkpointing.save_requests import SaveRequests
from supervisor.edges.timers import Timers
from supervisor.group.attempt import Attempt
from supervisor.group.launcher import Launcher
from supervisor.group.worker_processes import Worker
from supervisor.loop.listeners import Listeners

_MOMENT_S = 0.5


class LostLink:
    """Finds out that an attempt is mute, and from heartbeat and disk what no message has told."""

    def __init__(
        self,
        timers: Timers,
        launcher: Launcher,
        save_requests: SaveRequests,
        listeners: Listeners,
        durable_steps: DurableSteps,
    ) -> None:
        self._timers = timers
        self._launcher = launcher
        self._save_requests = save_requests
        self._listeners = listeners
        self._durable_steps = durable_steps

    def on_over(self, attempt: Attempt) -> None:
        """An attempt has ended: it was mute as well if its heartbeat knows more than it has said."""
        if attempt.speaks and attempt.has_ended_unheard:
            self._note(attempt)
        if attempt.is_mute:
            self._listeners.find(attempt.step if attempt.progressed else 0, self._durable_steps.newest_step())

    def on_silence(self, worker: Worker) -> None:
        """A worker's link has ended: it is mute if it lives a moment later."""
        self._timers.set("silence", _MOMENT_S, lambda: self._look(worker))

    def _look(self, worker: Worker) -> None:
        attempt = self._launcher.attempt
        if attempt is None or attempt.was_replaced:
            return
        if worker in attempt.workers and worker.vitals() is not None:
            self._note(attempt)
            self._save_requests.leave_to_worker()

    def _note(self, attempt: Attempt) -> None:
        if attempt.fall_mute():
            self._listeners.tell_mute(attempt)
