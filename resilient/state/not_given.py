"""What a training loop uses and was not given: objects with Parameters or Tensors that its script can reach.

From the frame that the loop stands in: its variables, the functions among them with what they close over, and
the attributes of objects. From the frames around it, loss scalers and schedules only. Most of it can be
carried as if it had been given: all who hold it hold the same object, and its values are put back into
that. Two things cannot, and are named instead: a variable that the loop itself replaces, since no one can put
a value into a variable of a function that runs; and more memory than the training itself takes.
"""

from __future__ import annotations

import dis
import functools
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import Any

import mindspore
import numpy as np
from mindspore import Parameter, nn

from resilient.state import nest
from resilient.state.nest_writer import NestWriter, TooMuchError, is_the_scripts, is_walked

_MOST_DEPTH = 6
_OUTER_DEPTH = 3
_MOST_VISITED = 20_000
_ALWAYS_BYTES = 64 * 1024 * 1024
_LOADS = frozenset({"LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_NAME", "LOAD_GLOBAL", "LOAD_DEREF"})
_STORES = frozenset({"STORE_FAST", "STORE_NAME", "STORE_GLOBAL", "STORE_DEREF"})
_NUMBERS_AND_TEXT = (int, float, complex, str, bytes, np.generic, type(None))
_STATEFUL = ("mindspore.amp", "mindspore.experimental.optim.lr_scheduler")


@dataclass
class NotGiven:
    """What was found: objects to carry, by the words of the script for them, sentences about the others, and
    the variables with numbers or text that the loop replaces."""

    carried: dict[str, Any] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)

    @property
    def remark(self) -> str:
        """One line about the objects that are carried; empty where there are none."""
        if not self.carried:
            return ""
        names = ", ".join(f"{path} ({type(one).__name__})" for path, one in self.carried.items())
        return f"the checkpoints of this loop also hold what was not given to training(): {names}"

    @property
    def lost(self) -> str:
        """One line about the values that a restart has lost; empty where there are none."""
        if not self.replaced:
            return ""
        return (
            f"the loop changes {', '.join(self.replaced)} at each round, and no checkpoint has the values: "
            "after this restart they begin with those of the script; run.step counts the steps; keep others "
            "in an object or a dict, and give it to training()"
        )


def look_around(frame: FrameType, given: list[Any], trained: dict[int, str], dataset: Any) -> NotGiven:
    """What the loop in this frame can reach beside what was given.

    ``trained`` are the parameters of the given objects, by identity. The dataset and its contents are no
    state of the loop.
    """
    found = _Search(given, trained, dataset)
    replaced = replaced_in_loop(frame.f_code, frame.f_lasti)
    seen = NotGiven()
    for name, value in variables(frame):
        if name not in replaced:
            # Those that have a name of their own are called by it.
            found.look(value, name)
    for name, value in variables(frame):
        if name in replaced and _holds_tensors(value):
            seen.findings.append(
                f"the loop replaces {name} ({type(value).__name__}) at each round, and no checkpoint has it: "
                "after a restart it begins with the script's first value; keep it in a list, a dict or a "
                "Parameter, change that in place, and give it to training()"
            )
        elif name in replaced and _is_plain(value):
            seen.replaced.append(name)
        else:
            found.walk(value, name, _MOST_DEPTH)
    found.only_stateful = True
    for outer in _around(frame):
        for name, value in variables(outer):
            found.walk(value, name, _OUTER_DEPTH)
    room = max(_ALWAYS_BYTES, sum(p.nbytes for p in found.own_parameters()))
    for path, one in found.holders.items():
        size = _size_bytes(one, trained)
        if size is None or size > room:
            seen.findings.append(
                f"{path} ({type(one).__name__}) was not given to training(), and is too large to be kept "
                "unasked: if the loop changes it, give it to training() as well"
            )
        else:
            room -= size
            seen.carried[path] = one
    return seen


def _around(frame: FrameType) -> Iterator[FrameType]:
    """The script's frames that have called this one: a loop in a function may be one epoch of theirs."""
    outer = frame.f_back
    while outer is not None and is_the_scripts(str(outer.f_globals.get("__name__", ""))):
        yield outer
        outer = outer.f_back


def variables(frame: FrameType) -> Iterator[tuple[str, Any]]:
    """The variables of a frame, and those of its module that its code names."""
    yield from list(frame.f_locals.items())
    if frame.f_locals is not frame.f_globals:
        for name in _names(frame.f_code):
            if name in frame.f_globals and name not in frame.f_locals:
                yield name, frame.f_globals[name]


def _names(code: CodeType) -> list[str]:
    """The names that a function's code looks up, those of the functions inside it among them."""
    inner = [name for part in code.co_consts if isinstance(part, CodeType) for name in _names(part)]
    return [*code.co_names, *inner]


def replaced_in_loop(code: CodeType, begins_at: int) -> set[str]:
    """The variables that the first loop behind an instruction both goes on with and replaces: used first, and
    set later. One that is set first begins anew at each round."""
    first: dict[str, bool] = {}
    replaced: set[str] = set()
    end = None
    for instruction in dis.get_instructions(code):
        if instruction.offset <= begins_at:
            continue
        if instruction.opname == "FOR_ITER" and end is None:
            end = instruction.argval
        elif end is not None and instruction.offset >= end:
            break
        # Constants, attributes and methods are loaded too, and may have the name of a variable.
        is_load, is_store = instruction.opname in _LOADS, instruction.opname in _STORES
        if end is None or not (is_load or is_store):
            continue
        name = instruction.argval
        first.setdefault(name, is_load)
        if is_store and first[name]:
            replaced.add(name)
    return replaced


def _is_plain(value: Any) -> bool:
    return isinstance(value, _NUMBERS_AND_TEXT) or (type(value) is tuple and all(map(_is_plain, value)))


def _holds_tensors(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_is_array, value))
    return any(map(_is_array, value.values())) if isinstance(value, dict) else _is_array(value)


def _is_array(value: Any) -> bool:
    return isinstance(value, (mindspore.Tensor, np.ndarray))


def _size_bytes(one: Any, trained: dict[int, str]) -> int | None:
    writer = NestWriter(trained)
    try:
        if type(one).__module__ in _STATEFUL or is_walked(type(one)):
            writer.walk(one)
        else:
            writer.write(one)
    except TooMuchError:
        return None
    return sum(blob.nbytes for blob in writer.blobs)


class _Search:
    """Walks from variable to variable, and collects those that hold Parameters or Tensors."""

    def __init__(self, given: list[Any], trained: dict[int, str], dataset: Any) -> None:
        self._trained = trained
        self._visited: dict[int, Any] = {id(one): one for one in (*given, dataset)}
        self._given = given
        self.holders: dict[str, Any] = {}
        self.only_stateful = False

    def own_parameters(self) -> list[Any]:
        """The parameters of what was given."""
        return [p for one in self._given if isinstance(one, nn.Cell) for p in one.get_parameters()]

    def walk(self, value: Any, path: str, depth: int) -> None:
        """Looks at one value, and at what it leads to."""
        if depth == 0 or id(value) in self._visited or len(self._visited) > _MOST_VISITED:
            return
        if isinstance(value, (*nest.PLAIN, type, types.ModuleType, types.BuiltinFunctionType)):
            return
        if self.look(value, path):
            return
        self._visited[id(value)] = value
        for name, part in _parts(value):
            self.walk(part, name if name.isidentifier() and not path else f"{path}{name}", depth - 1)

    def look(self, value: Any, path: str) -> bool:
        """Collects a value that holds tensors itself; whether it does."""
        if id(value) in self._visited or not self._is_holder(value):
            return False
        self._visited[id(value)] = value
        self.holders[path] = value
        return True

    def _is_holder(self, value: Any) -> bool:
        if self.only_stateful:
            return (type(value).__module__ or "") in _STATEFUL
        if isinstance(value, Parameter):
            return self._is_new(value)
        if isinstance(value, nn.Cell):
            return any(map(self._is_new, value.get_parameters()))
        if isinstance(value, (list, dict)):
            items = value.values() if isinstance(value, dict) else value
            return any(self._is_new(item) for item in items)
        if isinstance(value, tuple):
            return any(isinstance(item, Parameter) and self._is_new(item) for item in value)
        if (type(value).__module__ or "") in _STATEFUL:
            return True
        return is_walked(type(value)) and any(self._is_held(part) for _, part in nest.attributes(value))

    def _is_held(self, part: Any) -> bool:
        items = (
            part.values() if isinstance(part, dict) else part if isinstance(part, (list, tuple)) else (part,)
        )
        return any(self._is_new(item) for item in items)

    def _is_new(self, value: Any) -> bool:
        """Whether it is a tensor with values that the checkpoint has not anyway."""
        return (
            isinstance(value, mindspore.Tensor)
            and id(value) not in self._trained
            and not getattr(value, "has_init", False)
        )


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """What a value leads to, with the words for it."""
    reader: Callable[[Any], Iterator[tuple[str, Any]]] | None = next(
        (reader for kind, reader in _READERS if isinstance(value, kind)), None
    )
    if reader is not None:
        yield from reader(value)
    elif is_walked(type(value)):
        yield from ((f".{name}", part) for name, part in nest.attributes(value))


def _of_function(value: Any) -> Iterator[tuple[str, Any]]:
    code, name = value.__code__, value.__name__
    for variable, cell in zip(code.co_freevars, value.__closure__ or (), strict=False):
        try:
            yield f"({variable})", cell.cell_contents
        except ValueError:
            continue
    if hasattr(value, "__wrapped__"):
        yield "", value.__wrapped__
    if is_the_scripts(value.__module__ or ""):
        for variable in _names(code):
            if variable in value.__globals__:
                yield f"({name}:{variable})", value.__globals__[variable]


def _of_method(value: Any) -> Iterator[tuple[str, Any]]:
    yield "", value.__self__
    yield "", value.__func__


def _of_partial(value: Any) -> Iterator[tuple[str, Any]]:
    yield "", value.func
    yield from ((f"[{n}]", part) for n, part in enumerate(value.args))
    yield from ((f"[{name}]", part) for name, part in value.keywords.items())


def _of_dict(value: Any) -> Iterator[tuple[str, Any]]:
    yield from ((f"[{key!r}]", part) for key, part in list(value.items()))


def _of_row(value: Any) -> Iterator[tuple[str, Any]]:
    yield from ((f"[{n}]", part) for n, part in enumerate(value))


_READERS: tuple[tuple[Any, Callable[[Any], Iterator[tuple[str, Any]]]], ...] = (
    (types.FunctionType, _of_function),
    (types.MethodType, _of_method),
    (functools.partial, _of_partial),
    (dict, _of_dict),
    ((list, tuple), _of_row),
)
