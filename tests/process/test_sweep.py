"""Nothing of an attempt outlives its sweep: with control groups where they can be had, and without."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
import textwrap
import uuid
from pathlib import Path

import pytest

from resilient.host.cgroup import ControlGroups, memberships

pytestmark = pytest.mark.process

PROGRAM = Path(__file__).with_name("swept.py")

READY = """
import os, signal, sys, time
def ready():
    with open(os.environ["SAY_READY"], "w") as file:
        file.write("!")
"""

# Lines of descent, each of which is another process every millisecond, and is founded anew by the others when
# it has ended: whoever ends one after the other never ends, and hardly sees them. They write down when they
# have lived, and end by themselves.
HYDRA = (
    READY
    + """
import mmap, struct
LINES, end_s = 8, time.monotonic() + 10
with open(sys.argv[1], "wb+") as file:
    file.truncate(4096)
    page = mmap.mmap(file.fileno(), 4096)

def read(line):
    return struct.unpack_from("=dQ", page, line * 16)

def beat(line, founding):
    struct.pack_into("=dQ", page, line * 16, time.monotonic(), founding)

def live(line, mine):
    while time.monotonic() < end_s and read(line)[1] == mine:
        beat(line, mine)
        time.sleep(0.0005)
        if os.fork():
            os._exit(0)
        for other in range(LINES):
            last_s, founding = read(other)
            if other != line and time.monotonic() - last_s > 0.1:
                beat(other, founding + 1)
                if os.fork() == 0:
                    os.setsid()
                    line, mine = other, founding + 1
                    break
    os._exit(0)

for line in range(LINES):
    beat(line, 0)
for line in range(LINES):
    if os.fork() == 0:
        os.setsid()
        live(line, 0)
ready()
signal.pause()
"""
)

DETACHED = (
    READY
    + """
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ready()
    while True:
        signal.pause()
signal.pause()
"""
)

with_groups = pytest.mark.skipif(
    ControlGroups.available() is None,
    reason="no control group of ours can be written here (no root, no delegation, or no cgroup v2)",
)


@pytest.fixture
def swept(tmp_path):
    """Runs a program as a worker that is killed and swept; what was seen, and who is alive by their mark."""
    marks = []

    def run(program, groups="groups", kind="command"):
        mark = f"mark-{uuid.uuid4().hex}"
        marks.append(mark)
        script = tmp_path / f"{mark}.py"
        script.write_text(textwrap.dedent(program))
        beats = tmp_path / "beats"
        words = [*([sys.executable] if kind == "command" else []), str(script), str(beats)]
        command = [sys.executable, str(PROGRAM), str(tmp_path), groups, kind, *words]
        done = subprocess.run(command, stdout=subprocess.PIPE, timeout=200, check=False, text=True)
        facts = json.loads(done.stdout.splitlines()[-1])
        assert facts["ready"]
        facts["marked"] = alive(mark)
        if beats.exists():
            facts["last_beat_s"] = max(
                struct.unpack_from("=d", beats.read_bytes(), i * 16)[0] for i in range(8)
            )
        return facts

    yield run
    # A hydra that a failing test has left cannot be killed so; it ends by itself.
    for mark in marks:
        for pid in alive(mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def alive(mark):
    """The processes that have this mark in their command line, seen in ten looks at all of them."""
    found = set()
    for _ in range(10):
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    if mark.encode() in (entry / "cmdline").read_bytes():
                        found.add(int(entry.name))
                except OSError:
                    continue
    return sorted(found)


@with_groups
def test_what_forks_faster_than_anybody_looks_is_ended(swept):
    """Detached processes, each another one every millisecond, that found each other anew: none is left."""
    facts = swept(HYDRA)
    assert (facts["left"], facts["marked"]) == ([], [])
    assert facts["killed_s"] - 1 < facts["last_beat_s"] < facts["swept_s"], "it lived, and lives no more"
    assert facts["saver_alive"]


@with_groups
def test_a_worker_has_a_group_and_the_saver_has_not(swept):
    """A command is in the attempt's group before it begins; the saver stays with the supervisor."""
    facts = swept(DETACHED)
    assert "/resilient-" in facts["worker"]
    assert facts["saver"] == facts["before"] != facts["worker"]
    assert (facts["left"], facts["alive"], facts["marked"]) == ([], [], [])
    assert facts["saver_alive"]


@with_groups
@pytest.mark.mindspore
def test_a_standby_enters_the_group_when_it_takes_over(swept):
    """Before that it is in none, so that the sweep of the attempt before does not end it."""
    facts = swept(READY + "ready()\nsignal.pause()\n", kind="script")
    assert facts["before"] == facts["saver"]
    assert "/resilient-" in facts["worker"]
    assert (facts["alive"], facts["marked"]) == ([], [])


@with_groups
def test_no_group_is_left_behind(swept):
    """What was made for an attempt is gone after it."""
    facts = swept(DETACHED)
    name = facts["worker"].rpartition("/")[2]
    assert name.startswith("resilient-")
    # Groups.available() would clear it away.
    assert not (memberships().unified / name).exists()


@with_groups
def test_a_command_enters_by_itself_before_it_begins(swept):
    """Whatever it forks first is in the group as well, however late the supervisor is."""
    facts = swept(HYDRA, groups="late")
    assert "/resilient-" in facts["worker"]
    assert facts["killed_s"] - 1 < facts["last_beat_s"] < facts["swept_s"]


def test_without_groups_a_detached_grandchild_is_found(swept):
    """A double fork, a session of its own, deaf to SIGTERM: the process table shows it."""
    facts = swept(DETACHED, groups="none")
    assert facts["worker"] == facts["before"]
    assert (facts["left"], facts["alive"], facts["marked"]) == ([], [], [])
    assert facts["saver_alive"]
