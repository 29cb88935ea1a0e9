"""A journal's events, as the tools read them."""

from __future__ import annotations

import pytest

from resilient.tools.journal_reader import Event


@pytest.mark.parametrize(
    ("value", "number", "whole"),
    [
        (3, 3.0, 3),
        (3.5, 3.5, None),
        (-1, -1.0, None),
        (True, None, None),
        ("3", None, None),
        (10**400, None, None),
        (float("nan"), None, None),
        (float("inf"), None, None),
        (None, None, None),
        ([1], None, None),
    ],
)
def test_a_field_of_another_type_is_as_good_as_missing(value, number, whole):
    """Numbers are finite and no booleans; counts are whole and not negative."""
    event = Event("saved", fields={"step": value})
    assert (event.number("step"), event.whole("step")) == (number, whole)
