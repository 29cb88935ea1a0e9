"""The journal's lines: whatever tears one, the next one is whole, and every reader finds it."""

from __future__ import annotations

import json
import os
import resource
import threading

import pytest

from chaos.stepped_clock import SteppedClock
from resilient.host.world import World
from resilient.journal.events import AttemptStarted, SupervisorStarted, WaitingFor
from resilient.tools.journal_reader import JournalReader
from supervisor.edges.journal_writer import JournalWriter


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.jsonl"


def word_of(event):
    return event.word or event.name


def read(path):
    """The names of the events, and how many lines are none."""
    reader = JournalReader(World().files, path)
    return [word_of(event) for event in reader.events()], reader.torn


@pytest.mark.parametrize(
    "torn", [b'{"time": 1.0, "event": "att', b'{"time": 1.0, "event": "at"}', b"\0\0\0", b'"\xc3']
)
def test_the_next_supervisor_begins_on_a_line_of_its_own(path, torn):
    """The one before was killed in the middle of a write, or the machine went down."""
    first = JournalWriter(path, SteppedClock(), pytest.fail)
    first.write(SupervisorStarted("r", ("a.py",), 1))
    first.close()
    with path.open("ab") as file:
        file.write(torn)
    second = JournalWriter(path, SteppedClock(), pytest.fail)
    second.write(SupervisorStarted("again", ("a.py",), 2))
    second.close()
    lines = path.read_bytes().split(b"\n")
    assert lines[1] == torn
    assert json.loads(lines[2])["run_id"] == "again"
    names, left_out = read(path)
    whole = torn.endswith(b"}")
    assert names == ["run", "at", "run"] if whole else ["run", "run"]
    assert left_out == (0 if whole else 1)


def test_a_disk_that_takes_half_a_line_spoils_no_other(path):
    """A real limit in the middle of a line; with room again the next line is whole, and it was told once."""
    complaints = []
    journal = JournalWriter(path, SteppedClock(), complaints.append)
    journal.write(WaitingFor("first"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, limits[1]))
    try:
        journal.write(WaitingFor("second"))
        journal.write(WaitingFor("third"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    journal.write(WaitingFor("fourth"))
    journal.write(WaitingFor("fifth"))
    journal.close()
    reader = JournalReader(World().files, path)
    assert [event.reason for event in reader.events()] == ["first", "fourth", "fifth"]
    assert reader.torn == 1
    assert complaints == ["the journal cannot be written: File too large; the run goes on without"]


def test_threads_write_whole_lines_and_none_after_the_end(path):
    """Who tells of a broken console is another thread, and may come when the journal is closed."""
    journal = JournalWriter(path, SteppedClock(), pytest.fail)

    def write(number):
        for line in range(200):
            journal.write(AttemptStarted(line, attempt=number))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.close()
    # The number is another file's now.
    descriptor = os.open(path.with_name("other"), os.O_RDWR | os.O_CREAT)
    journal.write(WaitingFor("nothing"))
    assert os.fstat(descriptor).st_size == 0
    os.close(descriptor)
    assert read(path) == (["attempt"] * 800, 0)


def test_a_line_begins_with_its_time_and_its_word(path):
    """So that a person who reads the file finds them."""
    clock = SteppedClock()
    journal = JournalWriter(path, clock, pytest.fail)
    journal.write(AttemptStarted(5, attempt=1))
    journal.close()
    line = json.loads(path.read_bytes())
    assert list(line) == ["time", "monotonic", "event", "attempt", "pid"]
    assert list(line.values()) == [clock.now(), clock.monotonic(), "attempt", 1, 5]
