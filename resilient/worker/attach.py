"""python .../isolated.py resilient.worker.attach SCRIPT [ARGS...]   or   -m MODULE [ARGS...]

Runs a script as plain ``python`` would, as a worker of a supervisor: same ``sys.argv``, ``sys.path[0]``,
``__main__``, tracebacks and exit status. Nothing of MindSpore is imported here; when the script imports it,
its ``Model`` is wrapped and its seed is set, before the script's next line.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib
import io
import os
import random
import signal
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import psutil

from resilient import isolated
from resilient.config import Environment, WorkerConfig, forget_link
from resilient.errors import (
    EXIT_USAGE,
    LinkError,
    MirrorError,
    NonsenseError,
    OtherVersionError,
    UsageError,
)
from resilient.host import python_warnings
from resilient.host.descriptors import out_of_reach
from resilient.policy.settings import Settings
from resilient.wire.heartbeat import Heartbeat, Phase, ScriptEnd
from resilient.wire.link import Link
from resilient.wire.messages import (
    Configure,
    Hello,
    ProcessReplaced,
    ScriptEnded,
    StandBy,
    StandbyReady,
    UsageRefused,
)
from resilient.wire.mirror import Mirror
from resilient.worker import children
from resilient.worker.import_hook import when_imported
from resilient.worker.main_program import MainProgram, find_program
from resilient.worker.process import exec_notice, signals, stacks
from resilient.worker.process.shared_pages import SharedPages
from resilient.worker.script_traceback import hide_our_frames
from resilient.worker.session import session as sessions
from resilient.worker.session.session import Session

if TYPE_CHECKING:
    from resilient.worker.call.model_calls import Course

_PR_SET_PDEATHSIG = 1


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the script named by ``argv`` (by default the process's own); leaves as the script leaves."""
    python_warnings.spare_ours()
    signals.ignore_save_requests()
    stacks.install()
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        worker = _ScriptRun(_begin_session())
        program = find_program(arguments)
    except (UsageError, LinkError) as error:
        print(f"resilient: {error}", file=sys.stderr)
        raise SystemExit(EXIT_USAGE) from None
    worker.run(program, arguments)


def _begin_session() -> Session:
    descriptor = Environment.read().link_fd
    if descriptor is None:
        raise UsageError("this is a supervisor's worker", hint="run the script with resilient-run")
    forget_link()
    _die_with_parent()
    link = Link.from_fd(out_of_reach(descriptor))
    config, descriptors = _configuration(link)
    # A supervisor that died before we asked for its signal sends none, but its end of the link is closed
    # then. One that lives says nothing before it is asked.
    link.poll()
    shared = _shared(descriptors)
    session = sessions.begin(Session(config, link, shared=shared))
    session.tell(Hello(os.getpid()))
    return session


def _configuration(link: Link) -> tuple[WorkerConfig, list[int]]:
    """Waits for the configuration, as a standby where it is to be one, and what comes beside it."""
    try:
        message, descriptors = link.receive()
        if isinstance(message, StandBy):
            _prepare(link)
            message, descriptors = link.receive()
        if not isinstance(message, Configure):
            raise NonsenseError("the supervisor's first message is no configuration")
    except NonsenseError as error:
        # Both sides are of one installation. Another attempt would be of that version, too.
        other = error if isinstance(error, OtherVersionError) else OtherVersionError()
        link.send(UsageRefused(str(other.args[0]), other.hint))
        raise other from error
    return message.config, descriptors


def _prepare(link: Link) -> None:
    """A standby does beforehand what takes long and is the same for every script; no device is touched."""
    # The framework may be where only PYTHONPATH leads to.
    isolated.give_back_path()
    importlib.import_module("mindspore")
    importlib.import_module("resilient.worker.call.model_calls")
    link.send(StandbyReady(psutil.Process().memory_info().rss))


def _shared(descriptors: Sequence[int]) -> SharedPages:
    """The memory that came with the configuration: the heartbeat's page, and the last attempt's mirror."""
    shared = SharedPages(Heartbeat(descriptors[0])) if descriptors else SharedPages()
    # A mapping needs no descriptor, and no script can close one that is not open.
    shared.heartbeat.close()
    for descriptor in descriptors[1:]:
        try:
            shared.mirror = Mirror.of(descriptor)
            shared.mirror.close()
        except MirrorError as error:
            print(f"resilient: the memory of the last attempt cannot be used: {error}", file=sys.stderr)
    return shared


def _die_with_parent() -> None:
    """A supervisor that dies takes us with it: SIGTERM, which saves first."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)


class _ScriptRun:
    """One script on its way, and what is told of its end."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._heartbeat = session.shared.heartbeat
        self._course: Course | None = None

    def run(self, program: MainProgram, arguments: list[str]) -> None:
        """Runs it; what leaves the script leaves here too."""
        config = self._session.config
        assert config is not None
        random.seed(config.seed)
        self._heartbeat.beat(Phase.SCRIPT)
        exec_notice.install(self._tell_replaced)
        when_imported("multiprocessing.spawn", children.install)
        when_imported("numpy", self._on_numpy)
        when_imported("mindspore", self._on_mindspore, lambda: self._heartbeat.during(Phase.IMPORTING))
        if isinstance(sys.stdout, io.TextIOWrapper):
            # A terminal would see each line at once; the supervisor passes on what it gets.
            sys.stdout.reconfigure(line_buffering=True)
        try:
            program.run(arguments)
        except SystemExit as error:
            self._end(_status(error.code))
            raise
        except BaseException as error:
            self._tell(error)
            hide_our_frames()
            self._heartbeat.beat(Phase.OVER)
            raise
        else:
            self._end(0)

    def _end(self, status: int) -> None:
        """The main thread has left the script. Python waits for the others, one of which may train."""
        if any(
            not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()
        ):
            # The first to run once they have ended: the newest function runs first.
            atexit.register(self._finish, status)
        else:
            self._finish(status)

    def _tell(self, error: BaseException) -> None:
        """An exception leaves the script; one that left a training call has been told already."""
        step = self._course.watched.progress.step if self._course is not None and self._course.watched else 0
        kind = "interrupt" if isinstance(error, KeyboardInterrupt) else "exception"
        self._session.tell_incident(error, kind, step, "script")
        self._session.flush()

    def _tell_replaced(self, program: str) -> None:
        """This process is about to become another program; "" takes that back."""
        self._session.tell(ProcessReplaced(program))
        if program:
            self._session.warn(exec_notice.NOTHING_IS_SAVED.format(program=program))
        self._session.flush()

    def _finish(self, status: int) -> None:
        try:
            self._tell_end(status)
        finally:
            self._heartbeat.beat(Phase.OVER)

    def _tell_end(self, status: int) -> None:
        if self._course is not None and self._course.watched is not None:
            self._course.watched.close()
        if self._course is not None:
            self._course.warn_if_unseen()
            if status == 0:
                self._course.tell_if_behind()
                self._course.tell_if_nothing_was_added()
        complete = status == 0 and (self._course is None or self._course.complete)
        ended = ScriptEnd.ENDED | (ScriptEnd.COMPLETE if complete else ScriptEnd.NONE)
        trained = ScriptEnd.TRAINED if self._session.has_trained else ScriptEnd.NONE
        self._heartbeat.end(ended | trained)
        self._session.tell(ScriptEnded(complete, status))
        self._session.flush()

    def _on_numpy(self, numpy: Any) -> None:
        assert self._session.config is not None
        numpy.random.seed(self._session.config.seed)

    def _on_mindspore(self, mindspore: Any) -> None:
        from resilient.worker.call.model_calls import Course
        from resilient.worker.call.script_calls import current_calls

        config = self._session.config
        assert config is not None
        numpy = sys.modules["numpy"]
        # set_seed seeds NumPy too, which the script may have seeded, or drawn from, before this import.
        before = numpy.random.get_state()
        mindspore.set_seed(config.seed)
        numpy.random.set_state(before)
        self._course = Course(current_calls(), _defaults(config))
        self._course.install()


def _defaults(config: WorkerConfig) -> Settings:
    """How a script without a CheckpointMonitor is saved: as the command line says."""
    return Settings(save=config.save, keep=config.keep, asynchronous="mirror" if config.mirror.on else None)


def _status(code: Any) -> int:
    """The exit status that Python makes of SystemExit's code."""
    if code is None:
        return 0
    return code & 0xFF if isinstance(code, int) else 1


if __name__ == "__main__":
    main()
