"""python -m supervisor.launch COMMAND [ARGS...]: becomes the command, and dies when its parent does.

For ``--no-python``: a command that is none of ours cannot ask the kernel for that itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Replaces this process by the command; 127 and 126 as a shell says it when that is impossible."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    command = sys.argv[1:]
    try:
        os.execvp(command[0], command)  # noqa: S606 - an argument list, never a shell
    except OSError as error:
        print(f"resilient: {command[0]}: {error.strerror}", file=sys.stderr)
        raise SystemExit(127 if isinstance(error, FileNotFoundError) else 126) from None


if __name__ == "__main__":
    main()
