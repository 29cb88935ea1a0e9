"""Whoever reads the supervisor's output, or does not: the run goes its way, and the log has everything."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pty
import signal
import subprocess
import termios
import time

import pytest
from supervised import TRAINING, events, wait_until

pytestmark = pytest.mark.process

DIES_ONCE = """
    import os, signal
    from resilient.worker.session.session import current
    attempt = current().config.attempt
    os.write(1, b"attempt %d works\\n" % attempt)
    os.write(2, b"attempt %d complains\\n" % attempt)
    current().tell_step(attempt)
    if attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
"""

FLOODS = """
    import os
    data = b"0123456789abcde\\n" * 65536
    while True:
        os.write(1, data)
"""


def fill(descriptor):
    """Writes until there is no room."""
    os.set_blocking(descriptor, False)
    for size in (65536, 1):
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(descriptor, b"." * size)
    os.set_blocking(descriptor, True)


@pytest.fixture
def full_pipe():
    """The end of a full pipe to write to; nobody reads the other one."""
    reading, writing = os.pipe()
    fill(writing)
    yield writing
    os.close(reading)
    os.close(writing)


@pytest.fixture
def stopped_terminal():
    """A terminal at which somebody has pressed Ctrl-S."""
    master, slave = pty.openpty()
    termios.tcflow(slave, termios.TCOOFF)
    yield slave
    os.close(slave)
    os.close(master)


def log(run, attempt=1):
    return (run.folder / "run" / "logs" / f"attempt_{attempt:04d}" / "rank_0.log").read_bytes()


@pytest.mark.parametrize("console", ["full_pipe", "stopped_terminal"])
def test_a_console_that_nobody_reads_holds_up_nothing(supervise, request, console):
    """A death is seen, another attempt made, and the run completed, while not a byte can be shown."""
    stuck = request.getfixturevalue(console)
    run = supervise(DIES_ONCE, stdout=stuck, stderr=stuck)
    assert run.end() == 0
    assert [event["cause"] for event in events(run, "incident_judged")]
    assert [event["status"] for event in events(run, "ended")] == [0]
    for attempt in (1, 2):
        lines = sorted(log(run, attempt).decode().splitlines())
        assert lines == [f"attempt {attempt} complains", f"attempt {attempt} works"]


def test_a_stop_is_heard_while_nobody_reads(supervise, full_pipe):
    """A worker that writes more than anybody takes waits, and its supervisor hears the stop."""
    run = supervise(FLOODS, stdout=full_pipe, stderr=full_pipe)
    path = run.folder / "run" / "logs" / "attempt_0001" / "rank_0.log"
    wait_until(lambda: path.exists() and path.stat().st_size > 2**24, "more than is kept for a reader")
    run.send(signal.SIGTERM)
    assert run.end() == 75
    assert [event["signal"] for event in events(run, "stop_requested")] == ["SIGTERM"]
    assert len(events(run, "incident_judged")) == 1


def test_a_worker_that_waits_for_a_reader_does_not_hang(supervise):
    """It stands still beyond any limit, because nobody takes its output; it goes on when somebody does."""
    reading, writing = os.pipe()
    fill(writing)
    script = (
        TRAINING
        + """
    step(1)
    for _ in range(20):
        os.write(1, b"0123456789abcde\\n" * 65536)
    step(2)
    print("done", file=sys.stderr, flush=True)
    """
    )
    run = supervise(script, "--hang-timeout", "1", stdout=writing)
    os.close(writing)
    path = run.folder / "run" / "logs" / "attempt_0001" / "rank_0.log"
    wait_until(lambda: path.exists() and path.stat().st_size > 2**24, "more than is kept for a reader")
    time.sleep(8)  # what is waited for is time itself
    assert "done" not in run.err()
    with os.fdopen(reading, "rb") as file:
        out = file.read()
    assert run.end() == 0, run.err()
    assert out.lstrip(b".") == b"0123456789abcde\n" * 65536 * 20
    assert events(run, "hang") == []
    assert len(events(run, "attempt")) == 1


def test_a_reader_that_comes_late_gets_every_byte(supervise):
    """A pipe that was full while the training ran, and is read before its end: nothing of it is missing."""
    reading, writing = os.pipe()
    fill(writing)
    script = "for n in range(20000): print('line', n)\ninput()"
    run = supervise(script, stdin=subprocess.PIPE, stdout=writing)
    os.close(writing)
    expected = b"".join(b"line %d\n" % n for n in range(20000))
    path = run.folder / "run" / "logs" / "attempt_0001" / "rank_0.log"
    wait_until(lambda: path.exists() and path.stat().st_size == len(expected), "all is kept")
    got = bytearray()
    with os.fdopen(reading, "rb") as file:
        got += file.read(2**16)
        run.process.stdin.write(b"\n")
        run.process.stdin.close()
        got += file.read()
    assert run.end() == 0
    assert got.lstrip(b".") == expected


def test_a_reader_that_has_gone_ends_nothing(supervise):
    """EPIPE on both streams: the training goes on, and the journal says why nothing was shown."""
    reading, writing = os.pipe()
    os.close(reading)
    run = supervise(DIES_ONCE, stdout=writing, stderr=writing)
    os.close(writing)
    assert run.end() == 0
    texts = [event["text"] for event in events(run, "warning")]
    assert sum(f"cannot be written: {os.strerror(errno.EPIPE)}" in text for text in texts) == 2
    assert b"attempt 2 works" in log(run, 2)


def test_a_full_disk_under_the_output_ends_nothing(supervise):
    """ENOSPC on stdout: told once, on stderr and in the journal; no traceback."""
    with open("/dev/full", "wb") as full:
        run = supervise(DIES_ONCE, stdout=full)
        assert run.end() == 0
    told = f"standard output cannot be written: {os.strerror(errno.ENOSPC)}"
    assert run.err().count(told) == 1
    assert sum(told in event["text"] for event in events(run, "warning")) == 1
    assert "Traceback" not in run.err()


def test_a_stream_that_does_not_block_gets_every_byte(supervise):
    """Whoever shares our stdout has made it non-blocking: no byte is lost, whatever EAGAIN says."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writing, False)
    run = supervise("for n in range(20000): print('line', n)", stdout=writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        assert file.read() == b"".join(b"line %d\n" % n for n in range(20000))
    assert run.end() == 0
    assert events(run, "warning") == []


@pytest.mark.parametrize("closed", [(0, 1, 2), (0,), (1,), (2,), (0, 2)])
def test_closed_streams_are_no_place_for_files(supervise, closed):
    """Started with some of 0, 1 and 2 closed: they are /dev/null, in the worker too, and no file of ours."""
    run = supervise(
        """
        import os
        for pid in (os.getppid(), os.getpid()):
            names = [os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)]
            with open("streams", "a") as file:
                print(*names, file=file)
        os.write(1, b"said\\n")
        os.write(2, b"cried\\n")
        """,
        before=lambda: [os.close(number) for number in closed],
    )
    assert run.end() == 0, run.err()
    assert sorted(log(run).splitlines()) == [b"cried", b"said"]
    supervisors, workers = [line.split() for line in (run.folder / "streams").read_text().splitlines()]
    assert all(supervisors[number] == "/dev/null" for number in closed)
    assert 0 not in closed or workers[0] == "/dev/null"
    assert run.out() == ("" if 1 in closed else "said\n")
    assert ("cried" in run.err()) == (2 not in closed)
    for path in (run.folder / "run").rglob("*.json*"):
        assert "cried" not in path.read_text()
