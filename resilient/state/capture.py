"""Copies a network's parameters out of the framework at memory speed.

``Parameter.asnumpy()`` is a view of the parameter's own memory on CPU: copying from it is one memcpy. The
view is fetched anew for every copy, because ``set_data`` swaps the storage underneath an old one.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from mindspore import Parameter, Tensor, nn
from mindspore.train.serialization import _get_merged_param_data

from resilient.codec.record import Record
from resilient.errors import UsageError
from resilient.state.snapshot import SECTION_LEFT_OUT, SECTION_OTHER, SECTION_STOCK, left_out

Bytes = np.ndarray[Any, np.dtype[np.uint8]]

Cells = Sequence[nn.Cell]
"""What is trained together: one training network, or in a custom loop the network and its optimizer."""


def parameters(cells: Cells) -> list[Parameter]:
    """Every parameter of these cells (optimizer and counters included), once, in a stable order.

    Raises UsageError where two different parameters have one name: a file could hold only one of them.
    """
    found: dict[str, Parameter] = {}
    for cell in cells:
        for parameter in cell.get_parameters():
            if found.setdefault(parameter.name, parameter) is not parameter:
                raise UsageError(
                    f"two parameters are called {parameter.name!r}",
                    hint="give one of the networks a prefix with update_parameters_name",
                )
    return list(found.values())


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


def copy_all(sources: Sequence[Parameter], targets: Sequence[memoryview]) -> None:
    """Copies the present values of parameters into memory, one after the other; large ones in parallel.

    One thread does not fill the memory's bandwidth (10 to 12 GB/s of 15 on two cores, measured).
    """
    pairs = [
        (as_bytes(values(parameter)), np.frombuffer(target, np.uint8))
        for parameter, target in zip(sources, targets, strict=True)
    ]
    pieces = [piece for source, target in pairs for piece in _pieces(source, target)]
    if len(pieces) > len(pairs):
        list(_copiers().map(lambda piece: np.copyto(*piece), pieces))
    else:
        for target, source in pieces:
            np.copyto(target, source)


_PIECE_BYTES = 8 * 1024 * 1024


def _pieces(source: Bytes, target: Bytes) -> Iterator[tuple[Bytes, Bytes]]:
    for start in range(0, len(source), _PIECE_BYTES):
        end = start + _PIECE_BYTES
        yield target[start:end], source[start:end]


@functools.lru_cache(maxsize=1)
def _copiers() -> ThreadPoolExecutor:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return ThreadPoolExecutor(min(cores, _MOST_THREADS), thread_name_prefix="resilient-copy")


_MOST_THREADS = 4


class Live:
    """The present values of parameters, in a fixed order; the memory they are copied to has the same."""

    def __init__(self, covered: Sequence[Parameter]) -> None:
        self._parameters = covered

    def copy_to(self, targets: Sequence[memoryview]) -> None:
        """Copies them."""
        copy_all(self._parameters, targets)

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
        self.whole = False

    def refresh(self) -> None:
        """Copies the present values."""
        self.whole = False
        for parameter in self._parameters:
            np.copyto(self._copies[id(parameter)], values(parameter))
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


class Layout:
    """Which parameter goes to which section of the file.

    ``trained`` is what is being trained, ``saved`` the network whose parameters stock shall find in the file
    (the trained one unless the user named another), ``others`` are further networks of the run by ordinal.
    """

    def __init__(self, trained: Cells, saved: nn.Cell | None, others: Mapping[int, Cells]) -> None:
        self._trained = trained
        own = parameters(trained)
        visible = [p for p in (parameters([saved]) if saved is not None else own) if not left_out(p.name)]
        shown = {id(p) for p in visible}
        self.places: list[tuple[int, Parameter]] = [(SECTION_STOCK, p) for p in visible]
        self.places += [(SECTION_LEFT_OUT, p) for p in own if id(p) not in shown]
        for ordinal, cells in others.items():
            self.places += [(SECTION_OTHER + ordinal, p) for p in parameters(cells)]
        mine = {id(p) for p in own}
        self.not_trained = [p.name for p in visible if id(p) not in mine]

    @property
    def parameters(self) -> list[Parameter]:
        return [parameter for _, parameter in self.places]

    def merged(self) -> dict[int, Record]:
        """The whole of each parameter that automatic parallel has split, by the parameter's id.

        Every rank must ask at the same boundary: the parts come together by a collective operation, which is
        MindSpore's own function; what it needs stands in the cell that was compiled.
        """
        merged = {}
        for cell in self._trained:
            split = getattr(cell, "parameter_layout_dict", None) or {}
            for section, parameter in self.places:
                if section == SECTION_STOCK and parameter.name in split:
                    whole = _get_merged_param_data(cell, split, parameter.name, Tensor(parameter), True)
                    if tuple(whole.shape) != tuple(parameter.shape):
                        array = np.ascontiguousarray(whole.asnumpy())
                        merged[id(parameter)] = tensor_record(parameter.name, array, str(parameter.dtype))
        return merged

    def records(self, shadow: Shadow | None) -> Iterator[Record]:
        """The records of a state, from the shadow, or from the live values without one."""
        for section, parameter in self.places:
            array = values(parameter) if shadow is None else shadow.values(parameter)
            yield tensor_record(parameter.name, array, str(parameter.dtype), section)
