"""The processes of a dataset: whether one has died, and what a training does that waits for it.

With ``python_multiprocessing=True`` MindSpore's own handler of SIGCHLD (in C++, seen with 2.10) sends the
process SIGTERM when one of them dies. By default that is its end. A handler in Python, as ours is, runs when
the main thread comes back from C++; and one that waits there for the data which the dead process was to
deliver never comes back. So a thread of ours learns of the signal as well, through the interpreter's wake-up
descriptor. It tells what the signal means, which the log says only up to ``GLOG_v=3``, and ends the process
where the main thread does not get on. The newest step is in the mirror then.
"""

from __future__ import annotations

import contextlib
import multiprocessing.process
import os
import signal
import threading
from collections.abc import Callable, Iterable

from resilient.heartbeat import Heartbeat, Phase

_PATIENCE_S = 5.0
_LOOK_S = 0.5
# Here the main thread may be waiting for data; everything else comes to its end without any.
_WAITING = frozenset({Phase.DATA, Phase.EVALUATING})


def find_dead(pids: Iterable[int]) -> str:
    """How the first of these children died that did not end well; empty where none has. Reaps nothing."""
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is None or found.si_status == 0:
                continue
            if found.si_code == os.CLD_EXITED:
                return f"status {found.si_status}"
            return signal.Signals(found.si_status).name
    return ""


def _children() -> list[int]:
    """The processes that ``multiprocessing`` has started: MindSpore's are among them.

    Its ``active_children()`` reaps, and so takes away what we want to see.
    """
    known = getattr(multiprocessing.process, "_children", set())
    return [child.pid for child in list(known) if child.pid is not None]


class Lookout:
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
        self._descriptor, theirs = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(theirs, False)
        before = signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
        if before != -1:
            signal.set_wakeup_fd(before)
            os.close(theirs)
            return
        threading.Thread(target=self._listen, name="resilient-lookout", daemon=True).start()

    def look(self) -> bool:
        """Whether one has died; tells it the first time."""
        how = find_dead(_children())
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


_lookout: Lookout | None = None


def look_out(heartbeat: Heartbeat, tell: Callable[[str], None]) -> Lookout:
    """The lookout of this process: its signals are the process's, so there is one."""
    global _lookout
    if _lookout is None:
        _lookout = Lookout(heartbeat, tell)
    return _lookout
