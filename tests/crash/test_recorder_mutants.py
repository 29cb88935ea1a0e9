"""The recorder's property can fail: faults that are seeded into the recorder, its table and its keepers."""

from __future__ import annotations

import pytest
from hypothesis import Phase, find, settings
from mutation import Mutant, alive
from recorder_world import PLANS, live

RECORDER = "resilient.worker.boundary.recorder"
KEEPING = "resilient.worker.boundary.keeper"
MIRROR_KEEPER = "resilient.worker.boundary.mirror_keeper"
SEARCH = settings(max_examples=4000, phases=[Phase.generate], derandomize=True, database=None, deadline=None)


MUTANTS = [
    Mutant(
        "a failed call is believed to be between two steps",
        "resilient.worker.boundary.phases",
        "        before, self.state = self.savable, TABLE[self.state, event]\n",
        "        before = self.savable\n"
        "        self.state = CallState.BETWEEN if event is CallEvent.FAIL else TABLE[self.state, event]\n",
    ),
    Mutant(
        "our own work leaves the call between two steps",
        RECORDER,
        "        recorder._working = max(0, recorder._working - 1)\n",
        "        recorder._working = max(0, recorder._working - 1)\n"
        "        recorder._phases.state = CallState.BETWEEN if error is None else recorder._phases.state\n",
    ),
    Mutant(
        "a step is not told before its hooks",
        RECORDER,
        "        self._phases.feed(CallEvent.STEP_BEGINS)\n",
        "        pass\n",
    ),
    Mutant(
        "the next boundary is saved under the last one's step",
        RECORDER,
        "        if savable is Savable.NEXT:\n",
        "        if savable is Savable.NOTHING:\n",
    ),
    Mutant(
        "a step whose callbacks have not all run is saved as complete",
        RECORDER,
        "            if self._resumes_hooks:\n",
        "            if not self._resumes_hooks:\n",
    ),
    Mutant(
        "a torn copy counts as held",
        KEEPING,
        "            self.held = None\n",
        "            self.held = boundary\n",
    ),
    Mutant(
        "the phase moves on before the boundary is held",
        RECORDER,
        "        wanted = self._keeper.wants(",
        "        self._phases.feed(CallEvent.FINISH if progress.call_finished else CallEvent.EPOCH_ENDS)\n"
        "        wanted = self._keeper.wants(",
    ),
    Mutant(
        "a failed save is not tried again",
        RECORDER,
        "max(saved_step, self._last_failure_step)",
        "boundary.progress.step",
    ),
    Mutant(
        "the same step is saved at each failure",
        RECORDER,
        "            if boundary is None or boundary.progress.step <= self._last_failure_step:\n",
        "            if boundary is None:\n",
        also=Mutant("", MIRROR_KEEPER, "        if step <= self._safe_step:\n", "        if step < 0:\n"),
    ),
    Mutant(
        "signals act in the middle of a step, on the live values",
        RECORDER,
        "self._phases.state not in SIGNALS_WAIT\n",
        "True\n",
        also=Mutant(
            "", RECORDER, "        if savable is Savable.HELD:\n", "        if savable is Savable.LIVE:\n"
        ),
    ),
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_seeded_fault_is_noticed(mutant):
    """The property of ``test_recorder`` finds each of these faults."""

    def finds(plan):
        try:
            live(plan)
        except AssertionError:
            return True
        return False

    with alive(mutant):
        assert find(PLANS, finds, settings=SEARCH)
