"""The training calls of this process's script: the timeline of each run, and what they share."""

from __future__ import annotations

from resilient.policy.settings import Settings
from resilient.state.knobs import Knobs
from resilient.worker.boundary.belongings import Belongings
from resilient.worker.call.early_use import EarlyUse
from resilient.worker.call.extension import Epochs
from resilient.worker.call.timeline import Timeline
from resilient.worker.session import session as sessions
from resilient.worker.session.session import Session


class ScriptCalls(Belongings):
    """The timelines of one session by the ids of their runs, beside what its calls share."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.timelines: dict[str, Timeline] = {}

    def timeline_of(self, settings: Settings) -> Timeline:
        """The timeline of the run that saves where these settings say, resumed from the newest state.

        A run that keeps checkpoints in several places comes to know them one by one: each may hold a newer
        state. Raises what opening a place, and recovering from it, raise.
        """
        session = self.session
        place = session.open(settings)
        timeline = self.timelines.get(place.run_id) or self._new_timeline()
        self.timelines[place.run_id] = timeline
        if place.root not in timeline.places:
            recovered = session.recover(place, timeline.floor)
            timeline.places.add(place.root)
            if recovered is not None:
                with session.telling_mismatch():
                    timeline.go_on_from(recovered)
        return timeline

    def _new_timeline(self) -> Timeline:
        session, run = self.session, self.session.config
        taken, extends = (run.take_from_script, run.extend) if run is not None else ((), False)
        knobs = Knobs(taken, extends=extends, tell=session.warn)
        epochs = Epochs(extends=extends, tell=session.warn)
        return Timeline(knobs, epochs, EarlyUse(session.warn, session.remark))


_current: ScriptCalls | None = None


def current_calls() -> ScriptCalls:
    """Those of the session of this process."""
    global _current
    session = sessions.current()
    if _current is None or _current.session is not session:
        _current = ScriptCalls(session)
    return _current
