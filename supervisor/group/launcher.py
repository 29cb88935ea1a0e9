"""Attempts on stage: a group of workers is launched, listened to, and cleared away.

What it means is for others: ``GroupListener`` hears what a worker says, and that a group is over.
"""

from __future__ import annotations

import contextlib
import selectors
from collections.abc import Collection
from typing import Protocol

from resilient.config import WorkerConfig
from resilient.errors import LinkError, NonsenseError
from resilient.host.clock import Clock
from resilient.run.rundir import RunDirectory
from resilient.wire.heartbeat import Heartbeat
from resilient.wire.messages import Said
from supervisor.group.attempt import Attempt
from supervisor.group.standby import Standby
from supervisor.group.worker_processes import Worker, Workers, end, tell

_MESSAGES_AT_ONCE = 200


class GroupListener(Protocol):
    """Hears of a group."""

    def on_message(self, worker: Worker, message: Said, descriptors: list[int]) -> None:
        """A worker has said something, or what made no sense."""
        ...

    def on_silence(self, worker: Worker) -> None:
        """A worker's link has ended; most often it is about to end as well."""
        ...

    def on_over(self) -> None:
        """Every worker of the group has ended; what they started may still live."""
        ...


class Launcher:
    """Launches one group after the other. ``attempt`` is the newest, ``left`` are who would not die."""

    def __init__(
        self,
        directory: RunDirectory,
        workers: Workers,
        standby: Standby,
        selector: selectors.BaseSelector,
        clock: Clock,
    ) -> None:
        self._directory = directory
        self._workers = workers
        self._standby = standby
        self._selector = selector
        self._clock = clock
        self._listener: GroupListener | None = None
        self.attempt: Attempt | None = None
        self.left: list[int] = []

    def attend(self, listener: GroupListener) -> None:
        """From now on this audience hears of the groups: before the first one is launched."""
        self._listener = listener

    @property
    def _hearer(self) -> GroupListener:
        assert self._listener is not None
        return self._listener

    @property
    def present(self) -> Attempt:
        """The newest attempt, where there is one for sure."""
        assert self.attempt is not None
        return self.attempt

    @property
    def group(self) -> list[Worker]:
        """The workers of the newest attempt."""
        return self.attempt.workers if self.attempt is not None else []

    def launch(self, config: WorkerConfig, memory: list[int]) -> Attempt:
        """Starts a group; ``memory`` is what it goes on from. Raises OSError."""
        heartbeat = Heartbeat.create()
        try:
            worker = self._worker(config, [heartbeat.descriptor, *memory])
            self._listen(worker)
        except BaseException:
            heartbeat.close()
            raise
        if self.attempt is not None:
            self.attempt.close()
        self.attempt = Attempt(config.attempt, [worker], self._clock.monotonic(), heartbeat)
        return self.attempt

    def _listen(self, worker: Worker) -> None:
        """Has the loop hear a worker; one that it cannot hear is ended. Raises OSError."""
        try:
            self._selector.register(worker.end_fd, selectors.EVENT_READ, self._on_end)
            self._selector.register(worker.link, selectors.EVENT_READ, lambda: self._on_link(worker))
        except BaseException:
            self._unlisten(worker)
            end(worker)
            raise

    def _unlisten(self, worker: Worker) -> None:
        for source in (worker.end_fd, worker.link):
            with contextlib.suppress(KeyError):
                self._selector.unregister(source)

    def _worker(self, config: WorkerConfig, shared: list[int]) -> Worker:
        """A worker that has been told what to do: the standby, or a new one. Raises OSError."""
        standby = self._standby.take()
        if standby is None:
            log = self._directory.log(config.attempt, config.rank)
            return self._workers.spawn(config, log, shared)
        tell(standby, config, shared)
        return standby

    def prepare_standby(self, config: WorkerConfig, attempt: int) -> None:
        """Has a worker made ready that the attempt of this number will be."""
        self._standby.prepare(config, self._directory.log(attempt, config.rank))

    def reap_orphans(self, spared: Collection[int]) -> None:
        """Collects dead children that have become ours."""
        ours = [worker.pid for worker in self.group]
        self._workers.reap_orphans([*ours, *spared, *self._standby.pids])

    def clear_away(self, spared: Collection[int] = ()) -> None:
        """Kills whatever is left of a group."""
        self.left = self._workers.sweep([*spared, *self._standby.pids])

    def abandon(self) -> None:
        """The group cannot be killed: the kernel holds it. Nobody waits for it any more."""
        for worker in self.present.workers:
            self._unlisten(worker)

    def _on_link(self, worker: Worker) -> None:
        try:
            # Not more at once: the other events get their turn however much a worker says.
            for _ in range(_MESSAGES_AT_ONCE):
                if not self._hear_next(worker):
                    return
        except LinkError:
            with contextlib.suppress(KeyError):
                self._selector.unregister(worker.link)
            self._hearer.on_silence(worker)

    def _on_end(self) -> None:
        attempt = self.present
        if not attempt.reap():
            return
        for worker in attempt.workers:
            self._selector.unregister(worker.end_fd)
        self._hearer.on_over()

    def finish(self) -> None:
        """Hears what an ended group has said last, and lets go of it."""
        for worker in self.present.workers:
            with contextlib.suppress(KeyError):
                self._selector.unregister(worker.link)
            with contextlib.suppress(LinkError):
                while self._hear_next(worker):
                    pass
            worker.finish()

    def _hear_next(self, worker: Worker) -> bool:
        """Passes on the next message of a worker; False when there is none. Raises LinkError at the end."""
        try:
            received = worker.link.poll()
        except NonsenseError as error:
            # The link is as it was: whatever that was, the worker may be waiting for an answer to the next.
            self._hearer.on_message(worker, error, [])
            return True
        if received is not None:
            self._hearer.on_message(worker, *received)
        return received is not None
