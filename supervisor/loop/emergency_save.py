"""The end of a supervisor that cannot go on because of a fault of its own: first it has the memory saved.

To the worker and the saver it is as if the supervisor had died: they hear the end of the link, the worker is
asked to save and end, and commits by itself. But the supervisor is still there to wait for them, to have a
fresh saver commit for a worker that could not, and to say what is safe. Nothing here uses the loop, which
has failed: each step asks one process directly, waits with a deadline, and does not need the one before.
"""

from __future__ import annotations

import contextlib
import select
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from resilient.config import WorkerConfig
from resilient.errors import EXIT_BROKEN, LinkError, NonsenseError
from resilient.host.shared_memory import SharedMemory
from resilient.journal.events import StepSaved, SupervisorBroken, SupervisorEnded
from resilient.wire.messages import (
    CheckpointSaved,
    CommitSlot,
    Message,
    SaverAnswer,
    SlotCommitted,
    TakeOver,
    WorkerNews,
)
from resilient.wire.mirror import Mirror, Slot
from supervisor.checkpointing.save_requests import SaveRequests
from supervisor.checkpointing.saver_child import SavingMeans
from supervisor.edges.journal_writer import JournalWriter
from supervisor.group.worker_processes import Worker, end
from supervisor.loop.internal_errors import traceback_of, words_of
from supervisor.telling.news import event_of
from supervisor.telling.story import Story

_KILLED_S = 5.0
_COMMIT_S = 120.0
_REASON = "supervisor"


class EmergencySave:
    """Ends a run without its loop. ``spawn_saver`` starts a saver for a store; it raises OSError.

    Workers have ``grace_s`` to save by themselves.
    """

    def __init__(
        self,
        spawn_saver: Callable[[WorkerConfig], Worker],
        story: Story,
        journal: JournalWriter,
        grace_s: float,
    ) -> None:
        self._spawn_saver = spawn_saver
        self._story = story
        self._journal = journal
        self._grace_s = grace_s
        self._safe_step = 0

    def bid(
        self, error: BaseException, workers: Sequence[Worker], save_requests: SaveRequests, durable_step: int
    ) -> None:
        """Reports the fault, has the memory saved, names the safe step; ``durable_step`` is safe already."""
        self._safe_step = durable_step
        self._journal.write(SupervisorBroken(words_of(error), traceback_of(error)))
        self._story.breaking(words_of(error.__cause__ or error))
        commit_s, legacy = _COMMIT_S, SavingMeans(None, None, None, None)
        with contextlib.suppress(Exception):
            commit_s = save_requests.cost.patience_s
        with contextlib.suppress(Exception):
            legacy = save_requests.leave()
        lost = self._save(workers, legacy, commit_s)
        self._story.broken(self._safe_step, lost)
        self._journal.write(SupervisorEnded(EXIT_BROKEN, self._safe_step, lost))

    def _save(self, workers: Sequence[Worker], legacy: SavingMeans, commit_s: float) -> str:
        """Ends the workers, and has their state saved: what is lost, if anything."""
        child = legacy.child
        for one in [*workers, *([child] if child is not None else [])]:
            with contextlib.suppress(OSError):
                one.link.finish()
        for worker in workers:
            with contextlib.suppress(Exception):
                self._end_worker(worker)
        if child is not None:
            self._hear_out(child, legacy, commit_s)
        slot = _newest(legacy.mirror)
        if slot is None or slot.step <= self._safe_step:
            return ""
        if error := self._commit(legacy, slot, commit_s):
            return f"step {slot.step} was left in memory, and could NOT be saved: {error}"
        return ""

    def _end_worker(self, worker: Worker) -> None:
        """Asks a worker to save and end, and kills it when it does not."""
        for number in (signal.SIGTERM, signal.SIGCONT):
            with contextlib.suppress(Exception):
                worker.signal(number)
        for message in _until_its_end(worker, self._grace_s):
            if isinstance(message, WorkerNews):
                self._journal.write(event_of(message))
            if isinstance(message, CheckpointSaved):
                self._safe_step = max(self._safe_step, message.step)
        if worker.reap() is None:
            worker.signal(signal.SIGKILL)
            _wait([worker.end_fd], time.monotonic() + _KILLED_S)

    def _hear_out(self, child: Worker, legacy: SavingMeans, patience_s: float) -> None:
        """Waits for a saver, which leaves when it has done what it has in hand."""
        with contextlib.suppress(Exception):
            for answer in _until_its_end(child, patience_s):
                if isinstance(answer, SlotCommitted) and legacy.flying is not None:
                    self._note(legacy.flying.slot, answer)
        # One that a disk holds would hold the lock as well.
        with contextlib.suppress(Exception):
            end(child)

    def _commit(self, legacy: SavingMeans, slot: Slot, commit_s: float) -> str:
        """Has a saver of its own commit a slot: what went wrong, if anything did."""
        if legacy.config is None or legacy.mirror is None:
            return "no store was opened"
        try:
            saver = self._spawn_saver(legacy.config)
        except Exception as error:  # noqa: BLE001 - the last line says it
            return f"the saver cannot be started: {error}"
        try:
            answer = _have_committed(saver, legacy.mirror, slot, time.monotonic() + commit_s)
            if isinstance(answer, SlotCommitted):
                self._note(slot, answer)
            return answer.error
        except Exception as error:  # noqa: BLE001 - the last line says it
            return words_of(error)
        finally:
            end(saver)

    def _note(self, slot: Slot, answer: SlotCommitted) -> None:
        """A commit is over."""
        if answer.path:
            self._safe_step = max(self._safe_step, slot.step)
            file = Path(answer.path).name
            self._journal.write(StepSaved(slot.step, answer.epoch, file, _REASON))


def _have_committed(saver: Worker, mirror: Mirror, slot: Slot, end_s: float) -> SaverAnswer:
    """Has a saver open its store and commit a slot: its last answer."""
    assert isinstance(mirror.memory, SharedMemory)
    saver.link.send(TakeOver())
    ready = _answer(saver, end_s)
    if ready.error:
        return ready
    order = CommitSlot(slot, _REASON, failure=True, hurry=True)
    saver.link.send(order, [mirror.memory.descriptor])
    return _answer(saver, end_s)


def _answer(saver: Worker, end_s: float) -> SaverAnswer:
    """Waits for a saver's answer; one of our own where there is none in time."""
    while time.monotonic() < end_s:
        _wait([saver.link.fileno()], end_s)
        received = None
        with contextlib.suppress(NonsenseError):
            received = saver.link.poll()
        if received is not None and isinstance(received[0], SaverAnswer):
            return received[0]
    return SaverAnswer("the saver did not answer in time")


def _until_its_end(worker: Worker, patience_s: float) -> Iterator[Message]:
    """The messages of a process until it ends, or the patience does."""
    end_s = time.monotonic() + patience_s
    is_over = False
    while not is_over:
        # In this order: what it has said before its end is there once it has ended.
        is_over = worker.reap() is not None or time.monotonic() >= end_s
        with contextlib.suppress(LinkError):
            yield from _said(worker)
            if not is_over:
                _wait([worker.end_fd, worker.link.fileno()], end_s)
            continue
        if not is_over:
            _wait([worker.end_fd], end_s)


def _said(worker: Worker) -> Iterator[Message]:
    """The messages that have come from a process so far. Raises LinkError at the end of its link."""
    while True:
        try:
            received = worker.link.poll()
        except NonsenseError:
            # One message; the next may be a checkpoint.
            continue
        if received is None:
            return
        yield received[0]


def _wait(descriptors: list[int], end_s: float) -> None:
    waiting = select.poll()
    for descriptor in descriptors:
        waiting.register(descriptor, select.POLLIN)
    waiting.poll(max(0.0, end_s - time.monotonic()) * 1000)


def _newest(mirror: Mirror | None) -> Slot | None:
    with contextlib.suppress(Exception):
        if mirror is not None:
            return mirror.newest()
    return None
