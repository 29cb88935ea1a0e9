"""parent_death DOOR PARENT COMMAND [ARGS...]: becomes the command, and dies when its parent does.

For ``--no-python``: a command that is none of ours cannot ask the kernel for that itself. PARENT is the pid
of whoever starts it: for one that is dead before the kernel is asked no signal comes any more. DOOR is an
open descriptor of the control group that the attempt's processes are in, or -1: whoever writes "0" there is
in it, and with it all that it starts. A command begins at once, so it must be in before. And it begins only
once the supervisor has sent the first message on its link: by then the guardian knows of it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import sys

from resilient.config import Environment

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Replaces this process by the command; 127 and 126 as a shell says it when that is impossible."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != int(sys.argv[2]):
        raise SystemExit(128 + signal.SIGTERM)
    _enter(int(sys.argv[1]))
    _await_word()
    command = sys.argv[3:]
    try:
        os.execvp(command[0], command)  # noqa: S606 - an argument list, never a shell
    except OSError as error:
        print(f"resilient: {command[0]}: {error.strerror}", file=sys.stderr)
        raise SystemExit(127 if isinstance(error, FileNotFoundError) else 126) from None


def _enter(door: int) -> None:
    if door < 0:
        return
    with contextlib.suppress(OSError):
        os.write(door, b"0")
    os.close(door)


def _await_word() -> None:
    """Waits until the supervisor has said something. The message stays: a command may be ours as well."""
    link_fd = Environment.read().link_fd
    if link_fd is None:
        return
    link = socket.socket(fileno=link_fd)
    try:
        said = link.recv(1, socket.MSG_PEEK)
    except OSError:
        said = b""
    link.detach()
    if not said:
        raise SystemExit(128 + signal.SIGTERM)


if __name__ == "__main__":
    main()
