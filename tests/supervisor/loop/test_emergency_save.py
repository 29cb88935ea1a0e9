"""Two that stay when the loop does not: the emergency save hears on, the guardian remembers."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess

from messages_said import saved

from resilient.wire.link import Link
from resilient.wire.messages import FirstStep
from supervisor.edges.guardian import Charge, Guardian, known
from supervisor.loop.emergency_save import _until_its_end


def test_one_nonsense_packet_does_not_end_the_hearing():
    """The checkpoint that is reported behind it is heard."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    class Ended:
        link, end_fd = Link(ours), -1

        def reap(self):
            return 0

    other = Link(theirs)
    other.send(FirstStep(1))
    theirs.send(b"nonsense")
    other.send(saved(4))
    assert list(_until_its_end(Ended(), 30.0)) == [FirstStep(1), saved(4)]
    Ended.link.close()
    theirs.close()


def test_a_new_charge_does_not_forget_who_was_seen_below_a_worker():
    """A daemon that has left the worker's tree and session is ended with it, also after a saver was added."""
    script = "(setsid sleep 1000 >/dev/null & echo $!; read x); echo alone; sleep 1000"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    worker = subprocess.Popen(["sh", "-c", script], **pipes, start_new_session=True)
    saver = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    try:
        end = os.pidfd_open(int(worker.stdout.readline()))
        guardian = Guardian()
        guardian.take(Charge(workers=known([worker.pid]), grace_s=30.0))
        guardian.look()
        worker.stdin.write(b"\n")
        worker.stdin.flush()
        assert worker.stdout.readline() == b"alone\n"
        guardian.take(Charge(workers=known([worker.pid]), savers=known([saver.pid]), grace_s=0.1, save_s=0.1))
        guardian.end_all()
        ended = select.poll()
        ended.register(end, select.POLLIN)
        found = ended.poll(10_000)
        signal.pidfd_send_signal(end, signal.SIGKILL) if not found else os.close(end)
        assert found
    finally:
        for process in (worker, saver):
            with process:
                process.kill()
