"""This process's part in a run: it joins the telling, the places, the finder of states and the savers.

Under ``resilient-run`` there is one session from before the script's first line; the supervisor sent its
configuration and hears what happens over the link. Without a supervisor a session begins with the monitor or
the custom loop that needs it, and tells the person on stderr.
"""

from __future__ import annotations

from resilient.config import WorkerConfig
from resilient.host.world import World
from resilient.policy.settings import Settings
from resilient.saving.in_process import Saver
from resilient.state.snapshot import Recovered
from resilient.wire.link import Link
from resilient.wire.messages import PlaceOpened
from resilient.worker.process.shared_pages import SharedPages
from resilient.worker.session.open_places import OpenPlace, OpenPlaces
from resilient.worker.session.place_savers import PlaceSavers
from resilient.worker.session.state_finder import StateFinder
from resilient.worker.session.voice import Voice


class Session(Voice):
    """One process's part in a run. ``config`` and ``link`` are None without a supervisor."""

    def __init__(
        self,
        config: WorkerConfig | None = None,
        link: Link | None = None,
        world: World | None = None,
        shared: SharedPages | None = None,
    ) -> None:
        super().__init__(config, link)
        self.world = world or World()
        self.shared = shared or SharedPages()
        self.place: OpenPlace | None = None
        self.has_trained = False
        self.was_asked = False  # to save, whether or not that could be
        self._places = OpenPlaces(config, self.world, self.warn, lambda: self.shared.mirror is not None)
        self._finder = StateFinder(self, self._places, self.shared)
        self._savers = PlaceSavers(self, self._places, self.world)

    def open(self, settings: Settings) -> OpenPlace:
        """Where these settings say that checkpoints go."""
        self.was_asked = True
        with self.telling_errors():
            place = self._places.open(settings)
        self.has_trained = True
        if place != self.place:
            self.place = place
            self.tell(PlaceOpened(str(place.root)))
        return place

    def lock_rank(self, place: OpenPlace) -> None:
        """This process commits the rank's checkpoints, from now on."""
        self._places.lock_rank(place.root)

    def unlock_rank(self) -> None:
        """The saver is about to commit them."""
        self._places.unlock_rank()

    def close(self, place: OpenPlace | None = None) -> None:
        """Lets go of a place; of all that are open, where none is named."""
        for root in self._places.close(place):
            self._savers.forget(root)
        self.place = None

    def recover(self, place: OpenPlace, floor: int = 0) -> Recovered | None:
        """Reads the newest valid state of a place; None when there is none of step ``floor`` or later.

        Raises SystemExit under a supervisor, UnusableError without one, when checkpoints exist and none can
        be used: a script that catches Exception must not go on from zero.
        """
        return self._finder.recover(place, floor)

    def saver(self, settings: Settings) -> Saver:
        """A saver for the store of their place, as these settings want it."""
        return self._savers.saver(settings, self.open(settings))

    def inline_saver(self, settings: Settings, place: OpenPlace) -> Saver:
        """A saver that makes the training wait, whatever the settings say."""
        return self._savers.inline_saver(settings, place)


_current: Session | None = None


def current() -> Session:
    """The session of this process; one without a supervisor where nobody began another."""
    global _current
    if _current is None:
        _current = Session()
    return _current


def begin(session: Session) -> Session:
    """Makes this the session of the process."""
    global _current
    _current = session
    return session
