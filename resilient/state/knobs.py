"""The hyperparameters of a training: those the script gave when the run began, and those it gives now.

A state holds the values of the optimizer's parameters (a learning rate, a momentum), and resuming puts them
back, bit for bit. A person who has changed the script, its arguments or its environment in between expects
the new values. So each state carries what the script had given, under the network's ordinal:

    {"0": {"learning_rate": 0.01, "weight_decay": 0.0, "learning_rate.decay_steps": 30, ...}}

What the script gives is compared with what it gave, never with what the training has made of it: a callback
like ReduceLROnPlateau changes the parameter and not the script. A long schedule is its size, ends and digest.

Where the two differ, one line says so. The state's value is used, unless the user takes the script's
(``--take-from-script``). A value that the script's own objects hold, and no parameter, is no part of a state:
the script's is used, and the line says that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from mindspore import Parameter, nn
from mindspore import Tensor as Live

from resilient.errors import MismatchError
from resilient.state import capture
from resilient.state.snapshot import TensorValue

EVERYTHING = "all"
_LEARNING_RATE = "learning_rate"
_ALIASES = {"lr": _LEARNING_RATE, "sens": "loss_scale", "scale_sense": "loss_scale"}
_OPTION = "--take-from-script"
_DIGEST_BYTES = 8
_SHORT = 4
_SINGLE = 1

# What every cell has, and what an optimizer computes of the values that it was given.
_NO_KNOBS = frozenset(vars(nn.Cell())) | {
    "delta",
    "enable_tuple_broaden",
    "grad_centralization_flags",
    "increase_tensor",
    "math_pi",
    "optim_filter",
    "reciprocal_scale",
    "skip_auto_parallel_compile",
    "use_parallel",
}
_NO_KNOB_PREFIXES: tuple[str, ...] = (
    "_",
    "decay_flags",
    "dynamic_",
    "exec_",
    "global_step",
    "group_",
    "init_",
    "is_",
    "need_",
)
_NO_KNOB_PREFIXES += ("param_",)


@dataclass(frozen=True)
class Knob:
    """A hyperparameter as the script gives it: ``value`` is JSON; ``in_state``: a parameter holds it."""

    value: Any
    in_state: bool


class Knobs:
    """The hyperparameters of a run's networks. ``given`` goes into each state.

    ``taken`` are the names that the user wants the script's values of ("lr", "all"); with ``extends`` a
    schedule of another length is the script's too, because its length follows the number of steps. ``tell``
    hears one line for each that differs.
    """

    def __init__(
        self,
        taken: Collection[str] = (),
        *,
        extends: bool = False,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._taken = taken
        self._extends = extends
        self._tell = tell
        self._now: dict[int, dict[str, Knob]] = {}
        self._settled: dict[int, frozenset[str]] = {}
        self._lines: list[str] = []
        self.given: dict[str, dict[str, Any]] = {}

    def resume(self, document: Mapping[str, Any]) -> None:
        """From now on the state is one with this document."""
        self._settled = {}
        self.given = {ordinal: dict(values) for ordinal, values in document.get("knobs", {}).items()}
        for ordinal, knobs in self._now.items():
            self.given.setdefault(str(ordinal), _values(knobs))

    def read(self, ordinal: int, cells: capture.Cells) -> None:
        """Notes what the script gives a network, before any state is put in."""
        self._now[ordinal] = dict(_of_cells(cells))
        self.given.setdefault(str(ordinal), _values(self._now[ordinal]))

    def forget(self, first: int) -> None:
        """Networks from this ordinal on are trained already: they no longer show what the script gave."""
        self._now = {ordinal: knobs for ordinal, knobs in self._now.items() if ordinal < first}

    def settle(self, ordinal: int, state: Mapping[str, TensorValue]) -> frozenset[str]:
        """The names of parameters that keep the script's value instead of the state's.

        Raises MismatchError where the state's learning rate cannot be put in and the script's was not asked
        for.
        """
        if ordinal not in self._settled and ordinal in self._now:
            self._settled[ordinal] = frozenset(self._compare(self.given[str(ordinal)], ordinal, state))
        return self._settled.get(ordinal, frozenset())

    def _compare(
        self, given: dict[str, Any], ordinal: int, state: Mapping[str, TensorValue]
    ) -> Iterator[str]:
        now = self._now[ordinal]
        for name in [*now, *(name for name in given if name not in now)]:
            knob = now.get(name, Knob(None, name in state))
            before, held = given.get(name), state.get(name)
            if knob.value == before:
                continue
            asked = self._is_asked_for(name)
            fits = held is not None and name in now and _size(knob.value) == _size(before)
            follows = asked or not knob.in_state or (self._extends and not fits)
            if not follows and not fits:
                if _kind(name) != _LEARNING_RATE:
                    # Another optimizer, or another network: who puts the values in says so.
                    continue
                raise MismatchError(
                    f"{name}: the script gives {_shown(knob.value)} now, the state has {_shown(before)}",
                    hint=f"restore the script as it was, or use its value: {_OPTION} {_short(name)}",
                )
            self._say(name, knob, before, held, follows=follows, asked=asked)
            if follows:
                given[name] = knob.value
                if knob.in_state:
                    yield name

    def _is_asked_for(self, name: str) -> bool:
        kind = _kind(name)
        return any(word in (EVERYTHING, name) or _kind(word) == kind for word in self._taken)

    def _say(
        self, name: str, knob: Knob, before: Any, held: TensorValue | None, *, follows: bool, asked: bool
    ) -> None:
        now, then, in_state = _shown(knob.value), _shown(before), _shown_state(held)
        used = f"the state's {in_state} is used; to use the script's: {_OPTION} {_short(name)}"
        if follows and not knob.in_state:
            used = f"the script's {now} is used: no state holds it"
        elif follows:
            why = f"{_OPTION}" if asked else "--extend: its length follows the number of steps"
            used = f"the script's {now} is used instead of the state's {in_state} ({why})"
        line = f"{name}: the script gives {now} now, and gave {then} when the run began; {used}"
        self._lines.append(line)

    def restored(self) -> None:
        """A state was put in, and nothing else was wrong with the script: tells what differs."""
        lines, self._lines = self._lines, []
        for line in lines:
            self._tell(line)


def _values(knobs: Mapping[str, Knob]) -> dict[str, Any]:
    return {name: knob.value for name, knob in knobs.items()}


def _of_cells(cells: capture.Cells) -> Iterator[tuple[str, Knob]]:
    optimizers = [cell for outer in cells for _, cell in outer.cells_and_names() if _is_optimizer(cell)]
    unique = list({id(cell): cell for cell in optimizers}.values())
    names = {id(parameter): name for name, parameter in capture.named(cells).items()}
    for number, optimizer in enumerate(unique, 1):
        yield from _of_optimizer(optimizer, "" if number == 1 else f"optimizer {number}: ", names)
    for cell in cells:
        # The scale of the loss, of the cells that train one step.
        scale = getattr(cell, "scale_sense", None)
        if isinstance(scale, Parameter):
            yield names[id(scale)], Knob(_value(scale), in_state=True)
        elif isinstance(getattr(cell, "sens", None), (int, float)):
            yield "loss_scale", Knob(float(cell.sens), in_state=False)


def _is_optimizer(cell: nn.Cell) -> bool:
    is_grouped = isinstance(getattr(cell, "param_groups", None), list) and hasattr(cell, "defaults")
    return isinstance(cell, nn.Optimizer) or is_grouped


def _of_optimizer(optimizer: nn.Cell, label: str, names: Mapping[int, str]) -> Iterator[tuple[str, Knob]]:
    trained = {parameter.name for parameter in optimizer.parameters}
    for parameter in optimizer.get_parameters():
        if _is_knob(parameter, trained):
            yield names[id(parameter)], Knob(_value(parameter), in_state=True)
    for path, cell in optimizer.cells_and_names():
        for name, value in vars(cell).items():
            found = None if name in _NO_KNOBS or name.startswith(_NO_KNOB_PREFIXES) else _value(value)
            if found is not None and not isinstance(value, Parameter):
                yield label + ".".join(filter(None, (path, name))), Knob(found, in_state=False)
    for number, group in enumerate(getattr(optimizer, "param_groups", ())):
        for name, value in group.items():
            if name != "params" and (found := _value(value)) is not None:
                yield f"{label}{name} of group {number}", Knob(found, in_state=False)


def _is_knob(parameter: Parameter, trained: Collection[str]) -> bool:
    """Whether it is a number that the script gave, and no moment of a weight, no counter, and no power."""
    owner = parameter.name.partition(".")[2]
    is_number = "Float" in str(parameter.dtype) and len(parameter.shape) <= 1
    return (
        is_number
        and parameter.name not in trained
        and owner not in trained
        and "_power" not in parameter.name
    )


def _value(value: Any) -> Any:
    """A number, or a row of them, as JSON; None for everything else."""
    if isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Parameter):
        return _of_array(capture.values(value))
    if isinstance(value, Live):
        return _of_array(value.asnumpy())
    if isinstance(value, (tuple, list)) and value:
        numbers = [_value(one) for one in value if not isinstance(one, Parameter)]
        if len(numbers) == len(value) and all(isinstance(one, (bool, int, float)) for one in numbers):
            return numbers[0] if len(set(numbers)) == _SINGLE else _of_array(np.array(numbers, np.float64))
    return None


def _of_array(array: np.ndarray[Any, Any]) -> Any:
    flat = np.ravel(array)
    if flat.dtype.kind not in "fiub" and "float" not in str(flat.dtype):
        return None
    # As NumPy writes it: 0.01 for the Float32 that is nearest to it.
    numbers = [float(str(number)) for number in (flat if flat.size <= _SHORT else flat[[0, -1]])]
    if flat.size == _SINGLE:
        return numbers[0]
    if flat.size <= _SHORT:
        return numbers
    digest = hashlib.blake2b(np.ascontiguousarray(flat).tobytes(), digest_size=_DIGEST_BYTES).hexdigest()
    return {"size": int(flat.size), "first": numbers[0], "last": numbers[-1], "digest": digest}


def _size(value: Any) -> int:
    if isinstance(value, dict):
        return int(value.get("size", 0))
    return len(value) if isinstance(value, list) else _SINGLE


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, dict):
        ends = f"{value.get('first')} to {value.get('last')}"
        return f"{value.get('size')} values ({ends}, {str(value.get('digest'))[:4]})"
    return str(value)


def _shown_state(held: TensorValue | None) -> str:
    if held is None:
        return "none"
    try:
        array = np.frombuffer(held.data, dtype=held.dtype.lower())
    except TypeError:
        return f"value of type {held.dtype}"
    return _shown(_of_array(array))


def _kind(name: str) -> str:
    """A knob's kind: that of ``learning_rate_group_0``, ``optimizer 2: learning_rate.max_lr`` is one."""
    plain = name.rpartition(": ")[2].partition(" of group")[0].partition("_group_")[0]
    # A schedule has its numbers behind a dot; what tells two optimizers apart is before one.
    parts = [_ALIASES.get(part, part) for part in plain.split(".")]
    return next((part for part in parts if part in (_LEARNING_RATE, "weight_decay")), parts[-1])


def _short(name: str) -> str:
    return "lr" if _kind(name) == _LEARNING_RATE else _kind(name)
