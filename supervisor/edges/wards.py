"""Whom we have started, and who is to end them should we be killed: the desk, as their ``guardian``."""

from __future__ import annotations

from resilient.host.cgroup import Group
from supervisor.edges.guardian import Charge, known
from supervisor.edges.write_queue import Scribe

_SAVE_S = 600.0
"""Beyond the grace, for the commit that a saver has in hand."""


class Wards:
    """Keeps the desk informed. Without a ``scribe`` there is none. Workers have ``grace_s`` to save."""

    def __init__(self, scribe: Scribe | None, grace_s: float) -> None:
        self._scribe = scribe
        self._grace_s = grace_s
        self._workers: list[int] = []
        self._savers: list[int] = []
        self._group = ""

    def add(self, pid: int, *, saves: bool = False) -> None:
        """One more process, that works or that saves."""
        (self._savers if saves else self._workers).append(pid)
        self._tell()

    def enter(self, group: Group) -> None:
        """The group of the attempt, from now on."""
        if str(group.path) != self._group:
            self._group = str(group.path)
            self._tell()

    def _tell(self) -> None:
        # Those that have ended are forgotten.
        workers, savers = known(self._workers), known(self._savers)
        self._workers, self._savers = [pid for pid, _ in workers], [pid for pid, _ in savers]
        if self._scribe is not None:
            save_s = self._grace_s + _SAVE_S
            self._scribe.guard(Charge(workers, savers, self._group, self._grace_s, save_s))
