"""The guardian: ends what a supervisor that was killed would leave behind, whatever it does about SIGTERM.

The kernel sends a worker SIGTERM when its supervisor dies. A script may ignore that, handle it by itself, or
hold the interpreter in a loop in C; and what a worker has started gets no signal at all. The guardian is a
process of its own (``wards``), which writes to no disk, and hears the end of its link when the supervisor did
not say goodbye. It gives the workers the grace that a stop gives them, and then sends SIGKILL to them, to
their descendants, and to all of the attempt's control group. It does not hold the run's lock meanwhile: the
next supervisor may come first and end the same processes (``orphans``), and then nothing is left to do.

Every process is known by a pidfd, so that a number that was given away again is never hit. Without control
groups a descendant is found by its session, which is the worker's, or because it was seen below the worker at
the last look: one that has left both within a few seconds is not. Where guardian and supervisor are killed
together SIGTERM is all there is.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from resilient.host.cgroup import ControlGroup, born_at
from supervisor.edges import vitals

_LOOK_S = 0.25
_KILL_S = 10.0


@dataclass(frozen=True)
class Charge:
    """Whom to end: processes as (pid, when it began), workers and savers, and the attempt's group, or "".

    Workers have ``grace_s`` to save and end, savers ``save_s`` to commit what they have in hand.
    """

    workers: tuple[tuple[int, int], ...] = ()
    savers: tuple[tuple[int, int], ...] = ()
    group: str = ""
    grace_s: float = 0.0
    save_s: float = 0.0


def known(pids: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Processes of ours that live, with when they began."""
    found = ((pid, born_at(pid)) for pid in pids)
    return tuple((pid, began) for pid, began in found if began is not None)


class Guardian:
    """Knows whom to end; does so when asked."""

    def __init__(self) -> None:
        self._charge = Charge()
        self._workers: dict[int, int] = {}
        self._savers: dict[int, int] = {}

    def take(self, charge: Charge) -> None:
        """From now on these are meant, and who was seen below workers that still are."""
        before, self._charge = self._charge, charge
        kept = {}
        if set(before.workers) & set(charge.workers):
            roots = {pid for pid, _ in before.workers}
            kept = {
                pid: opened for pid, opened in self._workers.items() if pid not in roots and _lives(opened)
            }
        for descriptor in {*self._workers.values(), *self._savers.values()} - {*kept.values()}:
            os.close(descriptor)
        workers, self._savers = _opened(charge.workers), _opened(charge.savers)
        for pid in kept.keys() & (workers.keys() | self._savers.keys()):
            os.close(kept.pop(pid))
        self._workers = kept | workers

    @property
    def is_needed(self) -> bool:
        """Whether it has to look around from time to time: no group knows who descends from the workers."""
        return bool(self._charge.workers) and not self._charge.group

    def look(self) -> None:
        """Remembers who descends from the workers: once they have ended nobody can tell."""
        self._look([pid for pid, _ in self._charge.workers])

    def end_all(self) -> None:
        """Ends them: first the grace, then SIGKILL."""
        began_s = time.monotonic()
        roots = [pid for pid, _ in self._charge.workers if pid in self._workers]
        while (
            _await(self._workers[pid] for pid in roots) and time.monotonic() - began_s < self._charge.grace_s
        ):
            self._look(roots)
        self._kill(roots)
        while _await(self._savers.values()) and time.monotonic() - began_s < self._charge.save_s:
            pass
        _send(self._savers.values())

    def _look(self, roots: Sequence[int]) -> None:
        for pid in roots:
            # One that has ended has no tree, and its number may be another's.
            found = vitals.read(pid) if _lives(self._workers.get(pid)) else None
            for member in found.members if found is not None else ():
                if member not in self._workers:
                    self._workers.update(_opened(known([member])))

    def _look_into_sessions(self) -> None:
        """A worker leads a session; its number is nobody else's while somebody is in it."""
        sessions = {pid for pid, began in self._charge.workers if born_at(pid) in (None, began)}
        for name in os.listdir("/proc"):
            with contextlib.suppress(OSError, ValueError):
                if os.getsid(int(name)) in sessions and int(name) not in self._workers:
                    self._workers.update(_opened(known([int(name)])))

    def _kill(self, roots: Sequence[int]) -> None:
        self._look(roots)
        self._look_into_sessions()
        if self._charge.group:
            group = ControlGroup(Path(self._charge.group))
            group.kill(_KILL_S)
            group.remove()
        _send(self._workers.values())


def _opened(processes: Iterable[tuple[int, int]]) -> dict[int, int]:
    """A pidfd for each that still is the process that was meant."""
    opened = {}
    for pid, began in processes:
        with contextlib.suppress(OSError):
            descriptor = os.pidfd_open(pid)
            # In this order: from here on it is one process, whatever becomes of the number.
            if born_at(pid) == began:
                opened[pid] = descriptor
            else:
                os.close(descriptor)
    return opened


def _lives(descriptor: int | None) -> bool:
    if descriptor is None:
        return False
    ended = select.poll()
    ended.register(descriptor, select.POLLIN)
    return not ended.poll(0)


def _await(descriptors: Iterable[int]) -> bool:
    """Waits a moment for processes to end; whether one of them still lives."""
    waiting = list(descriptors)
    ended = select.poll()
    for descriptor in waiting:
        ended.register(descriptor, select.POLLIN)
    over = ended.poll(0)
    if len(over) == len(waiting):
        return False
    for descriptor, _ in over:
        ended.unregister(descriptor)
    ended.poll(_LOOK_S * 1000)
    return True


def _send(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
