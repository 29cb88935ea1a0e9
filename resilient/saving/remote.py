"""The worker's side of the saver: what it asks the supervisor to have committed, and what it hears.

    worker → supervisor      OpenStore, TakeMirror, SaveSlot, DropMirror
    supervisor → worker      StoreOpened, SaveDone

One save is under way at a time. Only the main thread receives. When the supervisor is gone, LinkError.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import psutil

from resilient.config import KeepPolicy, Sealing
from resilient.errors import StorageError
from resilient.host.clock import Clock
from resilient.host.shared_memory import SharedMemory
from resilient.saving.in_process import Saver
from resilient.wire.heartbeat import Heartbeat
from resilient.wire.link import Link
from resilient.wire.messages import (
    DropMirror,
    Message,
    OpenStore,
    SaveDone,
    SaveSlot,
    StoreOpened,
    TakeMirror,
)
from resilient.wire.mirror import Mirror, Slot

_LOOK_S = 1.0
_STOPPED_LOOKS = 30
"""One after the other: a debugger, or a shell that moves it into the background, stops it for a moment."""


class PendingCommit(Protocol):
    """A commit that is asked for."""

    @property
    def slot(self) -> Slot: ...

    @property
    def reason(self) -> str: ...

    @property
    def failure(self) -> bool: ...


class RemoteSaver:
    """Asks the supervisor for commits of slots; ``mirror`` is the one that it holds already."""

    def __init__(self, link: Link, mirror: Mirror | None = None) -> None:
        self._link = link
        self._theirs = mirror
        self._flying = False
        self._succeeded = True

    def open(self, directory: Path, keep: KeepPolicy, sealing: Sealing) -> None:
        """Waits until the saver has opened this store. Raises StorageError when it cannot, LinkError."""
        self._link.send(OpenStore(directory, keep, sealing))
        while not isinstance(answer := self._link.receive()[0], StoreOpened):
            self._hear(answer)
        if answer.error:
            raise StorageError(answer.error)

    def leave(self) -> None:
        """From now on this process commits by itself. Raises LinkError."""
        self.wait()
        self._link.send(DropMirror())

    def hand_over(self, mirror: Mirror) -> bool:
        """Tells which mirror is the rank's from now on. Raises LinkError."""
        if mirror is not self._theirs:
            memory = _memory(mirror)
            try:
                self._link.send(TakeMirror(), [memory.descriptor])
            finally:
                # It is mapped here, and open there: what is not open no script can close.
                memory.close()
            self._theirs = mirror
        return True

    def ask(self, wanted: PendingCommit, epoch: int, apart: Mirror | None) -> None:
        """Has a pinned slot committed: of the rank's mirror, or of one ``apart``. Raises LinkError."""
        assert not self._flying
        message = SaveSlot(wanted.slot, epoch, wanted.reason, wanted.failure)
        self._link.send(message, [] if apart is None else [_memory(apart).descriptor])
        self._flying = True

    @property
    def busy(self) -> bool:
        """Whether a save is under way, as far as was heard."""
        return self._flying

    def listen(self) -> bool:
        """Takes note of what has been answered, without waiting. Raises LinkError."""
        while self._flying and (received := self._link.poll()) is not None:
            self._hear(received[0])
        return True

    def wait(self) -> bool:
        """Returns when no save is under way: whether the last one succeeded. Raises LinkError."""
        while self._flying:
            self._hear(self._link.receive()[0])
        return self._succeeded

    def wait_while_awake(self) -> bool:
        """As :meth:`wait`, but not for a supervisor that stays stopped: a save may be under way then.

        It holds the memory, and has it saved when it goes on: a worker that fails need not be there for that.
        """
        looks = 0
        while self._flying and looks < _STOPPED_LOOKS:
            received = self._link.poll(_LOOK_S)
            if received is not None:
                self._hear(received[0])
            looks = looks + 1 if received is None and _is_stopped(os.getppid()) else 0
        return self._succeeded and not self._flying

    def _hear(self, message: Message) -> None:
        if isinstance(message, SaveDone):
            self._flying = False
            self._succeeded = not message.error


@dataclass(frozen=True)
class MirrorMeans:
    """What it takes to keep a mirror.

    ``make(meta bytes, sizes of blobs)`` gives a mirror with that much room: the one that is there, or a new
    one; it raises MirrorFullError where there is no memory for it. ``remote`` asks the saver; ``alone`` makes
    the saver of this process, for when the supervisor is gone. ``failed`` tells that a step could not be held
    or saved, and why, ``lacking`` that blobs are left out. ``heartbeat`` hears of waiting for the saver.
    """

    make: Callable[[int, Sequence[int]], Mirror]
    remote: RemoteSaver
    alone: Callable[[], Saver]
    failed: Callable[[int, str], None]
    clock: Clock
    heartbeat: Heartbeat = field(default_factory=Heartbeat)
    lacking: Callable[[str], None] = lambda why: None


def _is_stopped(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
    except psutil.Error:
        return False


def _memory(mirror: Mirror) -> SharedMemory:
    assert isinstance(mirror.memory, SharedMemory)
    return mirror.memory
