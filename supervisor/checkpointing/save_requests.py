"""Commits for the workers: answers their requests, and saves the mirror they leave behind.

The loop hands over the messages that are about saving, and hears as a worker's news how each save ended.
One of the requests holds a key: none of them is journalled.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from resilient.config import WorkerConfig
from resilient.errors import LinkError, MirrorError, NonsenseError
from resilient.host.shared_memory import SharedMemory
from resilient.wire.link import LIMIT_BYTES
from resilient.wire.messages import (
    CheckpointSaved,
    DropMirror,
    Message,
    OpenStore,
    Said,
    SaveDone,
    SaveFailed,
    SaveSlot,
    SavingRequest,
    StoreOpened,
    TakeMirror,
    Warned,
    WorkerNews,
    WorkerOrder,
)
from resilient.wire.mirror import Mirror, Slot
from supervisor.checkpointing.saver_child import CommitOutcome, CommitRequest, SaverChild, SavingMeans
from supervisor.group.worker_processes import Worker
from supervisor.verdict.deadline import CommitCost
from supervisor.verdict.readiness import Obstacle, ObstacleKind
from supervisor.verdict.standing import Standing

_TEMPORARY = re.compile(r"/\.([^/]+)\.[0-9a-f]{16}\.tmp\b")
# A worker that asks for these waits for the answer.
_ANSWERS: Mapping[type, type[StoreOpened | SaveDone]] = {OpenStore: StoreOpened, SaveSlot: SaveDone}


class SaveListener(Protocol):
    """Hears how each save has ended."""

    def heard(self, worker: Worker | None, message: WorkerNews) -> None:
        """``message`` is about a save that this worker has asked for; None when none did."""
        ...


class SaveRequests:
    """The saver of one rank, between the workers and the loop.

    ``on_settled`` is called whenever nothing is being saved any more.
    """

    def __init__(
        self,
        config: WorkerConfig,
        spawn: Callable[[WorkerConfig], Worker],
        selector: selectors.BaseSelector,
        listener: SaveListener,
        on_settled: Callable[[], None],
    ) -> None:
        self._config = config
        self._selector = selector
        self._listener = listener
        self._on_settled = on_settled
        self._saver = SaverChild(spawn, self)
        self._failed: CommitOutcome | None = None
        self._hopeless: CommitRequest | None = None
        self._last_s: float | None = None

    @property
    def busy(self) -> bool:
        """Whether something is being saved."""
        return self._saver.busy

    @property
    def pids(self) -> list[int]:
        """The saver's process, if there is one."""
        return self._saver.pids

    @property
    def kept_step(self) -> int:
        """The newest step in memory; 0 for none."""
        return self._saver.kept_step

    @property
    def cost(self) -> CommitCost:
        """How long a commit may take, as far as that is known."""
        mirror = self._saver.mirror
        return CommitCost(self._last_s, mirror.layout.data_bytes if mirror is not None else 0)

    def hear(self, worker: Worker, message: Said, descriptors: list[int]) -> bool:
        """Does what a worker asks for; False when the message is about something else, or makes no sense.

        The descriptors are closed in any case, but for what is kept.
        """
        unused = list(descriptors)
        try:
            if isinstance(message, SavingRequest):
                self._do(worker, message, unused)
            elif isinstance(message, NonsenseError):
                self._answer_error(worker, message.of, str(message))
        except Exception as error:  # noqa: BLE001 - the asker must not wait for ever
            self._refuse(worker, message, error)
        finally:
            _close(unused)
        return isinstance(message, SavingRequest)

    def _do(self, worker: Worker, request: SavingRequest, descriptors: list[int]) -> None:
        """Does what is asked for, and takes from ``descriptors`` what it keeps."""
        match request:
            case OpenStore():
                self._open(worker, request)
            case TakeMirror():
                self._saver.hold(descriptors.pop(0))
            case DropMirror():
                self._saver.let_mirror_go()
                self._saver.close_when_idle()
            case SaveSlot():
                self._save(worker, request, descriptors)

    def _refuse(self, worker: Worker, message: Said, error: Exception) -> None:
        """A request made no sense. Of what it said nothing is repeated: there may be a key in it."""
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(frame.filename).name}, line {frame.lineno}"
        word = message.word if isinstance(message, Message) else "?"
        text = f"a request ({word}) of the training made no sense: {type(error).__name__} ({place})"
        self._listener.heard(worker, Warned(text))
        self._answer_error(worker, type(message), text)

    def _answer_error(self, worker: Worker, kind: type | None, text: str) -> None:
        if kind is not None and kind in _ANSWERS:
            answer(worker, _ANSWERS[kind](text))

    def offer(self, standing: Standing) -> list[int]:
        """The memory that the next attempt resumes from, if it may."""
        if self._failed is not None and self._failed.lasting:
            # From here on it is the next attempt's to say what becomes of it.
            self._failed = None
        mirror = self._saver.mirror
        if mirror is None or not standing.resumes_from_memory:
            # The next worker cleans up and commits by itself at first: it needs the rank's lock.
            self._saver.let_mirror_go()
            self._saver.close_when_idle()
            return []
        self._saver.free_slots()
        assert isinstance(mirror.memory, SharedMemory)
        return [mirror.memory.descriptor]

    def leave_to_worker(self) -> None:
        """A worker cannot ask us any more: the saver leaves, so that it gets the lock and commits by itself.

        The memory stays: the worker goes on writing into it.
        """
        self._saver.close_when_idle()

    def save_newer(self, standing: Standing, reason: str, *, failure: bool) -> None:
        """The workers have ended: what they had completed and not saved is saved for them."""
        slot = self._saver.newer_than(standing.durable_step)
        if slot is not None and self._saver.mirror is not None and not self._is_hopeless(slot):
            self._saver.commit(CommitRequest(self._saver.mirror, slot, 0, reason, failure))

    def _is_hopeless(self, slot: Slot) -> bool:
        """Whether this very slot was tried, and would fail again."""
        tried = self._hopeless
        return tried is not None and tried.mirror is self._saver.mirror and tried.slot == slot

    def obstacle(self, standing: Standing) -> Obstacle | None:
        """Why what dead workers have left is in memory alone; None where it is not, or never will be saved.

        The next attempt does not need memory that is not usable: to lose it costs nothing.
        """
        failed = self._failed_for(standing)
        if failed is None or failed.lasting:
            return None
        return Obstacle(ObstacleKind.SAVING, self.unsaved(standing), fatal=standing.usable)

    def unsaved(self, standing: Standing) -> str:
        """The step in memory that is not on disk though it was to be, and why, in words; empty for none."""
        left = f"step {standing.kept_step} was left in memory, and could NOT be saved"
        failed = self._failed_for(standing)
        if failed is not None:
            # A person knows the file by its name; that of the temporary one is another each time.
            return f"{left}: " + _TEMPORARY.sub(r"/\1", failed.error)
        return f"{left} in time" if self.busy and standing.is_ahead else ""

    def _failed_for(self, standing: Standing) -> CommitOutcome | None:
        """The commit of the newest state in memory, if it has failed and nothing as new is on disk."""
        failed = self._failed
        known = failed is not None and standing.kept_step <= failed.save.slot.step
        return failed if known and standing.is_ahead else None

    def save_again(self, standing: Standing) -> None:
        """Tries once more what has failed; nothing while something is being saved."""
        if self._failed is not None and not self.busy:
            save = self._failed.save
            self.save_newer(standing, save.reason, failure=save.failure)

    def leave(self) -> SavingMeans:
        """The means to save without us."""
        return self._saver.leave()

    def close(self) -> None:
        """Lets the saver go, which has what it commits in hands of its own, and the memory."""
        self._saver.close()
        self._saver.let_mirror_go()

    def _open(self, worker: Worker, request: OpenStore) -> None:
        """A worker hands the committing over to the saver. The request holds a key: it goes no further."""
        config = replace(
            self._config, directory=request.directory, keep=request.keep, sealing=request.sealing
        )

        def opened(error: str, remarks: tuple[str, ...]) -> None:
            for remark in remarks:
                self._listener.heard(worker, Warned(remark))
            answer(worker, StoreOpened(error))

        self._saver.open(config, opened)

    def _save(self, worker: Worker, request: SaveSlot, descriptors: list[int]) -> None:
        """A worker asks for a commit, of its mirror or of memory that comes with the request."""
        apart = Mirror.of(descriptors.pop(0)) if descriptors else None
        mirror = apart or self._saver.mirror
        if mirror is None:
            answer(worker, SaveDone("there is no mirror"))
            return
        try:
            save = CommitRequest(mirror, request.slot, request.epoch, request.reason, request.failure, worker)
            self._saver.commit(save)
        except MirrorError:
            if apart is not None:
                apart.close()
            raise

    # Ears of the saver

    def watch(self, child: Worker) -> None:
        """Listens to a saver."""
        self._selector.register(child.end_fd, selectors.EVENT_READ, self._saver.on_end)
        self._selector.register(child.link, selectors.EVENT_READ, self._saver.on_message)

    def unwatch(self, child: Worker) -> None:
        """Stops listening to a saver."""
        for source in (child.end_fd, child.link):
            with contextlib.suppress(KeyError):
                self._selector.unregister(source)

    def saved(self, outcome: CommitOutcome) -> None:
        """A commit has succeeded or failed."""
        save = outcome.save
        self._failed = outcome if outcome.error else None
        self._hopeless = save if outcome.lasting else self._hopeless
        self._last_s = self._last_s if outcome.error else outcome.seconds
        self._listener.heard(save.worker, _news(outcome))
        for remark in outcome.remarks:
            self._listener.heard(save.worker, Warned(remark))
        if save.worker is not None:
            answer(save.worker, SaveDone(outcome.error))

    def settled(self) -> None:
        """Nothing is being saved any more."""
        self._on_settled()


def answer(worker: Worker, answer: WorkerOrder) -> None:
    """Tells a worker something; one that has died does not hear it. Raises StalledError."""
    with contextlib.suppress(LinkError, OSError):
        # The worker waits for this; we do not wait for the worker.
        worker.link.send(answer, patience_s=0.0, limit_bytes=LIMIT_BYTES)


def _news(outcome: CommitOutcome) -> CheckpointSaved | SaveFailed:
    """How the journal and the person hear of a commit."""
    save = outcome.save
    if outcome.error:
        return SaveFailed(save.slot.step, outcome.error, save.reason, left_behind=save.worker is None)
    return CheckpointSaved(
        step=save.slot.step,
        epoch=outcome.epoch,
        file=outcome.file,
        reason=save.reason,
        seconds=round(outcome.seconds, 3),
        directory=outcome.directory,
        generation=outcome.generation,
    )


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
