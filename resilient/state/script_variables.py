"""Variables outside of callbacks that callbacks change: lists, dictionaries, numbers and the like in closures
and in the script's modules.

    losses = []
    LambdaCallback(on_train_epoch_end=lambda context: losses.append(context.original_args().net_outputs))

A restarted script makes them anew, empty. So those that a callback's functions name are carried as what a
callback holds itself: one that the training has not changed stays as the script makes it now. Numbers and
text are state only where such a function sets them. Data of modest size is carried; what a function clearly
changes and cannot be carried is named.
"""

from __future__ import annotations

import collections
import dis
import functools
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import CodeType
from typing import Any

import mindspore
import numpy as np
from mindspore import Parameter

from resilient.state import nest
from resilient.state.nest_writer import is_the_scripts, is_walked

_MOST_DEPTH = 4
_MOST_PARTS = 2000
_MOST_BYTES = 64 * 1024
_ROWS = (list, tuple, set, frozenset, collections.deque)
_DICTS = (dict, collections.OrderedDict, collections.defaultdict, collections.Counter)
_CLOSED_OVER = frozenset({"LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF", "STORE_DEREF"})
_OF_MODULE = frozenset({"LOAD_GLOBAL", "STORE_GLOBAL"})
_CHANGES = frozenset(
    {
        "append", "extend", "insert", "pop", "remove", "clear", "update", "setdefault", "add", "discard",
        "appendleft", "popleft", "sort",
    }
)  # fmt: skip


NOTHING = object()


@dataclass(frozen=True)
class Variable:
    """One variable: of a module, or of a function that others have closed over; ``owner`` tells which."""

    name: str
    owner: int
    read: Callable[[], Any]
    write: Callable[[Any], None]

    @property
    def value(self) -> Any:
        """NOTHING where it has not been set yet."""
        try:
            return self.read()
        except (KeyError, ValueError):
            return NOTHING


@dataclass
class ScriptVariables:
    """Variables that are carried, by a name that is the same in each attempt, and sentences about others."""

    variables: dict[str, Variable] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)


_newest: ScriptVariables | None = None
"""It is one object for all calls in a row that reach the same variables, so that what they held before the
first of these calls is known, and what they hold behind each."""


def reached_by(callbacks: Iterable[Any]) -> ScriptVariables:
    """The variables that the functions of these callbacks reach and may change."""
    global _newest
    search = _FunctionWalk()
    for callback in callbacks:
        for function in _functions_of(callback):
            search.follow(function, _MOST_DEPTH)
    found = search.reached()
    if not found.variables:
        return found
    newest = _newest
    if newest is not None and _are_same(newest.variables, found.variables):
        newest.variables, newest.findings = found.variables, found.findings
        return newest
    _newest = found
    return found


def _are_same(before: dict[str, Variable], now: dict[str, Variable]) -> bool:
    return before.keys() == now.keys() and all(_is_same(before[name], now[name]) for name in now)


def _is_same(before: Variable, now: Variable) -> bool:
    """Functions that are made anew for each call may have their own variables for the same list."""
    return before.owner == now.owner or (before.value is now.value and type(now.value) not in nest.PLAIN)


def _functions_of(callback: Any) -> Iterator[Any]:
    for kind in type(callback).__mro__:
        if is_the_scripts(kind.__module__ or ""):
            yield from vars(kind).values()
    for _, value in nest.attributes(callback):
        if isinstance(value, (types.FunctionType, types.MethodType, functools.partial)):
            yield value


@dataclass
class _Use:
    """A variable, and how the functions that were followed use it."""

    variable: Variable
    is_set: bool = False
    is_changed: bool = False


class _FunctionWalk:
    """Follows functions to those that they name."""

    def __init__(self) -> None:
        self._visited: dict[int, Any] = {}
        self._uses: dict[tuple[int, str], _Use] = {}

    def follow(self, value: Any, depth: int) -> None:
        """Looks at a function, however it is wrapped."""
        if isinstance(value, functools.partial):
            self.follow(value.func, depth)
        elif isinstance(value, property):
            self.follow(value.fget, depth)
        elif isinstance(value, (staticmethod, classmethod, types.MethodType)):
            self.follow(value.__func__, depth)
        elif isinstance(value, types.FunctionType) and depth and id(value) not in self._visited:
            self._visited[id(value)] = value
            if hasattr(value, "__wrapped__"):
                self.follow(value.__wrapped__, depth)
            if is_the_scripts(value.__module__ or ""):
                self._look(value, depth)

    def _look(self, function: types.FunctionType, depth: int) -> None:
        cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=False))
        for instruction, following in _instructions(function.__code__):
            variable = _variable(instruction, cells, function.__globals__)
            if variable is None:
                continue
            use = self._uses.setdefault((variable.owner, variable.name), _Use(variable))
            use.is_set |= instruction.opname.startswith("STORE")
            use.is_changed |= following is not None and following.argval in _CHANGES
            self.follow(variable.value, depth - 1)

    def reached(self) -> ScriptVariables:
        """The variables that the state carries, and a sentence about each that it cannot."""
        found = ScriptVariables()
        for use in self._uses.values():
            value = use.variable.value
            may_change = use.is_set or not isinstance(value, (*nest.PLAIN, tuple, frozenset, np.generic))
            if may_change and (value is NOTHING or _is_data(value)):
                found.variables[_free(use.variable.name, found.variables)] = use.variable
            elif use.is_set or (use.is_changed and isinstance(value, (*_ROWS, *_DICTS))):
                found.findings.append(_named(use.variable.name, value))
        return found


def _named(name: str, value: Any) -> str:
    return (
        f"a callback changes the script's {name} ({type(value).__name__}), which is too large or holds what "
        "no checkpoint can keep: a restart begins with the script's own value; to have it saved, keep what "
        "changes in an attribute of the callback"
    )


def _instructions(code: CodeType) -> Iterator[tuple[dis.Instruction, dis.Instruction | None]]:
    """The instructions of a function and of those inside it, each with the one that follows."""
    instructions = list(dis.get_instructions(code))
    yield from zip(instructions, [*instructions[1:], None], strict=True)
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield from _instructions(part)


def _variable(instruction: dis.Instruction, cells: dict[str, Any], module: dict[str, Any]) -> Variable | None:
    """The variable from outside that an instruction loads or sets."""
    name = instruction.argval
    if instruction.opname in _CLOSED_OVER and name in cells:
        cell = cells[name]
        write = functools.partial(setattr, cell, "cell_contents")
        return Variable(name, id(cell), lambda: cell.cell_contents, write)
    is_set = instruction.opname == "STORE_GLOBAL"
    if instruction.opname in _OF_MODULE and (name in module or is_set):
        write = functools.partial(module.__setitem__, name)
        return Variable(name, id(module), lambda: module[name], write)
    return None


def _free(name: str, taken: dict[str, Variable]) -> str:
    free, number = name, 2
    while free in taken:
        free, number = f"{name} {number}", number + 1
    return free


def _is_data(value: Any) -> bool:
    """Whether a value is nothing but data, and not much of it."""
    budget = [_MOST_PARTS, _MOST_BYTES]
    return _is_small_data(value, budget)


def _is_small_data(value: Any, budget: list[int]) -> bool:
    budget[0] -= 1
    if budget[0] < 0:
        return False
    if isinstance(value, (*nest.PLAIN, np.generic, *(leaf.kind for leaf in nest.LEAVES.values()))):
        return True
    if isinstance(value, (np.ndarray, mindspore.Tensor)) and not isinstance(value, Parameter):
        budget[1] -= value.nbytes
        return budget[1] >= 0
    if type(value) in _ROWS:
        return all(_is_small_data(item, budget) for item in list(value))
    if type(value) in _DICTS:
        return all(_is_small_data(part, budget) for item in list(value.items()) for part in item)
    return is_walked(type(value)) and all(_is_small_data(part, budget) for _, part in nest.attributes(value))
