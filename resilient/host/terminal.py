"""Texts on their way to a terminal: names of files and of processes are anybody's, and none may steer it."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with a question mark in the place of each character that a terminal would obey."""
    return "".join(c if c.isprintable() else "?" for c in text)
