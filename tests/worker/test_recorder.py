"""The recorder, struck at any instant: what it saves is whole, is what its label says, and is the newest."""

from __future__ import annotations

from hypothesis import given, settings
from recorder_parts import RecorderPlan
from recorder_world import PLANS, live


@settings(max_examples=5 * settings.default.max_examples)
@given(PLANS)
def test_a_checkpoint_holds_what_its_label_says_and_the_newest_whole_step_is_saved(plan):
    """Signals come at any line; the script's own code and our own work fail anywhere.

    Each checkpoint, and each slot in shared memory, that says step N holds the values of that boundary, to
    the bit. An exception has the newest whole step saved, once. After it a signal acts at once.
    """
    live(plan)


def test_a_signal_while_the_exception_of_a_half_done_step_flies_saves_no_half_step():
    """The call has failed in a step: the values are half-done for good, whatever comes then."""
    for mirrored in (True, False):
        world = live(RecorderPlan(kind="loop", mirrored=mirrored, every=5, save_steps=50, failures=(26,)))
        assert world.tensors.now[0] != world.tensors.now[1], "it must fail in the middle of an update"
        assert [why for _, why, failure, _ in world.saved if failure] == ["exception"]
