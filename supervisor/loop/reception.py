"""The reception: receives what comes from the workers of a group, and passes it on to who deals with it."""

from __future__ import annotations

from resilient.wire.messages import Said
from supervisor.checkpointing.save_requests import SaveRequests
from supervisor.group.worker_processes import Worker
from supervisor.loop.internal_errors import InternalErrors
from supervisor.loop.lost_link import LostLink
from supervisor.loop.postmortem import Postmortem
from supervisor.loop.reactions import Reactions


class Reception:
    """Requests go to ``save_requests``, news to ``reactions``, an end to ``postmortem``."""

    def __init__(
        self,
        save_requests: SaveRequests,
        reactions: Reactions,
        lost_link: LostLink,
        postmortem: Postmortem,
        internal_errors: InternalErrors,
    ) -> None:
        self._save_requests = save_requests
        self._reactions = reactions
        self._lost_link = lost_link
        self._postmortem = postmortem
        self._internal_errors = internal_errors

    def on_message(self, worker: Worker, message: Said, descriptors: list[int]) -> None:
        """A worker has said something: about saving, or about itself."""
        with self._internal_errors.contained("a message"):
            if not self._save_requests.hear(worker, message, descriptors):
                self._reactions.on_news(worker, message)

    def on_silence(self, worker: Worker) -> None:
        """A worker's link has ended."""
        self._lost_link.on_silence(worker)

    def on_over(self) -> None:
        """Every worker of the group has ended."""
        self._postmortem.on_over()
