"""Attributes of the script's own Cells that a training changes, and which Parameters are trained.

    class Net(nn.Cell):
        def construct(self, x):
            self.count += 1

A restarted script makes its Cells anew, so the count would begin again. As JSON, what differs from the values
that the script gave: {ordinal of the network: {name of the cell + "." + attribute: value}}. The values are
finite numbers, short texts, booleans and None; of Parameters it is ``requires_grad``.

In PyNative mode each step reads the attributes, so they are put back. A graph reads those that ``construct``
sets; all others have the value in it that they had when it was compiled. So in graph mode the others stay as
the script gives them, and a warning names each.
"""

from __future__ import annotations

import dis
import math
import types
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import mindspore
from mindspore import nn

from resilient.state import nest
from resilient.state.capture import Cells
from resilient.state.nest_writer import is_the_scripts

_TRAINED = "requires_grad"
_MINDSPORES = frozenset(vars(nn.Cell()))

_MOST_CHARACTERS = 1000


@dataclass
class _Known:
    """What the script ``gave`` an owner, and what differed from that when it was last looked at."""

    owner: weakref.ref[Any]
    given: dict[str, Any]
    changed: dict[str, Any] = field(default_factory=dict)

    def begin_call(self, owner: Any) -> None:
        """The script may have changed something since the last call: then it gives that."""
        for name, given in self.given.items():
            value = _value(owner, name)
            if not _same(value, self.changed.get(name, given)):
                self.given[name] = value
                self.changed.pop(name, None)

    def look(self, owner: Any) -> dict[str, Any]:
        """What differs from what the script gave."""
        self.changed = {
            name: value
            for name, given in self.given.items()
            if not _same(value := _value(owner, name), given) and _is_kept(value)
        }
        return self.changed


# By identity: two Parameters are compared element by element.
_known: dict[int, _Known] = {}


class CellAttributes:
    """The attributes in some networks, given by their ordinals, at the beginning of a call."""

    def __init__(self, networks: Mapping[int, Cells]) -> None:
        # Once: to walk through a network takes far longer than to look at its attributes.
        self._owners = {str(ordinal): dict(_owners(cells)) for ordinal, cells in networks.items()}
        for owners in self._owners.values():
            for owner in owners.values():
                _known_of(owner).begin_call(owner)

    def capture(self) -> dict[str, dict[str, Any]]:
        """The attributes that differ from the script's."""
        found = {}
        for ordinal, owners in self._owners.items():
            changed = {
                f"{name}.{attribute}": value
                for name, owner in owners.items()
                for attribute, value in _known_of(owner).look(owner).items()
            }
            if changed:
                found[ordinal] = changed
        return found

    def restore(self, saved: Mapping[str, Mapping[str, Any]], warn: Callable[[str], None]) -> None:
        """Makes them those of :meth:`capture`. Attributes that the script no longer has are left out."""
        for ordinal, attributes in saved.items():
            owners = self._owners.get(ordinal, {})
            for path, value in attributes.items():
                name, _, attribute = path.rpartition(".")
                owner = owners.get(name)
                if owner is not None and attribute in _known_of(owner).given and _is_kept(value):
                    _put_back(owner, path, attribute, value, warn)


def _put_back(owner: Any, path: str, attribute: str, value: Any, warn: Callable[[str], None]) -> None:
    given = _value(owner, attribute)
    if _same(given, value):
        return
    if _is_read_at_each_step(owner, attribute):
        setattr(owner, attribute, value)
        _known_of(owner).changed[attribute] = value
    else:
        warn(
            f"{path} was {value!r} when the state was saved, and the script gives {given!r}: a compiled "
            "graph may have used either, so the script's stays; keep in a Parameter what a training changes"
        )


def _known_of(owner: Any) -> _Known:
    known = _known.get(id(owner))
    if known is None or known.owner() is not owner:
        number = id(owner)
        known = _Known(weakref.ref(owner, lambda _: _known.pop(number, None)), dict(_attributes(owner)))
        _known[number] = known
    return known


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


def _is_kept(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return type(value) in nest.PLAIN and not (isinstance(value, str) and len(value) > _MOST_CHARACTERS)


def _value(owner: Any, name: str) -> Any:
    return owner.requires_grad if isinstance(owner, mindspore.Parameter) else vars(owner).get(name)


def _owners(cells: Cells) -> Iterator[tuple[str, Any]]:
    """The script's cells and all Parameters, each by a name that is the same in each attempt."""
    for number, top in enumerate(cells):
        for name, cell in top.cells_and_names():
            if is_the_scripts(type(cell).__module__ or ""):
                yield f"{number}.{name}" if number else name or type(cell).__name__, cell
        for parameter in top.get_parameters():
            yield f"{number}.{parameter.name}" if number else parameter.name, parameter


def _attributes(owner: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(owner, mindspore.Parameter):
        yield _TRAINED, owner.requires_grad
        return
    for name, value in vars(owner).items():
        if type(value) in nest.PLAIN and name not in _MINDSPORES:
            yield name, value


def _is_read_at_each_step(owner: Any, attribute: str) -> bool:
    if mindspore.get_context("mode") == mindspore.PYNATIVE_MODE:
        return True
    return isinstance(owner, nn.Cell) and attribute in _set_by_methods(type(owner))


def _set_by_methods(kind: type) -> frozenset[str]:
    """The attributes that methods of a class set, its beginning apart."""
    methods = [
        method
        for part in kind.__mro__
        if is_the_scripts(part.__module__ or "")
        for name, method in vars(part).items()
        if isinstance(method, types.FunctionType) and name != "__init__"
    ]
    return frozenset(
        str(instruction.argval)
        for method in methods
        for instruction in dis.get_instructions(method)
        if instruction.opname == "STORE_ATTR"
    )
