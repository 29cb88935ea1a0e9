"""What objects outside the network hold, as JSON and arrays: the format of a *nest*.

A nest is any mixture of numbers, texts, containers, arrays, Tensors and plain Python objects, as callbacks
and loss scalers keep them. It is written as nodes of JSON (``nest_writer``) and put back (``nest_reader``);
no code is ever taken from it, and no object is made whose class could run some. A number, a text, a truth
value and None are themselves. Everything else is an object with its kind under "k":

    {"k": "list", "n": 3, "v": [...]}           also "set", "deque"; "n" numbers what may be met again
    {"k": "tuple", "v": [...]}                  also "frozenset"; "named" (a named tuple) has its "class"
    {"k": "dict", "n": 4, "type": "OrderedDict", "v": [[key, value], ...]}
    {"k": "column", "n": 5, "of": "float", "dtype": "<f8", "t": 0, "length": 40000}   a long list of one type,
                                                or of "rows": dicts or tuples, a line of JSON each
    {"k": "leaf", "type": "datetime", "v": "2026-11-28T12:00:00"}                     see LEAVES
    {"k": "numpy", "dtype": "<f4", "b": base64}                a NumPy scalar
    {"k": "array", "n": 6, "dtype": "<f4", "shape": [2, 3], "b": base64}              small, or
    {"k": "array", "n": 6, "dtype": "<f4", "shape": [9999], "t": 1}                   in a blob of its own
    {"k": "tensor", ..., "dtype": "Float32"}    as an array; "parameter" has its "name" and whether it "grad"s
    {"k": "trained", "v": "dense.weight"}       a parameter that the checkpoint has anyway
    {"k": "cell", "n": 7, "v": [[name, parameter], ...]}       those of its parameters that it has not
    {"k": "object", "n": 8, "class": "__main__:Meter", "v": {attribute: value, ...}}
    {"k": "enum", "class": "__main__:Mode", "v": "MAX"}        and "random", "numpy_random": generators
    {"k": "same", "v": 3}                       the object that has this number
    {"k": "lost"}                               something too large to be kept here; see ``holdovers``
    {"k": "left"}                               nothing that can be carried: whatever is there stays

A *blob* is a row of bytes that lies beside the JSON as a tensor of its own (``snapshot.SECTION_KEPT``). It
may have room to spare behind its content, so that a list can grow without a change of layout.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import fractions
import pathlib
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

PLAIN = (bool, int, float, str, type(None))
"""What is itself in JSON; these very types, not those derived from them."""


@dataclasses.dataclass(frozen=True)
class Leaf:
    """A type without parts: how it becomes a text, and how it comes back."""

    kind: type
    write: Callable[[Any], str]
    read: Callable[[str], Any]


LEAVES: Mapping[str, Leaf] = {
    "bytes": Leaf(bytes, bytes.hex, bytes.fromhex),
    "bytearray": Leaf(bytearray, bytearray.hex, bytearray.fromhex),
    "complex": Leaf(complex, repr, complex),
    "datetime": Leaf(datetime.datetime, datetime.datetime.isoformat, datetime.datetime.fromisoformat),
    "date": Leaf(datetime.date, datetime.date.isoformat, datetime.date.fromisoformat),
    "time": Leaf(datetime.time, datetime.time.isoformat, datetime.time.fromisoformat),
    "timedelta": Leaf(
        datetime.timedelta,
        lambda d: f"{d.days},{d.seconds},{d.microseconds}",
        lambda text: datetime.timedelta(*map(int, text.split(","))),
    ),
    "decimal": Leaf(decimal.Decimal, str, decimal.Decimal),
    "fraction": Leaf(fractions.Fraction, str, fractions.Fraction),
    "uuid": Leaf(uuid.UUID, str, uuid.UUID),
    "path": Leaf(type(pathlib.Path()), str, pathlib.Path),
    "range": Leaf(
        range,
        lambda r: f"{r.start},{r.stop},{r.step}",
        lambda text: range(*map(int, text.split(","))),
    ),
}


def name_of(kind: type) -> str:
    """How a class is written down."""
    return f"{kind.__module__}:{kind.__qualname__}"


def path_to(owner: str, name: str) -> str:
    """The words for a part of something; of a list or a network the only part has no name of its own."""
    return f"{owner}.{name}" if name else owner


def parts_of(node: Mapping[str, Any]) -> list[Any]:
    """What a node consists of: nodes, and lists of them."""
    inner: Any = node.get("v")
    return list(inner.values()) if node["k"] == "object" else [inner]


def numbered(node: Any) -> Iterator[tuple[int, Any]]:
    """The nodes within one that others may refer to, by their numbers."""
    if isinstance(node, list):
        for part in node:
            yield from numbered(part)
    elif isinstance(node, dict):
        if "n" in node:
            yield node["n"], node
        for part in parts_of(node):
            yield from numbered(part)


def references(node: Any) -> Iterator[int]:
    """The numbers of the objects that nodes refer to."""
    if isinstance(node, list):
        for part in node:
            yield from references(part)
    elif isinstance(node, dict):
        if node["k"] == "same":
            yield node["v"]
        yield from references(parts_of(node))


def class_named(name: str) -> type | None:
    """The class of that name in a module that the script has imported already; None where there is none."""
    module, _, path = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        # Not getattr: some modules import others when they are asked.
        found = getattr(found, "__dict__", {}).get(part)
    return found if isinstance(found, type) else None


def is_harmless_to_make(kind: type) -> bool:
    """Whether an object of a class can be made from its values without running code of the class.

    Data classes, named tuples and enumerations are; a class that does something when an object dies is not.
    """
    if issubclass(kind, enum.Enum):
        return True
    plain = dataclasses.is_dataclass(kind) or is_named_tuple(kind)
    return plain and not hasattr(kind, "__del__")


def is_named_tuple(kind: type) -> bool:
    """Whether a class is one that ``namedtuple`` has made."""
    return issubclass(kind, tuple) and isinstance(getattr(kind, "_fields", None), tuple)


def attributes(value: Any) -> Iterator[tuple[str, Any]]:
    """The attributes that an object holds itself: those of its dictionary, and those in slots."""
    yield from list(getattr(value, "__dict__", {}).items())
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name in ("__dict__", "__weakref__"):
                continue
            written = f"_{kind.__name__.lstrip('_')}{name}" if _is_private(name) else name
            try:
                yield written, object.__getattribute__(value, written)
            except AttributeError:
                continue


def _is_private(name: str) -> bool:
    return name.startswith("__") and not name.endswith("__")
