"""Watches, at each save, how the disk fills up, and what one checkpoint takes.

The disk is asked on a thread: one that does not answer must not hold up the supervisor.
"""

from __future__ import annotations

import contextlib
import math
import threading
from pathlib import Path

from resilient.config import KeepPolicy
from resilient.host.clock import Clock
from supervisor import growth
from supervisor.growth import Watching


class DiskWatch:
    """Measures after saves. ``checkpoint_bytes`` is the size of the newest one, 0 before the first."""

    def __init__(self, root: Path, keep: KeepPolicy, clock: Clock) -> None:
        self._root = root
        self._keep = keep
        self._clock = clock
        self._watching = Watching()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._warning = ""
        self.checkpoint_bytes = 0

    def saved(self, folder: Path, name: str) -> None:
        """A checkpoint of this name was made in this folder. A measurement under way is enough."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._measure, args=(folder, name), daemon=True)
            self._thread.start()

    def warning(self) -> str:
        """What the person is to be told now; empty for nothing."""
        with self._lock:
            text, self._warning = self._warning, ""
        return text

    def _measure(self, folder: Path, name: str) -> None:
        # A file that retention has removed since, or a disk that fails: the next save measures again.
        with contextlib.suppress(OSError):
            size = (folder / name).stat().st_size
            sample = growth.measure(self._root, self._clock.monotonic())
            only_newest = KeepPolicy(max_count=self._keep.max_count) == self._keep
            count = self._keep.max_count if only_newest else None
            most = math.inf if count is None else (count + 1) * size
            watching, text = growth.observe(self._watching, sample, size, most)
            with self._lock:
                self._watching, self._warning = watching, text or self._warning
                self.checkpoint_bytes = size
