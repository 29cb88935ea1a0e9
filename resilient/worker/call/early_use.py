"""The use of a trained network before a resumed script has come to the call that it resumes.

Finished calls are skipped, but the code between them runs again, and there the network has the weights of the
resumed step: nobody keeps those of each call. A loss, a metric, a schedule that follows it and a file of such
a round differ from those of a run without failures. The first such use leads to a warning, where Python comes
to it: at the call of a cell, and at ``save_checkpoint`` and ``export``.

A file of such a round is often there already: an earlier attempt has run the same code with the weights of
that round. It stays as it is. Behind the beginning of the resumed call MindSpore has its own functions again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from mindspore import Parameter, nn
from mindspore.train import serialization

from resilient.state import capture
from resilient.worker.call.interception import stand_around, stand_before

_CALL = (nn.Cell, "__call__")
# Its name, its contents, and the writing of it, which may happen in a thread or a forked process.
_NAMES, _CONTENTS, _WRITES, _EXPORTS = (
    "_check_save_obj_and_ckpt_file_name",
    "_convert_save_obj_to_param_list",
    "_exec_save",
    "_export",
)


class EarlyUse:
    """Looks out for the use of networks that have the values of a later step.

    ``warn`` hears once of a use, ``remark`` once of a file that stays. ``passes_by`` says that a finished
    call has been passed by.
    """

    def __init__(self, warn: Callable[[str], None], remark: Callable[[str], None]) -> None:
        self.passes_by = False
        self._warn = warn
        self._remark = remark
        self._step = 0
        # The objects are kept with the answers, so that no others get their identities.
        self._trained: dict[int, Parameter] = {}
        self._names: set[str] = set()
        self._known: dict[int, tuple[Any, bool]] = {}
        self._staying: set[str] = set()
        self._undo: list[Callable[[], None]] = []
        self._was_told = False
        self._has_remarked = False

    def begin(self, cells: capture.Cells, step: int) -> None:
        """These cells have the values of this step, and the call that they are from has not begun yet."""
        self._step = step
        self._trained |= {id(parameter): parameter for parameter in capture.parameters(cells)}
        self._names = {parameter.name for parameter in self._trained.values()}
        self._known.clear()
        if not self._undo:
            self._stand()

    def end(self) -> None:
        """It begins now, or is over: from here on the script sees what it saw then."""
        undo, self._undo = self._undo, []
        for one in undo:
            one()
        self._trained, self._known = {}, {}

    def _stand(self) -> None:
        self._undo.append(stand_before(*_CALL, self._called))
        if all(hasattr(serialization, name) for name in (_NAMES, _WRITES)):
            self._undo.append(stand_around(serialization, _NAMES, self._named))
            self._undo.append(stand_around(serialization, _WRITES, self._written))
        elif hasattr(serialization, _CONTENTS):
            self._undo.append(stand_before(serialization, _CONTENTS, self._saved))
        if hasattr(serialization, _EXPORTS):
            self._undo.append(stand_around(serialization, _EXPORTS, self._exported))

    # Calls

    def _called(self, cell: nn.Cell) -> None:
        if not self._was_told and self._undo and self._is_trained(cell):
            self._found(f"network ({type(cell).__name__})")

    def _is_trained(self, one: Any) -> bool:
        if id(one) not in self._known:
            self._known[id(one)] = one, any(id(parameter) in self._trained for parameter in _held(one))
        return self._known[id(one)][1]

    def _found(self, what: str) -> None:
        if self._was_told:
            return
        self._was_told = True
        self._warn(
            f"the script uses a trained {what} before the training call that it resumes: it sees the weights "
            f"of step {self._step} there, so its results and files differ from those of a run without "
            f"failures; {_ONE_LOOP if self.passes_by else _BEFORE}"
        )

    # Files

    def _named(self, original: Callable[..., str], save_obj: Any, *args: Any, **kwargs: Any) -> str:
        """The script saves something: under this name."""
        path = original(save_obj, *args, **kwargs)
        self._staying.discard(path)
        if self._undo and self._is_of_a_later_step(save_obj) and not self._stays(path):
            self._saved(save_obj)
        return path

    def _written(self, original: Callable[..., Any], path: str, *args: Any, **kwargs: Any) -> Any:
        return None if path in self._staying else original(path, *args, **kwargs)

    def _exported(
        self, original: Callable[..., Any], net: Any, path: str, kind: str, *args: Any, **kwargs: Any
    ) -> Any:
        if self._undo and isinstance(net, nn.Cell) and self._is_trained(net):
            ending = f".{kind.lower()}"
            if self._stays(path if path.endswith(ending) else path + ending):
                return None
            self._saved(net)
        return original(net, path, kind, *args, **kwargs)

    def _stays(self, path: str) -> bool:
        """Whether an earlier attempt has written this file; then nobody writes it now."""
        if not os.path.exists(path):
            return False
        self._staying.add(path)
        if not self._has_remarked:
            self._has_remarked = True
            self._remark(
                f"{os.path.basename(path)} stays as an earlier attempt wrote it, as does each file of a "
                f"trained network that the script saves before the training call that it resumes: the "
                f"network has the weights of step {self._step} there"
            )
        return True

    def _saved(self, save_obj: Any) -> None:
        if self._undo and self._is_of_a_later_step(save_obj):
            is_cell = isinstance(save_obj, nn.Cell)
            self._found(f"network ({type(save_obj).__name__})" if is_cell else "network's parameters")

    def _is_of_a_later_step(self, save_obj: Any) -> bool:
        """Whether ``save_checkpoint`` is given a trained network, its parameters, or copies of them."""
        if isinstance(save_obj, nn.Cell):
            return self._is_trained(save_obj)
        return any(id(one) in self._trained for one in _held(save_obj)) or not self._names.isdisjoint(
            _names_in(save_obj)
        )


_ONE_LOOP = (
    "make the rounds one loop, `for batch in run.steps(dataset, epochs=N)`, and evaluate in its body at the "
    "end of each epoch (run.step % steps_per_epoch == 0), or evaluate with Model.eval, whose results are kept"
)
_BEFORE = "use it before `with resilient.training(...)`"


def _held(one: Any) -> Iterable[Any]:
    """The parameters of a cell, or of what else ``save_checkpoint`` takes."""
    if isinstance(one, nn.Cell):
        return capture.parameters([one])
    items = one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
    return [item.get("data") if isinstance(item, dict) else item for item in items]


def _names_in(one: Any) -> Iterable[str]:
    """The names under which a dictionary or a list would be saved."""
    if isinstance(one, dict):
        return [name for name in one if isinstance(name, str)]
    items = one if isinstance(one, list) else ()
    return [str(item.get("name")) for item in items if isinstance(item, dict)]
