"""A process that works on a run, played: it really holds the lock, hears real signals, writes a journal.

    played_holder.py RUN KIND ANSWER

KIND is "supervisor" or "plain". ANSWER is what a request for a checkpoint leads to: "saved", "failed",
"nothing", "end" (it ends instead), or "silence". "deaf" is a supervisor without a handler for the request,
"hears" a training that has one.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from resilient.host.world import World
from resilient.run.rundir import RunDirectory
from supervisor.edges.journal import Journal


def main(root, kind, answer):
    world = World()
    directory = RunDirectory(Path(root), world)
    lock = directory.lock()
    directory.open({"status": "running"})
    numbers = {signal.SIGTERM, signal.SIGRTMIN + 3}
    if kind == "supervisor":
        journal = Journal(directory.journal, world.clock, print)
        journal.write("run", run_id="r", command=["train.py"], pid=os.getpid())
        journal.write("attempt", attempt=1, pid=4242)
        journal.write("saved", step=3, epoch=1, file="CKP_rank_0-1_3.ckpt", reason="request")
    for number in numbers:
        if answer == "hears" or (kind == "supervisor" and (answer != "deaf" or number == signal.SIGTERM)):
            signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(
        signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGRTMIN + 3} if kind == "supervisor" else {signal.SIGTERM}
    )
    print("ready", flush=True)
    while True:
        number = signal.sigwait(numbers)
        print(f"heard {number}", flush=True)
        if number == signal.SIGTERM:
            if kind == "supervisor":
                journal.write("saved", step=9, epoch=1, file="CKP_rank_0-1_9.ckpt", reason="SIGTERM")
                journal.write("ended", status=75)
            if answer != "silence":
                break
        elif not reply(journal, answer):
            break
    lock.release()


def reply(journal, answer):
    journal.write("request", what="save")
    if answer == "saved":
        journal.write("save_failed", step=6, error="disk full", reason="schedule")
        journal.write("saved", step=7, epoch=1, file="CKP_rank_0-1_7.ckpt", reason="schedule")
        journal.write("saved", step=8, epoch=1, file="CKP_rank_0-1_8.ckpt", reason="request")
    if answer == "failed":
        journal.write("save_failed", step=8, error="No space left on device", reason="request")
    if answer == "nothing":
        journal.write("remark", text="asked for a checkpoint: step 8 is saved already")
    if answer == "refused":
        journal.write("refused", text="there is no training that could be asked for save")
    return answer != "end"


if __name__ == "__main__":
    main(*sys.argv[1:])
