"""The standard input of each worker, and the rest of it for other readers."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading

import pytest
from slots import descriptors

from supervisor.group.standard_input import StandardInput

DEADLINE_MS = 30_000


@contextlib.contextmanager
def worker(stdin, **how):
    """A worker's share of an input; a duplicate of its descriptor stands for the worker's own."""
    share = stdin.share(**how)
    reading = os.dup(share.descriptor)
    share.started()
    try:
        yield reading, share
    finally:
        os.close(reading)
        share.end()


def read(descriptor, size=65536):
    ready = select.poll()
    ready.register(descriptor, select.POLLIN)
    assert ready.poll(DEADLINE_MS), "nothing came"
    return os.read(descriptor, size)


def read_all(descriptor):
    return b"".join(iter(lambda: read(descriptor), b""))


def pipe():
    return os.pipe()


def connection():
    ours, theirs = socket.socketpair()
    return ours.detach(), theirs.detach()


@pytest.fixture(params=[pipe, connection])
def source(request):
    """Both ends of a pipe, and of a connection."""
    ends = request.param()
    yield ends
    for end in ends:
        with contextlib.suppress(OSError):
            os.close(end)


def test_each_worker_reads_what_the_ones_before_have_read_and_then_the_rest(source):
    """Also a worker that reads byte by byte, input that comes late, and more of it than a pipe holds."""
    reading, writing = source
    said = []
    stdin = StandardInput(said.append, reading)
    os.write(writing, b"early\n")
    with worker(stdin) as (first, _):
        assert read(first, 2) + read(first, 1) == b"ear"
    with worker(stdin) as (second, _):
        assert read(second) == b"early\n"[:3]
        assert read(second) == b"ly\n"
        os.write(writing, b"late\n")
        assert read(second) == b"late\n"
    more = os.urandom(100_000)
    with worker(stdin) as (third, _):
        assert read(third) == b"early\nlate\n"
        for start in range(0, len(more), 4000):
            os.write(writing, more[start : start + 4000])
            assert read(third) == more[start : start + 4000]
        os.close(writing)
        assert read(third) == b""
    with worker(stdin) as (fourth, _):
        assert read_all(fourth) == b"early\nlate\n" + more
    assert said == []


def test_what_no_worker_has_read_stays_where_it_is(source):
    """A shell's ``while read line`` goes on with its next line, and an endless source is not drained."""
    reading, writing = source
    stdin = StandardInput(lambda text: None, reading)
    os.write(writing, b"one\ntwo\n")
    with worker(stdin):
        pass
    with worker(stdin) as (descriptor, _):
        assert read(descriptor, 4) == b"one\n"
    assert read(reading) == b"two\n"


def test_another_reader_that_was_first_holds_nobody_up(source):
    """What two read at the same time is gone from the source: the end of a share does not wait for more."""
    reading, writing = source
    stdin = StandardInput(pytest.fail, reading)
    os.write(writing, b"words\n")
    ended = threading.Event()

    def attempt():
        with worker(stdin) as (first, _):
            ready = select.poll()
            ready.register(first, select.POLLIN)
            ready.poll(DEADLINE_MS)
            assert read(reading) == b"words\n"
            assert read(first) == b"words\n"
        ended.set()

    threading.Thread(target=attempt, daemon=True).start()
    assert ended.wait(DEADLINE_MS / 1000)
    assert os.get_blocking(reading)
    with worker(stdin) as (second, _):
        assert read(second) == b"words\n"
        os.write(writing, b"more\n")
        assert read(second) == b"more\n"


def test_a_share_that_cannot_be_made_leaves_nothing_open(source, monkeypatch):
    """A user whose pipes hold too much gets none of another size."""
    stdin = StandardInput(pytest.fail, source[0])
    before = descriptors()
    monkeypatch.setattr("supervisor.group.standard_input._PAGE_BYTES", 1 << 31)
    with pytest.raises(OSError, match=r"Invalid|permitted"):
        stdin.share()
    assert descriptors() == before


def test_a_standby_takes_nothing_before_its_attempt_begins(source):
    """Its share is empty until then, and holds then what the attempt before it has read."""
    reading, writing = source
    stdin = StandardInput(lambda text: None, reading)
    os.write(writing, b"words")
    os.close(writing)
    with worker(stdin, waits=True) as (later, share):
        with worker(stdin) as (now, _):
            assert read_all(now) == b"words"
        quiet = select.poll()
        quiet.register(later, select.POLLIN)
        assert not quiet.poll(0)
        share.begin()
        assert read_all(later) == b"words"


def test_input_beyond_the_limit_is_named_and_the_next_attempt_too(source):
    """The worker that reads it gets all; the next one the beginning and the end, and a warning says why."""
    reading, writing = source
    said = []
    stdin = StandardInput(said.append, reading, limit_bytes=10)
    os.write(writing, b"12345678")
    with worker(stdin) as (first, _):
        assert read(first) == b"12345678"
        os.write(writing, b"90ABCD")
        assert read(first) == b"90ABCD"
        os.write(writing, b"EF")
        assert read(first) == b"EF"
    assert len(said) == 1
    assert "longer than what is kept of it (10 bytes)" in said[0]
    with worker(stdin) as (second, _):
        assert read_all(second) == b"12345678"
    assert len(said) == 2
    assert "reads only the first 8 bytes" in said[1]


def test_a_file_is_read_from_where_the_first_attempt_began(tmp_path):
    """Not from its beginning: what lies before was somebody else's; a standby does not move the others."""
    path = tmp_path / "input"
    path.write_bytes(b"skipped\nmine\n")
    with path.open("rb", buffering=0) as file:
        file.read(8)
        stdin = StandardInput(lambda text: None, file.fileno())
        standby = stdin.share(waits=True)
        for share in (stdin.share(), standby):
            share.begin()
            assert share.descriptor == file.fileno()
            assert file.read() == b"mine\n"
            share.begin()
            assert file.read() == b""


def test_everything_else_is_inherited():
    """/dev/null, a terminal, a pipe's other end, a socket that is not connected."""
    reading, writing = os.pipe()
    alone = socket.socket()
    master, slave = os.openpty()
    null = os.open(os.devnull, os.O_RDONLY)
    for descriptor in (writing, alone.fileno(), slave, null):
        share = StandardInput(pytest.fail, descriptor).share()
        assert share.descriptor == descriptor
        share.started()
        share.end()
        os.fstat(descriptor)
        os.close(alone.detach() if descriptor == alone.fileno() else descriptor)
    os.close(reading)
    os.close(master)
