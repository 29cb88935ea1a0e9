"""The random streams after each training call and each evaluation of a run, once it is over.

A script that is run again makes none of those a second time, but what it draws behind them (a split of its
data, a new head) must be what it drew then. As JSON:

    {"states": {key: a stream's state}, "calls": [[keys], ...], "evaluations": [[keys], ...]}

Most scripts draw little, so the same states come again and again: each is kept once, under its digest. Where
nothing is known of one, its keys are an empty list. Beside the streams stand how MindSpore computed then
(``execution``), under the name ``context``, and which cells trained (``cell_modes``), under the name
``cell_modes``; runs of earlier versions have neither.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from resilient.state import execution, random_streams
from resilient.state.cell_modes import CellModes

CALLS = "calls"
EVALUATIONS = "evaluations"
_STATES = "states"
_CONTEXT = "context"
_CELL_MODES = "cell_modes"
_KEY_BYTES = 12


class Trail:
    """Grows with the run. ``document`` is one that :meth:`to_json` gave."""

    def __init__(self, document: Mapping[str, Any] | None = None) -> None:
        found = document or {}
        self._states: dict[str, list[Any]] = dict(found.get(_STATES, {}))
        self._passed: dict[str, list[list[str]]] = {
            kind: list(found.get(kind, [])) for kind in (CALLS, EVALUATIONS)
        }

    def note(self, kind: str, position: int, modes: CellModes) -> None:
        """The n-th call or evaluation is over, now; of later ones nothing is known any more."""
        passed = self._passed[kind]
        del passed[position:]
        passed.extend([] for _ in range(position - len(passed)))
        states = {**random_streams.capture(), _CONTEXT: execution.capture(), _CELL_MODES: modes.capture()}
        passed.append([self._keep(name, state) for name, state in states.items()])

    def follow(self, kind: str, position: int, modes: CellModes, tell: Callable[[str], None]) -> None:
        """Puts the streams, and how MindSpore computes, to what they were after the n-th one, if it is known.

        ``tell`` hears of the settings that were others.
        """
        passed = self._passed[kind]
        if position < len(passed):
            states = dict(self._states[key] for key in passed[position])
            random_streams.restore(states)
            execution.restore(states.get(_CONTEXT, {}), tell)
            modes.restore(states.get(_CELL_MODES, {}))

    def to_json(self) -> dict[str, Any]:
        """Everything, as it is now."""
        return {_STATES: dict(self._states), **{kind: list(passed) for kind, passed in self._passed.items()}}

    def _keep(self, name: str, state: Any) -> str:
        named = [name, state]
        key = hashlib.blake2b(json.dumps(named).encode(), digest_size=_KEY_BYTES).hexdigest()
        self._states[key] = named
        return key
