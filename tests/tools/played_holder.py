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
from resilient.journal.events import (
    AttemptStarted,
    RemarkMade,
    RequestRefused,
    StepNotSaved,
    StepSaved,
    SupervisorEnded,
    SupervisorStarted,
    WorkRequested,
)
from resilient.run.rundir import RunDirectory
from supervisor.edges.journal_writer import JournalWriter


def main(root, kind, answer):
    world = World()
    directory = RunDirectory(Path(root), world)
    lock = directory.lock()
    directory.open({"status": "running"})
    numbers = {signal.SIGTERM, signal.SIGRTMIN + 3}
    if kind == "supervisor":
        journal = JournalWriter(directory.journal, world.clock, print)
        journal.write(SupervisorStarted("r", ("train.py",), os.getpid()))
        journal.write(AttemptStarted(4242, attempt=1))
        journal.write(StepSaved(3, 1, "CKP_rank_0-1_3.ckpt", "request"))
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
                journal.write(StepSaved(9, 1, "CKP_rank_0-1_9.ckpt", "SIGTERM"))
                journal.write(SupervisorEnded(75))
            if answer != "silence":
                break
        elif not reply(journal, answer):
            break
    lock.release()


def reply(journal, answer):
    journal.write(WorkRequested("save"))
    if answer == "saved":
        journal.write(StepNotSaved(6, "disk full", "schedule"))
        journal.write(StepSaved(7, 1, "CKP_rank_0-1_7.ckpt", "schedule"))
        journal.write(StepSaved(8, 1, "CKP_rank_0-1_8.ckpt", "request"))
    if answer == "failed":
        journal.write(StepNotSaved(8, "No space left on device", "request"))
    if answer == "nothing":
        journal.write(RemarkMade("asked for a checkpoint: step 8 is saved already"))
    if answer == "refused":
        journal.write(RequestRefused("save", "there is no training that could be asked for save"))
    return answer != "end"


if __name__ == "__main__":
    main(*sys.argv[1:])
