"""The use of a trained network before a resumed script has come to the call that it resumes.

Finished calls are skipped, but the code between them runs again, and there the network has the weights of the
resumed step: nobody keeps those of each call. A loss, a metric, a schedule that follows it and a file of such
a round differ from those of a run without failures. The first such use leads to a warning, where Python comes
to it: at the call of a cell, and at ``save_checkpoint``. Then MindSpore gets its own functions back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from mindspore import Parameter, nn
from mindspore.train import serialization

from resilient.state import capture
from resilient.worker.call.interception import stand_before

_PLACES = ((nn.Cell, "__call__"), (serialization, "_convert_save_obj_to_param_list"))


class EarlyUse:
    """Looks out for the use of networks that have the values of a later step; tells of it once.

    ``passes_by`` says that a finished call has been passed by.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.passes_by = False
        self._tell = tell
        self._step = 0
        # The objects are kept with the answers, so that no others get their identities.
        self._trained: dict[int, Parameter] = {}
        self._known: dict[int, tuple[Any, bool]] = {}
        self._undo: list[Callable[[], None]] = []
        self._was_told = False

    def begin(self, cells: capture.Cells, step: int) -> None:
        """These cells have the values of this step, and the call that they are from has not begun yet."""
        self._step = step
        self._trained |= {id(parameter): parameter for parameter in capture.parameters(cells)}
        self._known.clear()
        if not self._undo and not self._was_told:
            for owner, name in _PLACES:
                if hasattr(owner, name):
                    self._undo.append(stand_before(owner, name, self._look))

    def end(self) -> None:
        """It begins now, or is over: from here on the script sees what it saw then."""
        undo, self._undo = self._undo, []
        for one in undo:
            one()
        self._trained, self._known = {}, {}

    def _look(self, one: Any) -> None:
        if self._undo and self._is_trained(one):
            self._found(one)

    def _is_trained(self, one: Any) -> bool:
        if id(one) not in self._known:
            self._known[id(one)] = one, any(id(parameter) in self._trained for parameter in _held(one))
        return self._known[id(one)][1]

    def _found(self, one: Any) -> None:
        self._was_told = True
        self.end()
        what = f"network ({type(one).__name__})" if isinstance(one, nn.Cell) else "network's parameters"
        self._tell(
            f"the script uses a trained {what} before the training call that it resumes: it sees the weights "
            f"of step {self._step} there, so its results and files differ from those of a run without "
            f"failures; {_ONE_LOOP if self.passes_by else _BEFORE}"
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
