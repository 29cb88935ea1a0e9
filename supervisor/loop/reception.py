"""The reception: receives what comes from the workers of a group, and passes it on to who deals with it."""

from __future__ import annotations

from typing import Any

from supervisor.loop.internal_errors import Mishaps
from supervisor.loop.lost_link import Muteness
from supervisor.loop.postmortem import Inquest
from supervisor.loop.reactions import Reactions
from supervisor.saves.save_requests import Commits
from supervisor.workers.workers import Worker


class Reception:
    """The launcher's audience: requests go to ``commits``, news to ``reactions``, an end to ``inquest``."""

    def __init__(
        self,
        commits: Commits,
        reactions: Reactions,
        muteness: Muteness,
        inquest: Inquest,
        mishaps: Mishaps,
    ) -> None:
        self._commits = commits
        self._reactions = reactions
        self._muteness = muteness
        self._inquest = inquest
        self._mishaps = mishaps

    def on_message(self, worker: Worker, message: dict[str, Any], descriptors: list[int]) -> None:
        """A worker has said something: about saving, or about itself."""
        with self._mishaps.contained("a message"):
            if not self._commits.hear(worker, message, descriptors):
                self._reactions.on_news(worker, message)

    def on_silence(self, worker: Worker) -> None:
        """A worker's link has ended."""
        self._muteness.on_silence(worker)

    def on_over(self) -> None:
        """Every worker of the group has ended."""
        self._inquest.on_over()
