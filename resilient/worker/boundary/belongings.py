"""The training calls of one process share these: what its objects with state hold, and its mirror."""

from __future__ import annotations

from resilient.saving.remote import RemoteSaver
from resilient.state.side_state import SideState
from resilient.worker.session.mirror_setup import MirrorSetup
from resilient.worker.session.session import Session


class Belongings:
    """They stand above the session: they need MindSpore, and a session begins before the script does."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.side_state = SideState(session.warn)
        self._mirror_setup: MirrorSetup | None = None

    @property
    def mirror_setup(self) -> MirrorSetup | None:
        """The process's way to keep mirrors; None where it has none."""
        session = self.session
        if session.config is None or session.link is None or not session.config.mirror.on:
            return None
        if self._mirror_setup is None:
            remote = RemoteSaver(session.link, session.shared.mirror)
            self._mirror_setup = MirrorSetup(session, session.config.mirror, remote)
        return self._mirror_setup
