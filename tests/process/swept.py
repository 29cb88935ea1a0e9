"""A supervisor's workers alone, for tests: starts one, waits for its word, kills it, sweeps, and tells.

    swept.py FOLDER GROUPS KIND WORD...

GROUPS is "groups", "none", or "late": the supervisor never comes to put a process into its group. KIND and
WORDs are the program. Prints one JSON object: where the worker and a saver were, who is alive after the
sweep, and whether the saver is.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from pathlib import Path

import psutil

from resilient.config import WorkerConfig
from resilient.host.cgroup import ControlGroup, ControlGroups
from supervisor.group.program import Program
from supervisor.group.worker_processes import ProcessWorkers, tell

DEADLINE_S = 60.0


def group_of(pid):
    """The unified group that a process is in."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return next((line[3:] for line in lines if line.startswith("0::")), "")


def main(folder, groups, kind, *words):
    program = Program(kind, words)
    ControlGroup.add = ControlGroup.add if groups != "late" else lambda self, pid: False
    workers = ProcessWorkers(program, print, ControlGroups.available if groups != "none" else lambda: None)
    config = WorkerConfig(run_id="r", directory=Path(folder), seed=1)
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    os.environ["SAY_READY"] = f"/proc/{os.getpid()}/fd/{writing}"
    saver = workers.spawn_saver(config, Path(folder) / "saver.log")
    if kind == "script":
        # As a standby takes over: started in no group, and told later.
        worker = workers.spawn_standby(config, Path(folder) / "log")
        before = group_of(worker.pid)
        tell(worker, config, [])
    else:
        before = group_of(os.getpid())
        worker = workers.spawn(config, Path(folder) / "log")
    ready = select.select([reading], [], [], DEADLINE_S)[0]
    facts = {
        "ready": bool(ready),
        "before": before,
        "worker": group_of(worker.pid),
        "saver": group_of(saver.pid),
    }
    if ready:
        os.read(reading, 100)
    facts["killed_s"] = time.monotonic()
    worker.signal(signal.SIGKILL)
    select.select([worker.end_fd], [], [], DEADLINE_S)
    worker.reap()
    facts["left"] = workers.sweep([saver.pid])
    facts["swept_s"] = time.monotonic()
    ourselves = psutil.Process()
    found = [child for child in ourselves.children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE]
    facts["alive"] = [" ".join(child.cmdline()) for child in found if child.pid != saver.pid]
    facts["saver_alive"] = saver.reap() is None
    saver.signal(signal.SIGKILL)
    print(json.dumps(facts), flush=True)
    # Whatever a test that fails has left; a moment for each, it may be many.
    for child in found:
        child.kill()


if __name__ == "__main__":
    main(*sys.argv[1:])
