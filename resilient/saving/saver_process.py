"""The saver: a process of its own that commits slots of mirrors, with neither mindspore nor numpy.

    training process, or supervisor                saver
      Configure (the key is in it)            ─►     opens the store
      TakeOver                                ─►     takes the rank's lock, cleans up after the dead
                                              ◄─     SaverReady, or the error
      CommitSlot, with the mirror             ─►     maps the slot, commits it, keeps retention
                                              ◄─     SlotCommitted, or the error

Under ``resilient-run`` the saver is the supervisor's child and outlives the worker (``saver_child``).
With ``async_save='process'`` and no supervisor it is the training's child and holds the lock itself. It keeps
no state: a new saver that gets the same orders again loses nothing. When the link ends, it finishes the
commit in hand and exits.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil
import tenacity

from resilient import isolated
from resilient.config import WorkerConfig
from resilient.errors import BusyError, LinkError, MirrorError, NonsenseError, ResilientError
from resilient.host import core_dumps, python_warnings
from resilient.host.descriptors import out_of_reach
from resilient.host.files import FileLock, Files
from resilient.host.shared_memory import SharedMemory
from resilient.host.world import World
from resilient.run.lock_owner import rank_owner
from resilient.saving import slots
from resilient.saving.in_process import Committer, Saved, Snapshot
from resilient.store import layout
from resilient.store.opening import open_store
from resilient.store.weights import remove_temporaries
from resilient.wire.link import Link
from resilient.wire.messages import (
    CommitSlot,
    Configure,
    Message,
    SaverAnswer,
    SaverReady,
    SlotCommitted,
    TakeOver,
)
from resilient.wire.mirror import Mirror

_LOCK_S = 60.0  # a worker whose supervisor has died commits by itself, and then ends
_REFUSED = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)  # by a limit of processes or descriptors
_IN_NO_HURRY = 7  # the last of the best-effort I/O priorities


class ProcessCommit:
    """Commits snapshots in a saver of the training's own, started when needed and again if it died."""

    def __init__(self, committer: Committer, run_id: str) -> None:
        self._committer = committer
        self._config = WorkerConfig(
            run_id=run_id,
            directory=committer.root,
            seed=0,
            rank=committer.rank,
            keep=committer.keep,
            sealing=committer.sealing,
        )
        self._link: Link | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self, snapshot: Snapshot) -> Saved:
        """Commits; an error of the other process is told like one of the disk."""
        began = self._committer.world.clock.monotonic()
        try:
            return self._ask_again(snapshot)
        except (LinkError, OSError) as error:
            self.close()
            if isinstance(error, OSError) and error.errno in _REFUSED:
                # There can be no other process now. This one holds the rank's lock.
                return self._committer.commit(snapshot)
            seconds = self._committer.world.clock.monotonic() - began
            return Saved(snapshot, seconds, error=f"the saving process failed: {error}")

    def _ask_again(self, snapshot: Snapshot) -> Saved:
        if self._link is not None:
            # It holds no state: one that was killed meanwhile is replaced.
            with contextlib.suppress(LinkError):
                return self._ask(snapshot)
            self.close()
        return self._ask(snapshot)

    def _ask(self, snapshot: Snapshot) -> Saved:
        link = self._link or self._start()
        mirror, slot = slots.mirror_of(snapshot, self._config.run_id, self._config.rank)
        try:
            assert isinstance(mirror.memory, SharedMemory)
            order = CommitSlot(slot, snapshot.reason, snapshot.failure, hurry=True)
            link.send(order, [mirror.memory.descriptor])
        finally:
            mirror.close()
        answer, _ = link.receive()
        if not isinstance(answer, SlotCommitted):
            raise LinkError(getattr(answer, "error", "it has answered something else"))
        path = Path(answer.path) if answer.path else None
        return Saved(snapshot, answer.seconds, path, answer.error, answer.remarks, answer.generation)

    def _start(self) -> Link:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [*COMMAND, str(theirs.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        self._link = Link.from_fd(out_of_reach(ours.detach()))
        self._link.send(Configure(self._config))
        return self._link

    def close(self) -> None:
        """Ends the other process: it leaves when its link does."""
        if self._link is not None:
            self._link.close()
            self._link = None
        if self._process is not None:
            self._process.wait()
            self._process = None


COMMAND = tuple(isolated.command("resilient.saving.saver_process"))
"""How a saver is started; the descriptor of its end of the link follows."""


# The process itself


def main() -> None:
    """Commits what comes over the link until the link ends."""
    python_warnings.silence()
    core_dumps.forbid()
    # A Ctrl-C or a stop request is for the training; it decides what is still to be saved.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    link = Link.from_fd(int(sys.argv[1]))
    with contextlib.suppress(LinkError):
        try:
            order, _ = link.receive()
        except NonsenseError as error:
            # Another version of ours is installed by now.
            link.send(SaverReady(error=str(error), lasting=True))
            return
        if isinstance(order, Configure):
            _serve(link, SaverProcess(order.config, World()))


def _serve(link: Link, saver: SaverProcess) -> None:
    """Answers one order after the other. Raises LinkError at the end of the link."""
    while True:
        try:
            order, descriptors = link.receive()
        except NonsenseError as error:
            kind = SaverReady if error.of is TakeOver else SlotCommitted
            link.send(kind(error=str(error), lasting=True))
            continue
        # However many remarks there are: a commit that is done must be heard of, and the link cuts them.
        link.send(saver.answer(order, descriptors))


class SaverProcess:
    """Does what it is asked over the link."""

    def __init__(self, config: WorkerConfig, world: World) -> None:
        self._config = config
        self._world = world
        self._lock: FileLock | None = None
        store = open_store(
            config.directory,
            world,
            config.sealing,
            config.run_id,
            rank=config.rank,
            world_size=config.world_size,
            accepted=config.accepted,
        )
        self._committer = Committer(store, config.directory, config.rank, config.keep, config.sealing, world)

    def answer(self, order: Message, descriptors: Sequence[int]) -> SaverAnswer:
        """The answer to one order. Never raises: the other side waits for it."""
        unused = list(descriptors)
        try:
            if isinstance(order, TakeOver):
                return self.take_over()
            if isinstance(order, CommitSlot) and unused:
                return self.commit(order, unused.pop(0))
            raise LinkError("the saver opens its store, and commits what comes with the request")
        except Exception as error:  # noqa: BLE001 - told to the other side, which decides
            text = str(error) if isinstance(error, ResilientError) else f"{type(error).__name__}: {error}"
            # Memory that makes no sense does not come to any by being sent again.
            lasting = isinstance(error, (LinkError, MirrorError))
            kind = SaverReady if isinstance(order, TakeOver) else SlotCommitted
            return kind(error=text, lasting=lasting)
        finally:
            # It lives as long as the run: what nobody takes must not add up.
            for descriptor in unused:
                os.close(descriptor)

    def take_over(self) -> SaverReady:
        """Takes the rank's lock, so that nobody else commits here, and cleans up after the dead."""
        root, rank, files = self._config.directory, self._config.rank, self._world.files
        files.make_directory(root)
        self._lock = self._lock or take_lock(files, layout.rank_lock(root, rank))
        recovery = self._committer.store.recover()
        for folder in (layout.network_directory(root, rank), layout.trainable_directory(root, rank)):
            remove_temporaries(files, folder)
        aside = layout.quarantine_directory(root)
        return SaverReady(remarks=tuple(f"set aside in {aside}: {found}" for found in recovery.quarantined))

    def commit(self, order: CommitSlot, descriptor: int) -> SlotCommitted:
        """Commits one slot of the mirror behind a descriptor."""
        mirror = Mirror.of(descriptor)
        try:
            _be_polite(not order.hurry)
            snapshot = slots.snapshot(mirror, order.slot, order.reason, failure=order.failure)
            saved = self._committer.commit(snapshot)
        finally:
            mirror.close()
        return SlotCommitted(
            error=saved.error,
            remarks=tuple(saved.remarks),
            path=str(saved.path) if saved.path else "",
            epoch=saved.snapshot.epoch,
            generation=saved.generation,
            seconds=saved.seconds,
        )


def take_lock(files: Files, path: Path, wait_s: float | None = None) -> FileLock:
    """Takes a rank's lock, once a process that is about to end has let go of it: by default within a minute.

    Raises BusyError, which names the process that holds it.
    """
    patient = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(BusyError),
        wait=tenacity.wait_fixed(0.05),
        stop=tenacity.stop_after_delay(_LOCK_S if wait_s is None else wait_s),
        reraise=True,
    )
    try:
        return patient(files.lock, path, str(os.getpid()).encode())
    except BusyError:
        pid, who = _holder(files, path)
        text = f"{path.parent} is in use: {who} holds its lock ({path.name})"
        raise BusyError(text, pid=pid, hint="stop that process, or wait for its end") from None


def _holder(files: Files, path: Path) -> tuple[int, str]:
    """Whoever holds a lock has written its number into it; 0 where that cannot be told."""
    pid = rank_owner(files, path)
    try:
        return pid, f"process {pid} ({psutil.Process(pid).name()})"
    except psutil.Error:
        return 0, "another process"


def _be_polite(polite: bool) -> None:
    """While the training runs, its own reading comes first."""
    with contextlib.suppress(psutil.Error, OSError, AttributeError):
        psutil.Process(os.getpid()).ionice(psutil.IOPRIO_CLASS_BE, _IN_NO_HURRY if polite else 4)


if __name__ == "__main__":
    main()
