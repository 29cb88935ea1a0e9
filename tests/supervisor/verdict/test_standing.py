"""How far a run has come decides where its next attempt resumes from."""

from __future__ import annotations

import pytest

from supervisor.verdict.standing import Standing


@pytest.mark.parametrize(
    ("standing", "is_ahead", "resumes_from_memory"),
    [
        (Standing(0, 0), False, False),
        (Standing(5, 0), False, False),
        (Standing(5, 4), False, False),
        (Standing(5, 5), False, True),
        (Standing(5, 6), True, True),
        (Standing(5, 6, usable=False), True, False),
    ],
)
def test_memory_serves_where_it_is_usable_and_as_new_as_the_disk(standing, is_ahead, resumes_from_memory):
    """A step that was set aside, or is older than the disk's, is not resumed from memory."""
    assert standing.is_ahead is is_ahead
    assert standing.resumes_from_memory is resumes_from_memory
