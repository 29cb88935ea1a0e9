"""The available memory: never more than any control group above us leaves."""

from __future__ import annotations

import psutil
import pytest

from resilient.host.memory import available_bytes

MB = 1024 * 1024
V1 = "memory.limit_in_bytes", "memory.usage_in_bytes"
V2 = "memory.max", "memory.current"
STAT = "anon 5\nfile 7\ninactive_file {0}\nactive_file 9\n"
STAT_V1 = "cache 5\ninactive_file 1\ntotal_cache 8\ntotal_inactive_file {0}\n"


class Groups:
    """A tree of control groups as the kernel shows it, and the file that names ours."""

    def __init__(self, folder):
        self.root = folder / "cgroup"
        self.membership = folder / "membership"
        self.root.mkdir()

    def put(self, path, names, limit, usage, stat=None):
        folder = self.root / path
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in zip(names, (limit, usage), strict=True):
            if value is not None:
                (folder / name).write_text(f"{value}\n")
        if stat is not None:
            (folder / "memory.stat").write_text(stat)

    def belong(self, *lines):
        self.membership.write_bytes(b"".join(line.encode("latin-1") + b"\n" for line in lines))

    def available(self):
        return available_bytes(self.root, self.membership)


@pytest.fixture
def groups(tmp_path):
    return Groups(tmp_path)


@pytest.fixture
def machine_bytes(monkeypatch):
    """Sets the machine's own free memory: more than any group here grants."""

    class Free:
        available = 64 * 1024 * MB

    monkeypatch.setattr(psutil, "virtual_memory", Free)
    return Free.available


def test_without_groups_it_is_the_machine_s(groups, machine_bytes):
    """Without files of groups, the machine's free memory is available."""
    assert groups.available() == machine_bytes
    groups.belong("0::/job")
    assert groups.available() == machine_bytes


def test_on_this_machine_it_is_no_more_than_the_machine_has():
    """The real files give a number between nothing and everything."""
    assert 0 <= available_bytes() <= psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("line", "place", "names", "stat"),
    [
        ("0::/job", "job", V2, STAT),
        ("4:memory:/job", "memory/job", V1, STAT_V1),
        ("4:cpu,memory,pids:/job", "memory/job", V1, STAT_V1),
    ],
)
def test_a_group_leaves_its_limit_without_what_is_used(groups, machine_bytes, line, place, names, stat):
    """Page cache that the kernel frees first counts as free."""
    groups.belong(line)
    groups.put(place, names, 100 * MB, 60 * MB, stat.format(15 * MB))
    assert groups.available() == 55 * MB


@pytest.mark.parametrize(
    ("line", "top", "names", "stat"), [("0::", "", V2, STAT), ("4:memory:", "memory/", V1, STAT_V1)]
)
def test_the_tightest_group_above_us_counts(groups, machine_bytes, line, top, names, stat):
    """A limit at any level applies to all groups below it; our own group may have none."""
    groups.belong(f"{line}/a/b/c")
    unlimited = "max" if names is V2 else 9223372036854771712
    groups.put(f"{top}a/b/c", names, unlimited, MB, stat.format(0))
    groups.put(f"{top}a/b", names, 500 * MB, 100 * MB, stat.format(0))
    groups.put(f"{top}a", names, 300 * MB, 280 * MB, stat.format(5 * MB))
    assert groups.available() == 25 * MB
    groups.put(top, names, 10 * MB, 9 * MB, stat.format(0))
    assert groups.available() == MB


def test_both_versions_at_once_count(groups, machine_bytes):
    """On a machine with both hierarchies the tighter one decides."""
    groups.belong("4:memory:/old", "1:cpu:/old", "0::/new")
    groups.put("memory/old", V1, 90 * MB, 10 * MB, STAT_V1.format(0))
    groups.put("new", V2, 50 * MB, 10 * MB, STAT.format(0))
    assert groups.available() == 40 * MB
    groups.put("memory/old", V1, 30 * MB, 10 * MB, STAT_V1.format(0))
    assert groups.available() == 20 * MB


def test_a_group_that_is_over_its_limit_leaves_nothing(groups, machine_bytes):
    """A limit below the used memory leaves 0 bytes, not a negative number."""
    groups.belong("0::/job")
    groups.put("job", V2, 10 * MB, 20 * MB, STAT.format(0))
    assert groups.available() == 0


def test_a_path_from_outside_of_a_container_still_finds_its_limit(groups, machine_bytes):
    """In a container the path may be the host's; the container's own limit is at the top."""
    groups.belong("4:memory:/docker/0123456789")
    groups.put("memory", V1, 70 * MB, 20 * MB, STAT_V1.format(0))
    assert groups.available() == 50 * MB


@pytest.mark.parametrize("stat", [None, "", "inactive_file\n", "inactive_file many\n", "garbage\n\n1 2 3\n"])
def test_a_limit_counts_even_where_the_rest_is_unknown(groups, machine_bytes, stat):
    """Without a readable memory.stat no used memory counts as free; the limit still applies."""
    groups.belong("0::/job")
    groups.put("job", V2, 100 * MB, 60 * MB, stat)
    assert groups.available() == 40 * MB


@pytest.mark.parametrize(("limit", "usage"), [(None, 1), (1, None), ("garbage", 1), (1, "garbage"), ("", "")])
def test_a_group_that_says_nothing_is_passed_over(groups, machine_bytes, limit, usage):
    """A group with a missing file or a word in place of a number is skipped; those above still count."""
    groups.belong("0::/a/b")
    groups.put("a/b", V2, limit, usage, STAT.format(0))
    groups.put("a", V2, 30 * MB, 10 * MB, STAT.format(0))
    assert groups.available() == 20 * MB


@pytest.mark.parametrize("line", ["", "garbage", "1:2", ":::", "0::/\xff\xfe", "x:memory", "0::/../../job"])
def test_a_membership_of_another_shape_is_no_error(groups, machine_bytes, line):
    """Unknown lines are skipped, and the lines after them count; a name may be any bytes."""
    groups.belong(line, "4:memory:/job")
    groups.put("memory/job", V1, 30 * MB, 10 * MB, STAT_V1.format(0))
    assert groups.available() == 20 * MB
