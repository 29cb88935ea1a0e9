"""A real saver process for tests, driven over its link as the supervisor drives it."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
import termios
from pathlib import Path

from slots import rank_mirror, write
from supervised import DEADLINE_S

from resilient.wire.link import Link
from resilient.wire.messages import CommitSlot, Configure, TakeOver


class SpawnedSaver:
    """``python -m resilient.saving.saver_process`` on a store, with a mirror of the rank's to commit from."""

    def __init__(self, config, size_bytes=24, slots=2):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # Whoever waits for an answer that never comes fails at the deadline.
        ours.settimeout(DEADLINE_S)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "resilient.saving.saver_process", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        self._socket = ours
        self.link = Link(ours)
        self.mirror = rank_mirror(size_bytes, slots)
        if config is not None:
            self.link.send(Configure(config))

    def opened(self):
        """Has the store opened, and waits for that."""
        assert self.ask(TakeOver()).error == ""
        return self

    def ask(self, message, *descriptors):
        self.link.send(message, descriptors)
        return self.link.receive()[0]

    def request(self, step, **why):
        """Writes the boundary of a step into the mirror, and asks for its commit."""
        slot = write(self.mirror, step)
        values = {"reason": "schedule", "failure": False, "hurry": True}
        self.link.send(CommitSlot(slot, **{**values, **why}), [self.mirror.memory.descriptor])

    def commit(self, step, **why):
        self.request(step, **why)
        return self.link.receive()[0]

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(DEADLINE_S)

    def end(self):
        """Ends the link, and waits for the end of the process: its exit status and what it said."""
        self.link.close()
        said = self.process.communicate(timeout=DEADLINE_S)[1]
        return self.process.returncode, said.decode()

    def status(self, field):
        """A number of /proc/PID/status, in kB where it is memory."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1], 16 if field.startswith("Sig") else 10)
        raise AssertionError(f"no {field}")

    def has_read_all(self):
        """Whether it has taken every message from its end of the link (unix(7): SIOCOUTQ)."""
        return struct.unpack("i", fcntl.ioctl(self._socket, termios.TIOCOUTQ, bytes(4)))[0] == 0

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def clear_away(self):
        if self.process.poll() is None:
            self.kill()
        self.process.stderr.close()
        self.link.close()
        self.mirror.close()
