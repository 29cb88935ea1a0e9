"""Puts a nest back: into the objects that are there wherever they are of the same kind (see ``nest``).

A list, a dictionary, an array or a parameter that the script holds under another name as well is changed in
place, so that the script sees it. Nothing that stands in a nest is ever run.
"""

from __future__ import annotations

import base64
import collections
import enum
import json
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mindspore
import numpy as np
from mindspore import Parameter, nn

from resilient.state import nest
from resilient.state.resume import write_parameter
from resilient.state.snapshot import TensorValue

LEFT: Any = object()
"""Instead of a value: whatever is there stays."""

_DICTS: Mapping[str, Callable[[], Any]] = {
    "dict": dict,
    "OrderedDict": collections.OrderedDict,
    "Counter": collections.Counter,
    "defaultdict": collections.defaultdict,
}


class NestReader:
    """Reads what belongs to one boundary.

    ``blobs`` are its rows of bytes, ``trained`` the parameters that have their values already, by name.
    ``lost`` collects, by path, what was written down and cannot be put back.
    """

    def __init__(self, blobs: Sequence[memoryview], trained: Mapping[str, Any]) -> None:
        self._blobs = blobs
        self._trained = trained
        self._known = {id(parameter) for parameter in trained.values()}
        self._objects: dict[int, Any] = {}
        self._claimed: set[int] = set()
        self._homeless: dict[int, Any] = {}
        self.lost: dict[str, str] = {}

    def know(self, number: int, value: Any) -> None:
        """The object that has this number."""
        self._objects[number] = value

    def offer(self, number: int, node: Any) -> None:
        """The node with this number has no object here; it goes to the first place that refers to it."""
        self._homeless[number] = node

    def found_place_for(self, number: int) -> bool:
        """Whether a place has referred to this number."""
        return number in self._objects

    def read(self, node: Any, current: Any = None, path: str = "") -> Any:
        """The value of a node, in ``current`` where that can be; LEFT where ``current`` is to stay.

        Raises what reading nonsense raises.
        """
        if not isinstance(node, dict):
            return node
        if node.get("t", -1) >= len(self._blobs):
            self.lost[path] = "there was no memory to keep it"
            return LEFT
        return _READERS[node["k"]](self, node, current, path)

    def read_whole(self, node: Any, path: str) -> tuple[Any, bool]:
        """The value of a node, and whether no part of it is lost: an object that gives its own state cannot
        take a part of it back."""
        lost_before = dict(self.lost)
        value = self.read(node, None, path)
        causes = [why for where, why in self.lost.items() if where not in lost_before]
        if causes:
            self.lost = {**lost_before, path: causes[0]}
        return value, not causes

    def _target(self, node: Any, current: Any, kinds: Any, make: Callable[[], Any]) -> Any:
        """The object to fill: the one that is there, unless something else has been put into it already."""
        fits = isinstance(current, kinds) and id(current) not in self._claimed
        target = current if fits else make()
        self._claimed.add(id(target))
        self._objects[node["n"]] = target
        return target

    # Containers

    def _items(self, nodes: list[Any], current: Any, path: str) -> list[Any]:
        there = list(current) if isinstance(current, (list, tuple, collections.deque)) else []
        found = []
        for n, node in enumerate(nodes):
            old = there[n] if n < len(there) else None
            value = self.read(node, old, f"{path}[{n}]")
            if value is LEFT and n >= len(there):
                self.lost.setdefault(f"{path}[{n}]", "it has no counterpart")
            found.append(old if value is LEFT else value)
        return found

    def _list(self, node: Any, current: Any, path: str) -> Any:
        target = self._target(node, current, list, list)
        target[:] = self._items(node["v"], target, path)
        return target

    def _column(self, node: Any, current: Any, path: str) -> Any:
        target = self._target(node, current, list, list)
        values = np.frombuffer(self._blobs[node["t"]], np.dtype(node["dtype"]))[: node["length"]]
        makers: Mapping[str, Callable[[], Any]] = {
            "float": values.tolist,
            "int": values.tolist,
            "numpy": lambda: list(values),
            "tensor": lambda: [mindspore.Tensor(value) for value in values],
            "rows": lambda: [_row(line) for line in values.tobytes().splitlines()],
        }
        target[:] = makers[node["of"]]()
        return target

    def _tuple(self, node: Any, current: Any, path: str) -> Any:
        return tuple(self._items(node["v"], current, path))

    def _named(self, node: Any, current: Any, path: str) -> Any:
        kind = self._class(node, current, path)
        if kind is None or not nest.is_named_tuple(kind):
            return LEFT
        # Past a __new__ of the script's.
        return tuple.__new__(kind, self._items(node["v"], current, path))

    def _set(self, node: Any, current: Any, path: str) -> Any:
        target = self._target(node, current, set, set)
        values = self._items(node["v"], None, path)
        target.clear()
        target.update(values)
        return target

    def _frozenset(self, node: Any, current: Any, path: str) -> Any:
        return frozenset(self._items(node["v"], None, path))

    def _deque(self, node: Any, current: Any, path: str) -> Any:
        fits = isinstance(current, collections.deque) and current.maxlen == node["most"]
        target = self._target(
            node, current if fits else None, collections.deque, lambda: collections.deque(maxlen=node["most"])
        )
        values = self._items(node["v"], target, path)
        target.clear()
        target.extend(values)
        return target

    def _dict(self, node: Any, current: Any, path: str) -> Any:
        target = self._target(node, current, dict, _DICTS[node["type"]])
        there = dict(target)
        values = {}
        for written, part in node["v"]:
            key = self.read(written, None, path)
            value = self.read(part, there.get(key), f"{path}[{key!r}]")
            if value is not LEFT:
                values[key] = value
            elif key in there:
                values[key] = there[key]
        target.clear()
        target.update(values)
        return target

    # Arrays

    def _bytes(self, node: Any, size_bytes: int) -> memoryview:
        if "b" in node:
            return memoryview(base64.b64decode(node["b"]))
        blob: memoryview = self._blobs[node["t"]]
        return blob[:size_bytes]

    def _values(self, node: Any, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
        shape = tuple(node.get("shape", ()))
        data = self._bytes(node, int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)
        return np.frombuffer(data, np.uint8).view(dtype).reshape(shape).copy()

    def _array(self, node: Any, current: Any, path: str) -> Any:
        values = self._values(node, np.dtype(node["dtype"]))
        same = (
            isinstance(current, np.ndarray)
            and (current.dtype, current.shape) == (values.dtype, values.shape)
            and current.flags.writeable
        )
        target = self._target(node, current if same else None, np.ndarray, lambda: values)
        target[...] = values
        return target

    def _scalar(self, node: Any, current: Any, path: str) -> Any:
        return self._values(node, np.dtype(node["dtype"]))[()]

    def _tensor(self, node: Any, current: Any, path: str) -> Any:
        # A Tensor is a value, which others may hold for good; a parameter is a place.
        same = (
            node["k"] == "parameter"
            and isinstance(current, Parameter)
            and (str(current.dtype), list(current.shape)) == (node["dtype"], node["shape"])
        )
        target = self._target(node, current if same else None, Parameter, lambda: self._made(node))
        if target is current:
            values = target.asnumpy()
            data = self._bytes(node, values.nbytes)
            write_parameter(target, TensorValue(node["dtype"], tuple(node["shape"]), memoryview(data)))
        return target

    def _made(self, node: Any) -> Any:
        dtype = getattr(mindspore, node["dtype"].lower())
        # The framework's own dtype as NumPy knows it, bfloat16 among them.
        known = mindspore.Tensor(np.zeros(1, np.float32)).astype(dtype).asnumpy().dtype
        tensor = mindspore.Tensor(self._values(node, known), dtype)
        if node["k"] == "tensor":
            return tensor
        return Parameter(tensor, name=node["name"], requires_grad=node["grad"])

    def _trained_one(self, node: Any, current: Any, path: str) -> Any:
        return self._trained.get(node["v"], LEFT)

    def _cell(self, node: Any, current: Any, path: str) -> Any:
        self._objects[node["n"]] = current
        there = (
            {p.name: p for p in current.get_parameters() if id(p) not in self._known}
            if isinstance(current, nn.Cell)
            else {}
        )
        for name, part in node["v"]:
            found, where = there.get(name), nest.path_to(path, name)
            if found is None:
                self.lost[where] = "the network has no such parameter"
            elif not any(self.read(part, found, where) is fitting for fitting in (found, LEFT)):
                self.lost[where] = "the network's parameter has another type or shape"
        return LEFT

    # Objects

    def _leaf(self, node: Any, current: Any, path: str) -> Any:
        return nest.LEAVES[node["type"]].read(node["v"])

    def _enum(self, node: Any, current: Any, path: str) -> Any:
        kind = self._class(node, current, path)
        return LEFT if kind is None or not issubclass(kind, enum.Enum) else kind[node["v"]]

    def _random(self, node: Any, current: Any, path: str) -> Any:
        target = self._target(node, current, random.Random, random.Random)
        version, words, gauss = node["v"]
        target.setstate((version, tuple(words), gauss))
        return target

    def _numpy_random(self, node: Any, current: Any, path: str) -> Any:
        state = self.read(node["v"])
        generator = getattr(np.random, str(state["bit_generator"]))
        if not issubclass(generator, np.random.BitGenerator):
            raise TypeError(f"{generator} is no generator")
        legacy = isinstance(current, np.random.RandomState)
        kind = np.random.RandomState if legacy else np.random.Generator
        target = self._target(node, current, kind, lambda: np.random.Generator(generator()))
        if legacy:
            target.set_state(state)
        else:
            target.bit_generator.state = state
        return target

    def _object(self, node: Any, current: Any, path: str) -> Any:
        if current is None or nest.name_of(type(current)) != node["class"]:
            kind = self._class(node, current, path)
            if kind is None:
                return LEFT
            current = object.__new__(kind)
        target = self._target(node, current, type(current), lambda: object.__new__(type(current)))
        for name, value in self.attributes(node["v"], target, path).items():
            put(target, name, value)
        return target

    def attributes(self, nodes: Mapping[str, Any], target: Any, path: str) -> dict[str, Any]:
        """The attributes of an object as they were; those that stay as they are left out."""
        there = dict(nest.attributes(target))
        values = {name: self.read(node, there.get(name), f"{path}.{name}") for name, node in nodes.items()}
        return {name: value for name, value in values.items() if value is not LEFT}

    def _same(self, node: Any, current: Any, path: str) -> Any:
        if node["v"] not in self._objects and node["v"] in self._homeless:
            return self.read(self._homeless.pop(node["v"]), current, path)
        return self._objects.get(node["v"], LEFT)

    def _left(self, node: Any, current: Any, path: str) -> Any:
        return LEFT

    def _lost(self, node: Any, current: Any, path: str) -> Any:
        self.lost[path] = "its training call is over, and only small values were kept of that"
        return LEFT

    def _class(self, node: Any, current: Any, path: str) -> type | None:
        """The class of an object that is to be made; None where it is none that can be made safely."""
        name = node["class"]
        kind = type(current) if nest.name_of(type(current)) == name else nest.class_named(name)
        if kind is None or not nest.is_harmless_to_make(kind):
            self.lost[path] = f"a {name.rpartition(':')[2]} cannot be made anew"
            return None
        return kind


def _row(line: bytes) -> Any:
    row = json.loads(line)
    return tuple(row) if isinstance(row, list) else row


def put(target: Any, name: str, value: Any) -> None:
    """Sets an attribute as it was found: past properties, and past what forbids changes."""
    if name in getattr(target, "__dict__", {}) or not _is_slot(target, name):
        target.__dict__[name] = value
    else:
        object.__setattr__(target, name, value)


def _is_slot(target: Any, name: str) -> bool:
    return any(hasattr(kind.__dict__.get(name), "__set__") for kind in type(target).__mro__)


_READERS: Mapping[str, Callable[[NestReader, Any, Any, str], Any]] = {
    "list": NestReader._list,
    "column": NestReader._column,
    "tuple": NestReader._tuple,
    "named": NestReader._named,
    "set": NestReader._set,
    "frozenset": NestReader._frozenset,
    "deque": NestReader._deque,
    "dict": NestReader._dict,
    "array": NestReader._array,
    "numpy": NestReader._scalar,
    "tensor": NestReader._tensor,
    "parameter": NestReader._tensor,
    "trained": NestReader._trained_one,
    "cell": NestReader._cell,
    "leaf": NestReader._leaf,
    "enum": NestReader._enum,
    "random": NestReader._random,
    "numpy_random": NestReader._numpy_random,
    "object": NestReader._object,
    "same": NestReader._same,
    "left": NestReader._left,
    "lost": NestReader._lost,
}
