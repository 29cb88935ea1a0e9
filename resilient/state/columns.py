"""Long lists of one type, as arrays that grow with them: a history of losses costs little at each step.

A list is looked at by what it points to, which the processor compares at memory speed: where it has only
grown since the last look, only the new elements are converted. The elements cannot change behind our back:
numbers are immutable, and Tensors of one number are taken to be.
"""

from __future__ import annotations

import copy
import ctypes
import json
from dataclasses import dataclass, field
from typing import Any

import mindspore
import numpy as np
from mindspore import Parameter

from resilient.state import nest

ROWS = "rows"
"""A list of dicts or tuples of plain values: a line of JSON each."""

LEAST = 256
"""A shorter list is written element by element."""

_LEAST_ROOM = 8192

_INT64 = range(-(2**63), 2**63)
# Where a list object keeps the address of its elements, and how many there are before it: after the counter
# of references, the type and the length (CPython 3.10 to 3.12).
_ELEMENTS_AT = 3 * ctypes.sizeof(ctypes.c_void_p)


@dataclass
class _Column:
    """One list: what it held when it was last seen, and its values in a buffer with room to grow."""

    owner: list[Any]
    of: str
    dtype: str
    seen: list[Any] = field(default_factory=list)
    pointers: Any = None
    buffer: Any = None
    length: int = 0
    visited: bool = True


def room(wanted: int) -> int:
    """Room for so many, and for more: each time there is too little, the mirror is made anew."""
    found = _LEAST_ROOM
    while found < wanted:
        found *= 4
    return found


class Columns:
    """The long lists of one process."""

    def __init__(self) -> None:
        self._columns: dict[int, _Column] = {}

    def begin(self) -> None:
        """A boundary is looked at: those lists that the last one had no more are forgotten."""
        self._columns = {key: column for key, column in self._columns.items() if column.visited}
        for column in self._columns.values():
            column.visited = False

    def references(self, one: Any) -> int:
        """How often an object is held here."""
        return int(id(one) in self._columns)

    def of(self, values: list[Any]) -> _Column | None:
        """The list as a column; None where it is too short, or of several types."""
        if len(values) < LEAST:
            return None
        column = self._columns.get(id(values))
        if column is not None and _has_only_grown(column, values):
            new = values[len(column.seen) :]
        else:
            kind = _kind(values[0])
            if kind is None:
                return None
            column, new = _Column(values, *kind), values
        if any(_kind(value) != (column.of, column.dtype) for value in new):
            self._columns.pop(id(values), None)
            return None
        if column.of == ROWS:
            _extend_rows(column, new)
        else:
            _extend(column, new)
        column.visited = True
        self._columns[id(values)] = column
        return column


def _has_only_grown(column: _Column, values: list[Any]) -> bool:
    known = len(column.seen)
    if len(values) < known:
        return False
    if column.of == ROWS:
        # They can be changed where they are, so each is compared with a copy of it.
        return values[:known] == column.seen
    return np.array_equal(_pointers(values, known), column.pointers)


def _pointers(values: list[Any], count: int) -> Any:
    """The addresses of a list's first elements: a view of the list's own memory."""
    address = ctypes.c_void_p.from_address(id(values) + _ELEMENTS_AT).value
    row: Any = (ctypes.c_int64 * count).from_address(address or 0)
    return np.frombuffer(row, np.int64)


def _extend(column: _Column, new: list[Any]) -> None:
    known, wanted = len(column.seen), len(column.seen) + len(new)
    _make_room(column, wanted)
    if new:
        column.buffer[known:wanted] = [v.asnumpy() for v in new] if column.of == "tensor" else new
        column.seen.extend(new)
        column.pointers = _pointers(column.owner, wanted).copy()
    column.length = wanted


def _extend_rows(column: _Column, new: list[Any]) -> None:
    lines = b"".join(json.dumps(row).encode() + b"\n" for row in new)
    wanted = column.length + len(lines)
    _make_room(column, wanted)
    column.buffer[column.length : wanted] = np.frombuffer(lines, np.uint8)
    column.seen.extend(copy.copy(row) for row in new)
    column.length = wanted


def _make_room(column: _Column, wanted: int) -> None:
    """Not in place: an older boundary may still look at the old buffer."""
    if column.buffer is None or wanted > len(column.buffer):
        buffer = np.zeros(room(wanted), column.dtype)
        if column.length:
            buffer[: column.length] = column.buffer[: column.length]
        column.buffer = buffer


def _kind(value: Any) -> tuple[str, str] | None:
    """The kind of a column that an element belongs to, and its dtype."""
    kind = type(value)
    if kind is float:
        return "float", "<f8"
    if kind is int:
        return ("int", "<i8") if value in _INT64 else None
    if isinstance(value, np.generic) and value.dtype.kind in "iufb":
        return "numpy", value.dtype.str
    if isinstance(value, mindspore.Tensor) and not isinstance(value, Parameter) and value.shape == ():
        dtype = value.asnumpy().dtype
        return ("tensor", dtype.str) if dtype.kind in "iufb" else None
    if kind is dict:
        plain = all(type(key) is str and type(item) in nest.PLAIN for key, item in value.items())
        return (ROWS, "|u1") if plain else None
    if kind is tuple:
        return (ROWS, "|u1") if all(type(item) in nest.PLAIN for item in value) else None
    return None
