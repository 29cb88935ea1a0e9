"""Texts for a terminal: anybody may choose names of files and processes, so none may control it."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text, with a question mark in place of each character that could control a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)
