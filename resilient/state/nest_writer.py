"""Writes a nest down: values as nodes of JSON, and the large ones as blobs (see ``nest``)."""

from __future__ import annotations

import base64
import collections
import enum
import functools
import logging
import random
import re
import sys
import sysconfig
import types
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mindspore
import numpy as np
from mindspore import Parameter, nn

from resilient.state import nest
from resilient.state.columns import Columns

INLINE_BYTES = 1024
"""Arrays up to this size stand in the JSON."""

_MOST_DEPTH = 40
_MOST_NODES = 300_000
_DICTS = (dict, collections.OrderedDict, collections.Counter, collections.defaultdict)
_LEAF_NAMES = {leaf.kind: name for name, leaf in nest.LEAVES.items()}
# The script's own code and its libraries' classes that hold what the script gives them.
_WALKED_MODULES = ("mindspore.amp", "mindspore.experimental.optim.lr_scheduler", "argparse", "types")
_HARMLESS = (
    types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType, types.CodeType,
    types.MethodWrapperType, types.MappingProxyType, property, staticmethod, classmethod, type,
    logging.Logger, logging.Handler, functools.partial, re.Pattern, weakref.ref, nn.Cell, types.EllipsisType,
    types.FrameType, types.TracebackType, BaseException,
)  # fmt: skip


class TooMuchError(Exception):
    """A nest has more parts than can be written at each step."""


class NestWriter:
    """Writes what belongs to one boundary.

    Arrays of up to ``inline_bytes`` stand in the JSON. ``trained`` are the parameters that the checkpoint has
    anyway, by identity: their names. ``left`` collects, by path, values that cannot be
    carried and are missed.
    """

    def __init__(
        self, trained: Mapping[int, str], columns: Columns | None = None, inline_bytes: int = INLINE_BYTES
    ) -> None:
        self._trained = trained
        self._inline_bytes = inline_bytes
        self._columns = columns or Columns()
        self._columns.begin()
        self._numbers: dict[int, int] = {}
        self._alive: list[Any] = []
        self._depth = 0
        self.strict = False
        self._nodes = 0
        self.blobs: list[np.ndarray[Any, Any]] = []
        self.left: dict[str, str] = {}

    def know(self, value: Any) -> int:
        """Gives an object a number before it is written: other objects refer to it by that."""
        return self._number(value)

    def write(self, value: Any, path: str = "") -> Any:
        """The node of a value. Raises TooMuchError."""
        if type(value) in nest.PLAIN:
            return value
        self._nodes += 1
        if self._nodes > _MOST_NODES or self._depth > _MOST_DEPTH:
            raise TooMuchError
        if id(value) in self._numbers:
            return {"k": "same", "v": self._numbers[id(value)]}
        self._depth += 1
        try:
            return self._writer(value)(self, value, path)
        finally:
            self._depth -= 1

    def write_known(self, value: Any, path: str = "") -> Any:
        """The node of a value that has its number already: here is where it stands."""
        return self._writer(value)(self, value, path)

    def _writer(self, value: Any) -> Callable[[NestWriter, Any, str], Any]:
        found = _BY_TYPE.get(type(value))
        if found is not None:
            return found
        return next((writer for kind, writer in _BY_BASE if isinstance(value, kind)), NestWriter._other)

    def _number(self, value: Any) -> int:
        # Kept alive until the boundary is written: else another object might have its identity.
        self._alive.append(value)
        return self._numbers.setdefault(id(value), len(self._numbers))

    # Containers

    def _items(self, values: Any, path: str) -> list[Any]:
        plain, write = nest.PLAIN, self.write
        self._nodes += len(values)
        return [v if type(v) in plain else write(v, f"{path}[{n}]") for n, v in enumerate(values)]

    def _list(self, value: list[Any], path: str) -> Any:
        number = self._number(value)
        column = self._columns.of(value)
        if column is None:
            return {"k": "list", "n": number, "v": self._items(value, path)}
        kind = {"k": "column", "n": number, "of": column.of, "dtype": column.dtype}
        return {**kind, "t": self._blob(column.buffer), "length": column.length}

    def _tuple(self, value: tuple[Any, ...], path: str) -> Any:
        if nest.is_named_tuple(type(value)):
            return {"k": "named", "class": nest.name_of(type(value)), "v": self._items(value, path)}
        return {"k": "tuple", "v": self._items(value, path)}

    def _set(self, value: set[Any], path: str) -> Any:
        return {"k": "set", "n": self._number(value), "v": self._items(value, path)}

    def _frozenset(self, value: frozenset[Any], path: str) -> Any:
        return {"k": "frozenset", "v": self._items(value, path)}

    def _deque(self, value: Any, path: str) -> Any:
        number = self._number(value)
        return {"k": "deque", "n": number, "most": value.maxlen, "v": self._items(value, path)}

    def _dict(self, value: Any, path: str) -> Any:
        number = self._number(value)
        items = [[self.write(k, path), self.write(v, f"{path}[{k!r}]")] for k, v in list(value.items())]
        return {"k": "dict", "n": number, "type": type(value).__name__, "v": items}

    # Arrays

    def _blob(self, array: np.ndarray[Any, Any]) -> int:
        self.blobs.append(array.reshape(-1).view(np.uint8))
        return len(self.blobs) - 1

    def _content(self, array: np.ndarray[Any, Any]) -> dict[str, Any]:
        array = array if array.flags.c_contiguous else np.ascontiguousarray(array)
        if array.nbytes > self._inline_bytes:
            return {"t": self._blob(array)}
        return {"b": base64.b64encode(array.reshape(-1).view(np.uint8).tobytes()).decode("ascii")}

    def _array(self, value: Any, path: str) -> Any:
        if value.dtype.hasobject or value.dtype.names is not None or value.dtype.kind == "V":
            return self._leave(value, path)
        number = self._number(value)
        form = {"dtype": value.dtype.str, "shape": list(value.shape)}
        return {"k": "array", "n": number, **form, **self._content(value)}

    def _scalar(self, value: Any, path: str) -> Any:
        if value.dtype.hasobject or value.dtype.kind == "V":
            return self._leave(value, path)
        return {"k": "numpy", "dtype": value.dtype.str, **self._content(np.asarray(value))}

    def _parameter(self, value: Any, path: str) -> Any:
        if id(value) in self._trained:
            return {"k": "trained", "v": self._trained[id(value)]}
        node = self._tensor(value, path)
        if node["k"] == "left":
            return node
        return {**node, "k": "parameter", "name": value.name, "grad": bool(value.requires_grad)}

    def _tensor(self, value: Any, path: str) -> Any:
        if getattr(value, "has_init", False):
            # It has no values yet: its first use makes them.
            return {"k": "left"}
        number = self._number(value)
        form = {"dtype": str(value.dtype), "shape": list(value.shape)}
        return {"k": "tensor", "n": number, **form, **self._content(value.asnumpy())}

    def _cell(self, value: Any, path: str) -> Any:
        own = [p for p in value.get_parameters() if id(p) not in self._trained and not p.has_init]
        if not own:
            return {"k": "left"}
        number = self._number(value)
        return {"k": "cell", "n": number, "v": [[p.name, self.write(p, path)] for p in own]}

    # Objects

    def _leaf(self, value: Any, path: str) -> Any:
        name = _LEAF_NAMES[type(value)]
        return {"k": "leaf", "type": name, "v": nest.LEAVES[name].write(value)}

    def _enum(self, value: Any, path: str) -> Any:
        return {"k": "enum", "class": nest.name_of(type(value)), "v": value.name}

    def _random(self, value: random.Random, path: str) -> Any:
        version, words, gauss = value.getstate()
        return {"k": "random", "n": self._number(value), "v": [version, list(words), gauss]}

    def _numpy_random(self, value: Any, path: str) -> Any:
        legacy = isinstance(value, np.random.RandomState)
        state = value.get_state(legacy=False) if legacy else value.bit_generator.state
        return {"k": "numpy_random", "n": self._number(value), "v": self.write(state, path)}

    def _other(self, value: Any, path: str) -> Any:
        if not is_walked(type(value)):
            return self._leave(value, path)
        return self.walk(value, path)

    def walk(self, value: Any, path: str = "") -> Any:
        """The node of an object by its attributes, whatever its class."""
        number = self._number(value)
        found = {name: self.write(part, f"{path}.{name}") for name, part in nest.attributes(value)}
        return {"k": "object", "n": number, "class": nest.name_of(type(value)), "v": found}

    def _leave(self, value: Any, path: str) -> Any:
        if self.strict:
            raise TypeError(f"no checkpoint can have a {type(value).__name__}")
        if not is_harmless(value):
            self.left[path] = type(value).__name__
        return {"k": "left"}


_BY_TYPE: Mapping[type, Callable[[NestWriter, Any, str], Any]] = {
    list: NestWriter._list,
    tuple: NestWriter._tuple,
    set: NestWriter._set,
    frozenset: NestWriter._frozenset,
    collections.deque: NestWriter._deque,
    np.ndarray: NestWriter._array,
    random.Random: NestWriter._random,
    np.random.Generator: NestWriter._numpy_random,
    np.random.RandomState: NestWriter._numpy_random,
    **dict.fromkeys(_DICTS, NestWriter._dict),
    **dict.fromkeys(_LEAF_NAMES, NestWriter._leaf),
}
_BY_BASE: tuple[tuple[type, Callable[[NestWriter, Any, str], Any]], ...] = (
    (enum.Enum, NestWriter._enum),
    (Parameter, NestWriter._parameter),
    (mindspore.Tensor, NestWriter._tensor),
    (np.generic, NestWriter._scalar),
    (tuple, NestWriter._tuple),
    (nn.Cell, NestWriter._cell),
)


def is_walked(kind: type) -> bool:
    """Whether an object's attributes are its state: a class of the script's, or one known to keep some."""
    if kind not in _walked:
        _walked[kind] = _is_walked(kind)
    return _walked[kind]


_walked: weakref.WeakKeyDictionary[type, bool] = weakref.WeakKeyDictionary()


def _is_walked(kind: type) -> bool:
    if issubclass(kind, (*_HARMLESS, dict, list, set, str, int, float)):
        return False
    return kind.__module__ in _WALKED_MODULES or is_the_scripts(kind.__module__)


def is_the_scripts(module: str) -> bool:
    """Whether a module is no library's: it lies neither with the interpreter nor with what was installed."""
    if module == "__main__":
        return True
    if module.partition(".")[0] in ("resilient", "supervisor", "mindspore", "builtins"):
        return False
    path = getattr(sys.modules.get(module), "__file__", None)
    if path is None:
        return False
    installed = {"site-packages", "dist-packages"}.intersection(Path(path).parts)
    return not installed and not any(root in Path(path).parents for root in _library_roots())


@functools.lru_cache(maxsize=1)
def _library_roots() -> tuple[Path, ...]:
    paths = sysconfig.get_paths()
    return tuple(Path(paths[key]) for key in ("stdlib", "platstdlib", "purelib", "platlib") if key in paths)


def is_harmless(value: Any) -> bool:
    """Whether leaving a value out needs no word: code, the framework's own objects, loggers, what is
    trained."""
    kind = type(value)
    if isinstance(value, _HARMLESS) or value is NotImplemented:
        return True
    module = (kind.__module__ or "").partition(".")[0]
    if any(value is stream for stream in (sys.stdin, sys.stdout, sys.stderr)):
        return True
    return module in ("mindspore", "mindformers", "resilient", "logging", "structlog")
