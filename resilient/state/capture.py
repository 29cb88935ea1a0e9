"""Copies a network's parameters out of the framework at memory speed.

``Parameter.asnumpy()`` is a view of the parameter's own memory on CPU: copying from it is one memcpy. The
view is fetched anew for every copy, because ``set_data`` swaps the storage underneath an old one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from mindspore import Parameter, Tensor, nn
from mindspore.train.serialization import _get_merged_param_data

from resilient.codec.tensors import Record
from resilient.state.copying import Bytes, copy_pairs
from resilient.state.snapshot import SECTION_LEFT_OUT, SECTION_OTHER, SECTION_STOCK, left_out

Cells = Sequence[nn.Cell]
"""What is trained together: one training network, or in a custom loop the network and its optimizer."""


def parameters(cells: Cells) -> list[Parameter]:
    """Every parameter of these cells (optimizer and counters included), once, in a stable order."""
    return list({id(p): p for cell in cells for p in cell.get_parameters()}.values())


def named(cells: Cells) -> dict[str, Parameter]:
    """The same, by the names that they have in a file.

    Those are their own, except in a cell that brings a name which another parameter has taken: two optimizers
    of one kind share most of theirs. All that such a cell adds gets a prefix, its class and how many of that
    class there have been: "adam_2.global_step". (Within one cell a name that is taken gets a number.) The
    parameters themselves keep their names: a compiled graph knows them by these.
    """
    found: dict[str, Parameter] = {}
    known: set[int] = set()
    counts: dict[str, int] = {}
    for cell in cells:
        kind = type(cell).__name__.lower()
        counts[kind] = counts.get(kind, 0) + 1
        own = [p for p in parameters([cell]) if id(p) not in known]
        names = [p.name for p in own]
        if not found.keys().isdisjoint(names):
            names = [f"{kind}_{counts[kind]}.{name}" for name in names]
        for name, parameter in zip(names, own, strict=True):
            found[_free(name, found)] = parameter
            known.add(id(parameter))
    return found


def _free(name: str, taken: Mapping[str, Parameter]) -> str:
    numbers = itertools.count(2)
    free = name
    while free in taken:
        free = f"{name}_{next(numbers)}"
    return free


def values(parameter: Parameter) -> np.ndarray[Any, Any]:
    """The parameter's values; on CPU a view of its own memory. Initializes it where that was put off."""
    if parameter.has_init:
        parameter.init_data()
    array = parameter.asnumpy()
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def tensor_record(name: str, array: np.ndarray[Any, Any], dtype: str, section: int = SECTION_STOCK) -> Record:
    """A record of the container over ``array``'s memory, without a copy."""
    return Record(name, dtype, tuple(array.shape), as_bytes(array).data, section)


def as_bytes(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The same memory as one row of bytes (bfloat16 and scalars have no buffer format of their own)."""
    return array.reshape(-1).view(np.uint8)


def are_same(sources: Sequence[Parameter], targets: Sequence[memoryview]) -> bool:
    """Whether memory holds the present values of parameters, bit for bit."""
    return all(
        np.array_equal(as_bytes(values(parameter)), np.frombuffer(target, np.uint8))
        for parameter, target in zip(sources, targets, strict=True)
    )


def copy_all(sources: Sequence[Parameter], blobs: Sequence[Bytes], targets: Sequence[memoryview]) -> None:
    """Copies the present values of parameters into memory, one after the other, and the blobs behind them;
    large ones in parallel.
    """
    arrays = [*(as_bytes(values(parameter)) for parameter in sources), *blobs]
    pairs = zip(arrays, targets, strict=True)
    copy_pairs([(np.frombuffer(target, np.uint8), array) for array, target in pairs])


class Live:
    """The present values of parameters, in a fixed order; the memory they are copied to has the same, and
    behind them room for blobs."""

    def __init__(self, covered: Sequence[Parameter]) -> None:
        self._parameters = covered

    def copy_to(self, targets: Sequence[memoryview], blobs: Sequence[Bytes] = ()) -> None:
        """Copies them, and the blobs behind them."""
        copy_all(self._parameters, blobs, targets)

    def are_in(self, targets: Sequence[memoryview]) -> bool:
        """Whether this memory holds them, bit for bit."""
        return are_same(self._parameters, targets)


class Shadow:
    """A second copy of parameters, refreshed at a step boundary.

    While the network computes the next step its own values are half-done; the shadow still holds the last
    boundary. ``whole`` is False while a copy is in progress.
    """

    def __init__(self, covered: Iterable[Parameter]) -> None:
        self._parameters = list({id(parameter): parameter for parameter in covered}.values())
        self._copies = {id(p): np.empty_like(values(p)) for p in self._parameters}
        self.blobs: list[Bytes] = []
        self.whole = False

    def refresh(self, blobs: Sequence[Bytes] = ()) -> None:
        """Copies the present values, and the blobs that go with them."""
        self.whole = False
        for parameter in self._parameters:
            np.copyto(self._copies[id(parameter)], values(parameter))
        if [blob.size for blob in blobs] != [blob.size for blob in self.blobs]:
            self.blobs = [np.empty_like(blob) for blob in blobs]
        for target, blob in zip(self.blobs, blobs, strict=True):
            np.copyto(target, blob)
        self.whole = True

    def matches(self) -> bool:
        """Whether the present values are those of the copy, bit for bit."""
        return self.whole and next(self.changed(), None) is None

    def changed(self) -> Iterator[Parameter]:
        """The parameters whose present values are not those of the copy."""
        for parameter in self._parameters:
            if not np.array_equal(as_bytes(values(parameter)), as_bytes(self._copies[id(parameter)])):
                yield parameter

    def values(self, parameter: Parameter) -> np.ndarray[Any, Any]:
        """The copy of a parameter's values."""
        return self._copies[id(parameter)]


def _shown(own: Mapping[str, Parameter], saved: nn.Cell | None) -> dict[str, Parameter]:
    """The parameters that stock finds in the file: each trained one has one name, in every cell."""
    names = {id(parameter): name for name, parameter in own.items()}
    shown: dict[str, Parameter] = {}
    for name, parameter in (named([saved]) if saved is not None else own).items():
        if not left_out(parameter.name):
            shown[_free(names.get(id(parameter), name), shown)] = parameter
    return shown


class FilePlace(NamedTuple):
    """Where one parameter stands in the file: in which section, under which name."""

    section: int
    name: str
    parameter: Parameter


class Layout:
    """Which parameter goes to which section of the file.

    ``trained`` is what is being trained, ``saved`` the network whose parameters stock shall find in the file
    (the trained one unless the user named another), ``others`` are further networks of the run by ordinal.
    """

    def __init__(self, trained: Cells, saved: nn.Cell | None, others: Mapping[int, Cells]) -> None:
        self._trained = trained
        own = named(trained)
        shown = _shown(own, saved)
        ids = {id(p) for p in shown.values()}
        self.places = [FilePlace(SECTION_STOCK, name, p) for name, p in shown.items()]
        self.places += [FilePlace(SECTION_LEFT_OUT, name, p) for name, p in own.items() if id(p) not in ids]
        for ordinal, cells in others.items():
            self.places += [FilePlace(SECTION_OTHER + ordinal, name, p) for name, p in named(cells).items()]
        mine = {id(p) for p in own.values()}
        self.not_trained = [name for name, p in shown.items() if id(p) not in mine]

    @property
    def parameters(self) -> list[Parameter]:
        return [place.parameter for place in self.places]

    def merged(self) -> dict[int, Record]:
        """The whole of each parameter that automatic parallel has split, by the parameter's id.

        Every rank must ask at the same boundary: the parts come together by a collective operation, which is
        MindSpore's own function; what it needs stands in the cell that was compiled.
        """
        merged = {}
        for cell in self._trained:
            split = getattr(cell, "parameter_layout_dict", None) or {}
            for section, name, parameter in self.places:
                if section == SECTION_STOCK and parameter.name in split:
                    whole = _get_merged_param_data(cell, split, parameter.name, Tensor(parameter), True)
                    if tuple(whole.shape) != tuple(parameter.shape):
                        array = np.ascontiguousarray(whole.asnumpy())
                        merged[id(parameter)] = tensor_record(name, array, str(parameter.dtype))
        return merged

    def records(self, shadow: Shadow | None) -> Iterator[Record]:
        """The records of a state, from the shadow, or from the live values without one."""
        for section, name, parameter in self.places:
            array = values(parameter) if shadow is None else shadow.values(parameter)
            yield tensor_record(name, array, str(parameter.dtype), section)
