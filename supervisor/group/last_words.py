"""What a worker has said: the last message of each class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from resilient.wire.messages import WorkerNews

News = TypeVar("News", bound=WorkerNews)


@dataclass(frozen=True)
class LastWords:
    """Messages of which no two are of one class."""

    said: tuple[WorkerNews, ...] = ()

    def plus(self, message: WorkerNews) -> LastWords:
        """With one more, in the place of an earlier one of its class."""
        return LastWords((*(said for said in self.said if type(said) is not type(message)), message))

    def of(self, kind: type[News]) -> News | None:
        """The message of this class; None where there is none."""
        return next((said for said in self.said if isinstance(said, kind)), None)

    def __contains__(self, kind: type[WorkerNews]) -> bool:
        return self.of(kind) is not None
