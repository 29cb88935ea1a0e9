"""A supervisor that was killed: whatever its workers do about SIGTERM, nobody is left."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess

import psutil
import pytest
from supervised import is_alive, wait_until

from resilient import isolated
from resilient.config import LINK_FD_VARIABLE
from resilient.host.cgroup import ControlGroups

pytestmark = pytest.mark.process

with_groups = pytest.mark.skipif(
    ControlGroups.available() is None, reason="no control group can be made here"
)

AS_EVER = ("-m", "supervisor.command.cli")
WITHOUT_GROUPS = (
    "-c",
    """
import sys
from supervisor.command import cli, start
start.ControlGroups.available = classmethod(lambda cls, mark="": None)
sys.exit(cli.main())
""",
)

IGNORES = """
    import os, signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("up", os.getpid(), flush=True)
    while True:
        signal.pause()
"""

HANDLES = """
    import os, signal
    signal.signal(signal.SIGTERM, lambda *_: print("not now", flush=True))
    print("up", os.getpid(), flush=True)
    while True:
        signal.pause()
"""

IN_C_CODE = """
    import os, signal
    signal.signal(signal.SIGTERM, lambda *_: None)
    print("up", os.getpid(), flush=True)
    pow(7, 10**9)
"""

HAS_CHILDREN = """
    import os, signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        os.write(writing, b"!")
    else:
        os.read(reading, 1)
        print("up", os.getpid(), child, flush=True)
    while True:
        signal.pause()
"""

LEAVES_A_CHILD = """
    import os, signal
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(writing, b"!")
    else:
        os.read(reading, 1)
        print("up", child, flush=True)
    while True:
        signal.pause()
"""


@pytest.fixture
def left_by():
    """Who is meant by a run's first line; whatever a test that fails leaves is killed."""
    descriptors = []

    def find(run):
        run.wait_for("\n")
        pids = [int(word) for word in run.out().split() if word.isdigit()]
        descriptors.extend(map(os.pidfd_open, pids))
        return pids

    yield find
    for descriptor in descriptors:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        os.close(descriptor)


ALL = {
    "ignores": IGNORES,
    "handles": HANDLES,
    "C code": IN_C_CODE,
    "children": HAS_CHILDREN,
    "leaves a child": LEAVES_A_CHILD.replace("os.setsid()", ""),
}


@pytest.mark.parametrize(
    ("script", "program"),
    [
        *[pytest.param(script, WITHOUT_GROUPS, id=f"{name}, no groups") for name, script in ALL.items()],
        pytest.param(HAS_CHILDREN, AS_EVER, id="children"),
        pytest.param(LEAVES_A_CHILD, AS_EVER, marks=with_groups, id="leaves a detached child"),
    ],
)
def test_nobody_outlives_a_killed_supervisor_for_longer_than_the_grace(supervise, left_by, script, program):
    """Workers deaf to SIGTERM and children in sessions of their own, with control groups and without."""
    run = supervise(script, "--grace", "0.5", program=program)
    pids = left_by(run)
    ours = psutil.Process(run.process.pid).children(recursive=True)
    run.send(signal.SIGKILL)
    run.end()
    wait_until(lambda: not any(map(is_alive, pids)), "the end of the worker and its children")
    wait_until(lambda: not any(is_alive(process.pid) for process in ours), "the end of all of ours")


def test_a_command_is_ended_as_well(supervise, left_by, tmp_path):
    """--no-python: a shell that traps SIGTERM, and what it runs."""
    (tmp_path / "deaf.sh").write_text("trap '' TERM\necho up $$\nwhile :; do sleep 1000; done\n")
    run = supervise("", "--grace", "0.5", "--no-python", "sh", str(tmp_path / "deaf.sh"))
    pids = left_by(run)
    run.send(signal.SIGKILL)
    run.end()
    wait_until(lambda: not any(map(is_alive, pids)), "the end of the command")


def test_a_worker_has_the_grace_to_save(supervise, left_by):
    """It is not killed in the middle: it gets SIGTERM, and the time that a stop would have given it."""
    script = """
    import os, signal, time
    def end(*_):
        time.sleep(1)
        open("saved", "w").close()
        os._exit(0)
    signal.signal(signal.SIGTERM, end)
    print("up", os.getpid(), flush=True)
    while True:
        signal.pause()
    """
    run = supervise(script, "--grace", "30")
    pids = left_by(run)
    run.send(signal.SIGKILL)
    run.end()
    wait_until(lambda: not any(map(is_alive, pids)), "the end of the worker")
    assert (run.folder / "saved").exists()


WRITER_STOPPED = (
    "-c",
    """
import os, signal, sys
from supervisor.command import cli
from supervisor.edges import write_queue
class Stopped(write_queue.WriteQueue):
    def __init__(self, *words):
        super().__init__(*words)
        os.kill(self.pid, signal.SIGSTOP)
        open("stopped", "w").write(str(self.pid))
from supervisor.command import start
start.WriteQueue = Stopped
sys.exit(cli.main())
""",
)


def test_no_write_that_waits_for_a_disk_keeps_a_child_from_the_guardian(supervise, left_by, tmp_path):
    """Nothing that the supervisor writes comes to the disk, from its start on: whatever it has started is
    ended all the same."""
    (tmp_path / "deaf.sh").write_text("trap '' TERM\necho up $$\nwhile :; do sleep 1000; done\n")
    command = ("--grace", "0.5", "--no-python", "sh", str(tmp_path / "deaf.sh"))
    run = supervise("", *command, program=WRITER_STOPPED)
    pids = left_by(run)
    run.send(signal.SIGKILL)
    run.end()
    try:
        wait_until(lambda: not any(map(is_alive, pids)), "the end of the command")
    finally:
        os.kill(int((tmp_path / "stopped").read_text()), signal.SIGKILL)


@pytest.mark.parametrize("killed", [False, True])
def test_a_command_begins_once_the_guardian_may_know_of_it(tmp_path, killed):
    """It waits for the first word of the supervisor. One that dies before that has started nothing."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    start = isolated.command("supervisor.group.parent_death")
    command = subprocess.Popen(
        [*start, "-1", str(os.getpid()), "touch", str(tmp_path / "begun")],
        env={**os.environ, LINK_FD_VARIABLE: str(theirs.fileno())},
        pass_fds=[theirs.fileno()],
    )
    theirs.close()
    if not killed:
        ours.send(b"{}")
    ours.close()
    assert command.wait(60) == (143 if killed else 0)
    assert (tmp_path / "begun").exists() != killed
