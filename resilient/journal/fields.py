"""The types of an event's fields, and how each is read from a journal that anybody may have written.

A field that is missing, of another type or out of its bounds is read as absent: None, "", () or False. So
an event is there as soon as its line names it, and its reader decides what to do without the rest. No text
leaves here with a character in it that a terminal would obey.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

_LARGEST = 2**53
_TEXT_CHARACTERS = 20_000
_MOST_TEXTS = 100


@dataclass(frozen=True)
class ReadBy:
    """The function that reads a field of this type from a line."""

    read: Callable[[object], Any]


def clean(value: object) -> str:
    """A text without anything a terminal would obey; "" for what is no text."""
    if not isinstance(value, str):
        return ""
    text = value[:_TEXT_CHARACTERS]
    if text.isprintable():
        return text
    # Of the end of a line only \n stays: a lone \r would paint over what stands before it.
    lines = text.replace("\r\n", "\n").expandtabs(4)
    return "".join(c if c.isprintable() or c == "\n" else _escaped(c) for c in lines)


def _escaped(character: str) -> str:
    return f"\\x{ord(character):02x}" if ord(character) < 256 else f"\\u{ord(character):04x}"


def number(value: object) -> float | None:
    """A finite number; None for what is none."""
    # An int beyond the floats raises OverflowError, hence the comparison before the conversion.
    if type(value) is int and abs(value) < _LARGEST:
        return float(value)
    if type(value) is float and abs(value) < _LARGEST:
        # NaN is not less than anything.
        return value
    return None


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < _LARGEST else None


def _flag(value: object) -> bool:
    return value is True


def _answer(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _texts(value: object) -> tuple[str, ...]:
    items = value[:_MOST_TEXTS] if isinstance(value, list) else []
    return tuple(text for text in map(clean, items) if text)


Count = Annotated[int | None, ReadBy(_count)]
"""A whole number from 0 on: a step, an attempt, a process, a size in bytes."""
Number = Annotated[float | None, ReadBy(number)]
"""A finite number: seconds, most often."""
Flag = Annotated[bool, ReadBy(_flag)]
Answer = Annotated[bool | None, ReadBy(_answer)]
"""Yes, no, or not known."""
Text = Annotated[str, ReadBy(clean)]
"""Words, a name or a path; of several lines in a traceback alone."""
Texts = Annotated[tuple[str, ...], ReadBy(_texts)]
