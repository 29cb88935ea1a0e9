"""What a script has done so far: its training calls, its networks, its evaluations.

A resumed script starts at its first line again. So everything is counted by order: the n-th training call,
the n-th network that is trained, the n-th evaluation after training began. What lies before the resumed
state is not run again: finished calls are skipped, results of evaluations are given from the record.
"""

from __future__ import annotations

import enum
import weakref
from dataclasses import dataclass
from typing import Any

from mindspore import nn

from resilient.state import capture, streams
from resilient.state.counters import from_json, to_json
from resilient.state.resume import restore_network
from resilient.state.snapshot import Progress, Recovered


class Way(enum.Enum):
    """What is to be done with a training call."""

    RUN = "run it from its beginning"
    RESUME = "go on in its middle"
    SKIP = "it was finished before"


@dataclass(frozen=True)
class Start:
    """How a training call begins: its way, and the boundary it begins from."""

    way: Way
    progress: Progress


class Timeline:
    """Counts calls, networks and evaluations, against the state the run resumes from.

    ``in_loop`` tells that a loop of the user's own is at work. The evaluations in its body are none of the
    n: a loop that goes on in its middle does not come by the earlier ones again.
    """

    def __init__(self, recovered: Recovered | None) -> None:
        self.recovered = recovered
        self.evaluations: list[Any] = []
        self._recorded = list(recovered.document["evaluations"]) if recovered else []
        self._resuming = recovered is not None
        self._calls = 0
        self._last: Progress | None = None
        self._networks: list[list[weakref.ref[nn.Cell]]] = []
        self.in_loop = False

    # Calls

    def start_call(self, steps_per_epoch: int, initial_epoch: int) -> Start:
        """Counts a training call and says what is to be done with it."""
        ordinal, self._calls = self._calls, self._calls + 1
        target = self.recovered.progress if self.recovered and self._resuming else None
        if target is None or ordinal > target.call:
            self._resuming = False
            return Start(Way.RUN, self._fresh(ordinal, steps_per_epoch, initial_epoch))
        if ordinal < target.call:
            return Start(Way.SKIP, target)
        self._resuming = False
        self._last = target
        return Start(Way.SKIP if target.call_finished else Way.RESUME, target)

    def leave(self, progress: Progress) -> None:
        """A call has ended, one way or the other, at this boundary."""
        self._last = progress

    @property
    def last_step(self) -> int:
        """The step that the newest call has come to."""
        return self._last.step if self._last else 0

    @property
    def complete(self) -> bool:
        """Whether every call that was begun has also been finished."""
        return self._last is None or self._last.call_finished

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

        Raises MismatchError when they do not fit.
        """
        for ordinal, known in enumerate(self._networks):
            alive = [cell for cell in (reference() for reference in known) if cell is not None]
            if len(alive) == len(known) and _same(alive, cells):
                return ordinal
        self._networks.append([weakref.ref(cell) for cell in cells])
        ordinal = len(self._networks) - 1
        if self.recovered is not None:
            names = {parameter.name for parameter in capture.parameters(cells)}
            state = self.recovered.of_network(ordinal, names)
            # Nothing is recorded of a network that the script had already let go of.
            if state or ordinal == self.recovered.document["network"]:
                restore_network(cells, state)
            self.recovered = self.recovered.after(ordinal)
        return ordinal

    def others(self, ordinal: int) -> dict[int, capture.Cells]:
        """The other networks that have been trained and still exist."""
        found: dict[int, capture.Cells] = {}
        for number, known in enumerate(self._networks):
            alive = [cell for cell in (reference() for reference in known) if cell is not None]
            if number != ordinal and alive and len(alive) == len(known):
                found[number] = alive
        return found

    # Evaluations

    def recorded_evaluation(self) -> tuple[bool, Any]:
        """Whether the next evaluation lies before the resumed state, and its result then."""
        position = len(self.evaluations)
        if self.in_loop or position >= len(self._recorded) or self._recorded[position] is None:
            return False, None
        self.evaluations.append(self._recorded[position])
        return True, from_json(self._recorded[position])

    def record_evaluation(self, result: Any) -> None:
        """Keeps the result of an evaluation; one that JSON cannot hold is run again on a resume."""
        if self.in_loop:
            return
        try:
            self.evaluations.append(to_json(result))
        except TypeError:
            self.evaluations.append(None)

    def restore_streams(self) -> None:
        """Puts the random streams of the resumed boundary back."""
        assert self.recovered is not None
        streams.restore(self.recovered.document["streams"])


def _same(cells: capture.Cells, others: capture.Cells) -> bool:
    return {id(p) for p in capture.parameters(cells)} == {id(p) for p in capture.parameters(others)}
