"""The processes of a dataset: whether one has died, and what a training does that waits for it.

With ``python_multiprocessing=True`` MindSpore's own handler of SIGCHLD (in C++, seen with 2.10) sends the
process SIGTERM when one of them dies. By default that is its end. A handler in Python, as ours is, runs when
the main thread comes back from C++; and one that waits there for the data which the dead process was to
deliver never comes back. So a thread of ours learns of the signal as well, through the interpreter's wake-up
descriptor. It tells what the signal means, which the log says only up to ``GLOG_v=3``, and ends the process
where the main thread does not get on. The newest step is in the mirror then.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from resilient.host.descriptors import out_of_reach
from resilient.wire.heartbeat import Heartbeat, Phase
from resilient.wire.messages import GONE

_PATIENCE_S = 5.0
_LOOK_S = 0.5
# Here the main thread may be waiting for data; everything else comes to its end without any.
_WAITING = frozenset({Phase.DATA, Phase.EVALUATING})


def find_dead(pids: Iterable[int]) -> str:
    """How one of these children has died that did not end well; empty where none has. Reaps nothing."""
    found = [_ending(pid) for pid in pids]
    return next((how for how in found if how not in ("", GONE)), GONE if GONE in found else "")


def _ending(pid: int) -> str:
    try:
        found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return GONE
    if found is None or found.si_status == 0:
        return ""
    if found.si_code == os.CLD_EXITED:
        return f"status {found.si_status}"
    return signal.Signals(found.si_status).name


class RegisteredProcesses:
    """The processes that MindSpore's handler looks after, by the part of the pipeline they belong to.

    It registers them when they are started, and no longer when they are about to be ended. We stand in front
    of both calls. ``multiprocessing`` knows them too, but forgets one as soon as anybody has asked after it.
    """

    def __init__(self) -> None:
        self._pids: dict[int, list[int]] = {}

    def install(self) -> None:
        """Takes part in the registrations of this process from now on; once, where there are any."""
        engine = sys.modules.get("mindspore._c_dataengine")
        register = getattr(engine, "register_worker_pids", None)
        deregister = getattr(engine, "deregister_worker_pids", None)
        if engine is None or register is None or deregister is None or hasattr(register, "__wrapped__"):
            return

        @functools.wraps(register)
        def registered(owner: int, pids: list[int]) -> Any:
            self._pids[owner] = [pid for pid in pids if pid != os.getpid()]
            return register(owner, pids)

        @functools.wraps(deregister)
        def deregistered(owner: int) -> Any:
            self._pids.pop(owner, None)
            return deregister(owner)

        engine.__dict__.update(register_worker_pids=registered, deregister_worker_pids=deregistered)

    def pids(self) -> list[int]:
        """Those that are registered now."""
        return [pid for pids in list(self._pids.values()) for pid in pids]


registered = RegisteredProcesses()
"""Those of this process."""


class DatasetWorkerMonitor:
    """Looks at them when SIGTERM has come; ``tell`` hears, once, how one has died."""

    def __init__(self, heartbeat: Heartbeat, tell: Callable[[str], None]) -> None:
        self._heartbeat = heartbeat
        self._tell = tell
        self._told = False
        self._descriptor = -1

    def begin(self) -> None:
        """Listens from now on. Of the wake-up descriptor there is one: a script's own stays in its place."""
        if self._descriptor >= 0 or threading.current_thread() is not threading.main_thread():
            return
        # A script that closes ours would get the kernel's bytes in a file of its own.
        self._descriptor, theirs = map(out_of_reach, os.pipe2(os.O_CLOEXEC))
        os.set_blocking(theirs, False)
        before = signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
        if before != -1:
            signal.set_wakeup_fd(before)
            os.close(theirs)
            return
        try:
            threading.Thread(target=self._listen, name="resilient-datasets", daemon=True).start()
        except RuntimeError:
            # No thread can be had: one that has died is found at the next boundary.
            signal.set_wakeup_fd(-1)
            os.close(theirs)

    def look(self) -> bool:
        """Whether one has died; tells it the first time."""
        how = find_dead(registered.pids())
        if how and not self._told:
            self._told = True
            self._tell(how)
        return bool(how)

    def _listen(self) -> None:
        while numbers := os.read(self._descriptor, 64):
            if signal.SIGTERM in numbers and self.look():
                self._end_if_stuck()

    def _end_if_stuck(self) -> None:
        """Returns never: the main thread ends the process at the next boundary, or we do."""
        beat, silent_s = self._heartbeat.read(), 0.0
        while silent_s < _PATIENCE_S:
            threading.Event().wait(_LOOK_S)
            before, beat = beat, self._heartbeat.read()
            silent_s = silent_s + _LOOK_S if beat == before and beat.phase in _WAITING else 0.0
        os.kill(os.getpid(), signal.SIGKILL)


_monitor: DatasetWorkerMonitor | None = None


def look_out(heartbeat: Heartbeat, tell: Callable[[str], None]) -> DatasetWorkerMonitor:
    """The monitor of this process: its signals are the process's, so there is one."""
    global _monitor
    if _monitor is None:
        _monitor = DatasetWorkerMonitor(heartbeat, tell)
    return _monitor
