"""Dead processes that have become ours are collected, whatever else has died beside them."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.process

PROGRAM = """if True:
    import os, time
    from supervisor.group.program import Program
    from supervisor.group.worker_processes import ProcessWorkers
    workers = ProcessWorkers(Program("command", ("true",)), print, lambda: None)
    pids = []
    for _ in range(4):
        pids.append(os.fork())
        if pids[-1] == 0:
            os._exit(3)
        os.waitid(os.P_PID, pids[-1], os.WEXITED | os.WNOWAIT)
    worker, *orphans = pids
    workers.reap_orphans([worker])
    for orphan in orphans:
        try:
            os.waitpid(orphan, os.WNOHANG)
            print("left:", orphan)
        except ChildProcessError:
            pass
    print("the worker's own:", os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]))
"""


def test_a_dead_worker_does_not_hide_the_orphans_behind_it():
    """It is collected elsewhere; they are collected at once, and no zombie is left of them."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    assert done.stdout == "the worker's own: 3\n", done.stdout + done.stderr
