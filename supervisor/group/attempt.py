"""One attempt: a group of workers, what they have said, and how they ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from resilient.wire.heartbeat import Beat, Heartbeat, ScriptEnd
from supervisor.group.worker_processes import Worker


class Attempt:
    """A group of workers from its launch to its end.

    ``number`` counts from 1 over the whole run. Of what the workers say, ``step`` is the newest completed
    one, ``resumed_step`` the one they go on from, or are about to, ``failed_step`` the newest one that could
    not be saved. ``is_mute`` tells that a worker lives and has no link any more.
    """

    def __init__(self, number: int, workers: list[Worker], began_s: float, heartbeat: Heartbeat) -> None:
        self.number = number
        self.workers = workers
        self.began_s = began_s
        self.heartbeat = heartbeat
        self.step = 0
        self.resumed_step = 0
        self.failed_step = 0
        self.saved: Mapping[str, Any] | None = None
        self.is_mute = False
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
        if kind in ("resuming", "resumed") and not self.progressed:
            # Of several states that are tried the last one counts, and it may be an older one.
            self.step = self.resumed_step = step
        if kind == "save_failed":
            self.failed_step = max(self.failed_step, step)
        self.step = max(self.step, step)
        if kind == "saved":
            self.saved = message

    def fall_mute(self) -> bool:
        """A worker of it lives and has no link any more; whether that is news."""
        was_mute, self.is_mute = self.is_mute, True
        return not was_mute

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

    @property
    def progressed(self) -> bool:
        """Whether it has completed a step by itself; what it goes on from was there before."""
        return self.step > self.resumed_step

    @property
    def speaks(self) -> bool:
        """Whether its workers are ours, and have said so; any other command does not know our signals."""
        return "hello" in self._told

    @property
    def was_replaced(self) -> bool:
        """Whether the script has replaced its own process by another program, which does not speak to us."""
        return bool(self._told.get("replaced", {}).get("program"))

    @property
    def has_ended_unheard(self) -> bool:
        """Whether its script has come to an end that no message has told of."""
        return "finished" not in self._told and bool(self.heartbeat.outcome & ScriptEnd.ENDED)

    @property
    def told(self) -> Mapping[str, Mapping[str, Any]]:
        """The last message of each type; how one has ended that could not say it stands in its heartbeat."""
        if not self.has_ended_unheard:
            return self._told
        outcome = self.heartbeat.outcome
        found = {"finished": {"type": "finished", "complete": bool(outcome & ScriptEnd.COMPLETE)}}
        return {**self._told, **found, **({"place": {}} if outcome & ScriptEnd.TRAINED else {})}

    @property
    def sent(self) -> frozenset[int]:
        """The signals that we have sent it."""
        return frozenset(self._sent)

    @property
    def code(self) -> int:
        """How it ended, once all workers have. One that failed speaks for the group."""
        return next((code for code in self._codes.values() if code != 0), 0)

    def look(self) -> Beat:
        """What the heartbeat says now."""
        beat = self.heartbeat.read()
        self.step = max(self.step, beat.step)
        return beat

    def close(self) -> None:
        """Lets go of what was shared with the workers."""
        self.heartbeat.close()
