"""``async_save='process'``: commits in a process of its own, which shares no interpreter with the training.

    training process                                   saving process
      one packet: WorkerConfig (the key is in it)  ─►    opens the store
      one packet and a memfd per snapshot          ─►    maps it, commits, keeps retention
                                                   ◄─    one packet: where it is, or the error

The memfd holds the records' bytes one after the other, then their description as JSON, so that no packet
grows with the number of parameters. Nothing of it touches a disk. When the training process dies, the link
ends: the commit in hand is brought to its end, and the process leaves.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resilient.codec.record import Record
from resilient.config import WorkerConfig
from resilient.errors import LinkError
from resilient.host.files import Buffer
from resilient.host.world import World
from resilient.link import Link
from resilient.saving import Committer, Saved, Snapshot
from resilient.store.opening import open_store


class ProcessCommit:
    """Commits snapshots in another process, which it starts when it is first needed, and again if it died."""

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
        descriptor = os.memfd_create("resilient-snapshot", os.MFD_CLOEXEC)
        try:
            described_at = _write(descriptor, snapshot)
            link.send({"type": "save", "described_at": described_at}, [descriptor])
        finally:
            os.close(descriptor)
        answer, _ = link.receive()
        path = Path(answer["path"]) if answer["path"] else None
        return Saved(snapshot, answer["seconds"], path, answer["error"], tuple(answer["remarks"]))

    def _start(self) -> Link:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "resilient.process_saver", str(theirs.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        self._link = Link(ours)
        self._link.send(self._config.to_message())
        return self._link

    def close(self) -> None:
        """Ends the other process: it leaves when its link does."""
        if self._link is not None:
            self._link.close()
            self._link = None
        if self._process is not None:
            self._process.wait()
            self._process = None


def _write(descriptor: int, snapshot: Snapshot) -> int:
    """Writes a snapshot into a memfd; returns where its description begins."""
    offsets: dict[int, int] = {}
    end = 0
    with open(descriptor, "wb", closefd=False) as memory:

        def place(record: Record) -> list[Any]:
            nonlocal end
            if id(record.data) not in offsets:
                offsets[id(record.data)] = end
                end += memory.write(record.data)
            size = memoryview(record.data).nbytes
            return [record.name, record.dtype, record.dims, record.section, offsets[id(record.data)], size]

        description = {
            "prefix": snapshot.prefix,
            "step": snapshot.step,
            "epoch": snapshot.epoch,
            "step_in_epoch": snapshot.step_in_epoch,
            "reason": snapshot.reason,
            "failure": snapshot.failure,
            "records": [place(record) for record in snapshot.records],
            "weights": {kind: [place(r) for r in records] for kind, records in snapshot.weights.items()},
            "extra": snapshot.extra.decode(),
            "info": snapshot.info,
        }
        memory.write(json.dumps(description).encode())
    return end


def _read(memory: Buffer | mmap.mmap, described_at: int) -> Snapshot:
    """The inverse of :func:`_write`, over the mapped memory. Raises LinkError for anything else."""
    view = memoryview(memory)
    try:
        return _snapshot(view, json.loads(bytes(view[described_at:])))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise LinkError(f"a snapshot on the link makes no sense: {error}") from error


def _snapshot(view: memoryview, description: Mapping[str, Any]) -> Snapshot:
    def record(placed: list[Any]) -> Record:
        name, dtype, dims, section, offset, size = placed
        return Record(name, dtype, tuple(dims), view[offset : offset + size], section)

    return Snapshot(
        prefix=description["prefix"],
        step=description["step"],
        epoch=description["epoch"],
        step_in_epoch=description["step_in_epoch"],
        reason=description["reason"],
        failure=description["failure"],
        records=tuple(map(record, description["records"])),
        extra=description["extra"].encode(),
        weights={kind: tuple(map(record, placed)) for kind, placed in description["weights"].items()},
        info=description["info"],
    )


def main() -> None:
    """The saving process: commits what comes over the link until the link ends."""
    # A Ctrl-C or a stop request is for the training process; it decides what is still to be saved.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    link = Link(socket.socket(fileno=int(sys.argv[1])))
    try:
        message, _ = link.receive()
        committer = _committer(WorkerConfig.from_message(message))
        while True:
            request, descriptors = link.receive()
            saved = _commit(committer, descriptors[0], request["described_at"])
            path = str(saved.path) if saved.path else ""
            link.send(
                {
                    "type": "saved",
                    "path": path,
                    "error": saved.error,
                    "seconds": saved.seconds,
                    "remarks": saved.remarks,
                }
            )
    except LinkError:
        return


def _commit(committer: Committer, descriptor: int, described_at: int) -> Saved:
    memory = mmap.mmap(descriptor, 0, prot=mmap.PROT_READ)
    os.close(descriptor)
    return committer.commit(_read(memory, described_at))


def _committer(config: WorkerConfig) -> Committer:
    world = World()
    store = open_store(
        config.directory,
        world,
        config.sealing,
        config.run_id,
        rank=config.rank,
        world_size=config.world_size,
    )
    return Committer(store, config.directory, config.rank, config.keep, config.sealing, world)


if __name__ == "__main__":
    main()
