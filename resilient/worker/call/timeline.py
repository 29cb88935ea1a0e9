"""What a script has done so far: its training calls, its networks, its evaluations.

A resumed script starts at its first line again. So everything is counted by order: the n-th training call,
the n-th network that is trained, the n-th evaluation after training began. What lies before the resumed
state is not run again: finished calls are skipped, results of evaluations are given from the record.
"""

from __future__ import annotations

import enum
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mindspore import nn

from resilient.state import capture, execution, random_streams
from resilient.state.cell_attributes import CellAttributes
from resilient.state.cell_modes import CellModes
from resilient.state.counters import from_json, to_json
from resilient.state.finished_calls import FinishedCalls
from resilient.state.knobs import Knobs
from resilient.state.resume import restore_network
from resilient.state.snapshot import Progress, Recovered
from resilient.state.trail import CALLS, EVALUATIONS, Trail
from resilient.worker.call.early_use import EarlyUse
from resilient.worker.call.extension import Epochs


class Way(enum.Enum):
    """What is to be done with a training call."""

    RUN = "run it from its beginning"
    RESUME = "go on in its middle"
    SKIP = "it was finished before"


@dataclass(frozen=True)
class Start:
    """How the n-th training call begins: its way, and the boundary it begins from."""

    way: Way
    progress: Progress
    ordinal: int


@dataclass(frozen=True)
class Mark:
    """How far a script had come: so many calls, networks and evaluations, and its newest boundary."""

    calls: int
    networks: int
    evaluations: int
    last: Progress | None


class Timeline:
    """Counts calls, networks and evaluations, against the state the run resumes from.

    ``places`` are those whose checkpoints it knows. ``in_loop`` tells that a loop of the user's own is at
    work. The evaluations in its body are none of the n: a loop that goes on in its middle does not come by
    the earlier ones again. ``knobs`` and ``epochs`` are what the script gives, against what it gave.
    ``has_trained`` tells that a call was made in this process, and not passed by. ``early`` looks out for
    what the script does with its networks before it has come to the call that it resumes.
    """

    def __init__(
        self, knobs: Knobs | None = None, epochs: Epochs | None = None, early: EarlyUse | None = None
    ) -> None:
        self.knobs = knobs or Knobs()
        self.epochs = epochs or Epochs()
        self._early = early or EarlyUse(lambda text: None, lambda text: None)
        self.recovered: Recovered | None = None
        self.evaluations: list[Any] = []
        self.trail = Trail()
        self.ended = FinishedCalls()
        self.places: set[Path] = set()
        self.in_loop = False
        self._recorded: list[Any] = []
        self._resuming = False
        self._calls = 0
        self._last: Progress | None = None
        self._networks: list[list[weakref.ref[nn.Cell]]] = []
        self.has_trained = False
        self._failed: tuple[Mark, list[weakref.ref[nn.Cell]]] | None = None

    # Going on, and going back

    @property
    def floor(self) -> int:
        """States of earlier steps are of no use: the script has come so far already."""
        if not self.places:
            return self.last_step
        target = self.recovered.progress.step if self.recovered is not None and self._resuming else 0
        return max(target, self.last_step) + 1

    def go_on_from(self, recovered: Recovered) -> None:
        """Resumes from a state that lies further than what the script has done so far.

        Raises MismatchError when it does not fit the networks that are there.
        """
        self.recovered = recovered
        self._recorded = list(recovered.document["evaluations"])
        self.trail = Trail(recovered.document.get("trail"))
        self.ended = recovered.ended(self.ended.holdovers)
        self.knobs.resume(recovered.document)
        self.epochs.resume(recovered.document)
        self._resuming = recovered.progress.call >= self._calls
        self._restore_known()

    def mark(self) -> Mark:
        """How far the script is now."""
        return Mark(self._calls, len(self._networks), len(self.evaluations), self._last)

    def rewind(self, mark: Mark) -> None:
        """What the script has done since then is going to be done again, from what is on disk."""
        del self._networks[mark.networks :], self.evaluations[mark.evaluations :]
        self.knobs.forget(mark.networks)
        self._calls, self._last = mark.calls, mark.last
        self.recovered, self._recorded = None, []
        self._arrive()
        self.places.clear()

    def failed(self, mark: Mark, cells: capture.Cells) -> None:
        """What began at this mark, with these cells, has failed."""
        self._failed = mark, _references(cells)

    def retried(self, cells: capture.Cells, *, anew: bool = False) -> Mark | None:
        """Where that began which failed last, if it is begun again now: by the same cells, or ``anew``."""
        failed, self._failed = self._failed, None
        if failed is None:
            return None
        mark, references = failed
        known = _alive(references)
        return mark if anew or (known is not None and _same(known, cells)) else None

    # Calls

    def start_call(
        self, steps_per_epoch: int, initial_epoch: int, epochs: int, retried: Mark | None = None
    ) -> Start:
        """Counts a training call, of so many epochs, and says what is to be done with it.

        One that failed, and that the script makes again, is the same call: a script that is run again makes
        it once.
        """
        if retried is not None:
            self._calls = retried.calls
            del self.evaluations[retried.evaluations :]
        ordinal, self._calls = self._calls, self._calls + 1
        target = self.recovered.progress if self.recovered and self._resuming else None
        if target is None or ordinal > target.call:
            self._arrive()
            self.epochs.begin(ordinal, epochs)
            self.has_trained = True
            return Start(Way.RUN, self._fresh(ordinal, steps_per_epoch, initial_epoch), ordinal)
        is_over = target.call_finished or ordinal < target.call
        if is_over and self.epochs.extends(target, ordinal, epochs):
            target = replace(target, call_finished=False)
        if ordinal < target.call:
            self._early.passes_by = True
            return Start(Way.SKIP, target, ordinal)
        self._arrive()
        self._last = target
        # What the script has done to its networks on the way here is part of the state already.
        self._restore_known()
        if target.call_finished:
            return Start(Way.SKIP, target, ordinal)
        self.epochs.begin(ordinal, epochs)
        self.has_trained = True
        return Start(Way.RESUME, target, ordinal)

    def _arrive(self) -> None:
        """Nothing of the resumed state lies before the script any more."""
        self._resuming = False
        self._early.end()

    def skip(self, start: Start, tell: Callable[[str], None]) -> None:
        """A call is not run again: what the script draws after it must be what it drew then.

        So must be how it computes; ``tell`` hears of what it had set otherwise. Attributes of cells are those
        of the resumed step, as the weights are.
        """
        if self.recovered is not None:
            CellAttributes(self.others(-1)).restore(self.recovered.document.get("cell_attributes", {}), tell)
        if start.ordinal < start.progress.call:
            self.trail.follow(CALLS, start.ordinal, self._modes(), tell)
        elif self.recovered is not None:
            random_streams.restore(self.recovered.document["streams"])
            execution.restore(self.recovered.document.get("context", {}), tell)
            self._modes().restore(self.recovered.document.get("cell_modes", {}))
            self.trail.note(CALLS, start.ordinal, self._modes())

    def leave(self, progress: Progress) -> None:
        """A call has ended, one way or the other, at this boundary."""
        self._last = progress
        if self.recovered is not None and not self._resuming:
            self.recovered = self.recovered.without_side_state()
        if progress.call_finished:
            self.trail.note(CALLS, progress.call, self._modes())

    @property
    def last_step(self) -> int:
        """The step that the newest call has come to."""
        return self._last.step if self._last else 0

    @property
    def complete(self) -> bool:
        """Whether every call that was begun has also been finished, those of earlier attempts included."""
        return not self.behind and (self._last is None or self._last.call_finished)

    @property
    def behind(self) -> bool:
        """Whether the script has not come yet to the call that the resumed state is from."""
        return self._resuming

    def _fresh(self, ordinal: int, steps_per_epoch: int, initial_epoch: int) -> Progress:
        steps, epochs = (self._last.step, self._last.epoch) if self._last else (0, 0)
        return Progress(
            call=ordinal,
            call_step=0,
            steps_per_epoch=steps_per_epoch,
            # A script that loads a checkpoint of its own says with initial_epoch what lies behind it.
            base_step=max(steps, initial_epoch * steps_per_epoch),
            base_epoch=max(epochs, initial_epoch),
        )

    # Networks

    def enter(self, cells: capture.Cells) -> int:
        """The ordinal of what is being trained; puts the recovered values in at its first use.

        They are put in once more when the call that they are from begins: in between, the script may change
        what it has trained (a new head, clipped weights), and in the state that has been done.

        Raises MismatchError when they do not fit.
        """
        for ordinal, known in enumerate(self._networks):
            alive = _alive(known)
            if alive is not None and _same(alive, cells):
                return ordinal
        ordinal = len(self._networks)
        self.knobs.read(ordinal, cells)
        self._restore(ordinal, cells)
        self._networks.append(_references(cells))
        return ordinal

    def _restore(self, ordinal: int, cells: capture.Cells) -> None:
        if self.recovered is None:
            return
        state = self.recovered.of_network(ordinal, capture.named(cells).keys())
        # Nothing is recorded of a network that the script had already let go of.
        if state or ordinal == self.recovered.document["network"]:
            restore_network(cells, state, self.knobs.settle(ordinal, state))
            self.knobs.restored()
        if self._resuming:
            self._early.begin(cells, self.recovered.progress.step)
        else:
            self.recovered = self.recovered.after(ordinal)

    def _restore_known(self) -> None:
        for ordinal, known in enumerate(self._networks):
            cells = _alive(known)
            if cells is not None:
                self._restore(ordinal, cells)

    def others(self, ordinal: int) -> dict[int, capture.Cells]:
        """The other networks that have been trained and still exist."""
        found: dict[int, capture.Cells] = {}
        for number, known in enumerate(self._networks):
            alive = _alive(known)
            if number != ordinal and alive:
                found[number] = alive
        return found

    def _modes(self) -> CellModes:
        return CellModes(self.others(-1))

    # Evaluations

    def recorded_evaluation(self, tell: Callable[[str], None]) -> tuple[bool, Any]:
        """Whether the next evaluation lies before the resumed state, and its result then."""
        position = len(self.evaluations)
        if self.in_loop or position >= len(self._recorded) or self._recorded[position] is None:
            return False, None
        self.evaluations.append(self._recorded[position])
        self.trail.follow(EVALUATIONS, position, self._modes(), tell)
        return True, from_json(self._recorded[position])

    def record_evaluation(self, result: Any) -> None:
        """Keeps the result of an evaluation; one that JSON cannot hold is run again on a resume."""
        if self.in_loop:
            return
        self.trail.note(EVALUATIONS, len(self.evaluations), self._modes())
        try:
            self.evaluations.append(to_json(result))
        except TypeError:
            self.evaluations.append(None)


def _references(cells: capture.Cells) -> list[weakref.ref[nn.Cell]]:
    return [weakref.ref(cell) for cell in cells]


def _alive(references: list[weakref.ref[nn.Cell]]) -> list[nn.Cell] | None:
    """The cells, if all of them still exist."""
    cells = [cell for cell in (reference() for reference in references) if cell is not None]
    return cells if len(cells) == len(references) else None


def _same(cells: capture.Cells, others: capture.Cells) -> bool:
    return {id(p) for p in capture.parameters(cells)} == {id(p) for p in capture.parameters(others)}
