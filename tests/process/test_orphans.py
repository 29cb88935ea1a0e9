"""A supervisor that was killed with its writer process leaves nothing that disturbs the next one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

import pytest
from supervised import Supervised, events, is_alive, kill_with_writer, wait_until

from resilient.host.cgroup import ControlGroups

pytestmark = pytest.mark.process

with_groups = pytest.mark.skipif(
    ControlGroups.available() is None,
    reason="no control group of ours can be written here (no root, no delegation, or no cgroup v2)",
)

# Leaves a process that nothing but SIGKILL ends, and tells its pid.
LEAVES = """
    import os, signal, time
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(writing, b"!")
        while True:
            signal.pause()
    os.read(reading, 1)
    print("left", child, flush=True)
    signal.pause()
"""

TAKES_ITS_TIME = """
    import os, signal, time
    def end(*_):
        time.sleep(1)
        open("saved", "w").close()
        os._exit(0)
    signal.signal(signal.SIGTERM, end)
    print("up", flush=True)
    while True:
        signal.pause()
"""

DEAF = """
    import os, signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("up", os.getpid(), flush=True)
    while True:
        signal.pause()
"""


@pytest.fixture
def elsewhere(tmp_path):
    """A supervisor of another run."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    run = Supervised(folder, LEAVES)
    yield run
    run.clear_away()


@pytest.fixture
def left_by():
    """Who a run has left, by what it says first; whatever a test that fails leaves is killed."""
    descriptors = []

    def find(run):
        run.wait_for("\n")
        pid = int(run.out().split()[1])
        descriptors.append(os.pidfd_open(pid))
        return pid

    yield find
    for descriptor in descriptors:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        os.close(descriptor)


@with_groups
def test_what_a_killed_supervisor_has_left_is_ended_first(supervise, elsewhere, left_by):
    """The next one ends it before its own worker begins; what others have left, or have, lives on."""
    other = left_by(elsewhere)
    killed = supervise(LEAVES)
    left = left_by(killed)
    kill_with_writer(killed)
    killed.end()
    assert is_alive(left)
    # Nobody may have collected it yet: a zombie is dead.
    run = supervise(f"import psutil\nprint(psutil.pid_exists({left}) and psutil.Process({left}).status())")
    assert run.end() == 0
    assert run.out() in ("False\n", "zombie\n")
    assert "has left processes behind" in run.err()
    assert f"process {left}" in events(run, "warning")[-1]["text"]
    assert is_alive(other), "its supervisor lives"
    kill_with_writer(elsewhere)
    elsewhere.end()
    again = supervise("print('again')", "--fresh", "--archive")
    assert again.end() == 0
    assert is_alive(other), "of another run"


@with_groups
def test_a_worker_that_still_saves_is_waited_for(supervise):
    """Its supervisor is dead, it was told to end and does what it has to before: that is not cut off."""
    killed = supervise(TAKES_ITS_TIME)
    killed.wait_for("up")
    kill_with_writer(killed)
    killed.end()
    run = supervise("import os\nprint(os.path.exists('saved'))")
    assert run.end() == 0
    assert run.out() == "True\n"


@with_groups
def test_a_worker_that_does_not_end_is_killed_when_the_grace_is_over(supervise, left_by):
    """Deaf to the kernel's SIGTERM: the next supervisor waits so long, and then ends it."""
    killed = supervise(DEAF)
    pid = left_by(killed)
    kill_with_writer(killed)
    killed.end()
    run = supervise("print('mine')", "--grace", "0.5")
    assert run.end() == 0
    assert run.out() == "mine\n"
    wait_until(lambda: not is_alive(pid), "the end of the first worker")


@with_groups
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_while_the_last_worker_is_waited_for_leaves_it_alone(supervise, left_by, number):
    """It is told as any other stop, with its exit status; the worker that still saves is not cut off."""
    killed = supervise(DEAF)
    pid = left_by(killed)
    kill_with_writer(killed)
    killed.end()
    run = supervise("print('never')", "--grace", "500")
    run.wait_for("has left processes behind", "err")
    run.send(number)
    assert run.end() == 75, run.err()
    assert run.out() == ""
    assert f"stopped by {number.name}" in run.err()
    assert "Traceback" not in run.err()
    assert events(run, "ended")[-1]["status"] == 75
    assert is_alive(pid)
    last = supervise("print('mine')", "--grace", "0.1")
    assert last.end() == 0
    assert last.out() == "mine\n"


def test_a_command_whose_supervisor_is_dead_does_not_begin(tmp_path):
    """It died before the kernel was asked for a signal: there is none, and the command is not run."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    launch = [sys.executable, "-m", "supervisor.group.parent_death", "-1"]
    done = subprocess.run([*launch, str(dead.pid), "touch", "begun"], cwd=tmp_path, check=False)
    assert done.returncode == 128 + signal.SIGTERM
    assert not (tmp_path / "begun").exists()
    subprocess.run([*launch, str(os.getpid()), "touch", "begun"], cwd=tmp_path, check=True)
    assert (tmp_path / "begun").exists()
