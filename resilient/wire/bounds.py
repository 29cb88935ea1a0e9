"""Types of fields that travel between processes: each says how large its values may be.

A field of another type has a bound as well (see ``encoding``). Numbers out of bounds are refused. A text with
a ``Cut`` is cut by its sender, with a mark, so that no text of a script keeps a message from being sent; any
other text that is too long makes the message too large.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True)
class Within:
    """A number from ``least`` to ``most``."""

    least: float
    most: float


@dataclass(frozen=True)
class Cut:
    """A text of ``most`` characters, or a tuple of so many entries; the sender cuts a longer one."""

    most: int


@dataclass(frozen=True)
class Named:
    """A text that names a file or a folder: no path has a NUL, and the system refuses one that has."""


Count = Annotated[int, Within(0, 2**63 - 1)]
Seconds = Annotated[float, Within(0.0, 1e12)]
Label = Annotated[str, Cut(200)]
"""A word or a name: of an exception, of a phase."""
PathText = Annotated[str, Named()]
"""A file's name, or a path, where a journal has it as text."""
Text = Annotated[str, Cut(2**20)]
"""For people."""
Remarks = Annotated[tuple[Text, ...], Cut(100_000)]
