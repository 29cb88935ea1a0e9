"""The removal of a group that lives: it is asked to end, then killed, then left to the kernel.

It is to make room for the next group, or to end with the run. A run that ends has its newest state in memory
committed where no step boundary was reached in time.
"""

from __future__ import annotations

import signal

from resilient.journal.events import WorkersKilled
from supervisor.loop.crew import Crew
from supervisor.loop.helm import Helm
from supervisor.loop.instruments import Instruments
from supervisor.loop.machine import SupervisorEvent
from supervisor.loop.postmortem import Postmortem
from supervisor.loop.stop_request import StopRequest
from supervisor.verdict import deadline

_STUCK_S = 10.0
_HOPELESS_S = 600.0


class Removal:
    """Ends groups; feeds LATE, GRACE_OVER and HOPELESS."""

    def __init__(
        self, instruments: Instruments, helm: Helm, crew: Crew, postmortem: Postmortem, stop: StopRequest
    ) -> None:
        self._journal = instruments.journal
        self._story = instruments.story
        self._instruments = instruments
        self._helm = helm
        self._crew = crew
        self._postmortem = postmortem
        self._stop = stop
        self._killed_s = 0.0

    def ask(self) -> None:
        """Asks the group to save and end."""
        self._crew.launcher.present.send(signal.SIGTERM)
        self._crew.launcher.present.send(signal.SIGCONT)
        self._helm.feed_later(self._stop.grace_s, SupervisorEvent.GRACE_OVER)

    def forward(self) -> None:
        """Passes the stop request on to the group."""
        attempt, stop, timers = self._crew.launcher.present, self._stop, self._instruments.timers
        # First of all: the grace runs already, and is the worker's.
        attempt.send(stop.number)
        attempt.send(signal.SIGCONT)
        timers.cancel("watch")
        self._story.stopping(stop.number, stop.grace_s)
        parts = deadline.plan(stop.grace_s, self._crew.save_requests.cost)
        stop.begin_grace(parts.end_s)
        timers.set("secure", parts.secure_s, lambda: self._helm.feed(SupervisorEvent.LATE))
        self._helm.feed_later(parts.kill_s, SupervisorEvent.GRACE_OVER)

    def secure(self) -> None:
        """No step boundary was reached in time: the newest state in memory is committed."""
        self._crew.save_requests.save_newer(self._crew.standing, self._stop.name, failure=True)

    def kill(self) -> None:
        """Kills the workers of the group."""
        self._instruments.timers.cancel("secure")
        self._killed_s = self._instruments.clock.monotonic()
        self._story.killing()
        attempt = self._crew.launcher.present
        self._journal.write(WorkersKilled(self._helm.state.value, attempt=attempt.number))
        attempt.send(signal.SIGKILL)
        # Stopped by a signal it dies as well; frozen or asleep in the kernel it does not.
        self._helm.feed_later(_STUCK_S, SupervisorEvent.GRACE_OVER)

    def look_again(self) -> None:
        """A killed group has not ended yet: waits on, and not for ever."""
        if self._instruments.clock.monotonic() - self._killed_s >= _HOPELESS_S:
            self._helm.feed(SupervisorEvent.HOPELESS)
        else:
            self._story.unkillable()
            self._helm.feed_later(_STUCK_S, SupervisorEvent.GRACE_OVER)

    def abandon(self) -> None:
        """The group cannot be killed: it is judged as if it had been."""
        attempt = self._crew.launcher.present
        self._instruments.report_left([worker.pid for worker in attempt.workers])
        self._crew.launcher.abandon()
        self._postmortem.hold(attempt, code=-signal.SIGKILL)
        self._crew.judge.give_up("the kernel holds one of its processes")
