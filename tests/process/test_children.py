"""Children that a script spawns: as plain Python makes them, whatever lies beside the script."""

from __future__ import annotations

import subprocess
import sys

import pytest
from supervised import DEADLINE_S

from resilient import isolated

pytestmark = pytest.mark.process

SPAWNS = """
import multiprocessing
import os
import sys

def child():
    print("child modules", sorted(sys.modules), flush=True)
    print("child path", sys.path, flush=True)
    import resilient
    print("the user's", resilient.WHOSE, flush=True)

if __name__ == "__main__":
    for how in ("spawn", "forkserver"):
        process = multiprocessing.get_context(how).Process(target=child)
        process.start()
        process.join()
        print("ended with", process.exitcode, flush=True)
"""

DECOY = """
import multiprocessing
import sys
WHOSE = "mine"
if multiprocessing.parent_process() is not None and "__mp_main__" not in sys.modules:
    print("the decoy runs", flush=True)
    sys.exit()
"""


def test_a_child_finds_nothing_of_ours_and_runs_nothing_that_only_has_our_name(supervise, tmp_path):
    """Its modules and its path are those of plain python; a file of our name is imported by the script."""
    (tmp_path / "resilient.py").write_text(DECOY)
    # Not by -m, which imports from the working directory.
    run = supervise(SPAWNS, program=isolated.command("supervisor.command.cli")[1:])
    assert run.end() == 0
    (tmp_path / "plain.py").write_text(SPAWNS)
    plain = subprocess.run(
        [sys.executable, str(tmp_path / "plain.py")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert "the user's mine" in plain.stdout
    assert run.out().splitlines() == plain.stdout.splitlines()
