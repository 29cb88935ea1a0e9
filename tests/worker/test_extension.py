"""A finished training call that the script asks more epochs of."""

from __future__ import annotations

import pytest

from resilient.state.snapshot import Progress, finished
from resilient.worker.call.extension import Epochs


def resumed(asked, *, extends, said):
    epochs = Epochs(extends=extends, tell=said.append)
    epochs.resume({"epochs": asked} if asked is not None else {})
    return epochs


def end(call, call_step):
    return finished(Progress(call=call, call_step=call_step, steps_per_epoch=10))


@pytest.mark.parametrize("before", [[2, 3], None])
def test_the_newest_call_goes_on_with_the_epochs_that_it_has_grown_by(before):
    """With --extend; without it a line names the option. An older state tells nothing but where it ended."""
    said = []
    assert resumed(before, extends=True, said=said).extends(end(1, 30), 1, 5)
    assert said == []
    assert not resumed(before, extends=False, said=said).extends(end(1, 30), 1, 5)
    assert said == [
        "training call 2 was finished with 3 epochs, and the script asks for 5 now: "
        "to train the others too, run the same command with --extend"
    ]


@pytest.mark.parametrize(("call", "call_step", "why"), [(0, 30, "a later call"), (1, 17, "ended by itself")])
def test_a_call_that_cannot_go_on_is_named(call, call_step, why):
    """An earlier one has no state any more; one that stopped early would stop there again."""
    said = []
    assert not resumed([2, 3], extends=True, said=said).extends(end(1, call_step), call, 5)
    assert len(said) == 1
    assert why in said[0]


def test_calls_as_long_as_before_or_shorter_are_passed_by_in_silence():
    """Also one that ended early, and one that nothing is known of."""
    said = []
    epochs = resumed([2, 3], extends=True, said=said)
    assert not epochs.extends(end(1, 17), 0, 2)
    assert not epochs.extends(end(1, 17), 1, 3)
    assert not resumed(None, extends=True, said=said).extends(end(1, 30), 0, 7)
    assert not resumed(None, extends=True, said=said).extends(end(1, 30), 1, 2)
    assert said == []


def test_a_state_holds_what_each_call_was_asked_for():
    """Of one that is passed by what it has had, so that the next attempt compares with that too."""
    epochs = resumed([2, 3], extends=True, said=[])
    epochs.extends(end(1, 30), 0, 9)
    epochs.extends(end(1, 30), 1, 5)
    epochs.begin(1, 5)
    epochs.begin(2, 4)
    assert epochs.asked == [2, 5, 4]
    unknown = resumed(None, extends=False, said=[])
    unknown.begin(1, 5)
    assert unknown.asked == [0, 5]
