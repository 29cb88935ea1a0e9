"""Our own stdout and stderr, and readers that are slow, gone, or at lunch."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import threading

import pytest

from supervisor.edges.outlet import Outlet, outlets
from supervisor.edges.write_queue import WriteQueue
from supervisor.group.worker_output import OutputLog, OutputPump
from supervisor.telling.console import Console

DEADLINE_S = 30.0


@pytest.fixture
def pipe():
    """A pipe; the end to write to is full from the beginning."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    for size in (65536, 1):
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writing, b"." * size)
    os.set_blocking(writing, True)
    yield reading, writing
    for descriptor in (reading, writing):
        with contextlib.suppress(OSError):
            os.close(descriptor)


def read_to_end(reading, writing):
    """What is written until the writing end is closed, without what filled the pipe."""
    os.close(writing)
    return b"".join(iter(lambda: os.read(reading, 65536), b"")).lstrip(b".")


def collect(reading, into):
    """A thread that reads until the end."""

    def read():
        while data := os.read(reading, 65536):
            into.extend(data)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread


def test_lines_that_nobody_reads_are_counted_and_told(pipe):
    """Our own lines never wait; what was left out is told once there is room again."""
    reading, writing = pipe
    outlet = Outlet(writing, limit_bytes=0)
    console = Console(outlets=(outlet, outlet))
    many = 100_000
    for number in range(many):
        console.say(f"{number} {'x' * 200}")
    got = bytearray()
    reader = collect(reading, got)
    while b"again" not in got:
        console.say("again")
    outlet.close()
    os.close(writing)
    reader.join(DEADLINE_S)
    lines = got.decode().lstrip(".").splitlines()
    shown = sum(line.endswith("x" * 200) for line in lines)
    assert 0 < shown < many
    told = next(line for line in lines if "not shown" in line)
    left_out = int(told.split()[1])
    assert shown + left_out >= many
    assert lines.index(told) == shown, "in its place"


def test_what_was_left_out_is_told_as_json_where_lines_are_json(pipe):
    """Whoever parses the console's lines can parse this one."""
    reading, writing = pipe
    outlet = Outlet(writing, limit_bytes=0)
    console = Console("json", outlets=(outlet, outlet))
    while outlet.offer(b"x" * 2**20 + b"\n"):
        pass
    console.say("not shown")
    got = bytearray()
    reader = collect(reading, got)
    while b"level" not in got:
        console.say("again")
    outlet.close()
    os.close(writing)
    reader.join(DEADLINE_S)
    lines = [line for line in got.lstrip(b".").splitlines() if not line.startswith(b"x")]
    assert "not shown" in json.loads(lines[0])["message"]


def test_a_worker_waits_for_a_pipe_until_it_is_gone(pipe, tmp_path):
    """Much is waiting: no more is taken from a worker that lives. When it is gone its last words are kept."""
    reading, writing = pipe
    outlet = Outlet(writing, limit_bytes=0)
    source, worker = os.pipe()
    log = tmp_path / "log"
    pump = OutputPump(os.fdopen(source, "rb", 0), outlet, OutputLog(log, pytest.fail))
    pump.start()
    os.write(worker, b"a" * 1000)
    os.write(worker, b"b" * 1000)
    os.close(worker)
    pump.finish(DEADLINE_S)
    assert log.read_bytes() == b"a" * 1000 + b"b" * 1000
    got = bytearray()
    reader = collect(reading, got)
    outlet.close()
    os.close(writing)
    reader.join(DEADLINE_S)
    assert bytes(got.lstrip(b".")) == b"a" * 1000 + b"b" * 1000


def test_a_stuck_stream_does_not_hold_up_the_end(pipe):
    """Nobody reads: closing returns, and what was not shown is lost to the console alone."""
    _, writing = pipe
    outlet = Outlet(writing)
    assert outlet.offer(b"one line\n")
    outlet.close()
    assert not outlet.offer(b"another\n")


def test_a_log_whose_disk_does_not_answer_holds_up_nobody(tmp_path):
    """The worker's output is read all the same, and kept once the disk answers."""
    write_queue = WriteQueue()
    source, worker = os.pipe()
    log = OutputLog(tmp_path / "log", pytest.fail, write_queue)
    os.kill(write_queue.pid, signal.SIGSTOP)
    try:
        pump = OutputPump(os.fdopen(source, "rb", 0), Outlet(os.open(os.devnull, os.O_WRONLY)), log)
        pump.start()
        for _ in range(3):
            os.write(worker, b"x" * 60_000)
        os.close(worker)
        pump.finish(DEADLINE_S)
        assert not pump.reading
    finally:
        os.kill(write_queue.pid, signal.SIGCONT)
    assert write_queue.close(DEADLINE_S) == ""
    assert (tmp_path / "log").read_bytes() == b"x" * 180_000


def test_a_thread_that_cannot_be_started_costs_no_line(monkeypatch, pipe):
    """No thread can be had: what was said is written at the end by whoever closes."""
    reading, writing = pipe
    os.read(reading, 2**20)

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    outlet = Outlet(writing)
    assert outlet.offer(b"why nothing works\n")
    outlet.close()
    assert read_to_end(reading, writing) == b"why nothing works\n"


def test_a_disk_that_has_room_again_gets_the_output_again(tmp_path):
    """What could not be written meanwhile is told in its place, with its size."""
    reading, writing = os.pipe()
    full = os.open("/dev/full", os.O_WRONLY)
    target = os.dup(full)
    told = threading.Event()
    outlet = Outlet(target)
    outlet.report_to(lambda text: told.set())
    outlet.pass_on(b"lost")
    assert told.wait(DEADLINE_S)
    os.dup2(writing, target)
    outlet.pass_on(b"shown\n")
    outlet.close()
    for descriptor in (writing, target, full):
        os.close(descriptor)
    out = b"".join(iter(lambda: os.read(reading, 65536), b""))
    os.close(reading)
    assert out == b"\n[4 bytes of output are not shown here; the log has them]\nshown\n"


def shown(reading, size):
    """So many bytes of what a terminal would show."""
    data, waiting = b"", select.poll()
    waiting.register(reading, select.POLLIN)
    while len(data) < size:
        assert waiting.poll(10_000), f"nothing came after {data!r}"
        data += os.read(reading, size - len(data))
    return data


@pytest.mark.parametrize("bar", [b"50%", b"\r50%", b"50%\r"])
@pytest.mark.parametrize("number", [0, 1])
def test_a_line_of_ours_begins_on_a_line_of_its_own(bar, number):
    """A progress bar that has not come to its end, on either stream of one terminal, is ended first."""
    reading, writing = os.pipe()
    ours = outlets(writing, os.dup(writing))
    console = Console(outlets=ours)
    ours[number].pass_on(bar)
    assert shown(reading, len(bar)) == bar
    console.say("saved")
    assert shown(reading, 18) == b"\nresilient: saved\n"
    console.say("again")
    assert shown(reading, 17) == b"resilient: again\n"
    ours[number].pass_on(b"whole\n")
    assert shown(reading, 6) == b"whole\n"
    console.say("at the end")
    assert shown(reading, 22) == b"resilient: at the end\n"
    for outlet in ours:
        outlet.close()


def test_what_goes_elsewhere_is_no_beginning_of_our_line():
    """Where stdout leads to another place than stderr, a bar there changes nothing here."""
    (out, to_out), (err, to_err) = os.pipe(), os.pipe()
    ours = outlets(to_out, to_err)
    ours[0].pass_on(b"50%")
    assert shown(out, 3) == b"50%"
    Console(outlets=ours).say("saved")
    assert shown(err, 17) == b"resilient: saved\n"
    for outlet in ours:
        outlet.close()
