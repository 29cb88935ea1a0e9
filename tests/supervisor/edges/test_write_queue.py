"""What the supervisor writes into a run's directory: in order, bounded, and never waited for."""

from __future__ import annotations

import os
import resource
import selectors
import signal
import threading
import time
from contextlib import contextmanager, suppress

import pytest

from supervisor.edges import write_queue as module
from supervisor.edges.write_queue import WriteQueue
from supervisor.edges.writer_process import WriteExecutor, WriteOrder, WriteOrderKind
from supervisor.group.worker_output import OutputLog

DEADLINE_S = 30.0


@pytest.fixture
def complaints():
    return []


@pytest.fixture
def write_queue(complaints):
    made = WriteQueue(complain=complaints.append)
    yield made
    made.close(DEADLINE_S)


@contextmanager
def held(write_queue, tmp_path):
    """The writer process does nothing within it, as if its disk did not answer: somebody has stopped it."""
    os.kill(write_queue.pid, signal.SIGSTOP)
    write_queue.append(WriteOrderKind.OUTPUT, tmp_path / "held", b"")
    end_s = time.monotonic() + DEADLINE_S
    while write_queue._flying is None:
        assert time.monotonic() < end_s
        time.sleep(0.001)

    def let_go():
        os.kill(write_queue.pid, signal.SIGCONT)

    try:
        yield let_go
    finally:
        with suppress(ProcessLookupError):
            let_go()
        assert write_queue._handed_over or write_queue.wait(DEADLINE_S)


@contextmanager
def full_above(size_bytes):
    """No file may become larger."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_log_comes_back_after_a_full_disk_and_says_what_is_missing(tmp_path, complaints):
    """The output is tried again with each write; one mark stands where something is missing."""
    log = OutputLog(tmp_path / "logs" / "rank_0.log", complaints.append)
    log.enter()
    log.write(b"one\n")
    with full_above(8):
        log.write(b"two\nthree\n")
        log.write(b"four\n")
    log.write(b"five\n")
    log.leave()
    mark = b"\n[resilient: 11 bytes of output are missing here: File too large]\n"
    assert (tmp_path / "logs" / "rank_0.log").read_bytes() == b"one\ntwo\n" + mark + b"five\n"
    assert len(complaints) == 1
    assert "the log says what is missing" in complaints[0]


def test_a_log_whose_end_is_missing_says_so(tmp_path):
    """The mark is written when the log is closed, if nothing more was said after the disk had room again."""
    executor = WriteExecutor(module.World())
    path = tmp_path / "rank_0.log"
    with full_above(0):
        assert executor.do(WriteOrder(WriteOrderKind.OUTPUT, path, b"lost\n")).error == "File too large"
    executor.do(WriteOrder(WriteOrderKind.LEAVE, path))
    assert b"5 bytes of output are missing here" in path.read_bytes()


def test_nobody_waits_while_the_desk_does_and_the_order_is_kept(write_queue, tmp_path):
    """Lines, output and whole files are given at once; of a file that is replaced the newest is written."""
    selector, heard = selectors.DefaultSelector(), []
    write_queue.watch(selector)
    with held(write_queue, tmp_path) as let_go:
        write_queue.append(WriteOrderKind.LINES, tmp_path / "journal", b"one\n")
        write_queue.replace(tmp_path / "run.json", b"old")
        write_queue.after(lambda: heard.append((tmp_path / "run.json").read_bytes()))
        write_queue.replace(tmp_path / "run.json", b"new")
        write_queue.append(WriteOrderKind.LINES, tmp_path / "journal", b"two\n")
        assert not selector.select(0)
        assert not (tmp_path / "journal").exists()
        let_go()
        for key, _ in selector.select(DEADLINE_S):
            key.data()
    assert heard == [b"new"]
    assert (tmp_path / "journal").read_bytes() == b"one\ntwo\n"


def test_output_that_there_is_no_room_for_is_left_out_and_counted(write_queue, tmp_path, monkeypatch):
    """A disk that takes nothing does not fill the memory: the log says how much is missing."""
    monkeypatch.setattr(module, "_LIMIT_BYTES", 10)
    log = tmp_path / "log"
    with held(write_queue, tmp_path):
        write_queue.append(WriteOrderKind.OUTPUT, log, b"0123456789+")
        write_queue.append(WriteOrderKind.OUTPUT, log, b"gone")
        write_queue.append(WriteOrderKind.OUTPUT, log, b"gone too")
    write_queue.append(WriteOrderKind.OUTPUT, log, b"back")
    assert write_queue.wait(DEADLINE_S)
    assert (
        log.read_bytes()
        == b"0123456789+\n[resilient: 12 bytes of output are missing here: the disk did not answer]\nback"
    )


def test_the_desk_does_the_rest_when_its_supervisor_leaves(tmp_path, monkeypatch):
    """The supervisor does not wait for a disk that takes nothing; all that it has given is written later."""
    monkeypatch.setattr(module, "_END_STALL_S", 0.0)
    write_queue = WriteQueue()
    with held(write_queue, tmp_path) as let_go:
        write_queue.replace(tmp_path / "run.json", b"last words")
        left = write_queue.close(0.1)
        assert f"run.json could not be written yet; process {write_queue.pid} holds the run" in left
        let_go()
        os.waitpid(write_queue.pid, 0)
        assert (tmp_path / "run.json").read_bytes() == b"last words"


def test_a_desk_that_was_killed_is_done_without(write_queue, tmp_path):
    """The supervisor then writes by itself."""
    os.kill(write_queue.pid, signal.SIGKILL)
    write_queue.replace(tmp_path / "run.json", b"all the same")
    assert write_queue.wait(DEADLINE_S)
    assert (tmp_path / "run.json").read_bytes() == b"all the same"


def test_a_refusal_is_told_once_until_it_is_over(write_queue, tmp_path, complaints):
    """A file that cannot be written is named once, with the reason, until it could be written."""
    gone = tmp_path / "file" / "run.json"
    (tmp_path / "file").write_text("in the way")
    for _ in range(2):
        write_queue.replace(gone, b"x")
        assert write_queue.wait(DEADLINE_S)
    (tmp_path / "file").unlink()
    write_queue.replace(gone, b"x")
    assert write_queue.wait(DEADLINE_S)
    assert len(complaints) == 1
    assert "run.json cannot be written: " in complaints[0]


def test_without_a_thread_it_writes_by_itself(write_queue, tmp_path, monkeypatch):
    """Where the machine gives no thread, the caller waits for the disk."""

    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    write_queue.append(WriteOrderKind.LINES, tmp_path / "journal", b"one\n")
    assert (tmp_path / "journal").read_bytes() == b"one\n"
