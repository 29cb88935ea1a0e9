"""An object outside the network that holds state: a callback, or something that a loop was given.

As JSON, in the state's document, with its values as a nest (``nest``):

    {"class": "__main__:Best", "n": 0, "values": {"best": 0.25, ...}, "initial": {"best": digest, ...},
     "moved": ["history"]}
    {"class": "__main__:Mine", "n": 1, "state": ...}      what its own state_dict() says

``values`` are its attributes; those of its class stand under "Class.name"; a list, a dictionary or a
parameter has one value, named "". ``initial`` are digests of the values that the script gave it before any
training: they tell whether the script or the training has changed a patience since.
``moved`` are those that are another object now than they were then: only the others are changed in place.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import mindspore
import numpy as np
from mindspore import nn

from resilient.state import nest
from resilient.state.hidden import Hidden
from resilient.state.nest_reader import LEFT, NestReader, put
from resilient.state.nest_writer import NestWriter, TooMuchError, is_harmless, is_walked
from resilient.state.script_variables import NOTHING, ScriptVariables

_MOST_DIGESTED_BYTES = 1024 * 1024
_DIGEST_BYTES = 9

# They are bound to their process: files that they have opened, signals, hooks in the device's runtime.
PROCESS_BOUND = frozenset(
    {
        "SummaryCollector", "SummaryLandscape", "OnRequestExit", "BackupAndRestore", "TrainFaultTolerance",
        "FlopsUtilizationCollector", "ClusterMonitor",
    }
)  # fmt: skip
"""MindSpore's callbacks that a restart makes anew, as their place in a process wants it."""


def keeps_state(value: Any) -> bool:
    """Whether an object says itself what its state is. A Cell does not: its parameters are known."""
    return not isinstance(value, nn.Cell) and all(
        callable(getattr(value, name, None)) for name in ("state_dict", "load_state_dict")
    )


@dataclass(frozen=True)
class HeldValue:
    """One value of a holder: its key in the document, whose attribute it is, and under which name."""

    key: str
    owner: Any
    name: str
    value: Any


def parts(holder: Any) -> Iterator[HeldValue]:
    """What a holder holds, a value at a time."""
    if isinstance(holder, ScriptVariables):
        for key, variable in holder.variables.items():
            if variable.value is not NOTHING:
                yield HeldValue(key, variable, key, variable.value)
        return
    if isinstance(holder, (list, dict, set, tuple, np.ndarray, mindspore.Tensor, nn.Cell)):
        yield HeldValue("", None, "", holder)
        return
    bound = _process_bound(type(holder))
    own = set()
    for name, value in nest.attributes(holder):
        own.add(name)
        if name not in bound:
            yield HeldValue(name, holder, name, value)
    for kind in type(holder).__mro__:
        if not is_walked(kind):
            continue
        for name, value in list(kind.__dict__.items()):
            if name not in own and not name.startswith("_abc_") and not name.startswith("__"):
                own.add(name)
                if not _is_of_a_class(value):
                    yield HeldValue(f"{kind.__qualname__}.{name}", kind, name, value)


def _is_of_a_class(value: Any) -> bool:
    """Whether a class has it for its own sake: methods, properties, slots, constants of the framework."""
    return is_harmless(value) or inspect.isroutine(value) or inspect.isdatadescriptor(value)


def _process_bound(kind: type) -> set[str]:
    """The attributes that a class of PROCESS_BOUND among the bases sets."""
    found: set[str] = set()
    for base in kind.__mro__:
        if base.__name__ in PROCESS_BOUND and (base.__module__ or "").startswith("mindspore."):
            for function in base.__dict__.values():
                found.update(getattr(getattr(function, "__code__", None), "co_names", ()))
    return found


# The beginning


@dataclass(frozen=True)
class InitialValues:
    """What a holder held when it was first seen, before any training."""

    values: dict[str, Any] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, holder: Any, trained: Mapping[int, str]) -> InitialValues:
        """As it is now. Trained parameters have values of their own, which are not the holder's."""
        values, digests = {}, {}
        for part in parts(holder):
            if part.owner is not None:
                values[part.key] = part.value
            if part.owner is None or isinstance(holder, Hidden):
                # It was given because it changes: its state is always put back.
                continue
            writer = NestWriter(trained)
            try:
                digest = digest_of(writer.write(part.value), [blob.data for blob in writer.blobs])
            except TooMuchError:
                continue
            if digest is not None:
                digests[part.key] = digest
        return cls(values, digests)


def digest_of(node: Any, blobs: Sequence[memoryview]) -> str | None:
    """What tells one value from another; None for one that is too large to be looked at."""
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    numbers: dict[int, int] = {}
    size = 0

    def canonical(value: Any) -> Any:
        nonlocal size
        if isinstance(value, list):
            return [canonical(item) for item in value]
        if not isinstance(value, dict):
            return value
        found = dict(value)
        if "n" in found:
            found["n"] = numbers.setdefault(found["n"], len(numbers))
        if found.get("k") == "trained":
            return {"k": "trained"}
        if found.get("k") == "same":
            found["v"] = numbers.get(found["v"], -1)
        if "t" in found:
            count = found["length"] if "length" in found else int(np.prod(found["shape"], dtype=np.int64))
            place = found.pop("t")
            blob = blobs[place] if place < len(blobs) else memoryview(b"")
            itemsize = np.dtype(found["dtype"]).itemsize if found["k"] in ("array", "column") else None
            content = blob[: count * itemsize] if itemsize is not None else blob
            size += content.nbytes
            if size <= _MOST_DIGESTED_BYTES:
                digest.update(content)
        if isinstance(found.get("v"), dict):
            found["v"] = {name: canonical(item) for name, item in found["v"].items()}
        elif found.get("k") != "same" and "v" in found:
            found["v"] = canonical(found["v"])
        return found

    digest.update(json.dumps(canonical(node), sort_keys=True).encode())
    return digest.hexdigest() if size <= _MOST_DIGESTED_BYTES else None


def numbered(saved: Any) -> Iterator[tuple[int, Any]]:
    """What other objects may refer to of a holder, itself among it, as nodes by their numbers."""
    if "state" in saved:
        yield from nest.numbered(saved["state"])
        return
    values = saved["values"]
    if "" not in values:
        own = {name: node for name, node in values.items() if "." not in name}
        yield saved["n"], {"k": "object", "n": saved["n"], "class": saved["class"], "v": own}
    for node in values.values():
        yield from nest.numbered(node)


# Writing


def write(writer: NestWriter, holder: Any, beginning: InitialValues) -> Any:
    """A holder as JSON. Raises whatever the script's own ``state_dict`` raises, and TooMuchError."""
    head = {"class": nest.name_of(type(holder)), "n": writer.know(holder)}
    name = type(holder).__name__
    if keeps_state(holder):
        return {**head, "state": _write_state(writer, holder.state_dict(), name)}
    values, moved = {}, []
    for part in parts(holder):
        node = _write_part(writer, holder, part, name)
        if node == {"k": "left"}:
            continue
        values[part.key] = node
        is_another = part.owner is not None and part.value is not beginning.values.get(part.key)
        if isinstance(node, dict) and is_another:
            moved.append(part.key)
    return {**head, "values": values, "initial": beginning.digests, "moved": moved}


def _write_state(writer: NestWriter, state: Any, name: str) -> Any:
    """What an object says of itself is written whole, or not at all: it would be given a part of it back."""
    writer.strict = True
    try:
        return writer.write(state, name)
    finally:
        writer.strict = False


def _write_part(writer: NestWriter, holder: Any, part: HeldValue, name: str) -> Any:
    if part.owner is None:
        # It has its number already: this is where it stands.
        return writer.write_known(part.value, name)
    return writer.write(part.value, f"{name}.{part.name}")


# Reading


@dataclass(frozen=True)
class Clocks:
    """The clocks when a state was captured: what lies shortly before is a reading of them."""

    wall_s: float
    monotonic_s: float

    @classmethod
    def now(cls) -> Clocks:
        return cls(time.time(), time.monotonic())

    def has_read(self, value: Any, within_s: float) -> bool:
        """Whether a number is what one of the clocks has said, so long ago at most."""
        return type(value) is float and any(
            0 <= clock_s - value <= within_s for clock_s in (self.wall_s, self.monotonic_s)
        )


_BEGAN = Clocks.now()
_EARLIER_S = 60.0
_MONTH_S = 30 * 86400.0


@dataclass(frozen=True)
class NestSource:
    """Where a holder's state comes from: the reader of its nest, its blobs, and the clocks then."""

    reader: NestReader
    blobs: Sequence[memoryview]
    clocks: Clocks


def restore(source: NestSource, holder: Any, saved: Any, beginning: InitialValues) -> list[str]:
    """Puts a holder's state back; sentences about what the script has changed meanwhile."""
    name = type(holder).__name__
    if "state" in saved:
        state, whole = source.reader.read_whole(saved["state"], name)
        if whole:
            holder.load_state_dict(state)
        return []
    there = {part.key: part for part in parts(holder)}
    remarks = []
    for key, node in saved["values"].items():
        part = there.get(key)
        current = part.value if part is not None else None
        choice, remark = _choose(source, saved, key, current, beginning)
        if remark:
            remarks.append(f"{nest.path_to(name, key.rpartition('.')[2])}: {remark}")
        if choice:
            old = None if key in saved["moved"] and _is_made_anew(node) else current
            value = source.reader.read(node, old, nest.path_to(name, key))
            if value is not LEFT and value is not current:
                _put(holder, part, key, value)
    return remarks


def _choose(
    source: NestSource, saved: Any, key: str, current: Any, beginning: InitialValues
) -> tuple[bool, str]:
    """Whether a saved value is put back, and what is to be said."""
    node = saved["values"][key]
    now = Clocks.now()
    age_s = now.monotonic_s - _BEGAN.monotonic_s + _EARLIER_S
    if now.has_read(current, age_s) and source.clocks.has_read(node, _MONTH_S):
        # A time that was taken in this process: durations are those of processes.
        return False, ""
    before, given = saved["initial"].get(key), beginning.digests.get(key)
    if before is None or given is None or before == given:
        return True, ""
    if digest_of(node, source.blobs) == before:
        # The training has not changed it: the script has.
        return False, ""
    if isinstance(node, dict) and node["k"] not in ("numpy", "leaf", "enum"):
        return True, "the script gives another value now; the run uses the training's"
    if now.has_read(beginning.values[key], age_s):
        return False, ""
    return False, f"the script gives {beginning.values[key]!r} now, and the run uses it"


def _is_made_anew(node: Any) -> bool:
    """Whether a value can be made where there is none; a network, or an object of the script's, has to be
    there."""
    return not isinstance(node, dict) or node["k"] not in ("cell", "object")


def _put(holder: Any, part: HeldValue | None, key: str, value: Any) -> None:
    if isinstance(holder, ScriptVariables):
        if key in holder.variables:
            holder.variables[key].write(value)
    elif part is None:
        if "." not in key and key:
            put(holder, key, value)
    elif isinstance(part.owner, type):
        setattr(part.owner, part.name, value)
    elif part.owner is not None:
        put(holder, part.name, value)
