"""What /proc tells of real processes, and what is made of it: stopped, starved, spinning, debugged, gone."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time

import pytest
from supervised import wait_until

from resilient.wire.heartbeat import Heartbeat, Phase
from supervisor.edges import vitals
from supervisor.watching.liveness import HangPolicy, Liveness

pytestmark = pytest.mark.process

SLEEPS = "import sys, time; print('ready', flush=True); time.sleep(600)"
SPINS = "print('ready', flush=True)\nwhile True: pass"
WRITES = """
import tempfile
print('ready', flush=True)
while True:
    with tempfile.TemporaryFile() as file:
        file.write(bytes(1 << 16))
"""
# The child's child spins; the child itself sleeps.
SPINS_BELOW = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SPINS!r}])"


@pytest.fixture
def start():
    """Starts a program in a process of its own, and waits for its first word; none outlives the test."""
    processes = []

    def begin(program, **more):
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, start_new_session=True, **more
        )
        processes.append(process)
        assert process.stdout.readline() == b"ready\n"
        return process

    yield begin
    for process in processes:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def until(pid, condition, what):
    """The first vitals of which this is true."""
    found = []

    def look():
        found[:] = [vitals.read(pid)]
        return condition(found[0])

    wait_until(look, what)
    return found[0]


def test_a_sleeping_process_does_nothing(start):
    """It sleeps, is not traced, has memory, and uses no CPU from one look to the next."""
    process = start(SLEEPS)
    first = until(process.pid, lambda seen: seen.state == "S", "it sleeps")
    second = vitals.read(process.pid)
    assert (first.traced, first.members, second.cpu_s) == (False, (process.pid,), first.cpu_s)
    assert 1_000_000 < first.resident_bytes < 10**9
    assert list(first.waited_s) == [process.pid]


def test_a_stopped_process_is_seen_as_stopped(start):
    """SIGSTOP: state T; after SIGCONT no longer."""
    process = start(SLEEPS)
    process.send_signal(signal.SIGSTOP)
    until(process.pid, lambda seen: seen.state == "T", "it is stopped")
    process.send_signal(signal.SIGCONT)
    until(process.pid, lambda seen: seen.state == "S", "it sleeps again")


@pytest.mark.parametrize("program", [SPINS, SPINS_BELOW])
def test_work_is_seen_whoever_of_the_tree_does_it(start, program):
    """CPU time of descendants is the worker's."""
    process = start(program)
    first = vitals.read(process.pid)
    seen = until(process.pid, lambda seen: seen.cpu_s > first.cpu_s + 0.05, "it uses CPU")
    assert len(seen.members) == (2 if program == SPINS_BELOW else 1)


def test_io_is_seen(start):
    """Bytes that are written, whatever file they go to."""
    process = start(WRITES)
    first = vitals.read(process.pid)
    until(process.pid, lambda seen: seen.io_bytes > first.io_bytes + (1 << 17), "it writes")


def test_a_starved_process_waits_for_a_cpu(start):
    """Two that spin on one CPU: the time that the kernel lets one of them wait is told."""
    cpu = min(os.sched_getaffinity(0))

    def pin():
        os.sched_setaffinity(0, {cpu})

    one, _ = start(SPINS, preexec_fn=pin), start(SPINS, preexec_fn=pin)
    first = vitals.read(one.pid).waited_s[one.pid]
    until(one.pid, lambda seen: seen.waited_s[one.pid] > first + 0.2, "it is made to wait")


def test_a_debugger_is_seen(start):
    """One that attaches makes the process a traced one; its leaving ends that."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    seize, interrupt, detach = 0x4206, 0x4207, 17
    process = start(SLEEPS)
    if libc.ptrace(seize, process.pid, None, None) != 0:
        pytest.skip(f"ptrace is not allowed here: {os.strerror(ctypes.get_errno())}")
    assert vitals.read(process.pid).traced
    assert libc.ptrace(interrupt, process.pid, None, None) == 0
    os.waitpid(process.pid, 0)
    assert libc.ptrace(detach, process.pid, None, None) == 0
    assert not vitals.read(process.pid).traced


def test_who_has_ended_has_no_vitals(start):
    """Neither while it waits to be collected, nor when its number is nobody's any more."""
    process = start(SLEEPS)
    process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert vitals.read(process.pid) is None
    assert vitals.read(2**22 + 1) is None


def test_processes_that_come_and_go_are_no_error(start):
    """A tree that changes while it is read is read as far as it is there."""
    process = start("""
import subprocess
print('ready', flush=True)
while True:
    subprocess.run(['true'])
""")
    seen = [vitals.read(process.pid) for _ in range(300)]
    assert all(one is not None and len(one.members) in (1, 2) for one in seen)


def test_the_tree_is_found_without_the_lists_of_children(start, monkeypatch):
    """A kernel that was built without them has every process's parent all the same."""
    process = start(SPINS_BELOW)
    text = vitals._text
    monkeypatch.setattr(vitals, "_knows_children", lambda: False)
    monkeypatch.setattr(vitals, "_text", lambda *parts: "" if parts[-1] == "children" else text(*parts))
    assert len(vitals.read(process.pid).members) == 2


# What is made of it


def first_hang(liveness):
    """Looks as it is wanted, in real time, until there is a hang."""
    hangs = []

    def look():
        now_s = time.monotonic()
        if now_s >= liveness.next_look_s:
            hangs.append(liveness.look(now_s))
        return hangs and hangs[-1] is not None

    wait_until(look, "a hang is found")
    return hangs[-1]


def test_a_stopped_worker_is_found_to_hang(start):
    """SIGSTOP in the middle of a step: a hang in STEP, once its limit has passed."""
    process = start(SLEEPS)
    page = Heartbeat.create()
    page.beat(Phase.STEP, 12)
    process.send_signal(signal.SIGSTOP)
    liveness = Liveness(page, HangPolicy(1.0), lambda: vitals.read(process.pid), time.monotonic())
    hang = first_hang(liveness)
    assert (hang.phase, hang.step, hang.limit_s) == (Phase.STEP, 12, 1.0)
    assert hang.silent_s > 1.0
    page.close()


def test_a_spinning_worker_is_found_to_hang(start):
    """A loop that never comes to its end, by a limit that was given."""
    process = start(SPINS)
    page = Heartbeat.create()
    page.beat(Phase.CALLBACKS, 3)
    liveness = Liveness(page, HangPolicy(1.0), lambda: vitals.read(process.pid), time.monotonic())
    assert first_hang(liveness).phase is Phase.CALLBACKS
    page.close()
