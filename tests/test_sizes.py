"""Sizes as people write them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient.sizes import parse_size, size


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("12G", 12 * 2**30),
        ("12GiB", 12 * 2**30),
        ("12gb", 12 * 10**9),
        ("1.5 M", 3 * 2**19),
        (" 800MB ", 800 * 10**6),
        ("2T", 2**41),
        ("7k", 7 * 1024),
        ("4096", 4096),
        ("1B", 1),
    ],
)
def test_a_size_is_read_as_it_is_meant(text, size_bytes):
    """G and GiB count by 1024, GB by 1000, a number alone counts bytes."""
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    "text",
    [
        "",
        "G",
        "-1G",
        "1e9",
        "12X",
        "12GG",
        "0",
        "0.1",
        "nan",
        "inf",
        "1,5G",
        "9" * 99,
        "9999999T",
        "٣G",
        "3iB",
    ],
)
def test_what_is_no_size_is_refused(text):
    """With a reason that names what was given."""
    with pytest.raises(ValueError, match=r"is no size|is more than"):
        parse_size(text)


@given(st.text(max_size=12))
def test_any_text_is_a_size_or_an_error(text):
    """Nothing else comes of it, and no size is less than a byte."""
    with contextlib.suppress(ValueError):
        assert parse_size(text) >= 1


@pytest.mark.parametrize(
    ("size_bytes", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1.5e6, "1.5 MB"),
        (2**30, "1.1 GB"),
        (3e13, "30000.0 GB"),
    ],
)
def test_a_size_in_words(size_bytes, words):
    """One decimal, and the largest unit that is not more than it."""
    assert size(size_bytes) == words
