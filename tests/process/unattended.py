"""Starts workers where something fails after the process has been started, and tells what is left of them.

    unattended.py FOLDER KIND HOW

KIND is "worker" or "saver". HOW is "descriptors": with every number of descriptors that are still to be had,
until it succeeds; "pidfd": the one for its end cannot be had (another thread took the last); or "threads":
the first, and the second thread cannot be had. Prints one JSON object a try.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import sys
import threading
from pathlib import Path

import psutil

from resilient.config import WorkerConfig
from supervisor.group.program import Program
from supervisor.group.worker_processes import ProcessWorkers, end

HIGHEST = 64


def descriptors():
    return sorted(map(int, os.listdir("/proc/self/fd")))[:-1]


def attempt(start, facts):
    before = descriptors()
    try:
        end(start())
        facts["error"] = ""
    except OSError as error:
        facts["error"] = str(error)
    for thread in threading.enumerate():
        if thread.name == "output-reader":
            thread.join(60)
    facts["children"] = [
        " ".join([child.status(), *child.cmdline()]) for child in psutil.Process().children()
    ]
    facts["leaked"] = [
        os.readlink(f"/proc/self/fd/{number}") for number in descriptors() if number not in before
    ]
    print(json.dumps(facts), flush=True)
    return not facts["error"]


def main(folder, kind, how):
    workers = ProcessWorkers(Program("command", ("sleep", "1000")), print, lambda: None)
    config = WorkerConfig(run_id="r", directory=Path(folder), seed=1)
    spawn = workers.spawn if kind == "worker" else workers.spawn_saver

    def start():
        return spawn(config, Path(folder) / "log")

    if how == "descriptors":
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        for limit in range(len(descriptors()), HIGHEST):

            def limited(limit=limit):
                resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
                try:
                    return start()
                finally:
                    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

            if attempt(limited, {"limit": limit}):
                return
    if how == "pidfd":

        def refuse_pidfd(pid):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        real_pidfd, os.pidfd_open = os.pidfd_open, refuse_pidfd
        attempt(start, {"pidfd": False})
        os.pidfd_open = real_pidfd
        attempt(start, {"pidfd": True})
        return
    real = threading.Thread.start
    for number in range(2):
        left = [number]

        def refuse(thread, left=left):
            if thread.name == "output-reader":
                left[0] -= 1
                if left[0] < 0:
                    raise RuntimeError("can't start new thread")
            real(thread)

        threading.Thread.start = refuse
        attempt(start, {"thread": number})
    threading.Thread.start = real
    attempt(start, {"thread": None})


if __name__ == "__main__":
    main(*sys.argv[1:])
