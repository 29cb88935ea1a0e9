"""The last save: a run ends when nothing is being saved any more, and nothing that failed may still be."""

from __future__ import annotations

from supervisor.checkpointing.rescue import Rescue
from supervisor.loop.crew import Crew
from supervisor.loop.helm import Helm
from supervisor.loop.instruments import Instruments
from supervisor.loop.machine import SupervisorEvent, SupervisorState
from supervisor.loop.stop_request import StopRequest

_RETRY_S = 2.0


class LastSave:
    """Feeds SETTLED when nothing is left to wait for, GRACE_OVER when that takes too long."""

    def __init__(
        self, instruments: Instruments, helm: Helm, crew: Crew, rescue: Rescue, stop: StopRequest
    ) -> None:
        self._instruments = instruments
        self._helm = helm
        self._crew = crew
        self._rescue = rescue
        self._stop = stop

    def wait(self) -> None:
        """No group is left: waits for what is being saved."""
        self._instruments.timers.cancel("secure")
        if not self._crew.save_requests.busy and not self._is_held_up():
            self._helm.feed(SupervisorEvent.SETTLED)
            return
        left_s = max(self._crew.save_requests.cost.patience_s, self._rescue.left_s)
        self._helm.feed_later(self._stop.left_s if self._stop.is_made else left_s, SupervisorEvent.GRACE_OVER)

    def on_settled(self) -> None:
        """Nothing is being saved any more."""
        if self._helm.state is SupervisorState.SAVING and not self._is_held_up():
            self._helm.feed(SupervisorEvent.SETTLED)

    def _is_held_up(self) -> bool:
        """Whether the end of the run has to wait for a save that is to be tried again."""
        unsaved = self._rescue.obstacle_to_end()
        if unsaved is None:
            return False
        self._instruments.report_wait("the end", unsaved.reason)
        self._instruments.timers.set("rescue", _RETRY_S, self._try_again)
        return True

    def _try_again(self) -> None:
        self._rescue.obstacle(self._crew.look_around())
        if not self._crew.save_requests.busy:
            self.on_settled()
