"""A standby: a worker that has been started ahead of its time, has imported the framework, and waits.

Importing MindSpore takes seconds. A standby has them behind it when the worker before it fails, and takes
over at once. It is started after the first completed step, so that it does not slow the start; it does not
touch the device, and runs nothing of the script, before it is told what it is to do.
"""

from __future__ import annotations

import contextlib
import selectors
from collections.abc import Callable
from pathlib import Path

from resilient.config import WorkerConfig
from resilient.errors import LinkError, NonsenseError
from resilient.host.memory import available_bytes
from resilient.sizes import size
from resilient.wire.messages import Said
from supervisor.group.worker_processes import Worker, end

_LEAST_FREE_BYTES = 2 * 1024**3
"""A standby takes a few hundred megabytes; the training must not miss them."""


class Standby:
    """At most one standby. ``tell`` hears what it says, ``warn`` what the person ought to know."""

    def __init__(
        self,
        spawn: Callable[[WorkerConfig, Path], Worker],
        selector: selectors.BaseSelector,
        tell: Callable[[Said], None],
        warn: Callable[[str], None],
    ) -> None:
        self._spawn = spawn
        self._selector = selector
        self._tell = tell
        self._warn = warn
        self._warned = False
        self._worker: Worker | None = None

    @property
    def pids(self) -> list[int]:
        """Its process, if there is one."""
        return [self._worker.pid] if self._worker is not None else []

    def prepare(self, config: WorkerConfig, log: Path) -> None:
        """Starts one, unless there is one already or memory is short. ``log`` is the next attempt's."""
        if self._worker is not None:
            return
        free_bytes = available_bytes()
        if free_bytes < _LEAST_FREE_BYTES:
            self._warn_once(f"no standby: only {size(free_bytes)} of memory are free")
            return
        try:
            self._worker = self._spawn(config, log)
            self._selector.register(self._worker.end_fd, selectors.EVENT_READ, self._on_end)
            self._selector.register(self._worker.link, selectors.EVENT_READ, self._on_message)
        except OSError as error:
            # The kernel may refuse to watch it as well.
            self.close()
            self._warn_once(f"no standby: it cannot be started: {error}")

    def take(self) -> Worker | None:
        """The standby, to be told what to do; None where there is none alive."""
        worker = self._worker
        if worker is None:
            return None
        self._forget()
        if worker.reap() is None:
            return worker
        worker.finish()
        return None

    def close(self) -> None:
        """Ends one that is no longer needed. It has nothing to save, and may be in a long import."""
        worker = self._worker
        if worker is not None:
            self._forget()
            end(worker)

    def _forget(self) -> None:
        assert self._worker is not None
        for source in (self._worker.end_fd, self._worker.link):
            with contextlib.suppress(KeyError):
                self._selector.unregister(source)
        self._worker = None

    def _on_message(self) -> None:
        assert self._worker is not None
        try:
            while self._worker is not None and (received := self._worker.link.poll()) is not None:
                self._tell(received[0])
        except NonsenseError as error:
            # It may be of use all the same; the rest is heard in the next round.
            self._tell(error)
        except LinkError:
            if self._worker is not None:
                self._selector.unregister(self._worker.link)

    def _on_end(self) -> None:
        worker = self._worker
        if worker is not None and worker.reap() is not None:
            self._forget()
            worker.finish()
            self._warn_once("the standby has died; the next restart takes longer")

    def _warn_once(self, text: str) -> None:
        if not self._warned:
            self._warned = True
            self._warn(text)
