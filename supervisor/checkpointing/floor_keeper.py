"""Keeps the floor of a run up to date, on a thread: a slow home directory must not hold up the supervisor.

Only the newest heights are written; what comes while a write is under way replaces what waits. A floor that
lags behind, or is not there at all, only asks less of the next start.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from resilient.errors import ResilientError
from resilient.run.floor import FloorFile, Height, Heights, folder_of, merged
from resilient.wire.messages import CheckpointSaved, WorkerNews

_CLOSE_S = 2.0


class FloorKeeper:
    """Writes the heights of one run directory as checkpoints are acknowledged.

    ``heights`` are those that hold now; ``is_news`` tells that they are not what the file says.
    ``moved_from`` is the directory that the run has left.
    """

    def __init__(
        self,
        file: FloorFile,
        root: Path,
        heights: Heights,
        moved_from: Path | None = None,
        *,
        is_news: bool = False,
    ) -> None:
        self._file = file
        self._root = root
        self._moved_from = moved_from
        self._changed = threading.Condition()
        self._heights = heights
        self._dirty = is_news or moved_from is not None
        self._closing = False
        self._thread: threading.Thread | None = None
        self._trouble = ""
        self._told = False

    def begin(self) -> None:
        """Begins to write, on a thread: not before the supervisor has forked what it forks."""
        self._wake()

    def hear(self, message: WorkerNews, warn: Callable[[str], None]) -> None:
        """Takes note of a checkpoint that was reported as saved; ``warn`` hears, once, what is wrong here."""
        if not isinstance(message, CheckpointSaved) or not message.generation:
            return
        height = Height(message.generation, message.step, message.file)
        with self._changed:
            self._heights = merged(self._heights, {folder_of(self._root, Path(message.directory)): height})
            self._dirty = True
        self._wake()
        if self._trouble and not self._told:
            self._told = True
            warn(
                f"{self._file.path} cannot be written ({self._trouble}): should somebody set this run back, "
                "the next start may not notice"
            )

    def close(self) -> None:
        """Waits a little for what is still to be written."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(_CLOSE_S)

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
        if self._dirty and self._thread is None and not self._trouble:
            thread = threading.Thread(target=self._work, name="resilient-floor", daemon=True)
            try:
                thread.start()
                self._thread = thread
            except RuntimeError as error:
                self._trouble = str(error)

    def _work(self) -> None:
        while (heights := self._next()) is not None:
            try:
                self._file.write(self._root, heights, instead_of=self._moved_from)
            except (ResilientError, OSError) as error:
                self._trouble = str(error)
            except Exception as error:  # noqa: BLE001 - named once; the next write may go well
                self._trouble = f"{type(error).__name__}: {error}"

    def _next(self) -> Heights | None:
        with self._changed:
            self._changed.wait_for(lambda: self._dirty or self._closing)
            if not self._dirty:
                return None
            self._dirty = False
            return self._heights
