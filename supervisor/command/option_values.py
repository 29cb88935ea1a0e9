"""The values of options: from the words of a command line, or refused with words that help.

Each is a ``type`` of argparse, which puts the option's name before what is said here. An empty word is what a
variable of the shell's leaves that is not set (``--key-file "$KEY"``): it is never taken for "not given".
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from resilient.sizes import parse_size


def text(word: str) -> str:
    """Any words but none."""
    if not word.strip():
        raise argparse.ArgumentTypeError("its value is empty (is a variable not set?)")
    return word


def names(word: str) -> tuple[str, ...]:
    """Words with commas between them."""
    found = tuple(part.strip() for part in text(word).split(","))
    if not all(found):
        raise argparse.ArgumentTypeError(f"{word!r} is no list of names: write lr,weight_decay")
    return found


def path(word: str) -> Path:
    """A file or a directory; the empty word would be the current one."""
    return Path(text(word))


def count(word: str) -> Any:
    """A whole number from 1 on."""
    return _number(word, int, 1, "a whole number from 1 on")


def count_or_auto(word: str) -> Any:
    """The same; None for auto."""
    return None if word == "auto" else count(word)


def count_or_zero(word: str) -> Any:
    """A whole number from 0 on."""
    return _number(word, int, 0, "a whole number from 0 on")


def seconds_or_auto(word: str) -> Any:
    """A number of seconds, 0 included; None for auto."""
    return None if word == "auto" else _number(word, float, 0.0, "a number of seconds, or auto")


def positive(word: str) -> Any:
    """A number of seconds that is not nothing."""
    return _number(word, float, 1e-3, "a positive number")


def memory(word: str) -> int:
    """A size in bytes, written as 12G or 800M."""
    try:
        return parse_size(word)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def interval(word: str) -> tuple[float, float]:
    """MIN:MAX, in seconds."""
    low, colon, high = word.partition(":")
    values = [_number(part, float, 0.0, f"a number of seconds in MIN:MAX ({word})") for part in (low, high)]
    if not colon or values[0] > values[1]:
        raise argparse.ArgumentTypeError(f"{word!r} is not MIN:MAX with MIN up to MAX")
    return values[0], values[1]


def _number(word: str, kind: Any, least: float, words: str) -> Any:
    try:
        value = kind(word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < least:
        raise argparse.ArgumentTypeError(f"{word!r} is not {words}")
    return value
