"""Before a launch: what is in the way, whether waiting may help, and looking that never hangs."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.edges import writer_process
from supervisor.verdict import readiness
from supervisor.verdict.readiness import DiskSpace, Need, ObstacleKind, ReadinessCheck, ReadinessFacts, judge

GB = 10**9
ROOM = DiskSpace(100 * GB, 10**6)
READY = ReadinessFacts(True, ROOM, (), 64 * GB)
NEED = Need(GB, 2 * GB)


def test_nothing_is_in_the_way():
    """Room, memory, the directory as it was, nobody left: launch."""
    assert judge(READY, NEED) is None
    assert judge(ReadinessFacts(True, DiskSpace()), NEED) is None, "what cannot be told is in nobody's way"


@pytest.mark.parametrize(
    ("facts", "kind", "words", "may_pass", "fatal"),
    [
        (ReadinessFacts(None, None), ObstacleKind.SILENT, "does not answer", True, True),
        (ReadinessFacts(None, ROOM), ObstacleKind.GONE, "is gone", True, True),
        (ReadinessFacts(False, ROOM), ObstacleKind.REPLACED, "another one", False, True),
        (
            ReadinessFacts(True, DiskSpace(GB, 10**6)),
            ObstacleKind.DISK,
            "needs 1.1 GB of disk, and 1.0 GB are free",
            True,
            True,
        ),
        (
            ReadinessFacts(True, DiskSpace(trouble=errno.ENOSPC)),
            ObstacleKind.DISK,
            "No space left",
            True,
            True,
        ),
        (ReadinessFacts(True, DiskSpace(trouble=errno.EDQUOT)), ObstacleKind.DISK, "quota", True, True),
        (
            ReadinessFacts(True, DiskSpace(9 * GB, 9, errno.EROFS)),
            ObstacleKind.READ_ONLY,
            "Read-only",
            True,
            True,
        ),
        (ReadinessFacts(True, DiskSpace(9 * GB, 3)), ObstacleKind.INODES, "inodes", True, True),
        (
            ReadinessFacts(True, ROOM, ("process 7 (python)",)),
            ObstacleKind.ALIVE,
            "process 7 (python) would not die",
            True,
            True,
        ),
        (
            ReadinessFacts(True, ROOM, (), GB),
            ObstacleKind.MEMORY,
            "took 2.0 GB of memory, and 1.0 GB are",
            True,
            False,
        ),
    ],
)
def test_each_obstacle_has_its_reason(facts, kind, words, may_pass, fatal):
    """A short reason for people, whether waiting may help, and whether it is worth giving up for."""
    obstacle = judge(facts, NEED)
    assert (obstacle.kind, obstacle.may_pass, obstacle.fatal) == (kind, may_pass, fatal)
    assert words in obstacle.reason


def test_a_small_checkpoint_asks_for_a_small_margin():
    """A run of 37 kB goes on with 200 kB of disk; a large one has 4 MiB for log and journal on top."""
    small, large = Need(checkpoint_bytes=37_000), Need(checkpoint_bytes=10**9)
    assert judge(ReadinessFacts(True, DiskSpace(free_bytes=200_000)), small) is None
    assert judge(ReadinessFacts(True, DiskSpace(free_bytes=100_000)), small).kind is ObstacleKind.DISK
    assert judge(ReadinessFacts(True, DiskSpace(free_bytes=1_100_000_000 + 4 * 1024**2)), large) is None
    assert (
        judge(ReadinessFacts(True, DiskSpace(free_bytes=1_100_000_000 + 4 * 1024**2 - 1)), large).kind
        is ObstacleKind.DISK
    )


def test_many_processes_are_not_all_listed():
    """Five, and how many more."""
    facts = ReadinessFacts(True, ROOM, tuple(f"process {i} (python)" for i in range(40)))
    assert "and 35 more" in judge(facts, NEED).reason


@given(st.integers(0, 2**50), st.integers(0, 2**50), st.integers(0, 2**40), st.integers(0, 2**40))
def test_more_room_is_never_in_the_way(free, more, checkpoint, memory):
    """What is enough stays enough with more of it; without room for the checkpoint nothing is launched."""
    need = Need(checkpoint, memory)
    little = judge(ReadinessFacts(True, DiskSpace(free, 10**6), (), free), need)
    much = judge(ReadinessFacts(True, DiskSpace(free + more, 10**6), (), free + more), need)
    assert little is not None or much is None
    assert free >= checkpoint or little is not None


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "run"
    root.mkdir()
    (root / "lock").write_text("")
    return root


def test_a_directory_as_it_was(root):
    """All is there; what was made to try it out is gone again."""
    facts = ReadinessCheck(root).look([root / "checkpoint", root.parent / "elsewhere" / "deep"])
    assert facts.root is True
    assert facts.disk.trouble == 0
    assert facts.disk.free_bytes > 0
    assert facts.memory_bytes > 0
    assert os.listdir(root) == ["lock"]


def test_a_directory_that_is_gone_moved_or_exchanged(root):
    """By the lock's own inode: another directory of the same name is another one."""
    check = ReadinessCheck(root)
    os.rename(root, root.with_name("moved"))
    assert judge(check.look(), Need()).kind is ObstacleKind.GONE
    root.mkdir()
    (root / "lock").write_text("")
    assert judge(check.look(), Need()).kind is ObstacleKind.REPLACED
    (root / "lock").unlink()
    root.rmdir()
    os.rename(root.with_name("moved"), root)
    assert judge(check.look(), Need()) is None, "it is back"


def test_where_nobody_makes_files(root, tmp_path):
    """The worst of several places counts; one that takes no file is told by trying it, not by its size."""
    assert judge(ReadinessCheck(root).look([tmp_path, Path("/proc")]), Need()).kind is ObstacleKind.DISK
    root.chmod(0o500)
    child = os.fork()
    if child == 0:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setuid(65534)
        os._exit(writer_process.try_to_make(root))
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == errno.EACCES
    assert os.listdir(root) == ["lock"]


def test_a_disk_that_does_not_answer_holds_nobody_up(root, monkeypatch):
    """It is asked once, waited for shortly, and heard when it answers at last."""
    answers = threading.Event()
    asked = []

    def statvfs(place):
        asked.append(place)
        answers.wait(30)
        return real(place)

    real = os.statvfs
    monkeypatch.setattr(readiness, "_PATIENCE_S", 0.05)
    monkeypatch.setattr(os, "statvfs", statvfs)
    check = ReadinessCheck(root)
    for _ in range(3):
        assert judge(check.look(), Need()).kind is ObstacleKind.SILENT
    assert len(asked) == 1
    question = check._asked
    answers.set()
    question.wait(30)
    assert question.is_answered
    assert judge(check.look(), Need()) is None


def test_a_process_of_the_attempt_before_is_named(root):
    """One that lives is; one that is dead, reaped or not, is not."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        [name] = ReadinessCheck(root).look(pids=[child.pid]).alive
        assert name.startswith(f"process {child.pid} (python")
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert ReadinessCheck(root).look(pids=[child.pid]).alive == ()
    finally:
        child.kill()
        child.communicate()
    assert ReadinessCheck(root).look(pids=[child.pid]).alive == ()
