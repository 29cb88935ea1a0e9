"""Which cells of the networks train and which predict: what ``Cell.set_train`` has set, cell by cell.

``Model.train`` and ``Model.eval`` set it, and leave it so. A script that is run again makes no finished call
again, so the cells would still predict, and BatchNorm and Dropout compute something else. As JSON:
{ordinal of the network: a digit for each of its cells, 1 for training}.

A ``Model`` also remembers which of both it asked for last, and sets the cells only when that changes. After
the evaluation at an epoch's end (``fit``) the cells predict, and the next step would be trained like that if
the model of a resumed process remembered something else. So that stands beside the cells, as "model".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mindspore import nn

from resilient.state.capture import Cells

_TRAINING = "1"
_PREDICTING = "0"
_MODEL = "model"
_MEMORY = "_backbone_is_train"
"""The attribute of ``Model`` that says what it has asked for last."""


class CellModes:
    """The modes of all cells in some networks, given by their ordinals, and what ``model`` remembers."""

    def __init__(self, networks: Mapping[int, Cells], model: Any = None) -> None:
        self._model = model
        # Once: to walk through a network takes far longer than to look at its cells.
        self._cells = {str(ordinal): list(_all(cells)) for ordinal, cells in networks.items()}

    def capture(self) -> dict[str, str]:
        """The modes as they are."""
        modes = {
            ordinal: "".join(_digit(cell.training) for cell in cells)
            for ordinal, cells in self._cells.items()
        }
        if hasattr(self._model, _MEMORY):
            modes[_MODEL] = _digit(getattr(self._model, _MEMORY))
        return modes

    def restore(self, modes: Mapping[str, str]) -> None:
        """Makes them those of :meth:`capture`. A network that has other cells now is left as it is."""
        for ordinal, cells in self._cells.items():
            digits = modes.get(ordinal, "")
            if len(digits) != len(cells):
                continue
            for cell, digit in zip(cells, digits, strict=True):
                _set(cell, trains=digit == _TRAINING)
        if modes and hasattr(self._model, _MEMORY):
            # Earlier versions did not note it. A model whose cells all predict has asked for that.
            remembered = modes.get(_MODEL) or _digit(any(_TRAINING in digits for digits in modes.values()))
            setattr(self._model, _MEMORY, remembered == _TRAINING)


def _digit(trains: object) -> str:
    return _TRAINING if trains else _PREDICTING


def _all(cells: Cells) -> Iterator[nn.Cell]:
    return (part for cell in cells for _, part in cell.cells_and_names())


def _set(cell: nn.Cell, *, trains: bool) -> None:
    """As ``set_train`` does, for one cell alone."""
    if bool(cell.training) is not trains:
        cell._phase = "train" if trains else "predict"
        cell.add_flags(training=trains)
