"""Finds the stacks in a log, as a person does who asked for them."""

from __future__ import annotations

import re

_THREAD = r"(?:Current thread|Thread) 0x[0-9a-f]+.*\(most recent call first\):"
_BEGINNING = re.compile(rf"^(?:Fatal Python error: .*\n\n?)?{_THREAD}(?:\n|\Z)", re.MULTILINE)
# A frame, an ellipsis after the hundredth, a thread without frames, or the empty line between two threads.
_MORE = re.compile(rf"(?:{_THREAD}|  File \".*|  \.\.\.|  <.*>|)(?:\n|\Z)")


def newest_in(log: str) -> str:
    """The stacks that were written last into a log; empty where there are none.

    ``faulthandler`` marks neither beginning nor end, but every thread begins with a line of its own
    ("Current thread 0x... (most recent call first):"), a fault's with "Fatal Python error" before it.
    """
    newest, end = "", -1
    for found in _BEGINNING.finditer(log):
        if found.start() < end:
            continue
        end = found.end()
        while end < len(log) and (more := _MORE.match(log, end)) is not None:
            end = more.end()
        newest = log[found.start() : end].rstrip("\n")
    return newest
