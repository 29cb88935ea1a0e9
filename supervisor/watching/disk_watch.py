"""Watches, at each save, how the disk fills up, and what one checkpoint takes."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

from resilient.config import KeepPolicy
from resilient.host.clock import Clock
from supervisor.edges.question import Question
from supervisor.watching import growth
from supervisor.watching.growth import GrowthHistory, Sample


class DiskWatch:
    """Measures after saves."""

    def __init__(self, root: Path, keep: KeepPolicy, clock: Clock) -> None:
        self._root = root
        self._keep = keep
        self._clock = clock
        self._watching = GrowthHistory()
        self._asked: Question[tuple[int, Sample] | None] | None = None
        self._warning = ""
        self._checkpoint_bytes = 0

    def saved(self, folder: Path, name: str) -> None:
        """A checkpoint of this name was made in this folder. A measurement under way is enough."""
        self._hear()
        if self._asked is None:
            self._asked = Question(partial(self._measure, folder, name))

    def warning(self) -> str:
        """What the person is to be told now; empty for nothing."""
        self._hear()
        text, self._warning = self._warning, ""
        return text

    @property
    def checkpoint_bytes(self) -> int:
        """The size of the newest checkpoint, 0 before the first."""
        self._hear()
        return self._checkpoint_bytes

    def _measure(self, folder: Path, name: str) -> tuple[int, Sample] | None:
        try:
            return (folder / name).stat().st_size, growth.measure(self._root, self._clock.monotonic())
        except OSError:
            # A file that retention has removed since, or a disk that fails: the next save measures again.
            return None

    def _hear(self) -> None:
        asked = self._asked
        if asked is None or not (asked.is_answered or asked.lost):
            return
        self._asked = None
        found = asked.answer if asked.is_answered else None
        if found is None:
            return
        self._checkpoint_bytes, sample = found
        only_newest = KeepPolicy(max_count=self._keep.max_count) == self._keep
        count = self._keep.max_count if only_newest else None
        most = math.inf if count is None else (count + 1) * self._checkpoint_bytes
        self._watching, text = growth.observe(self._watching, sample, self._checkpoint_bytes, most)
        self._warning = text or self._warning
