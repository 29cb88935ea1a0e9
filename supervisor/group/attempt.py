"""One attempt: a group of workers, what they have said, and how they ended."""

from __future__ import annotations

from resilient.wire.heartbeat import Beat, Heartbeat, ScriptEnd
from resilient.wire.messages import (
    Hello,
    PlaceOpened,
    ProcessReplaced,
    Resumed,
    Resuming,
    SaveFailed,
    ScriptEnded,
    StepNews,
    WorkerNews,
)
from supervisor.group.last_words import LastWords
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
        self.is_mute = False
        self._told = LastWords()
        self._sent: set[int] = set()
        self._codes: dict[int, int] = {}

    def hear(self, message: WorkerNews) -> None:
        """Takes note of a worker's message."""
        self._told = self._told.plus(message)
        if not isinstance(message, StepNews):
            return
        if isinstance(message, Resuming | Resumed) and not self.progressed:
            # Of several states that are tried the last one counts, and it may be an older one.
            self.step = self.resumed_step = message.step
        if isinstance(message, SaveFailed):
            self.failed_step = max(self.failed_step, message.step)
        self.step = max(self.step, message.step)

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
        return Hello in self._told

    @property
    def was_replaced(self) -> bool:
        """Whether the script has replaced its own process by another program, which does not speak to us."""
        replaced = self._told.of(ProcessReplaced)
        return replaced is not None and bool(replaced.program)

    @property
    def has_ended_unheard(self) -> bool:
        """Whether its script has come to an end that no message has told of."""
        return ScriptEnded not in self._told and bool(self.heartbeat.outcome & ScriptEnd.ENDED)

    @property
    def told(self) -> LastWords:
        """What it has said; how one has ended that could not say it stands in its heartbeat."""
        if not self.has_ended_unheard:
            return self._told
        outcome = self.heartbeat.outcome
        told = self._told.plus(ScriptEnded(complete=bool(outcome & ScriptEnd.COMPLETE), status=0))
        return told.plus(PlaceOpened("")) if outcome & ScriptEnd.TRAINED else told

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
