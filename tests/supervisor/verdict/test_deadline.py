"""A stop with a deadline: the parts of the grace are in order, and enough is kept back for a commit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from supervisor.verdict import deadline
from supervisor.verdict.deadline import CommitCost

SECONDS = st.floats(0.01, 1e4)


@given(SECONDS, st.none() | SECONDS, st.integers(0, 2**40))
def test_the_parts_are_in_order(grace_s, commit_s, state_bytes):
    """Whatever the figures: first the commit, then the kill, then the end, and all within the grace."""
    parts = deadline.plan(grace_s, CommitCost(commit_s, state_bytes))
    assert 0 < parts.secure_s <= parts.kill_s < parts.end_s == grace_s


def test_a_commit_gets_twice_what_the_last_one_took():
    """With 30 s and commits of 4 s, the newest state is on its way to the disk 10 s before the end."""
    parts = deadline.plan(30.0, CommitCost(4.0))
    assert (parts.secure_s, parts.kill_s) == (20.0, 29.0)


def test_without_a_commit_so_far_the_size_decides():
    """A gigabyte that was never written takes longer than ten megabytes."""
    large, small = (deadline.plan(60.0, CommitCost(None, size)) for size in (10**9, 10**7))
    assert large.secure_s < small.secure_s


def test_a_long_commit_does_not_take_all_of_the_grace():
    """The training gets its chance to reach a boundary, however slow the disk."""
    assert deadline.plan(30.0, CommitCost(1000.0)).secure_s == 7.5
