"""A process that holds a rank's lock, as a worker or a saver does that has outlived its supervisor."""

from __future__ import annotations

import contextlib
import subprocess
import sys

HOLDER = """
import sys
from pathlib import Path
from resilient.host.files import DiskFiles
from resilient.saving.saver_process import take_lock
lock = take_lock(DiskFiles(), Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def rank_held(path):
    """Such a process, for as long as the block lasts; its pid."""
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"held\n"
            yield process.pid
        finally:
            process.stdin.close()
