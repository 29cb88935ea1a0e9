"""Training that nothing saves: a warning when it begins.

A step of an optimizer that no watched call and no ``resilient.training`` surrounds is seen where Python comes
to it: at the call of an optimizer, of a compiled cell that contains one, and of a compiled function that
refers to one. The first such step leads to the warning, and MindSpore gets its own functions back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mindspore import nn

from resilient.worker.call.interception import stand_before


class UnsavedTraining:
    """Looks out for training that is not ``is_watched``, and tells of it once."""

    def __init__(self, tell: Callable[[], None], is_watched: Callable[[], bool]) -> None:
        self._tell = tell
        self._is_watched = is_watched
        self._undo: list[Callable[[], None]] = []
        self._known: dict[int, tuple[Any, bool]] = {}
        self.was_told = False

    def install(self) -> None:
        """Stands in front of what every step of a training comes by."""
        for optimizer in _optimizers():
            self._stand_before(optimizer, "__call__", lambda cell: True)
        self._stand_before(nn.Cell, "compile_and_run", self._has_optimizer)
        executor = _compiled_functions()
        if executor is not None:
            self._stand_before(executor, "__call__", self._refers_to_optimizer)

    def _stand_before(self, kind: Any, name: str, trains: Callable[[Any], bool]) -> None:
        def look(one: Any) -> None:
            if not self.was_told and not self._is_watched() and trains(one):
                self._found()

        self._undo.append(stand_before(kind, name, look))

    def _found(self) -> None:
        self.was_told = True
        for undo in self._undo:
            undo()
        self._tell()

    def _has_optimizer(self, cell: Any) -> bool:
        return self._once(cell, lambda: any(_is_optimizer(one) for _, one in cell.cells_and_names()))

    def _refers_to_optimizer(self, executor: Any) -> bool:
        function, owner = getattr(executor, "fn", None), getattr(executor, "obj", None)
        if isinstance(owner, nn.Cell):
            return self._has_optimizer(owner)
        return self._once(function, lambda: any(map(_is_optimizer, _reached(function))))

    def _once(self, one: Any, look: Callable[[], bool]) -> bool:
        # The object is kept with the answer, so that no other one gets its identity.
        if id(one) not in self._known:
            self._known[id(one)] = one, look()
        return self._known[id(one)][1]


def _optimizers() -> list[Any]:
    kinds = [nn.Optimizer]
    try:
        from mindspore.experimental.optim import Optimizer

        kinds.append(Optimizer)
    except ImportError:
        pass
    return kinds


def _compiled_functions() -> Any:
    """What runs a function under ``jit``; None in a MindSpore that has it elsewhere."""
    try:
        from mindspore.graph import api
    except ImportError:
        return None
    return getattr(api, "_JitExecutor", None)


def _is_optimizer(one: Any) -> bool:
    return isinstance(one, tuple(_optimizers()))


def _reached(function: Any) -> list[Any]:
    """The objects that a function's names stand for, as far as they are known before it runs."""
    code = getattr(function, "__code__", None)
    if code is None:
        return []
    found = [function.__globals__.get(name) for name in code.co_names]
    for cell in function.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:
            continue
    return found
