"""Worker processes: started, told, signalled, and cleared away with all their descendants.

``Workers`` is the protocol the loop uses; ``ProcessWorkers`` are real ones. A worker is the leader of a
session of its own: the terminal's Ctrl-C reaches the supervisor alone, which passes it on once. We are a
subreaper: what a worker leaves behind, however it was detached, becomes our child, and is found. Where
control groups can be had, an attempt's workers are in one as well: all of it is killed at once, also what
forks faster than a process table can be read. Saver and standby outlive the attempt: they are in none.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import psutil

from resilient import isolated
from resilient.config import LINK_FD_VARIABLE, WorkerConfig
from resilient.errors import LinkError, StalledError, TooLargeError
from resilient.host import core_dumps
from resilient.host.cgroup import ControlGroup, ControlGroups
from resilient.wire.link import Link
from resilient.wire.messages import Configure, StandBy
from supervisor.edges import reaping, vitals
from supervisor.edges.outlet import Outlet
from supervisor.edges.vitals import Vitals
from supervisor.edges.wards import Wards
from supervisor.edges.write_queue import WriteQueue
from supervisor.group.orphans import end_orphans
from supervisor.group.program import Program
from supervisor.group.spawn_resources import in_hand
from supervisor.group.standard_input import Share, StandardInput
from supervisor.group.worker_output import OutputLog, OutputPump

_PR_SET_CHILD_SUBREAPER = 36
_DETACHED = "what the script has left at work behind it is ended ({}): a training must not go on as a daemon"
_SWEEP_S = 5.0
_GROUP_S = 1.0
"""For what the kernel holds there is the sweep's own patience; it tells their names."""
_CONFIG_S = 10.0
"""For a worker to read its configuration, where that is more than the kernel keeps for it."""

_DRAIN_S = 5.0
"""For its last output to be read: it is in the kernel already, unless the disk of the log is slow."""


class Worker(Protocol):
    """One worker: its link, a descriptor that becomes readable when it ends, and how it ended."""

    @property
    def pid(self) -> int: ...

    @property
    def link(self) -> Link: ...

    @property
    def end_fd(self) -> int: ...

    def reap(self) -> int | None:
        """Its return code, as subprocess has it; None while it lives."""
        ...

    def signal(self, number: int) -> None:
        """Sends it a signal; one that has ended gets none."""
        ...

    def vitals(self) -> Vitals | None:
        """What the kernel tells of it and its descendants; None when it has ended."""
        ...

    def finish(self) -> None:
        """Waits for its last output, and lets go of its descriptors."""
        ...


class Workers(Protocol):
    """Starts workers, and clears away everything they started."""

    def spawn(self, config: WorkerConfig, log: Path, descriptors: Sequence[int] = ()) -> Worker:
        """Starts a worker and sends it its configuration, and the memory it shares. Raises OSError."""
        ...

    def spawn_standby(self, config: WorkerConfig, log: Path) -> Worker:
        """Starts a worker that prepares itself and waits for its configuration. Raises OSError."""
        ...

    def spawn_saver(self, config: WorkerConfig, log: Path) -> Worker:
        """Starts a saver and sends it its configuration; ``log`` gets what it says. Raises OSError."""
        ...

    def sweep(self, spared: Collection[int] = ()) -> list[int]:
        """Kills every process that descends from us, but those; the pids of those that would not die."""
        ...

    def reap_orphans(self, workers: Collection[int]) -> None:
        """Collects dead children that have become ours; the workers, by pid, are collected elsewhere."""
        ...


class ProcessWorker:
    """A real worker process."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        link: Link,
        pumps: list[OutputPump],
        enter: Callable[[int], None] | None = None,
        stdin: Share | None = None,
        complain: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._process = process
        self._enter = enter
        self._complain = complain
        self._complained = False
        self._stdin = stdin
        self._pumps = pumps
        self.link = link
        self.pid = process.pid
        self.end_fd = os.pidfd_open(process.pid)

    def enter_attempt(self) -> None:
        """Takes it into the group of the attempt, before it runs anything of the user's."""
        if self._enter is not None:
            self._enter(self.pid)
        if self._stdin is not None:
            self._stdin.begin()

    def reap(self) -> int | None:
        return self._process.poll()

    def signal(self, number: int) -> None:
        # Through the pidfd: a number that has been given to another process since is not hit.
        try:
            signal.pidfd_send_signal(self.end_fd, number)
        except ProcessLookupError:
            pass
        except PermissionError:
            # A program that runs as another user (setuid, sudo): whatever it does, we cannot make it.
            if not self._complained:
                self._complained = True
                self._complain(
                    f"process {self.pid} runs as another user and takes no signals from us: "
                    "stop it yourself, or run resilient-run as that user"
                )

    def vitals(self) -> Vitals | None:
        found = vitals.read(self.pid)
        if found is not None and any(pump.waits for pump in self._pumps):
            # It stands still for whoever reads our output, as it would for a debugger: that is no hang.
            return replace(found, traced=True)
        return found

    def finish(self) -> None:
        end_s = time.monotonic() + _DRAIN_S
        for pump in self._pumps:
            pump.finish(max(0.0, end_s - time.monotonic()))
        if self._stdin is not None:
            self._stdin.end()
        self.link.close()
        os.close(self.end_fd)


class ProcessWorkers:
    """Starts real processes. ``complain`` hears what is wrong with keeping their output and input.

    ``find_groups`` tells where control groups can be made; without them the process table is read.
    ``outlets`` are our stdout and stderr, ``stdin`` is the run's. ``write_queue`` writes their logs, in a
    process that no sweep ends; ``wards`` end them if we are killed, in another one.
    """

    def __init__(
        self,
        program: Program,
        complain: Callable[[str], None],
        find_groups: Callable[[], ControlGroups | None] = ControlGroups.available,
        outlets: tuple[Outlet, Outlet] | None = None,
        write_queue: WriteQueue | None = None,
        stdin: StandardInput | None = None,
        wards: Wards | None = None,
    ) -> None:
        self._wards = wards or Wards(None)
        self._stdin = stdin or StandardInput(complain)
        self._outlets = outlets or (Outlet(1), Outlet(2))
        self._write_queue = write_queue
        self._program = program
        self._complain = complain
        self._groups = find_groups()
        self._group: ControlGroup | None = None
        self._old_groups: list[ControlGroup] = []
        self._core_dumps = core_dumps.forbid()
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def end_orphans(self, grace_s: float) -> int:
        """Ends what a dead supervisor of this run has left; a worker of it may take so long to save.

        The number of a signal that stops us meanwhile, or 0.
        """
        return end_orphans(self._groups, grace_s, self._complain) if self._groups is not None else 0

    def spawn(self, config: WorkerConfig, log: Path, descriptors: Sequence[int] = ()) -> ProcessWorker:
        """Starts a worker and sends it its configuration, and the memory it shares. Raises OSError."""
        worker = self._start(config, log, self._group_of_attempt())
        self._wards.add(worker.pid)
        tell(worker, config, descriptors)
        return worker

    def spawn_standby(self, config: WorkerConfig, log: Path) -> ProcessWorker:
        """Starts a worker that prepares itself and waits for its configuration. Raises OSError."""
        worker = self._start(config, log, waits=True)
        self._wards.add(worker.pid)
        with contextlib.suppress(LinkError):
            worker.link.send(StandBy())
        return worker

    def _start(
        self, config: WorkerConfig, log: Path, group: ControlGroup | None = None, *, waits: bool = False
    ) -> ProcessWorker:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with (
            in_hand() as resources,
            theirs,
            _door(group if self._program.kind == "command" else None) as door,
        ):
            resources.link = Link(ours)
            resources.stdin = stdin = self._stdin.share(waits=waits)
            resources.process = process = subprocess.Popen(
                self._program.argv(door),
                bufsize=0,
                stdin=stdin.descriptor,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=[theirs.fileno(), *([door] if door >= 0 else [])],
                env=_environment(config, theirs.fileno()),
                start_new_session=True,
            )
            if self._program.may_dump or not config.sealing.holds_key:
                self._core_dumps.allow(process.pid)
            assert process.stdout is not None
            assert process.stderr is not None
            stdin.started()
            kept = OutputLog(log, self._complain, self._write_queue)
            sources = process.stdout, process.stderr
            resources.pumps = [
                OutputPump(source, to, kept) for source, to in zip(sources, self._outlets, strict=True)
            ]
            for pump in resources.pumps:
                pump.start()
            return ProcessWorker(process, resources.link, resources.pumps, self._enter, stdin, self._complain)

    def _group_of_attempt(self) -> ControlGroup | None:
        if self._group is None and self._groups is not None:
            self._group = self._groups.make()
        return self._group

    def _enter(self, pid: int) -> None:
        group = self._group_of_attempt()
        if group is not None:
            group.add(pid)
            self._wards.enter(group)

    def spawn_saver(self, config: WorkerConfig, log: Path) -> ProcessWorker:
        """Starts a saver and sends it its configuration; ``log`` gets what it says. Raises OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with in_hand() as resources, theirs:
            resources.link = Link(ours)
            resources.process = process = subprocess.Popen(
                [*isolated.command("resilient.saving.saver_process"), str(theirs.fileno())],
                bufsize=0,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
            assert process.stdout is not None
            # It may outlive this worker: its words are read until it says no more, and nobody waits for that.
            said = OutputPump(process.stdout, None, OutputLog(log, self._complain, self._write_queue))
            resources.pumps = [said]
            said.start()
            worker = ProcessWorker(process, resources.link, [])
            self._wards.add(worker.pid, saves=True)
        _send_config(worker, config)
        return worker

    def sweep(self, spared: Collection[int] = ()) -> list[int]:
        """Kills every process that descends from us, but those; the pids of those that would not die."""
        ourselves, left = psutil.Process(), list[psutil.Process]()
        spared = [
            *spared,
            self._wards.pid,
            *([self._write_queue.pid] if self._write_queue is not None else []),
        ]
        if names := reaping.detached(ourselves, spared, self._wards.leaders):
            self._complain(_DETACHED.format(names))
        self._kill_group()
        # Each round finds what was started while the last one was at it.
        for _ in range(20):
            children = ourselves.children(recursive=True)
            left = [child for child in children if child.pid not in spared and reaping.is_alive(child)]
            if not left:
                return []
            for child in left:
                with contextlib.suppress(psutil.Error):
                    child.kill()
            _, left = psutil.wait_procs(left, timeout=_SWEEP_S)
            if left:
                break
        return [child.pid for child in left]

    def _kill_group(self) -> None:
        if self._group is not None:
            self._group.kill(_GROUP_S)
            self._old_groups.append(self._group)
            self._group = None
        # One whose processes the kernel holds cannot be removed yet.
        self._old_groups = [group for group in self._old_groups if not group.remove()]

    def reap_orphans(self, workers: Collection[int]) -> None:
        """Collects dead children that have become ours; the workers, by pid, are collected elsewhere."""
        reaping.reap(workers)


def tell(worker: Worker, config: WorkerConfig, descriptors: Sequence[int]) -> None:
    """Sends a worker its configuration and the memory it shares. It waits for that before anything else.

    Raises OSError when it cannot be had to take it; then it is ended.
    """
    if isinstance(worker, ProcessWorker):
        worker.enter_attempt()
    _send_config(worker, config, descriptors)


def _send_config(worker: Worker, config: WorkerConfig, descriptors: Sequence[int] = ()) -> None:
    try:
        with contextlib.suppress(LinkError):
            # One that has died already is found by its end.
            worker.link.send(Configure(config), descriptors, patience_s=_CONFIG_S)
    except (StalledError, TooLargeError) as error:
        end(worker)
        raise OSError(f"it does not take its configuration: {error}") from error


def end(worker: Worker) -> None:
    """Ends a worker that is of no use to anybody, and lets go of it."""
    # In this order: its last output, which is waited for, ends when it does.
    worker.signal(signal.SIGKILL)
    worker.link.close()
    ended = select.poll()
    ended.register(worker.end_fd, select.POLLIN)
    ended.poll(_SWEEP_S * 1000)
    worker.reap()
    worker.finish()


@contextlib.contextmanager
def _door(group: ControlGroup | None) -> Iterator[int]:
    """A descriptor that lets a process into the group; -1 without one."""
    descriptor = -1
    if group is not None:
        with contextlib.suppress(OSError):
            descriptor = os.open(group.procs, os.O_WRONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _environment(config: WorkerConfig, descriptor: int) -> dict[str, str]:
    """The worker's environment; no secret is in it."""
    environment = {**os.environ, LINK_FD_VARIABLE: str(descriptor)}
    # Sets and dicts of strings are ordered by it: without it two attempts may differ.
    environment.setdefault("PYTHONHASHSEED", str(config.seed))
    return environment
