"""Arrays are copied whole, by whichever threads the system grants; a refusal costs time and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

BEGINNING = """
    import ctypes, os, resource, sys, threading
    import numpy as np
    from resilient.state import copying

    def limit(processes):
        # The limit does not bind root: as somebody who has no process but this one.
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(54321)
            os.setuid(54321)
        resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))

    def copied(seed):
        source = np.random.default_rng(seed).integers(0, 255, 40 << 20, np.uint8)
        target = np.zeros_like(source)
        copying.copy_pairs([(target, source), (target[:3], source[:3]), (target[:0], source[:0])])
        before = source.copy()
        source[:] = 7
        return threading.active_count(), bool((target == before).all())

    copying._MOST_THREADS = 2
    os.sched_getaffinity = lambda pid: {0, 1}
"""


def run(text):
    program = textwrap.dedent(BEGINNING) + textwrap.dedent(text)
    # NumPy's own threads would be refused as well, and are none of this.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


def test_threads_take_a_part_of_it_each():
    """Where they can be had: two, and all that is copied is right."""
    assert run("print(*copied(1))\nprint(*copied(2))") == ["3 True", "3 True"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody without other processes")
@pytest.mark.parametrize("granted", [0, 1])
def test_a_limit_of_processes_has_the_caller_copy(granted):
    """No thread, or only the first of two: all is right, at once and the next time, and none is left."""
    assert run(f"limit({1 + granted})\nprint(*copied(1))\nprint(*copied(2))") == ["1 True", "1 True"]


def test_a_training_goes_on_when_the_main_thread_has_returned():
    """The interpreter starts no thread any more then; those of before are gone."""
    text = """
        def train():
            threading.main_thread().join()
            print(copied(1)[1])
            print(copied(2)[1])
        copied(0)
        threading.Thread(target=train).start()
    """
    assert run(text) == ["True", "True"]


def test_a_forked_child_has_threads_of_its_own():
    """Those of its parent are not in it, and are not waited for."""
    text = """
        copied(0)
        child = os.fork()
        if child == 0:
            os._exit(0 if copied(1)[1] else 1)
        print(os.waitpid(child, 0)[1])
    """
    assert run(text) == ["0"]
