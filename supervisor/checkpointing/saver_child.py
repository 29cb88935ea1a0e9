"""The saver of one rank, as the supervisor sees it: a child that commits slots of the rank's mirror.

The supervisor holds the mirror's memory and knows what is being committed, the child knows nothing that
cannot be sent again. So a child that dies is replaced, and what it had in hand is asked for once more; after
a few deaths over one commit that commit has failed, and the run goes on. One commit is under way at a time;
of what comes meanwhile the newest waits. Nothing here ever waits for the child.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from resilient.config import WorkerConfig
from resilient.errors import LinkError, MirrorError, StalledError
from resilient.host.shared_memory import SharedMemory
from resilient.wire.messages import CommitSlot, Message, SaverOrder, SaverReady, SlotCommitted, TakeOver
from resilient.wire.mirror import Mirror, Slot
from supervisor.group.worker_processes import Worker, end

_MOST_DEATHS = 3


@dataclass(frozen=True)
class CommitRequest:
    """A commit that is asked for. ``worker`` is who asked and waits for the answer, if anybody."""

    mirror: Mirror
    slot: Slot
    epoch: int
    reason: str
    failure: bool
    worker: Worker | None = None


@dataclass(frozen=True)
class CommitOutcome:
    """The end of a commit: the file's name, folder and generation, or the error; what else is worth telling.

    ``lasting`` tells that trying once more would fail as well: it is not the disk that has refused.
    """

    save: CommitRequest
    file: str = ""
    error: str = ""
    epoch: int = 0
    seconds: float = 0.0
    remarks: tuple[str, ...] = ()
    lasting: bool = False
    directory: str = ""
    generation: int = 0


Opened = Callable[[str, tuple[str, ...]], None]


@dataclass(frozen=True)
class SavingMeans:
    """The means to save without this saver: the store, the mirror, the child and its commit."""

    config: WorkerConfig | None
    mirror: Mirror | None
    child: Worker | None
    flying: CommitRequest | None


class SaverListener(Protocol):
    """How the loop listens to the child, and hears what comes of it."""

    def watch(self, child: Worker) -> None: ...

    def unwatch(self, child: Worker) -> None: ...

    def saved(self, outcome: CommitOutcome) -> None:
        """A commit has succeeded or failed."""
        ...

    def settled(self) -> None:
        """Nothing is being saved any more."""
        ...


class SaverChild:
    """Has slots committed. ``spawn`` starts a child for a store; it raises OSError."""

    def __init__(self, spawn: Callable[[WorkerConfig], Worker], listener: SaverListener) -> None:
        self._spawn = spawn
        self._listener = listener
        self._config: WorkerConfig | None = None
        self._opened: Opened | None = None
        self._next: tuple[WorkerConfig, Opened] | None = None
        self._ready = False
        self._leaving = False
        self._flying: CommitRequest | None = None
        self._waiting: CommitRequest | None = None
        self._deaths = 0
        self._retired: list[Mirror] = []
        self.mirror: Mirror | None = None
        self.child: Worker | None = None

    @property
    def busy(self) -> bool:
        """Whether something is being saved."""
        return self._flying is not None or self._waiting is not None

    @property
    def kept_step(self) -> int:
        """The newest step in the mirror; 0 for none."""
        slot = self.mirror.newest() if self.mirror is not None else None
        return slot.step if slot is not None else 0

    @property
    def pids(self) -> list[int]:
        """The child's process, if there is one."""
        return [self.child.pid] if self.child is not None else []

    # Requests

    def open(self, config: WorkerConfig, opened: Opened) -> None:
        """Opens a store; ``opened`` hears the error, "" for none, and what was found on the way."""
        self._leaving = False
        if self._ready and config == self._config:
            opened("", ())
        elif self.busy:
            self._next = config, opened
        else:
            self.close()
            self._config, self._opened, self._deaths = config, opened, 0
            self._start()

    def hold(self, descriptor: int) -> None:
        """From now on this is the rank's mirror."""
        try:
            new = Mirror.of(descriptor)
        except MirrorError:
            return
        if self.mirror is not None:
            self._retired.append(self.mirror)
        self.mirror = new
        self._let_go()

    def let_mirror_go(self) -> None:
        """The rank has no mirror any more."""
        if self.mirror is not None:
            self._retired.append(self.mirror)
        self.mirror = None
        self._let_go()

    def commit(self, save: CommitRequest) -> None:
        """Has a slot committed; of several that wait, the newest is. Raises MirrorError for no slot."""
        save.mirror.pin(save.slot.number)
        if self._flying is not None:
            replaced, self._waiting = self._waiting, save
            if replaced is not None:
                self._tell(CommitOutcome(replaced, error="a newer state has taken its place", lasting=True))
                self._let_go()
            return
        self._flying, self._deaths = save, 0
        self._send()

    def newer_than(self, step: int) -> Slot | None:
        """The mirror's newest slot, if it holds a later step than that and is not being committed."""
        slot = self.mirror.newest() if self.mirror is not None else None
        known = [save.slot.step for save in self._asked]
        return slot if slot is not None and slot.step > max([step, *known]) else None

    def free_slots(self) -> None:
        """No worker lives: only what is being committed stays pinned."""
        if self.mirror is not None:
            self.mirror.unpin_all()
            for save in self._asked:
                save.mirror.pin(save.slot.number)

    def close(self) -> None:
        """Lets the child go; it leaves when it has done what it has in hand."""
        child, self.child = self.child, None
        self._ready = False
        if child is not None:
            self._listener.unwatch(child)
            child.finish()

    def close_when_idle(self) -> None:
        """Lets the child go, at the latest when nothing is being saved any more."""
        self._leaving = True
        # The worker that wanted a store opened is not there any more: no child may take its lock.
        self._next = self._opened = None
        if not self.busy:
            self.close()

    def leave(self) -> SavingMeans:
        """Lets go of everything without a word to the child; for an end that is not the saver's own."""
        child, self.child = self.child, None
        if child is not None:
            self._listener.unwatch(child)
        return SavingMeans(self._config, self.mirror, child, self._flying)

    # Answers

    def on_message(self) -> None:
        """The child has said something."""
        assert self.child is not None
        try:
            while self.child is not None and (received := self.child.link.poll()) is not None:
                self._hear(received[0])
        except LinkError:
            # It has died, which is heard of as well; or it talks nonsense, and is of no more use.
            self._ready = False
            if self.child is not None:
                self.child.signal(signal.SIGKILL)

    def on_end(self) -> None:
        """The child has died."""
        child = self.child
        if child is None or child.reap() is None:
            return
        with contextlib.suppress(LinkError):
            # Its last words count: a commit may be done, and must not be asked for again.
            while self.child is child and (received := child.link.poll()) is not None:
                self._hear(received[0])
        if self.child is not child:
            # What it said has let it go; whichever child there is now lives.
            return
        self.close()
        self._deaths += 1
        if self._flying is None and self._opened is None:
            return
        if self._deaths < _MOST_DEATHS:
            self._start()
        else:
            self._give_up(f"the saver died {self._deaths} times")

    # Inside

    @property
    def _asked(self) -> list[CommitRequest]:
        """The save under way, and the one that waits."""
        return [save for save in (self._flying, self._waiting) if save is not None]

    def _start(self) -> None:
        if self._config is None:
            self._give_up("no store was opened", lasting=True)
            return
        try:
            self.child = self._spawn(self._config)
            self._listener.watch(self.child)
        except OSError as error:
            # The kernel may refuse to watch it as well.
            child, self.child = self.child, None
            if child is not None:
                self._listener.unwatch(child)
                end(child)
            self._give_up(f"the saver cannot be started: {error}")
            return
        self._post(TakeOver())

    def _send(self) -> None:
        if self.child is None:
            self._start()
        if self._ready and self._flying is not None:
            self._post(_request(self._flying), [_descriptor(self._flying.mirror)])

    def _post(self, order: SaverOrder, descriptors: list[int] | None = None) -> None:
        if self.child is None:
            return
        try:
            self.child.link.send(order, descriptors or [], patience_s=0.0)
        except LinkError:
            # One that has died is found by its end, and asked for again.
            pass
        except StalledError:
            # So does one that does not read: what it has in hand is asked of another one.
            self.child.signal(signal.SIGKILL)

    def _hear(self, answer: Message) -> None:
        """Raises LinkError for what answers nothing that was asked."""
        save = self._flying
        if isinstance(answer, SaverReady):
            self._hear_ready(answer)
            return
        if save is None or not isinstance(answer, SlotCommitted):
            raise LinkError("the saver answers what nobody has asked")
        self._land(
            CommitOutcome(
                save,
                Path(answer.path).name if answer.path else "",
                answer.error,
                answer.epoch or save.epoch,
                answer.seconds,
                answer.remarks,
                answer.lasting,
                str(Path(answer.path).parent) if answer.path else "",
                answer.generation,
            )
        )

    def _hear_ready(self, answer: SaverReady) -> None:
        if answer.error:
            self.close()
            self._give_up(answer.error, lasting=answer.lasting)
            return
        self._ready = True
        opened, self._opened = self._opened, None
        if opened is not None:
            opened("", answer.remarks)
        self._send()

    def _give_up(self, error: str, *, lasting: bool = False) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            opened(error, ())
        if self._flying is not None:
            self._land(CommitOutcome(self._flying, error=error, lasting=lasting))

    def _land(self, outcome: CommitOutcome) -> None:
        """A commit is over; the next one, if one waits, begins."""
        self._flying = None
        self._tell(outcome)
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self.commit(waiting)
        self._let_go()
        if not self.busy:
            if self._leaving:
                self.close()
            self._open_next()
            self._listener.settled()

    def _open_next(self) -> None:
        """A store that was to be opened while another one's last commit was under way."""
        wanted, self._next = self._next, None
        if wanted is not None:
            self.open(*wanted)

    def _tell(self, outcome: CommitOutcome) -> None:
        mirror, number = outcome.save.mirror, outcome.save.slot.number
        if not any(save.mirror is mirror and save.slot.number == number for save in self._asked):
            mirror.unpin(number)
        if mirror is not self.mirror:
            self._retired.append(mirror)
        self._listener.saved(outcome)

    def _let_go(self) -> None:
        """Closes mirrors that nobody needs any more."""
        needed = {id(save.mirror) for save in self._asked}
        for mirror in self._retired:
            if id(mirror) not in needed:
                mirror.close()
        self._retired = [mirror for mirror in self._retired if id(mirror) in needed]


def _request(save: CommitRequest) -> CommitSlot:
    # A failure's state is wanted at once; while the training runs, its own reading comes first.
    return CommitSlot(save.slot, save.reason, save.failure, hurry=save.failure or save.worker is None)


def _descriptor(mirror: Mirror) -> int:
    assert isinstance(mirror.memory, SharedMemory)
    return mirror.memory.descriptor
