"""The progress bar: on a terminal, after two seconds, and never in the way of a result."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys

import pytest
from tool_runs import make_run

from chaos.stepped_clock import SteppedClock
from resilient.host.world import World
from resilient.tools.progress import ProgressBar, watched

GB = 10**9


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_nothing_in_the_first_two_seconds():
    """What is done in less than two seconds draws nothing; what takes longer does, and clears it away."""
    clock, terminal = SteppedClock(), Terminal()
    with ProgressBar("verifying", 10 * GB, clock, terminal) as progress:
        clock.advance(1.9)
        progress.advance(4 * GB)
        assert terminal.getvalue() == ""
        clock.advance(0.2)
        progress.advance(GB)
        assert "verifying [############            ]  50% of 10.0 GB, 2.4 GB/s" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_drawn_five_times_a_second_at_most():
    """Small pieces do not flood the terminal."""
    clock, terminal = SteppedClock(), Terminal()
    progress = ProgressBar("exporting", GB, clock, terminal)
    clock.advance(10)
    for _ in range(1000):
        clock.advance(0.001)
        progress.advance(1000)
    assert 4 <= terminal.getvalue().count("\r") <= 6


def test_cleared_before_a_line():
    """A line that is printed in between finds an empty row; a bar that is not there is not cleared."""
    clock, terminal = SteppedClock(), Terminal()
    progress = ProgressBar("verifying", GB, clock, terminal)
    progress.clear()
    assert terminal.getvalue() == ""
    clock.advance(3)
    progress.advance(2 * GB)
    assert "100%" in terminal.getvalue(), "more than expected is all"
    progress.clear()
    progress.clear()
    assert terminal.getvalue().count("\x1b[K") == 2


def test_no_terminal_no_bar():
    """Into a file or a pipe nothing is drawn, however long it takes."""
    clock, stream = SteppedClock(), io.StringIO()
    with ProgressBar("verifying", GB, clock, stream) as progress:
        clock.advance(100)
        progress.advance(GB)
    assert stream.getvalue() == ""


def test_what_is_read_and_written_counts(tmp_path):
    """Files under watch tell what passes through them, and do all else as before."""
    counted = []
    progress = ProgressBar("", 1, SteppedClock(), io.StringIO())
    progress.advance = counted.append
    files = watched(World().files, progress)
    writer = files.create(tmp_path / "a")
    writer.write(b"12345")
    writer.sync()
    writer.close()
    reader = files.open(tmp_path / "a")
    assert reader.size_bytes == 5
    assert reader.read_into(memoryview(bytearray(3)), 1) == 3
    reader.close()
    assert counted == [5, 3]
    assert files.names(tmp_path) == ["a"]


@pytest.mark.parametrize("terminal", [True, False])
def test_on_a_real_terminal(terminal):
    """A verify that takes its time shows a bar on stderr where that is a terminal, and nowhere else."""
    make_run("run", steps=range(1, 4))
    # The clock of this process runs fast: every look at it finds a second gone.
    program = (
        "import sys, itertools\n"
        "from resilient.host.clock import SystemClock\n"
        "seconds = itertools.count()\n"
        "SystemClock.monotonic = lambda self: float(next(seconds))\n"
        "from resilient.tools import main\n"
        "sys.exit(main())\n"
    )
    command = [sys.executable, "-c", program, "verify", "run"]
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", 0) as screen:
        try:
            stderr = theirs if terminal else subprocess.PIPE
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=stderr, check=False)
        finally:
            os.close(theirs)
        shown = _all_of(screen) if terminal else done.stderr
    assert done.returncode == 0
    assert done.stdout.decode().splitlines()[-1] == "3 files read in full: all ok"
    assert bool(re.search(rb"verifying \[#+ *\] +\d+% of", shown)) == terminal
    assert not terminal or shown.endswith(b"\r\x1b[K")


def _all_of(screen):
    shown = b""
    try:
        while data := screen.read(65536):
            shown += data
    except OSError:
        # The other side is closed.
        pass
    return shown
