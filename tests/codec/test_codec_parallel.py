"""Several blocks at once: the same bytes in the same order as one by one, bounded memory, no leaks."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import closing
from functools import partial

import pytest
from bytes_reader import BytesReader

from chaos.seeded_entropy import SeededEntropy
from resilient.codec import parallel
from resilient.codec.cipher import BLOCK_BYTES, Cipher
from resilient.codec.parallel import count_threads, in_order
from resilient.errors import CorruptError

KEYS = {None: None, "AES-GCM": bytes(32), "AES-CBC": bytes(32), "SM4-CBC": bytes(16)}
DEADLINE_S = 60


def ours():
    return [thread for thread in threading.enumerate() if thread.name == "resilient-codec"]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    """In every test, no thread outlives its iteration."""
    yield
    assert not ours()


@pytest.mark.parametrize("threads", [0, 1, 2, 4])
@pytest.mark.parametrize("count", [0, 1, 2, 50])
def test_results_come_in_order(threads, count):
    """Any number of threads yields every result once, in the order of the tasks."""
    assert list(in_order([partial(int, n) for n in range(count)], threads)) == list(range(count))


def test_tasks_are_performed_at_once():
    """Two threads work on two tasks at the same time: each waits here until the other has begun."""
    barrier = threading.Barrier(2)
    tasks = [partial(barrier.wait, DEADLINE_S) for _ in range(10)]
    assert sorted(in_order(tasks, 2)) == [0] * 5 + [1] * 5


@pytest.mark.parametrize("threads", [0, 1, 2, 4])
def test_no_buffer_of_a_ring_is_given_out_too_early(threads):
    """When the caller asks for the next result, at most ``threads`` tasks after the last one are drawn."""
    drawn = []

    def draw():
        for number in range(30):
            drawn.append(number)
            yield partial(int, number)

    for number in in_order(draw(), threads):
        # Without threads the first two are drawn together, to see whether threads are worth it.
        assert len(drawn) <= max(number + 1 + threads, 2)
    assert len(drawn) == 30


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_an_error_comes_in_its_place(threads):
    """The results before a failed task are yielded, and none after it."""

    def fail():
        raise CorruptError("the third")

    got = []
    with pytest.raises(CorruptError, match="the third"):  # noqa: PT012 - what came before it is the point
        for result in in_order([partial(int, 0), partial(int, 1), fail, *[partial(int, 9)] * 20], threads):
            got.append(result)
    assert got == [0, 1]


def test_leaving_early_waits_for_what_is_in_work():
    """After closing no thread works on a buffer, and tasks that were not drawn never begin."""
    may_end, begun, ended = threading.Event(), threading.Event(), []

    def slow(number):
        begun.set()
        assert may_end.wait(DEADLINE_S)
        ended.append(number)

    results = in_order([partial(int, 0), *[partial(slow, n) for n in range(1, 20)]], 1)
    assert next(results) == 0
    assert begun.wait(DEADLINE_S)
    closing_it = threading.Thread(target=results.close)
    closing_it.start()
    may_end.set()
    closing_it.join(DEADLINE_S)
    assert not closing_it.is_alive()
    assert ended == [1]
    assert not ours()


@pytest.mark.parametrize("granted", [0, 1])
def test_fewer_threads_than_wanted_do_all_of_the_work(monkeypatch, granted):
    """At a limit of threads, those that could start do the work, or the caller."""
    start, left = threading.Thread.start, [granted]

    def limited(thread):
        if not left[0]:
            raise RuntimeError("can't start new thread")
        left[0] -= 1
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    names = list(in_order([lambda: threading.current_thread().name] * 10, 4))
    assert names == (["resilient-codec"] if granted else [threading.current_thread().name]) * 10


def test_a_single_task_starts_no_thread():
    """A single task runs in the caller's thread: another thread would cost more than it saves."""
    assert list(in_order([lambda: threading.current_thread()], 4)) == [threading.current_thread()]


def test_threads_follow_the_cores(monkeypatch):
    """There are as many threads as cores that this process may use, within limits of memory."""
    for cores, threads in ((1, 2), (2, 2), (3, 3), (64, parallel.MOST_THREADS)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid, cores=cores: set(range(cores)))
        assert count_threads() == threads


def sealed(mode, chunks):
    """The sealed bytes for a writer that still writes the last block when it draws the next one."""
    blocks, tags, flying = [], [], None
    with closing(Cipher(mode, KEYS[mode], SeededEntropy(1)).seal(chunks)) as stream:
        for block in stream:
            if flying is not None:
                blocks.append(bytes(flying))
            flying = block.data
            tags.append(block.tag)
    return [*blocks, bytes(flying)], tags


@pytest.mark.parametrize("mode", KEYS)
def test_many_threads_write_what_one_writes(mode, monkeypatch):
    """Any number of threads makes the same file, nonces included; a block stays whole meanwhile."""
    plain = os.urandom(9 * BLOCK_BYTES + 5)
    # Pieces across every border, and one that passes through unchanged.
    chunks = [plain[:100], plain[100 : 5 * BLOCK_BYTES], plain[5 * BLOCK_BYTES :]]
    monkeypatch.setattr(parallel, "count_threads", lambda: 4)
    blocks, tags = sealed(mode, chunks)
    monkeypatch.setattr(parallel, "count_threads", lambda: 0)
    assert sealed(mode, chunks) == (blocks, tags)
    monkeypatch.setattr(parallel, "count_threads", lambda: 4)
    opened = Cipher(mode, KEYS[mode], SeededEntropy()).open(BytesReader(b"".join(blocks)), tags)
    assert b"".join(bytes(block) for block in opened) == plain


@pytest.mark.parametrize("mode", KEYS)
def test_a_damaged_block_is_told_at_its_place(mode):
    """The blocks before a damaged one are yielded and none after, although others are in work."""
    blocks, tags = sealed(mode, [bytes(6 * BLOCK_BYTES)])
    damaged = bytearray(b"".join(blocks))
    damaged[3 * len(blocks[0]) + 1000] ^= 1
    got = 0
    with pytest.raises(CorruptError, match="block 3"):  # noqa: PT012 - how far it came is the point
        for block in Cipher(mode, KEYS[mode], SeededEntropy()).open(BytesReader(bytes(damaged)), tags):
            assert not any(block[:1000])
            got += 1
    assert got == 3


AT_THE_END = """
import threading
from functools import partial
from resilient.codec.parallel import in_order
def late():
    threading.main_thread().join()
    assert list(in_order([partial(int, n) for n in range(50)], 2)) == list(range(50))
    print("whole")
threading.Thread(target=late).start()
left = in_order([partial(int, n) for n in range(50)], 2)
next(left)
"""


def test_the_end_of_the_interpreter_stops_nothing_and_waits_for_nothing():
    """Work after the script's last line is finished; an unfinished iteration does not delay the exit."""
    done = subprocess.run([sys.executable, "-c", AT_THE_END], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "whole\n", "")
