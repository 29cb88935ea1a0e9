"""Deaths of processes in the kernel's log."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient.host import kernel_log
from resilient.host.kernel_log import Bookmark, last_word, readable

LOG = [
    b"6,11809,1000000,-;loop1: detected capacity change from 0 to 32768\n",
    b"4,1,2000000,-;python invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0\n",
    b"6,2,2000001,-;oom-kill:constraint=CONSTRAINT_MEMCG,task=python,pid=41,uid=0\n",
    b"3,3,2000002,-;Memory cgroup out of memory: Killed process 41 (python) total-vm:9kB, anon-rss:1kB\n",
    b"3,4,3000000,c;Out of memory: Killed process 42 (my prog) total-vm:1kB\n SUBSYSTEM=x\n",
    b"6,5,4000000,-;python[43]: segfault at 0 ip 00007f sp 00007f error 4 in libc.so.6[167ad8,7f+156000]\n",
    b"6,6,5000000,-;traps: ms [x] 1[44] general protection fault ip:7f sp:7f error:0 in libfoo.so[7f+1000]\n",
    b"6,7,5000001,-;traps: python[45] trap invalid opcode ip:7f sp:7f error:0\n",
    b"6,8,6000000,-;\x1b[31mevil[46]: segfault at 0\n",
]


@pytest.mark.parametrize(
    ("pid", "words"),
    [
        (41, "Memory cgroup out of memory: Killed process 41 (python)"),
        (42, "Out of memory: Killed process 42 (my prog) total-vm:1kB"),
        (43, "python[43]: segfault at 0"),
        (44, "general protection fault"),
        (45, "trap invalid opcode"),
        (46, "?[31mevil[46]: segfault"),
        (4, ""),
        (0, ""),
    ],
)
def test_the_line_about_a_process_is_found(pid, words):
    """The whole line is found by the pid: a kill for memory, a segmentation or protection fault, a trap."""
    found = last_word(LOG, {pid})
    assert words in found
    assert bool(words) == bool(found)
    assert found.isprintable()


def test_no_clock_is_asked(monkeypatch):
    """Records after a bookmark count, whatever their time: the log's clock drifts away from every other.

    The next read skips the records of the last one, because the kernel reuses pids.
    """
    reading, writing = os.pipe2(os.O_NONBLOCK)
    monkeypatch.setattr(kernel_log, "readable", lambda: True)
    monkeypatch.setattr(kernel_log, "_open", lambda: reading)
    bookmark = kernel_log.Bookmark()
    os.write(writing, LOG[4])
    assert "Killed process 42" in bookmark.kernel_says(42)
    assert bookmark.kernel_says(42) == ""
    bookmark.close()
    os.close(writing)


def test_a_kill_for_memory_goes_before_a_fault():
    """Of records on several threads and processes, a kill for memory takes precedence over a fault."""
    assert "Killed process 42" in last_word(LOG, {42, 43, 44})


@given(st.lists(st.binary(max_size=60) | st.sampled_from(LOG).map(lambda line: line[3:])))
def test_any_log_can_be_read(records):
    """A log of any content gives an answer and no error."""
    assert isinstance(last_word(records, {41, 43}), str)


def test_a_real_segmentation_fault_is_told_by_the_kernel():
    """The kernel's line on a process that reads at address 0 is found."""
    if not readable():
        pytest.skip("the kernel's log cannot be read here, or counts processes otherwise (container)")
    switch = Path("/proc/sys/debug/exception-trace")
    if switch.exists() and switch.read_text().strip() == "0":
        pytest.skip("this kernel is told not to log faults (debug.exception-trace)")
    bookmark = Bookmark()
    child = subprocess.Popen([sys.executable, "-c", "import ctypes; ctypes.string_at(0)"])
    assert child.wait(60) == -signal.SIGSEGV
    found = bookmark.kernel_says(child.pid)
    assert f"[{child.pid}]: segfault at 0" in found
    assert Bookmark().kernel_says(child.pid) == "", "older records are another process's"
