"""What a tree of real processes takes: shared pages count once, and it is not asked for too often."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
from supervised import wait_until

from chaos.stepped_clock import SteppedClock
from supervisor.edges import vitals
from supervisor.edges.vitals import Vitals
from supervisor.watching import footprint
from supervisor.watching.footprint import Footprint, FootprintMeter

pytestmark = pytest.mark.process

SIZE_BYTES = 100 * 1024 * 1024
# What it has in memory, its children have as well; then there is something that only the last one has.
FAMILY = f"""
import mmap, os, sys, time
{{kind}}
pages[:] = b"x" * {SIZE_BYTES}
told, tell = os.pipe()
for child in range(4):
    if os.fork() == 0:
        sum(pages[::4096])
        os.write(tell, b"!")
        time.sleep(600)
for child in range(4):
    os.read(told, 1)
print("ready", flush=True)
time.sleep(600)
"""
KINDS = {
    "forked": f"pages = bytearray({SIZE_BYTES})",
    "mapped": f"pages = mmap.mmap(-1, {SIZE_BYTES})",
}


@pytest.fixture(params=KINDS)
def family(request):
    """A process and four children of its, all of which have the same memory."""
    command = [sys.executable, "-c", FAMILY.format(kind=KINDS[request.param])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout.readline() == b"ready\n"
    yield request.param, vitals.read(process.pid)
    os.killpg(process.pid, 9)
    process.wait()
    process.stdout.close()


def test_a_page_that_five_processes_have_counts_once(family):
    """Forked dataset workers, and memory that is shared as the mirror is, are not five times as much."""
    kind, seen = family
    assert len(seen.members) == 5
    assert seen.resident_bytes > 4 * SIZE_BYTES
    found = footprint.read(seen.members)
    assert SIZE_BYTES < found.total_bytes < 2 * SIZE_BYTES
    if kind == "forked":
        assert SIZE_BYTES < found.own_bytes <= found.total_bytes
    else:
        assert found.own_bytes < SIZE_BYTES


def test_where_the_kernel_does_not_say_what_is_resident_counts(family, monkeypatch):
    """Another user's process, or a kernel that was built without: more than it is, and never nothing."""
    text = footprint._text
    monkeypatch.setattr(
        footprint, "_text", lambda pid, name: "" if name == "smaps_rollup" else text(pid, name)
    )
    _, seen = family
    found = footprint.read(seen.members)
    assert found.total_bytes > 4 * SIZE_BYTES
    assert found.own_bytes <= found.total_bytes


def test_who_has_gone_takes_nothing():
    """A number that is nobody's is no error."""
    assert footprint.read([2**22 + 1]) == Footprint()


class Reader:
    """Answers as it is told, and takes its time."""

    def __init__(self, clock):
        self.clock = clock
        self.total_bytes = 10
        self.asked = 0

    def __call__(self, pids):
        self.asked += 1
        self.clock.advance(0.5)
        return Footprint(self.total_bytes, self.total_bytes - 1)


@pytest.fixture
def reader():
    return Reader(SteppedClock())


def asked_within(reader, resident_bytes, seconds=100):
    """How often the kernel is asked in so many seconds of looks, with a limit of 100."""
    scales, seen = (
        FootprintMeter(reader.clock, reader),
        Vitals("S", resident_bytes=resident_bytes, members=(1,)),
    )
    end_s = reader.clock.monotonic() + seconds
    while reader.clock.monotonic() < end_s:
        scales.weigh(seen, 100)
        reader.clock.advance(1.0)
    return reader.asked


def test_looking_takes_a_small_part_of_the_time(reader):
    """Half a second each time: every fifty seconds is often enough, while less is resident than may be."""
    assert asked_within(reader, 100) == 2


def test_a_limit_that_may_have_been_passed_is_looked_at_sooner(reader):
    """More is resident than may be taken: whether it is that much is to be known soon."""
    assert asked_within(reader, 101) == 10


def test_a_kernel_that_does_not_answer_is_not_waited_for_again(monkeypatch):
    """A process that it holds in a mapping: nobody else is held up by it; the answer counts when it comes."""
    monkeypatch.setattr(footprint, "_PATIENCE_S", 0.05)
    let_go, asked = threading.Event(), []

    def held(pids):
        asked.append(pids)
        let_go.wait()
        return Footprint(7, 7)

    scales, seen = FootprintMeter(SteppedClock(), held), Vitals("S", members=(1,))
    assert [scales.weigh(seen) for _ in range(3)] == [None, None, None]
    let_go.set()
    assert asked == [(1,)]
    wait_until(lambda: scales.weigh(seen) == Footprint(7, 7), "it is told at last")


def test_the_most_that_was_seen_is_remembered(reader):
    """It is what the next attempt will need, and what is told of the one that died."""
    scales = FootprintMeter(reader.clock, reader)
    for size in (10, 30, 20):
        reader.total_bytes = size
        assert scales.weigh(Vitals("S", members=(1,))) == Footprint(size, size - 1)
        reader.clock.advance(1000.0)
    assert scales.most == Footprint(30, 29)
    assert scales.weigh(Vitals("S", resident_bytes=50)) == Footprint(50, 50)
