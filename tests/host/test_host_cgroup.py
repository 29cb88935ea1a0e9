"""Control groups: found from the kernel's files, made and killed if possible."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient.host import cgroup
from resilient.host.cgroup import ControlGroup, ControlGroups, Memberships, count_of, locate

HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
UNIFIED = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"


@pytest.mark.parametrize(
    ("membership", "mounts", "unified", "memory"),
    [
        (
            "4:memory:/job/x\n1:cpu:/\n0::/",
            HYBRID,
            "/sys/fs/cgroup/unified",
            "/sys/fs/cgroup/memory/job/x",
        ),
        ("0::/user.slice/a b.scope", UNIFIED, "/sys/fs/cgroup/user.slice/a b.scope", None),
        ("3:cpu,memory:/m", HYBRID, None, "/sys/fs/cgroup/memory/m"),
        ("0::/docker/abc/sub", UNIFIED.replace("/ /sys", "/docker/abc /sys"), "/sys/fs/cgroup/sub", None),
        ("0::/docker/abcd", UNIFIED.replace("/ /sys", "/docker/abc /sys"), None, None),
        ("0::/x", UNIFIED.replace("cgroup rw", r"my\040groups rw"), "/sys/fs/my groups/x", None),
        ("0::/../../outside", UNIFIED, None, None),
        ("0::/x", "", None, None),
        ("", UNIFIED, None, None),
    ],
)
def test_where_a_process_s_groups_are(membership, mounts, unified, memory):
    """The groups are found on v2, on v1, on both, in a container that sees a part, and behind odd names."""
    expected = Memberships(*(None if path is None else Path(path) for path in (unified, memory)))
    assert locate(membership, mounts) == expected


@given(st.text(), st.text())
def test_whatever_the_files_say_nothing_fails(membership, mounts):
    """Lines of any shape raise no error: another kernel may write others."""
    found = locate("0::/" + membership, mounts)
    assert found.unified is None or ".." not in found.unified.parts


def test_a_count_is_read_by_its_name():
    """A count is found by its full name, and only if it is a number."""
    v2 = "low 0\nhigh 0\nmax 3\noom 2\noom_kill 7\noom_group_kill 1\n"
    assert count_of(v2, "oom_kill") == 7
    assert count_of("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "oom_kill") == 3
    assert count_of("oom_kill_disable 0\nunder_oom 0\n", "oom_kill") is None, "before Linux 4.13"
    assert count_of("oom_kill many\noom_kill", "oom_kill") is None


def test_kills_for_memory_are_counted_or_not_known():
    """On a real machine the count is a number or None; for a process that does not exist, None."""
    count = cgroup.oom_kills()
    assert count is None or count >= 0
    assert cgroup.oom_kills(2**22 + 1) is None


@pytest.fixture
def groups():
    """The groups of this machine, if it can make any."""
    found = ControlGroups.available()
    if found is None:
        pytest.skip("no control group of ours can be written here (no root, no delegation, or no cgroup v2)")
    return found


def idle():
    """A process that does nothing."""
    return subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])


def test_all_of_a_group_is_killed(groups):
    """A kill ends all processes of a group and those below, even stopped ones; then it can be removed."""
    group = groups.make()
    children = [idle() for _ in range(3)]
    (group.path / "below").mkdir()
    assert all(group.add(child.pid) for child in children[:2])
    assert ControlGroup(group.path / "below").add(children[2].pid)
    children[0].send_signal(signal.SIGSTOP)
    assert not group.remove(), "one with processes stays"
    assert group.kill(10)
    assert [child.wait(10) for child in children] == [-signal.SIGKILL] * 3
    assert group.remove()
    assert not group.path.exists()


def test_an_empty_group_is_killed_in_no_time(groups):
    """Killing an empty group returns at once; killing a removed one fails."""
    group = groups.make()
    assert group.kill(10)
    assert group.remove()
    assert not group.kill(10)
    assert not group.add(os.getpid())


def test_groups_of_dead_supervisors_are_cleared_away(groups):
    """Empty groups of dead supervisors are removed, by the pid in the name; all others stay."""
    dead = idle()
    dead.kill()
    dead.wait()
    mine = groups.make()
    parent = mine.path.parent
    born = mine.path.name.split("-")[2]
    gone = [
        f"resilient-{dead.pid}-{born}-1",
        f"resilient-{dead.pid}-{born}-2-abc",
        f"resilient-{os.getpid()}-1-99999",
    ]
    kept = [f"resilient-{dead.pid}-x", f"resilient-{os.getpid()}-{born}-99999"]
    try:
        for name in (*gone, *kept):
            (parent / name).mkdir()
        groups.clear_away()
        assert [(parent / name).exists() for name in gone] == [False] * 3
        assert [(parent / name).exists() for name in kept] == [True] * 2
        assert mine.path.exists()
    finally:
        for folder in [mine.path, *(parent / name for name in (*gone, *kept))]:
            if folder.exists():
                folder.rmdir()


DEAD_SUPERVISOR = """
import os, subprocess, sys
from resilient.host.cgroup import ControlGroups
group = ControlGroups.available(sys.argv[1]).make()
child = subprocess.Popen(["sleep", "1000"], start_new_session=True, stdout=subprocess.DEVNULL)
group.add(child.pid)
print(group.path, child.pid, flush=True)
"""


def test_orphans_are_those_of_the_dead_with_our_mark(groups):
    """Orphans are non-empty groups with our mark of a dead supervisor; a zombie counts as dead."""
    mark = f"test{os.getpid()}"
    ours = ControlGroups.available(mark)
    mine = ours.make()
    alive = idle()
    mine.add(alive.pid)
    leavers = {}
    try:
        for name in (mark, f"{mark}x", ""):
            leaver = subprocess.Popen(
                [sys.executable, "-c", DEAD_SUPERVISOR, name], stdout=subprocess.PIPE, text=True
            )
            path, pid = leaver.stdout.readline().split()
            # Ended but not reaped: it is still in the process table.
            os.waitid(os.P_PID, leaver.pid, os.WEXITED | os.WNOWAIT)
            leavers[name] = leaver, ControlGroup(Path(path)), int(pid)
        assert [group.path for group in ours.orphans()] == [leavers[mark][1].path]
        leavers[mark][0].wait()
        assert [group.pids for group in ours.orphans()] == [[leavers[mark][2]]]
        assert groups.orphans() == [], "without a mark nobody is ours"
        assert leavers[mark][1].kill(10)
        assert ours.orphans() == []
    finally:
        for leaver, group, _ in leavers.values():
            group.kill(10)
            group.remove()
            leaver.communicate()
        mine.kill(10)
        alive.wait()
        mine.remove()


def test_without_cgroup_v2_there_are_no_groups(tmp_path, monkeypatch):
    """Without a writable group or cgroup.kill the result is None, and no group is left behind."""
    monkeypatch.setattr(cgroup, "memberships", lambda: Memberships())
    assert ControlGroups.available() is None
    for place in (tmp_path, tmp_path / "missing"):
        monkeypatch.setattr(cgroup, "memberships", lambda place=place: Memberships(place))
        assert ControlGroups.available() is None
    assert list(tmp_path.iterdir()) == []


KILLED_FOR_MEMORY = """
import subprocess, sys
from resilient.host.cgroup import oom_kills
from resilient.host.kernel_log import Bookmark, readable
open(sys.argv[1] + "/cgroup.procs", "w").write("0")
before, log = oom_kills(), Bookmark()
child = subprocess.Popen([sys.executable, "-c", "bytearray(b'x') * 300_000_000; input()"])
print(child.wait(60), oom_kills() - before)
print(log.kernel_says(child.pid) if readable() else "the log cannot be read")
"""


def test_a_real_kill_for_memory_is_counted_and_told():
    """A process above its group's limit gets SIGKILL, the count grows by one, and the kernel logs a line."""
    place = cgroup.memberships().memory
    group = place / f"test-{os.getpid()}" if place is not None else None
    try:
        if group is None:
            pytest.skip(
                "no memory controller of cgroup v1 here, and one of v2 is not to be enabled by a test"
            )
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        (group / "memory.limit_in_bytes").write_text("150000000")
        words = [sys.executable, "-c", KILLED_FOR_MEMORY, str(group)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=100, check=True)
        killed, line = done.stdout.splitlines()
        assert killed == f"{-signal.SIGKILL:d} 1"
        assert "out of memory: Killed process" in line or line == "the log cannot be read"
    finally:
        group.rmdir()
