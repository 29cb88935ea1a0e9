"""One attempt: a group of workers, what they have said, and how they ended."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any

from resilient.heartbeat import Beat, Heartbeat
from supervisor.classify import Evidence
from supervisor.workers import Worker


class Attempt:
    """A group of workers from its launch to its end.

    ``number`` counts from 1 over the whole run. Of what the workers say, ``step`` is the newest completed
    one, ``resumed_step`` where they went on from, ``failed_step`` the newest one that could not be saved.
    """

    def __init__(self, number: int, workers: list[Worker], began_s: float, heartbeat: Heartbeat) -> None:
        self.number = number
        self.workers = workers
        self.began_s = began_s
        self._heartbeat = heartbeat
        self.step = 0
        self.resumed_step = 0
        self.failed_step = 0
        self.saved: Mapping[str, Any] | None = None
        self._told: dict[str, Mapping[str, Any]] = {}
        self._sent: set[int] = set()
        self._codes: dict[int, int] = {}

    def hear(self, message: Mapping[str, Any]) -> None:
        """Takes note of a worker's message."""
        kind = message["type"]
        self._told[kind] = message
        step = message.get("step")
        if not isinstance(step, int):
            return
        if kind == "resumed":
            self.resumed_step = step
        if kind == "save_failed":
            self.failed_step = max(self.failed_step, step)
        self.step = max(self.step, step)
        if kind == "saved":
            self.saved = message

    def send(self, number: int) -> None:
        """Sends every worker a signal, once for each time it is asked."""
        self._sent.add(number)
        for worker in self.workers:
            worker.signal(number)

    def reap(self) -> bool:
        """Collects the workers that have ended; whether all have."""
        for worker in self.workers:
            code = worker.reap()
            if code is not None:
                self._codes[worker.pid] = code
        return len(self._codes) == len(self.workers)

    def evidence(self) -> Evidence:
        """What was seen of it, once all workers have ended. One that failed speaks for the group."""
        codes = list(self._codes.values())
        code = next((code for code in codes if code != 0), 0)
        self.look()
        return Evidence(code, dict(self._told), frozenset(self._sent), self.step > self.resumed_step)

    def look(self) -> Beat:
        """What the heartbeat says now."""
        beat = self._heartbeat.read()
        self.step = max(self.step, beat.step)
        return beat

    def close(self) -> None:
        """Lets go of what was shared with the workers."""
        self._heartbeat.close()

    @property
    def killed_by_us(self) -> bool:
        return signal.SIGKILL in self._sent
