"""Parameters that a cell holds where MindSpore does not look for them: in lists, dictionaries and objects of
its own.

An optimizer of ``mindspore.experimental.optim`` keeps its learning rates so, in ``param_groups``: a schedule
changes them, and no ``get_parameters`` finds them. A loss scaler in a training cell is another.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from typing import Any

from mindspore import Parameter, nn

from resilient.state import capture, nest
from resilient.state.nest_writer import is_walked

_MOST_DEPTH = 4
_KNOWN = ("_cells", "_params")


class Hidden:
    """Such parameters of some cells: attributes, named by where they are."""

    def __init__(self, found: Mapping[str, Parameter]) -> None:
        self.__dict__.update(found)


_found: weakref.WeakKeyDictionary[nn.Cell, Hidden] = weakref.WeakKeyDictionary()
"""The newest of each first cell: it is one object for all calls, and is there as long as the cell."""


def hidden_parameters(cells: capture.Cells) -> list[tuple[str, Any]]:
    """Those of these cells by where they are, as one thing that a call holds; nothing where there are
    none."""
    given = {id(parameter) for parameter in capture.parameters(cells)}
    found: dict[str, Parameter] = {}
    for number, cell in enumerate(cells):
        for name, part in cell.cells_and_names():
            for path, parameter in _within(part):
                if id(parameter) not in given:
                    given.add(id(parameter))
                    found[f"{number}.{name}{path}"] = parameter
    if not found:
        return []
    known = _found.get(cells[0])
    if known is None or _identities(vars(known)) != _identities(found):
        known = _found[cells[0]] = Hidden(found)
    return [("hidden", known)]


def _identities(found: Mapping[str, Parameter]) -> dict[str, int]:
    return {name: id(parameter) for name, parameter in found.items()}


def _within(cell: Any) -> Iterator[tuple[str, Parameter]]:
    for name, value in list(vars(cell).items()):
        if (isinstance(value, (list, tuple, dict)) or is_walked(type(value))) and name not in _KNOWN:
            yield from _in_container(value, f".{name}", _MOST_DEPTH)


def _in_container(value: Any, path: str, depth: int) -> Iterator[tuple[str, Parameter]]:
    if isinstance(value, Parameter):
        yield path, value
    elif depth and isinstance(value, dict):
        for key, item in list(value.items()):
            yield from _in_container(item, f"{path}.{key}", depth - 1)
    elif depth and isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from _in_container(item, f"{path}.{number}", depth - 1)
    elif depth and is_walked(type(value)):
        for name, item in nest.attributes(value):
            yield from _in_container(item, f"{path}.{name}", depth - 1)
